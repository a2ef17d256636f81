"""Every way to open a synced realm, against a server that works, is slow, stalls, is down, or answers errors."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.realm.core import is_open
from tests.waiting import WAIT, until

#: A task of anyio that is cancelled before it began is not awaited; it happens when the test ends while connecting.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*connect_tcp:pytest.PytestUnraisableExceptionWarning"),
]

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
Login = Callable[..., rf.User]


def configuration(user: rf.User, counted: list[int] | None = None, **options: Any) -> dict[str, Any]:
    """Configure a realm with one initial subscription, counting how often it is asked for."""

    def subscribe(subs: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
        if counted is not None:
            counted.append(1)
        subs.add("Dog", name="dogs")

    behaviour = options.pop("behaviour", None)
    sync: dict[str, Any] = {"flexible": True, "initial_subscriptions": subscribe}
    if behaviour is not None:
        sync |= {"new_realm_file_behavior": behaviour, "existing_realm_file_behavior": behaviour}
    sync |= options.pop("sync", {})
    return {"path": "dogs.realm", "schema": [DOG], "sync": rf.SyncConfiguration(user, **sync), **options}


def behaviour(time_out: float | None, at_end: str = "throw_exception") -> rf.OpenRealmBehaviorConfiguration:
    """Say how long to wait, and what then."""
    return rf.OpenRealmBehaviorConfiguration("download_before_open", time_out, at_end)


def seed(login: Login, *names: str) -> None:
    """Have another client write some dogs."""
    with rf.Realm.open(**configuration(login("seeder"))) as realm:
        with realm.write() as tx:
            tx.upsert("Dog", [{"_id": i, "name": n} for i, n in enumerate(names)])
        realm.upload_all_local_changes(timeout=WAIT)


def test_write_here_see_there(login: Login) -> None:
    """What one client writes, another that subscribes to it sees."""
    seed(login, "Rex", "Ada")
    with rf.Realm.open(**configuration(login("b"))) as realm:
        dogs = realm["Dog"]
        assert sorted(dogs.name) == ["Ada", "Rex"]
        assert realm.subscriptions.state == "complete"
        assert not dogs.realm.is_stale
        with rf.Realm.open(**configuration(login("c"))) as other:
            with other.write() as tx:
                tx.upsert("Dog", {"_id": 9, "name": "Eve"})
            other.upload_all_local_changes(timeout=WAIT)
            assert realm.wait_for_changes(timeout=WAIT)
            assert sorted(dogs.name) == ["Ada", "Eve", "Rex"]


def test_schema_none_adopts_the_servers(login: Login) -> None:
    """Without a schema the realm has the server's classes when it opens."""
    seed(login, "Rex")
    with rf.Realm.open(**configuration(login("b"), schema=None)) as realm:
        assert list(realm.frames) == ["Dog"]
        assert list(realm["Dog"].name) == ["Rex"]


def test_open_immediately_returns_at_once_and_fills(login: Login, server: Any) -> None:
    """open_immediately does not wait for the server, writes the subscriptions, and syncs in the background."""
    seed(login, "Rex")
    user = login("b")
    server.line.fault(stall_after=0)
    kind = rf.OpenRealmBehaviorConfiguration("open_immediately", 0.0, "throw_exception")
    with rf.Realm.open(**configuration(user, behaviour=kind)) as realm:
        assert not realm.sync_session.is_connected
        assert len(realm.subscriptions) == 1
        server.line.heal()
        realm.subscriptions.wait_for_synchronization(timeout=WAIT)
        realm.refresh()
        assert list(realm["Dog"].name) == ["Rex"]


