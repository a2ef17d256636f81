"""Bound expressions: each gives, for every object, the values to compare.

The values of an object come as *chunks*: a chunk is a list of values, and whether it came from a collection. Lists
reached through several objects give a chunk each, and a comparison holds if it holds for one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from realmframe.model import Collection, EmbeddedObject, Link, PropertyType
from realmframe.query import tree as t
from realmframe.query.source import Context, Objects, Step, elements
from realmframe.query.values import Row, TypeTag, aggregate, arithmetic, tag_of_value, utf8

Chunk: TypeAlias = tuple[list[Any], bool]
Chunks: TypeAlias = list[Chunk]
#: Type of an expression: a property's, ``"type"`` for what ``@type`` gives, None for null.
ExpressionType: TypeAlias = "PropertyType | str | None"


@dataclass(slots=True, kw_only=True)
class Bound:
    """Base of bound expressions.

    Attributes
    ----------
    type : PropertyType, str or None
    multiple : bool
        Whether it counts as a list where a list is asked for.
    quantifier : str or None
    constant : bool
        Whether it is the same for all objects.
    """

    type: ExpressionType = None
    multiple: bool = False
    quantifier: str | None = None
    constant: bool = False

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return the chunks of each object."""
        raise NotImplementedError

    @property
    def single(self) -> bool:
        """Whether it is one constant value; a list of one counts too, whatever its quantifier says."""
        return False


@dataclass(slots=True, kw_only=True)
class Value(Bound):
    """A constant, or a list of constants."""

    values: list[Any] = field(default_factory=list)
    constant: bool = True

    @property
    def single(self) -> bool:
        """Whether there is one value only."""
        return len(self.values) == 1

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return the same chunk for all."""
        return [[(self.values, self.multiple)]] * len(objects)


@dataclass(slots=True, kw_only=True)
class Walk(Bound):
    """Base of what lies at the end of a path of links."""

    cls: str
    steps: tuple[Step, ...] = ()

    @property
    def unary(self) -> bool:
        """Whether the links lead to one object at most."""
        return all(s.unary for s in self.steps)

    @property
    def end(self) -> str:
        """The class at the end of the links."""
        return self.steps[-1].target if self.steps else self.cls

    def gather(self, context: Context, objects: Objects, name: str) -> list[list[Any]]:
        """Return the values of a property of the objects reached, for each object."""
        owners, reached = context.follow(self.steps, objects)
        grouped: list[list[Any]] = [[] for _ in range(len(objects))]
        for owner, value in zip(owners, context.field(self.end, name, reached), strict=True):
            grouped[owner].append(value)
        return grouped


def _single(values: list[Any], unary: bool) -> Chunk:
    if unary:
        return (values[:1] or [None]), False
    return values, True


@dataclass(slots=True, kw_only=True)
class Property(Walk):
    """A property with one value; a Mixed one may have a path into its collections."""

    name: str
    path: tuple[t.Element, ...] = ()

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return one value, or those of all objects reached."""
        if not self.steps and not self.path:
            return [[([v], False)] for v in context.field(self.cls, self.name, objects)]
        grouped = self.gather(context, objects, self.name)
        if not self.path:
            return [[_single(values, self.unary)] for values in grouped]
        return [nested_chunks(context, (values[:1] if self.unary else values), self.path) for values in grouped]


def nested_chunks(context: Context, values: list[Any], path: tuple[t.Element, ...], unary: bool = False) -> Chunks:
    """Follow a path into nested collections.

    What is found counts as lists, even one value at one place; but, with ``unary``, not what keys alone lead to.
    """
    matches: list[list[Any]] = []
    only_keys = unary and not any(isinstance(p, t.Every) for p in path)
    for value in values:
        if _descend(context, value, path, matches):
            only_keys = False
    if not matches:
        return [([], True)]
    return [(m, not only_keys or not m) for m in matches]


