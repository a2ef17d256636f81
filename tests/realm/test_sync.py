"""A synced realm while it is open: waits, pauses, subscriptions, other processes, killed processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
CAT = rf.ObjectSchema("Cat", {"_id": "int"}, "_id")
Login = Callable[..., rf.User]


def open_dogs(user: rf.User, **sync: Any) -> rf.Realm:
    """Open a realm subscribed to all dogs."""
    settings = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog", name="dogs")} | sync
    return rf.Realm.open(path="dogs.realm", schema=[DOG, CAT], sync=rf.SyncConfiguration(user, **settings))


@pytest.fixture
def realm(login: Login) -> Iterator[rf.Realm]:
    """Open one."""
    with open_dogs(login("a")) as made:
        yield made


def write(realm: rf.Realm, key: int, name: str = "Rex") -> None:
    """Write one dog."""
    with realm.write() as tx:
        tx.upsert("Dog", {"_id": key, "name": name})


def test_pause_and_resume(realm: rf.Realm, server: Any) -> None:
    """While paused nothing goes up and frames are stale; after resuming everything does."""
    session = realm.sync_session
    assert (session.state, session.connection_state) == ("active", "connected")
    session.pause()
    assert (session.state, session.connection_state) == ("inactive", "disconnected")
    write(realm, 1)
    dogs = realm["Dog"]
    assert dogs.realm.is_stale
    assert dogs.realm.pending_writes == 1
    with pytest.raises(rf.WaitTimeoutError, match="background"):
        realm.upload_all_local_changes(timeout=0.05)
    uploaded = len(server.log)
    session.resume()
    realm.upload_all_local_changes(timeout=WAIT)
    realm.download_all_server_changes(timeout=WAIT)
    assert len(server.log) == uploaded + 1
    assert not dogs.realm.is_stale
    assert dogs.realm.pending_writes == 0
    assert dogs.realm.as_of is not None


def test_no_subscription_for_write(realm: rf.Realm) -> None:
    """Writing to a class without a subscription fails locally, naming it; subscribing allows it."""
    with pytest.raises(rf.NoSubscriptionForWriteError, match="Cat"), realm.write() as tx:
        tx.create("Cat", {"_id": 1})
    with realm.subscriptions.update(timeout=WAIT) as subs:
        subs.add("Cat")
    assert realm.subscriptions.state == "complete"
    with realm.write() as tx:
        tx.create("Cat", {"_id": 1})


def test_subscriptions_change(realm: rf.Realm, server: Any) -> None:
    """Sets are sent whole, in the client's normal form; removing and clearing work; a bad query never goes out."""
    subs = realm.subscriptions
    assert [(s.name, s.class_name) for s in subs] == [("dogs", "Dog")]
    with subs.update(timeout=WAIT) as change:
        change.add("Dog", "name == $0", "Rex")
        change.add("Cat", name="cats")
        assert change.remove("dogs")
        assert not change.remove("dogs")
    assert server.peers[0].queries[-1] == {"Cat": "(TRUEPREDICATE )", "Dog": '(name == "Rex" )'}
    assert subs.find_by_name("cats") is not None
    assert subs.find_by_query("Dog", "name == 'Rex'") is not None
    version = subs.version
    with pytest.raises(rf.QueryError), subs.update() as change:
        change.add("Dog", "nme == 5")
    assert subs.version == version
    with subs.update(timeout=WAIT) as change:
        assert change.remove_all("Dog") == 1
        assert change.remove_unnamed() == 0
    assert [s.name for s in subs] == ["cats"]


def test_refused_subscriptions(realm: rf.Realm, server: Any) -> None:
    """A set that the server refuses is in state error with its reason; the session goes on."""
    server.faults.query_error = "no such thing"
    with pytest.raises(rf.QueryError, match="no such thing"), realm.subscriptions.update(timeout=WAIT) as subs:
        subs.add("Cat")
    assert (realm.subscriptions.state, realm.subscriptions.error) == ("error", "no such thing")
    assert realm.sync_session.state == "active"


def test_what_no_server_takes_is_refused_here(realm: rf.Realm) -> None:
    """A subscription that App Services could not serve is refused where it is written, and the set stays as it was."""
    version, long = realm.subscriptions.version, f"name == '{'x' * 300_000}'"
    for query, word in (("TRUEPREDICATE LIMIT(3)", "LIMIT"), (long, "longer than 256 kB")):
        with pytest.raises(rf.QueryError, match=word), realm.subscriptions.update(timeout=WAIT) as subs:
            subs.add("Dog", query)
    assert realm.subscriptions.version == version


