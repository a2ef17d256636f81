"""Classes without primary key: local realms have them, with a key of their own for each object; synced ones do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf

SCHEMA = [
    rf.ObjectSchema("Dog", {"name": "string", "age": "int", "friend": "Dog", "tags": "string[]"}),
    rf.ObjectSchema("Owner", {"_id": "int", "dog": "Dog"}, "_id"),
]


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[rf.Realm]:
    """Open a local realm."""
    with rf.Realm.open(path=tmp_path / "dogs.realm", schema=SCHEMA) as made:
        yield made


def dogs(realm: rf.Realm) -> list[tuple[str, int, list[str]]]:
    """Give all dogs."""
    return [(d.name, d.age, list(d.tags)) for d in realm["Dog"].itertuples()]


def test_equal_objects_are_several(realm: rf.Realm) -> None:
    """Each record is an object of its own, though all values are equal; reopening keeps them."""
    with realm.write() as tx:
        keys = tx.create("Dog", [{"name": "Rex", "age": 3}] * 3)
        one = tx.create("Dog", {"name": "Rex", "age": 3})
    assert len(set(keys.to_pylist() + one.to_pylist())) == 4
    assert realm["Dog"].realm.keys.to_pylist() == keys.to_pylist() + one.to_pylist()
    assert dogs(realm) == [("Rex", 3, [])] * 4
    realm.close()
    with rf.Realm.open(path=realm.path) as again:
        assert again["Dog"].realm.keys.to_pylist() == keys.to_pylist() + one.to_pylist()


def test_links_by_key(realm: rf.Realm) -> None:
    """A key from tx.create, or of a row of a frame, is what a link is written as and shown as."""
    with realm.write() as tx:
        (rex,) = tx.create("Dog", {"name": "Rex", "age": 3}).to_pylist()
        tx.create("Dog", {"name": "Ada", "age": 1, "friend": rex})
    ada = realm["Dog"].filtered("name == 'Ada'").realm.keys[0].as_py()
    with realm.write() as tx:
        tx.create("Owner", [{"_id": 1, "dog": ada}, {"_id": 2, "dog": rf.Link("Dog", rex)}])
    assert list(realm["Owner"].dog) == [ada, rex]
    assert list(realm["Owner"].filtered("dog.friend.name == 'Rex'")._id) == [1]
    with realm.write() as tx:
        assert tx.delete("Dog", [rex]) == 1
    assert list(realm["Owner"].dog.isna()) == [False, True]


def test_update_and_delete(realm: rf.Realm) -> None:
    """Queries, masks over the live frame and keys name the objects."""
    with realm.write() as tx:
        keys = tx.create("Dog", [{"name": n, "age": a} for n, a in (("Rex", 1), ("Ada", 2), ("Rex", 3), ("Bo", 4))])
    live = realm["Dog"]
    with realm.write() as tx:
        assert tx.update("Dog", "name == 'Rex'", age=9) == 2
        assert tx.update("Dog", live.name == "Ada", tags=["small"]) == 1
        assert tx.update("Dog", [keys[3].as_py()], name="Eve", age=5) == 1
        tx.object("Dog", keys[0].as_py())["tags"].append("old")
        tx.increment("Dog", keys[0].as_py(), "age", 2)
    assert dogs(realm) == [("Rex", 11, ["old"]), ("Ada", 2, ["small"]), ("Rex", 9, []), ("Eve", 5, [])]
    with realm.write() as tx:
        assert tx.delete("Dog", live.age > 8) == 2
        assert tx.delete("Dog", "name == $0", "Eve") == 1
    assert dogs(realm) == [("Ada", 2, ["small"])]


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda tx: tx.upsert("Dog", {"name": "Rex", "age": 1}), "create"),
        (lambda tx: tx.frame("Dog"), "tx.update"),
    ],
    ids=["upsert", "frame"],
)
def test_what_needs_a_key(realm: rf.Realm, call: Any, hint: str) -> None:
    """Records and edited frames cannot be matched with objects; the error says what to do instead."""
    with pytest.raises(rf.WriteError, match="Dog has no primary key") as error, realm.write() as tx:
        call(tx)
    assert error.value.hint is not None
    assert hint in error.value.hint


@pytest.mark.parametrize("mode", [{"flexible": True}, {"partition_value": "p"}], ids=["flexible", "partition"])
@pytest.mark.parametrize("key", [None, "name"], ids=["none", "another name"])
def test_synced_classes_need_one(login: Any, mode: dict[str, Any], key: str | None) -> None:
    """As in the SDKs: named _id. Embedded classes need none."""
    inner = {"name": "Inner", "embedded": True, "properties": {"n": "int"}}
    fine = rf.ObjectSchema("Fine", {"_id": "int", "inner": "Inner"}, "_id")
    sync = rf.SyncConfiguration(login("a"), **mode)
    rf.Configuration(path="x.realm", schema=[inner, fine], sync=sync)
    bad = rf.ObjectSchema("Dog", {"name": "string"}, key)
    with pytest.raises(rf.SchemaError, match="class Dog of a synced realm needs a primary key named '_id'"):
        rf.Configuration(path="x.realm", schema=[bad], sync=sync)


def test_a_copy_that_syncs_needs_one(realm: rf.Realm, login: Any) -> None:
    """A local realm with such a class cannot become a synced one; nothing is left behind."""
    with realm.write() as tx:
        tx.create("Dog", {"name": "Rex", "age": 3})
    sync = rf.SyncConfiguration(login("a"), partition_value="p")
    with pytest.raises(rf.SchemaError, match="class Dog of a synced realm"):
        realm.write_copy_to(path="copy.realm", sync=sync)
    assert not rf.Realm.exists(path="copy.realm", sync=sync)
    realm.write_copy_to(path=realm.path.parent / "copy.realm")
    with rf.Realm.open(path=realm.path.parent / "copy.realm") as copy:
        assert dogs(copy) == dogs(realm)
        assert copy["Dog"].realm.keys == realm["Dog"].realm.keys