def _descend(context: Context, value: Any, path: tuple[t.Element, ...], matches: list[list[Any]]) -> bool:
    """Collect what lies at a path; whether it asked for the keys of a dictionary."""
    head, rest = path[0], path[1:]
    keys_asked = False
    if not rest:
        matches.append([])
    found: list[Any] = []
    if isinstance(value, dict) and not isinstance(value, EmbeddedObject) and not isinstance(head, int):
        if isinstance(head, t.Every):
            found = list(value.values())
        elif head in value:
            found = [value[head]]
        elif head == "@keys":
            found, keys_asked = list(value), True
        elif not rest and value:
            found = [None]
    elif isinstance(value, list) and not isinstance(head, str):
        found = _list_elements(value, head)
    elif isinstance(value, Link) and isinstance(head, str):
        found = _linked(context, value, head)
    for item in found:
        if rest:
            keys_asked |= _descend(context, item, rest, matches)
        else:
            matches[-1].append(item)
    return keys_asked


def _list_elements(value: list[Any], head: t.Element) -> list[Any]:
    if isinstance(head, t.Every):
        return value
    position = len(value) - 1 if head == t.LAST else head
    # The engine takes the whole rest of a list after an index beyond its end for nothing.
    return [value[position]] if isinstance(position, int) and 0 <= position < len(value) else []


def _linked(context: Context, link: Link, name: str) -> list[Any]:
    cls = context.schema.get(link.table)
    row = context.find_links(link.table, [link])[0] if cls is not None else -1
    if cls is None or row < 0 or name not in cls.properties:
        return []
    return context.field(link.table, name, np.asarray([row], dtype=np.int64))


@dataclass(slots=True, kw_only=True)
class Many(Walk):
    """A list, set or dictionary of values."""

    name: str
    collection: Collection = Collection.LIST
    index: int | None = None
    path: tuple[t.Element, ...] = ()

    def lists(self, context: Context, objects: Objects) -> list[list[Any]]:
        """Return the collections of each object."""
        if not self.steps:
            return [[v] for v in context.field(self.cls, self.name, objects)]
        grouped = self.gather(context, objects, self.name)
        return [(g[:1] or [None]) for g in grouped] if self.unary else grouped

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return a chunk for each collection reached."""
        return [self._of_lists(context, lists) for lists in self.lists(context, objects)]

    def _of_lists(self, context: Context, lists: list[Any]) -> Chunks:
        if self.collection is Collection.DICTIONARY:
            path = self.path or (t.Every(),)
            return nested_chunks(context, [v or {} for v in lists], path, self.unary)
        if len(self.path) > 1:
            rest = self.path[1:]
            inner = [x for v in lists for x in elements(v, self.index)]
            return nested_chunks(context, inner, rest)
        chunks: Chunks = []
        for value in lists:
            if self.index is None or not value:
                chunks.append((list(value or ()), True))
            else:
                chunks.append((elements(value, self.index) or [None], True))
        return chunks or [([], True)]


@dataclass(slots=True, kw_only=True)
class Keys(Bound):
    """The keys of a dictionary."""

    of: Many
    type: ExpressionType = PropertyType.STRING

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return a chunk of keys for each dictionary."""
        out: list[Chunks] = []
        for lists in self.of.lists(context, objects):
            if self.of.steps:
                out.append([(list(d or ()), True) for d in lists if d is not None] or [([], True)])
            else:
                # An object whose dictionary was never set gives one null, not an empty list.
                out.append([(list(lists[0]), True)] if lists[0] else [([None], False)])
        return out


@dataclass(slots=True, kw_only=True)
class Links(Walk):
    """Objects linked to."""

    type: ExpressionType = PropertyType.OBJECT

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return the objects reached."""
        owners, reached = context.follow(self.steps, objects)
        grouped: list[list[Any]] = [[] for _ in range(len(objects))]
        for owner, item in zip(owners, reached, strict=True):
            grouped[owner].append(item if isinstance(item, EmbeddedObject) else Row(self.end, int(item)))
        return [[_single(g, self.unary)] for g in grouped]


@dataclass(slots=True, kw_only=True)
class LinkCount(Walk):
    """How many links there are."""

    type: ExpressionType = PropertyType.INT

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Count the last hop from each object that the hops before lead to."""
        first, last = self.steps[:-1], self.steps[-1:]
        middle, reached = context.follow(first, objects)
        counts = [0] * len(middle)
        for owner in context.follow(last, reached)[0]:
            counts[owner] += 1
        if not first:
            return [[([n], False)] for n in counts]
        grouped: list[list[Any]] = [[] for _ in range(len(objects))]
        for owner, count in zip(middle, counts, strict=True):
            grouped[owner].append(count)
        return [[(g, True)] for g in grouped]


