"""Apps that move from partitions to Flexible Sync and back while clients are away, by the SDKs' rules.

The server is the real one, but for an administrator who moves the data, and has it answer BIND as Atlas does then.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.changes import concat
from realmframe.client.migration import Migration
from realmframe.server.answers import now
from realmframe.store import RealmStore, difference_changeset, objects_changeset, schema_changeset
from realmframe.testing import Server
from realmframe.wire import Action, JsonError, json_error_body
from tests.waiting import WAIT, until

from .test_several_processes import Child

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?", "owner": "string?", "tags": "string[]"}, "_id")
CAT = rf.ObjectSchema("Cat", {"_id": "int", "owner": "string?"}, "_id")
QUERY = 'owner == "me"'


class Moving:
    """A server whose app syncs with partitions first, flexibly after :meth:`migrate`, and so on."""

    def __init__(self, server: Server, app_id: str, folder: Path) -> None:
        self.server, self.app_id, self.folder = server, app_id, folder
        self.engine = server._server.config.app.state.engine
        self.mode = "partition"
        self.query: str | None = QUERY
        self.binds: list[Any] = []
        self.sent: list[int] = []
        self.realms: list[rf.Realm] = []
        self._real = self.engine.admission.bind

    def bind(self, connection: Any, number: int, message: Any) -> None:
        """Answer BIND, in the engine's thread."""
        if connection.app != self.app_id:
            self._real(connection, number, message)
            return
        self.binds.append(message.body)
        code, action, extra = 0, Action.APPLICATION_BUG, {}
        if self.mode == "flexible" and not connection.flexible:
            code, action = 232, Action.MIGRATE_TO_FLX
            extra = {} if self.query is None else {"partitionQuery": self.query}
        elif self.mode == "partition" and connection.flexible and "migratedPartition" in message.body:
            code, action = 234, Action.REVERT_TO_PBS
        if code:
            self.sent.append(code)
            connection.send(JsonError(number, code, json_error_body("the app has moved", action=action, **extra)))
        else:
            self._real(connection, number, message)

    def migrate(self) -> None:
        """Move the data to Flexible Sync."""
        self.engine.call(lambda engine: self._move(engine, 'partition "mine"', "flx")).result(WAIT)
        self.mode = "flexible"

    def revert(self) -> None:
        """Move it back."""
        self.engine.call(lambda engine: self._move(engine, "flx", 'partition "mine"')).result(WAIT)
        self.mode = "partition"

    def _move(self, engine: Any, source: str, target: str) -> None:
        have = engine.realm(self.app_id, target).history
        wanted = engine.realm(self.app_id, source).history.snapshot
        if have.snapshot.tables:
            changes = difference_changeset(have.snapshot, wanted)
        else:
            objects = [objects_changeset(wanted, name) for name, table in wanted.tables.items() if len(table)]
            changes = concat([schema_changeset(wanted.schema), *objects])
        have.append_own(changes, now())

    def user(self, name: str) -> rf.User:
        """Log in."""
        app = rf.App(self.app_id, base_url=self.server.url, base_file_path=self.folder / name)
        return app.current_user or app.log_in(rf.Credentials.anonymous())

    def open(self, name: str, *, flexible: bool = False, schema: Any = (DOG,), **sync: Any) -> rf.Realm:
        """Open with the partition, or flexibly."""
        how: dict[str, Any] = {"partition_value": "mine"}
        if flexible:
            how = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog", QUERY)}
        configuration = rf.SyncConfiguration(self.user(name), **how | sync)
        self.realms.append(rf.Realm.open(path="dogs.realm", schema=list(schema), sync=configuration))
        return self.realms[-1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server; each test has an app of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def moving(
    server: Server, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Moving]:
    """Have the server of one app move."""
    made = Moving(server, f"app{abs(hash(request.node.name)) % 10**8}", tmp_path)
    monkeypatch.setattr(made.engine.admission, "bind", made.bind)
    monkeypatch.setattr(made.engine.admission, "_flexible", lambda _app, *, flexible: flexible)
    yield made
    for realm in made.realms:
        realm.close()


def write(realm: rf.Realm, key: int, name: str) -> None:
    """Write a dog."""
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key, "name": name, "owner": "me", "tags": ["a"]}])


def settle(realm: rf.Realm) -> dict[int, str]:
    """Exchange everything; give the names by key."""
    realm.upload_all_local_changes(WAIT)
    realm.download_all_server_changes(WAIT)
    realm.refresh()
    return dict(zip(realm["Dog"]["_id"].tolist(), realm["Dog"]["name"].tolist(), strict=True))


