"""Loading: changesets that do nothing but create objects and fill them, as bootstraps and imports do.

Such instructions are written in one pass, in their order, into slabs: for each class, arrays of 64-bit words of up to
:data:`~realmframe.store.table.CHUNK_ROWS` objects, out of which the columns of a chunk are made at the end. What is put
into lists (at their end), sets and dictionaries is written down beside them, one element after another. No group of
instructions is sorted, masked or copied on the way, and a changeset can be taken block by block while it is decoded.
Anything else ends the attempt; then nothing was done, and the general way of :mod:`realmframe.store.apply` is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import numpy as np

from realmframe.changes import Changeset
from realmframe.errors import RealmError
from realmframe.model import Schema
from realmframe.store import load_kernels as k
from realmframe.store.edit import append_chunk
from realmframe.store.index import Ids, KeyIndex
from realmframe.store.loaded import Layout, Loaded, LoadedChunk, layout_of
from realmframe.store.table import CHUNK_ROWS, Chunk, Table

_CREATE: Final = 2
#: So many instructions pay for one change between classes or slabs.
_PER_CHANGE: Final = 64
#: ... beyond the changes that so many would pay for.
_FREE: Final = 4096
_SMALL_INDEX: Final = 16
_FEW_ELEMENTS: Final = 16
#: So few names are looked up at once, not when they are met.
_FEW_STRINGS: Final = 64


class Target(Protocol):
    """The application of a changeset, as loading needs it."""

    schema: Schema
    tables: dict[str, Table]

    def use(self, first: str, last: str) -> None:
        """Note which classes the next object instructions are about."""

    def change_schema(self, instructions: Changeset) -> None:
        """Apply schema instructions."""

    def note(self, name: str, inserted: Ids, modified: dict[str, Ids], deleted: Ids) -> None:
        """Note what became of a class."""


class _Loader:
    """The new objects of one class."""

    def __init__(self, table: Table, layout: Layout, room: int) -> None:
        self.table, self.layout = table, layout
        self._room = min(CHUNK_ROWS, room)
        self._slabs = [layout.slab(self._room)]
        self._at = 0
        self._state = np.zeros(4, np.int64)
        self._elements = np.zeros((k.ELEMENT_ROWS, 0), np.int64)
        self._index = KeyIndex.empty(max(_SMALL_INDEX, 1 << (2 * self._room - 1).bit_length()), table.index.secret)
        self._column_of = np.empty(0, np.int64)
        self._targets = np.empty(0, np.int64)
        self.changes = 0  # from slab to slab

    def use_strings(self, cs: Changeset) -> None:
        """Prepare for the string table of a changeset."""
        few = len(cs.string_start) <= _FEW_STRINGS
        known = [self.layout.numbers.get(name, -1) for name in cs.strings] if few else []
        self._column_of = np.array(known, np.int64)
        self._targets = np.full(len(self.layout.forms), k.UNKNOWN, np.int64)

    def take(self, cs: Changeset, start: int, stop: int, changes: int) -> int:
        """Load rows from one on; give where rows of another class begin, -1 if they cannot be loaded.

        From slab to slab is gone no more than so many times, all in all.
        """
        strings = len(cs.string_start)
        if len(self._column_of) < strings:
            grown = np.full(2 * strings, k.UNKNOWN, np.int64)
            grown[: len(self._column_of)] = self._column_of
            self._column_of = grown
        while True:
            start, status = self._load(cs, start, stop)
            if status == k.DONE or status == k.OTHER_CLASS:
                return start
            subject = int(self._state[k.SUBJECT])
            if status == k.NEW_FIELD:
                self._column_of[subject] = self.layout.numbers.get(cs.string(subject), -1)
            elif status == k.NO_ROOM:
                self._grow()
            elif status == k.MORE_ELEMENTS:
                self._grow_elements()
            elif status == k.OTHER_SLAB and self.changes < changes:
                self._at = subject // self._room
                self.changes += 1
                while len(self._slabs) <= self._at:
                    self._slabs.append(self.layout.slab(self._room))
            elif status == k.NEW_TARGET and self._is_target(cs, start, subject):
                self._targets[subject] = cs.link_table[start]
            else:
                return -1

    def _load(self, cs: Changeset, start: int, stop: int) -> tuple[int, int]:
        index, base, (words, valid) = self._index, self.table.index, self._slabs[self._at]
        found: tuple[int, int] = k.load_rows(
            start,
            stop,
            int(cs.table[start]),
            self.layout.key_kind,
            cs.op,
            cs.table,
            cs.field,
            cs.key_type,
            cs.key_hi,
            cs.key_lo,
            cs.value_type,
            cs.value_hi,
            cs.value_lo,
            cs.link_table,
            cs.link_type,
            cs.aux,
            cs.path_start,
            cs.path_len,
            cs.path,
            cs.path_is_key,
            cs.string_start,
            cs.string_len,
            cs.heap.ctypes.data,
            self._column_of,
            self.layout.forms,
            self._targets,
            self._state,
            index.slots1,
            index.slots2,
            index.rows,
            base.slots1,
            base.slots2,
            base.rows,
            self.table.next_id,
            index.secret,
            self._at * self._room,
            words,
            valid,
            self._elements,
        )
        return found

    def _is_target(self, cs: Changeset, row: int, column: int) -> bool:
        name = next(n for n, number in self.layout.numbers.items() if number == column)
        return cs.string(int(cs.link_table[row])) == self.layout.cls.columns[name].target

    def _grow(self) -> None:
        old, new = self._index, KeyIndex.empty(4 * len(self._index.rows), self._index.secret)
        k.rehash(old.slots1, old.slots2, old.rows, new.slots1, new.slots2, new.rows, new.secret)
        self._index = new

    def _grow_elements(self) -> None:
        old = self._elements
        self._elements = np.zeros((len(old), max(_FEW_ELEMENTS, 2 * old.shape[1])), np.int64)
        self._elements[:, : old.shape[1]] = old

    def _collected(self) -> Any:
        """Give the elements of collections, by object, equal ones made into one; None if that cannot be done."""
        elements = self._elements[:, : int(self._state[k.ELEMENTS])]
        if not elements.shape[1]:
            return elements
        rows = elements[k.E_ROW]
        if (rows[1:] < rows[:-1]).any():
            elements = elements[:, np.argsort(rows, kind="stable")]
        if self.layout.has_unique:
            kept = np.ones(elements.shape[1], np.bool_)
            slots = np.full(1 << (2 * len(kept)).bit_length(), -1, np.int64)
            if not k.join_equal(elements, self.layout.forms, slots, self.table.index.secret, kept):
                return None
            if not kept.all():
                elements = elements[:, kept]
        return elements

    def finish(self, heaps: tuple[Any, ...]) -> tuple[Table, Ids] | None:
        """Make the new table, out of text in some heaps; give also the ids of the new rows. None if it cannot be."""
        table, count = self.table, int(self._state[k.COUNT])
        elements = self._collected()
        if elements is None:
            return None
        ids = np.arange(table.next_id, table.next_id + count, dtype=np.int64)
        chunks: list[Chunk] = list(table.chunks)
        for number, (words, valid) in enumerate(self._slabs):
            first = number * self._room
            size = min(self._room, count - first)
            if size > 0:
                part = ids[first : first + size]
                if 2 * size <= self._room:
                    words, valid = words[:, :size].copy(), valid[:, :size].copy()
                mine = elements
                if elements.shape[1]:
                    here = np.searchsorted(elements[k.E_ROW], (first, first + size))
                    mine = elements[:, here[0] : here[1]].copy()
                    mine[k.E_ROW] -= first
                chunk = LoadedChunk(part, Loaded(self.layout, words[:, :size], valid[:, :size], mine, heaps))
                chunks = append_chunk(chunks, chunk)
        self._slabs.clear()
        return Table(table.cls, table.schema, tuple(chunks), self._indexed(count), table.next_id + count), ids

    def _indexed(self, count: int) -> KeyIndex:
        mine, base, start = self._index, self.table.index, self.table.next_id
        if not base.used:
            mine.rows[mine.rows >= 0] += start
            mine.used, mine.end = count, start + count
            return mine
        if base.end != start:
            base = base.branch(start)
        (where,) = (mine.rows >= 0).nonzero()
        if count > 1:
            where = where[np.argsort(mine.rows[where])]
        base.insert(mine.slots1[where], mine.slots2[where], mine.rows[where] + start)
        return base


class _Loading:
    """One attempt."""

    def __init__(self, run: Target, *, room: int | None) -> None:
        self._run, self._room = run, room
        self._loaders: dict[str, _Loader] = {}
        self._by_number: dict[int, _Loader] = {}
        self._heaps: list[Any] = []  # the slabs hold addresses in them
        self._credit = _FREE

    def take(self, cs: Changeset, *, new_strings: bool) -> bool:
        """Load a block of a changeset; tell whether that could be done."""
        if new_strings:
            self._heaps.append(cs.heap)
            self._by_number.clear()
        self._credit += len(cs)
        is_schema = cs.is_schema
        if not is_schema.any():
            return self._objects(cs, 0, len(cs))
        bounds = np.flatnonzero(np.diff(is_schema, prepend=~is_schema[0])).tolist()
        for start, stop in zip(bounds, [*bounds[1:], len(cs)], strict=True):
            if is_schema[start]:
                if not self.finish():
                    return False
                self._run.change_schema(cs.take(np.arange(start, stop)))
            elif not self._objects(cs, start, stop):
                return False
        return True

    def _objects(self, cs: Changeset, start: int, stop: int) -> bool:
        self._run.use(cs.string(int(cs.table[start])), cs.string(int(cs.table[stop - 1])))
        while start < stop:
            loader = self._loader(cs, start, stop)
            if loader is None:
                return False
            self._credit -= _PER_CHANGE
            before = loader.changes
            start = loader.take(cs, start, stop, before + self._credit // _PER_CHANGE)
            self._credit -= _PER_CHANGE * (loader.changes - before)
            if start < 0 or self._credit < 0:
                return False
        return True

    def _loader(self, cs: Changeset, start: int, stop: int) -> _Loader | None:
        number = int(cs.table[start])
        found = self._by_number.get(number)
        if found is None:
            name = cs.string(number)
            found = self._loaders.get(name)
            if found is None:
                table = self._run.tables.get(name)
                if table is None or int(cs.op[start]) != _CREATE:
                    return None
                room = self._room if self._room is not None else CHUNK_ROWS
                found = self._loaders[name] = _Loader(table, layout_of(name, table.schema), room)
            found.use_strings(cs)
            self._by_number[number] = found
        return found

    def finish(self) -> bool:
        """Give the run the tables with what was loaded; tell whether that could be done."""
        for name, loader in self._loaders.items():
            made = loader.finish(tuple(self._heaps))
            if made is None:
                return False
            self._run.tables[name], ids = made
            self._run.note(name, ids, {}, np.empty(0, np.int64))
        self._loaders.clear()
        self._by_number.clear()
        return True


def load(run: Target, parts: Iterable[tuple[Changeset, bool]], *, room: int | None = None) -> bool:
    """Apply changesets, if they do nothing but create and fill objects (and add to the schema).

    Parameters
    ----------
    run : Target
        Not to be used any more if the answer is no.
    parts : iterable of (Changeset, bool)
        Blocks, and whether a block begins with a string table of its own. A block is used while it is given only.
    room : int, optional
        No more objects than so many are created, if that is known.
    """
    loading = _Loading(run, room=room)
    try:
        for block, new_strings in parts:
            if len(block) and not loading.take(block, new_strings=new_strings):
                return False
        return loading.finish()
    except RealmError:
        return False  # the general way says what is wrong
