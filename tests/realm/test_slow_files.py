"""The time-out of an open counts for its files too: locks that others hold, journals that are long."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.realm import opening
from realmframe.realm.core import RealmCore, is_open
from realmframe.store import RealmStore
from realmframe.testing import Server
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
TIME_OUT, FLOOR = 0.4, 0.2
LEAST = dict(opening.FILE_SECONDS)
LEEWAY = 2.5


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one server."""
    with Server() as running:
        yield running


@pytest.fixture
def user(server: Server, tmp_path: Path) -> rf.User:
    """Log in."""
    return rf.App("slow-files", base_url=server.url, base_file_path=tmp_path).log_in(rf.Credentials.anonymous())


@pytest.fixture(autouse=True)
def short_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not give files the seconds that they have at least."""
    monkeypatch.setattr(opening, "FILE_SECONDS", dict.fromkeys(opening.FILE_SECONDS, FLOOR))


def configuration(user: rf.User, at_end: str | None, time_out: float | None = TIME_OUT, **more: Any) -> dict[str, Any]:
    """Say how to open; without ``at_end`` at once."""
    behaviour = rf.OpenRealmBehaviorConfiguration("open_immediately", 0.0, "throw_exception")  # both are ignored
    if at_end is not None:
        behaviour = rf.OpenRealmBehaviorConfiguration("download_before_open", time_out, at_end)
    settings = {"initial_subscriptions": lambda subs, _realm: subs.add("Dog"), **more}
    sync = rf.SyncConfiguration(
        user, flexible=True, new_realm_file_behavior=behaviour, existing_realm_file_behavior=behaviour, **settings
    )
    return {"path": "dogs.realm", "schema": [DOG], "sync": sync}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of a realm's folder as another process does; gives what lets it go."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "write.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def late(begun: float, error: rf.OpenTimeoutError) -> None:
    """Check an open that failed for its files."""
    assert TIME_OUT <= time.monotonic() - begun < TIME_OUT + LEEWAY
    assert error.phase == "files"
    assert "0.4 s" in error.message
    assert "another process" in error.message


@pytest.mark.parametrize("at_end", ["throw_exception", "open_local_realm"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "existing"])
def test_locked_folder(user: rf.User, tmp_path: Path, at_end: str, is_new: bool) -> None:
    """An open fails at its time-out, in the phase files; other realms open meanwhile; afterwards everything is well."""
    path = tmp_path / "dogs.realm"
    if not is_new:
        with rf.Realm.open(**configuration(user, "throw_exception", WAIT)) as realm, realm.write() as tx:
            tx.upsert("Dog", [{"_id": 1, "name": "Rex"}])
    with locked(path) as let_go:
        begun = time.monotonic()
        with pytest.raises(rf.OpenTimeoutError) as caught:
            rf.Realm.open(**configuration(user, at_end))
        late(begun, caught.value)
        begun = time.monotonic()
        with pytest.raises(rf.OpenTimeoutError) as caught:
            asyncio.run(rf.Realm.open_async(**configuration(user, at_end)))
        late(begun, caught.value)
        rf.Realm.open(path=tmp_path / "other.realm", schema=[DOG]).close()  # the lock is still held
        let_go()
        with rf.Realm.open(**configuration(user, at_end, WAIT)) as realm:
            assert realm["Dog"].name.tolist() == ([] if is_new else ["Rex"])
            assert (realm.subscriptions.version, realm.subscriptions.state) == (1, "complete")
    assert until(lambda: not is_open(path))


def test_a_time_out_that_files_cannot_keep(user: rf.User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short it is, files have the time that they need at least; only what follows them is late."""
    monkeypatch.setattr(opening, "FILE_SECONDS", dict.fromkeys(opening.FILE_SECONDS, WAIT))
    for at_end in ("throw_exception", "open_local_realm"):
        with locked(tmp_path / "dogs.realm") as let_go:
            timer = threading.Timer(0.2, let_go)
            timer.start()
            begun = rf.Realm.begin_open(**configuration(user, at_end, 0.0))
            timer.join()
        if at_end == "open_local_realm":
            begun.result().close()
            continue
        with pytest.raises(rf.OpenTimeoutError) as caught:
            begun.result()
        assert caught.value.phase != "files"


def test_what_began_with_locked_files(user: rf.User, tmp_path: Path) -> None:
    """An opening whose files came too late can be asked like any other; its error comes with the result."""
    with locked(tmp_path / "dogs.realm"):
        begun = rf.Realm.begin_open(**configuration(user, "open_local_realm"))
        assert begun.done()
        assert begun.progress.phase == "files"
        for _ in range(2):
            with pytest.raises(rf.OpenTimeoutError, match="another process"):
                begun.result()


def test_lock_that_is_let_go_in_time(user: rf.User, tmp_path: Path) -> None:
    """Files that can be had before the time-out delay an open, and nothing else; open_immediately waits for them."""
    for at_end in ("throw_exception", None):
        with locked(tmp_path / "dogs.realm") as let_go:
            timer = threading.Timer(0.3, let_go)
            timer.start()
            begun = time.monotonic()
            with rf.Realm.open(**configuration(user, at_end, WAIT)) as realm:
                assert time.monotonic() - begun > 0.25
                realm.subscriptions.wait_for_synchronization(WAIT)
            timer.join()


