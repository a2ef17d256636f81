"""Columns of a changeset as Arrow arrays: the bulk way from the wire into a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset
from realmframe.changes.jit import byte_at, kernel
from realmframe.errors import ApplyError
from realmframe.model import ObjectSchema, Property, PropertyType, Schema, Timestamp
from realmframe.store import types as t
from realmframe.store.arrays import wide_dates
from realmframe.store.index import Ids, Words, null_words, plain_words, string_words

_NS: Final = 1_000_000_000
_MAX_SECONDS: Final = 9_223_372_035


@kernel
def _copy_strings(heap: Any, start: Any, size: Any, offsets: Any, out: Any) -> None:
    for i in range(len(start)):
        at = offsets[i]
        begin = start[i]
        for j in range(size[i]):
            out[at + j] = heap[begin + j]


@kernel
def _copy_pieces(address: Any, size: Any, offsets: Any, out: Any) -> None:
    for i in range(len(address)):
        begin, at = address[i], offsets[i]
        for j in range(size[i]):
            out[at + j] = byte_at(begin + j)


def heap_strings(heap: Any, start: Any, size: Any, kind: pa.DataType, valid: Any = None) -> pa.Array:
    """Gather pieces of a heap into a string or binary array."""
    return _gathered(size, kind, valid, lambda offsets, out: _copy_strings(heap, start, size, offsets, out))


def memory_strings(address: Any, size: Any, kind: pa.DataType, valid: Any = None) -> pa.Array:
    """Gather pieces of memory, given by their addresses, into a string or binary array."""
    return _gathered(size, kind, valid, lambda offsets, out: _copy_pieces(address, size, offsets, out))


def _gathered(size: Any, kind: pa.DataType, valid: Any, copy: Callable[[Any, Any], None]) -> pa.Array:
    offsets = np.zeros(len(size) + 1, np.int64)
    np.cumsum(size, out=offsets[1:])
    total = int(offsets[-1])
    if total > 0x7FFFFFFF:
        raise ApplyError("One property of one changeset holds more than 2 GB of text or data.")
    out = np.empty(total, np.uint8)
    copy(offsets, out)
    mask = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [mask, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(out)]
    return pa.Array.from_buffers(kind, len(size), buffers)


def fixed_array(data: Any, kind: pa.DataType, valid: Any, count: int) -> pa.Array:
    """Make an array of values of one size out of their bytes; ``valid`` tells which are no nulls (None: all)."""
    mask = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, count, [mask, pa.py_buffer(np.ascontiguousarray(data))])


def _fixed(data: Any, kind: pa.DataType, valid: Any) -> pa.Array:
    return fixed_array(data, kind, valid, len(valid))


def words_to_bytes(high: Any, low: Any, width: int) -> Any:
    """Write pairs of words, most significant byte first; of the last one what fits into ``width`` bytes."""
    out = np.empty((len(high), width), np.uint8)
    out[:, :8] = high.astype(">i8").view(np.uint8).reshape(-1, 8)
    tail = low.astype(">i8").view(np.uint8).reshape(-1, 8)
    out[:, 8:] = tail[:, 16 - width :] if width < 16 else tail
    return out


def _stored(kind: Any, data: Any, valid: Any) -> pa.Array:
    return pa.ExtensionArray.from_storage(kind, _fixed(data, kind.storage_type, valid))


def _scalar(kind: PropertyType, high: Any, low: Any, valid: Any, heap: Any) -> pa.Array:
    """Make an array of one scalar type out of the two value words."""
    if kind is PropertyType.INT:
        return _fixed(low, pa.int64(), valid)
    if kind is PropertyType.DOUBLE:
        return _fixed(low, pa.float64(), valid)
    if kind is PropertyType.FLOAT:
        return _fixed(low.astype(np.uint32), pa.float32(), valid)
    if kind is PropertyType.BOOL:
        return pa.array(low != 0, pa.bool_(), mask=None if valid.all() else ~valid)
    if kind in (PropertyType.STRING, PropertyType.DATA):
        size = np.where(valid, low, 0)
        return heap_strings(heap, high, size, t.SCALARS[kind], valid)
    if kind is PropertyType.DATE:
        return _dates(high, low, valid)
    if kind is PropertyType.DECIMAL128:
        data = np.stack([low, high], axis=1)
        return _stored(t.DECIMAL128, data, valid)
    if kind is PropertyType.OBJECT_ID:
        return _stored(t.OBJECT_ID, words_to_bytes(high, low, 12), valid)
    return _stored(pa.uuid(), words_to_bytes(high, low, 16), valid)


def _dates(seconds: Any, nanos: Any, valid: Any) -> pa.Array:
    canonical = (nanos > -_NS) & (nanos < _NS) & ~((seconds > 0) & (nanos < 0)) & ~((seconds < 0) & (nanos > 0))
    fits = canonical & (seconds >= -_MAX_SECONDS) & (seconds <= _MAX_SECONDS)
    if fits[valid].all():
        return _fixed(np.where(valid, seconds * _NS + nanos, 0), t.DATE, valid)
    rows = zip(seconds.tolist(), nanos.tolist(), valid.tolist(), strict=True)
    return wide_dates([Timestamp(s, n) if ok else None for s, n, ok in rows])


def payload_array(cs: Changeset, rows: Ids, prop: Property, cls: ObjectSchema, schema: Schema) -> pa.Array:
    """Give the values of updates of one scalar property.

    Raises
    ------
    ApplyError
        If a value is of another type, or null where that is not allowed.
    """
    kinds = cs.value_type[rows]
    valid = kinds != 0
    where = f"{cls.name}.{prop.name}"
    if not prop.optional and prop.type is not PropertyType.OBJECT and not valid.all():
        raise ApplyError(f"{where} cannot be null.")
    if (kinds[valid] != int(prop.type)).any():
        raise ApplyError(f"{where} ({prop.word}) cannot hold a value of another type.")
    high, low = cs.value_hi[rows], cs.value_lo[rows]
    if prop.type is not PropertyType.OBJECT:
        return _scalar(prop.type, high, low, valid, cs.heap)
    target = schema[prop.target or ""]
    for number in np.unique(cs.link_table[rows[valid]]).tolist():
        if cs.string(number) != target.name:
            raise ApplyError(f"{where} links to {target.name}, not to {cs.string(number)}.")
    key = target.key_property
    wanted = -1 if key is None else int(key.type)
    if (cs.link_type[rows[valid]] != wanted).any():
        raise ApplyError(f"{where}: the key of a link to {target.name} has the wrong type.")
    return _keys(cs, high, low, key, valid)


def _keys(cs: Changeset, high: Any, low: Any, key: Property | None, valid: Any) -> pa.Array:
    if key is None:
        return _stored(t.GLOBAL_KEY, words_to_bytes(high, low, 16), valid)
    if key.type is PropertyType.STRING:
        if not len(cs.string_start):
            return pa.nulls(len(valid), pa.string())
        number = np.where(valid, low, 0)
        size = np.where(valid, cs.string_len[number], 0)
        return heap_strings(cs.heap, cs.string_start[number], size, pa.string(), valid)
    return _scalar(key.type, high, low, valid, cs.heap)


def key_array(cs: Changeset, rows: Ids, key: Property | None) -> pa.Array:
    """Give the object keys of rows (none of them null)."""
    return _keys(cs, cs.key_hi[rows], cs.key_lo[rows], key, np.ones(len(rows), np.bool_))


def key_words_of(cs: Changeset, rows: Ids, secret: Words) -> tuple[Words, Words]:
    """Give the words of the object keys of rows, for an index with that secret."""
    kinds = cs.key_type[rows]
    kind = int(kinds[0])
    if (kinds == kind).all():
        return _words(cs, rows, kind, secret)
    first, second = np.empty(len(rows), np.uint64), np.empty(len(rows), np.uint64)
    for kind in np.unique(kinds).tolist():
        here = kinds == kind
        first[here], second[here] = _words(cs, rows[here], kind, secret)
    return first, second


def _words(cs: Changeset, rows: Ids, kind: int, secret: Words) -> tuple[Words, Words]:
    if kind == 0:
        return null_words(len(rows), secret)
    if kind == PropertyType.STRING:
        number = cs.key_lo[rows]
        return string_words(cs.heap, cs.string_start[number], cs.string_len[number], secret)
    return plain_words(kind, cs.key_hi[rows], cs.key_lo[rows])
