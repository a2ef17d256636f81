"""Waiting for uploads, downloads and subscriptions: time-outs, and errors that end a wait or do not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
Login = Callable[..., rf.User]
KINDS = ("upload", "download", "subscriptions")


def open_dogs(user: rf.User, **sync: Any) -> rf.Realm:
    """Open a realm subscribed to all dogs."""
    settings = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog", name="dogs")} | sync
    return rf.Realm.open(path="dogs.realm", schema=[DOG], sync=rf.SyncConfiguration(user, **settings))


@pytest.fixture
def realm(login: Login) -> Iterator[rf.Realm]:
    """Open one."""
    with open_dogs(login("a")) as made:
        yield made


def give_work(realm: rf.Realm) -> None:
    """Leave something to upload and to subscribe to."""
    with realm.write() as tx:
        tx.upsert("Dog", {"_id": len(realm["Dog"]) + 1})
    with realm.subscriptions.update(wait=False) as subs:
        subs.add("Dog", "_id > $0", len(realm["Dog"]), name="more")


def wait(realm: rf.Realm, kind: str, timeout: float | None, is_async: bool = False) -> None:
    """Wait, in either form."""
    target: Any = realm.subscriptions if kind == "subscriptions" else realm
    name = {"upload": "upload_all_local_changes", "download": "download_all_server_changes"}.get(
        kind, "wait_for_synchronization"
    )
    if is_async:
        asyncio.run(getattr(target, f"{name}_async")(timeout))
    else:
        getattr(target, name)(timeout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("timeout", "is_async"),
    [
        (0, False),
        (0, True),
        (0.05, False),
        (0.05, True),
        (30.0, False),
        (30.0, True),
        (None, False),
        (float("inf"), True),
    ],
)
def test_time_out(realm: rf.Realm, server: Any, kind: str, timeout: float | None, is_async: bool) -> None:
    """With a server that answers a wait ends well; 0 only looks; with one that is silent a short one ends in time."""
    if timeout == 0 and kind == "download":
        with pytest.raises(rf.WaitTimeoutError, match="not done"):  # only the server can know
            wait(realm, kind, timeout, is_async)
    elif timeout != 0.05:
        wait(realm, kind, timeout, is_async)
    server.line.fault(stall_after=0)
    give_work(realm)
    limit = 0.05 if timeout is None or timeout > 1 else timeout
    begun = time.monotonic()
    with pytest.raises(rf.WaitTimeoutError, match=r"not (done|finish)") as caught:
        wait(realm, kind, limit, is_async)
    assert limit <= time.monotonic() - begun < limit + 2.0
    assert "goes on in the background" in (caught.value.hint or "")
    server.line.heal()
    wait(realm, kind, 20.0, is_async)  # it did go on


@pytest.mark.parametrize("timeout", [-1, "soon", True, float("nan")])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_time_out(realm: rf.Realm, kind: str, timeout: Any) -> None:
    """What is no number of seconds is refused before anything is waited for."""
    for is_async in (False, True):
        with pytest.raises(rf.UsageError, match="timeout must be"):
            wait(realm, kind, timeout, is_async)


def test_a_wait_that_is_cancelled_leaves_nothing(realm: rf.Realm, server: Any) -> None:
    """Cancelling the task of an async wait ends the wait in the sync thread too."""
    server.line.fault(stall_after=0)
    give_work(realm)

    async def give_up() -> None:
        task = asyncio.create_task(realm.upload_all_local_changes_async())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    ends = time.monotonic() + 5.0
    while realm.sync_session.waits.oldest is not None and time.monotonic() < ends:
        time.sleep(0.01)
    assert realm.sync_session.waits.oldest is None


def test_closing_ends_waits(realm: rf.Realm, server: Any) -> None:
    """Whoever waits when the realm is closed hears that it was."""
    server.line.fault(stall_after=0)
    give_work(realm)
    found: list[BaseException] = []

    def run() -> None:
        try:
            realm.upload_all_local_changes()
        except rf.RealmError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    ends = time.monotonic() + 5.0
    while realm.sync_session.waits.oldest is None and time.monotonic() < ends:
        time.sleep(0.01)
    session = realm.sync_session
    realm.abandon()
    thread.join(10.0)
    assert [type(e) for e in found] == [rf.ClosedError]
    with pytest.raises(rf.ClosedError):
        session.upload_all_local_changes(1.0)


def _down(server: Any, _realm: rf.Realm) -> None:
    server.line.fault(down=True)


def _refuse(server: Any, _realm: rf.Realm) -> None:
    server.line.fault(status=503)
    server.line.cut()


def _drop_at_once(server: Any, _realm: rf.Realm) -> None:
    server.faults.close_code = 1011
    server.line.cut()


def _fail_sessions(server: Any, realm: rf.Realm) -> None:
    realm.sync_session.pause()
    server.faults.bind_error = {"code": 201, "action": "Transient", "tryAgain": True}
    realm.sync_session.resume()


FAULTS = {
    "down": (_down, rf.NetworkError),
    "refuses": (_refuse, rf.NetworkError),
    "drops at once": (_drop_at_once, rf.NetworkError),
    "fails the session": (_fail_sessions, rf.SyncError),
}


@pytest.mark.parametrize("cancels", [True, False])
@pytest.mark.parametrize(
    ("fault", "kind"), [*((f, "upload") for f in FAULTS), ("down", "download"), ("down", "subscriptions")]
)
def test_non_fatal_errors(login: Login, server: Any, kind: str, fault: str, cancels: bool) -> None:
    """True: the wait ends with the error once the App's time-out has passed; False: it goes on through reconnects."""
    break_it, error = FAULTS[fault]
    user = login("b", timeout=0.3)
    with open_dogs(user, cancel_waits_on_non_fatal_errors=cancels) as realm:
        break_it(server, realm)
        give_work(realm)
        begun = time.monotonic()
        with pytest.raises(error if cancels else rf.WaitTimeoutError):
            wait(realm, kind, 15.0 if cancels else 0.6)
        assert time.monotonic() - begun >= 0.25
        server.faults = type(server.faults)()
        server.line.heal()
        realm.sync_session.reconnect()
        wait(realm, kind, 20.0)


