"""Bound predicates: each gives a mask over objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from realmframe.model import Link, PropertyType
from realmframe.query import expressions as e
from realmframe.query.geo import Region
from realmframe.query.source import Context, Objects
from realmframe.query.values import RELATIONAL, STRING_OPERATORS, TESTS, Row, compare
from realmframe.query.vector import Scalar

Mask = npt.NDArray[np.bool_]
#: Rough cost of a leaf for one object: those of one column go first.
CHEAP: Final = 1
DEAR: Final = 100


class Predicate:
    """Base of bound predicates; ``cost`` orders the members of a conjunction."""

    cost: int = CHEAP

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Return which of the objects match."""
        raise NotImplementedError


def _take(objects: Objects, kept: Mask) -> Objects:
    if isinstance(objects, list):
        return [o for o, k in zip(objects, kept, strict=True) if k]
    return objects if kept.all() else objects[kept]


@dataclass
class Truth(Predicate):
    """Always or never."""

    value: bool

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Return the same for all."""
        return np.full(len(objects), self.value)


@dataclass
class Unasked(Truth):
    """A condition that the engine drops while it builds the query, wherever it stands, even after NOT."""

    value: bool = True


@dataclass
class Not(Predicate):
    """Negation."""

    child: Predicate

    def __post_init__(self) -> None:
        self.cost = self.child.cost

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Return the opposite."""
        return ~self.child.mask(context, objects)


@dataclass
class Junction(Predicate):
    """All, or one, of several; dear members see only the objects that cheap ones left undecided."""

    children: list[Predicate]
    conjunction: bool

    def __post_init__(self) -> None:
        self.children = sorted(self.children, key=lambda c: c.cost)
        self.cost = sum(c.cost for c in self.children)

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Combine the members' masks."""
        result = self.children[0].mask(context, objects)
        for child in self.children[1:]:
            open_ = result if self.conjunction else ~result
            if not open_.any():
                break
            if child.cost < DEAR and isinstance(objects, np.ndarray) and open_.mean() > 0.25:
                part = child.mask(context, objects)
                result = result & part if self.conjunction else result | part
                continue
            decided = child.mask(context, _take(objects, open_))
            result = result.copy()
            result[open_] = decided
        return result


@dataclass
class Compare(Predicate):
    """Two expressions, value by value."""

    left: e.Bound
    right: e.Bound
    op: str

    def __post_init__(self) -> None:
        self.cost = DEAR

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Compare the chunks of both sides for each object."""
        left, right = self._sides(context)
        test = TESTS[self.op]
        string = self.op.removesuffix("[c]") in STRING_OPERATORS
        quantifiers = (self.left.quantifier, self.right.quantifier)
        if string:
            # The engine reads the needle as the left side.
            left, right, quantifiers = right, left, quantifiers[::-1]
        out = np.zeros(len(objects), dtype=bool)
        pairs = zip(left.chunks(context, objects), right.chunks(context, objects), strict=True)
        for position, (a, b) in enumerate(pairs):
            out[position] = any(matches(test, self.op, x, y, quantifiers, string) for y in b for x in a)
        return out

    def _sides(self, context: Context) -> tuple[e.Bound, e.Bound]:
        """Turn constant links into rows where objects are compared."""
        sides = [self.left, self.right]
        for here, there in ((0, 1), (1, 0)):
            side = sides[here]
            if isinstance(side, e.Value) and any(isinstance(v, Link) for v in side.values):
                rows = [_row(context, v) if isinstance(v, Link) else v for v in side.values]
                # An object that does not exist is null, whatever it is compared with.
                own = isinstance(sides[there], e.Links)
                values = [r if own or r is None else v for v, r in zip(side.values, rows, strict=True)]
                sides[here] = e.Value(type=side.type, multiple=side.multiple, quantifier=side.quantifier, values=values)
        return sides[0], sides[1]


@dataclass
class Linked(Compare):
    """A property of links of the object itself against constant objects: a dangling link is none of them, nor null."""

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Compare, and give links that lead nowhere their own answer."""
        out = super().mask(context, objects)
        assert isinstance(self.left, e.Links)
        step = self.left.steps[0]
        if not self.left.unary:
            return out
        held = context.field(step.cls, step.field, objects)
        links = [(i, value) for i, value in enumerate(held) if isinstance(value, Link)]
        rows = context.find_links(step.target, [link for _, link in links])
        dangling = [i for (i, _), row in zip(links, rows, strict=True) if row < 0]
        out[dangling] = self.op == "!="
        return out


