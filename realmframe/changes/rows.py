"""Between columns and one object per instruction: for what is merged, nested or tested, never for bulk."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np

from realmframe.changes import instructions as i
from realmframe.changes.columns import COLUMNS, NO_KEY, NO_VALUE, Changeset
from realmframe.errors import WriteError
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
    PropertyType,
    Timestamp,
)
from realmframe.model import PayloadType as P

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_MARKERS: Final = {
    P.OBJECT_VALUE: Marker.OBJECT_VALUE,
    P.LIST: Marker.LIST,
    P.DICTIONARY: Marker.DICTIONARY,
    P.SET: Marker.SET,
    P.ERASED: Marker.ERASED,
}
_CODES: Final = {marker: code for code, marker in _MARKERS.items()}


def _words(high: int, low: int) -> bytes:
    return struct.pack(">QQ", high & _MASK, low & _MASK)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


class _Reader:
    """Reads rows of one changeset as objects."""

    def __init__(self, c: Changeset) -> None:
        self._c = c
        self._string = c.string
        self._path = c.path.tolist()
        self._is_key = c.path_is_key.tolist()

    def rows(self) -> list[i.Instruction]:
        columns = [getattr(self._c, name).tolist() for name in COLUMNS]
        return [self._row(*row) for row in zip(*columns, strict=True)]

    def key(self, kind: int, high: int, low: int) -> Key:
        if kind == P.INT:
            return low
        if kind == P.STRING:
            return self._string(low)
        if kind == P.OBJECT_ID:
            return ObjectId(struct.pack(">QI", high & _MASK, low))
        if kind == P.UUID:
            return uuid.UUID(bytes=_words(high, low))
        if kind == P.GLOBAL_KEY:
            return GlobalKey(high & _MASK, low & _MASK)
        return None

    def value(self, kind: int, high: int, low: int, table: int, link_type: int) -> Payload:
        heap = self._c.heap
        if kind == P.INT:
            return low
        if kind == P.BOOL:
            return bool(low)
        if kind == P.STRING:
            return heap[high : high + low].tobytes().decode("utf-8", "surrogateescape")
        if kind == P.BINARY:
            return heap[high : high + low].tobytes()
        if kind == P.TIMESTAMP:
            return Timestamp(high, low)
        if kind == P.FLOAT:
            return np.uint32(low).view(np.float32)
        if kind == P.DOUBLE:
            return float(struct.unpack(">d", struct.pack(">Q", low & _MASK))[0])
        if kind == P.DECIMAL:
            return Decimal128(high & _MASK, low & _MASK)
        if kind == P.LINK:
            return Link(self._string(table), self.key(link_type, high, low))
        if kind in (P.OBJECT_ID, P.UUID):
            return self.key(kind, high, low)  # type: ignore[return-value]
        return _MARKERS.get(P(kind))

    def path(self, start: int, length: int) -> i.Path:
        if not length:
            return ()
        steps = range(start, start + length)
        return tuple(self._string(self._path[s]) if self._is_key[s] else self._path[s] for s in steps)

    def _row(
        self,
        op: int,
        table: int,
        field: int,
        key_type: int,
        key_hi: int,
        key_lo: int,
        value_type: int,
        value_hi: int,
        value_lo: int,
        link_table: int,
        link_type: int,
        aux: int,
        aux2: int,
        path_start: int,
        path_len: int,
    ) -> i.Instruction:
        name = self._string(table)
        if op in (0, 1, 6, 7):
            return self._schema_row(op, name, field, value_type, link_table, link_type, aux, aux2)
        key = self.key(key_type, key_hi, key_lo)
        if op == 2:
            return i.CreateObject(name, key)
        if op == 3:
            return i.EraseObject(name, key)
        where = (name, key, self._string(field), self.path(path_start, path_len))
        if op == 5:
            return i.AddInteger(*where, value_lo)
        if op == 9:
            return i.ArrayMove(*where, aux2, aux)
        if op == 10:
            return i.ArrayErase(*where, aux)
        if op == 11:
            return i.Clear(*where, Collection(aux))
        value = self.value(value_type, value_hi, value_lo, link_table, link_type)
        if op == 8:
            return i.ArrayInsert(*where, value, aux)
        if op == 12:
            return i.SetInsert(*where, value)
        if op == 13:
            return i.SetErase(*where, value)
        if where[3] and isinstance(where[3][-1], int):
            return i.Update(*where, value, prior_size=aux)
        return i.Update(*where, value, is_default=bool(aux))

    def _schema_row(
        self, op: int, name: str, field: int, kind: int, target: int, key_type: int, aux: int, aux2: int
    ) -> i.Instruction:
        if op == 1:
            return i.EraseTable(name)
        if op == 7:
            return i.EraseColumn(name, self._string(field))
        if op == 0:
            if aux2 == ClassKind.EMBEDDED:
                return i.AddTable(name, ClassKind.EMBEDDED)
            pk_type = None if kind == P.GLOBAL_KEY else PropertyType(kind)
            return i.AddTable(name, ClassKind(aux2), self._string(field), pk_type, bool(aux))
        return i.AddColumn(
            name,
            self._string(field),
            PropertyType(kind) if kind >= 0 else P(kind),  # type: ignore[arg-type]
            bool(aux),
            Collection(aux2),
            self._string(target) if target >= 0 else None,
            None if key_type == NO_KEY else PropertyType(key_type),
        )


def columns_to_instructions(changeset: Changeset) -> list[i.Instruction]:
    """Give every row as an object."""
    return _Reader(changeset).rows() if len(changeset) else []


class _Writer:
    """Collects rows into columns."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings: dict[str, int] = {}
        self._heap = bytearray()
        self._starts: list[int] = []
        self._rows: list[tuple[int, ...]] = []
        self._path: list[int] = []
        self._is_key: list[bool] = []
        for text in strings:
            self.intern(text)

    def intern(self, text: str) -> int:
        index = self._strings.get(text)
        if index is None:
            index = self._strings[text] = len(self._strings)
            self._starts.append(self.put(text.encode("utf-8", "surrogateescape")))
        return index

    def put(self, data: bytes) -> int:
        """Append to the heap; return the offset."""
        offset = len(self._heap)
        self._heap += data
        return offset

    def key(self, key: Key) -> tuple[int, int, int]:
        if key is None:
            return P.NULL, 0, 0
        if isinstance(key, str):
            return P.STRING, 0, self.intern(key)
        if isinstance(key, ObjectId):
            high, low = struct.unpack(">qI", key.binary)
            return P.OBJECT_ID, high, low
        if isinstance(key, uuid.UUID):
            high, low = struct.unpack(">qq", key.bytes)
            return P.UUID, high, low
        if isinstance(key, GlobalKey):
            return P.GLOBAL_KEY, _signed(key.hi), _signed(key.lo)
        if isinstance(key, int) and not isinstance(key, bool):
            return P.INT, 0, key
        raise WriteError(f"A {type(key).__name__} cannot be the key of an object.")

    def value(self, value: Payload) -> tuple[int, int, int, int, int]:
        """Code a value: type, high, low, link table, link key type."""
        writer = _VALUES.get(type(value))
        if writer is None:
            raise WriteError(f"A {type(value).__name__} cannot be a value of an instruction.")
        return writer(self, value)

    def row(
        self,
        op: int,
        table: str,
        *,
        field: str | None = None,
        key: tuple[int, int, int] = (NO_KEY, 0, 0),
        value: tuple[int, int, int, int, int] = (NO_VALUE, 0, 0, -1, NO_KEY),
        aux: int = 0,
        aux2: int = 0,
        path: i.Path = (),
    ) -> None:
        # `key` and `value` were interned by the caller, after the table: the order of strings on the wire.
        start = len(self._path)
        for step in path:
            is_key = isinstance(step, str)
            self._is_key.append(is_key)
            self._path.append(self.intern(step) if isinstance(step, str) else step)
        name = -1 if field is None else self.intern(field)
        self._rows.append((op, self.intern(table), name, *key, *value, aux, aux2, start, len(path)))

    def finish(self) -> Changeset:
        listed = list(zip(*self._rows, strict=True)) if self._rows else [()] * len(COLUMNS)
        columns: dict[str, Any] = {n: np.array(v, d) for (n, d), v in zip(COLUMNS.items(), listed, strict=True)}
        sizes = [len(text.encode("utf-8", "surrogateescape")) for text in self._strings]
        return Changeset(
            **columns,
            path=np.array(self._path, np.int64),
            path_is_key=np.array(self._is_key, np.bool_),
            string_start=np.array(self._starts, np.int64),
            string_len=np.array(sizes, np.int64),
            heap=np.frombuffer(bytes(self._heap), np.uint8),
        )


