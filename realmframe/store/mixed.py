"""Any value as bytes: the storage of Mixed columns. One tag byte, then the value."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from realmframe.errors import CorruptFileError, WriteError
from realmframe.model import (
    Decimal128,
    EmbeddedObject,
    GlobalKey,
    Link,
    ObjectId,
    RealmSet,
    Timestamp,
)

_TAGS: Final[dict[type, int]] = {
    type(None): 0,
    int: 1,
    bool: 2,
    str: 3,
    bytes: 4,
    Timestamp: 5,
    np.float32: 6,
    float: 7,
    Decimal128: 8,
    Link: 9,
    ObjectId: 10,
    uuid.UUID: 11,
    GlobalKey: 12,
    list: 13,
    dict: 14,
    RealmSet: 15,
    EmbeddedObject: 16,
}


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<I", len(data)) + data


def _sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _items(values: Any) -> bytes:
    return struct.pack("<I", len(values)) + b"".join(encode_value(v) for v in values)


def _pairs(values: Any) -> bytes:
    return struct.pack("<I", len(values)) + b"".join(_text(k) + encode_value(v) for k, v in values.items())


_WRITERS: Final[dict[int, Callable[[Any], bytes]]] = {
    0: lambda v: b"",
    1: lambda v: struct.pack("<q", v),
    2: lambda v: bytes([v]),
    3: _text,
    4: _sized,
    5: lambda v: struct.pack("<qi", v.seconds, v.nanoseconds),
    6: lambda v: struct.pack("<I", int(v.view(np.uint32))),
    7: lambda v: struct.pack("<d", v),
    8: lambda v: v.to_bytes(),
    9: lambda v: _text(v.table) + encode_value(v.key),
    10: lambda v: v.binary,
    11: lambda v: v.bytes,
    12: lambda v: struct.pack("<QQ", v.hi, v.lo),
    13: _items,
    14: _pairs,
    15: _items,
    16: _pairs,
}


def encode_value(value: Any) -> bytes:
    """Write a model value."""
    tag = _TAGS.get(type(value))
    if tag is None:
        raise WriteError(f"A {type(value).__name__} is no value that a realm can hold.")
    return bytes([tag]) + _WRITERS[tag](value)


def exact(value: Any) -> bytes:
    """Give bytes that are equal for values that are equal to the last bit.

    The order of a dictionary's entries and of a set's elements does not count. Not to be read back.
    """
    if isinstance(value, RealmSet):
        return b"".join([b"\x0f", struct.pack("<I", len(value)), *sorted(exact(v) for v in value)])
    if isinstance(value, list):
        return b"".join([b"\x0d", struct.pack("<I", len(value)), *(exact(v) for v in value)])
    if isinstance(value, dict):
        tag = bytes([_TAGS[type(value)], 0])
        return b"".join([tag, struct.pack("<I", len(value)), *(_text(k) + exact(value[k]) for k in sorted(value))])
    return encode_value(value)


class _Reader:
    """Takes values off bytes, one after another."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise CorruptFileError("A mixed value in a realm's file is cut short.")
        self._at += size
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def block_(self) -> bytes:
        return self.take(self.number("<I")[0])

    def string_(self) -> str:
        return self.block_().decode("utf-8", "surrogateescape")

    def list_(self) -> list[Any]:
        return [self.value() for _ in range(self.number("<I")[0])]

    def dict_(self) -> dict[str, Any]:
        return {self.string_(): self.value() for _ in range(self.number("<I")[0])}

    def value(self) -> Any:
        tag = self.take(1)[0]
        reader = _READERS.get(tag)
        if reader is None:
            raise CorruptFileError("A mixed value in a realm's file has an unknown type.")
        return reader(self)


_READERS: Final[dict[int, Callable[[Any], Any]]] = {
    0: lambda r: None,
    1: lambda r: r.number("<q")[0],
    2: lambda r: bool(r.take(1)[0]),
    3: lambda r: r.string_(),
    4: lambda r: r.block_(),
    5: lambda r: Timestamp(*r.number("<qi")),
    6: lambda r: np.uint32(r.number("<I")[0]).view(np.float32),
    7: lambda r: r.number("<d")[0],
    8: lambda r: Decimal128.from_bytes(r.take(16)),
    9: lambda r: Link(r.string_(), r.value()),
    10: lambda r: ObjectId(r.take(12)),
    11: lambda r: uuid.UUID(bytes=r.take(16)),
    12: lambda r: GlobalKey(*r.number("<QQ")),
    13: lambda r: r.list_(),
    14: lambda r: r.dict_(),
    15: lambda r: RealmSet(r.list_()),
    16: lambda r: EmbeddedObject(r.dict_()),
}


def decode_value(data: bytes) -> Any:
    """Read what :func:`encode_value` wrote."""
    return _Reader(data).value()
