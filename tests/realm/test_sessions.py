"""A session from outside: states and who hears of them, stop policies, progress, multiplexing, timers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe import wire
from realmframe.client.callbacks import deliver
from realmframe.client.follow_ups import FollowUps
from realmframe.client.loop import sync_loop
from realmframe.realm.core import is_open
from realmframe.session.backoff import Delays
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
Login = Callable[..., rf.User]


def open_dogs(user: rf.User, path: str = "dogs.realm", **sync: Any) -> rf.Realm:
    """Open a realm subscribed to all dogs."""
    settings = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog", name="dogs")} | sync
    return rf.Realm.open(path=path, schema=[DOG], sync=rf.SyncConfiguration(user, **settings))


def write(realm: rf.Realm, *keys: int) -> None:
    """Write dogs."""
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key, "name": f"dog {key}"} for key in keys])


# ---- states and listeners


def test_every_change_of_the_connection_is_told(login: Login, server: Any) -> None:
    """A listener hears each change once, in order, with what was before, until it is removed."""
    with open_dogs(login("a")) as realm:
        session = realm.sync_session
        heard: list[tuple[str, str]] = []
        states: list[tuple[str, str]] = []
        hear: Callable[[str, str], object] = lambda new, old: heard.append((new, old))  # noqa: E731
        session.add_connection_notification(hear)
        stop = session.add_state_notification(lambda new, old: states.append((new, old)))
        removed: list[str] = []
        unheard: Callable[[str, str], object] = lambda new, _old: removed.append(new)  # noqa: E731
        session.add_state_notification(unheard)
        session.remove_state_notification(unheard)
        server.line.cut()
        assert until(lambda: heard[-1:] == [("connected", "connecting")])
        assert heard == [("disconnected", "connected"), ("connecting", "disconnected"), ("connected", "connecting")]
        assert states == []
        heard.clear()
        session.pause()
        assert until(lambda: heard and states)
        assert (heard, states) == ([("disconnected", "connected")], [("inactive", "active")])
        session.resume()
        assert until(lambda: len(heard) == 2 and len(states) == 2)
        assert (heard[1], states[1]) == (("connected", "disconnected"), ("active", "inactive"))
        session.remove_connection_notification(hear)
        stop()
        session.pause()
        session.resume()
        assert until(lambda: session.is_connected)
        assert (len(heard), len(states)) == (2, 2)
        assert removed == []


def test_a_listener_that_fails_harms_nobody(login: Login) -> None:
    """What a callback raises is logged; the others hear all the same."""
    with open_dogs(login("a")) as realm:
        heard: list[str] = []

        def fail(new: str, old: str) -> None:
            raise ValueError(new, old)

        realm.sync_session.add_connection_notification(fail)
        realm.sync_session.add_connection_notification(lambda new, _old: heard.append(new))
        realm.sync_session.pause()
        assert until(lambda: heard == ["disconnected"])


def test_reconnect_skips_the_wait(login: Login, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure the next try is minutes away here; reconnect makes it now."""
    monkeypatch.setattr("realmframe.session.client.Delays", lambda: Delays(first=300.0, longest=300.0))
    with open_dogs(login("a")) as realm:
        session = realm.sync_session
        server.line.cut()
        assert until(lambda: not session.is_connected)
        assert not until(lambda: session.is_connected, 0.3)
        session.reconnect()
        assert until(lambda: session.is_connected)


@pytest.mark.parametrize("limit", [0.0, 60.0])
def test_freshness_when_the_connection_comes_back(login: Login, server: Any, limit: float) -> None:
    """Frames are stale while it is gone, and current again without anybody having waited for anything."""
    with open_dogs(login("a", sync_timeouts={"fast_reconnect_limit": limit})) as realm:
        assert until(lambda: not realm.status().is_stale)
        before = realm.status().as_of
        server.line.fault(down=True)
        assert until(lambda: realm.status().is_stale)
        server.line.heal()
        realm.sync_session.reconnect()
        assert until(lambda: not realm.status().is_stale)
        assert before is not None
        assert realm.status().as_of > before  # type: ignore[operator]


