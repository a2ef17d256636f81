"""Columns from objects.

Strings are interned in the order in which an encoder meets them: class, string key, field, path keys, then what the
value names. String and binary values go inline into the heap, in order of appearance.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from realmframe.changes import instructions as ins
from realmframe.changes.columns import COLUMNS, NO_KEY, NO_VALUE, Changeset
from realmframe.changes.instructions import Instruction, Path
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
    PayloadType,
    PropertyType,
    Timestamp,
)

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_U32_MAX: Final = (1 << 32) - 1
_MARKER_CODES: Final[dict[Marker, int]] = {
    Marker.OBJECT_VALUE: PayloadType.OBJECT_VALUE,
    Marker.DICTIONARY: PayloadType.DICTIONARY,
    Marker.ERASED: PayloadType.ERASED,
    Marker.LIST: PayloadType.LIST,
    Marker.SET: PayloadType.SET,
}


def _wrap(word: int) -> int:
    """Return the two's complement of an unsigned 64-bit word."""
    return word - (1 << 64) if word > _INT_MAX else word


def _words(data: bytes) -> tuple[int, int]:
    """Return the words of an ObjectId (8 + 4 bytes) or a UUID (8 + 8 bytes)."""
    return int.from_bytes(data[:8], "big", signed=True), int.from_bytes(data[8:], "big", signed=len(data) == 16)