def _row(context: Context, link: Link) -> Row | None:
    row = context.find_links(link.table, [link])[0]
    return Row(link.table, row) if row >= 0 else None


def _quantified(outcomes: Any, quantifier: str) -> bool:
    if quantifier == "ALL":
        return all(outcomes)
    found = any(outcomes)
    return not found if quantifier == "NONE" else found


def matches(
    test: Callable[[Any, Any], bool],
    op: str,
    left: e.Chunk,
    right: e.Chunk,
    quantifiers: tuple[str | None, str | None],
    string: bool,
) -> bool:
    """Compare one chunk with another.

    Two lists without a quantifier are compared element by element; otherwise the quantifiers say how many must match.
    """
    (x, x_many), (y, y_many) = left, right
    if not x_many and not y_many:
        return any(test(a, b) for a, b in zip(x, y, strict=False))
    if x_many and y_many and quantifiers == (None, None):
        if len(x) != len(y):
            return op == "!="
        return all(test(a, b) for a, b in zip(x, y, strict=True))
    first, second = quantifiers[0] or "ANY", quantifiers[1] or "ANY"
    x, y = (x if x_many else x[:1]), (y if y_many else y[:1])
    if op in RELATIONAL and len(x) > 2 and len(y) > 2:
        # Of long lists the engine looks at the ends only.
        x, y = (_ends(values) for values in (x, y))
    if string:
        return _quantified((_quantified((test(a, b) for a in x), first) for b in y), second)
    return _quantified((_quantified((test(a, b) for b in y), second) for a in x), first)


def _ends(values: list[Any]) -> list[Any]:
    ordered = sorted(values, key=cmp_to_key(compare))
    return [ordered[0], ordered[-1]]


@dataclass
class Leaf(Predicate):
    """A property of the object itself against a constant: the vectorised case."""

    property: e.Property
    scalar: Scalar

    def __post_init__(self) -> None:
        self.cost = CHEAP if self.scalar.kind is not PropertyType.MIXED else DEAR

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Test a whole column, or the values of embedded objects one by one."""
        name = self.property.name
        if isinstance(objects, list) or self.scalar.kind is PropertyType.MIXED:
            test = self._present(context).test
            values = context.field(self.property.cls, name, objects)
            return np.fromiter((test(v) for v in values), dtype=bool, count=len(values))
        return self.scalar.mask(context.source, self.property.cls, name, objects)

    def _present(self, context: Context) -> Scalar:
        """Take an object that does not exist for null."""
        constant = self.scalar.constant
        if isinstance(constant, Link) and _row(context, constant) is None:
            return Scalar(self.scalar.kind, self.scalar.op, None)
        return self.scalar


@dataclass
class Within(Predicate):
    """Points inside a region."""

    left: e.Links
    region: Region

    def __post_init__(self) -> None:
        self.cost = DEAR

    def mask(self, context: Context, objects: Objects) -> Mask:
        """Test the points reached from each object."""
        owners, reached = context.follow(self.left.steps, objects)
        assert isinstance(reached, list)
        grouped: list[list[bool]] = [[] for _ in range(len(objects))]
        for owner, point in zip(owners, reached, strict=True):
            grouped[owner].append(self.region.contains_point(point))
        quantifier = self.left.quantifier or "ANY"
        results = [
            bool(g) and _quantified(g, "ALL") if quantifier == "ALL" else _quantified(g, quantifier) for g in grouped
        ]
        return np.asarray(results, dtype=bool)


@dataclass
class SubqueryCount(e.Walk):
    """How many of the objects linked to match a predicate."""

    predicate: Predicate | None = None

    def chunks(self, context: Context, objects: Objects) -> list[e.Chunks]:
        """Count the matches."""
        assert self.predicate is not None
        owners, reached = context.follow(self.steps, objects)
        counts = [0] * len(objects)
        found = self.predicate.mask(context, reached)
        for owner, match in zip(owners, found.tolist(), strict=True):
            counts[owner] += match
        return [[([n], False)] for n in counts]


__all__ = ["Compare", "Junction", "Leaf", "Linked", "Not", "Predicate", "SubqueryCount", "Truth", "Unasked", "Within"]
