"""What an app sees of every action of an error: session, waits, on_error, the open in progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import realmframe as rf
from realmframe import wire
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
Login = Callable[..., rf.User]

#: Action to: what an open in progress raises (OpenTimeoutError: it goes on waiting), whether on_error is called, and
#: whether the user stays logged in.
ROWS: dict[str, tuple[type[rf.RealmError], bool, bool]] = {
    "Transient": (rf.OpenTimeoutError, False, True),
    "Warning": (rf.OpenTimeoutError, True, True),
    "RefreshUser": (rf.OpenTimeoutError, False, True),
    "RefreshLocation": (rf.OpenTimeoutError, False, True),
    "ApplicationBug": (rf.SyncError, True, True),
    "ProtocolViolation": (rf.SyncError, True, True),
    "SomethingNew": (rf.SyncError, True, True),
    "DeleteRealm": (rf.SyncError, True, True),
    "ClientReset": (rf.ClientResetError, True, True),
    "ClientResetNoRecovery": (rf.ClientResetError, True, True),
    "MigrateToFLX": (rf.SyncError, True, True),  # which this realm does already
    "RevertToPBS": (rf.SyncError, True, True),  # to a partition that it never had
    "MigrateSchema": (rf.SyncError, True, True),
    "LogOutUser": (rf.SyncError, True, False),
}


def configuration(user: rf.User, errors: list[Any], **sync: Any) -> dict[str, Any]:
    """Open with a short time-out, noting errors."""
    behaviour = rf.OpenRealmBehaviorConfiguration("download_before_open", 0.7, "throw_exception")
    settings = {"flexible": True, "new_realm_file_behavior": behaviour, "existing_realm_file_behavior": behaviour}
    made = rf.SyncConfiguration(user, on_error=lambda _s, e: errors.append(e), **(settings | sync))
    return {"path": "dogs.realm", "schema": [DOG], "sync": made}


@pytest.mark.parametrize("action", ROWS)
def test_opening(login: Login, server: Any, action: str) -> None:
    """An error in answer to BIND ends an open, or keeps it waiting, as its action says."""
    raises, is_reported, stays = ROWS[action]
    again = action in ("Transient", "Warning", "RefreshUser", "RefreshLocation")
    server.faults.bind_error = {"code": 201, "action": action, "tryAgain": again}
    errors: list[Any] = []
    user = login("a")
    with pytest.raises(raises) as caught:
        rf.Realm.open(**configuration(user, errors))
    if raises is not rf.OpenTimeoutError:
        assert caught.value.is_fatal  # type: ignore[attr-defined]
    ends = time.monotonic() + 3
    while is_reported and not errors and time.monotonic() < ends:
        time.sleep(0.01)
    assert bool(errors) is is_reported
    until = time.monotonic() + 3
    while user.is_logged_in is not stays and time.monotonic() < until:
        time.sleep(0.01)
    assert user.is_logged_in is stays


def binds(server: Any) -> int:
    """Count how often a session was bound."""
    return sum(isinstance(m, wire.Bind) for m in server.messages)


@pytest.mark.parametrize("action", ["RefreshUser", "RefreshLocation"])
def test_a_refresh_that_does_not_help(login: Login, server: Any, action: str) -> None:
    """What is asked for again and again is done with longer waits; reconnect() skips one, and then all is well."""
    user, errors = login("a"), list[Any]()
    server.faults.bind_error = {"code": 201, "action": action, "tryAgain": True}
    immediately = rf.OpenRealmBehaviorConfiguration("open_immediately")
    located = sum(path.endswith("/location") for path in server.requests)
    with rf.Realm.open(**configuration(user, errors, new_realm_file_behavior=immediately)) as realm:
        ends = time.monotonic() + 5
        while binds(server) < 2 and time.monotonic() < ends:
            time.sleep(0.01)
        seen = time.monotonic()
        time.sleep(0.3)
        count, took = binds(server), time.monotonic() - seen
        assert count == 2 or took > 0.7  # the third one waits for three quarters of a second at least
        server.faults.bind_error = None
        realm.sync_session.reconnect()
        realm.download_all_server_changes(timeout=WAIT)
        again = sum(path.endswith("/location") for path in server.requests) - located
        assert (again > 0) is (action == "RefreshLocation")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"action": "MigrateToFLX", "partitionQuery": "TRUEPREDICATE"}, "cannot, or does not say how"),
        ({"action": "MigrateToFLX"}, "cannot, or does not say how"),
        ({"action": "RevertToPBS"}, "go back to its partition that has none"),
    ],
)
def test_a_move_that_makes_no_sense(login: Login, server: Any, error: dict[str, Any], text: str) -> None:
    """A flexible realm that was never a partition's is not reset for it: the session ends, and says why."""
    server.faults.bind_error = {"code": 232, "tryAgain": False, **error}
    user, errors = login("a"), list[Any]()
    with pytest.raises(rf.SyncError, match=text) as caught:
        rf.Realm.open(**configuration(user, errors))
    assert not isinstance(caught.value, rf.ClientResetError)
    assert caught.value.is_fatal
    assert server.idents == 0  # no fresh copy was asked for