def away(realm: rf.Realm, key: int) -> None:
    """Write while the session is paused."""
    realm.sync_session.pause()
    write(realm, key, "offline")


@pytest.mark.parametrize("mode", ["recover_unsynced_changes", "recover_or_discard_unsynced_changes", "manual"])
def test_there_and_back(moving: Moving, mode: str) -> None:
    """A realm follows its server, with what was written meanwhile; it is opened with its partition all the time."""
    reset: Any = mode if mode != "manual" else {"mode": mode, "on_manual": lambda *_: None}
    mine = moving.open("a", client_reset=reset)
    write(mine, 1, "Rex")
    assert settle(mine) == {1: "Rex"}
    frame = mine["Dog"]
    away(mine, 2)
    moving.migrate()
    mine.sync_session.resume()
    assert settle(mine) == {1: "Rex", 2: "offline"}
    assert len(frame) == 2
    assert mine.sync_session.options.flexible
    assert [(s.name, s.class_name, s.query) for s in mine.subscriptions] == [("flx_migrated_Dog", "Dog", QUERY)]
    assert mine.subscriptions.state == "complete"
    other = moving.open("b", flexible=True)
    assert settle(other) == {1: "Rex", 2: "offline"}
    assert moving.sent == [232]
    fresh, migrated = (b for b in moving.binds if isinstance(b, dict) and b["sessionReason"] == 1)
    assert "migratedPartition" not in fresh
    assert migrated["migratedPartition"] == '"mine"'
    # Over a restart, with the same configuration as ever.
    mine.close()
    mine = moving.open("a", client_reset=reset)
    write(mine, 3, "later")
    write(other, 4, "theirs")
    settle(mine)
    settle(other)
    wanted = {1: "Rex", 2: "offline", 3: "later", 4: "theirs"}
    assert settle(mine) == settle(other) == wanted
    assert moving.sent == [232]
    assert moving.binds[-1]["migratedPartition"] == '"mine"' or moving.binds[-2]["migratedPartition"] == '"mine"'
    # And back.
    other.close()
    away(mine, 5)
    moving.revert()
    mine.sync_session.resume()
    assert settle(mine) == wanted | {5: "offline"}
    assert moving.sent == [232, 234]
    assert not mine.sync_session.options.flexible
    assert len(mine.subscriptions) == 0
    assert Migration.of(mine.core.store) is None
    assert settle(moving.open("c")) == wanted | {5: "offline"}
    mine.close()
    mine = moving.open("a", client_reset=reset)
    write(mine, 6, "again")
    assert settle(mine) == wanted | {5: "offline", 6: "again"}
    assert moving.sent == [232, 234]
    assert mine.quarantine().empty


def test_unsent_changes_are_discarded_if_so_configured(moving: Moving) -> None:
    """The mode of client reset holds for a migration too."""
    mine = moving.open("a", client_reset="discard_unsynced_changes")
    write(mine, 1, "Rex")
    settle(mine)
    away(mine, 2)
    moving.migrate()
    mine.sync_session.resume()
    mine.download_all_server_changes(WAIT)
    assert settle(mine) == {1: "Rex"}
    assert mine.quarantine()["primary_key"].tolist() == [2]


def test_a_realm_that_is_new(moving: Moving) -> None:
    """An open that waits for everything does, though the first answer to it is that the app has moved."""
    with moving.open("b") as other:
        write(other, 1, "Rex")
        settle(other)
    moving.migrate()
    with moving.open("a") as mine:
        assert mine["Dog"].name.tolist() == ["Rex"]
        write(mine, 2, "Max")
        assert settle(mine) == {1: "Rex", 2: "Max"}
        assert moving.sent == [232]


def test_new_classes(moving: Moving) -> None:
    """A migrated realm subscribes to classes that come later, from the server or from its own schema."""
    mine = moving.open("a")
    write(mine, 1, "Rex")
    settle(mine)
    mine.sync_session.pause()
    moving.migrate()
    mine.sync_session.resume()
    settle(mine)
    with moving.open("b", flexible=True, schema=(DOG, CAT)) as other:
        with other.subscriptions.update(timeout=WAIT) as subs:
            subs.add("Cat")
        with other.write() as tx:
            tx.create("Cat", {"_id": 7, "owner": "me"})
        settle(other)
    # Nothing of the class comes by itself, so its schema has to: the real server tells it with the next bootstrap.
    mine.close()
    mine = moving.open("a", schema=(DOG, CAT))
    assert {s.name for s in mine.subscriptions} == {"flx_migrated_Dog", "flx_migrated_Cat"}
    with mine.write() as tx:
        tx.create("Cat", {"_id": 8, "owner": "me"})
    mine.subscriptions.wait_for_synchronization(WAIT)
    settle(mine)
    mine.refresh()
    assert sorted(mine["Cat"]._id.tolist()) == [7, 8]