def test_waits_are_cancelled_on_request(login: Login, server: Any) -> None:
    """cancel_waits_on_non_fatal_errors ends a wait with the error once the app's time-out has passed, not before."""
    user = login("b", timeout=0.3)
    with open_dogs(user, cancel_waits_on_non_fatal_errors=True) as realm:
        server.stop()
        write(realm, 1)
        begun = time.monotonic()
        with pytest.raises(rf.NetworkError):
            realm.upload_all_local_changes(timeout=WAIT)
        assert 0.2 < time.monotonic() - begun < 5.0


def test_waits_go_on_by_default(login: Login, server: Any) -> None:
    """By default a wait goes on through reconnects until its own time-out."""
    with open_dogs(login("b", timeout=0.2)) as realm:
        server.stop()
        write(realm, 1)
        with pytest.raises(rf.WaitTimeoutError) as caught:
            realm.upload_all_local_changes(timeout=0.8)
        assert isinstance(caught.value.__cause__, rf.NetworkError)
        server.start()
        realm.sync_session.reconnect()
        realm.upload_all_local_changes(timeout=WAIT)


def test_log_out_stops_sessions(realm: rf.Realm) -> None:
    """When the user logs out the session stops, waits end with AuthError, and local data stays."""
    write(realm, 1)
    realm.configuration.sync.user.log_out()  # type: ignore[union-attr]
    ends = time.monotonic() + 5
    while realm.sync_session.state == "active" and time.monotonic() < ends:
        time.sleep(0.01)
    assert realm.sync_session.state == "inactive"
    with pytest.raises(rf.AuthError):
        realm.upload_all_local_changes(timeout=WAIT)
    assert list(realm["Dog"].name) == ["Rex"]


def test_one_websocket_for_several_realms(login: Login, server: Any) -> None:
    """Realms of one user share a connection; with multiplex_sessions=False each has its own."""
    for multiplex, wanted in ((True, 1), (False, 2)):
        user = login(f"m{multiplex}", multiplex_sessions=multiplex)
        before = server.opened
        sync = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=lambda s, _r: s.add("Dog"))
        with (
            rf.Realm.open(path="one.realm", schema=[DOG], sync=sync),
            rf.Realm.open(path="two.realm", schema=[DOG], sync=sync),
        ):
            assert server.opened - before == wanted


def test_two_objects_of_one_realm(realm: rf.Realm, login: Login) -> None:
    """Opening a path again gives another object on the same session; closing one leaves the other."""
    with open_dogs(realm.configuration.sync.user) as again:  # type: ignore[union-attr]
        assert again.core is realm.core
        write(again, 5)
        assert realm.refresh()
        assert list(realm["Dog"]._id) == [5]
    realm.upload_all_local_changes(timeout=WAIT)


def script(folder: Path, url: str, body: str) -> str:
    """Make a program that opens the realm of a folder."""
    head = f"""
        import os, signal
        import realmframe as rf
        dog = rf.ObjectSchema("Dog", {{"_id": "int", "name": "string?"}}, "_id")
        app = rf.App("app-1", base_url={url!r}, base_file_path={str(folder)!r})
        user = app.current_user or app.log_in(rf.Credentials.anonymous())
        sync = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=lambda s, r: s.add("Dog", name="dogs"))
        realm = rf.Realm.open(path="dogs.realm", schema=[dog], sync=sync)
    """
    return textwrap.dedent(head) + textwrap.dedent(body)


def test_modes_do_not_mix(login: Login) -> None:
    """A realm made for one partition, or without sync, is refused as anything else, saying what it was made for."""
    user = login("b")
    base = user.app.base_file_path
    rf.Realm.open(path="x.realm", schema=[DOG], base_file_path=base).close()
    immediately = rf.OpenRealmBehaviorConfiguration("open_immediately")
    behave = {"new_realm_file_behavior": immediately, "existing_realm_file_behavior": immediately}
    flexible = rf.SyncConfiguration(user, flexible=True, **behave)
    with pytest.raises(rf.UsageError, match="without sync"):
        rf.Realm.open(path="x.realm", schema=[DOG], sync=flexible)
    rf.Realm.open(path="y.realm", schema=[DOG], sync=flexible).close()
    with pytest.raises(rf.UsageError, match=r"Flexible Sync.*partition"):
        rf.Realm.open(path="y.realm", sync=rf.SyncConfiguration(user, partition_value="p", **behave))


