"""Objects that were loaded: slabs of 64-bit words, and the chunks that are made out of them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from realmframe.model import Collection, ObjectSchema, Property, PropertyType, Schema
from realmframe.store import load_kernels as k
from realmframe.store import types as t
from realmframe.store.coercion import default_value
from realmframe.store.edit import default_cells
from realmframe.store.gather import fixed_array, memory_strings, words_to_bytes
from realmframe.store.index import Ids
from realmframe.store.table import Cells, Chunk

#: What is kept in one word; everything else takes two.
_ONE_WORD: Final = frozenset(
    {PropertyType.INT, PropertyType.BOOL, PropertyType.DATE, PropertyType.FLOAT, PropertyType.DOUBLE}
)
_FRACTIONS: Final = (PropertyType.FLOAT, PropertyType.DOUBLE, PropertyType.DECIMAL128)
_PIECES: Final = (PropertyType.STRING, PropertyType.DATA)
_GLOBAL_KEY: Final = -1
#: A chunk of no more rows, whose text is part of no more bytes, stays in words until somebody reads it.
_LAZY_ROWS: Final = 4096
_LAZY_BYTES: Final = 1 << 20


class Layout:
    """Where the properties of a class are in a slab."""

    def __init__(self, cls: ObjectSchema, schema: Schema) -> None:
        key = cls.key_property
        self.cls, self.schema, self.key_kind = cls, schema, _GLOBAL_KEY if key is None else int(key.type)
        self.numbers: dict[str, int] = {}
        self.others: list[Property] = []
        forms: list[tuple[int, int, int, bool, int]] = []
        first = [0, 0]
        for prop in cls.columns.values():
            single = prop.collection is Collection.SINGLE
            if not (t.is_scalar(prop, schema) if single else is_plain_collection(prop, schema)):
                self.others.append(prop)
                continue
            kept = int(prop.type)
            if prop.type is PropertyType.OBJECT:
                target = schema[prop.target or ""].key_property
                kept = _GLOBAL_KEY if target is None else int(target.type)
            nullable = prop.optional or prop.type is PropertyType.OBJECT
            self.numbers[prop.name] = len(forms)
            if not single:
                nullable = prop.optional and (
                    prop.type is not PropertyType.OBJECT or prop.collection is Collection.DICTIONARY
                )
                forms.append((int(prop.type), kept, len(first), nullable, int(prop.collection)))
                first.append(0)
                continue
            forms.append((int(prop.type), kept, len(first), nullable, 0))
            first += [0] if kept in _ONE_WORD else [0, 0]
            if prop.type is PropertyType.DECIMAL128 and not nullable:
                zero = default_value(prop, schema)
                first[-2:] = [zero.low, zero.high]
        #: Whether text or data is kept, by address.
        self.has_pieces = self.key_kind in _PIECES or any(
            form[1] in _PIECES or form[4] == Collection.DICTIONARY for form in forms
        )
        #: Whether there are sets or dictionaries.
        self.has_unique = any(form[4] in (Collection.DICTIONARY, Collection.SET) for form in forms)
        self.forms = np.array(forms, np.int64).reshape(-1, 5)
        self.first = np.array(first, np.int64)

    def slab(self, room: int) -> tuple[Any, Any]:
        """Make the words, and which of them are no nulls, of so many new objects."""
        words = np.zeros((len(self.first), room), np.int64)
        for number in np.flatnonzero(self.first).tolist():
            words[number] = self.first[number]
        return words, np.zeros((len(self.forms), room), np.bool_)

    def arrays(self, words: Any, valid: Any, elements: Any) -> tuple[pa.Array, dict[str, Cells]]:
        """Make the keys and columns out of a slab and the elements of collections."""
        count = words.shape[1]
        keys = _array(self.key_kind, words, 0, None)
        columns: dict[str, Cells] = {}
        for name, number in self.numbers.items():
            _, kept, word, nullable, collection = self.forms[number].tolist()
            if collection:
                array = self._collections(number, elements[:, elements[k.E_COLUMN] == number], count)
            else:
                array = _array(kept, words, word, valid[number] if nullable else None)
            columns[name] = Cells(self.cls.columns[name], self.schema, array)
        for prop in self.others:
            columns[prop.name] = default_cells(prop, self.schema, count)
        return keys, {name: columns[name] for name in self.cls.columns}

    def _collections(self, number: int, elements: Any, count: int) -> pa.Array:
        """Make the column of a collection out of its elements, which come by object."""
        _, kept, _, nullable, collection = self.forms[number].tolist()
        sizes = np.bincount(elements[k.E_ROW], minlength=count)
        offsets = _offsets(sizes)
        valid = elements[k.E_VALID] != 0 if nullable else None
        if kept == PropertyType.DATE:
            values = _wide_dates(elements[k.E_WORD], elements[k.E_WORD + 1], valid)
        else:
            values = _array(kept, elements, k.E_WORD, valid)
        if collection != Collection.DICTIONARY:
            return pa.ListArray.from_arrays(offsets, values)
        keys = memory_strings(elements[k.E_KEY], elements[k.E_SIZE], pa.string())
        return pa.MapArray.from_arrays(offsets, keys, values)


def is_plain_collection(prop: Property, schema: Schema) -> bool:
    """Whether a property is a collection that loading can fill.

    Sets of numbers with a fraction are not: where one lies, and which is found, depends on not-a-number beside it, and
    decimals are one by their amount.
    """
    if prop.type is PropertyType.MIXED or (prop.type in _FRACTIONS and prop.collection is Collection.SET):
        return False
    return prop.type is not PropertyType.OBJECT or t.is_plain_link(prop, schema)


def _offsets(sizes: Any) -> pa.Array:
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.array(offsets)


def _wide_dates(seconds: Any, nanos: Any, valid: Any) -> pa.Array:
    mask = None if valid is None or valid.all() else pa.array(~valid)
    fields = [pa.array(seconds), pa.array(nanos.astype(np.int32))]
    return pa.StructArray.from_arrays(fields, fields=list(t.WIDE_DATE), mask=mask)


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
    if kept in _PIECES:
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
def _layout_of(name: str, schema: _ById) -> Layout:
    return Layout(schema.value[name], schema.value)


def layout_of(name: str, schema: Schema) -> Layout:
    """Give the layout of a class."""
    return _layout_of(name, _ById(schema))


class Loaded(NamedTuple):
    """Objects as words.

    Attributes
    ----------
    layout : Layout
    words, valid : array
        A word, or whether a property is no null, per row and object.
    elements : array
        What is in collections; see :mod:`realmframe.store.load_kernels`.
    heaps : tuple
        Holds the text.
    """

    layout: Layout
    words: Any
    valid: Any
    elements: Any
    heaps: tuple[Any, ...]


class LoadedChunk(Chunk):
    """A chunk whose keys and columns are made when they are first read.

    One that was made by a small commit is mostly joined with the next one before anybody does.
    """

    __slots__ = ("_made", "_raw")

    def __init__(self, ids: Ids, raw: Loaded) -> None:
        if not raw.layout.has_pieces:
            raw = raw._replace(heaps=())
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "_made", None)
        object.__setattr__(self, "_raw", raw)
        if max(len(ids), raw.elements.shape[1]) > _LAZY_ROWS or sum(len(heap) for heap in raw.heaps) > _LAZY_BYTES:
            self._parts()

    _made: tuple[pa.Array, dict[str, Cells]] | None
    _raw: Loaded | None

    def _parts(self) -> tuple[pa.Array, dict[str, Cells]]:
        # Two threads may both make them; whoever finds the words gone finds what was made of them.
        raw, made = self._raw, self._made
        if made is None and raw is not None:
            made = raw.layout.arrays(raw.words, raw.valid, raw.elements)
            object.__setattr__(self, "_made", made)
            object.__setattr__(self, "_raw", None)
        made = self._made if made is None else made
        assert made is not None
        return made

    @property
    def raw(self) -> Loaded | None:
        """The objects as words; None once keys and columns were made."""
        return self._raw

    @property
    def keys(self) -> Any:
        """The keys."""
        return self._parts()[0]

    @property
    def columns(self) -> dict[str, Cells]:
        """Property name to cells."""
        return self._parts()[1]

    def joined(self, other: Chunk) -> Chunk:
        """Put another chunk after this one."""
        mine, its = self.raw, other.raw if isinstance(other, LoadedChunk) else None
        if mine is None or its is None or mine.layout is not its.layout:
            return Chunk.joined(self, other)
        words = np.concatenate([mine.words, its.words], axis=1)
        valid = np.concatenate([mine.valid, its.valid], axis=1)
        elements = mine.elements
        if its.elements.shape[1]:
            elements = np.concatenate([mine.elements, its.elements], axis=1)
            elements[k.E_ROW, mine.elements.shape[1] :] += len(self.ids)
        ids = np.concatenate([self.ids, other.ids])
        return LoadedChunk(ids, Loaded(mine.layout, words, valid, elements, mine.heaps + its.heaps))