def test_opened_flexibly(moving: Moving) -> None:
    """The app follows: what was not sent goes up as that of a migrated realm, then it is an ordinary flexible one."""
    mine = moving.open("a")
    write(mine, 1, "Rex")
    settle(mine)
    mine.sync_session.pause()
    moving.migrate()
    mine.sync_session.resume()
    settle(mine)
    away(mine, 2)
    mine.close()
    mine = moving.open("a", flexible=True)
    assert settle(mine) == {1: "Rex", 2: "offline"}
    assert until(lambda: Migration.of(mine.core.store) is None)
    owner = mine.core.store.owner
    assert owner is not None
    assert owner.partition is None
    assert until(lambda: "migratedPartition" not in moving.binds[-1])
    write(mine, 3, "native")
    assert settle(mine) == {1: "Rex", 2: "offline", 3: "native"}
    with mine.subscriptions.update(timeout=WAIT) as subs:
        subs.remove_all()
        subs.add("Dog", "_id == 3")
    assert settle(mine) == {3: "native"}
    mine.close()
    with pytest.raises(rf.UsageError, match="was made"):
        moving.open("a")
    with moving.open("b", flexible=True) as other:
        assert settle(other) == {1: "Rex", 2: "offline", 3: "native"}
    assert moving.sent == [232]


def test_another_process_follows(moving: Moving) -> None:
    """One process migrates for all that have the realm open: who syncs it next does so flexibly, without being told."""
    mine = moving.open("a")
    write(mine, 1, "Rex")
    settle(mine)
    child = Child(moving.server.url, moving.folder / "a", moving.app_id, partition_value="mine")
    try:
        moving.migrate()
        moving.engine.end_user(moving.app_id, mine.sync_session.options.user_id)  # its connection is closed
        assert until(lambda: mine.sync_session.options.flexible)
        write(mine, 2, "mine")
        settle(mine)
        mine.close()
        child.ask("write", 1, "child")
        child.ask("upload")
        assert child.names() == {1: "child", 2: "mine"}
        assert moving.sent == [232]
        assert moving.binds[-1]["migratedPartition"] == '"mine"'
    finally:
        child.end()


@pytest.mark.parametrize("query", [None, ""])
def test_a_server_that_does_not_say_how(moving: Moving, query: str | None) -> None:
    """Without a query nothing can be migrated: the session ends with the reason, and the realm stays as it is."""
    mine = moving.open("a")
    write(mine, 1, "Rex")
    settle(mine)
    away(mine, 2)
    moving.migrate()
    moving.query = query
    mine.sync_session.resume()
    with pytest.raises(rf.SyncError, match="does not say how") as caught:
        mine.download_all_server_changes(WAIT)
    assert (caught.value.code, mine.sync_session.state) == (232, "inactive")
    mine.refresh()
    assert mine["Dog"].name.tolist() == ["Rex", "offline"]
    moving.query = QUERY
    mine.sync_session.resume()
    assert settle(mine) == {1: "Rex", 2: "offline"}


KILLED = """
import os, signal, sys
import realmframe as rf
from realmframe.store import RealmStore

step, url, base, app_id = sys.argv[1:]
real = RealmStore.reset

def reset(self, make):
    if step == "after":
        real(self, make)
    os.kill(os.getpid(), signal.SIGKILL)

RealmStore.reset = reset
app = rf.App(app_id, base_url=url, base_file_path=base)
realm = rf.Realm.open(path="dogs.realm", sync=rf.SyncConfiguration(app.current_user, partition_value="mine"))
"""


@pytest.mark.parametrize(("step", "told"), [("before", 2), ("after", 1)])
def test_killed_while_migrating(moving: Moving, step: str, told: int) -> None:
    """A process that is killed leaves a realm that is migrated as a whole, or not at all."""
    mine = moving.open("a")
    write(mine, 1, "Rex")
    settle(mine)
    away(mine, 2)
    mine.close()
    moving.migrate()
    folder = str(moving.folder / "a")
    arguments = [sys.executable, "-c", KILLED, step, moving.server.url, folder, moving.app_id]
    done = subprocess.run(arguments, timeout=60, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    with RealmStore.open(moving.folder / "a" / "dogs.realm", read_only=True) as left:
        assert (Migration.of(left) is not None, bool(left.subscriptions)) == ((step == "after"),) * 2
    mine = moving.open("a")
    assert settle(mine) == {1: "Rex", 2: "offline"}
    assert moving.sent == [232] * told
