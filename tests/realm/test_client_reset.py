"""Client reset, end to end: the real server no longer knows a client's history, in every mode of reset and of sync."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.client.reset import DISCARD, MANUAL, RECOVER, RECOVER_OR_DISCARD, mode_of
from realmframe.errors import ChangesetError
from realmframe.server.admin import order
from realmframe.testing import Server
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?", "age": "int", "tags": "string[]"}, "_id")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server; each test has an app of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(params=["flexible", "partition"])
def open_dogs(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., rf.Realm]]:
    """Open a realm with all dogs, in a folder of its own for each name."""
    made: list[rf.Realm] = []
    app_id = f"app{abs(hash(request.node.name)) % 10**8}"
    mode: dict[str, Any] = {"partition_value": "dogs"}
    if request.param == "flexible":
        mode = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog")}

    def make(name: str, **sync: Any) -> rf.Realm:
        app = rf.App(app_id, base_url=server.url, base_file_path=tmp_path / name)
        user = app.current_user or app.log_in(rf.Credentials.anonymous())
        made.append(rf.Realm.open(path="dogs.realm", schema=[DOG], sync=rf.SyncConfiguration(user, **mode | sync)))
        return made[-1]

    make.app_id, make.mode = app_id, request.param  # type: ignore[attr-defined]
    yield make
    for realm in made:
        realm.close()


#: For what does not depend on the mode of sync.
flexible_only = pytest.mark.parametrize("open_dogs", ["flexible"], indirect=True)


def write(realm: rf.Realm, *dogs: dict[str, Any]) -> None:
    """Write dogs and have them uploaded, unless the session is paused."""
    with realm.write() as tx:
        tx.upsert("Dog", list(dogs))


def dog(key: int, name: str = "Rex", age: int = 1) -> dict[str, Any]:
    """Make a dog."""
    return {"_id": key, "name": name, "age": age, "tags": []}


def names(realm: rf.Realm) -> dict[int, str]:
    """Give the names by key."""
    realm.refresh()
    return dict(zip(realm["Dog"]["_id"].tolist(), realm["Dog"]["name"].tolist(), strict=True))


def reset(server: Server, opener: Any, realm: rf.Realm, *, recovery: bool = True) -> None:
    """Have a realm's file begin anew."""
    file = realm.core.store.file
    assert file is not None
    done = order(
        Path(str(server.data)), opener.app_id, "reset-client", user=None, file_ident=file.ident, recovery=recovery
    )
    assert done == {"files": 1}


def diverge(server: Server, opener: Any, mine: rf.Realm, other: rf.Realm, *, recovery: bool = True) -> None:
    """Let both sides write while one is away, and reset that one."""
    write(mine, dog(1), dog(2), dog(3))
    mine.upload_all_local_changes(timeout=WAIT)
    other.download_all_server_changes(timeout=WAIT)
    mine.sync_session.pause()
    write(mine, dog(1, "mine"), dog(2, "mine"), dog(50, "offline"))
    write(other, dog(3, "theirs"), dog(60, "theirs"))
    with other.write() as tx:
        tx.delete("Dog", "_id == 2")
    other.upload_all_local_changes(timeout=WAIT)
    reset(server, opener, mine, recovery=recovery)


def test_recover(server: Server, open_dogs: Any) -> None:
    """Unsent changes survive on what the server has; what was deleted there stays deleted and is told; frames go on."""
    seen: list[Any] = []

    def after(before: Any, realm: rf.Realm) -> None:
        seen.append((len(before["Dog"]), len(realm["Dog"])))

    callbacks = {"on_before": lambda before: seen.append(len(before["Dog"])), "on_after": after}
    mine = open_dogs("a", client_reset={"mode": RECOVER, **callbacks})
    other = open_dogs("b")
    diverge(server, open_dogs, mine, other)
    frame, old = mine["Dog"], mine.core.store.file
    mine.sync_session.resume()
    mine.upload_all_local_changes(timeout=WAIT)
    mine.download_all_server_changes(timeout=WAIT)
    other.download_all_server_changes(timeout=WAIT)
    wanted = {1: "mine", 3: "theirs", 50: "offline", 60: "theirs"}
    assert names(mine) == names(other) == wanted
    assert len(frame) == 4
    assert mine.core.store.file != old
    assert until(lambda: len(seen) == 2)
    assert seen == [4, (4, 4)]
    lost = mine.quarantine().to_dict("records")
    assert [(r["class"], r["primary_key"], r["kind"]) for r in lost] == [("Dog", 2, "client reset")]
    assert json.loads(lost[0]["values"])["name"] == "mine"
    assert mine.sync_session.last_reset.recovered
    assert until(lambda: mine.core.store.extra["pending_reset"] is None)
    # Nothing of the fresh copy is left, and the realm opens again as any other.
    assert not (mine.path / "fresh").exists()
    mine.close()
    again = open_dogs("a")
    write(again, dog(70))
    again.upload_all_local_changes(timeout=WAIT)
    assert len(again.quarantine()) == 1


