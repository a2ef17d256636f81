"""Client reset in detail: what the server is asked, callbacks that raise, and ends that come in the middle."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.client.reset import carry_out_file_action
from realmframe.query.flexible import MAX_TEXT
from realmframe.server.admin import order
from realmframe.server.admission import Admission
from realmframe.store import RealmStore
from realmframe.testing import Server
from realmframe.wire import Bind
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
#: Not too long for one subscription, but for a set, together with what is put around it.
TOO_LONG = f"name == '{'x' * (MAX_TEXT - 11)}'"


@dataclass
class Site:
    """A server, and one device of it."""

    server: Server
    user: rf.User

    def open(self, **sync: Any) -> rf.Realm:
        """Open all dogs."""
        sync = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog")} | sync
        return rf.Realm.open(path="dogs.realm", schema=[DOG], sync=rf.SyncConfiguration(self.user, **sync))

    def reset(self, realm: rf.Realm, *, recovery: bool = True) -> None:
        """Leave something unsent, then have the file begin anew; the session is paused."""
        realm.sync_session.pause()
        write(realm, 50, "offline")
        ident = realm.core.store.file.ident
        app = self.user.app.id
        assert order(Path(str(self.server.data)), app, "reset-client", file_ident=ident, recovery=recovery)["files"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server; each test has an app of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def site(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """Log in."""
    app = rf.App(f"app{abs(hash(request.node.name)) % 10**8}", base_url=server.url, base_file_path=tmp_path)
    return Site(server, app.log_in(rf.Credentials.anonymous()))


def write(realm: rf.Realm, key: int, name: str) -> None:
    """Write a dog."""
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key, "name": name}])


def names(realm: rf.Realm) -> dict[int, str]:
    """Give the names by key."""
    realm.refresh()
    return dict(zip(realm["Dog"]._id.tolist(), realm["Dog"].name.tolist(), strict=True))


def test_reasons_of_the_sessions(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh copy and what follows the reset say that they belong to one; before and afterwards nobody does."""
    binds: list[tuple[int, bool]] = []
    bind = Admission.bind

    def note(admission: Admission, connection: Any, number: int, message: Bind) -> None:
        assert isinstance(message.body, dict)
        binds.append((message.body["sessionReason"], message.need_ident))
        bind(admission, connection, number, message)

    monkeypatch.setattr(Admission, "bind", note)
    with site.open() as realm:
        site.reset(realm)
        realm.sync_session.resume()
        realm.upload_all_local_changes(timeout=WAIT)
        assert binds == [(0, True), (0, False), (1, True), (1, False)]
    with site.open() as realm:
        assert names(realm) == {50: "offline"}
    assert binds[4:] == [(0, False)]


def test_on_after_that_raises(site: Site) -> None:
    """The reset is done: sync goes on as if nothing had happened."""
    called = threading.Event()

    def fail(_before: Any, _after: Any) -> None:
        called.set()
        raise ValueError("mine")

    with site.open(client_reset={"on_after": fail}) as realm:
        site.reset(realm)
        realm.sync_session.resume()
        assert called.wait(WAIT)
        realm.upload_all_local_changes(timeout=WAIT)
        assert until(lambda: realm.sync_session.follow_ups._reset_task.done())  # type: ignore[union-attr]
        assert realm.sync_session.state == "active"
        write(realm, 51, "more")
        realm.upload_all_local_changes(timeout=WAIT)
        assert realm.sync_session.last_reset.recovered  # type: ignore[union-attr]


def test_on_before_that_raises(site: Site) -> None:
    """The reset fails with the application's own error, and nothing is changed; the files go aside on closing."""
    told: list[str] = []

    def fail(before: Any) -> None:
        assert dict(before["Dog"].name) == {0: "offline"}
        raise ValueError("mine")

    realm = site.open(client_reset={"on_before": fail, "on_fallback": lambda _session, path: told.append(path)})
    site.reset(realm)
    realm.sync_session.resume()
    with pytest.raises(rf.ClientResetError, match="mine") as caught:
        realm.upload_all_local_changes(timeout=WAIT)
    assert isinstance(caught.value.__cause__, ValueError)
    assert until(lambda: told)
    assert caught.value.recovery_path == told[0]
    assert told[0] in (caught.value.hint or "")
    assert names(realm) == {50: "offline"}
    assert until(lambda: not (realm.path / "fresh").exists())
    realm.close()
    with rf.Realm.open(path=told[0], read_only=True) as copy:
        assert names(copy) == {50: "offline"}