@dataclass(slots=True, kw_only=True)
class BacklinkCount(Walk):
    """How many links lead to the objects."""

    type: ExpressionType = PropertyType.INT

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Sum over the objects reached."""
        owners, reached = context.follow(self.steps, objects)
        totals = [0] * len(objects)
        for owner, count in zip(owners, context.count_backlinks(self.end, reached), strict=True):
            totals[owner] += count
        return [[([n], False)] for n in totals]


def _length(value: Any) -> int | None:
    if isinstance(value, str):
        return len(utf8(value))
    return len(value) if isinstance(value, bytes | list | dict) else None


@dataclass(slots=True, kw_only=True)
class Size(Bound):
    """``@size`` of strings, binary, Mixed values and collections."""

    of: Bound
    type: ExpressionType = PropertyType.INT

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return the lengths."""
        if isinstance(self.of, Many):
            unary = self.of.unary
            lists = self.of.lists(context, objects)
            return [[([len(v or ()) for v in found], not unary)] for found in lists]
        return [[([_length(v) for v in values], many) for values, many in c] for c in self.of.chunks(context, objects)]


@dataclass(slots=True, kw_only=True)
class ElementLength(Bound):
    """``.length`` of the elements of a list."""

    of: Many
    type: ExpressionType = PropertyType.INT
    multiple: bool = True

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return the length of every element."""
        out: list[Chunks] = []
        for lists in self.of.lists(context, objects):
            lengths = []
            for value in lists:
                for element in value or ():
                    if self.of.type is not PropertyType.MIXED or isinstance(element, str | bytes):
                        lengths.append(_length(element) or 0)
            out.append([(lengths, True)])
        return out


@dataclass(slots=True, kw_only=True)
class TypeOf(Bound):
    """``@type`` of values."""

    of: Bound
    type: ExpressionType = "type"

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return the tags."""

        def tags(values: list[Any]) -> list[TypeTag]:
            return [tag_of_value(v) for v in values]

        return [[(tags(values), many) for values, many in c] for c in self.of.chunks(context, objects)]


@dataclass(slots=True, kw_only=True)
class CollectionAggregate(Bound):
    """``@min``, ``@max``, ``@sum`` or ``@avg`` of a collection of values."""

    of: Many
    op: str

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return one result for each collection reached."""
        kind = self.of.type if isinstance(self.of.type, PropertyType) else PropertyType.MIXED
        if self.of.collection is Collection.DICTIONARY and isinstance(self.type, PropertyType):
            kind = self.type
        unary = self.of.unary
        out: list[Chunks] = []
        for lists in self.of.lists(context, objects):
            results = [aggregate(self.op, elements(v, None), kind) for v in lists]
            out.append([(results, not unary)])
        return out


@dataclass(slots=True, kw_only=True)
class LinkAggregate(Walk):
    """``@min``, ``@max``, ``@sum`` or ``@avg`` of a property of the objects linked to."""

    name: str
    op: str
    source_type: PropertyType

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Return one result."""
        grouped = self.gather(context, objects, self.name)
        return [[([aggregate(self.op, g, self.source_type)], False)] for g in grouped]


def _one_value(bound: Bound) -> Bound:
    """Take a list of one constant for that constant."""
    return Value(type=bound.type, values=bound.values) if isinstance(bound, Value) and bound.single else bound


@dataclass(slots=True, kw_only=True)
class Arithmetic(Bound):
    """Two expressions and an operator."""

    left: Bound
    op: str
    right: Bound

    def chunks(self, context: Context, objects: Objects) -> list[Chunks]:
        """Compute, element by element where one side is a list."""
        left, right = (_one_value(side).chunks(context, objects) for side in (self.left, self.right))
        return [[self._combine(x, y) for x in a for y in b] for a, b in zip(left, right, strict=True)]

    def _combine(self, a: Chunk, b: Chunk) -> Chunk:
        (x, x_many), (y, y_many) = a, b
        if x_many and not y_many:
            return [arithmetic(self.op, v, y[0]) for v in x], True
        if y_many and not x_many:
            return [arithmetic(self.op, x[0], v) for v in y], True
        return [arithmetic(self.op, v, w) for v, w in zip(x, y, strict=False)], x_many