@pytest.mark.process
def test_another_process_writes_and_this_one_uploads(login: Login, server: Any) -> None:
    """A realm open in two processes is synced by one; what the other writes goes up too, and both see it."""
    user = login("b")
    with open_dogs(user) as realm:
        body = """
            with realm.write() as tx:
                tx.create("Dog", {"_id": 77, "name": "other"})
            realm.upload_all_local_changes(timeout=60.0)
            realm.close()
        """
        code = script(user.app.base_file_path, server.url, body)
        process = subprocess.Popen([sys.executable, "-c", code])
        ends = time.monotonic() + 60
        while 77 not in list(realm["Dog"]._id) and time.monotonic() < ends:
            realm.wait_for_changes(timeout=1.0)
        assert 77 in list(realm["Dog"]._id)
        assert process.wait(60) == 0
    with open_dogs(login("c")) as other:
        assert list(other["Dog"].name) == ["other"]


COMMIT = "with realm.write() as tx: tx.create('Dog', {'_id': 2, 'name': 'kept'})"
KILLS = {
    "after opening": "",
    "in a transaction": "block = realm.write(); tx = block.__enter__(); tx.create('Dog', {'_id': 1, 'name': 'lost'})",
    "after a commit": COMMIT,
    "while paused": f"realm.sync_session.pause()\n{COMMIT}",
}


@pytest.mark.process
@pytest.mark.parametrize("moment", KILLS)
def test_killed_between_steps(login: Login, server: Any, moment: str) -> None:
    """Kill -9 between two steps loses nothing that was committed, and nothing is applied twice at the server."""
    user = login("b")
    body = KILLS[moment] + "\nos.kill(os.getpid(), signal.SIGKILL)\n"
    process = subprocess.run([sys.executable, "-c", script(user.app.base_file_path, server.url, body)], timeout=60)
    assert process.returncode == -signal.SIGKILL
    kept = ["kept"] if "kept" in KILLS[moment] else []
    with open_dogs(user) as realm:
        assert list(realm["Dog"].name) == kept
        realm.upload_all_local_changes(timeout=WAIT)
        assert len(realm.subscriptions) == 1
    with open_dogs(login("c")) as other:
        assert list(other["Dog"].name) == kept
    versions = [(e.file_ident, e.client_version) for e in server.log]
    assert len(versions) == len(set(versions))


#: Action, tryAgain, state afterwards, error reported (None: silent), user afterwards, requests that it causes.
ACTIONS: list[tuple[str, bool, str, type[Exception] | None, str, str | None]] = [
    ("Transient", True, "active", None, "logged_in", None),
    ("Warning", True, "active", rf.SyncError, "logged_in", None),
    ("ApplicationBug", False, "inactive", rf.SyncError, "logged_in", None),
    ("ProtocolViolation", False, "inactive", rf.SyncError, "logged_in", None),
    ("SomethingNew", False, "inactive", rf.SyncError, "logged_in", None),
    ("DeleteRealm", False, "inactive", rf.SyncError, "logged_in", None),
    ("ClientReset", False, "inactive", rf.ClientResetError, "logged_in", None),
    ("ClientResetNoRecovery", False, "inactive", rf.ClientResetError, "logged_in", None),
    ("LogOutUser", False, "inactive", rf.SyncError, "removed", None),
    ("RefreshUser", True, "active", None, "logged_in", "POST session"),
    ("RefreshLocation", True, "active", None, "logged_in", "/api/client/v2.0/app/app-1/location"),
]


@pytest.mark.parametrize(("action", "again", "state", "kind", "user_state", "request_made"), ACTIONS)
def test_actions_of_errors(
    login: Login,
    server: Any,
    action: str,
    again: bool,
    state: str,
    kind: type[Exception] | None,
    user_state: str,
    request_made: str | None,
) -> None:
    """Each action of a json_error leads to what the table says; the realm stays usable."""
    user, heard = login("b"), []
    server.faults.bind_error = {"code": 201, "action": action, "tryAgain": again, "message": "because"}
    asked = len(server.requests)
    immediately = rf.OpenRealmBehaviorConfiguration("open_immediately")
    with open_dogs(
        user, new_realm_file_behavior=immediately, on_error=lambda _session, error: heard.append(error)
    ) as realm:

        def is_so() -> bool:
            told = bool(heard) if kind is not None else any(type(m).__name__ == "Unbind" for m in server.messages)
            made = request_made is None or request_made in server.requests[asked:]
            return told and made and realm.sync_session.state == state and user.state == user_state

        ends = time.monotonic() + 5
        while not is_so() and time.monotonic() < ends:
            time.sleep(0.01)
        assert is_so()
        assert [type(e) for e in heard[:1]] == ([] if kind is None else [kind])
        write(realm, 1)
        assert list(realm["Dog"].name) == ["Rex"]
