"""Which elements of a list a recovery may touch, by the rules of the real engine.

The places of a list that was changed on both sides cannot be matched: the history that would tell is gone. Only
elements that the recovery itself inserted have a place that is known on both sides. As soon as a change names any other
element, nothing more is recovered one by one; at the end the whole list is copied as it was on this client.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class ListTracker:
    """The places of one list that are known on both sides.

    Attributes
    ----------
    wants_copy : bool
        Whether the whole list has to be copied.
    is_copied : bool
        Whether that was done; a copy shows the last state, so once is enough.
    """

    __slots__ = ("_count", "_places", "is_copied", "wants_copy")

    def __init__(self) -> None:
        self._places = np.empty((2, 16), np.int64)
        self._count = 0
        self.wants_copy = self.is_copied = False

    def _known(self) -> tuple[Any, Any]:
        """Give where each known element is here, and on the other side."""
        return self._places[0, : self._count], self._places[1, : self._count]

    def _find(self, local: int) -> int:
        """Give the number of a known element, -1 for any other."""
        found = np.flatnonzero(self._known()[0] == local)
        return int(found[0]) if len(found) else -1

    def _shift(self, where: Any, step: int) -> None:
        self._places[:, : self._count] += np.where(where, step, 0)

    def give_up(self) -> None:
        """Have the whole list copied."""
        self.wants_copy = True
        self._count = 0

    def insert(self, local: int, size: int) -> int | None:
        """Give the place at which to insert into a list of a size; None if it will be copied."""
        if self.wants_copy:
            return None
        remote = min(local, size)
        self._shift(self._known()[0] >= local, 1)
        if self._count == self._places.shape[1]:
            self._places = np.concatenate([self._places, np.empty_like(self._places)], axis=1)
        self._places[:, self._count] = local, remote
        self._count += 1
        return remote

    def update(self, local: int) -> int | None:
        """Give the place of an element; None if it is not known: then the list will be copied."""
        number = -1 if self.wants_copy else self._find(local)
        if number < 0:
            self.give_up()
            return None
        return int(self._places[1, number])

    def erase(self, local: int) -> int | None:
        """Forget an element and give its place; None if it is not known."""
        remote = self.update(local)
        if remote is None:
            return None
        number = self._find(local)
        self._count -= 1
        self._places[:, number] = self._places[:, self._count]
        self._shift(self._known()[0] > local, -1)
        return remote

    def move(self, start: int, end: int) -> tuple[int, int] | None:
        """Give both places of a move; None if one of them is not known."""
        first = -1 if self.wants_copy else self._find(start)
        second = -1 if self.wants_copy else self._find(end)
        if first < 0 or second < 0 or first == second:
            self.give_up()
            return None
        places = int(self._places[1, first]), int(self._places[1, second])
        here = self._known()[0]
        between = (here >= min(start, end)) & (here <= max(start, end))
        self._shift(between, -1 if start < end else 1)
        self._places[:, first] = end, places[1]
        return places

    def clear(self) -> None:
        """Begin anew with an empty list: all that comes is known."""
        self.wants_copy = False
        self._count = 0
