"""The sync thread: one daemon thread per process, with one asyncio loop.

Every HTTP request and every websocket of every app lives there. Other threads hand it coroutines and wait on futures
with a deadline; a coroutine that raises hands its error to whoever waits, never to the thread.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from realmframe.client.workers import Workers
from realmframe.errors import UsageError, WaitTimeoutError

T = TypeVar("T")
log: Final = logging.getLogger("realmframe.client")

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 3.0
#: Threads at most that work for the sync thread at the same time: for commits, client resets, look-ups of hosts.
_WORKERS: Final = 32


class SyncLoop:
    """A thread that runs an asyncio loop until it is stopped.

    Raises
    ------
    BaseException
        Whatever kept the loop from starting, in the thread that asked for it.
    """

    def __init__(self, name: str = "realmframe-sync") -> None:
        self.pid = os.getpid()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._ready.wait(_START_SECONDS)
        if self._error is not None:
            raise self._error
        if self._loop is None:
            raise UsageError("The sync thread did not start.")

    def _run(self) -> None:
        try:
            runner = asyncio.Runner()
            loop = runner.get_loop()
            loop.set_default_executor(Workers(_WORKERS, "realmframe-worker"))
            loop.set_exception_handler(_report)
        except BaseException as error:  # handed to the thread that waits for the start
            self._error = error
            self._ready.set()
            return
        self._loop = loop
        loop.call_soon(self._ready.set)
        try:
            loop.run_forever()
        finally:
            runner.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop itself; only its own thread may touch it."""
        assert self._loop is not None
        return self._loop

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs (a forked child has none)."""
        return self._thread.is_alive() and self.pid == os.getpid()

    def is_current(self) -> bool:
        """Whether the caller runs in the sync thread."""
        return threading.current_thread() is self._thread

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine in the sync thread; give a future for other threads."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call a function in the sync thread soon (any thread)."""
        self.loop.call_soon_threadsafe(callback, *args)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task from within the sync thread, and keep it alive until it is done."""
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def at_stop(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something closed when the loop ends (from within the sync thread)."""
        self._closers.append(close)

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None, what: str = "The call") -> T:
        """Run a coroutine in the sync thread and wait for its result.

        Parameters
        ----------
        work : coroutine
        timeout : float, optional
            Seconds to wait; for ever by default. The coroutine is cancelled when they have passed.
        what : str
            What is waited for, for the error.

        Raises
        ------
        WaitTimeoutError
            When the time has passed.
        UsageError
            When called from the sync thread itself, which would wait for ever.
        """
        if self.is_current():
            work.close()
            raise UsageError(
                f"{what} waits, and a callback of the sync thread must not.",
                hint="Hand it to another thread, or use the async form.",
            )
        future = self.submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():  # the coroutine itself raised it
                raise
            future.cancel()
            raise WaitTimeoutError(f"{what} did not finish within {timeout:g} s.") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel what runs, end the loop and join the thread."""
        if not self.is_alive or self.is_current():
            return
        try:
            self.submit(self._cancel_all()).result(_STOP_SECONDS)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            log.warning("the sync thread is slow to stop")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_STOP_SECONDS)

    async def _cancel_all(self) -> None:
        current = asyncio.current_task()
        tasks = [t for t in asyncio.all_tasks() if t is not current]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS / 2)
        closers, self._closers = self._closers, []
        for close in closers:
            with contextlib.suppress(Exception):
                await close()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.error("sync thread: %s", context.get("message", "error"), exc_info=error)


_lock = threading.Lock()
_current: SyncLoop | None = None


def sync_loop() -> SyncLoop:
    """Give the process's sync thread, starting it on first use (and anew after a fork)."""
    global _current
    with _lock:
        if _current is None or not _current.is_alive:
            _current = SyncLoop()
        return _current


def in_sync_thread() -> bool:
    """Tell whether the caller runs in the sync thread, where nothing can be waited for."""
    return _current is not None and _current.is_current()


def stop_sync_loop() -> None:
    """End the process's sync thread; the next use starts a new one."""
    global _current
    with _lock:
        stopping, _current = _current, None
    if stopping is not None:
        stopping.stop()


def _after_fork() -> None:
    """Begin anew in a forked process; whoever started the thread there may have held the lock."""
    global _lock
    _lock = threading.Lock()


atexit.register(stop_sync_loop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
