"""Tables: rows in insertion order, in chunks whose columns are shared between snapshots.

A chunk holds up to 65,536 rows: the stable ids of its rows, ascending, and one :class:`Cells` per column. Chunks and
cells never change; a new version of a table shares those that it did not touch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.model import Key, ObjectSchema, Property, PropertyType, Schema
from realmframe.store import types as t
from realmframe.store.arrays import arrow_to_model, keys_to_list, model_to_arrow
from realmframe.store.index import Ids, KeyIndex, arrow_words, key_words

CHUNK_ROWS: Final = 65_536


class Cells:
    """One column of one chunk, as an Arrow array or as model values; either form is made from the other when needed."""

    __slots__ = ("_array", "_values", "prop", "schema")

    def __init__(self, prop: Property, schema: Schema, array: Any = None, values: list[Any] | None = None) -> None:
        self.prop, self.schema = prop, schema
        self._array, self._values = array, values

    @property
    def array(self) -> Any:
        """The Arrow form."""
        if self._array is None:
            assert self._values is not None
            self._array = model_to_arrow(self._values, self.prop, self.schema)
        return self._array

    @property
    def values(self) -> list[Any]:
        """The model values; not to be changed."""
        if self._values is None:
            self._values = arrow_to_model(self._array, self.prop, self.schema)
        return self._values

    def value(self, offset: int) -> Any:
        """Give one model value without converting the others."""
        if self._values is not None:
            return self._values[offset]
        return arrow_to_model(self._array.slice(offset, 1), self.prop, self.schema)[0]

    def with_schema(self, schema: Schema) -> Cells:
        """Give the same cells under another schema."""
        embeds = self._array is not None and t.embeds(self.prop, self.schema)
        if embeds and t.arrow_type(self.prop, self.schema) != t.arrow_type(self.prop, schema):
            # The fields of embedded objects are part of the array's type: what it holds is read by its own schema.
            return Cells(self.prop, schema, values=self.values)
        return Cells(self.prop, schema, self._array, self._values)

    @property
    def is_decoded(self) -> bool:
        """Whether only model values are at hand."""
        return self._array is None

    def take(self, offsets: Any) -> Cells:
        """Give some rows."""
        if self._array is None and self._values is not None:
            return Cells(self.prop, self.schema, values=[self._values[i] for i in offsets])
        return Cells(self.prop, self.schema, self.array.take(pa.array(offsets)))


def join_cells(parts: Sequence[Cells]) -> Cells:
    """Put cells of one column end to end."""
    first = parts[0]
    if all(p.is_decoded for p in parts):
        return Cells(first.prop, first.schema, values=[v for p in parts for v in p.values])
    return Cells(first.prop, first.schema, concat_arrays([p.array for p in parts], first.prop))


def widen(array: Any) -> Any:
    """Turn a date array of nanoseconds into the wide form."""
    total = array.cast(pa.int64())
    seconds = pc.divide(total, 1_000_000_000)
    nanos = pc.subtract(total, pc.multiply(seconds, 1_000_000_000)).cast(pa.int32())
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays([seconds, nanos], fields=list(t.WIDE_DATE), mask=mask)


def concat_arrays(arrays: Sequence[Any], prop: Property) -> Any:
    """Concatenate, bringing dates to one form."""
    if len(arrays) == 1:
        return arrays[0]
    if prop.type is PropertyType.DATE and any(a.type != arrays[0].type for a in arrays):
        arrays = [a if a.type == t.WIDE_DATE else widen(a) for a in arrays]
    return pa.concat_arrays(arrays)


def build_index(cls: ObjectSchema, chunks: Iterable[Chunk]) -> KeyIndex:
    """Make an index of the rows of some chunks, with a secret of its own."""
    index = KeyIndex.empty()
    for chunk in chunks:
        if chunk.keys.null_count:
            words = key_words(keys_to_list(chunk.keys, cls.key_property), index.secret)
        else:
            words = arrow_words(chunk.keys, cls.key_property, index.secret)
        index.insert(*words, np.asarray(chunk.ids))
    return index


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some rows of a table.

    Attributes
    ----------
    ids : array of int64
        Stable row ids, ascending.
    keys : pyarrow.Array
    columns : mapping
        Property name to cells, the primary key not among them.
    """

    ids: Ids
    keys: Any
    columns: Mapping[str, Cells]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, offsets: Any) -> Chunk:
        """Give some rows, in ascending order."""
        columns = {name: cells.take(offsets) for name, cells in self.columns.items()}
        return Chunk(self.ids[offsets], self.keys.take(pa.array(offsets)), columns)

    def joined(self, other: Chunk) -> Chunk:
        """Put another chunk after this one."""
        columns = {name: join_cells([cells, other.columns[name]]) for name, cells in self.columns.items()}
        keys = pa.concat_arrays([self.keys, other.keys])
        return Chunk(np.concatenate([self.ids, other.ids]), keys, columns)