def test_subscriptions_that_are_not_in_force_yet(site: Site) -> None:
    """The fresh copy has those in force; a newer set is sent afterwards, and may be refused without harm."""
    with site.open() as realm:
        write(realm, 1, "Rex")
        realm.upload_all_local_changes(timeout=WAIT)
        site.reset(realm)
        with realm.subscriptions.update(wait=False) as subs:
            subs.add("Dog", TOO_LONG, name="bad")
        realm.sync_session.resume()
        with pytest.raises(rf.QueryError, match="too large"):
            realm.subscriptions.wait_for_synchronization(timeout=WAIT)
        assert realm.sync_session.last_reset is not None
        realm.upload_all_local_changes(timeout=WAIT)
        assert names(realm) == {1: "Rex", 50: "offline"}
        assert realm.subscriptions.state == "error"


@pytest.mark.parametrize("how", ["pause", "log out"])
def test_an_end_while_it_is_committed(site: Site, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A commit that has begun is waited for, and counts; the next session goes on from there."""
    begun, goes_on, steps = threading.Event(), threading.Event(), list[str]()
    commit = RealmStore.reset

    def slow(store: RealmStore, make: Callable[[Any], Any]) -> Any:
        begun.set()
        assert goes_on.wait(WAIT)
        found = commit(store, make)
        steps.append("committed")
        return found

    monkeypatch.setattr(RealmStore, "reset", slow)
    realm = site.open()
    old = realm.core.store.file
    site.reset(realm)
    realm.sync_session.resume()
    assert begun.wait(WAIT)
    session, user = realm.sync_session, site.user
    work = session.pause if how == "pause" else user.log_out
    ender = threading.Thread(target=lambda: (work(), steps.append("ended")))
    ender.start()
    if how == "pause":
        ender.join(0.3)
        assert ender.is_alive()
    goes_on.set()
    ender.join(WAIT)
    assert until(lambda: session.follow_ups._reset_task.done())  # type: ignore[union-attr]
    assert sorted(steps) == ["committed", "ended"]
    assert how == "log out" or steps == ["committed", "ended"]
    assert realm.core.store.file != old
    assert session.state == "inactive"
    assert names(realm) == {50: "offline"}
    if how == "pause":
        session.resume()
        realm.upload_all_local_changes(timeout=WAIT)
    realm.close()


def test_a_transaction_is_not_reset_under_the_hands_of_its_writer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reset waits for a transaction that is open, and what that writes is recovered with the rest."""
    ready, steps = threading.Event(), list[str]()
    commit = RealmStore.reset

    def noted(store: RealmStore, make: Callable[[Any], Any]) -> Any:
        steps.append("reset")
        return commit(store, make)

    monkeypatch.setattr(RealmStore, "reset", noted)
    with site.open(client_reset={"on_before": lambda _before: ready.set()}) as realm:
        site.reset(realm)
        with realm.write() as tx:
            realm.sync_session.resume()
            assert ready.wait(WAIT)
            assert not until(lambda: steps, 0.3)
            tx.upsert("Dog", [{"_id": 51, "name": "written meanwhile"}])
        realm.upload_all_local_changes(timeout=WAIT)
        assert steps == ["reset"]
        assert names(realm) == {50: "offline", 51: "written meanwhile"}


@pytest.mark.parametrize("what", ["delete", "backup"])
def test_files_that_are_in_use(tmp_path: Path, what: str) -> None:
    """What is to be done with files that somebody has open, or that would overwrite something, is left for later."""
    path, aside = tmp_path / "dogs.realm", tmp_path / "far" / "away.realm"
    store = RealmStore.open(path)
    action = {"action": what, "path": str(aside)}
    assert not carry_out_file_action(path, action)
    assert RealmStore.exists(path)
    assert not RealmStore.exists(aside)
    store.close()
    if what == "backup":
        aside.mkdir(parents=True)
        assert not carry_out_file_action(path, action)
        assert RealmStore.exists(path)
        aside.rmdir()
    assert carry_out_file_action(path, action)
    assert not path.exists()
    assert RealmStore.exists(aside) is (what == "backup")
