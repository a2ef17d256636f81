"""One deadline for everything that opening a realm does."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """A point in time, or none.

    Parameters
    ----------
    seconds : float or None
        From now; None never comes.
    clock : callable
        Monotonic seconds.
    """

    __slots__ = ("_clock", "_end", "began", "seconds")

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = clock()
        self.seconds = seconds
        self._end = None if seconds is None else self.began + seconds

    @property
    def remaining(self) -> float | None:
        """Seconds left, never below zero; None without end."""
        return None if self._end is None else max(0.0, self._end - self._clock())

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self._end is not None and self._clock() >= self._end

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._clock() - self.began