@pytest.mark.parametrize(("action", "stays"), [("ApplicationBug", True), ("DeleteRealm", False)])
def test_files(login: Login, server: Any, action: str, stays: bool) -> None:
    """Only DeleteRealm deletes the files, when the realm is closed; until then it can be read."""
    user, errors = login("a"), list[Any]()
    with rf.Realm.open(**configuration(user, errors)):
        pass
    server.faults.bind_error = {"code": 201, "action": action, "tryAgain": False}
    immediately = rf.OpenRealmBehaviorConfiguration("open_immediately")
    opened = configuration(user, errors, existing_realm_file_behavior=immediately)
    realm = rf.Realm.open(**opened)
    ends = time.monotonic() + 5
    while not errors and time.monotonic() < ends:
        time.sleep(0.01)
    assert realm.sync_session.state == "inactive"
    assert len(realm["Dog"]) == 0
    with pytest.raises(rf.SyncError):
        realm.upload_all_local_changes(timeout=WAIT)
    realm.close()
    assert rf.Realm.exists(**opened) is stays
    left = sorted(path.name for path in user.app.base_file_path.iterdir())
    assert left == (["dogs.realm", "mongodb-realm"] if stays else ["mongodb-realm"])


def test_another_version_of_the_schema(login: Login, server: Any) -> None:
    """With code 236 the app is told, and the session goes on: what is left can still be uploaded."""
    server.faults.bind_error = {"code": 236, "action": "MigrateSchema"}
    user, errors = login("a"), list[Any]()
    with pytest.raises(rf.OpenTimeoutError) as caught:
        rf.Realm.open(**configuration(user, errors))
    assert isinstance(caught.value.cause, rf.SyncError)
    ends = time.monotonic() + 5
    while not errors and time.monotonic() < ends:
        time.sleep(0.01)
    assert [(e.code, e.is_fatal) for e in errors] == [(236, False)]
    assert "Upload what is left" in (errors[0].hint or "")


def test_reconnect_after_a_fatal_error(login: Login, server: Any) -> None:
    """A session that an error ended begins anew when the app asks for it, and what was written meanwhile goes up."""
    user, errors = login("a"), list[Any]()
    server.faults.bind_error = {"code": 201, "action": "ApplicationBug", "tryAgain": False}
    immediately = rf.OpenRealmBehaviorConfiguration("open_immediately")
    subscribe = {"initial_subscriptions": lambda subs, _realm: subs.add("Dog")}
    opened = configuration(user, errors, new_realm_file_behavior=immediately, **subscribe)
    with rf.Realm.open(**opened) as realm:
        session = realm.sync_session
        with pytest.raises(rf.SyncError):
            realm.download_all_server_changes(timeout=WAIT)
        assert session.state == "inactive"
        with realm.write() as tx:
            tx.upsert("Dog", {"_id": 1, "name": "Rex"})
        server.faults.bind_error = None
        session.reconnect()
        ends = time.monotonic() + 5
        while session.state != "active" and time.monotonic() < ends:
            time.sleep(0.01)
        assert session.fatal_error is None
        realm.upload_all_local_changes(timeout=WAIT)
        assert len(server.log) > 0
