"""The fewest instructions that turn what a nested property holds into something else.

What is new in a list is inserted where it stands, a key of a dictionary is put or removed, a field of an embedded
object is set. So a value that is written whole, as pandas does, merges with concurrent edits as well as if its elements
had been edited one by one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from realmframe.changes import instructions as i
from realmframe.model import (
    Collection,
    Decimal128,
    EmbeddedObject,
    Key,
    Link,
    Marker,
    Property,
    PropertyType,
    RealmSet,
    Schema,
)
from realmframe.store.coercion import set_identity
from realmframe.store.mixed import exact
from realmframe.store.nested import is_lost, same_element
from realmframe.store.writer import Writer, is_minus_zero

#: Middles of lists above so many pairs of elements are replaced in place, not matched.
_MATCHED: Final = 250_000


class Revision:
    """Writes the way from one model value to another.

    Parameters
    ----------
    schema : Schema
    table, pk, field
        The object and its property.
    """

    def __init__(self, schema: Schema, table: str, pk: Key, field: str) -> None:
        self._schema = schema
        self._at = (table, pk, field)
        self._writer = Writer(schema, table, pk, field)

    def revise(self, prop: Property, old: Any, new: Any, path: i.Path = ()) -> Iterator[i.Instruction]:
        """Give the instructions for one place, none if it holds the new value to the last bit."""
        if type(old) is type(new) and exact(old) == exact(new):
            return
        if isinstance(old, EmbeddedObject) and isinstance(new, EmbeddedObject):
            yield from self._fields(prop, old, new, path)
        elif isinstance(old, RealmSet) and isinstance(new, RealmSet):
            yield from self._set(prop, old, new, path)
        elif type(old) is list and type(new) is list:
            yield from self._list(prop, old, new, path)
        elif type(old) is dict and type(new) is dict:
            yield from self._dictionary(prop, old, new, path)
        else:
            if type(old) is type(new) and same_element(old, new):
                # An equal number, of another sign or with other zeros, is not written over what it equals.
                yield i.Update(*self._at, path, _other_number(new))
            elif new is None and isinstance(old, Link) and path and isinstance(path[-1], int):
                # If it leads nowhere, null is what it is taken for already, and would not be written.
                yield i.Update(*self._at, path, False)
            yield from self._writer.place(prop, new, path, reset=False)

    def _fields(
        self, prop: Property, old: EmbeddedObject, new: EmbeddedObject, path: i.Path
    ) -> Iterator[i.Instruction]:
        for name, inner in self._schema[prop.target or ""].properties.items():
            yield from self.revise(inner, old[name], new[name], (*path, name))

    def _set(self, prop: Property, old: RealmSet, new: RealmSet, path: i.Path) -> Iterator[i.Instruction]:
        if not old or not new or self._is_rewritten(prop, old, new):
            if old:
                yield i.Clear(*self._at, path, Collection.SET)
            yield from self._writer.members(prop, new, path)
            return
        before, after = ({set_identity(v): v for v in values} for values in (old, new))
        gone = [v for k, v in before.items() if k not in after]
        yield from (i.SetErase(*self._at, path, v) for v in gone)
        yield from (i.SetInsert(*self._at, path, v) for k, v in after.items() if k not in before)

    def _is_rewritten(self, prop: Property, old: RealmSet, new: RealmSet) -> bool:
        """Whether single members cannot lead there: null and not-a-number that cannot be erased, equal numbers."""
        before, after = ({set_identity(v): exact(v) for v in values} for values in (old, new))
        if len(before) < len(old) or any(key in before and before[key] != value for key, value in after.items()):
            return True
        gone = [v for v in old if set_identity(v) not in after]
        if any(is_minus_zero(v) for v in new):
            return True
        if gone and any(is_lost(v, prop) for v in old):
            return True  # Where there is one that is not found, others are not found for sure.
        return any(v is None and not erases_null(prop) for v in gone)

    def _dictionary(
        self, prop: Property, old: dict[str, Any], new: dict[str, Any], path: i.Path
    ) -> Iterator[i.Instruction]:
        if old and not new:
            yield i.Clear(*self._at, path, Collection.DICTIONARY)
            return
        element = replace(prop, collection=Collection.SINGLE)
        yield from (i.Update(*self._at, (*path, key), Marker.ERASED) for key in old if key not in new)
        for key, value in new.items():
            if key in old:
                yield from self.revise(element, old[key], value, (*path, key))
            else:
                yield from self._writer.place(element, value, (*path, key), reset=False)

    def _list(self, prop: Property, old: list[Any], new: list[Any], path: i.Path) -> Iterator[i.Instruction]:
        if old and not new:
            yield i.Clear(*self._at, path, Collection.LIST)
            return
        element = replace(prop, collection=Collection.SINGLE)
        size, shift = len(old), 0
        for first, last, start, stop in _differing(old, new):
            both = min(last - first, stop - start)
            for n in range(both):
                yield from self._element(element, old[first + n], new[start + n], (*path, first + shift + n), size)
            for _ in range(last - first - both):
                yield i.ArrayErase(*self._at, (*path, first + shift + both), size)
                size -= 1
            for n in range(both, stop - start):
                yield from self._writer.insert(element, new[start + n], (*path, first + shift + n), size)
                size += 1
            shift += (stop - start) - (last - first)

    def _element(self, element: Property, old: Any, new: Any, path: i.Path, size: int) -> Iterator[i.Instruction]:
        """Revise an element of a list: every update of its own place says how long the list is."""
        for one in self.revise(element, old, new, path):
            if isinstance(one, i.Update) and len(one.path) == len(path):
                one = replace(one, prior_size=size)
            yield one


def _other_number(value: Any) -> Any:
    """Give a number of the same type and another amount."""
    if isinstance(value, Decimal128):
        return Decimal128.from_parts(1 if value.to_decimal() != 1 else 2, 0, False)
    return type(value)(value != 1)


def erases_null(prop: Property) -> bool:
    """Whether null can be erased from a set: the real engine takes that for a type mismatch unless it is of Mixed."""
    return prop.type is PropertyType.MIXED


def _differing(old: list[Any], new: list[Any]) -> list[tuple[int, int, int, int]]:
    """Give the spans of two lists that differ: first and last in the old one, start and stop in the new one."""
    left, right = [exact(v) for v in old], [exact(v) for v in new]
    head, limit = 0, min(len(left), len(right))
    while head < limit and left[head] == right[head]:
        head += 1
    tail = 0
    while tail < limit - head and left[-1 - tail] == right[-1 - tail]:
        tail += 1
    last, stop = len(left) - tail, len(right) - tail
    if (last - head) * (stop - head) > _MATCHED:
        return [(head, last, head, stop)]
    found = difflib.SequenceMatcher(None, left[head:last], right[head:stop], autojunk=False).get_opcodes()
    return [(head + a, head + b, head + c, head + d) for tag, a, b, c, d in found if tag != "equal"]


def revision_instructions(
    schema: Schema, table: str, pk: Key, prop: Property, old: Any, new: Any, at: tuple[Property, i.Path] | None = None
) -> Iterator[i.Instruction]:
    """Give the fewest instructions that make a property of an object hold another value.

    Parameters
    ----------
    schema : Schema
    table, pk
        The object.
    prop : Property
    old, new : model values
        What it holds, and what it is to hold.
    at : (Property, path), optional
        A place inside the property, and its type.
    """
    inner, path = at or (prop, ())
    return Revision(schema, table, pk, prop.name).revise(inner, old, new, path)