@pytest.mark.parametrize("at_end", ["throw_exception", "open_local_realm"])
def test_long_journal(user: rf.User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_end: str) -> None:
    """Reading goes on in the background, and whoever opens next has the good of it."""
    with rf.Realm.open(**configuration(user, "throw_exception", WAIT)) as realm, realm.write() as tx:
        tx.upsert("Dog", [{"_id": 1, "name": "Rex"}])
    real, opened = RealmStore._replay, threading.Event()

    def slow(self: RealmStore) -> int:
        time.sleep(TIME_OUT + 0.3)
        opened.set()
        return real(self)

    monkeypatch.setattr(RealmStore, "_replay", slow)
    begun = time.monotonic()
    with pytest.raises(rf.OpenTimeoutError) as caught:
        rf.Realm.open(**configuration(user, at_end))
    late(begun, caught.value)
    assert is_open(tmp_path / "dogs.realm")
    assert opened.wait(WAIT)
    monkeypatch.setattr(RealmStore, "_replay", real)
    with rf.Realm.open(**configuration(user, at_end, WAIT)) as realm:
        assert realm["Dog"].name.tolist() == ["Rex"]
    assert until(lambda: not is_open(tmp_path / "dogs.realm"))


@pytest.mark.parametrize("was_there", [True, False])
def test_files_that_turn_out_otherwise(
    user: rf.User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_there: bool
) -> None:
    """Another process makes or deletes the realm meanwhile: what is found counts, and its time runs from the call."""
    new, existing = ({"time_out": t, "time_out_behavior": "throw_exception"} for t in (30.0, 40.0))
    keywords = configuration(user, None)
    sync = rf.SyncConfiguration(user, flexible=True, new_realm_file_behavior=new, existing_realm_file_behavior=existing)
    if was_there:
        rf.Realm.open(**keywords).close()
    real, acquire = RealmStore.exists, RealmCore.acquire
    monkeypatch.setattr(opening.RealmStore, "exists", staticmethod(lambda path: not real(path)))

    def slow(configuration: rf.Configuration) -> Any:
        monkeypatch.setattr(opening.RealmStore, "exists", staticmethod(real))
        time.sleep(0.3)
        return acquire(configuration)

    monkeypatch.setattr(RealmCore, "acquire", slow)
    begun = rf.Realm.begin_open(**keywords | {"sync": sync})
    left = begun.time_left
    begun.cancel()
    assert begun.is_new is not was_there
    assert left is not None
    assert left <= (40.0 if was_there else 30.0) - 0.3
    assert left > 30.0 or not was_there


def test_the_behaviour_of_the_files_counts_from_the_beginning(user: rf.User, tmp_path: Path) -> None:
    """A realm that exists and is locked is late by its own behaviour, whatever is said of new ones."""
    keywords = configuration(user, "throw_exception", WAIT)
    rf.Realm.open(**keywords).close()
    now = rf.OpenRealmBehaviorConfiguration("open_immediately")
    late_one = rf.OpenRealmBehaviorConfiguration("download_before_open", TIME_OUT, "throw_exception")
    sync = rf.SyncConfiguration(user, flexible=True, new_realm_file_behavior=now, existing_realm_file_behavior=late_one)
    with locked(tmp_path / "dogs.realm") as let_go:
        timer = threading.Timer(5.0, let_go)
        timer.start()
        with pytest.raises(rf.OpenTimeoutError) as caught:
            rf.Realm.open(**keywords | {"sync": sync})
        timer.cancel()
    assert caught.value.phase == "files"


def test_seconds_that_files_have_at_least() -> None:
    """Without them nothing can be opened; where the app would rather have the local realm they get longer."""
    assert LEAST == {"throw_exception": 1.0, "open_local_realm": 5.0}


def test_locked_when_the_initial_subscriptions_are_written(user: rf.User, tmp_path: Path) -> None:
    """They are part of the files' work: late, and written exactly once all the same."""
    asked: list[int] = []
    with contextlib.ExitStack() as stack:

        def subscribe(subs: Any, _realm: rf.Realm) -> None:
            asked.append(1)
            subs.add("Dog")
            if len(asked) == 1:
                stack.enter_context(locked(tmp_path / "dogs.realm"))

        begun = time.monotonic()
        with pytest.raises(rf.OpenTimeoutError) as caught:
            rf.Realm.open(**configuration(user, "throw_exception", initial_subscriptions=subscribe))
        late(begun, caught.value)
    with rf.Realm.open(**configuration(user, "throw_exception", WAIT, initial_subscriptions=subscribe)) as realm:
        assert (realm.subscriptions.version, len(realm.subscriptions)) == (1, 1)
    assert len(asked) <= 2


def test_faults_of_files_come_before_the_time_out(user: rf.User, tmp_path: Path) -> None:
    """What is wrong with the files is told as ever, not as a time-out."""
    rf.Realm.open(**configuration(user, "throw_exception", WAIT)).close()
    other = user.app.log_in(rf.Credentials.anonymous(reuse=False))
    with pytest.raises(rf.WrongUserError):
        rf.Realm.open(**configuration(other, "throw_exception", WAIT))
    wrong = rf.ObjectSchema("Dog", {"_id": "int", "name": "int?"}, "_id")
    with pytest.raises(rf.SchemaMismatchError):
        rf.Realm.open(**configuration(user, "throw_exception", WAIT) | {"schema": [wrong]})
    assert until(lambda: not is_open(tmp_path / "dogs.realm"))
