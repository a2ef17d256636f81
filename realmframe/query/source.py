"""What queries read, and what one evaluation remembers of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from realmframe.model import Collection, EmbeddedObject, Key, Link, PropertyType, Schema

Rows: TypeAlias = npt.NDArray[np.int64]
#: Objects of one class: rows of a top-level class, or the embedded objects themselves.
Objects: TypeAlias = "Rows | list[EmbeddedObject]"


class Source(Protocol):
    """Tables that a query can be evaluated on; a snapshot of the store is one."""

    @property
    def schema(self) -> Schema:
        """The classes."""
        ...

    def num_rows(self, cls: str) -> int:
        """Return how many objects a class has."""
        ...

    def column(self, cls: str, field: str) -> pa.ChunkedArray:
        """Return the column of a property that holds one value of a scalar type."""
        ...

    def values(self, cls: str, field: str, rows: Rows | None) -> list[Any]:
        """Return the model values of a property of any type."""
        ...

    def find(self, cls: str, keys: Sequence[Key]) -> Rows:
        """Return the rows of objects, -1 where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One hop along a path.

    Attributes
    ----------
    cls, field : str
        The class and property that hold the link (for a backlink: at the other end).
    target : str
        The class arrived at.
    collection : Collection
    back : bool
        Whether the hop goes against the link.
    index : int, str or None
        Which element of the list or dictionary; None for all.
    """

    cls: str
    field: str
    target: str
    collection: Collection = Collection.SINGLE
    back: bool = False
    index: int | str | None = None

    @property
    def unary(self) -> bool:
        """Whether it counts as a link to one object (an element picked from a collection counts as several)."""
        return not self.back and self.collection is Collection.SINGLE


def elements(value: Any, index: int | str | None) -> list[Any]:
    """Return the elements of a property's value, or the one that an index names."""
    if value is None:
        return []
    if isinstance(value, dict) and not isinstance(value, EmbeddedObject):
        if index is None:
            return list(value.values())
        return [value[index]] if index in value else []
    if isinstance(value, list):
        if index is None:
            return value
        position = len(value) - 1 if index == -1 else index
        return [value[position]] if isinstance(position, int) and 0 <= position < len(value) else []
    return [value]


class Context:
    """One evaluation: the source, and the backlinks found so far."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.schema = source.schema
        self._backlinks: dict[tuple[str, str, str], dict[int, list[Any]]] = {}
        self._counts: dict[str, dict[int, int]] = {}
        self._links: dict[tuple[str, Key], int] = {}

    def field(self, cls: str, name: str, objects: Objects) -> list[Any]:
        """Return the values of one property of some objects."""
        if isinstance(objects, list):
            return [o.get(name) for o in objects]
        return self.source.values(cls, name, objects) if len(objects) else []

    def find_links(self, table: str, links: list[Link]) -> list[int]:
        """Return the row of each link's target, -1 where there is none."""
        if not links:
            return []
        return [int(r) for r in self.source.find(table, [link.key for link in links])]

    def follow(self, steps: Sequence[Step], objects: Objects) -> tuple[list[int], Objects]:
        """Walk along a path from each object.

        Returns
        -------
        (owners, objects)
            For each object arrived at, the position of the one it was reached from.
        """
        owners, current = list(range(len(objects))), objects
        for step in steps:
            reached_from, current = self._backward(step, current) if step.back else self._forward(step, current)
            owners = [owners[i] for i in reached_from]
        return owners, current

    def _forward(self, step: Step, objects: Objects) -> tuple[list[int], Objects]:
        owners: list[int] = []
        found: list[Any] = []
        for position, value in enumerate(self.field(step.cls, step.field, objects)):
            for element in elements(value, step.index):
                if element is not None:
                    owners.append(position)
                    found.append(element)
        if self.schema[step.target].embedded:
            return owners, found
        rows = np.asarray(self.find_links(step.target, found), dtype=np.int64)
        if rows.size and rows.min() < 0:
            owners = [o for o, r in zip(owners, rows.tolist(), strict=True) if r >= 0]
            rows = rows[rows >= 0]
        return owners, rows

    def _backward(self, step: Step, objects: Objects) -> tuple[list[int], Objects]:
        index = self._backlink_index(step)
        owners: list[int] = []
        found: list[Any] = []
        keys = [id(o) for o in objects] if isinstance(objects, list) else objects.tolist()
        for position, key in enumerate(keys):
            origins = index.get(key, ())
            owners.extend([position] * len(origins))
            found.extend(origins)
        if self.schema[step.target].embedded:
            return owners, found
        return owners, np.asarray(found, dtype=np.int64)

    def _backlink_index(self, step: Step) -> dict[int, list[Any]]:
        name = (step.target, step.field, step.cls)
        if name not in self._backlinks:
            index: dict[int, list[Any]] = {}
            origins = self._all_objects(step.target)
            back = Step(step.target, step.field, step.cls, step.collection)
            owners, targets = self._forward(back, origins)
            for owner, target in zip(owners, targets, strict=True):
                key = id(target) if isinstance(target, EmbeddedObject) else int(target)
                index.setdefault(key, []).append(origins[owner])
            self._backlinks[name] = index
        return self._backlinks[name]

    def _all_objects(self, cls: str) -> Objects:
        if not self.schema[cls].embedded:
            return np.arange(self.source.num_rows(cls), dtype=np.int64)
        found: list[EmbeddedObject] = []
        for owner in self.schema.values():
            for prop in owner.properties.values():
                if prop.is_link and prop.target == cls and owner.name != cls:
                    step = Step(owner.name, prop.name, cls, prop.collection)
                    found.extend(self._forward(step, self._all_objects(owner.name))[1])
        return found

    def count_backlinks(self, cls: str, objects: Objects) -> list[int]:
        """Return how many links lead to each object, from anywhere."""
        if isinstance(objects, list):
            return [1] * len(objects)
        if cls not in self._counts:
            counts: dict[int, int] = {}
            links = [link for link in self._every_link() if link.table == cls]
            for row in self.find_links(cls, links):
                counts[row] = counts.get(row, 0) + 1
            self._counts[cls] = counts
        return [self._counts[cls].get(r, 0) for r in objects.tolist()]

    def _every_link(self) -> Iterator[Link]:
        for owner in self.schema.values():
            names = [p.name for p in owner.properties.values() if p.is_link or p.type is PropertyType.MIXED]
            objects = self._all_objects(owner.name) if names else []
            for name in names:
                for value in self.field(owner.name, name, objects):
                    yield from _links_within(value)


def _links_within(value: Any) -> Iterator[Link]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Link):
            yield item
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict) and not isinstance(item, EmbeddedObject):
            pending.extend(item.values())