def _inline(kind: P) -> Callable[[_Writer, Any], tuple[int, int, int, int, int]]:
    def write(w: _Writer, value: Any) -> tuple[int, int, int, int, int]:
        data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)
        return kind, w.put(data), len(data), -1, NO_KEY

    return write


def _simple(kind: P, low: Callable[[Any], int]) -> Callable[[_Writer, Any], tuple[int, int, int, int, int]]:
    return lambda _w, value: (kind, 0, low(value), -1, NO_KEY)


def _identifier(w: _Writer, value: Any) -> tuple[int, int, int, int, int]:
    return *w.key(value), -1, NO_KEY


def _link(w: _Writer, value: Any) -> tuple[int, int, int, int, int]:
    table = w.intern(value.table)
    kind, high, low = w.key(value.key)
    return P.LINK, high, low, table, kind


_VALUES: Final[dict[type, Callable[[_Writer, Any], tuple[int, int, int, int, int]]]] = {
    type(None): _simple(P.NULL, lambda _v: 0),
    bool: _simple(P.BOOL, int),
    int: _simple(P.INT, int),
    str: _inline(P.STRING),
    bytes: _inline(P.BINARY),
    Timestamp: lambda _w, v: (P.TIMESTAMP, v.seconds, v.nanoseconds, -1, NO_KEY),
    np.float32: _simple(P.FLOAT, lambda v: int(v.view(np.uint32))),
    float: _simple(P.DOUBLE, lambda v: int(struct.unpack(">q", struct.pack(">d", v))[0])),
    Decimal128: lambda _w, v: (P.DECIMAL, _signed(v.high), _signed(v.low), -1, NO_KEY),
    ObjectId: _identifier,
    uuid.UUID: _identifier,
    Link: _link,
    Marker: lambda _w, v: (_CODES[v], 0, 0, -1, NO_KEY),
}