@pytest.mark.parametrize("cancels", [True, False])
def test_opening_is_a_wait_too(login: Login, server: Any, cancels: bool) -> None:
    """The same of an open that waits for its download."""
    user = login("b", timeout=0.3)
    server.line.fault(down=True)
    behaviour = {"time_out": 1.0 if not cancels else 15.0, "time_out_behavior": "throw_exception"}
    begun = time.monotonic()
    with pytest.raises(rf.NetworkError if cancels else rf.OpenTimeoutError):
        open_dogs(user, cancel_waits_on_non_fatal_errors=cancels, new_realm_file_behavior=behaviour)
    assert 0.25 <= time.monotonic() - begun < 10.0


@pytest.mark.parametrize("cancels", [True, False])
def test_a_host_that_never_answers(tmp_path: Path, cancels: bool) -> None:
    """Without any error, no connection within the App's time-out counts as one."""
    with Server() as server, FaultProxy(server) as proxy:
        app = rf.App("dogs", base_url=proxy.url, base_file_path=tmp_path, timeout=0.5)
        user = app.log_in(rf.Credentials.anonymous())
        with open_dogs(user, cancel_waits_on_non_fatal_errors=cancels) as realm:
            realm.sync_session.pause()
            proxy.cut()
            proxy.fault(stall_after=0)
            give_work(realm)
            realm.sync_session.resume()
            expected = rf.NetworkError if cancels else rf.WaitTimeoutError
            with pytest.raises(expected, match="within 0.5 s" if cancels else "did not finish"):
                realm.upload_all_local_changes(10.0 if cancels else 1.0)
            proxy.heal()
            realm.upload_all_local_changes(WAIT)