def test_freshness_while_the_server_refuses_the_session(login: Login, server: Any) -> None:
    """A session that waits to be bound again is not in step, although its connection stays."""
    with open_dogs(login("a")) as realm:
        assert until(lambda: not realm.status().is_stale)
        later = {"code": 201, "action": "Transient", "tryAgain": True}
        server.faults.mark_error = server.faults.bind_error = later
        with pytest.raises(rf.WaitTimeoutError):
            realm.download_all_server_changes(timeout=0.2)
        assert until(lambda: realm.status().is_stale)
        assert realm.sync_session.is_connected
        server.faults.mark_error = server.faults.bind_error = None
        realm.sync_session.reconnect()
        assert until(lambda: not realm.status().is_stale)


# ---- stop policies


@pytest.mark.parametrize("policy", ["after_upload", "immediately", "never"])
def test_stop_policy(login: Login, server: Any, policy: str) -> None:
    """What was written is uploaded after the realm was closed, or at the next open; "never" hears of news too."""
    user = login("a")
    realm = open_dogs(user, session_stop_policy=policy)
    session = realm.sync_session
    realm.upload_all_local_changes(WAIT)
    server.line.fault(stall_after=0, direction="both")
    uploaded = len(server.log)
    write(realm, 1)
    begun = time.monotonic()
    realm.close()
    waited = time.monotonic() - begun
    assert 1.9 < waited < 6.0 if policy == "after_upload" else waited < 1.5
    assert session.state == ("inactive" if policy == "immediately" else "active")
    server.line.heal()
    if policy != "immediately":
        assert until(lambda: len(server.log) == uploaded + 1)
        ended = until(lambda: session.state == "inactive", WAIT if policy == "after_upload" else 0.5)
        assert ended is (policy == "after_upload")
    assert until(lambda: is_open(realm.path) is (policy == "never"))  # the files are closed after the session
    with open_dogs(user, session_stop_policy="immediately") as again:
        again.upload_all_local_changes(WAIT)
        assert len(server.log) == uploaded + 1
        assert list(again["Dog"]._id) == [1]


def test_a_lingering_session_is_taken_over(login: Login, server: Any) -> None:
    """Who opens the realm while its last session still uploads gets that session."""
    user = login("a")
    realm = open_dogs(user)
    server.line.fault(stall_after=0, direction="both")
    write(realm, 1)
    session = realm.sync_session
    realm.close()
    at_once = rf.OpenRealmBehaviorConfiguration("open_immediately")
    with open_dogs(user, existing_realm_file_behavior=at_once) as again:
        assert again.sync_session is session
        server.line.heal()
        again.upload_all_local_changes(WAIT)
        time.sleep(0.6)  # longer than a lingering session looks
        assert session.state == "active"


def test_a_lingering_session_ends_with_its_connection(login: Login, server: Any) -> None:
    """Offline there is nothing to wait for: the files are closed, and what is left goes up at the next open."""
    realm = open_dogs(login("a"))
    server.line.fault(stall_after=0, direction="both")
    write(realm, 1)
    realm.close()
    server.line.fault(down=True)
    assert until(lambda: not is_open(realm.path))


@pytest.mark.parametrize("how", ["shutdown", "delete"])
def test_what_ends_a_session_that_never_stops(login: Login, how: str) -> None:
    """Realm.shutdown ends it, and so does deleting the files."""
    user = login("a")
    realm = open_dogs(user, session_stop_policy="never")
    other = open_dogs(user, "other.realm")
    session = realm.sync_session
    realm.close()
    assert session.state == "active"
    if how == "shutdown":
        rf.Realm.shutdown()
        assert other.is_closed
    else:
        rf.Realm.delete_files(path="dogs.realm", sync=realm.configuration.sync)
        assert not realm.path.exists()
        other.close()
    assert session.state == "inactive"
    assert not is_open(realm.path)


# ---- progress