@dataclass(slots=True)
class _Builder:
    """Rows, strings and heap as they grow."""

    #: Clients intern the name of an AddColumn's target even where there is none to write: "" is in their tables.
    like_clients: bool
    rows: list[tuple[int, ...]] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    path_is_key: list[bool] = field(default_factory=list)
    strings: dict[str, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    heap: bytearray = field(default_factory=bytearray)

    def intern(self, text: str) -> int:
        known = self.strings.get(text)
        if known is None:
            known = self.strings[text] = len(self.strings)
            start, size = self.inline(_utf8(text))
            self.starts.append(start)
            self.sizes.append(size)
        return known

    def inline(self, data: bytes) -> tuple[int, int]:
        start = len(self.heap)
        self.heap += data
        return start, len(data)

    def key(self, key: Key) -> tuple[int, int, int]:
        """Type, high and low word."""
        if key is None:
            return PayloadType.NULL, 0, 0
        if isinstance(key, str):
            return PayloadType.STRING, 0, self.intern(key)
        if isinstance(key, ObjectId):
            return (PayloadType.OBJECT_ID, *_words(key.binary))
        if isinstance(key, uuid.UUID):
            return (PayloadType.UUID, *_words(key.bytes))
        if isinstance(key, GlobalKey):
            return PayloadType.GLOBAL_KEY, _wrap(key.hi), _wrap(key.lo)
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            return PayloadType.INT, 0, _int64(int(key))
        raise WriteError(f"{type(key).__name__} cannot be the key of an object.")

    def value(self, value: Payload) -> tuple[int, int, int, int, int]:
        """Type, high and low word, link table, link key type."""
        if isinstance(value, Link):
            table = self.intern(value.table)
            kind, hi, lo = self.key(value.key)
            return PayloadType.LINK, hi, lo, table, kind
        if isinstance(value, str):
            return (PayloadType.STRING, *self.inline(_utf8(value)), -1, NO_KEY)
        if isinstance(value, bytes | bytearray | memoryview):
            return (PayloadType.BINARY, *self.inline(bytes(value)), -1, NO_KEY)
        return (*_scalar(value), -1, NO_KEY)

    def steps(self, path: Path) -> tuple[int, int]:
        start = len(self.path)
        for step in path:
            is_key = isinstance(step, str)
            self.path_is_key.append(is_key)
            self.path.append(self.intern(step) if isinstance(step, str) else _unsigned32(step, "A list index"))
        return start, len(path)

    def finish(self) -> Changeset:
        table = zip(*self.rows, strict=True) if self.rows else [()] * len(COLUMNS)
        columns: dict[str, Any] = {
            name: np.array(values, dtype) for (name, dtype), values in zip(COLUMNS.items(), table, strict=True)
        }
        return Changeset(
            **columns,
            path=np.array(self.path, "i8"),
            path_is_key=np.array(self.path_is_key, "?"),
            string_start=np.array(self.starts, "i8"),
            string_len=np.array(self.sizes, "i8"),
            heap=np.frombuffer(bytes(self.heap), "u1"),
        )


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _int64(number: int) -> int:
    if not _INT_MIN <= number <= _INT_MAX:
        raise WriteError(f"{number} does not fit into 64 bits.")
    return number


def _unsigned32(number: int, what: str) -> int:
    if not 0 <= number <= _U32_MAX:
        raise WriteError(f"{what} must be from 0 to {_U32_MAX}, not {number}.")
    return int(number)


def _scalar(value: Any) -> tuple[int, int, int]:
    """Type, high and low word of a value that needs no string."""
    if value is None:
        return PayloadType.NULL, 0, 0
    if isinstance(value, bool | np.bool_):
        return PayloadType.BOOL, 0, int(value)
    if isinstance(value, np.float32):
        return PayloadType.FLOAT, 0, int(value.view(np.uint32))
    if isinstance(value, float):
        return PayloadType.DOUBLE, 0, struct.unpack("<q", struct.pack("<d", value))[0]
    if isinstance(value, int | np.integer):
        return PayloadType.INT, 0, _int64(int(value))
    if isinstance(value, dt.datetime):
        value = Timestamp.from_datetime(value)
    if isinstance(value, Timestamp):
        return PayloadType.TIMESTAMP, _int64(value.seconds), value.nanoseconds
    if isinstance(value, decimal.Decimal):
        value = Decimal128.from_decimal(value)
    if isinstance(value, Decimal128):
        return PayloadType.DECIMAL, _wrap(value.high), _wrap(value.low)
    if isinstance(value, ObjectId):
        return (PayloadType.OBJECT_ID, *_words(value.binary))
    if isinstance(value, uuid.UUID):
        return (PayloadType.UUID, *_words(value.bytes))
    if isinstance(value, Marker):
        return _MARKER_CODES[value], 0, 0
    raise WriteError(f"A realm cannot hold a {type(value).__name__}.")


_NO_KEY: Final = (NO_KEY, 0, 0)
_NO_VALUE: Final = (NO_VALUE, 0, 0, -1, NO_KEY)


def _put_schema(b: _Builder, it: Any) -> None:
    op, table, start = it.opcode, b.intern(it.table), len(b.path)
    name, value, aux, aux2 = -1, _NO_VALUE, 0, 0
    if isinstance(it, ins.AddTable):
        aux2 = it.kind
        if it.kind is not ClassKind.EMBEDDED:
            name, aux = b.intern(it.pk_field), int(it.pk_nullable)
            value = (PayloadType.GLOBAL_KEY if it.pk_type is None else it.pk_type, 0, 0, -1, NO_KEY)
    elif isinstance(it, ins.AddColumn):
        name, target, aux, aux2 = b.intern(it.field), -1, int(it.nullable), it.collection
        if it.type == PropertyType.OBJECT:
            target = b.intern(it.link_target or "")
        elif b.like_clients:
            b.intern("")
        key_type = NO_KEY
        if it.collection is Collection.DICTIONARY:
            key_type = PropertyType.STRING if it.key_type is None else it.key_type
        value = (it.type, 0, 0, target, key_type)
    elif isinstance(it, ins.EraseColumn):
        name = b.intern(it.field)
    b.rows.append((op, table, name, *_NO_KEY, *value, aux, aux2, start, 0))


def _put_object(b: _Builder, it: Any) -> None:
    table = b.intern(it.table)
    b.rows.append((it.opcode, table, -1, *b.key(it.pk), *_NO_VALUE, 0, 0, len(b.path), 0))


def _put_path(b: _Builder, it: Any) -> None:
    table, key, name = b.intern(it.table), b.key(it.pk), b.intern(it.field)
    path = b.steps(it.path)
    indexed = bool(it.path) and not isinstance(it.path[-1], str)
    value, aux, aux2 = _NO_VALUE, 0, 0
    if isinstance(it, ins.ArrayInsert | ins.ArrayMove | ins.ArrayErase) and not indexed:
        raise WriteError(f"The path of {type(it).__name__} must end with a list index.")
    if isinstance(it, ins.AddInteger):
        value = (PayloadType.INT, 0, _int64(it.value), -1, NO_KEY)
    elif not isinstance(it, ins.ArrayMove | ins.ArrayErase | ins.Clear):
        value = b.value(it.value)
    if isinstance(it, ins.ArrayMove):
        aux2 = _unsigned32(it.ndx_2, "ndx_2")
    if isinstance(it, ins.Clear):
        aux = it.collection
    elif isinstance(it, ins.Update) and not indexed:
        aux = int(it.is_default)
    elif isinstance(it, ins.Update | ins.ArrayInsert | ins.ArrayMove | ins.ArrayErase):
        aux = _unsigned32(it.prior_size, "prior_size")
    b.rows.append((it.opcode, table, name, *key, *value, aux, aux2, *path))


_PUT: Final[dict[int, Callable[[_Builder, Any], None]]] = {
    **dict.fromkeys((0, 1, 6, 7), _put_schema),
    **dict.fromkeys((2, 3), _put_object),
    **dict.fromkeys((4, 5, 8, 9, 10, 11, 12, 13), _put_path),
}


def instructions_to_columns(instructions: Iterable[Instruction], strings: Sequence[str] = ()) -> Changeset:
    """Build columns from objects, ``strings`` first in the string table.

    Without ``strings`` the table comes out as a client's does for the same instructions.

    Raises
    ------
    WriteError
        For a value, key, index or size that an instruction cannot carry.
    """
    builder = _Builder(like_clients=not strings)
    for text in strings:
        builder.intern(text)
    for instruction in instructions:
        _PUT[instruction.opcode](builder, instruction)
    return builder.finish()