class Table:
    """The objects of one class in one snapshot; immutable."""

    __slots__ = ("_first", "_key_offsets", "_starts", "chunks", "cls", "index", "next_id", "schema")

    def __init__(
        self, cls: ObjectSchema, schema: Schema, chunks: tuple[Chunk, ...], index: KeyIndex, next_id: int
    ) -> None:
        self.cls, self.schema, self.chunks = cls, schema, chunks
        self.index, self.next_id = index, next_id
        self._first: Ids | None = None
        self._starts = np.array([0, *itertools.accumulate(len(c.ids) for c in chunks)], np.int64)

    @classmethod
    def empty(cls, object_schema: ObjectSchema, schema: Schema) -> Table:
        """Make a table without rows."""
        return cls(object_schema, schema, (), KeyIndex.empty(), 0)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"<Table {self.cls.name}: {len(self):,} objects in {len(self.chunks)} chunks>"

    # ------------------------------------------------------------------ whole columns

    def keys(self) -> pa.ChunkedArray:
        """Give the keys."""
        return pa.chunked_array([c.keys for c in self.chunks], t.key_type(self.cls.key_property))

    def column(self, name: str) -> pa.ChunkedArray:
        """Give a column; dates come in the wide form if any of them needs it."""
        if name == self.cls.primary_key:
            return self.keys()
        prop = self.cls.columns[name]
        arrays = [c.columns[name].array for c in self.chunks]
        kind = t.arrow_type(prop, self.schema)
        if kind == t.DATE and any(a.type == t.WIDE_DATE for a in arrays):
            kind = t.WIDE_DATE
            arrays = [a if a.type == kind else widen(a) for a in arrays]
        return pa.chunked_array(arrays, kind)

    def values(self, name: str, rows: Ids | None = None) -> list[Any]:
        """Give model values of a column, for some rows or all."""
        if name == self.cls.primary_key:
            if rows is None:
                return [k for c in self.chunks for k in keys_to_list(c.keys, self.cls.key_property)]
            return [self.key(int(r)) for r in rows]
        if rows is None:
            return [v for c in self.chunks for v in c.columns[name].values]
        if len(rows) > 64:
            return [self._cells_value(name, int(r), whole=True) for r in rows]
        return [self._cells_value(name, int(r)) for r in rows]

    def _cells_value(self, name: str, row: int, *, whole: bool = False) -> Any:
        chunk, offset = self._place(row)
        cells = chunk.columns[name]
        return cells.values[offset] if whole else cells.value(offset)

    # ------------------------------------------------------------------ single rows

    def _place(self, row: int) -> tuple[Chunk, int]:
        number = int(np.searchsorted(self._starts, row, "right")) - 1
        return self.chunks[number], row - int(self._starts[number])

    def key(self, row: int) -> Key:
        """Give the key of the object at a position."""
        chunk, offset = self._place(row)
        found: Key = keys_to_list(chunk.keys.slice(offset, 1), self.cls.key_property)[0]
        return found

    def columns_value(self, name: str, row: int) -> Any:
        """Give one model value of the object at a position."""
        return self._cells_value(name, row)

    def row(self, row: int) -> dict[str, Any]:
        """Give the object at a position, with its primary key."""
        chunk, offset = self._place(row)
        found: dict[str, Any] = {}
        for name in self.cls.properties:
            found[name] = self.key(row) if name == self.cls.primary_key else chunk.columns[name].value(offset)
        return found

    # ------------------------------------------------------------------ finding

    def positions(self, ids: Ids) -> Ids:
        """Give the position of each row id, -1 where that row does not exist."""
        if not self.chunks or not len(ids):
            return np.full(len(ids), -1, np.int64)
        number = np.searchsorted(self.first_ids, ids, "right") - 1
        first = int(number[0])
        if first >= 0 and (len(ids) == 1 or (number == first).all()):  # as small changes have it
            return self._positions_within(first, ids)
        out = np.full(len(ids), -1, np.int64)
        for n in np.unique(number[number >= 0]).tolist():
            here = np.flatnonzero(number == n)
            out[here] = self._positions_within(n, ids[here])
        return out

    def _positions_within(self, number: int, ids: Ids) -> Ids:
        """Do so for row ids that only one chunk can have."""
        chunk = self.chunks[number]
        offset = ids - chunk.ids[0]
        if int(chunk.ids[-1] - chunk.ids[0]) + 1 != len(chunk):
            offset = np.searchsorted(chunk.ids, ids)
        inside = offset < len(chunk)
        exists = inside & (chunk.ids[np.where(inside, offset, 0)] == ids)
        return np.where(exists, self._starts[number] + offset, -1)

    def find_ids(self, first: Any, second: Any) -> Ids:
        """Give the row id of each key given by its words, -1 where there is no such object."""
        ids = self.index.find(first, second, self.next_id)
        known = np.flatnonzero(ids >= 0)
        if len(known):
            gone = self.positions(ids[known]) < 0
            ids[known[gone]] = -1
        return ids

    def find(self, keys: Sequence[Key] | pa.Array | pa.ChunkedArray) -> Ids:
        """Give the position of each key, -1 where there is no such object."""
        if isinstance(keys, pa.ChunkedArray):
            keys = keys.combine_chunks()
        if isinstance(keys, pa.Array):
            if keys.null_count:
                keys = keys_to_list(keys, self.cls.key_property)
            else:
                return self.positions(self.find_ids(*arrow_words(keys, self.cls.key_property, self.index.secret)))
        return self.positions(self.find_ids(*key_words(keys, self.index.secret)))

    def ids_at(self, rows: Ids) -> Ids:
        """Give the row ids at positions."""
        number = np.searchsorted(self._starts, rows, "right") - 1
        out = np.empty(len(rows), np.int64)
        for n in np.unique(number).tolist():
            here = number == n
            out[here] = self.chunks[n].ids[rows[here] - self._starts[n]]
        return out

    @property
    def starts(self) -> Ids:
        """Position of the first row of each chunk, and the count of rows last."""
        return self._starts

    @property
    def first_ids(self) -> Ids:
        """Row id of the first row of each chunk."""
        if self._first is None:
            self._first = np.array([c.ids[0] for c in self.chunks], np.int64)
        return self._first
