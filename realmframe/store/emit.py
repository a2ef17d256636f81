"""Arrow arrays to columns of a changeset: the bulk way from a table onto the wire.

Instructions are emitted in blocks, one operation on one field for many objects each. Strings that the protocol interns
(names, string keys) of all blocks meet in one dictionary at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.changes import Changeset
from realmframe.changes.columns import COLUMNS, NO_KEY, NO_VALUE
from realmframe.model import Decimal128, Property, PropertyType, Schema
from realmframe.store import types as t
from realmframe.store.arrays import model_to_arrow

_CREATE, _ERASE, _UPDATE = 2, 3, 4
#: The types whose zero has a sign, and another number of each.
_ZEROES: Final[dict[PropertyType, Any]] = {
    PropertyType.FLOAT: np.float32(1),
    PropertyType.DOUBLE: 1.0,
    PropertyType.DECIMAL128: Decimal128.from_parts(1, 0, False),
}


def _one(array: Any) -> Any:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _storage(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _numbers(array: Any, dtype: Any) -> Any:
    """Give the data of a fixed-width array as numbers, whatever is under a null."""
    _, data = array.buffers()
    if data is None:
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype)[array.offset : array.offset + len(array)]


def _bytes(array: Any) -> Any:
    storage = _storage(array)
    width = storage.type.byte_width
    _, data = storage.buffers()
    if data is None:
        return np.zeros((len(storage), width), np.uint8)
    raw = np.frombuffer(data, np.uint8)
    return raw[storage.offset * width : (storage.offset + len(storage)) * width].reshape(-1, width)


def _big_words(array: Any) -> tuple[Any, Any]:
    raw = _bytes(array)
    high = np.ascontiguousarray(raw[:, :8]).view(">i8").astype(np.int64).reshape(-1)
    tail = np.ascontiguousarray(raw[:, 8:])
    low = tail.view(">i8" if raw.shape[1] == 16 else ">u4").astype(np.int64).reshape(-1)
    return high, low


def _string_parts(array: Any) -> tuple[Any, Any, Any]:
    """Give the bytes, starts and lengths of a string or binary array."""
    _, offsets, data = array.buffers()
    where = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    heap = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    if not len(where):
        return heap[:0], np.empty(0, np.int64), np.empty(0, np.int64)
    heap = heap[where[0] : where[-1]]
    return heap, where[:-1] - where[0], np.diff(where)


@dataclass(slots=True)
class _Block:
    op: int
    keys: Any
    field: str | None = None
    values: Any = None
    prop: Property | None = None

    def __len__(self) -> int:
        return len(self.keys)


class Emitter:
    """Collects blocks of instructions on objects of one class.

    Parameters
    ----------
    name : str
        The class.
    key : Property or None
        Its primary key.
    schema : Schema
    """

    def __init__(self, name: str, key: Property | None, schema: Schema) -> None:
        self._name, self._key, self._schema = name, key, schema
        self._blocks: list[_Block] = []

    def create(self, keys: Any) -> None:
        """Create objects."""
        self._add(_Block(_CREATE, _one(keys)))

    def erase(self, keys: Any) -> None:
        """Erase objects."""
        self._add(_Block(_ERASE, _one(keys)))

    def update(self, prop: Property, keys: Any, values: Any, *, over: bool = False) -> None:
        """Set a scalar property.

        A number that equals the one that is there is not written, so 0 and -0 cannot follow each other. A negative
        zero in a property that cannot be null is therefore written after another number; with ``over``, where anything
        may be there already, so is every zero.
        """
        keys, values = _one(keys), _one(values)
        if prop.type in _ZEROES and (over or not prop.optional):
            held = _zeroes(prop.type, values, over)
            if len(held):
                ones = model_to_arrow([_ZEROES[prop.type]] * len(held), prop, self._schema)
                self._add(_Block(_UPDATE, keys.take(pa.array(held)), prop.name, ones, prop))
        self._add(_Block(_UPDATE, keys, prop.name, values, prop))

    def _add(self, block: _Block) -> None:
        if len(block):
            self._blocks.append(block)

    def finish(self) -> Changeset:
        """Make the changeset."""
        if not self._blocks:
            return Changeset.empty()
        total = sum(len(b) for b in self._blocks)
        columns: dict[str, Any] = {name: np.zeros(total, dtype) for name, dtype in COLUMNS.items()}
        columns["link_table"][:] = -1
        columns["link_type"][:] = NO_KEY
        columns["field"][:] = -1
        columns["value_type"][:] = NO_VALUE
        strings = _Strings()
        strings.name(self._name)
        heap: list[Any] = []
        used = at = 0
        for block in self._blocks:
            part = slice(at, at + len(block))
            at += len(block)
            columns["op"][part] = block.op
            self._keys(block.keys, self._key, columns, part, strings, "key_type", "key_hi", "key_lo")
            if block.prop is not None:
                strings.put(columns["field"], part, block.field or "")
                used = self._values(block, columns, part, strings, heap, used)
        strings.put(columns["table"], slice(0, total), self._name)
        start, size, texts = strings.finish(used)
        none = np.empty(0, np.int64)
        whole = np.concatenate([*heap, texts]) if heap else texts
        return Changeset(
            **columns,
            path=none,
            path_is_key=np.empty(0, np.bool_),
            string_start=start,
            string_len=size,
            heap=whole,
        )

    def _keys(
        self, keys: Any, key: Property | None, columns: dict[str, Any], part: slice, strings: _Strings, *names: str
    ) -> None:
        kind, high, low = names
        columns[kind][part] = -1 if key is None else int(key.type)
        if keys.null_count:
            columns[kind][part] = np.where(keys.is_valid().to_numpy(zero_copy_only=False), columns[kind][part], 0)
        if key is not None and key.type is PropertyType.INT:
            columns[low][part] = _numbers(keys, np.int64)
        elif key is not None and key.type is PropertyType.STRING:
            strings.put_many(columns[low], part, keys)
        else:
            columns[high][part], columns[low][part] = _big_words(keys)

    def _values(
        self, block: _Block, columns: dict[str, Any], part: slice, strings: _Strings, heap: list[Any], used: int
    ) -> int:
        """Code the values of one block; return how much of the heap is used."""
        values, prop = block.values, block.prop
        assert prop is not None
        kind = np.full(len(block), int(prop.type), np.int8)
        if values.null_count:
            kind[~values.is_valid().to_numpy(zero_copy_only=False)] = 0
        columns["value_type"][part] = kind
        high, low = columns["value_hi"][part], columns["value_lo"][part]
        if prop.type is PropertyType.OBJECT:
            target = self._schema[prop.target or ""]
            self._keys(values, target.key_property, columns, part, strings, "link_type", "value_hi", "value_lo")
            strings.put(columns["link_table"], part, target.name)
            columns["link_type"][part][kind == 0] = NO_KEY
            columns["link_table"][part][kind == 0] = -2
        elif prop.type in (PropertyType.STRING, PropertyType.DATA):
            data, start, size = _string_parts(values)
            high[:], low[:] = start + used, size
            heap.append(data)
            used += len(data)
        else:
            _plain_values(prop.type, values, high, low)
        high[kind == 0] = 0
        if prop.type is not PropertyType.OBJECT or self._schema[prop.target or ""].key_property is None:
            low[kind == 0] = 0
        return used


def _zeroes(kind: PropertyType, values: Any, positive: bool) -> Any:
    """Give the places of negative zeros, or of all zeros."""
    if kind is PropertyType.DECIMAL128:
        words = np.ascontiguousarray(_bytes(values)).view("<u8").reshape(-1, 2)
        amount = (words[:, 1] & np.uint64((1 << 49) - 1)) | words[:, 0]
        found = (amount == 0) & (positive | (words[:, 1] >> np.uint64(63) == 1))
    else:
        width = 32 if kind is PropertyType.FLOAT else 64
        bits = _numbers(values, f"u{width // 8}")
        found = (bits == 1 << (width - 1)) | (positive & (bits == 0))
    if values.null_count:
        found &= values.is_valid().to_numpy(zero_copy_only=False)
    return np.flatnonzero(found)


def _plain_values(kind: PropertyType, values: Any, high: Any, low: Any) -> None:
    if kind in (PropertyType.INT, PropertyType.DOUBLE):
        low[:] = _numbers(values, np.int64)
    elif kind is PropertyType.FLOAT:
        low[:] = _numbers(values, np.uint32)
    elif kind is PropertyType.BOOL:
        low[:] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    elif kind is PropertyType.DATE:
        if values.type == t.WIDE_DATE:
            high[:] = _numbers(values.field("seconds"), np.int64)
            low[:] = _numbers(values.field("nanoseconds"), np.int32)
        else:
            total = _numbers(values, np.int64)
            seconds = np.where(total < 0, -(-total // 1_000_000_000), total // 1_000_000_000)
            high[:], low[:] = seconds, total - seconds * 1_000_000_000
    elif kind is PropertyType.DECIMAL128:
        words = np.ascontiguousarray(_bytes(values)).view("<i8").reshape(-1, 2)
        high[:], low[:] = words[:, 1], words[:, 0]
    else:
        high[:], low[:] = _big_words(values)


class _Strings:
    """The strings to intern, and where their numbers go."""

    def __init__(self) -> None:
        self._pieces: list[Any] = []
        self._targets: list[tuple[Any, slice, bool]] = []

    def name(self, text: str) -> None:
        """Have a name stand first."""
        self._pieces.append(pa.array([text.encode("utf-8", "surrogateescape")], pa.binary()))
        self._targets.append((np.empty(1, np.int32), slice(0, 1), True))

    def put(self, column: Any, part: slice, text: str) -> None:
        """Put the number of one string into a whole slice."""
        self._pieces.append(pa.array([text.encode("utf-8", "surrogateescape")], pa.binary()))
        self._targets.append((column, part, True))

    def put_many(self, column: Any, part: slice, texts: Any) -> None:
        """Put the number of each string of an array (whatever it is for a null)."""
        as_bytes = pa.Array.from_buffers(pa.binary(), len(texts), texts.buffers(), texts.null_count, texts.offset)
        self._pieces.append(pc.fill_null(as_bytes, b"") if texts.null_count else as_bytes)
        self._targets.append((column, part, False))

    def finish(self, base: int) -> tuple[Any, Any, Any]:
        """Give every string its number; return starts, lengths and bytes, which stand at ``base`` of the heap."""
        coded = pa.concat_arrays(self._pieces).dictionary_encode()
        numbers = coded.indices.to_numpy(zero_copy_only=False)
        at = 0
        for column, part, single in self._targets:
            view = column[part]
            if single:
                # Rows marked -2 name nothing: a null link.
                keep = view == -2
                view[:] = numbers[at]
                view[keep] = -1
                at += 1
            else:
                view[:] = numbers[at : at + len(view)]
                at += len(view)
        data, start, size = _string_parts(coded.dictionary)
        return start + base, size, data
