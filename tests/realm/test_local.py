"""Realms without sync: the same API, no network code."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.realm.core import is_open
from tests.waiting import WAIT

SCHEMA = [
    rf.ObjectSchema(
        "Flight", {"_id": "int", "carrier": "string", "dep_delay": "double?", "n": "int", "plane": "Plane?"}, "_id"
    ),
    {"name": "Plane", "primaryKey": "_id", "properties": {"_id": "string", "seats": "int?"}},
]


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[rf.Realm]:
    """Open a new local realm."""
    with rf.Realm.open(path=tmp_path / "notes.realm", schema=SCHEMA) as made:
        yield made


def rows(realm: rf.Realm, name: str = "Flight") -> list[dict[str, Any]]:
    """Give a class as dicts."""
    return realm[name].to_dict("records")


def test_write_and_read(realm: rf.Realm) -> None:
    """What a transaction writes is in the frame when the block ends."""
    flights = realm["Flight"]
    with realm.write() as tx:
        tx.create("Plane", {"_id": "N1", "seats": 180})
        tx.create("Flight", {"_id": 1, "carrier": "UA", "n": 0, "plane": rf.Link("Plane", "N1")})
        tx.upsert(
            "Flight", [{"_id": 2, "carrier": "AA", "n": 0}, {"_id": 3, "carrier": "UA", "n": 0, "dep_delay": 5.0}]
        )
    assert list(flights._id) == [1, 2, 3]
    assert list(flights.carrier) == ["UA", "AA", "UA"]
    assert rows(realm)[0]["plane"] == "N1"
    assert not flights.realm.is_stale


def test_an_exception_drops_everything(realm: rf.Realm) -> None:
    """A transaction that raises leaves nothing."""
    version = realm.snapshot.version
    with pytest.raises(ZeroDivisionError), realm.write() as tx:
        tx.create("Plane", {"_id": str(1 // len(tx.frame("Plane")))})
    assert len(realm["Plane"]) == 0
    assert realm.snapshot.version == version


def test_a_transaction_reads_its_own_writes(realm: rf.Realm) -> None:
    """Calls see what the calls before them wrote, and all is one version."""
    version = realm.snapshot.version
    with realm.write() as tx:
        tx.create("Flight", {"_id": 1, "carrier": "UA", "n": 1})
        tx.increment("Flight", 1, "n", 4)
        tx.increment("Flight", 1, "n", -2)
        assert tx.update("Flight", 1, carrier="AA") == 1
        tx.create("Flight", {"_id": 2, "carrier": "XX", "n": 1})
        assert tx.delete("Flight", [2]) == 1
    assert [(r["_id"], r["carrier"], r["n"]) for r in rows(realm)] == [(1, "AA", 3)]
    assert realm.snapshot.version == version + 1


def test_update_and_delete_by_mask(realm: rf.Realm) -> None:
    """A mask over the live frame names the objects."""
    with realm.write() as tx:
        tx.upsert("Flight", [{"_id": i, "carrier": "UA" if i % 2 else "AA", "n": i} for i in range(6)])
    flights = realm["Flight"]
    with realm.write() as tx:
        assert tx.update("Flight", flights.carrier == "UA", n=100) == 3
        assert tx.delete("Flight", flights._id > 3) == 2
    assert [(r["_id"], r["n"]) for r in rows(realm)] == [(0, 0), (1, 100), (2, 2), (3, 100)]
    with pytest.raises(rf.UsageError, match="mask"), realm.write() as tx:
        tx.update("Flight", flights.n.iloc[:2] > 0, n=1)


def test_update_and_delete_by_query(realm: rf.Realm) -> None:
    """A query names the objects."""
    with realm.write() as tx:
        tx.upsert("Flight", [{"_id": i, "carrier": "UA" if i % 2 else "AA", "n": i} for i in range(6)])
    with realm.write() as tx:
        assert tx.update("Flight", "carrier == 'UA'", dep_delay=None, n=7) == 3
        assert tx.delete("Flight", "n == $0", 4) == 1
    assert [(r["_id"], r["n"]) for r in rows(realm)] == [(0, 0), (1, 7), (2, 2), (3, 7), (5, 7)]


def test_an_edited_frame_becomes_minimal_updates(realm: rf.Realm) -> None:
    """tx.frame gives an ordinary frame whose difference is written: one cell here."""
    with realm.write() as tx:
        tx.upsert("Flight", [{"_id": i, "carrier": "UA", "n": i, "dep_delay": 1.0} for i in range(4)])
    with realm.write() as tx:
        edit = tx.frame("Flight")
        edit.loc[edit._id == 1, "dep_delay"] = 9.0
    assert [(r["_id"], r["dep_delay"]) for r in rows(realm)] == [(0, 1.0), (1, 9.0), (2, 1.0), (3, 1.0)]
    applied = realm.core.store.past()[-1]
    assert {name: len(ids) for name, ids in applied.touched["Flight"].modified.items()} == {"dep_delay": 1}


MISTAKES: list[tuple[str, Any]] = [
    ("Flght", lambda tx: tx.create("Flght", {"_id": 1})),
    ("carier", lambda tx: tx.create("Flight", {"_id": 1, "carier": "UA"})),
    ("_id", lambda tx: tx.create("Flight", {"carrier": "UA"})),
    ("n", lambda tx: tx.create("Flight", {"_id": 1, "carrier": "UA", "n": "x"})),
    ("already", lambda tx: [tx.create("Plane", {"_id": "a"}), tx.create("Plane", {"_id": "a"})]),
    ("primary key", lambda tx: [tx.create("Plane", {"_id": "a"}), tx.update("Plane", None, _id="b")]),
    ("no integer", lambda tx: tx.increment("Flight", 1, "carrier", 1)),
    ("no object", lambda tx: tx.increment("Flight", 1, "n", 1)),
    ("no field", lambda tx: tx.update("Flight", None)),
]


@pytest.mark.parametrize(("text", "call"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistakes_in_a_transaction(realm: rf.Realm, text: str, call: Any) -> None:
    """Each mistake is a WriteError that names what is wrong, and nothing is written."""
    with pytest.raises(rf.WriteError, match=text), realm.write() as tx:
        call(tx)
    assert len(realm["Flight"]) == len(realm["Plane"]) == 0


def test_transactions_do_not_nest(realm: rf.Realm) -> None:
    """A second transaction in the same thread is refused, and one that ended takes nothing more."""
    with realm.write() as tx, pytest.raises(rf.UsageError, match="open in this thread"), realm.write():
        pass
    with pytest.raises(rf.ClosedError):
        tx.create("Plane", {"_id": "a"})


def test_on_first_open(tmp_path: Path) -> None:
    """Called once, with the realm open; where it fails there is no realm, and the next open is the first."""
    called: list[str] = []

    def fill(realm: rf.Realm) -> None:
        called.append(realm.path.name)
        with realm.write() as tx:
            tx.upsert("Dog", {"_id": 1})
        if len(called) == 1:
            raise ValueError("mine")

    keywords: dict[str, Any] = {
        "path": tmp_path / "a.realm",
        "schema": [{"name": "Dog", "primaryKey": "_id", "properties": {"_id": "int"}}],
        "on_first_open": fill,
    }
    with pytest.raises(ValueError, match="mine"):
        rf.Realm.open(**keywords)
    assert not rf.Realm.exists(path=tmp_path / "a.realm")
    assert not is_open(tmp_path / "a.realm")
    for _ in range(2):
        with rf.Realm.open(**keywords) as realm:
            assert len(realm["Dog"]) == 1
    assert called == ["a.realm"] * 2


def test_reopen(tmp_path: Path) -> None:
    """What was written is there when the realm is opened again, with or without a schema."""
    path = tmp_path / "notes.realm"
    with rf.Realm.open(path=path, schema=SCHEMA) as realm, realm.write() as tx:
        tx.create("Plane", {"_id": "N1", "seats": 2})
    with rf.Realm.open(path=path) as realm:
        assert rows(realm, "Plane") == [{"_id": "N1", "seats": 2}]
        assert realm.schema["Flight"].primary_key == "_id"


def test_schema_grows_and_never_contradicts(tmp_path: Path) -> None:
    """Classes and properties are added; a changed type is a SchemaMismatchError naming both types."""
    path = tmp_path / "notes.realm"
    first = {"name": "A", "primaryKey": "_id", "properties": {"_id": "int"}}
    with rf.Realm.open(path=path, schema=[first]) as realm, realm.write() as tx:
        tx.create("A", {"_id": 1})
    more = {"name": "A", "primaryKey": "_id", "properties": {"_id": "int", "x": "string?"}}
    with rf.Realm.open(path=path, schema=[more]) as realm:
        assert list(realm["A"].columns) == ["_id", "x"]
        assert realm["A"].x.isna().tolist() == [True]
    other = {"name": "A", "primaryKey": "_id", "properties": {"_id": "int", "x": "double?"}}
    with pytest.raises(rf.SchemaMismatchError, match=r"A\.x.*double\?.*string\?"):
        rf.Realm.open(path=path, schema=[other])
    with pytest.raises(rf.SchemaMismatchError, match="primary key"):
        rf.Realm.open(path=path, schema=[{"name": "A", "properties": {"_id": "int"}}])
    with rf.Realm.open(path=path) as realm:
        assert len(realm["A"]) == 1


def test_changes_name_keys(realm: rf.Realm) -> None:
    """changes() gives the keys that were inserted, modified and deleted, moving the frames along."""
    with realm.write() as tx:
        tx.upsert("Flight", [{"_id": i, "carrier": "UA", "n": i} for i in range(3)])
    other = rf.Realm.open(path=realm.path)

    def write() -> None:
        with other.write() as tx:
            tx.update("Flight", 1, n=50)
            tx.delete("Flight", [0])
            tx.create("Flight", {"_id": 9, "carrier": "AA", "n": 9})

    thread = threading.Timer(0.05, write)
    thread.start()
    change = next(iter(realm.changes(timeout=WAIT)))
    thread.join()
    other.close()
    flights = change["Flight"]
    assert list(flights.inserted._id) == [9]
    assert list(flights.modified._id) == [1]
    assert list(flights.deleted._id) == [0]
    assert len(change["Plane"].inserted) == 0
    assert change.version == realm.snapshot.version
    assert list(realm["Flight"]._id) == [1, 2, 9]


def test_changes_end(realm: rf.Realm) -> None:
    """changes(timeout) ends when nothing happens; wait_for_changes says so."""
    assert list(realm.changes(timeout=0.05)) == []
    assert not realm.wait_for_changes(timeout=0.0)


def test_closed(realm: rf.Realm) -> None:
    """A closed realm says so, and closing twice does nothing."""
    realm.close()
    realm.close()
    assert realm.is_closed
    for call in (lambda: realm["Flight"], realm.refresh, lambda: realm.write().__enter__(), realm.quarantine):
        with pytest.raises(rf.ClosedError):
            call()


def test_sync_calls_on_a_local_realm(realm: rf.Realm) -> None:
    """What needs sync says that the realm has none."""
    for call in (lambda: realm.sync_session, lambda: realm.upload_all_local_changes(1.0)):
        with pytest.raises(rf.UsageError, match="does not sync"):
            call()
    with pytest.raises(rf.UsageError, match="Flexible Sync"), realm.subscriptions.update():
        pass


def test_read_only(tmp_path: Path) -> None:
    """A read-only realm must exist, reads, and refuses to write."""
    path = tmp_path / "notes.realm"
    with pytest.raises(rf.StorageError):
        rf.Realm.open(path=path, read_only=True)
    rf.Realm.open(path=path, schema=SCHEMA).close()
    with rf.Realm.open(path=path, read_only=True) as realm:
        assert len(realm["Flight"]) == 0
        with pytest.raises(rf.ReadOnlyError), realm.write():
            pass


def test_exists_and_delete(tmp_path: Path) -> None:
    """delete_files removes a realm that is closed and refuses one that is open."""
    path = tmp_path / "notes.realm"
    assert not rf.Realm.exists(path=path)
    with rf.Realm.open(path=path, schema=SCHEMA):
        assert rf.Realm.exists(path=path)
        with pytest.raises(rf.StorageError, match="open"):
            rf.Realm.delete_files(path=path)
    rf.Realm.delete_files(path=path)
    assert not rf.Realm.exists(path=path)
    rf.Realm.delete_files(path=path)


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    """A symbolic link inside base_file_path does not lead a relative path out of it."""
    (tmp_path / "base").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "base" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(rf.UsageError, match="leads out"):
        rf.Realm.open(path="sub/a.realm", schema=SCHEMA, base_file_path=tmp_path / "base")
    assert not list((tmp_path / "outside").iterdir())


def test_write_copy_to(realm: rf.Realm, tmp_path: Path) -> None:
    """A copy holds the same objects and refuses to replace a realm."""
    with realm.write() as tx:
        tx.create("Plane", {"_id": "N1", "seats": 2})
        tx.create("Flight", {"_id": 1, "carrier": "UA", "n": 3, "plane": rf.Link("Plane", "N1")})
    realm.write_copy_to(tmp_path / "copy.realm")
    with rf.Realm.open(path=tmp_path / "copy.realm") as copy:
        assert rows(copy) == rows(realm)
        assert rows(copy, "Plane") == rows(realm, "Plane")
    with pytest.raises(rf.UsageError, match="already"):
        realm.write_copy_to(tmp_path / "copy.realm")
    realm.write_copy_to(tmp_path / "other.realm")
    rf.Realm.delete_files(path=tmp_path / "other.realm")  # refused for a realm that is still open


def test_the_past(realm: rf.Realm) -> None:
    """as_of shows an earlier version, history lists what happened."""
    with realm.write() as tx:
        tx.create("Plane", {"_id": "N1", "seats": 2})
    version = realm.snapshot.version
    with realm.write() as tx:
        tx.update("Plane", ["N1"], seats=3)
    assert list(realm.as_of(version)["Plane"].seats) == [2]
    assert list(realm["Plane"].seats) == [3]
    history = realm.history("Plane")
    assert list(history.version)[-2:] == [version, version + 1]
    assert list(history.inserted)[-2:] == [1, 0]
    assert list(history.modified)[-2:] == [0, 1]


def test_other_engines(realm: rf.Realm) -> None:
    """The dataset and SQL read the version shown."""
    with realm.write() as tx:
        tx.upsert("Flight", [{"_id": i, "carrier": "UA" if i % 2 else "AA", "n": i} for i in range(6)])
    assert realm.dataset("Flight").count_rows() == 6
    pytest.importorskip("duckdb")
    found = realm.sql("select carrier, sum(n) as n from Flight group by 1 order by 1")
    assert found.to_dict("records") == [{"carrier": "AA", "n": 6}, {"carrier": "UA", "n": 9}]
    with pytest.raises(rf.UsageError):
        realm.sql("select nonsense from Flight")


@pytest.mark.process
def test_two_processes(realm: rf.Realm) -> None:
    """What another process commits is seen here."""
    code = f"""
        import realmframe as rf
        with rf.Realm.open(path={str(realm.path)!r}) as realm, realm.write() as tx:
            tx.create("Plane", {{"_id": "other", "seats": 1}})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    assert realm.wait_for_changes(timeout=60.0)
    assert list(realm["Plane"]._id) == ["other"]
    assert process.wait(30) == 0


def test_local_needs_no_network_code() -> None:
    """Opening a local realm imports no HTTP library."""
    code = """
        import sys, tempfile
        import realmframe as rf
        with tempfile.TemporaryDirectory() as folder:
            rf.Realm.open(path=folder + "/a.realm", schema=[]).close()
        print(sorted({m.split(".")[0] for m in sys.modules} & {"httpx", "httpx_ws", "httpcore", "anyio"}))
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_an_empty_quarantine_has_its_columns(realm: rf.Realm) -> None:
    """Code that filters the quarantine works before anything is in it."""
    lost = realm.quarantine()
    assert list(lost.columns) == ["class", "primary_key", "reason", "values", "when", "kind", "copy"]
    assert lost.empty
    assert str(lost.when.dtype) == "datetime64[us, UTC]"