def instructions_to_columns(instructions: Iterable[i.Instruction], strings: Sequence[str] = ()) -> Changeset:
    """Build columns out of objects; ``strings`` come first in the string table."""
    w = _Writer(strings)
    for one in instructions:
        w.intern(one.table)
        _append(w, one)
    return w.finish()


def _append(w: _Writer, one: i.Instruction) -> None:
    match one:
        case i.EraseTable():
            w.row(one.opcode, one.table)
        case i.EraseColumn():
            w.row(one.opcode, one.table, field=one.field)
        case i.AddTable():
            _append_table(w, one)
        case i.AddColumn():
            _append_column(w, one)
        case i.CreateObject() | i.EraseObject():
            w.row(one.opcode, one.table, key=w.key(one.pk))
        case _:
            _append_path(w, one)


def _append_table(w: _Writer, one: i.AddTable) -> None:
    if one.kind is ClassKind.EMBEDDED:
        w.row(0, one.table, aux2=one.kind)
        return
    kind = P.GLOBAL_KEY if one.pk_type is None else int(one.pk_type)
    w.row(0, one.table, field=one.pk_field, value=(kind, 0, 0, -1, NO_KEY), aux=int(one.pk_nullable), aux2=one.kind)


def _append_column(w: _Writer, one: i.AddColumn) -> None:
    w.intern(one.field)
    target = -1 if one.link_target is None else w.intern(one.link_target)
    key_type = NO_KEY if one.key_type is None else int(one.key_type)
    value = (int(one.type), 0, 0, target, key_type)
    w.row(6, one.table, field=one.field, value=value, aux=int(one.nullable), aux2=one.collection)


def _append_path(w: _Writer, one: Any) -> None:
    key = w.key(one.pk)
    w.intern(one.field)
    for step in one.path:
        if isinstance(step, str):
            w.intern(step)
    aux2, value = 0, (NO_VALUE, 0, 0, -1, NO_KEY)
    match one:
        case i.Update():
            indexed = bool(one.path) and isinstance(one.path[-1], int)
            aux, value = (one.prior_size if indexed else int(one.is_default)), w.value(one.value)
        case i.AddInteger():
            aux, value = 0, (int(P.INT), 0, one.value, -1, NO_KEY)
        case i.ArrayMove():
            aux, aux2 = one.prior_size, one.ndx_2
        case i.ArrayErase():
            aux = one.prior_size
        case i.Clear():
            aux = one.collection
        case i.ArrayInsert():
            aux, value = one.prior_size, w.value(one.value)
        case _:
            aux, value = 0, w.value(one.value)
    w.row(one.opcode, one.table, field=one.field, key=key, value=value, aux=aux, aux2=aux2, path=one.path)
