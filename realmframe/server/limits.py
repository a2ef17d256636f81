"""Limits on what strangers send."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

MAX_BODY: Final = 1 << 20
MAX_MESSAGE: Final = 64 << 20
#: Bytes of a query set, as it is sent; App Services takes no longer ones.
MAX_QUERY: Final = 256 << 10
MAX_CLASSES: Final = 1_000
_REMEMBERED: Final = 10_000


class Attempts:
    """Counts failures per name, and says when there were too many lately.

    Parameters
    ----------
    allowed : int
        Failures before the next is refused.
    seconds : float
        Time after which a failure is forgotten.
    """

    def __init__(self, allowed: int = 10, seconds: float = 60.0) -> None:
        self.allowed, self.seconds = allowed, seconds
        self._failures: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def blocked(self, name: str) -> bool:
        """Whether this name has failed too often."""
        since = time.monotonic() - self.seconds
        with self._lock:
            kept = [t for t in self._failures.get(name, ()) if t > since]
            if kept:
                self._failures[name] = kept
            else:
                self._failures.pop(name, None)
        return len(kept) >= self.allowed

    def failed(self, name: str) -> None:
        """Note a failure."""
        with self._lock:
            self._failures.setdefault(name, []).append(time.monotonic())
            self._failures.move_to_end(name)
            while len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        with self._lock:
            self._failures.pop(name, None)
