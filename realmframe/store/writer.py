"""Model values as instructions, one at a time: collections, embedded objects, Mixed values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from realmframe.changes import instructions as i
from realmframe.model import (
    Collection,
    Decimal128,
    EmbeddedObject,
    Key,
    Marker,
    Property,
    PropertyType,
    RealmSet,
    Schema,
)
from realmframe.store.nested import is_lost

_ONE: Final = Decimal128.from_parts(1, 0, False)


class Writer:
    """Writes model values as instructions on one object."""

    def __init__(self, schema: Schema, table: str, pk: Key, field: str) -> None:
        self._schema, self._table, self._pk, self._field = schema, table, pk, field

    def place(self, prop: Property, value: Any, path: i.Path, *, reset: bool) -> Iterator[i.Instruction]:
        """Make a place hold a value."""
        where = (self._table, self._pk, self._field, path)
        if isinstance(value, EmbeddedObject):
            if reset:
                yield i.Update(*where, None)
            yield i.Update(*where, Marker.OBJECT_VALUE)
            yield from self._fields(prop, value, path)
        elif isinstance(value, list | dict):
            kind = _kind_of(value)
            if prop.collection is Collection.SINGLE:
                yield i.Update(*where, Marker.LIST if kind is Collection.LIST else Marker.DICTIONARY)
            if reset:
                yield i.Clear(*where, kind)
            yield from self._items(prop, value, path)
        else:
            if reset and prop.type is PropertyType.MIXED and isinstance(value, float | np.float32 | Decimal128):
                yield i.Update(*where, None)  # an equal number, of another sign or with other zeros, stays otherwise
            yield i.Update(*where, value)

    def _fields(self, prop: Property, value: EmbeddedObject, path: i.Path) -> Iterator[i.Instruction]:
        for name, inner in self._schema[prop.target or ""].properties.items():
            held = value[name]
            if isinstance(held, float | np.float32) and held == 0 and np.signbit(held) and not inner.optional:
                # It holds 0 already, which equals -0, and what is equal is not written.
                yield i.Update(self._table, self._pk, self._field, (*path, name), type(held)(1))
            if inner.collection is not Collection.SINGLE and not held:
                continue  # a new embedded object holds empty collections
            yield from self.place(inner, held, (*path, name), reset=False)

    def _items(self, prop: Property, value: Any, path: i.Path) -> Iterator[i.Instruction]:
        element = replace(prop, collection=Collection.SINGLE)
        if isinstance(value, RealmSet):
            yield from self.members(prop, value, path)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from self.place(element, item, (*path, key), reset=False)
        else:
            for index, item in enumerate(value):
                yield from self.insert(element, item, (*path, index), index)

    def members(self, prop: Property, value: RealmSet, path: i.Path) -> Iterator[i.Instruction]:
        """Fill an empty set."""
        where = (self._table, self._pk, self._field, path)
        minus = [item for item in value if prop.type is PropertyType.DECIMAL128 and is_minus_zero(item)]
        for item in _as_found(prop, value):
            if item not in minus:
                yield i.SetInsert(*where, item)
        for item in minus:
            # Alone, it would lose its sign.
            if len(value) == 1:
                yield i.SetInsert(*where, _ONE)
            yield i.SetInsert(*where, item)
            if len(value) == 1:
                yield i.SetErase(*where, _ONE)

    def insert(self, element: Property, item: Any, path: i.Path, size: int) -> Iterator[i.Instruction]:
        """Insert a value, with all that is in it, into a list of ``size`` elements."""
        where = (self._table, self._pk, self._field, path)
        if isinstance(item, EmbeddedObject):
            yield i.ArrayInsert(*where, Marker.OBJECT_VALUE, size)
            yield from self._fields(element, item, path)
        elif isinstance(item, list | dict):
            yield i.ArrayInsert(*where, Marker.LIST if isinstance(item, list) else Marker.DICTIONARY, size)
            yield from self._items(element, item, path)
        elif element.type is PropertyType.DECIMAL128 and is_minus_zero(item):
            # Among zeros only, it would lose its sign where it is inserted, but not where it replaces another number.
            yield i.ArrayInsert(*where, _ONE, size)
            yield i.Update(*where, item, prior_size=size + 1)
        else:
            yield i.ArrayInsert(*where, item, size)


def is_minus_zero(value: Any) -> bool:
    """Whether it is a decimal -0, which loses its sign among zeros only."""
    return isinstance(value, Decimal128) and value.negative and not value.coefficient and not value.exponent


def _as_found(prop: Property, value: RealmSet) -> list[Any]:
    """Put not-a-number after all other members, beside which others are not found for sure.

    That is also how a number came to be in the set twice: its second copy comes at the very end.
    """
    lost = [item for item in value if is_lost(item, prop)]
    if not lost:
        return list(value)
    known: dict[Any, None] = {}
    again: list[Any] = []
    for item in value:
        if item in known:
            again.append(item)
        elif item == item:
            known[item] = None
    return [*known, *lost, *again]


def _kind_of(value: Any) -> Collection:
    if isinstance(value, RealmSet):
        return Collection.SET
    return Collection.LIST if isinstance(value, list) else Collection.DICTIONARY


def value_instructions(
    schema: Schema,
    table: str,
    pk: Key,
    prop: Property,
    value: Any,
    *,
    reset: bool = False,
    at: tuple[Property, i.Path] | None = None,
) -> Iterator[i.Instruction]:
    """Give the instructions that make a property of an object hold a value.

    Parameters
    ----------
    reset : bool
        Whether it may hold something already: collections are cleared, embedded objects replaced.
    at : (Property, path), optional
        A place inside the property, and its type.
    """
    inner, path = at or (prop, ())
    return Writer(schema, table, pk, prop.name).place(inner, value, path, reset=reset)


def insertion_instructions(
    schema: Schema, table: str, pk: Key, field: str, element: Property, item: Any, path: i.Path, size: int
) -> Iterator[i.Instruction]:
    """Give the instructions that insert a value, with all that is in it, into a list of ``size`` elements."""
    return Writer(schema, table, pk, field).insert(element, item, path, size)
