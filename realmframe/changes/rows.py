"""Rows as objects and back, for what is merged, nested or tested; never for bulk."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from realmframe.changes import instructions as ins
from realmframe.changes.builder import instructions_to_columns
from realmframe.changes.columns import COLUMNS, NO_KEY, Changeset
from realmframe.changes.instructions import Instruction, Path
from realmframe.errors import BadChangesetError
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    GlobalKey,
    Key,
    Link,
    Marker,
    ObjectId,
    Payload,
    PayloadType,
    PropertyType,
    Timestamp,
)

__all__ = ["columns_to_instructions", "instructions_to_columns"]

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_MARKERS: Final[dict[int, Marker]] = {
    PayloadType.OBJECT_VALUE: Marker.OBJECT_VALUE,
    PayloadType.DICTIONARY: Marker.DICTIONARY,
    PayloadType.ERASED: Marker.ERASED,
    PayloadType.LIST: Marker.LIST,
    PayloadType.SET: Marker.SET,
}


class _Reader:
    """The columns as Python lists, and the objects that they stand for."""

    def __init__(self, changeset: Changeset) -> None:
        self.column = {name: getattr(changeset, name).tolist() for name in COLUMNS}
        self.path = changeset.path.tolist()
        self.path_is_key = changeset.path_is_key.tolist()
        self.string = changeset.string
        self.heap = changeset.heap

    def key(self, kind: int, hi: int, lo: int) -> Key:
        if kind == PayloadType.INT:
            return lo
        if kind == PayloadType.STRING:
            return self.string(lo)
        if kind == PayloadType.GLOBAL_KEY:
            return GlobalKey(hi & _MASK, lo & _MASK)
        if kind == PayloadType.OBJECT_ID:
            return ObjectId(struct.pack(">qI", hi, lo))
        if kind == PayloadType.UUID:
            return uuid.UUID(bytes=struct.pack(">qq", hi, lo))
        if kind == PayloadType.NULL:
            return None
        raise BadChangesetError(f"A changeset's columns hold {kind} as the type of an object key.")

    def value(self, i: int) -> Payload:
        column = self.column
        kind, hi, lo = column["value_type"][i], column["value_hi"][i], column["value_lo"][i]
        if kind in _SIMPLE:
            return _SIMPLE[kind](hi, lo)
        if kind in (PayloadType.STRING, PayloadType.BINARY):
            data: bytes = self.heap[hi : hi + lo].tobytes()
            return data if kind == PayloadType.BINARY else data.decode("utf-8", "surrogateescape")
        if kind == PayloadType.LINK:
            return Link(self.string(column["link_table"][i]), self.key(column["link_type"][i], hi, lo))
        if kind in _MARKERS:
            return _MARKERS[kind]
        raise BadChangesetError(f"Instruction {i} of a changeset's columns holds {kind} as the type of a value.")

    def steps(self, i: int) -> Path:
        start = self.column["path_start"][i]
        span = range(start, start + self.column["path_len"][i])
        return tuple(self.string(self.path[j]) if self.path_is_key[j] else self.path[j] for j in span)

    def rows(self) -> Iterator[Instruction]:
        column, string = self.column, self.string
        for i, op in enumerate(column["op"]):
            table = string(column["table"][i])
            if op in _SCHEMA:
                yield _SCHEMA[op](self, i, table)
                continue
            pk = self.key(column["key_type"][i], column["key_hi"][i], column["key_lo"][i])
            if op in _WHOLE:
                yield _WHOLE[op](table, pk)
                continue
            yield _PATHS[op](self, i, (table, pk, string(column["field"][i]), self.steps(i)))


_SIMPLE: Final[dict[int, Callable[[int, int], Payload]]] = {
    PayloadType.NULL: lambda hi, lo: None,
    PayloadType.INT: lambda hi, lo: lo,
    PayloadType.BOOL: lambda hi, lo: lo != 0,
    PayloadType.TIMESTAMP: Timestamp,
    PayloadType.FLOAT: lambda hi, lo: np.uint32(lo & 0xFFFFFFFF).view(np.float32),
    PayloadType.DOUBLE: lambda hi, lo: struct.unpack("<d", struct.pack("<q", lo))[0],
    PayloadType.DECIMAL: lambda hi, lo: Decimal128(hi & _MASK, lo & _MASK),
    PayloadType.OBJECT_ID: lambda hi, lo: ObjectId(struct.pack(">qI", hi, lo)),
    PayloadType.UUID: lambda hi, lo: uuid.UUID(bytes=struct.pack(">qq", hi, lo)),
}


def _type(code: int) -> Any:
    """Return the type of a column; one that no property can have (bytes may say so) keeps its code."""
    return PropertyType(code) if code in PropertyType.__members__.values() else PayloadType(code)


def _add_table(r: _Reader, i: int, table: str) -> ins.AddTable:
    kind = ClassKind(r.column["aux2"][i])
    if kind is ClassKind.EMBEDDED:
        return ins.AddTable(table, kind)
    code = r.column["value_type"][i]
    pk_type = None if code == PayloadType.GLOBAL_KEY else PropertyType(code)
    return ins.AddTable(table, kind, r.string(r.column["field"][i]), pk_type, r.column["aux"][i] != 0)


def _add_column(r: _Reader, i: int, table: str) -> ins.AddColumn:
    column = r.column
    target, key_type = column["link_table"][i], column["link_type"][i]
    return ins.AddColumn(
        table,
        r.string(column["field"][i]),
        _type(column["value_type"][i]),
        column["aux"][i] != 0,
        Collection(column["aux2"][i]),
        None if target < 0 else r.string(target),
        None if key_type == NO_KEY else _type(key_type),
    )


def _update(r: _Reader, i: int, at: tuple[str, Key, str, Path]) -> ins.Update:
    aux = r.column["aux"][i]
    if at[3] and not isinstance(at[3][-1], str):
        return ins.Update(*at, r.value(i), prior_size=aux)
    return ins.Update(*at, r.value(i), is_default=aux != 0)


_SCHEMA: Final[dict[int, Callable[[_Reader, int, str], Instruction]]] = {
    0: _add_table,
    1: lambda r, i, table: ins.EraseTable(table),
    6: _add_column,
    7: lambda r, i, table: ins.EraseColumn(table, r.string(r.column["field"][i])),
}
_WHOLE: Final[dict[int, Callable[[str, Key], Instruction]]] = {2: ins.CreateObject, 3: ins.EraseObject}
_PATHS: Final[dict[int, Callable[[_Reader, int, tuple[str, Key, str, Path]], Instruction]]] = {
    4: _update,
    5: lambda r, i, at: ins.AddInteger(*at, r.column["value_lo"][i]),
    8: lambda r, i, at: ins.ArrayInsert(*at, r.value(i), r.column["aux"][i]),
    9: lambda r, i, at: ins.ArrayMove(*at, r.column["aux2"][i], r.column["aux"][i]),
    10: lambda r, i, at: ins.ArrayErase(*at, r.column["aux"][i]),
    11: lambda r, i, at: ins.Clear(*at, Collection(r.column["aux"][i])),
    12: lambda r, i, at: ins.SetInsert(*at, r.value(i)),
    13: lambda r, i, at: ins.SetErase(*at, r.value(i)),
}


def columns_to_instructions(changeset: Changeset) -> list[Instruction]:
    """Return every row as an object, in order."""
    return list(_Reader(changeset).rows())
