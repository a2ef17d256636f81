"""What a window holds: changesets, those of their instructions that have met something, and columns over all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from realmframe.merge.join import Rows
from realmframe.merge.splice import spliced
from realmframe.merge.transform import Timed
from realmframe.merge.work import Node, Storage, make_nodes


@dataclass(slots=True, eq=False)
class Held:
    """One changeset of the side.

    Attributes
    ----------
    key : int
        What its owner calls it.
    timed : Timed
        As it is, but for what ``moved`` says.
    first : int
        The place of its first row on the side; places are never used again.
    places : ndarray
        The places of its rows, counted from there.
    nodes : dict
        Instructions that met something, by their places.
    moved : set of int
        Those that were changed, and are not back in columns yet.
    size : int
        About how many bytes it takes.
    """

    key: int
    timed: Timed
    first: int
    places: Any
    storage: Storage
    size: int
    nodes: dict[int, Node] = field(default_factory=dict)
    moved: set[int] = field(default_factory=set)

    def find(self, places: Sequence[int]) -> list[Node]:
        """Give the nodes of some rows."""
        missing = [p for p in places if p not in self.nodes]
        if missing:
            rows = np.searchsorted(self.places, missing)
            stamp = (self.timed.timestamp, self.timed.file_ident)
            for place, node in zip(missing, make_nodes(self.timed.changeset, rows, stamp, 0), strict=True):
                node.order = (self.first + place, node.order[1])
                node.source.storage = self.storage
                self.nodes[place] = node
        return [self.nodes[p] for p in places]

    def splice(self, dropped: Sequence[Node] = ()) -> None:
        """Bring the changeset up to date, without some of its instructions."""
        changed = [self.nodes[p] for p in self.moved]
        self.moved.clear()
        changeset = spliced(self.timed.changeset, [*changed, *dropped])
        self.timed = Timed(changeset, self.timed.timestamp, self.timed.file_ident)
        self.storage.renew(changeset)
        if dropped:
            self.places = np.delete(self.places, [n.source.row for n in dropped])
            rows = {place: row for row, place in enumerate(self.places.tolist())}
            for place, node in self.nodes.items():
                node.source.row = rows[place]


class Columns:
    """What the rows of the side are about, in arrays that grow at one end and shrink at the other."""

    def __init__(self) -> None:
        empty = np.empty(0, np.uint64)
        self._arrays: list[Any] = [np.empty(0, np.uint8), empty, empty, empty, empty]
        self._start = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def append(self, rows: Rows) -> None:
        """Add rows to the end."""
        size = len(rows.op)
        if self._stop + size > len(self._arrays[0]):
            room = 2 * (len(self) + size) + 64
            for n, array in enumerate(self._arrays):
                self._arrays[n] = np.empty(room, array.dtype)
                self._arrays[n][: len(self)] = array[self._start : self._stop]
            self._start, self._stop = 0, len(self)
        for array, column in zip(self._arrays, rows, strict=True):
            array[self._stop : self._stop + size] = column
        self._stop += size

    def drop(self, count: int) -> None:
        """Forget rows at the beginning."""
        self._start += count

    def rows(self) -> Rows:
        """Give what is there; opcodes may be written."""
        return Rows(*(array[self._start : self._stop] for array in self._arrays))
