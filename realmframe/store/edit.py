"""One table being changed: new rows, new values and erased rows are collected, then made into a new table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from realmframe.model import Collection, Key, Property, Schema
from realmframe.store import types as t
from realmframe.store.arrays import keys_to_arrow, keys_to_list, model_to_arrow
from realmframe.store.coercion import default_value
from realmframe.store.index import Ids, key_words
from realmframe.store.nested import thaw
from realmframe.store.table import CHUNK_ROWS, Cells, Chunk, Table, build_index, concat_arrays

#: Above so many changed rows of one chunk, a column is rebuilt by one gather instead of by splicing.
_SPLICE: int = 8


class TableEdit:
    """Changes to one table.

    Row ids at or above ``base.next_id`` stand for new rows, in the order in which they were created.
    """

    def __init__(self, base: Table) -> None:
        self.base = base
        self.next_id = base.next_id
        self._new_keys: list[Any] = []
        self._new_words: list[tuple[Any, Any]] = []
        self._created_at: list[Any] = []
        self._bulk: dict[str, list[tuple[Ids, Any]]] = {}
        self._single: dict[str, dict[int, Any]] = {}
        self._erased: list[Ids] = []
        self._rekeyed: dict[int, Key] = {}

    # ------------------------------------------------------------------ collecting

    def create_bulk(self, keys: pa.Array, words: tuple[Any, Any], positions: Ids) -> Ids:
        """Create rows for keys that do not exist; ``positions`` order all creations of the changeset."""
        ids = np.arange(self.next_id, self.next_id + len(keys), dtype=np.int64)
        self._new_keys.append(keys)
        self._new_words.append(words)
        self._created_at.append(positions)
        self.next_id += len(keys)
        return ids

    def create_one(self, key: Key, position: int) -> int:
        """Create one row."""
        made = keys_to_arrow([key], self.base.cls.key_property)
        return int(self.create_bulk(made, key_words([key], self.base.index.secret), np.array([position], np.int64))[0])

    def set_bulk(self, name: str, ids: Ids, values: Any) -> None:
        """Set values of a column; ids are unique."""
        self._bulk.setdefault(name, []).append((ids, values))

    def set_one(self, name: str, row_id: int, value: Any) -> None:
        """Set one model value."""
        self._single.setdefault(name, {})[row_id] = value

    def rekey(self, row_id: int, key: Key) -> None:
        """Give a row another key."""
        self._rekeyed[row_id] = key

    def erase(self, ids: Ids) -> None:
        """Erase rows."""
        self._erased.append(ids)

    # ------------------------------------------------------------------ finishing

    def finish(self) -> tuple[Table, Ids, dict[str, Ids], Ids]:
        """Make the new table; also give the ids that were inserted, modified per field, and deleted."""
        base = self.base
        final = self._final_ids()
        changes = self._changes(final)
        erased = np.unique(np.concatenate([self._renumber(e, final) for e in self._erased] or [np.empty(0, np.int64)]))
        index = base.index if base.index.end == base.next_id else base.index.branch(base.next_id)
        chunks = self._old_chunks(changes, erased)
        fresh = self._new_chunk(changes, final, erased)
        if len(final):
            first = np.concatenate([w[0] for w in self._new_words])
            second = np.concatenate([w[1] for w in self._new_words])
            order = np.argsort(final, kind="stable")
            index.insert(first[order], second[order], final[order])
        if fresh is not None:
            chunks = _append(chunks, fresh)
        table = Table(base.cls, base.schema, tuple(chunks), index, base.next_id + len(final))
        if self._rekeyed:
            table = self._with_new_keys(table, final)
        inserted = np.setdiff1d(np.sort(final), erased, assume_unique=True)
        modified = {}
        for name, (ids, _) in changes.items():
            old = ids[ids < base.next_id]
            old = np.setdiff1d(old, erased, assume_unique=True) if len(erased) else old
            if len(old):
                modified[name] = old
        rekeyed = np.setdiff1d(np.fromiter(self._rekeyed, np.int64, len(self._rekeyed)), erased)
        if base.cls.primary_key is not None and (rekeyed < base.next_id).any():
            modified[base.cls.primary_key] = rekeyed[rekeyed < base.next_id]
        return table, inserted, modified, erased[erased < base.next_id]

    def _with_new_keys(self, table: Table, final: Ids) -> Table:
        """Write keys anew, and the index with them: rare enough to do it whole."""
        prop = table.cls.key_property
        ids = self._renumber(np.fromiter(self._rekeyed, np.int64, len(self._rekeyed)), final)
        new = dict(zip(ids.tolist(), self._rekeyed.values(), strict=True))
        chunks = []
        for chunk in table.chunks:
            keys = keys_to_list(chunk.keys, prop)
            keys = [new.get(row_id, key) for row_id, key in zip(chunk.ids.tolist(), keys, strict=True)]
            chunks.append(Chunk(chunk.ids, keys_to_arrow(keys, prop), chunk.columns))
        index = build_index(table.cls, chunks)
        index.end = table.next_id
        return Table(table.cls, table.schema, tuple(chunks), index, table.next_id)

    def _final_ids(self) -> Ids:
        """Give the final id of each new row: creation order."""
        if not self._new_keys:
            return np.empty(0, np.int64)
        positions = np.concatenate(self._created_at)
        rank = np.empty(len(positions), np.int64)
        rank[np.argsort(positions, kind="stable")] = np.arange(len(positions))
        return self.base.next_id + rank

    def _renumber(self, ids: Ids, final: Ids) -> Ids:
        if not len(final):
            return ids
        start = self.base.next_id
        new = ids >= start
        if not new.any():
            return ids
        out = ids.copy()
        out[new] = final[ids[new] - start]
        return out

    def _changes(self, final: Ids) -> dict[str, tuple[Ids, Any]]:
        """Give for each field the ids, ascending, and the values."""
        found: dict[str, tuple[Ids, Any]] = {}
        for name in self._bulk.keys() | self._single.keys():
            prop = self.base.cls.columns[name]
            parts = [(self._renumber(ids, final), values) for ids, values in self._bulk.get(name, ())]
            single = self._single.get(name)
            if single:
                ids = self._renumber(np.fromiter(single, np.int64, len(single)), final)
                parts.append((ids, list(single.values())))
            scalar = t.is_scalar(prop, self.base.schema)
            if scalar:
                arrays = [model_to_arrow(v, prop, self.base.schema) if isinstance(v, list) else v for _, v in parts]
                values: Any = concat_arrays(arrays, prop)
            else:
                values = [v for _, part in parts for v in part]
            ids = np.concatenate([ids for ids, _ in parts])
            if len(ids) > 1 and not (np.diff(ids) > 0).all():
                order = np.argsort(ids, kind="stable")
                ids = ids[order]
                values = values.take(pa.array(order)) if scalar else [values[j] for j in order]
            found[name] = (ids, values)
        return found

    def _old_chunks(self, changes: dict[str, tuple[Ids, Any]], erased: Ids) -> list[Chunk]:
        chunks = list(self.base.chunks)
        touched: dict[int, dict[str, Cells]] = {}
        for name, (ids, values) in changes.items():
            self._change_column(name, ids, values, touched)
        for number, columns in touched.items():
            old = chunks[number]
            chunks[number] = Chunk(old.ids, old.keys, {**old.columns, **columns})
        gone = erased[erased < self.base.next_id]
        if len(gone) and chunks:
            numbers = np.searchsorted(self.base.first_ids, gone, "right") - 1
            for number in np.unique(numbers).tolist():
                chunk = chunks[number]
                kept = np.flatnonzero(~np.isin(chunk.ids, gone[numbers == number], assume_unique=True))
                chunks[number] = chunk.take(kept)
            chunks = [c for c in chunks if len(c)]
        return chunks

    def _change_column(self, name: str, ids: Ids, values: Any, touched: dict[int, dict[str, Cells]]) -> None:
        """Put new values into the chunks that hold their rows."""
        count = int(np.searchsorted(ids, self.base.next_id))
        if not count:
            return
        old_ids = ids[:count]
        numbers = np.searchsorted(self.base.first_ids, old_ids, "right") - 1
        bounds = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1, append=numbers[-1] + 1))
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            number = int(numbers[start])
            chunk = self.base.chunks[number]
            offsets = old_ids[start:stop] - chunk.ids[0]
            if int(chunk.ids[-1] - chunk.ids[0]) + 1 != len(chunk):
                offsets = np.searchsorted(chunk.ids, old_ids[start:stop])
            part = values[start:stop] if isinstance(values, list) else values.slice(start, stop - start)
            touched.setdefault(number, {})[name] = replaced(chunk.columns[name], offsets, part)

    def _new_chunk(self, changes: dict[str, tuple[Ids, Any]], final: Ids, erased: Ids) -> Chunk | None:
        if not len(final):
            return None
        base, count = self.base, len(final)
        ids = np.arange(base.next_id, base.next_id + count, dtype=np.int64)
        keys = pa.concat_arrays(self._new_keys) if len(self._new_keys) > 1 else self._new_keys[0]
        if not (np.diff(final) == 1).all():
            keys = keys.take(pa.array(np.argsort(final, kind="stable")))
        columns: dict[str, Cells] = {}
        for name, prop in base.cls.columns.items():
            got, values = changes.get(name, (np.empty(0, np.int64), None))
            first = int(np.searchsorted(got, base.next_id))
            offsets = got[first:] - base.next_id
            if not len(offsets):
                columns[name] = default_cells(prop, base.schema, count)
            elif isinstance(values, list):
                filled = [thaw(default_value(prop, base.schema)) for _ in range(count)]
                for offset, value in zip(offsets.tolist(), values[first:], strict=True):
                    filled[offset] = value
                columns[name] = Cells(prop, base.schema, values=filled)
            else:
                columns[name] = self._filled(prop, offsets, values.slice(first), count)
        chunk = Chunk(ids, keys, columns)
        gone = erased[erased >= base.next_id]
        if len(gone):
            chunk = chunk.take(np.flatnonzero(~np.isin(ids, gone, assume_unique=True)))
        return chunk if len(chunk) else None

    def _filled(self, prop: Property, offsets: Ids, values: Any, count: int) -> Cells:
        schema = self.base.schema
        if len(offsets) == count:
            return Cells(prop, schema, values)
        one = model_to_arrow([default_value(prop, schema)], prop, schema)
        gather = np.zeros(count, np.int64)
        gather[offsets] = np.arange(1, len(offsets) + 1)
        return Cells(prop, schema, concat_arrays([one, values], prop).take(pa.array(gather)))


def default_cells(prop: Property, schema: Schema, count: int) -> Cells:
    """Give what so many new objects hold in a property."""
    value = default_value(prop, schema)
    if t.is_scalar(prop, schema):
        one = model_to_arrow([value], prop, schema)
        return Cells(prop, schema, one.take(pa.array(np.zeros(count, np.int64))))
    if prop.collection is Collection.SINGLE:
        return Cells(prop, schema, values=[None] * count)
    # An array, because most collections stay empty and are never read as values.
    empty = model_to_arrow([value], prop, schema)
    offsets = pa.array(np.zeros(count + 1, np.int32))
    if prop.collection is Collection.DICTIONARY:
        return Cells(prop, schema, pa.MapArray.from_arrays(offsets, empty.keys, empty.items))
    return Cells(prop, schema, pa.ListArray.from_arrays(offsets, empty.values))


def replaced(cells: Cells, offsets: Ids, new: Any) -> Cells:
    """Give cells with some rows replaced (``new``: model values, or an Arrow array for a scalar column)."""
    if isinstance(new, list):
        values = list(cells.values)
        for offset, value in zip(offsets.tolist(), new, strict=True):
            values[offset] = value
        return Cells(cells.prop, cells.schema, values=values)
    old = cells.array
    if len(offsets) <= _SPLICE:
        parts, at = [], 0
        for j, offset in enumerate(offsets.tolist()):
            parts += [old.slice(at, offset - at), new.slice(j, 1)]
            at = offset + 1
        parts.append(old.slice(at))
        return Cells(cells.prop, cells.schema, concat_arrays([p for p in parts if len(p)], cells.prop))
    gather = np.arange(len(old), dtype=np.int64)
    gather[offsets] = np.arange(len(old), len(old) + len(new))
    return Cells(cells.prop, cells.schema, concat_arrays([old, new], cells.prop).take(pa.array(gather)))


def _append(chunks: list[Chunk], fresh: Chunk) -> list[Chunk]:
    """Append any number of rows."""
    if len(fresh) <= CHUNK_ROWS:
        return append_chunk(chunks, fresh)
    for start in range(0, len(fresh), CHUNK_ROWS):
        part = fresh.take(np.arange(start, min(start + CHUNK_ROWS, len(fresh))))
        chunks = append_chunk(chunks, part)
    return chunks


def append_chunk(chunks: list[Chunk], fresh: Chunk) -> list[Chunk]:
    """Append a chunk; small ones at the end are joined as in a binary counter, so that there are few."""
    chunks.append(fresh)
    while len(chunks) > 1 and 2 * len(chunks[-1]) > len(chunks[-2]) and len(chunks[-1]) + len(chunks[-2]) <= CHUNK_ROWS:
        last = chunks.pop()
        chunks[-1] = chunks[-1].joined(last)
    return chunks