def test_after_the_time_out_the_frame_fills(login: Login, server: Any) -> None:
    """open_local_realm goes on in the background: when the server is back, the data comes."""
    seed(login, "Rex")
    user, counted = login("b"), []
    server.stop()
    with rf.Realm.open(**configuration(user, counted, behaviour=behaviour(0.2, "open_local_realm"))) as realm:
        dogs = realm["Dog"]
        assert len(dogs) == 0
        server.start()
        realm.sync_session.reconnect()
        ends = time.monotonic() + 10
        while len(dogs) == 0 and time.monotonic() < ends:
            realm.wait_for_changes(timeout=1.0)
        assert list(dogs.name) == ["Rex"]
        realm.subscriptions.wait_for_synchronization(timeout=WAIT)
        assert not dogs.realm.is_stale
    assert counted == [1]


def test_everything_in_a_coroutine(server: Any, tmp_path: Path) -> None:
    """Logging in and opening do not block the caller's loop: another task goes on meanwhile."""
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            ticks.append(len(ticks))
            await asyncio.sleep(0.001)

    async def run() -> tuple[bool, int]:
        ticking = asyncio.create_task(tick())
        app = rf.App("app-1", base_url=server.url, base_file_path=tmp_path)
        user = await app.log_in_async(rf.Credentials.anonymous())
        during = len(ticks)
        realm = await rf.Realm.open_async(**configuration(user))
        ticking.cancel()
        realm.close()
        return app.current_user == user, during

    is_current, during = asyncio.run(run())
    assert is_current
    assert 0 < during < len(ticks)


def test_reopen_offline_makes_no_request(login: Login, server: Any) -> None:
    """A cached user and an existing realm open offline with what is there, asking the server for nothing over HTTP."""
    user = login("b")
    with rf.Realm.open(**configuration(user)) as realm, realm.write() as tx:
        tx.create("Dog", {"_id": 1, "name": "Rex"})
    requests = len(server.requests)
    server.stop()
    app = rf.App("app-1", base_url=server.url, base_file_path=user.app.base_file_path)
    again = app.current_user
    assert again is not None
    counted: list[int] = []
    with rf.Realm.open(**configuration(again, counted, behaviour=behaviour(0.2, "open_local_realm"))) as realm:
        assert list(realm["Dog"].name) == ["Rex"]
    assert counted == []
    assert len(server.requests) == requests


def test_new_and_existing_files_each_have_their_behaviour(login: Login, server: Any) -> None:
    """One that is new opens as it says for new ones, the next time as for existing ones, and the other way round."""
    user = login("b")
    server.line.fault(stall_after=0)
    now, late = rf.OpenRealmBehaviorConfiguration("open_immediately"), behaviour(0.0)
    for path, new, existing in (("a.realm", now, late), ("b.realm", late, now)):
        wanted = configuration(user, sync={"new_realm_file_behavior": new, "existing_realm_file_behavior": existing})
        wanted["path"] = path
        for expected in (new, existing):
            opening = rf.Realm.begin_open(**wanted)
            assert opening.behavior == expected
            assert opening.is_new is (expected is new)
            if expected is now:
                opening.result().close()
                continue
            with pytest.raises(rf.OpenTimeoutError):
                opening.result()


def test_rerun_on_open(login: Login) -> None:
    """rerun_on_open runs the callback at every open; adding what is there changes nothing."""
    user, counted = login("b"), []
    for _ in range(2):
        with rf.Realm.open(**configuration(user, counted, sync={"rerun_on_open": True})) as realm:
            version = realm.subscriptions.version
    assert counted == [1, 1]
    assert version == 1