def test_progress(tmp_path: Path) -> None:
    """Upload and download: numbers never fall, what was outstanding ends once, the rest goes on."""
    with Server() as server:
        users = []
        for name in "ab":
            app = rf.App("dogs", base_url=server.url, base_file_path=tmp_path / name)
            users.append(app.log_in(rf.Credentials.anonymous()))
        heard: dict[str, list[Any]] = {k: [] for k in ("up once", "up", "down once", "down", "bytes", "estimate")}
        with open_dogs(users[0]) as first:
            session = first.sync_session
            session.pause()
            for start in range(0, 900, 300):
                write(first, *range(start, start + 300))
            session.progress(heard["up once"].append, direction="upload", mode="for_currently_outstanding_work")
            session.progress(heard["up"].append, direction="upload")
            session.resume()
            first.upload_all_local_changes(WAIT)
            write(first, 1000)
            first.upload_all_local_changes(WAIT)
            opening = rf.Realm.begin_open(
                path="dogs.realm",
                schema=[DOG],
                sync=rf.SyncConfiguration(users[1], flexible=True, initial_subscriptions=lambda s, _r: s.add("Dog")),
            )
            opening.on_progress(heard["down once"].append)
            with opening.result() as second:
                other = second.sync_session
                stop = other.progress(heard["down"].append)
                by_bytes: Callable[[int, int], object] = lambda done, total: heard["bytes"].append((done, total))  # noqa: E731
                other.add_progress_notification("download", "reportIndefinitely", by_bytes)
                other.add_progress_notification("download", "report_indefinitely", heard["estimate"].append)
                write(first, 2000)
                assert until(lambda: second.refresh() or 2000 in set(second["Dog"]._id))
                assert until(lambda: heard["down"][-1].objects == 902)
                stop()
                other.remove_progress_notification(by_bytes)
                deliver((told := threading.Event()).set)  # what was on its way has arrived
                assert told.wait(WAIT)
                counts = len(heard["down"]), len(heard["bytes"])
                write(first, 3000)
                assert until(lambda: second.refresh() or 3000 in set(second["Dog"]._id))
                assert (len(heard["down"]), len(heard["bytes"])) == counts
    for name in ("up once", "up", "down once", "down"):
        for field in ("bytes", "objects") + (("fraction",) if name.endswith("once") else ()):
            values = [getattr(p, field) for p in heard[name]]
            assert values == sorted(values), (name, field)
        assert all(p.bytes <= p.transferable and 0.0 <= p.estimate <= 1.0 for p in heard[name])
    for name in ("up once", "down once"):
        assert [p.phase for p in heard[name]].count("done") == 1
        assert (heard[name][-1].phase, heard[name][-1].estimate) == ("done", 1.0)
    assert heard["up once"][0].bytes == 0
    assert heard["up once"][0].transferable == heard["up once"][-1].bytes > 900 * 5
    assert heard["up"][-1].bytes > heard["up once"][-1].bytes
    assert heard["bytes"][-1][0] > heard["bytes"][0][0] > 0
    assert heard["estimate"][-1] == 1.0


def test_bad_progress(login: Login) -> None:
    """Another direction, mode or number of arguments is refused."""
    with open_dogs(login("a")) as realm:
        session = realm.sync_session
        with pytest.raises(rf.UsageError, match="direction"):
            session.progress(print, direction="sideways")
        with pytest.raises(rf.UsageError, match="mode"):
            session.progress(print, mode="sometimes")
        with pytest.raises(rf.UsageError, match="estimate"):
            session.add_progress_notification("upload", "report_indefinitely", lambda a, b, c: None)


# ---- multiplexing


@pytest.mark.parametrize("multiplex", [True, False])
def test_multiplexing(login: Login, server: Any, multiplex: bool) -> None:
    """One websocket for all realms of a user, which survives each; or one per realm, which goes with it."""
    user = login("m", multiplex_sessions=multiplex)
    opened = server.opened
    with open_dogs(user, "one.realm"), open_dogs(user, "two.realm") as two:
        assert server.opened - opened == (1 if multiplex else 2)
        assert until(lambda: server.line.connections >= (1 if multiplex else 2))
        write(two, 1)
        two.upload_all_local_changes(WAIT)
    left = 1 if multiplex else 0
    sync = user.app.sync
    assert until(lambda: sum(c.state == "connected" for c in sync.connections()) == left)
    with open_dogs(user, "three.realm"):
        assert server.opened - opened == (1 if multiplex else 3)


# ---- timers, each once with a real clock


def kinds(server: Any, since: int = 0) -> list[str]:
    """Name what the client has sent."""
    return [type(m).__name__ for m in server.messages[since:]]


