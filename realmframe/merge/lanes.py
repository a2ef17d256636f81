"""Lists of a window that meet one changeset after another: kept as the rows of the compiled loop all the while.

A lane holds what a :class:`~realmframe.merge.window.Window` has on one list, if the loop of
:mod:`realmframe.merge.lists` knows all of it. While it lasts, indexes and sizes are true in its rows, not in the
window's instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.merge.lists import GONE, INDEX, SIZE, STAMP, is_plain, meet_all, rows_of, write_back
from realmframe.merge.splice import spliced
from realmframe.merge.work import Node, Stamp

#: A list with fewer instructions has no lane.
FEW: Final = 64


def field_of(nodes: Sequence[Node]) -> Any:
    """Give the one field that plain instructions on a list are on; None if they are anything else."""
    first = nodes[0].one
    if not all(map(is_plain, nodes)):
        return None
    field = (first.table, first.pk, first.field)
    same = all((n.one.table, n.one.pk, n.one.field) == field for n in nodes)
    return field if same else None


@dataclass(slots=True, eq=False)
class Lane:
    """Instructions of several changesets on one list.

    Attributes
    ----------
    field : tuple
        Class, key and property.
    at : ndarray
        The places of the instructions in the window, in order.
    nodes : list of Node
        The instructions as they were when they were last written back.
    rows : ndarray
        As they are.
    stamps : list of tuple
    moved : ndarray
        Which of them have changed since they were written back.
    untold : ndarray
        Which of them have changed since they were told.
    """

    field: Any
    at: Any
    nodes: list[Node]
    rows: Any
    stamps: tuple[Any, Any]
    moved: Any
    untold: Any

    @classmethod
    def of(cls, at: Any, nodes: list[Node]) -> Lane | None:
        """Make one, if the loop knows the instructions."""
        field = field_of(nodes)
        if field is None:
            return None
        try:
            times, files = (np.array(part, np.int64) for part in zip(*(n.stamp for n in nodes), strict=True))
        except OverflowError:
            return None
        none = np.zeros(len(at), np.bool_)
        return cls(field, at, nodes, rows_of(nodes, [0] * len(nodes)), (times, files), none, none.copy())

    def grown(self, other: Lane) -> Lane:
        """Give this one with another one after it."""
        return Lane(
            self.field,
            np.concatenate([self.at, other.at]),
            self.nodes + other.nodes,
            np.concatenate([self.rows, other.rows], 1),
            (np.concatenate([self.stamps[0], other.stamps[0]]), np.concatenate([self.stamps[1], other.stamps[1]])),
            np.concatenate([self.moved, other.moved]),
            np.concatenate([self.untold, other.untold]),
        )

    def without(self, count: int) -> Lane:
        """Give this one without the first instructions."""
        stamps = self.stamps[0][count:], self.stamps[1][count:]
        masks = self.moved[count:], self.untold[count:]
        return Lane(self.field, self.at[count:], self.nodes[count:], self.rows[:, count:], stamps, *masks)

    def meet(self, majors: Sequence[Node], stamp: Stamp) -> Any:
        """Let instructions of one changeset meet these; give the new rows, or None if a pair cannot meet."""
        if abs(stamp[0]) >> 63:
            return None
        rows, (times, files) = self.rows.copy(), self.stamps
        earlier = (times < stamp[0]) | ((times == stamp[0]) & (files < stamp[1]))
        rows[STAMP] = np.where(earlier, 0, np.where((times == stamp[0]) & (files == stamp[1]), 1, 2))
        mine = rows_of(majors, [1] * len(majors))
        if not meet_all(mine, rows):
            return None
        write_back(majors, mine)
        return rows

    def take(self, rows: Any) -> None:
        """Be what came of a meeting."""
        moved = (rows[INDEX] != self.rows[INDEX]) | (rows[SIZE] != self.rows[SIZE])
        self.moved |= moved
        self.untold |= moved
        self.rows = rows

    def write_back(self) -> list[Node]:
        """Give the new forms of instructions that have changed or are gone."""
        changed = np.flatnonzero(self.moved | (self.rows[GONE] != 0))
        twins = [self.nodes[n].twin() for n in changed.tolist()]
        write_back(twins, self.rows[:, changed])
        for n, twin in zip(changed.tolist(), twins, strict=True):
            self.nodes[n] = twin
        self.moved[:] = False
        return twins

    def form(self, changeset: Changeset, number: int) -> Callable[[], Changeset]:
        """Give what makes the present form of a changeset that has no other instruction than one of these."""
        return partial(_form, changeset, self.nodes[number], self.rows, number)


def _form(changeset: Changeset, node: Node, rows: Any, number: int) -> Changeset:
    twin = node.twin()
    write_back([twin], rows[:, number : number + 1])
    twin.changed = True  # the changeset may be older than the node
    return spliced(changeset, [twin])
