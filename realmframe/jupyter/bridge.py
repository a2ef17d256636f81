"""From the sync thread to the kernel's loop: the only module that knows it.

The sync thread calls :meth:`Bridge.post` as often as it likes; the callback runs in the kernel's main thread, between
cells, at most ten times a second. Without a running loop (plain IPython) callbacks run when the next cell begins.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final

#: Seconds between two updates of anything on the page.
PERIOD: Final = 0.1


class Bridge:
    """Delivers posts to the main thread, throttled.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop or None
        The kernel's loop.
    period : float
        Seconds between two runs of one callback.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None, period: float = PERIOD) -> None:
        self._loop = loop
        self._period = period
        self._lock = threading.Lock()
        self._waiting: dict[Callable[[], None], bool] = {}
        self._last: dict[Callable[[], None], float] = {}

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run soon; posts of one callback that come close together are run once (any thread)."""
        with self._lock:
            if callback in self._waiting:
                return
            self._waiting[callback] = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arm, callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Never run a callback again, unless it is posted again."""
        with self._lock:
            self._waiting.pop(callback, None)
            self._last.pop(callback, None)

    def flush(self) -> None:
        """Run now, in this thread, what was posted and not yet run."""
        with self._lock:
            waiting = list(self._waiting)
        for callback in waiting:
            self._run(callback)

    def _arm(self, callback: Callable[[], None]) -> None:
        loop = self._loop
        if loop is None:
            return
        due = self._last.get(callback, -self._period) + self._period
        loop.call_at(max(due, loop.time()), self._run, callback)

    def _run(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if self._waiting.pop(callback, None) is None:
                return
            if self._loop is not None:
                self._last[callback] = self._loop.time()
        callback()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Give the loop that runs cells, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
