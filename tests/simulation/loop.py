"""Time, tasks and processes: an event loop whose clock stands still until nothing is left to do now."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.simulation.disk import Disk, SimulatedKill

#: Seconds since 1970 at which every simulation begins.
EPOCH: Final = 1_700_000_000.0


class _Clock:
    """In the place of a selector: waiting is setting the clock forward."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Wait."""
        if timeout is None:
            raise RuntimeError("Nothing will ever happen again.")
        self._loop.now += max(0.0, timeout)
        return []


class Loop(asyncio.base_events.BaseEventLoop):
    """An event loop without threads, sockets and real time.

    Parameters
    ----------
    rng : Random
        How long what is handed to a thread takes.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.now = 1_000.0
        self._rng = rng
        self._selector = _Clock(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Give the seconds of the simulated clock."""
        return self.now

    def _process_events(self, _events: Any) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody else is there to wake it."""

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run a function a little later, in one piece, as if a thread did."""
        future = self.create_future()

        process = PROCESS.get(None)

        def work() -> None:
            try:
                if process is not None and process.is_gone:
                    raise SimulatedKill
                result = func(*args)
            except BaseException as fault:
                if not future.done():
                    future.set_exception(fault)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self._rng.expovariate(200.0), work)
        return future


class Process:
    """A program on a machine of its own: what it runs, and whether it is alive."""

    #: Whether it died alone, so that others have its files now.
    is_gone = False

    def __init__(self, name: str, loop: Loop) -> None:
        self.name, self.loop = name, loop
        self.is_dead = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.disk: Disk

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run something as this process; None if it dies of it, or is dead."""
        if self.is_dead:
            return None
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        try:
            return context.run(function, *args)
        except SimulatedKill:
            return None

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "task") -> asyncio.Task[Any]:
        """Run a coroutine as this process."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        task = self.loop.create_task(work, name=name, context=context)
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))
        if self.is_dead:
            task.cancel()
        return task

    def end(self) -> None:
        """Let no code of it run any more."""
        self.is_dead = True
        for task in list(self.tasks):
            task.cancel()


PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class Threads:
    """In the place of the client's sync thread: each process uses the one loop for itself."""

    is_alive = True

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Call a function soon."""
        process = PROCESS.get()
        process.loop.call_soon(lambda: process.run(callback, *args))

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task."""
        return PROCESS.get().spawn(work, name)

    def is_current(self) -> bool:
        """Say so: there is no other thread."""
        return True

    def stop(self) -> None:
        """Nothing runs that would have to be stopped."""


class Thread:
    """In the place of a thread that does one thing: it does it a little later, in one piece."""

    def __init__(self, *, target: Callable[..., object], args: tuple[Any, ...] = (), **_settings: Any) -> None:
        self._work: Callable[[], object] | None = lambda: target(*args)

    def start(self) -> None:
        """Begin."""
        process = PROCESS.get()
        process.loop.call_later(0.05, lambda: process.run(self.join))

    def join(self, _timeout: float | None = None) -> None:
        """Wait for it: nothing else runs, so it is done now."""
        work, self._work = self._work, None
        if work is not None:
            work()

    def is_alive(self) -> bool:
        """Tell whether it has to be waited for."""
        return self._work is not None


class Callbacks:
    """In the place of the thread that runs users' callbacks."""

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Call it."""
        Threads().post(function, *args)
