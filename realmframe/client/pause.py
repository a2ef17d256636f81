"""No cyclic garbage collection while it would make somebody late.

A collection of everything stops all threads for as long as it takes to look at every object of the process: 50 to 150
ms with the usual packages loaded, more in a large notebook. So there is none

* while a realm's data is integrated: what that makes has no cycles, and nothing is gained by looking for them then;
* in the last second before a time-out: whoever waits for it could not return in time.

What has no cycles is freed at once as ever, and a collection that was due comes right afterwards. A process that is
forked off has no part in it: whoever would end the pause is a thread of its parent.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Seconds before a time-out from which collections wait: one that has begun before is over by then.
NEAR_SECONDS: Final = 1.0
#: Seconds after a time-out from which they do not wait any more, whatever has become of it.
GRACE_SECONDS: Final = 1.0

_lock = threading.Lock()
#: One thing for each pause that goes on.
_pauses: Final[set[object]] = set()
_was_enabled = False


def _pause(why: object) -> None:
    global _was_enabled
    with _lock:
        is_first = not _pauses
        if is_first:
            _was_enabled = gc.isenabled()
        _pauses.add(why)  # before collections stop: a process may be forked off at any moment
        if is_first:
            gc.disable()


def _resume(why: object) -> None:
    """Let it go on when the last of all pauses is over, if it was on before the first; nothing for one that is over."""
    with _lock:
        if _pauses == {why} and _was_enabled:
            gc.enable()
        _pauses.discard(why)


def _after_fork() -> None:
    """End all pauses in a forked process; whoever began one there may have held the lock."""
    global _lock
    _lock = threading.Lock()
    if _pauses and _was_enabled:
        gc.enable()
    _pauses.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause it during the block."""
    why = object()
    _pause(why)
    try:
        yield
    finally:
        _resume(why)


class PauseBeforeTimeOut:
    """Pauses collections from shortly before a time-out until :meth:`end`, at most until shortly after it.

    Parameters
    ----------
    seconds : float or None
        Until the time-out; None pauses nothing.
    """

    def __init__(self, seconds: float | None) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        if seconds is None:
            return
        if seconds <= NEAR_SECONDS:
            self._begin()
        time_out = time.monotonic() + seconds
        threading.Thread(target=self._watch, args=(time_out,), name="realmframe-time-out", daemon=True).start()

    def end(self) -> None:
        """Let collections come again; a second time does nothing."""
        with self._lock:
            self._ended.set()
            _resume(self)

    def _begin(self) -> None:
        with self._lock:
            if not self._ended.is_set():
                _pause(self)

    def _watch(self, time_out: float) -> None:
        if self._ended.wait(min(threading.TIMEOUT_MAX, max(0.0, time_out - NEAR_SECONDS - time.monotonic()))):
            return
        self._begin()
        self._ended.wait(max(0.0, time_out + GRACE_SECONDS - time.monotonic()))
        self.end()
