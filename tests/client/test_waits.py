"""Who waits for a session, when each wait ends, and when patience does: on a clock that only moves when told to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from realmframe.client.patience import Patience
from realmframe.client.waits import Wait, Waits
from realmframe.errors import NetworkError, QueryError, SyncError
from realmframe.session.subscriptions import State
from tests.simulation.loop import Loop

LIMIT = 10.0


class Session(SimpleNamespace):
    """As much of a session as those who wait see of it."""

    def __init__(self, *, cancels: bool = True) -> None:
        self.unsent: list[int] = []
        self.states: dict[int, State] = {}
        store: Any = SimpleNamespace(pending=lambda: [SimpleNamespace(version=v) for v in self.unsent])
        sets: Any = SimpleNamespace(state_of=lambda v: self.states[v], error_of=lambda v: f"bad {v}")
        super().__init__(
            options=SimpleNamespace(cancel_waits=cancels),
            app=SimpleNamespace(timeout=LIMIT, base_url="http://server.test"),
            last_error=None,
            waits=Waits(store, sets),
        )
        self.patience = Patience(self)  # type: ignore[arg-type]

    def wait(self, kind: str = "download", target: int = 1) -> Wait:
        """Begin to wait."""
        found: Wait = self.waits.add(kind, target)
        self.patience.arm()
        return found

    def trouble(self) -> None:
        """Have an error."""
        self.last_error = SyncError("busy")
        self.patience.trouble()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something by the simulated clock."""
    loop = Loop(random.Random(1))
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


def ended(*waits: Wait) -> list[bool]:
    """Tell which have ended badly; none has ended well."""
    assert not any(w.future.done() and w.future.exception() is None for w in waits)
    return [w.future.done() for w in waits]


async def until(moment: float) -> None:
    """Let the clock come to a moment, counted from the beginning."""
    await asyncio.sleep(1_000.0 + moment - asyncio.get_running_loop().time())


#: When trouble begins, when the wait does, and when the wait ends.
MOMENTS = [(0.0, 0.0, 10.0), (0.0, 5.0, 15.0), (7.0, 0.0, 17.0), (3.0, 3.0, 13.0)]


@pytest.mark.parametrize(("trouble", "begins", "ends"), MOMENTS)
@pytest.mark.parametrize("cancels", [True, False])
def test_patience_counts_from_when_both_are_there(trouble: float, begins: float, ends: float, cancels: bool) -> None:
    """A wait ends when it has lasted for the time-out while there was trouble all along, with the last error."""

    async def work() -> None:
        session = Session(cancels=cancels)
        for moment, is_trouble in sorted([(trouble, True), (begins, False)]):
            await until(moment)
            if is_trouble:
                session.trouble()
            else:
                wait = session.wait()
        await until(ends - 0.01)
        assert ended(wait) == [False]
        await until(ends + 0.01)
        assert ended(wait) == [cancels]
        assert not cancels or wait.future.exception() is session.last_error
        await until(100.0)
        assert ended(wait) == [cancels]

    run(work)


def test_each_wait_has_its_own_time() -> None:
    """The one that began first ends first; what goes on is not ended with it."""

    async def work() -> None:
        session = Session()
        session.trouble()
        first = session.wait()
        await until(6.0)
        second = session.wait()
        await until(10.01)
        assert ended(first, second) == [True, False]
        await until(16.01)
        assert ended(first, second) == [True, True]

    run(work)


def test_trouble_that_goes_on_is_one() -> None:
    """More errors do not begin it anew; a connection does not end it when there was an error, and progress does."""

    async def work() -> None:
        session = Session()
        wait = session.wait()
        session.trouble()
        await until(8.0)
        session.trouble()
        session.patience.connected()
        await until(9.0)
        session.patience.calm()
        await until(12.0)
        assert ended(wait) == [False]
        session.trouble()
        await until(15.0)
        session.patience.connected()
        session.trouble()
        await until(21.9)
        assert ended(wait) == [False]
        await until(22.01)
        assert ended(wait) == [True]

    run(work)


def test_a_connection_ends_what_was_no_error() -> None:
    """Where nothing went wrong it only took its time; else the error says how long, and where."""

    async def work() -> None:
        session = Session()
        wait = session.wait()
        session.patience.trouble()
        await until(9.0)
        session.patience.connected()
        await until(30.0)
        assert ended(wait) == [False]
        session.patience.trouble()
        await until(40.01)
        error = wait.future.exception()
        assert isinstance(error, NetworkError)
        assert "http://server.test could not be reached within 10 s" in error.message

    run(work)


def test_uploads() -> None:
    """A wait ends when nothing up to its version is unsent, whatever was written later."""

    async def work() -> None:
        session = Session()
        two, three, five = (session.wait("upload", n) for n in (2, 3, 5))
        session.unsent = [3, 5, 6]
        session.waits.settle()
        assert [w.future.done() for w in (two, three, five)] == [True, False, False]
        session.unsent = [5, 6]
        session.waits.settle()
        assert [w.future.done() for w in (two, three, five)] == [True, True, False]
        session.unsent = [6]
        session.waits.settle()
        assert five.future.done()

    run(work)


def test_downloads() -> None:
    """A wait ends with the MARK that was asked for it, or a later one; one that could not ask yet goes on."""

    async def work() -> None:
        session = Session()
        unasked, four, six = (session.wait("download", n) for n in (0, 4, 6))
        session.waits.marked(5)
        session.waits.settle()
        assert [w.future.done() for w in (unasked, four, six)] == [False, True, False]
        session.waits.renumber(itertools.count(7).__next__)
        session.waits.marked(6)
        assert not six.future.done()
        session.waits.marked(9)
        assert unasked.future.done()
        assert six.future.done()

    run(work)


def test_subscriptions() -> None:
    """Complete and superseded end well, an error badly, with what the server said; the rest goes on."""

    async def work() -> None:
        session = Session()
        session.states = dict(enumerate(State))
        waits = {state: session.wait("subscriptions", n) for n, state in session.states.items()}
        session.waits.settle()
        done = {state for state, wait in waits.items() if wait.future.done()}
        assert done == {State.COMPLETE, State.SUPERSEDED, State.ERROR}
        error = waits[State.ERROR].future.exception()
        assert isinstance(error, QueryError)
        assert f"bad {waits[State.ERROR].target}" in error.message
        assert waits[State.COMPLETE].future.exception() is waits[State.SUPERSEDED].future.exception() is None

    run(work)


def test_the_oldest_that_goes_on() -> None:
    """What has ended, or was given up, is not counted."""

    async def work() -> None:
        session = Session()
        assert session.waits.oldest is None
        first = session.wait()
        await until(1.0)
        second = session.wait()
        await until(2.0)
        third = session.wait()
        first.succeed()
        assert session.waits.oldest == 1_001.0
        session.waits.remove(second)
        assert session.waits.oldest == 1_002.0
        error = SyncError("over")
        session.waits.fail(error)
        assert session.waits.oldest is None
        assert third.future.exception() is error
        assert first.future.exception() is None

    run(work)
