"""Which elements of a list a recovery may touch, by the rules of the real engine.

The places of a list that was changed on both sides cannot be matched: the history that would tell is gone. Only
elements that the recovery itself inserted have a place that is known on both sides. As soon as a change names any other
element, nothing more is recovered one by one; at the end the whole list is copied as it was on this client.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Known:
    local: int
    remote: int


class ListTracker:
    """The places of one list that are known on both sides.

    Attributes
    ----------
    wants_copy : bool
        Whether the whole list has to be copied.
    is_copied : bool
        Whether that was done; a copy shows the last state, so once is enough.
    """

    __slots__ = ("_known", "is_copied", "wants_copy")

    def __init__(self) -> None:
        self._known: list[_Known] = []
        self.wants_copy = self.is_copied = False

    def _find(self, local: int) -> _Known | None:
        return next((k for k in self._known if k.local == local), None)

    def give_up(self) -> None:
        """Have the whole list copied."""
        self.wants_copy = True
        self._known.clear()

    def insert(self, local: int, size: int) -> int | None:
        """Give the place at which to insert into a list of a size; None if it will be copied."""
        if self.wants_copy:
            return None
        remote = min(local, size)
        for known in self._known:
            if known.local >= local:
                known.local += 1
                known.remote += 1
        self._known.append(_Known(local, remote))
        return remote

    def update(self, local: int) -> int | None:
        """Give the place of an element; None if it is not known: then the list will be copied."""
        known = None if self.wants_copy else self._find(local)
        if known is None:
            self.give_up()
            return None
        return known.remote

    def erase(self, local: int) -> int | None:
        """Forget an element and give its place; None if it is not known."""
        known = None if self.wants_copy else self._find(local)
        if known is None:
            self.give_up()
            return None
        self._known.remove(known)
        for other in self._known:
            if other.local > local:
                other.local -= 1
                other.remote -= 1
        return known.remote

    def move(self, start: int, end: int) -> tuple[int, int] | None:
        """Give both places of a move; None if one of them is not known."""
        first = None if self.wants_copy else self._find(start)
        second = None if self.wants_copy else self._find(end)
        if first is None or second is None or first is second:
            self.give_up()
            return None
        places = first.remote, second.remote
        step = -1 if start < end else 1
        for known in self._known:
            if known is not first and min(start, end) <= known.local <= max(start, end):
                known.local += step
                known.remote += step
        first.local, first.remote = end, places[1]
        return places

    def clear(self) -> None:
        """Begin anew with an empty list: all that comes is known."""
        self.wants_copy = False
        self._known.clear()