def test_no_garbage_collection_before_a_time_out(login: Login, server: Any) -> None:
    """None begins between shortly before the time-out and the return, whatever garbage others make; it comes after."""
    user = login("b")
    server.line.fault(stall_after=0)
    collections: list[float] = []
    done = threading.Event()

    def litter() -> None:
        while not done.is_set():
            for _ in range(2_000):
                cycle: list[Any] = []
                cycle.append(cycle)
            time.sleep(0.001)

    def note(phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            collections.append(time.monotonic())

    litterer = threading.Thread(target=litter)
    gc.callbacks.append(note)
    litterer.start()
    try:
        time_out = time.monotonic() + 0.3
        opening = rf.Realm.begin_open(**configuration(user, behaviour=behaviour(0.3)))
        begun = time.monotonic()
        with pytest.raises(rf.OpenTimeoutError):
            opening.result()
        returned = time.monotonic()
        assert gc.isenabled()
        ends = returned + 5.0
        while not (collections and collections[-1] > returned) and time.monotonic() < ends:
            time.sleep(0.005)
    finally:
        done.set()
        litterer.join()
        gc.callbacks.remove(note)
    assert not [at for at in collections if begun <= at < time_out]
    assert collections[-1] > returned


def test_what_an_open_that_is_late_says(login: Login, server: Any) -> None:
    """What it was at, what had come, why, and what would help: also where others have had the realm open for long."""
    user = login("b")
    server.line.fault(down=True)
    with pytest.raises(rf.OpenTimeoutError) as caught:
        rf.Realm.open(**configuration(user, behaviour=behaviour(0.3)))
    error = caught.value
    assert (error.phase, type(error.cause)) == ("connect", rf.NetworkError)
    assert error.__cause__ is error.cause
    assert set(error.progress) == {"bytes", "batches", "changesets", "fraction", "objects"}
    for words in ("dogs.realm", "0.3 s", "the connection was being opened", "0 bytes", "cannot be reached"):
        assert words in error.message
    assert "open_local_realm" in (error.hint or "")
    server.line.heal()
    with rf.Realm.open(**configuration(user)) as first:
        assert until(lambda: first.sync_session.transfer.phase == "done")
        server.line.fault(stall_after=0)
        with pytest.raises(rf.OpenTimeoutError) as caught:
            rf.Realm.open(**configuration(user, behaviour=behaviour(0.3)))
        assert caught.value.phase == "download"


def test_query_refused(login: Login, server: Any) -> None:
    """A subscription that the server refuses fails the open with its reason; the set is in state error."""
    server.faults.query_error = "bad query: no such field"
    user = login("b")
    with pytest.raises(rf.QueryError, match="no such field"):
        rf.Realm.open(**configuration(user, behaviour=behaviour(10.0)))


def test_fatal_error_ends_the_open_at_once(login: Login, server: Any) -> None:
    """An error that ends the session fails the open before its time-out, and reaches on_error."""
    server.faults.bind_error = {"code": 206, "action": "ApplicationBug", "message": "not yours"}
    heard: list[Exception] = []
    wanted = configuration(
        login("b"), behaviour=behaviour(10.0), sync={"on_error": lambda _session, error: heard.append(error)}
    )
    begun = time.monotonic()
    with pytest.raises(rf.SyncError, match="not yours") as caught:
        rf.Realm.open(**wanted)
    assert time.monotonic() - begun < 5.0
    assert (caught.value.code, caught.value.is_fatal) == (206, True)
    ends = time.monotonic() + 5
    while not heard and time.monotonic() < ends:
        time.sleep(0.01)
    assert heard == [caught.value]


def test_revoked_user(login: Login, server: Any) -> None:
    """A user whose token can no longer be refreshed is logged out, with an error that says so; data stays."""
    user = login("b")
    with rf.Realm.open(**configuration(user)) as realm, realm.write() as tx:
        tx.create("Dog", {"_id": 1, "name": "Rex"})
    user.app.metadata.change(user.id, access_token=server.token("old", -60.0))
    server.faults.session_status = 401
    with pytest.raises(rf.AuthError, match="Log in again"):
        rf.Realm.open(**configuration(user, behaviour=behaviour(10.0)))
    assert not user.is_logged_in
    assert rf.Realm.exists(**configuration(user))


def test_refused_token_is_refreshed_and_tried_again(login: Login, server: Any) -> None:
    """A websocket closed with 4001 gets a new token and connects at once."""
    user = login("b")
    server.faults.close_code = 4001

    def heal() -> None:
        ends = time.monotonic() + 5
        while "POST session" not in server.requests and time.monotonic() < ends:
            time.sleep(0.005)
        server.faults.close_code = None

    healer = threading.Thread(target=heal)
    healer.start()
    with rf.Realm.open(**configuration(user, behaviour=behaviour(10.0))) as realm:
        assert realm.sync_session.connection_state == "connected"
    healer.join()
    assert server.requests.count("POST session") >= 1


def test_cancel(login: Login, server: Any) -> None:
    """A cancelled open raises CancelledError in whoever waits, and leaves the path free."""
    user = login("b")
    server.line.fault(stall_after=0)
    opening = rf.Realm.begin_open(**configuration(user, behaviour=behaviour(None)))
    threading.Timer(0.1, opening.cancel).start()
    with pytest.raises(rf.CancelledError):
        opening.result()
    server.line.heal()
    rf.Realm.open(**configuration(user)).close()


def left_behind(user: rf.User) -> bool:
    """Tell whether a realm of the user is still open after a while."""
    return not until(lambda: not is_open(user.app.base_file_path / "dogs.realm"))


def test_cancel_before_anybody_waits(login: Login, server: Any) -> None:
    """cancel() ends an opening at once and leaves no session, whether or not anybody asks for the result."""
    user = login("b")
    server.line.fault(stall_after=0)
    opening = rf.Realm.begin_open(**configuration(user, behaviour=behaviour(None)))
    begun = time.monotonic()
    opening.cancel()
    assert time.monotonic() - begun < 2.0
    assert opening.done()
    assert not left_behind(user)
    with pytest.raises(rf.CancelledError):
        opening.result()


def test_who_waits_is_woken(login: Login, server: Any) -> None:
    """Whoever waits for an opening hears at once that it is over: by open_now, or by its time-out."""
    user = login("b")
    server.line.fault(stall_after=0)
    opening = rf.Realm.begin_open(**configuration(user, behaviour=behaviour(None)))
    waiting = threading.Thread(target=opening.done, args=(None,))
    waiting.start()
    opening.open_now()
    waiting.join(WAIT)
    assert not waiting.is_alive()
    opening.result().close()
    opening = rf.Realm.begin_open(**configuration(user, behaviour=behaviour(0.2, "open_local_realm")))
    begun = time.monotonic()
    assert opening.done(WAIT)
    assert time.monotonic() - begun < WAIT / 2
    opening.result().close()


def test_collections_go_on_when_a_realm_is_open(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not held back until the time-out would have been."""
    monkeypatch.setattr("realmframe.client.pause.NEAR_SECONDS", 100.0)
    opening = rf.Realm.begin_open(**configuration(login("b"), behaviour=behaviour(90.0)))
    assert not gc.isenabled()
    with opening.result():
        assert gc.isenabled()


@pytest.mark.parametrize("how", ["cancel", "open_now", "time-out"])
def test_an_opening_that_is_over_waits_for_nothing(login: Login, server: Any, how: str) -> None:
    """However it ends, no wait of it is left in the sync thread."""
    user = login("b")
    server.line.fault(stall_after=0)
    limit = behaviour(0.2, "open_local_realm") if how == "time-out" else behaviour(None)
    opening = rf.Realm.begin_open(**configuration(user, behaviour=limit))
    core = opening._core
    assert core is not None
    assert core.session is not None
    waits = core.session.waits
    assert until(lambda: waits.oldest is not None)
    if how == "time-out":
        opening.result()
    else:
        getattr(opening, how)()
    if how == "open_now":
        opening.result()
    assert until(lambda: waits.oldest is None)
    opening.abandon()


def test_a_cancelled_opening_was_cancelled(login: Login, server: Any) -> None:
    """Also where it would have failed by itself at the same moment."""
    server.faults.bind_error = {"code": 206, "action": "ApplicationBug", "message": "not yours"}
    opening = rf.Realm.begin_open(**configuration(login("b"), behaviour=behaviour(None)))
    assert until(opening.done)
    opening.cancel()
    with pytest.raises(rf.CancelledError):
        opening.result()


def test_cancel_comes_too_late(login: Login) -> None:
    """An opening that is over is not undone by cancel()."""
    opening = rf.Realm.begin_open(**configuration(login("b")))
    with opening.result() as realm:
        opening.cancel()
        assert realm.sync_session.state == "active"


INTERRUPTED = """
import signal, sys, threading, time
import realmframe as rf
from realmframe.realm.core import is_open
app = rf.App("app-1", base_url=sys.argv[1], base_file_path=sys.argv[2])
sync = rf.SyncConfiguration(
    app.log_in(rf.Credentials.anonymous()), flexible=True,
    initial_subscriptions=lambda subs, realm: subs.add("Dog"),
    new_realm_file_behavior={"type": "download_before_open"})
schema = [rf.ObjectSchema("Dog", {"_id": "int"}, "_id")]
timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
timer.start()
try:
    rf.Realm.open(path="dogs.realm", schema=schema, sync=sync)
except KeyboardInterrupt:
    ended = time.monotonic()
timer.join()
while is_open(app.base_file_path / "dogs.realm") and time.monotonic() < ended + 5:
    time.sleep(0.005)
print("interrupted", is_open(app.base_file_path / "dogs.realm"))
"""


@pytest.mark.process
def test_ctrl_c(tmp_path: Path, server: Any) -> None:
    """Ctrl-C ends a blocking open at once with KeyboardInterrupt, and leaves no session behind."""
    server.line.fault(cut_every=1)  # of the websocket: logging in works, and nothing is ever bound
    command = [sys.executable, "-c", INTERRUPTED, server.url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "interrupted False", done.stderr


def test_interrupt_at_the_last_moment(login: Login, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C just when the realm has opened closes it again: nobody will ever hold it."""
    user = login("b")
    refresh = rf.Realm.refresh

    def interrupted(realm: rf.Realm) -> bool:
        refresh(realm)
        raise KeyboardInterrupt

    monkeypatch.setattr(rf.Realm, "refresh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rf.Realm.open(**configuration(user))
    assert not left_behind(user)


def test_open_now(login: Login, server: Any) -> None:
    """open_now ends the wait with what is there, and sync goes on."""
    user = login("b")
    server.line.fault(stall_after=0)
    opening = rf.Realm.begin_open(**configuration(user, behaviour=behaviour(None)))
    assert not opening.done(timeout=0.05)
    opening.open_now()
    with opening.result() as realm:
        assert opening.timed_out
        assert realm.sync_session.state == "active"


def test_open_async(login: Login) -> None:
    """open_async opens without blocking the caller's loop, and as soon as it can."""
    seed(login, "Rex")
    user = login("b")
    ticks = 0

    async def main() -> list[str]:
        nonlocal ticks

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticker = asyncio.create_task(tick())
        realm = await rf.Realm.open_async(**configuration(user, behaviour=behaviour(None)))
        ticker.cancel()
        names = list(realm["Dog"].name)
        await asyncio.to_thread(realm.close)
        return names

    assert asyncio.run(main()) == ["Rex"]
    assert ticks > 1


def test_many_open_async_time_out_together(login: Login, server: Any) -> None:
    """More opens than a pool has threads each keep their own time-out, and none blocks the loop."""
    users = [login(f"u{i}") for i in range(20)]
    server.line.fault(stall_after=0)

    async def one(user: rf.User) -> float:
        begun = time.monotonic()
        with pytest.raises(rf.OpenTimeoutError):
            await rf.Realm.open_async(**configuration(user, behaviour=behaviour(1.0)))
        return time.monotonic() - begun

    async def main() -> list[float]:
        return await asyncio.gather(*map(one, users))

    took = asyncio.run(main())
    assert min(took) >= 1.0
    assert max(took) < 3.0  # one after another, a few at a time, they would take longer


@pytest.mark.parametrize("after", [0.0, 0.001, 0.01, 0.1])
def test_cancelled_open_async(login: Login, server: Any, after: float) -> None:
    """A task that is cancelled at any moment of open_async leaves no session behind."""
    user = login("b")
    server.line.fault(stall_after=0)

    async def main() -> None:
        task = asyncio.create_task(rf.Realm.open_async(**configuration(user, behaviour=behaviour(None))))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    time.sleep(0.05)
    assert not left_behind(user)


@pytest.mark.parametrize("at_end", ["open_local_realm", "throw_exception"])
def test_open_while_the_last_session_is_ending(login: Login, server: Any, at_end: str) -> None:
    """An open does not wait for a session that is still integrating something; when that has ended, it syncs."""
    seed(login, "Rex")
    user = login("b")
    release = threading.Event()
    with rf.Realm.open(**configuration(user)) as first:
        session = first.sync_session
        integrate = session.store.integrate

        def slow(*arguments: Any, **keywords: Any) -> Any:
            release.wait(10.0)
            return integrate(*arguments, **keywords)

        session.store.integrate = slow  # type: ignore[method-assign]
        seed(login, "Rex", "Ada")
        ends = time.monotonic() + 10.0
        while first.core.write_lock.acquire(blocking=False) and time.monotonic() < ends:
            first.core.write_lock.release()
            time.sleep(0.005)
        first.abandon()
        begun = time.monotonic()
        wanted = configuration(user, behaviour=behaviour(0.2, at_end))
        realm = None
        if at_end == "throw_exception":
            with pytest.raises(rf.OpenTimeoutError):
                rf.Realm.open(**wanted)
        else:
            realm = rf.Realm.open(**wanted)
            assert list(realm["Dog"].name) == ["Rex"]
        assert 0.2 <= time.monotonic() - begun < 5.0  # what it would have waited for takes twice as long
        session.store.integrate = integrate  # type: ignore[method-assign]
        release.set()
        with realm or rf.Realm.open(**configuration(user, behaviour=behaviour(10.0))) as again:
            again.download_all_server_changes(timeout=WAIT)
            assert sorted(again["Dog"].name) == ["Ada", "Rex"]
            assert again.sync_session.is_current


def test_wrong_user(login: Login) -> None:
    """A realm says whose it is when somebody else opens it."""
    user = login("b")
    rf.Realm.open(**configuration(user)).close()
    other = user.app.log_in(rf.Credentials.anonymous(reuse=False))
    with pytest.raises(rf.WrongUserError, match=user.id) as caught:
        rf.Realm.open(**configuration(other))
    assert other.id in str(caught.value)


def test_schema_mismatch_with_the_server(login: Login) -> None:
    """A type that differs from the server's is named with class, property and both types."""
    seed(login, "Rex")
    wrong = rf.ObjectSchema("Dog", {"_id": "int", "name": "int?"}, "_id")
    with pytest.raises(rf.SchemaMismatchError, match=r"Dog\.name.*int\?.*string\?"):
        rf.Realm.open(**configuration(login("b"), schema=[wrong], behaviour=behaviour(10.0)))


def test_progress_is_reported(login: Login) -> None:
    """Progress is monotone within a phase and ends with done."""
    seed(login, *(f"dog {i}" for i in range(100)))
    seen: list[Any] = []
    with rf.Realm.open(**configuration(login("b")), on_progress=seen.append):
        ends = time.monotonic() + 5
        while (not seen or seen[-1].phase != "done") and time.monotonic() < ends:
            time.sleep(0.01)
    assert seen[-1].phase == "done"
    assert [p.bytes for p in seen] == sorted(p.bytes for p in seen)
    assert seen[-1].bytes > 100


def test_progress_of_an_opening_ends_with_it(login: Login) -> None:
    """What comes later is not told to whoever asked how the opening goes."""
    seen: list[Any] = []
    with rf.Realm.open(**configuration(login("b")), on_progress=seen.append) as realm:
        assert until(lambda: seen and seen[-1].phase == "done")
        count, later = len(seen), list[Any]()
        realm.sync_session.progress(later.append)
        seed(login, "Rex")
        assert until(lambda: later and later[-1].objects)  # told in the same thread, one after another
        assert len(seen) == count
