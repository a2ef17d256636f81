"""Waits, client reset, and sessions that failed, where several processes have one realm open."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.server.admin import order
from realmframe.session.backoff import Delays
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
CHILD = """
import json, os, signal, sys
import realmframe as rf
from realmframe.store import RealmStore

url, base, app_id, settings = sys.argv[1:]
settings = json.loads(settings)
dies, timeout = settings.pop("dies", None), settings.pop("timeout", 60.0)
told = []
if "client_reset" in settings:
    settings["client_reset"] = {"mode": settings["client_reset"], "on_before": lambda _: told.append("before")}
    if settings["client_reset"]["mode"] == "manual":
        settings["client_reset"] = {"mode": "manual", "on_manual": lambda _s, path: told.append(path)}
if dies is not None:
    real = RealmStore.reset
    def reset(self, make):
        if dies == "after":
            real(self, make)
        os.kill(os.getpid(), signal.SIGKILL)
    RealmStore.reset = reset
app = rf.App(app_id, base_url=url, base_file_path=base, timeout=timeout)
now = rf.OpenRealmBehaviorConfiguration("open_immediately")
sync = rf.SyncConfiguration(app.current_user, existing_realm_file_behavior=now, **settings)
realm = rf.Realm.open(path="dogs.realm", sync=sync)
for line in sys.stdin:
    what, *rest = json.loads(line)
    answer = None
    if what == "write":
        with realm.write() as tx:
            tx.upsert("Dog", [{"_id": rest[0], "name": rest[1]}])
    elif what == "names":
        realm.refresh()
        answer = [[int(k), n] for k, n in zip(realm["Dog"]["_id"], realm["Dog"]["name"])]
    elif what == "file":
        realm.refresh()
        answer = realm.core.store.file.ident
    elif what == "lost":
        answer = sorted(int(k) for k in realm.quarantine()["primary_key"])
    elif what == "told":
        answer = told
    elif what == "state":
        answer = [realm.sync_session.state, realm.sync_session.connection_state]
    elif what == "follows":
        answer = realm.sync_session.followed is not None
    elif what == "reconnect":
        realm.sync_session.reconnect()
    elif what == "freshness":
        realm.refresh()
        for _ in range(50):  # it may change between the two
            status, said = realm["Dog"].realm.status, realm["Dog"].attrs
            if (said["realm_is_stale"], said["realm_version"]) == (status.is_stale, status.version):
                break
        else:
            raise AssertionError(said)
        answer = ["stale" if status.is_stale else "current", status.as_of and status.as_of.timestamp()]
    elif what == "progress":
        told = []
        realm.sync_session.progress(lambda now: told.append([now.phase, now.bytes, now.objects]))
    elif what == "upload":
        realm.upload_all_local_changes(timeout=60.0)
    elif what == "download":
        try:
            realm.download_all_server_changes(timeout=rest[0])
            answer = "done"
        except rf.RealmError as error:
            answer = f"{type(error).__name__}: {error}"
    elif what == "subscribe":
        with realm.subscriptions.update(timeout=20) as subs:
            subs.add("Dog", rest[0])
        answer = realm.subscriptions.state
    elif what == "close":
        realm.close()
    print(json.dumps(answer), flush=True)