@pytest.mark.parametrize("mode", [RECOVER, MANUAL])
def test_download_that_cannot_be_applied(open_dogs: Any, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The server is told, and what it then asks for is done: a realm that went astray is repaired, as in the SDKs."""
    errors: list[Any] = []
    told: list[Any] = []
    options = (
        {"mode": mode, "on_manual": lambda _session, error: told.append(error)} if mode == MANUAL else {"mode": mode}
    )
    mine = open_dogs("a", client_reset=options, on_error=lambda _session, error: errors.append(error))
    other = open_dogs("b")
    write(mine, dog(1))
    mine.upload_all_local_changes(timeout=WAIT)
    store = mine.core.store
    integrate = store.integrate

    def astray(*_arguments: Any, **_keywords: Any) -> Any:
        raise ChangesetError("There is no such object.")

    monkeypatch.setattr(store, "integrate", astray)
    write(other, dog(2, "theirs"))
    other.upload_all_local_changes(timeout=WAIT)
    assert until(lambda: errors)
    assert isinstance(errors[0], rf.SyncError)
    assert not errors[0].is_fatal
    assert "no such object" in errors[0].message
    if mode == MANUAL:
        assert until(lambda: len(errors) == 2)
        assert isinstance(errors[1], rf.ClientResetError)
        assert (errors[1].code, errors[1].action) == (212, "ClientReset")
        assert mine.sync_session.state == "inactive"
        return
    assert until(lambda: mine.sync_session.last_reset is not None)
    monkeypatch.setattr(store, "integrate", integrate)
    write(mine, dog(3))
    mine.upload_all_local_changes(timeout=WAIT)
    other.download_all_server_changes(timeout=WAIT)
    mine.download_all_server_changes(timeout=WAIT)
    assert names(mine) == names(other) == {1: "Rex", 2: "theirs", 3: "Rex"}
    assert mine.sync_session.fatal_error is None


@pytest.mark.parametrize(("mode", "recovery"), [(DISCARD, True), (DISCARD, False), (RECOVER_OR_DISCARD, False)])
def test_discard(server: Server, open_dogs: Any, mode: str, recovery: bool) -> None:
    """Unsent changes are dropped, named in the quarantine and kept in a copy of the realm."""
    mine, other = open_dogs("a", client_reset=mode), open_dogs("b")
    diverge(server, open_dogs, mine, other, recovery=recovery)
    mine.sync_session.resume()
    mine.download_all_server_changes(timeout=WAIT)
    assert names(mine) == {1: "Rex", 3: "theirs", 60: "theirs"}
    outcome = mine.sync_session.last_reset
    assert (outcome.recovered, outcome.lost) == (False, 3)
    lost = mine.quarantine()
    assert sorted(lost["primary_key"]) == [1, 2, 50]
    with rf.Realm.open(path=outcome.copy, schema=[DOG], read_only=True) as copy:
        assert names(copy)[50] == "offline"
    place = Path(outcome.copy)
    assert place.parent == mine.sync_session.app.metadata.folder / "recovered-realms"
    assert re.fullmatch(r"recovered_realm-\d{8}-\d{6}-[0-9A-F]{6}", place.name)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (place, place.parent)} == {0o700}


@flexible_only
def test_recover_where_it_is_not_allowed(server: Server, open_dogs: Any) -> None:
    """Mode recover without permission to recover fails: the files are moved aside when the realm is closed."""
    told: list[Any] = []
    callbacks = {"on_fallback": lambda _session, path: told.append(path)}
    errors: list[Any] = []
    mine = open_dogs("a", client_reset={"mode": RECOVER, **callbacks}, on_error=lambda _s, e: errors.append(e))
    diverge(server, open_dogs, mine, open_dogs("b"), recovery=False)
    mine.sync_session.resume()
    with pytest.raises(rf.ClientResetError, match="does not permit"):
        mine.download_all_server_changes(timeout=WAIT)
    assert mine.sync_session.state == "inactive"
    assert names(mine)[50] == "offline"
    assert until(lambda: told and errors)
    assert errors[0].recovery_path == told[0]
    mine.close()
    with rf.Realm.open(path=told[0], schema=[DOG], read_only=True) as copy:
        assert names(copy)[50] == "offline"
    assert names(open_dogs("a")) == {1: "Rex", 3: "theirs", 60: "theirs"}


@flexible_only
def test_manual(server: Server, open_dogs: Any) -> None:
    """Mode manual tells the app and moves the files aside when the realm is closed."""
    told: list[Any] = []
    manual = {"mode": "manual", "on_manual": lambda _session, path: told.append(path)}
    mine = open_dogs("a", client_reset=manual)
    write(mine, dog(1))
    mine.upload_all_local_changes(timeout=WAIT)
    reset(server, open_dogs, mine)
    assert until(lambda: told)
    with pytest.raises(rf.ClientResetError):
        mine.upload_all_local_changes(timeout=WAIT)
    mine.close()
    assert (Path(told[0]) / "manifest.json").exists() or list(Path(told[0]).glob("journal*"))
    assert names(open_dogs("a")) == {1: "Rex"}


def test_trimmed_history(server: Server, open_dogs: Any) -> None:
    """A client that was away while the server trimmed its log recovers like any other, pending subscriptions too."""
    mine, other = open_dogs("a"), open_dogs("b")
    write(mine, dog(1))
    mine.upload_all_local_changes(timeout=WAIT)
    mine.sync_session.pause()
    write(mine, dog(2, "offline"))
    if open_dogs.mode == "flexible":
        with mine.subscriptions.update(wait=False) as subs:
            subs.add("Dog", "age > 3", name="old")
    for key in range(10, 13):
        write(other, dog(key))
        other.upload_all_local_changes(timeout=WAIT)
    other.download_all_server_changes(timeout=WAIT)
    assert order(Path(str(server.data)), open_dogs.app_id, "trim", keep=0, older_than=None)["entries"] > 0
    mine.sync_session.resume()
    if open_dogs.mode == "flexible":
        mine.subscriptions.wait_for_synchronization(timeout=WAIT)
        assert mine.subscriptions.find_by_name("old") is not None
    mine.upload_all_local_changes(timeout=WAIT)
    mine.download_all_server_changes(timeout=WAIT)
    assert names(mine) == {1: "Rex", 2: "offline", 10: "Rex", 11: "Rex", 12: "Rex"}
    assert mine.sync_session.last_reset is not None


PREVIOUS = [None, RECOVER, DISCARD]


@pytest.mark.parametrize("previous", PREVIOUS)
@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD, DISCARD])
@pytest.mark.parametrize("action", ["ClientReset", "ClientResetNoRecovery"])
def test_no_loop_of_resets(previous: str | None, mode: str, action: str) -> None:
    """A reset right after one that did not succeed falls back to discarding once, then fails."""
    before = None if previous is None else {"mode": previous, "action": action}
    fails = previous == DISCARD or (mode == RECOVER and (previous == RECOVER or action != "ClientReset"))
    if fails:
        with pytest.raises(rf.ClientResetError):
            mode_of(mode, action, before)
        return
    discards = mode == DISCARD or previous is not None or action != "ClientReset"
    assert mode_of(mode, action, before) == (DISCARD if discards else mode)


@pytest.mark.parametrize("previous", [RECOVER, DISCARD])
@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD, DISCARD])
def test_a_reset_of_another_kind_is_no_loop(previous: str, mode: str) -> None:
    """What the server asks for now, and did not ask for before, is done as configured."""
    assert mode_of(mode, "ClientReset", {"mode": previous, "action": "MigrateToFLX"}) == mode


KILLED = """
import os, signal, sys
import realmframe as rf
from realmframe.client.reset import ClientReset
from realmframe.client.sync import SyncSession
from realmframe.store import RealmStore

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def wrap(cls, name, before):
    real = getattr(cls, name)
    def call(*a, **k):
        if before:
            die()
        found = real(*a, **k)
        die()
        return found
    setattr(cls, name, call)

step, url, base, app_id = sys.argv[1:]
wrap(*{"download": (ClientReset, "_download", True), "before the commit": (RealmStore, "reset", True),
       "after the commit": (RealmStore, "reset", False), "binding": (SyncSession, "rebind", True)}[step])
app = rf.App(app_id, base_url=url, base_file_path=base)
sync = rf.SyncConfiguration(app.current_user, flexible=True)
realm = rf.Realm.open(path="dogs.realm", sync=sync)
realm.download_all_server_changes(timeout=60.0)
"""


@flexible_only
@pytest.mark.parametrize("step", ["download", "before the commit", "after the commit", "binding"])
def test_killed_at_a_step(server: Server, open_dogs: Any, tmp_path: Path, step: str) -> None:
    """A process killed at any step of a reset leaves a realm that opens and ends up whole."""
    mine, other = open_dogs("a"), open_dogs("b")
    diverge(server, open_dogs, mine, other)
    mine.close()
    arguments = [sys.executable, "-c", KILLED, step, server.url, str(tmp_path / "a"), open_dogs.app_id]
    done = subprocess.run(arguments, timeout=60, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    again = open_dogs("a")
    again.upload_all_local_changes(timeout=WAIT)
    again.download_all_server_changes(timeout=WAIT)
    other.download_all_server_changes(timeout=WAIT)
    assert names(again) == names(other) == {1: "mine", 3: "theirs", 50: "offline", 60: "theirs"}
    assert len(again.quarantine()) == 1
    assert not (again.path / "fresh").exists()


class Always(dict[int, bool]):
    """Has every client file begin anew, whatever its number."""

    def __contains__(self, _ident: object) -> bool:
        return True

    def __getitem__(self, _ident: int) -> bool:
        return True


def history(server: Server, opener: Any) -> Any:
    """Give what the server in this process knows of the realm."""
    engine = server._server.config.app.state.engine
    (found,) = [realm.history for (app, _), realm in engine._realms.items() if app == opener.app_id]
    return found


def ended_for_good(realm: rf.Realm) -> None:
    """Check that a session has nothing more to do: no timer, no task of a reset."""
    session = realm.sync_session
    time.sleep(0.1)
    assert session.state == "inactive"
    machine = session.binding.machine
    assert machine is None or machine.retry_at is None
    assert session.follow_ups._reset_task.done()


@flexible_only
@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD, DISCARD])
def test_a_server_that_resets_every_file(server: Server, open_dogs: Any, mode: str) -> None:
    """The fresh copy is reset too: the reset fails once and for all, the app is told once, and data stays."""
    told: list[Any] = []
    errors: list[Any] = []
    callbacks = {"on_fallback": lambda _session, path: told.append(path)}
    mine = open_dogs("a", client_reset={"mode": mode, **callbacks}, on_error=lambda _s, e: errors.append(e))
    write(mine, dog(1))
    mine.upload_all_local_changes(timeout=WAIT)
    mine.sync_session.pause()
    write(mine, dog(2, "offline"))
    known = history(server, open_dogs)
    before = len(known.files)
    known.resets = Always()
    try:
        mine.sync_session.resume()
        with pytest.raises(rf.ClientResetError, match="It failed"):
            mine.download_all_server_changes(timeout=WAIT)
        assert until(lambda: told and errors)
        ended_for_good(mine)
        assert (len(told), len(errors)) == (1, 1)
        assert len(known.files) == before + 1
        assert names(mine) == {1: "Rex", 2: "offline"}
        assert not (mine.path / "fresh").exists()
        mine.close()
    finally:
        known.resets = {}
    with rf.Realm.open(path=told[0], schema=[DOG], read_only=True) as copy:
        assert names(copy) == {1: "Rex", 2: "offline"}
    assert names(open_dogs("a")) == {1: "Rex"}


@pytest.mark.parametrize(("mode", "resets"), [(RECOVER, 1), (RECOVER_OR_DISCARD, 2), (DISCARD, 1)])
@pytest.mark.parametrize("is_slow", [False, True])
def test_a_reset_within_a_reset(server: Server, open_dogs: Any, mode: str, resets: int, is_slow: bool) -> None:
    """Reset again before everything was exchanged once: recover-or-discard discards then, and the next one fails."""
    told: list[Any] = []
    done: list[int] = []

    def again(_before: Any) -> None:
        done.append(len(done))
        known = history(server, open_dogs)
        order(
            Path(str(server.data)),
            open_dogs.app_id,
            "reset-client",
            user=None,
            file_ident=max(known.files),  # that of the fresh copy
            recovery=True,
        )

    def is_asked_again() -> bool:
        machine = mine.sync_session.binding.machine
        return machine is not None and machine.is_suspended

    callbacks = {"on_before": again, "on_fallback": lambda _session, path: told.append(path)}
    if is_slow:  # the server asks again while on_after of the reset before is running
        callbacks["on_after"] = lambda _before, _after: until(is_asked_again)
    mine = open_dogs("a", client_reset={"mode": mode, **callbacks})
    write(mine, dog(1))
    mine.upload_all_local_changes(timeout=WAIT)
    mine.sync_session.pause()
    write(mine, dog(2, "offline"))
    reset(server, open_dogs, mine)
    mine.sync_session.resume()
    with pytest.raises(rf.ClientResetError, match="did not succeed either"):
        mine.upload_all_local_changes(timeout=WAIT)
    assert until(lambda: told)
    ended_for_good(mine)
    assert (len(done), len(told)) == (resets, 1)
    assert names(mine) == ({1: "Rex", 2: "offline"} if mode == RECOVER else {1: "Rex"})
    mine.close()
    assert names(open_dogs("a")) == {1: "Rex"}


@flexible_only
def test_logged_out_while_resetting(server: Server, open_dogs: Any) -> None:
    """A user who is logged out ends the reset: it did not fail, so the realm stays where it is, and resets later."""
    told: list[Any] = []
    fallback = {"on_before": lambda _: mine.sync_session.app.current_user.log_out()}
    fallback["on_fallback"] = lambda _session, path: told.append(path)
    mine = open_dogs("a", client_reset={"mode": RECOVER, **fallback})
    write(mine, dog(1))
    mine.upload_all_local_changes(timeout=WAIT)
    mine.sync_session.pause()
    write(mine, dog(2, "offline"))
    reset(server, open_dogs, mine)
    mine.sync_session.resume()
    with pytest.raises(rf.RealmError):
        mine.download_all_server_changes(timeout=WAIT)
    ended_for_good(mine)
    assert mine.sync_session.state == "inactive"
    assert isinstance(mine.sync_session.fatal_error, rf.AuthError)
    assert mine.core.store.extra.get("file_action") is None
    assert told == []
    assert names(mine) == {1: "Rex", 2: "offline"}


@flexible_only
def test_one_reset_after_another(server: Server, open_dogs: Any) -> None:
    """Once everything was exchanged the next reset is no loop: it recovers as the first one did."""
    mine, other = open_dogs("a", client_reset=RECOVER), open_dogs("b")
    for key in (1, 2, 3):
        mine.sync_session.pause()
        write(mine, dog(key, "offline"))
        reset(server, open_dogs, mine)
        mine.sync_session.resume()
        mine.upload_all_local_changes(timeout=WAIT)
        mine.download_all_server_changes(timeout=WAIT)
        assert mine.sync_session.last_reset.recovered
        assert until(lambda: mine.core.store.extra["pending_reset"] is None)
    other.download_all_server_changes(timeout=WAIT)
    assert names(mine) == names(other) == {1: "offline", 2: "offline", 3: "offline"}
    assert mine.quarantine().empty
