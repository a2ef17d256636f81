"""Loading: changesets that do nothing but create objects and fill them, as bootstraps and imports do.

Such instructions are written in one pass, in their order, into slabs: for each class, arrays of 64-bit words of up to
:data:`~realmframe.store.table.CHUNK_ROWS` objects, out of which the columns of a chunk are made at the end. No group of
instructions is sorted, masked or copied on the way, and a changeset can be taken block by block while it is decoded.
Anything else ends the attempt; then nothing was done, and the general way of :mod:`realmframe.store.apply` is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset
from realmframe.errors import RealmError
from realmframe.model import ObjectSchema, Property, PropertyType, Schema
from realmframe.store import load_kernels as k
from realmframe.store import types as t
from realmframe.store.arrays import default_value
from realmframe.store.edit import append_chunk, default_cells
from realmframe.store.gather import fixed_array, memory_strings, words_to_bytes
from realmframe.store.index import Ids, KeyIndex
from realmframe.store.table import CHUNK_ROWS, Cells, Chunk, Table

_CREATE: Final = 2
#: Opcodes that change the schema: AddTable, EraseTable, AddColumn, EraseColumn.
IS_SCHEMA: Final = np.isin(np.arange(256), (0, 1, 6, 7))
#: What is kept in one word; everything else takes two.
_ONE_WORD: Final = frozenset(
    {PropertyType.INT, PropertyType.BOOL, PropertyType.DATE, PropertyType.FLOAT, PropertyType.DOUBLE}
)
_GLOBAL_KEY: Final = -1
#: So many instructions pay for one change between classes or slabs.
_PER_CHANGE: Final = 64
_SMALL_INDEX: Final = 16


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


class Layout:
    """Where the properties of a class are in a slab."""

    def __init__(self, cls: ObjectSchema, schema: Schema) -> None:
        key = cls.key_property
        self.cls, self.schema, self.key_kind = cls, schema, _GLOBAL_KEY if key is None else int(key.type)
        self.numbers: dict[str, int] = {}
        self.others: list[Property] = []
        self.first = np.zeros(2, np.int64)
        forms, first = [], [0, 0]
        for prop in cls.columns.values():
            if not t.is_scalar(prop, schema):
                self.others.append(prop)
                continue
            kept = int(prop.type)
            if prop.type is PropertyType.OBJECT:
                target = schema[prop.target or ""].key_property
                kept = _GLOBAL_KEY if target is None else int(target.type)
            nullable = prop.optional or prop.type is PropertyType.OBJECT
            self.numbers[prop.name] = len(forms)
            forms.append((int(prop.type), kept, len(first), nullable))
            first += [0] if kept in _ONE_WORD else [0, 0]
            if prop.type is PropertyType.DECIMAL128 and not nullable:
                zero = default_value(prop, schema)
                first[-2:] = [zero.low, zero.high]
        self.forms = np.array(forms, np.int64).reshape(-1, 4)
        self.first = np.array(first, np.int64)

    def slab(self, room: int) -> tuple[Any, Any]:
        """Make the words, and which of them are no nulls, of so many new objects."""
        words = np.zeros((len(self.first), room), np.int64)
        for number in np.flatnonzero(self.first).tolist():
            words[number] = self.first[number]
        return words, np.zeros((len(self.forms), room), np.bool_)

    def arrays(self, words: Any, valid: Any) -> tuple[pa.Array, dict[str, Cells]]:
        """Make the keys and columns out of a slab."""
        count = words.shape[1]
        keys = _array(self.key_kind, words, 0, None)
        columns: dict[str, Cells] = {}
        for name, number in self.numbers.items():
            _, kept, word, nullable = self.forms[number].tolist()
            array = _array(kept, words, word, valid[number] if nullable else None)
            columns[name] = Cells(self.cls.columns[name], self.schema, array)
        for prop in self.others:
            columns[prop.name] = default_cells(prop, self.schema, count)
        return keys, {name: columns[name] for name in self.cls.columns}


def _array(kept: int, words: Any, word: int, valid: Any) -> pa.Array:
    """Make an Arrow array out of the words of one column."""
    one = words[word]
    if kept in _ONE_WORD:
        kind = PropertyType(kept)
        if kind is PropertyType.BOOL:
            return fixed_array(np.packbits(one != 0, bitorder="little"), pa.bool_(), valid, len(one))
        data = one.astype(np.uint32) if kind is PropertyType.FLOAT else one.copy()
        return fixed_array(data, t.SCALARS[kind], valid, len(one))
    two = words[word + 1]
    if kept == PropertyType.STRING or kept == PropertyType.DATA:
        return memory_strings(one, two, t.SCALARS[PropertyType(kept)], valid)
    if kept == PropertyType.DECIMAL128:
        data, extension = np.stack([one, two], axis=1), t.DECIMAL128
    elif kept == PropertyType.OBJECT_ID:
        data, extension = words_to_bytes(one, two, 12), t.OBJECT_ID
    else:
        data, extension = words_to_bytes(one, two, 16), t.GLOBAL_KEY if kept == _GLOBAL_KEY else pa.uuid()
    storage = fixed_array(data, extension.storage_type, valid, len(one))
    return pa.ExtensionArray.from_storage(extension, storage)


class _ById:
    """A schema that is equal to itself only, which is quick to tell."""

    __slots__ = ("value",)

    def __init__(self, value: Schema) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.value is other.value


@lru_cache(maxsize=256)
def _layout(name: str, schema: _ById) -> Layout:
    return Layout(schema.value[name], schema.value)


class _Loader:
    """The new objects of one class."""

    def __init__(self, table: Table, layout: Layout, room: int) -> None:
        self.table, self.layout = table, layout
        self._room = min(CHUNK_ROWS, room)
        self._slabs = [layout.slab(self._room)]
        self._at = 0
        self._state = np.zeros(3, np.int64)
        self._index = KeyIndex.empty(max(_SMALL_INDEX, 1 << (2 * room - 1).bit_length()))
        self._column_of = np.empty(0, np.int64)
        self._targets = np.empty(0, np.int64)
        self.changes = 0

    def forget_strings(self) -> None:
        """Prepare for another string table."""
        self._column_of = np.empty(0, np.int64)
        self._targets = np.full(len(self.layout.forms), k.UNKNOWN, np.int64)

    def take(self, cs: Changeset, start: int, stop: int) -> int:
        """Load rows from one on; give where rows of another class begin, -1 if they cannot be loaded."""
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
            elif status == k.OTHER_SLAB:
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
            cs.path_len,
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
            self._at * self._room,
            words,
            valid,
        )
        return found

    def _is_target(self, cs: Changeset, row: int, column: int) -> bool:
        name = next(n for n, number in self.layout.numbers.items() if number == column)
        return cs.string(int(cs.link_table[row])) == self.layout.cls.columns[name].target

    def _grow(self) -> None:
        old, new = self._index, KeyIndex.empty(4 * len(self._index.rows))
        k.rehash(old.slots1, old.slots2, old.rows, new.slots1, new.slots2, new.rows)
        self._index = new

    def finish(self) -> tuple[Table, Ids]:
        """Make the new table; give also the ids of the new rows."""
        table, count = self.table, int(self._state[k.COUNT])
        ids = np.arange(table.next_id, table.next_id + count, dtype=np.int64)
        chunks = list(table.chunks)
        for number, (words, valid) in enumerate(self._slabs):
            first = number * self._room
            size = min(self._room, count - first)
            if size > 0:
                keys, columns = self.layout.arrays(words[:, :size], valid[:, :size])
                chunks = append_chunk(chunks, Chunk(ids[first : first + size], keys, columns), table.cls.key_property)
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
        where = np.flatnonzero(mine.rows >= 0)
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
        self._credit = _PER_CHANGE * _PER_CHANGE

    def take(self, cs: Changeset, *, new_strings: bool) -> bool:
        """Load a block of a changeset; tell whether that could be done."""
        if new_strings:
            self._heaps.append(cs.heap)
            self._by_number.clear()
        self._credit += len(cs)
        is_schema = IS_SCHEMA[cs.op]
        if not is_schema.any():
            return self._objects(cs, 0, len(cs))
        bounds = np.flatnonzero(np.diff(is_schema, prepend=~is_schema[0])).tolist()
        for start, stop in zip(bounds, [*bounds[1:], len(cs)], strict=True):
            if is_schema[start]:
                self.finish()
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
            loader.changes += 1
            start = loader.take(cs, start, stop)
            self._credit -= _PER_CHANGE * loader.changes
            loader.changes = 0
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
                found = self._loaders[name] = _Loader(table, _layout(name, _ById(table.schema)), room)
            found.forget_strings()
            self._by_number[number] = found
        return found

    def finish(self) -> None:
        """Give the run the tables with what was loaded."""
        for name, loader in self._loaders.items():
            self._run.tables[name], ids = loader.finish()
            self._run.note(name, ids, {}, np.empty(0, np.int64))
        self._loaders.clear()
        self._by_number.clear()


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
        loading.finish()
    except RealmError:
        return False  # the general way says what is wrong
    return True

