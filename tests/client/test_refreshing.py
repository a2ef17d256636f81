"""A server that refuses a token while it cannot give another one is not asked again and again at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from realmframe.client import connection, follow_ups
from realmframe.client.app import SyncTimeouts
from realmframe.client.connection import Connection
from realmframe.client.follow_ups import FollowUps
from realmframe.errors import AppError, AuthError, NetworkError
from realmframe.session.events import ConnectionFailed
from realmframe.session.rules import after_close
from realmframe.wire import Action
from tests.simulation.loop import Loop


class _App:
    """An app whose tokens are refreshed as often as told, after so many failures."""

    id, multiplex_sessions, sync_timeouts = "app", True, SyncTimeouts()

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.metadata = SimpleNamespace(get=lambda _user: SimpleNamespace(access_token="old"))
        self.services = SimpleNamespace(known_location=SimpleNamespace(sync_route="ws://server"))

    async def access_token(self, _user: str, *, stale: str | None = None) -> str:
        """Give another token than the stale one."""
        assert stale == "old"
        if self.faults:
            raise self.faults.pop(0)
        return "new"


def _refused(app: _App, monkeypatch: pytest.MonkeyPatch, times: int, *, hears: bool = False) -> int:
    """Have a connection refused so many times; count how often it connects again without waiting."""
    at_once: list[float] = []

    async def run() -> None:
        tasks: list[Any] = []
        loop = SimpleNamespace(spawn=lambda work, _name: tasks.append(asyncio.ensure_future(work)))
        monkeypatch.setattr(connection, "sync_loop", lambda: loop)
        made = Connection(app, "user", True)  # type: ignore[arg-type]
        monkeypatch.setattr(made.machine, "reconnect", at_once.append)
        for _ in range(times):
            made.refresh_user()
            await asyncio.gather(*tasks)
            made._is_renewed = made._is_renewed and not hears

    asyncio.run(run())
    return len(at_once)


@pytest.mark.parametrize("fault", [NetworkError("down"), AppError("broken", status=503)])
def test_refused_connection_without_a_new_token(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """The back-off goes on when refreshing fails; the first new token ends it."""
    assert _refused(_App(fault, fault, fault), monkeypatch, 3) == 0
    assert _refused(_App(fault, fault), monkeypatch, 3) == 1


def test_refused_connection_with_a_new_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new token is tried at once; when it is refused in turn, the back-off goes on."""
    assert _refused(_App(), monkeypatch, 3) == 1
    assert _refused(_App(), monkeypatch, 3, hears=True) == 3


@pytest.mark.parametrize("fault", [NetworkError("down"), AppError("broken", status=503)])
def test_refused_session_without_a_new_token(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """A session whose user has to be refreshed is bound again once that is done, with longer waits each time."""
    happened: list[Any] = []

    async def wait_for(hurried: Coroutine[Any, Any, bool], seconds: float) -> None:
        hurried.close()
        happened.append(seconds)
        raise TimeoutError

    monkeypatch.setattr(follow_ups.asyncio, "wait_for", wait_for)
    binding = SimpleNamespace(machine=object(), resume=lambda: happened.append("resume"))
    session = SimpleNamespace(app=_App(fault, fault, fault), binding=binding, fatal_error=None)
    session.options = SimpleNamespace(user_id="user")
    asyncio.run(FollowUps(session)._refresh_and_resume(ask_location=False))  # type: ignore[arg-type]
    *waits, last = happened
    assert last == "resume"
    assert len(waits) == 3
    assert 0.75 <= waits[0] <= 1.0
    assert waits == sorted(waits)


def test_refused_session_whose_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the server no longer knows is not asked for again: the session hears of it, and is not bound."""
    resumed: list[str] = []
    refused = AuthError("The server no longer knows the user.")
    session = SimpleNamespace(app=_App(refused, refused), fatal_error=None, options=SimpleNamespace(user_id="user"))
    session.binding = SimpleNamespace(machine=object(), resume=lambda: resumed.append("resume"))
    with pytest.raises(AuthError, match="no longer knows"):
        asyncio.run(FollowUps(session)._refresh_and_resume(ask_location=False))  # type: ignore[arg-type]
    assert resumed == []
    assert session.app.faults == [refused]


@pytest.mark.parametrize("helps", [True, False])
def test_a_refresh_that_helped_is_no_reason_to_wait(helps: bool) -> None:
    """What the server asks for after it went on with the session is done at once, as the first time."""
    loop = Loop(random.Random(1))
    times: list[float] = []

    async def work() -> None:
        session = SimpleNamespace(app=_App(), fatal_error=None, options=SimpleNamespace(user_id="user"))
        session.binding = SimpleNamespace(machine=object(), resume=lambda: times.append(loop.now))
        found = FollowUps(session)  # type: ignore[arg-type]
        for _ in range(2):
            await found._refresh_and_resume(ask_location=False)
            if helps:
                found.progressed()

    loop.run_until_complete(work())
    loop.close()
    first, second = times
    assert (first == second) is helps


def test_reconnect_skips_the_wait_for_a_refresh() -> None:
    """The app asks for it while the second refresh waits: it is done now."""
    loop = Loop(random.Random(1))
    times: list[float] = []

    async def work() -> None:
        session = SimpleNamespace(app=_App(), fatal_error=None, options=SimpleNamespace(user_id="user"))
        session.binding = SimpleNamespace(machine=object(), resume=lambda: times.append(loop.now))
        found = FollowUps(session)  # type: ignore[arg-type]
        found.hurry()  # nothing waits: nothing happens
        await found._refresh_and_resume(ask_location=False)
        second = asyncio.ensure_future(found._refresh_and_resume(ask_location=False))
        await asyncio.sleep(0.1)
        found.hurry()
        await second

    loop.run_until_complete(work())
    loop.close()
    first, second = times
    assert second - first == pytest.approx(0.1)


def test_a_message_that_is_too_large_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A websocket closed with 1009 leads to a client reset, as in the SDKs: the same would be sent again for ever."""
    resets: list[tuple[Any, ...]] = []
    monkeypatch.setattr(FollowUps, "begin_reset", lambda _self, *what: resets.append(what))
    session = SimpleNamespace(last_error=None)
    ending = after_close(1009, "too big")
    event = ConnectionFailed(ending.error, ending.message, ending.follow_up, ending.is_fatal, ending.is_reported)
    FollowUps(session).connection_failed(event, None)  # type: ignore[arg-type]
    assert resets == [(ending.message, 0, Action.CLIENT_RESET)]
    assert isinstance(session.last_error, NetworkError)
    assert not ending.is_fatal