"""


class Child:
    """Another process with the same realm open."""

    def __init__(self, url: str, folder: Path, app_id: str, **settings: Any) -> None:
        arguments = [sys.executable, "-c", CHILD, url, str(folder), app_id, json.dumps(settings)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("state")

    def ask(self, *what: Any) -> Any:
        """Have something done, and give the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def names(self) -> dict[int, str]:
        """Give the names by key."""
        return dict(self.ask("names"))

    def end(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=WAIT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server; each test has an app of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


class Site:
    """One app with realms and processes."""

    def __init__(self, server: Server, line: FaultProxy, folder: Path, app_id: str, sync: dict[str, Any]) -> None:
        self.server, self.line, self.folder, self.app_id, self.sync = server, line, folder, app_id, sync
        self.realms: list[rf.Realm] = []
        self.children: list[Child] = []

    def open(self, name: str, *, through_line: bool = False, **sync: Any) -> rf.Realm:
        """Open a realm in this process."""
        app = rf.App(
            self.app_id, base_url=self.line.url if through_line else self.server.url, base_file_path=self.folder / name
        )
        user = app.current_user or app.log_in(rf.Credentials.anonymous())
        configuration = rf.SyncConfiguration(user, **self.sync | sync)
        self.realms.append(rf.Realm.open(path="dogs.realm", schema=[DOG], sync=configuration))
        return self.realms[-1]

    def child(self, name: str, **settings: Any) -> Child:
        """Open one in another process."""
        mode = {k: v for k, v in self.sync.items() if k != "initial_subscriptions"}
        self.children.append(Child(self.line.url, self.folder / name, self.app_id, **mode, **settings))
        return self.children[-1]

    def reset(self, realm: rf.Realm) -> None:
        """Have a realm's file begin anew."""
        file = realm.core.store.file
        assert file is not None
        data = Path(str(self.server.data))
        done = order(data, self.app_id, "reset-client", user=None, file_ident=file.ident, recovery=True)
        assert done == {"files": 1}


@pytest.fixture(params=["flexible", "partition"])
def site(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Make an app with one mode of sync."""
    sync: dict[str, Any] = {"partition_value": "dogs"}
    if request.param == "flexible":
        sync = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog")}
    with FaultProxy(server.url) as line:
        made = Site(server, line, tmp_path, f"app{abs(hash(request.node.name)) % 10**8}", sync)
        try:
            yield made
        finally:
            for child in made.children:
                child.end()
            for realm in made.realms:
                realm.close()


def write(realm: rf.Realm, key: int, name: str) -> None:
    """Write a dog."""
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key, "name": name}])


def names(realm: rf.Realm) -> dict[int, str]:
    """Give the names by key."""
    realm.refresh()
    return dict(zip(realm["Dog"]["_id"].tolist(), realm["Dog"]["name"].tolist(), strict=True))


def test_a_wait_where_another_process_syncs(site: Site) -> None:
    """It ends when everything is here that the server has now, and not before."""
    mine, other = site.open("a", through_line=True), site.open("b")
    write(mine, 1, "Rex")
    mine.upload_all_local_changes(timeout=WAIT)
    child = site.child("a")
    assert child.ask("download", WAIT) == "done"
    site.line.fault(stall_after=0)
    write(other, 2, "Fido")
    other.upload_all_local_changes(timeout=WAIT)
    late = child.ask("download", 1.0)
    assert late.startswith("WaitTimeoutError")
    assert "Another process" in late
    site.line.heal()
    assert child.ask("download", WAIT) == "done"
    assert child.names() == {1: "Rex", 2: "Fido"}
    assert list((mine.path / "asks").iterdir()) == []


def test_a_wait_goes_on_when_its_process_comes_to_sync(site: Site) -> None:
    """The process that syncs ends while the other one waits: that one syncs, and its wait ends."""
    mine = site.open("a", through_line=True)
    child = site.child("a")
    site.line.fault(stall_after=0)
    threading.Timer(0.7, lambda: (mine.close(), site.line.cut(), site.line.heal())).start()
    assert child.ask("download", WAIT) == "done"
    assert child.ask("state") == ["active", "connected"]


def test_waits_are_cancelled_where_another_process_syncs(site: Site) -> None:
    """Nothing comes for the App's time-out: the wait ends with what is known, and says who syncs."""
    site.open("a", through_line=True)
    child = site.child("a", cancel_waits_on_non_fatal_errors=True, timeout=1.0)
    assert child.ask("download", WAIT) == "done"
    site.line.fault(stall_after=0)
    assert child.ask("download", WAIT).startswith("NetworkError: Another process")


def test_freshness_where_another_process_syncs(site: Site) -> None:
    """It is that of the process that syncs: in step, cut off, and in step again; when it was is not forgotten."""
    mine, other = site.open("a", through_line=True), site.open("b")
    child = site.child("a")
    child.ask("download", WAIT)
    assert child.ask("freshness") == ["current", pytest.approx(mine.status().as_of.timestamp(), abs=1.0)]  # type: ignore[union-attr]
    assert child.ask("state") == ["active", "disconnected"]
    site.line.fault(down=True)
    assert until(lambda: child.ask("freshness")[0] == "stale")
    before = child.ask("freshness")[1]
    assert before is not None
    write(other, 1, "Rex")
    other.upload_all_local_changes(timeout=WAIT)
    site.line.heal()
    mine.sync_session.reconnect()
    assert until(lambda: child.ask("freshness")[0] == "current")
    assert child.ask("freshness")[1] > before
    assert child.names() == {1: "Rex"}
    site.line.fault(down=True)
    assert until(lambda: mine.status().is_stale)
    mine.close()
    assert until(lambda: not child.ask("follows"))
    assert child.ask("freshness")[0] == "stale"
    assert child.ask("freshness")[1] > before
    child.end()
    late = site.child("a")
    assert late.ask("freshness")[0] == "stale"
    assert late.ask("freshness")[1] > before


@pytest.mark.parametrize("site", ["flexible"], indirect=True)
@pytest.mark.parametrize("how", ["asks", "opens"])
def test_reconnecting_where_another_process_syncs(site: Site, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """That one tries at once, as this one would have; its own next try would be minutes away."""
    monkeypatch.setattr("realmframe.session.client.Delays", lambda: Delays(first=300.0, longest=300.0))
    mine = site.open("a", through_line=True)
    child = site.child("a")
    child.ask("download", WAIT)
    site.line.cut()
    assert until(lambda: mine.sync_session.connection_state == "disconnected")
    assert not until(lambda: mine.sync_session.is_connected, 0.3)
    if how == "asks":
        child.ask("reconnect")
    else:
        site.child("a")
    assert until(lambda: mine.sync_session.is_connected)
    assert child.ask("download", WAIT) == "done"
    assert list((mine.path / "asks").iterdir()) == []


@pytest.mark.parametrize("site", ["flexible"], indirect=True)
def test_progress_where_another_process_syncs(site: Site) -> None:
    """What comes is counted as in the process that syncs, from when one began to follow it."""
    mine, other = site.open("a", through_line=True), site.open("b")
    child = site.child("a")
    child.ask("download", WAIT)
    child.ask("progress")
    assert child.ask("told")[-1] == ["done", 0, 0]
    for key in range(3):
        write(other, key, "Rex")
        other.upload_all_local_changes(timeout=WAIT)
    mine.download_all_server_changes(timeout=WAIT)
    child.ask("download", WAIT)
    phase, size, objects = child.ask("told")[-1]
    assert (phase, objects) == ("done", 3)
    assert 0 < size <= mine.sync_session.transfer.bytes


@pytest.mark.parametrize("site", ["flexible"], indirect=True)
@pytest.mark.parametrize("what", ["download", "upload", "subscribe"])
def test_the_process_that_syncs_is_killed_while_the_other_one_waits(site: Site, what: str) -> None:
    """That one syncs, and its wait ends."""
    site.open("a").close()
    child = site.child("a")
    assert until(lambda: child.ask("state")[1] == "connected")
    now = rf.OpenRealmBehaviorConfiguration("open_immediately")
    mine = site.open("a", existing_realm_file_behavior=now)
    mine.download_all_server_changes(timeout=WAIT)
    site.line.fault(stall_after=0)
    write(mine, 1, "Rex")
    waits = {
        "download": mine.download_all_server_changes_async,
        "upload": mine.upload_all_local_changes_async,
        "subscribe": subscribe(mine),
    }

    async def wait() -> None:
        waiting = asyncio.ensure_future(waits[what](timeout=WAIT))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        child.process.kill()
        await waiting

    asyncio.run(wait())
    assert mine.sync_session.is_connected
    assert names(mine) == {1: "Rex"}


def subscribe(realm: rf.Realm) -> Any:
    """Add a subscription, and give what waits for it."""
    with realm.subscriptions.update(wait=False) as subs:
        subs.add("Dog", "_id > 7")
    return realm.subscriptions.wait_for_synchronization_async


@pytest.mark.parametrize("site", ["flexible"], indirect=True)
def test_subscribing_where_another_process_syncs(site: Site) -> None:
    """The process that syncs hears of new subscriptions, also when nothing is written."""
    mine = site.open("a", through_line=True)
    child = site.child("a")
    assert child.ask("subscribe", "_id > 7") == "complete"
    assert [s.query for s in mine.subscriptions] == ["TRUEPREDICATE ", "_id > 7 "]


def test_both_have_unsent_changes(site: Site) -> None:
    """One of them resets, for both: nothing that either wrote offline is lost, and both move on in place."""
    told: list[Any] = []
    reset = {"mode": "recover_unsynced_changes", "on_before": lambda _: told.append("before")}
    mine, other = site.open("a", through_line=True, client_reset=reset), site.open("b")
    write(mine, 1, "Rex")
    write(mine, 2, "Rex")
    mine.upload_all_local_changes(WAIT)
    child = site.child("a", client_reset="recover_unsynced_changes")
    assert child.names() == {1: "Rex", 2: "Rex"}
    site.line.fault(down=True)
    write(mine, 10, "mine")
    child.ask("write", 11, "child")
    write(mine, 1, "mine")
    child.ask("write", 2, "child")  # deleted at the server meanwhile
    other.download_all_server_changes(WAIT)
    write(other, 12, "theirs")
    with other.write() as tx:
        tx.delete("Dog", "_id == 2")
    other.upload_all_local_changes(WAIT)
    before = mine.core.store.file
    site.reset(mine)
    site.line.heal()
    mine.sync_session.reconnect()
    wanted = {1: "mine", 10: "mine", 11: "child", 12: "theirs"}
    assert until(lambda: names(mine) == child.names() == wanted)
    child.ask("upload")
    other.download_all_server_changes(WAIT)
    assert names(other) == wanted
    assert mine.core.store.file != before
    assert child.ask("file") == mine.core.store.file.ident  # type: ignore[union-attr]
    assert told + child.ask("told") == ["before"]
    assert child.ask("lost") == [2]
    assert mine.quarantine()["primary_key"].tolist() == [2]
    # Both can go on: what the one that does not sync writes goes up under the new number.
    child.ask("write", 20, "later")
    child.ask("upload")
    assert until(lambda: names(other) == wanted | {20: "later"})


@pytest.mark.parametrize("site", ["flexible"], indirect=True)
@pytest.mark.parametrize("dies", ["before", "after"])
def test_the_resetting_process_is_killed(site: Site, dies: str) -> None:
    """The other one takes over, wherever the first one was."""
    site.open("a").close()
    child = site.child("a", client_reset="recover_unsynced_changes", dies=dies)
    assert until(lambda: child.ask("state")[1] == "connected")
    child.ask("write", 1, "Rex")
    child.ask("upload")
    now = rf.OpenRealmBehaviorConfiguration("open_immediately")
    mine, other = site.open("a", through_line=True, existing_realm_file_behavior=now), site.open("b")
    assert mine.sync_session.connection_state == "disconnected"
    site.line.fault(down=True)
    assert until(lambda: child.ask("state")[1] != "connected")
    write(mine, 2, "offline")
    child.ask("write", 3, "child")
    site.reset(mine)
    site.line.heal()
    assert child.process.wait(WAIT) == -signal.SIGKILL
    mine.upload_all_local_changes(WAIT)
    mine.download_all_server_changes(WAIT)
    other.download_all_server_changes(WAIT)
    assert names(mine) == names(other) == {1: "Rex", 2: "offline", 3: "child"}
    assert mine.quarantine().empty
    assert not (mine.path / "fresh").exists()


@pytest.mark.parametrize("site", ["flexible"], indirect=True)
def test_manual(site: Site) -> None:
    """Each process is told, one after the other; the last one to close moves the files aside."""
    site.open("a").close()
    child = site.child("a", client_reset="manual")
    assert until(lambda: child.ask("state")[1] == "connected")
    child.ask("write", 1, "Rex")
    child.ask("upload")
    told: list[str] = []
    now = rf.OpenRealmBehaviorConfiguration("open_immediately")
    manual = {"mode": "manual", "on_manual": lambda _session, path: told.append(path)}
    mine = site.open("a", through_line=True, existing_realm_file_behavior=now, client_reset=manual)
    path = mine.path
    site.reset(mine)
    assert until(lambda: child.ask("told"))
    assert child.ask("state") == ["inactive", "disconnected"]
    # The one that failed lets go of the realm: the other one takes over, and learns it from the server itself.
    assert until(lambda: told)
    assert mine.sync_session.state == "inactive"
    assert told == child.ask("told")
    write(mine, 2, "offline")
    child.ask("close")
    assert path.exists()
    mine.close()
    assert not path.exists()
    with rf.Realm.open(path=told[0], schema=[DOG], read_only=True) as copy:
        assert names(copy) == {1: "Rex", 2: "offline"}
    assert names(site.open("a")) == {1: "Rex"}
