"""Threads that work for the sync thread, also when the main thread has ended and other threads of the program go on.

Python's own pools take nothing more from then on. What they are at when the program ends is brought to its end.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Workers(concurrent.futures.ThreadPoolExecutor):
    """A pool of daemon threads, which end when there is nothing to do. One thread alone works in order.

    Parameters
    ----------
    limit : int
        How many threads there are at most.
    name : str
        Of the threads.
    """

    def __init__(self, limit: int, name: str) -> None:
        super().__init__(limit)  # a loop takes nothing else; no thread of that one is ever started
        self._limit, self._name = limit, name
        self.begin_anew()
        _pools.add(self)

    def begin_anew(self) -> None:
        """Forget the threads, which a forked process does not have, and what they were to do."""
        self._running = 0
        self._waiting: deque[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Have a function called soon."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._changed:
            self._waiting.append((future, lambda: work(*args, **kwargs)))
            is_needed = self._running < self._limit
            self._running += is_needed
        if is_needed:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._running -= 1
                    self._changed.notify_all()
                    return
                future, work = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # handed to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
            del future, work

    def finish(self) -> None:
        """Wait until nothing is left to do."""
        with self._changed:
            while self._running:
                self._changed.wait()


_pools: Final[weakref.WeakSet[Workers]] = weakref.WeakSet()


def _finish() -> None:
    for pool in list(_pools):
        pool.finish()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.begin_anew()


atexit.register(_finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
