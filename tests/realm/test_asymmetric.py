"""Asymmetric classes: their objects go up to the server, and nothing of them is kept on the client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.server.admin import order
from realmframe.store import RealmStore, state
from realmframe.testing import Server
from tests.waiting import WAIT

READING = {
    "name": "Reading",
    "asymmetric": True,
    "primaryKey": "_id",
    "properties": {"_id": "int", "value": "double", "tags": "string[]", "where": "Place"},
}
PLACE = {"name": "Place", "embedded": True, "properties": {"room": "string"}}
DOG = {"name": "Dog", "primaryKey": "_id", "properties": {"_id": "int", "name": "string?"}}
SCHEMA = [READING, PLACE, DOG]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server; each test has an app of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def open_realm(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., rf.Realm]]:
    """Open a realm that sees all dogs."""
    made: list[rf.Realm] = []
    app_id = f"app{abs(hash(request.node.name)) % 10**8}"

    def make(name: str, **sync: Any) -> rf.Realm:
        app = rf.App(app_id, base_url=server.url, base_file_path=tmp_path / name)
        user = app.current_user or app.log_in(rf.Credentials.anonymous())
        settings = {"flexible": True, "initial_subscriptions": lambda subs, _realm: subs.add("Dog")} | sync
        made.append(rf.Realm.open(path="r.realm", schema=SCHEMA, sync=rf.SyncConfiguration(user, **settings)))
        return made[-1]

    make.app_id = app_id  # type: ignore[attr-defined]
    yield make
    for realm in made:
        realm.close()


def reading(key: int, value: float = 1.5) -> dict[str, Any]:
    """Make a reading."""
    return {"_id": key, "value": value, "tags": ["a", "b"], "where": {"room": "cellar"}}


def at_server(server: Server, opener: Any) -> dict[int, dict[str, Any]]:
    """Give what the server has of readings."""
    engine = server._server.config.app.state.engine
    (history,) = [realm.history for (app, _), realm in engine._realms.items() if app == opener.app_id]
    table = history.snapshot.tables["Reading"]
    return {table.row(n)["_id"]: table.row(n) for n in range(len(table))}


def held(store: RealmStore) -> int:
    """Count the readings that are kept here."""
    return store.snapshot.num_rows("Reading")


@pytest.mark.parametrize("in_blocks", [False, True])
def test_uploaded_and_not_kept(
    server: Server, open_realm: Any, monkeypatch: pytest.MonkeyPatch, in_blocks: bool
) -> None:
    """Each object is whole at the server and never here, also after a restart; it needs no subscription."""
    if in_blocks:  # the way of large changesets
        monkeypatch.setattr(state, "_BLOCKWISE", 1)
    with open_realm("a") as mine, open_realm("b") as other:
        seen: list[int] = []
        mine.core.store.listen(lambda news: seen.append(news.snapshot.num_rows("Reading")))
        mine.sync_session.pause()
        with mine.write() as tx:
            tx.create("Reading", [reading(1), reading(2, 2.5)])
            tx.create("Dog", {"_id": 1, "name": "Rex"})
        assert held(mine.core.store) == 0
        assert set(seen) == {0}
        assert mine["Dog"].name.tolist() == ["Rex"]
        with mine.write() as tx:
            tx.create("Reading", reading(1, 3.5))  # nothing here says that there was one already
        with RealmStore.open(mine.path, read_only=True) as replayed:
            assert held(replayed) == 0
            assert len(replayed.pending()) == 2
        mine.core.store.checkpoint()
        mine.sync_session.resume()
        mine.upload_all_local_changes(WAIT)
        found = at_server(server, open_realm)
        assert {key: row["value"] for key, row in found.items()} == {1: 3.5, 2: 2.5}
        assert found[2]["tags"] == ["a", "b"]
        assert dict(found[2]["where"]) == {"room": "cellar"}
        other.download_all_server_changes(WAIT)
        other.refresh()
        assert (held(other.core.store), other["Dog"].name.tolist()) == (0, ["Rex"])
    with open_realm("a") as again:
        again.download_all_server_changes(WAIT)
        assert held(again.core.store) == 0
        assert again.quarantine().empty


def test_what_cannot_be_done(open_realm: Any) -> None:
    """Objects that are not kept cannot be read, changed, deleted or subscribed to; keys within a transaction differ."""
    with open_realm("a") as mine:
        calls: list[Callable[[], Any]] = [
            lambda: mine["Reading"],
            lambda: mine.subscriptions.find_by_query("Reading"),
        ]
        for call in calls:
            with pytest.raises(rf.UsageError, match="Reading is asymmetric"):
                call()
        with pytest.raises(rf.UsageError, match="asymmetric"), mine.subscriptions.update() as subs:
            subs.add("Reading")
        writes: list[Callable[[Any], Any]] = [
            lambda tx: tx.update("Reading", value=1.0),
            lambda tx: tx.delete("Reading"),
            lambda tx: tx.object("Reading", 1),
            lambda tx: tx.increment("Reading", 1, "value"),
            lambda tx: tx.frame("Reading"),
        ]
        for write in writes:
            with pytest.raises(rf.UsageError, match="asymmetric"), mine.write() as tx:
                write(tx)
        with pytest.raises(rf.WriteError), mine.write() as tx:
            tx.create("Reading", [reading(1), reading(1)])
        assert "Reading" in mine.schema


@pytest.mark.parametrize("sync", [None, {"partition_value": "p"}], ids=["local", "partition"])
def test_where_they_are_refused(server: Server, tmp_path: Path, sync: dict[str, Any] | None) -> None:
    """As in the SDKs: a local realm and partition-based sync cannot have them."""
    configuration = None
    if sync is not None:
        user = rf.App("refused", base_url=server.url, base_file_path=tmp_path).log_in(rf.Credentials.anonymous())
        configuration = rf.SyncConfiguration(user, **sync)
    with pytest.raises(rf.SchemaError, match="Reading is asymmetric"):
        rf.Realm.open(path="x.realm", schema=SCHEMA, sync=configuration, **{} if sync else {"base_file_path": tmp_path})


@pytest.mark.parametrize("mode", ["recover_unsynced_changes", "discard_unsynced_changes"])
def test_client_reset(server: Server, open_realm: Any, mode: str) -> None:
    """What was not uploaded yet is recovered to the server, or named with its values in the quarantine; never kept."""
    with open_realm("a", client_reset=mode) as mine:
        mine.upload_all_local_changes(WAIT)
        mine.sync_session.pause()
        with mine.write() as tx:
            tx.create("Reading", reading(7, 7.5))
            tx.create("Dog", {"_id": 1, "name": "Rex"})
        file = mine.core.store.file
        assert file is not None
        data = Path(str(server.data))
        order(data, open_realm.app_id, "reset-client", user=None, file_ident=file.ident, recovery=True)
        mine.sync_session.resume()
        mine.upload_all_local_changes(WAIT)
        mine.download_all_server_changes(WAIT)
        assert mine.sync_session.last_reset is not None
        assert held(mine.core.store) == 0
        lost = mine.quarantine().to_dict("records")
        if mode.startswith("recover"):
            assert (sorted(at_server(server, open_realm)), lost) == ([7], [])
            return
        assert at_server(server, open_realm) == {}
        named = {(r["class"], r["primary_key"]): json.loads(r["values"]) for r in lost}
        assert set(named) == {("Reading", 7), ("Dog", 1)}
        assert named["Reading", 7]["value"] == 7.5
