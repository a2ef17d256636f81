"""SORT, DISTINCT and LIMIT, in the order written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.errors import QueryError
from realmframe.model import Collection, EmbeddedObject, Link, PropertyType
from realmframe.query import tree as t
from realmframe.query.paths import Scope
from realmframe.query.source import Context, Objects, Rows, Step
from realmframe.query.values import Row, compare


class _NoObject:
    """In place of a value where a link on the way leads nowhere."""


_NOWHERE: Final = _NoObject()
#: For so few rows Python sorts quicker than a kernel is called.
FEW_ROWS: Final = 32
#: Types that Arrow sorts in the engine's order.
_SORTED: Final = frozenset(
    {
        PropertyType.INT,
        PropertyType.FLOAT,
        PropertyType.DOUBLE,
        PropertyType.STRING,
        PropertyType.DATE,
        PropertyType.BOOL,
    }
)


@dataclass(frozen=True)
class Key:
    """One property to order by."""

    steps: tuple[Step, ...]
    cls: str
    name: str
    index: str | None
    ascending: bool = True

    def values(self, context: Context, rows: Rows) -> list[Any]:
        """Return the value for each row."""
        owners, reached = context.follow(self.steps, rows)
        found = context.field(self.cls, self.name, reached)
        if self.index is not None:
            found = [(v or {}).get(self.index) for v in found]
        found = _places(context, found, reached)
        out: list[Any] = [_NOWHERE] * len(rows)
        for owner, value in zip(owners, found, strict=True):
            out[owner] = value
        return out

    def kernel_order(self, context: Context, rows: Rows) -> Rows | None:
        """Sort a column of numbers, dates or strings of the class itself; None where no kernel orders as the engine."""
        prop = context.schema[self.cls].properties[self.name]
        if self.steps or prop.collection is not Collection.SINGLE or prop.type not in _SORTED:
            return None
        column = context.source.column(self.cls, self.name).take(pa.array(rows))
        if pa.types.is_struct(column.type):
            return None
        if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
            return None
        order, nulls = ("ascending", "at_start") if self.ascending else ("descending", "at_end")
        found = pc.array_sort_indices(column.combine_chunks(), order=order, null_placement=nulls)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)


@dataclass(frozen=True)
class Order:
    """One clause: ``sort`` and ``distinct`` with keys, or ``limit`` with a count.

    One that goes by a collection is ``refused`` only when there is something to order, as by the real engine.
    """

    kind: str
    keys: tuple[Key, ...] = ()
    count: int = 0
    refused: QueryError | None = None

    def apply(self, context: Context, rows: Rows) -> Rows:
        """Return the rows in their new order.

        Raises
        ------
        QueryError
            If the clause goes by what cannot be ordered.
        """
        if self.refused is not None:
            raise self.refused
        if self.kind == "limit":
            return rows[: self.count]
        if self.kind == "sort":
            return self._sort(context, rows)
        return rows[_first_of_each([key.values(context, rows) for key in self.keys])]

    def _sort(self, context: Context, rows: Rows) -> Rows:
        """Sort by the last key first; each sort keeps what the one before it did among equals."""
        for key in reversed(self.keys):
            order = key.kernel_order(context, rows) if len(rows) > FEW_ROWS else None
            rows = rows[_sorted(key.values(context, rows), key.ascending) if order is None else order]
        return rows


def _places(context: Context, values: list[Any], holders: Objects) -> list[Any]:
    """Put in place of links where their objects stand: these are ordered by when they came into being.

    Of embedded objects that is not known; they are taken to be as old as the objects that hold them.
    """
    positions = list(range(len(holders))) if isinstance(holders, list) else holders
    out: list[Any] = []
    for value, position in zip(values, positions, strict=True):
        if isinstance(value, Link):
            row = context.find_links(value.table, [value])[0] if value.table in context.schema else -1
            out.append(Row(value.table, row) if row >= 0 else None)
        else:
            out.append(Row("", int(position)) if isinstance(value, EmbeddedObject) else value)
    return out


def _rank(a: Any, b: Any) -> int:
    if a is _NOWHERE or b is _NOWHERE:
        # The objects that lead nowhere come last when ascending.
        return (a is _NOWHERE) - (b is _NOWHERE)
    return compare(a, b)


def _sorted(column: list[Any], ascending: bool) -> Rows:
    keys = [cmp_to_key(_rank)(v) for v in column]
    order = sorted(range(len(column)), key=keys.__getitem__, reverse=not ascending)
    return np.asarray(order, dtype=np.int64)


def _first_of_each(columns: list[list[Any]]) -> Rows:
    kept = [i for i in range(len(columns[0])) if not any(c[i] is _NOWHERE for c in columns)]
    order = sorted(kept, key=lambda i: tuple(cmp_to_key(compare)(c[i]) for c in columns))
    out = [i for n, i in enumerate(order) if n == 0 or any(compare(c[i], c[order[n - 1]]) for c in columns)]
    return np.asarray(sorted(out), dtype=np.int64)


def bind_orderings(scope: Scope, orderings: Sequence[t.Ordering]) -> list[Order]:
    """Bind the clauses; of adjacent SORT clauses the last is the major one."""
    bound: list[Order] = []
    for clause in orderings:
        if isinstance(clause, t.Limit):
            bound.append(Order("limit", count=clause.count))
            continue
        made = _bind(scope, clause)
        if made.kind == "sort" and bound and bound[-1].kind == "sort":
            minor = bound.pop()
            made = Order("sort", made.keys + minor.keys, refused=made.refused or minor.refused)
        bound.append(made)
    return bound


def _bind(scope: Scope, clause: t.Sort | t.Distinct) -> Order:
    word = "DISTINCT" if isinstance(clause, t.Distinct) else "SORT"
    up = (True,) * len(clause.paths) if isinstance(clause, t.Distinct) else clause.ascending
    keys, refused = [], None
    for path, ascending in zip(clause.paths, up, strict=True):
        try:
            keys.append(_key(scope, path, ascending, word))
        except QueryError as error:
            if error.kind != "other":
                raise
            refused = refused or error
    return Order(word.lower(), tuple(keys), refused=refused)


def _key(scope: Scope, path: t.Path, ascending: bool, clause: str) -> Key:
    cls, position = scope.cls, path.position
    steps: list[Step] = []
    names = list(path.elements)
    for number, name in enumerate(names):
        prop = scope.schema[cls].properties.get(name) if isinstance(name, str) else None
        if prop is None:
            raise QueryError(f"Class {cls!r} has no property {name!r} for {clause}.", position=position)
        rest = names[number + 1 :]
        if prop.collection is Collection.DICTIONARY and rest:
            # All that follows a dictionary is a key, and of several the last one counts.
            if not isinstance(rest[-1], str):
                raise QueryError(f"{clause} takes a dictionary's value by its key only.", position=position)
            return Key(tuple(steps), cls, prop.name, rest[-1], ascending)
        if not rest:
            if prop.collection is not Collection.SINGLE:
                raise QueryError(f"{clause} cannot go by a collection.", position=position, kind="other")
            return Key(tuple(steps), cls, prop.name, None, ascending)
        if not prop.is_link or prop.target is None or prop.collection is not Collection.SINGLE:
            raise QueryError(f"{clause} can follow single links only.", position=position, kind="other")
        steps.append(Step(cls, prop.name, prop.target))
        cls = prop.target
    raise QueryError(f"{clause} names no property.", position=position)


__all__ = ["Key", "Order", "bind_orderings"]