def test_connect_timeout(login: Login, server: Any) -> None:
    """A host that says nothing is given up after the connect time-out, and tried again."""
    user = login("t", sync_timeouts={"connect": 0.3})
    with open_dogs(user) as realm:
        session = realm.sync_session
        server.line.fault(stall_after=0)
        server.line.cut()
        assert until(lambda: session.connection_state == "connecting")
        assert until(lambda: "0.3 s" in str(session.last_error))
        server.line.heal()
        session.reconnect()
        assert until(lambda: session.is_connected)


def test_ping_period(login: Login, server: Any) -> None:
    """PINGs are sent as often as asked for."""
    with open_dogs(login("t", sync_timeouts={"ping_keep_alive_period": 0.1})):
        assert until(lambda: kinds(server).count("Ping") >= 5)
    assert all(isinstance(m.rtt, int) for m in server.messages if isinstance(m, wire.Ping))


def test_pong_timeout(login: Login, server: Any) -> None:
    """A server that falls silent is noticed by the PONG that does not come."""
    timeouts = {"ping_keep_alive_period": 0.05, "pong_keep_alive_timeout": 0.3}
    with open_dogs(login("t", sync_timeouts=timeouts)) as realm:
        time.sleep(0.5)
        assert realm.sync_session.is_connected
        server.line.fault(stall_after=0)
        begun = time.monotonic()
        assert until(lambda: not realm.sync_session.is_connected)
        assert time.monotonic() - begun >= 0.25
        server.line.heal()
        realm.sync_session.reconnect()
        assert until(lambda: realm.sync_session.is_connected)


@pytest.mark.parametrize("linger", [0.2, 30.0])
def test_linger(login: Login, server: Any, linger: float) -> None:
    """A websocket without sessions is kept for the next one for so long."""
    with open_dogs(login("t", sync_timeouts={"connection_linger": linger})) as realm:
        opened = server.opened
        realm.sync_session.pause()
        time.sleep(0.6)
        realm.sync_session.resume()
        realm.download_all_server_changes(WAIT)
        assert server.opened - opened == (1 if linger < 0.6 else 0)


@pytest.mark.parametrize("limit", [0.0, 60.0])
def test_fast_reconnect(login: Login, server: Any, limit: float) -> None:
    """Back within the limit, a client uploads at once; else it asks first what is new."""
    with open_dogs(login("t", sync_timeouts={"fast_reconnect_limit": limit})) as realm:
        server.line.fault(down=True)
        assert until(lambda: not realm.sync_session.is_connected)
        write(realm, 1)
        since = len(server.messages)
        server.line.heal()
        realm.sync_session.reconnect()
        realm.upload_all_local_changes(WAIT)
        first = next(k for k in kinds(server, since) if k in ("Mark", "Upload"))
        assert first == ("Mark" if limit == 0.0 else "Upload")


def test_a_token_that_ended(tmp_path: Path) -> None:
    """A websocket outlives the token it was opened with; the next one is opened with a new token."""
    with Server(access_token_seconds=1) as server, FaultProxy(server) as line:
        app = rf.App("dogs", base_url=line.url, base_file_path=tmp_path)
        with open_dogs(app.log_in(rf.Credentials.anonymous())) as realm:
            session = realm.sync_session
            heard: list[str] = []
            session.add_connection_notification(lambda new, _old: heard.append(new))
            time.sleep(2.5)  # tokens say whole seconds: this one lives for two at most
            write(realm, 1)
            realm.upload_all_local_changes(WAIT)
            assert heard == []
            line.cut()
            write(realm, 2)
            assert until(lambda: heard[-1:] == ["connected"])
            realm.upload_all_local_changes(WAIT)
            assert session.fatal_error is None


def test_session_that_is_resumed_while_a_failure_ends_it(
    login: Login, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what ran when it failed is ended: what was begun anew meanwhile goes on."""
    with open_dogs(login("a")) as realm:
        session = realm.sync_session

        async def fail_and_resume() -> None:
            goes_on = asyncio.Event()

            async def slow(_self: FollowUps) -> None:
                await goes_on.wait()

            monkeypatch.setattr(FollowUps, "cancel_reset", slow)
            session.fail(rf.SyncError("It failed."))
            await asyncio.sleep(0)
            session.begin()
            goes_on.set()
            await asyncio.gather(*[t for t in asyncio.all_tasks() if "retire" in t.get_name()])

        sync_loop().call(fail_and_resume(), 10.0, "the test")
        write(realm, 1)
        realm.upload_all_local_changes(WAIT)
        assert session.state == "active"
