"""What a window holds of a changeset: its present form, and those of its instructions that have met something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
