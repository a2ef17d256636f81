"""Collections and embedded objects changed in place: the SDKs' instructions, and merges element by element."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import realmframe as rf
from realmframe.client.loop import stop_sync_loop
from realmframe.realm.place import WrittenObject
from realmframe.testing import Server
from tests.waiting import WAIT

SCHEMA = [
    {
        "name": "Person",
        "primaryKey": "_id",
        "properties": {
            "_id": "int",
            "n": "int?",
            "tags": "string[]",
            "labels": "string<>",
            "codes": "int?<>",
            "scores": "double?{}",
            "home": "Address?",
            "homes": "Address[]",
            "by": "Address{}",
            "friend": "Person?",
            "friends": "Person[]",
            "club": "Person<>",
            "anything": "mixed",
            "mix": "mixed<>",
        },
    },
    {"name": "Address", "embedded": True, "properties": {"city": "string", "zip": "int?", "lines": "string[]"}},
]
START = {
    "_id": 1,
    "n": 5,
    "tags": ["a", "b", "c"],
    "labels": ["x", "y"],
    "codes": [1, None],
    "scores": {"maths": 1.0, "art": None},
    "home": {"city": "Oslo", "zip": 1, "lines": ["one"]},
    "homes": [{"city": "A"}, {"city": "B"}],
    "by": {"w": {"city": "W"}},
    "anything": {"a": [1, 2], "n": 3},
}
Do = Callable[[WrittenObject], Any]

#: What is done, the property, what it holds afterwards, and the instructions: name, path and what they carry.
OPERATIONS: dict[str, tuple[Do, str, Any, list[tuple[Any, ...]]]] = {
    "append": (lambda p: p["tags"].append("d"), "tags", [*"abcd"], [("ArrayInsert", (3,), "d", 3)]),
    "insert": (lambda p: p["tags"].insert(0, "d"), "tags", [*"dabc"], [("ArrayInsert", (0,), "d", 3)]),
    "insert before the last": (lambda p: p["tags"].insert(-1, "d"), "tags", [*"abdc"], [("ArrayInsert", (2,), "d", 3)]),
    "move": (lambda p: p["tags"].move(0, -1), "tags", [*"bca"], [("ArrayMove", (0,), 2, 3)]),
    "move nowhere": (lambda p: p["tags"].move(1, 1), "tags", [*"abc"], []),
    "remove": (lambda p: p["tags"].remove("b"), "tags", [*"ac"], [("ArrayErase", (1,), 3)]),
    "pop": (lambda p: p["tags"].pop(), "tags", [*"ab"], [("ArrayErase", (2,), 3)]),
    "set an element": (lambda p: p["tags"].__setitem__(1, "B"), "tags", [*"aBc"], [("Update", (1,), "B", 3)]),
    "clear a list": (lambda p: p["tags"].clear(), "tags", [], [("Clear", (), "LIST")]),
    "a whole list": (
        lambda p: p.__setitem__("tags", ["z"]),
        "tags",
        ["z"],
        [("Clear", (), "LIST"), ("ArrayInsert", (0,), "z", 0)],
    ),
    "add": (lambda p: p["labels"].add("z"), "labels", [*"xyz"], [("SetInsert", (), "z")]),
    "add again": (lambda p: p["labels"].add("x"), "labels", [*"xy"], []),
    "remove from a set": (lambda p: p["labels"].remove("x"), "labels", ["y"], [("SetErase", (), "x")]),
    "remove null from a set, which the engine cannot erase": (
        lambda p: p["codes"].remove(None),
        "codes",
        [1],
        [("Clear", (), "SET"), ("SetInsert", (), 1)],
    ),
    "discard": (lambda p: p["labels"].discard("q"), "labels", [*"xy"], []),
    "clear a set": (lambda p: p["labels"].clear(), "labels", [], [("Clear", (), "SET")]),
    "numbers of one amount": (
        lambda p: p["mix"].update([1, True, 1.0, "1"]),
        "mix",
        [1, True, "1"],
        [("SetInsert", (), 1), ("SetInsert", (), True), ("SetInsert", (), "1")],
    ),
    "put a key": (
        lambda p: p["scores"].__setitem__("new", 2),
        "scores",
        {"maths": 1.0, "art": None, "new": 2.0},
        [("Update", ("new",), 2.0, 0)],
    ),
    "remove a key": (
        lambda p: p["scores"].__delitem__("art"),
        "scores",
        {"maths": 1.0},
        [("Update", ("art",), "ERASED", 0)],
    ),
    "clear a dictionary": (lambda p: p["scores"].clear(), "scores", {}, [("Clear", (), "DICTIONARY")]),
    "one field": (
        lambda p: p["home"].__setitem__("city", "Rome"),
        "home",
        {"city": "Rome", "zip": 1, "lines": ["one"]},
        [("Update", ("city",), "Rome", 0)],
    ),
    "a list in an embedded object": (
        lambda p: p["home"]["lines"].append("two"),
        "home",
        {"city": "Oslo", "zip": 1, "lines": ["one", "two"]},
        [("ArrayInsert", ("lines", 1), "two", 1)],
    ),
    "increment in an embedded object": (
        lambda p: p["home"]["zip"].increment(4),
        "home",
        {"city": "Oslo", "zip": 5, "lines": ["one"]},
        [("AddInteger", ("zip",), 4)],
    ),
    "a whole embedded object": (
        lambda p: p.__setitem__("home", {"city": "New"}),
        "home",
        {"city": "New", "zip": None, "lines": []},
        [
            ("Update", (), None, 0),
            ("Update", (), "OBJECT_VALUE", 0),
            ("Update", ("city",), "New", 0),
            ("Update", ("zip",), None, 0),
        ],
    ),
    "no embedded object": (lambda p: p.__setitem__("home", None), "home", None, [("Update", (), None, 0)]),
    "an embedded object in a list": (
        lambda p: p["homes"][-1].update({"zip": 7}),
        "homes",
        [{"city": "A", "zip": None, "lines": []}, {"city": "B", "zip": 7, "lines": []}],
        [("Update", (1, "zip"), 7, 0)],
    ),
    "another embedded object in a list": (
        lambda p: p["homes"].__setitem__(0, {"city": "Z", "lines": ["q"]}),
        "homes",
        [{"city": "Z", "zip": None, "lines": ["q"]}, {"city": "B", "zip": None, "lines": []}],
        [
            ("ArrayErase", (0,), 2),
            ("ArrayInsert", (0,), "OBJECT_VALUE", 1),
            ("Update", (0, "city"), "Z", 0),
            ("Update", (0, "zip"), None, 0),
            ("ArrayInsert", (0, "lines", 0), "q", 0),
        ],
    ),
    "another embedded object in a dictionary": (
        lambda p: p["by"].__setitem__("w", {"city": "V"}),
        "by",
        {"w": {"city": "V", "zip": None, "lines": []}},
        [("Update", ("w",), "OBJECT_VALUE", 0), ("Update", ("w", "city"), "V", 0), ("Update", ("w", "zip"), None, 0)],
    ),
    "a link": (lambda p: p.__setitem__("friend", 2), "friend", 2, [("Update", (), rf.Link("Person", 2), 0)]),
    "links": (
        lambda p: p["friends"].extend([2, 1]),
        "friends",
        [2, 1],
        [
            ("ArrayInsert", (0,), rf.Link("Person", 2), 0),
            ("ArrayInsert", (1,), rf.Link("Person", 1), 1),
        ],
    ),
    "a set of links": (lambda p: p["club"].add(2), "club", [2], [("SetInsert", (), rf.Link("Person", 2))]),
    "inside a mixed value": (
        lambda p: p["anything"]["a"].append({"deep": [True]}),
        "anything",
        {"a": [1, 2, {"deep": [True]}], "n": 3},
        [
            ("ArrayInsert", ("a", 2), "DICTIONARY", 2),
            ("Update", ("a", 2, "deep"), "LIST", 0),
            ("ArrayInsert", ("a", 2, "deep", 0), True, 0),
        ],
    ),
    "a list where a number was": (
        lambda p: p["anything"].__setitem__("n", [0]),
        "anything",
        {"a": [1, 2], "n": [0]},
        [("Update", ("n",), "LIST", 0), ("Clear", ("n",), "LIST"), ("ArrayInsert", ("n", 0), 0, 0)],
    ),
    "increment": (lambda p: p["n"].increment(-7), "n", -2, [("AddInteger", (), -7)]),
}


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[rf.Realm]:
    """Open a local realm with two persons."""
    with rf.Realm.open(path=tmp_path / "people.realm", schema=SCHEMA) as made:
        with made.write() as tx:
            tx.create("Person", [START, {"_id": 2}])
        yield made


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operations(realm: rf.Realm, name: str) -> None:
    """Each operation leaves what it should, and is written as the SDKs write it."""
    do, field, expected, instructions = OPERATIONS[name]
    with realm.write() as tx:
        do(tx.object("Person", 1))
        made = tx.changeset.instructions()
    row = realm["Person"].iloc[0][field]
    assert (None if row is pd.NA else row) == expected
    assert [_short(one) for one in made] == instructions


def _short(one: Any) -> tuple[Any, ...]:
    names = [n for n in ("value", "ndx_2", "collection", "prior_size") if hasattr(one, n)]
    return type(one).__name__, one.path, *(getattr(getattr(one, n), "name", getattr(one, n)) for n in names)


MISTAKES: dict[str, tuple[Do, str]] = {
    "no property": (lambda p: p["nme"], "no property 'nme'.*It has"),
    "no field": (lambda p: p["home"]["town"], "Address has no property 'town'"),
    "the key": (lambda p: p.__setitem__("_id", 3), r"Person\._id of 1 is the primary key"),
    "a wrong type": (lambda p: p["tags"].append(5), r"Person\.tags of 1: 5 is no string"),
    "null": (lambda p: p["tags"].append(None), r"Person\.tags of 1: .*cannot be null"),
    "no index": (lambda p: p["tags"][3], r"Person\.tags of 1 has 3 elements, so 3 is no index"),
    "not there": (lambda p: p["labels"].remove("q"), "does not hold 'q'"),
    "no such key": (lambda p: p["scores"].__delitem__("q"), "has no key 'q'"),
    "a key with a dot": (lambda p: p["scores"].__setitem__("a.b", 1.0), r"Person\.scores of 1.*'a\.b' is no key"),
    "a key with a dollar": (lambda p: p["scores"].__setitem__("$a", 1.0), r"begin with \$"),
    "a place in a set": (lambda p: p["labels"][0], "is a set"),
    "list calls on a set": (lambda p: p["labels"].append("q"), "is no list"),
    "set calls on a list": (lambda p: p["tags"].add("q"), "is no set"),
    "a field of nothing": (
        lambda p: [p.__setitem__("home", None), p["home"].__setitem__("city", "x")],
        "no places in it",
    ),
    "a null in a list of objects": (lambda p: p["homes"].__setitem__(0, None), "cannot be null"),
    "a required field": (lambda p: p["home"].__setitem__("city", None), "not optional"),
    "increment of null": (lambda p: [p.__setitem__("n", None), p["n"].increment()], "null and cannot be incremented"),
    "increment of text": (lambda p: p["home"]["city"].increment(), "no integer"),
    "increment in a collection": (lambda p: p["anything"]["n"].increment(), "stands in a collection"),
    "a link to another class": (lambda p: p.__setitem__("friend", rf.Link("Address", 1)), "no link to Person"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistakes(realm: rf.Realm, name: str) -> None:
    """Each mistake is one WriteError that names the place, and nothing is written."""
    do, text = MISTAKES[name]
    before = realm["Person"].to_dict("records")
    with pytest.raises(rf.WriteError, match=text), realm.write() as tx:
        do(tx.object("Person", 1))
    assert realm["Person"].to_dict("records") == before


def test_no_such_object(realm: rf.Realm) -> None:
    """An object that does not exist is an error, and one that was deleted meanwhile too."""
    with pytest.raises(rf.WriteError, match="no object with the key 9"), realm.write() as tx:
        tx.object("Person", 9)
    with realm.write() as tx:
        person = tx.object("Person", 1)
        tx.delete("Person", [1])
        with pytest.raises(rf.WriteError, match="any more"):
            person["tags"].append("x")


def test_reading_what_was_written(realm: rf.Realm) -> None:
    """Places read the transaction's own writes."""
    with realm.write() as tx:
        person = tx.object("Person", 1)
        person["tags"].append("d")
        assert person["tags"].value == ["a", "b", "c", "d"]
        assert len(person["tags"]) == 4
        assert list(person["labels"]) == ["x", "y"]
        assert "x" in person["labels"]
        assert "maths" in person["scores"]
        assert "q" not in person["tags"]
        assert person["tags"].pop(0) == "a"
        assert person.value["n"] == 5


def test_one_field_of_many_objects(realm: rf.Realm) -> None:
    """tx.update takes whole embedded objects, and by a dotted name one field of each."""
    with realm.write() as tx:
        tx.update("Person", None, home={"city": "Bern"})
        assert tx.update("Person", "home.city == 'Bern'", **{"home.zip": 3000}) == 2
    assert [h["zip"] for h in realm["Person"].home] == [3000, 3000]


def test_cells_are_written_element_by_element(realm: rf.Realm) -> None:
    """A list that was edited in a frame is written as the element that is new, not as a list."""
    with realm.write() as tx:
        edit = tx.frame("Person")
        edit.at[0, "tags"] = ["a", "new", "b", "c"]
        edit.at[0, "scores"] = {"maths": 1.0, "art": 2.0}
        edit.at[0, "home"] = {"city": "Oslo", "zip": 2, "lines": ["one"]}
    made = [_short(one) for one in tx.changeset.instructions()]
    assert sorted(made) == [
        ("ArrayInsert", (1,), "new", 3),
        ("Update", ("art",), 2.0, 0),
        ("Update", ("zip",), 2, 0),
    ]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[rf.Realm, rf.Realm]]:
    """Two clients of one server with the same two persons."""
    folder = tmp_path_factory.mktemp("places")
    with Server() as server:
        realms = []
        for name in "ab":
            app = rf.App("places", base_url=server.url, base_file_path=folder / name, timeout=30.0)
            sync = rf.SyncConfiguration(
                app.log_in(rf.Credentials.anonymous()),
                flexible=True,
                initial_subscriptions=lambda subs, realm: subs.add("Person"),
            )
            realms.append(rf.Realm.open(path="people.realm", schema=SCHEMA, sync=sync))
        yield realms[0], realms[1]
        for realm in realms:
            realm.close()
        stop_sync_loop()


#: What one client does, what the other one does at the same time, the property, and what both have in the end.
MEETINGS: dict[str, tuple[Do, Do, str, list[Any]]] = {
    "both append": (lambda p: p["tags"].append("1"), lambda p: p["tags"].append("2"), "tags", [[*"abc12"], [*"abc21"]]),
    "insert and remove": (lambda p: p["tags"].insert(1, "1"), lambda p: p["tags"].remove("c"), "tags", [[*"a1b"]]),
    "move and remove": (lambda p: p["tags"].move(0, 2), lambda p: p["tags"].remove("b"), "tags", [[*"ca"]]),
    "add and remove": (lambda p: p["labels"].add("z"), lambda p: p["labels"].remove("x"), "labels", [[*"yz"]]),
    "two keys": (
        lambda p: p["scores"].__setitem__("one", 1.0),
        lambda p: p["scores"].__delitem__("art"),
        "scores",
        [{"maths": 1.0, "one": 1.0}],
    ),
    "two fields": (
        lambda p: p["home"].__setitem__("city", "Rome"),
        lambda p: p["home"]["zip"].increment(),
        "home",
        [{"city": "Rome", "zip": 2, "lines": ["one"]}],
    ),
    "both increment": (lambda p: p["n"].increment(10), lambda p: p["n"].increment(100), "n", [115]),
    "deep in a mixed value": (
        lambda p: p["anything"]["a"].append(8),
        lambda p: p["anything"].__setitem__("k", 9),
        "anything",
        [{"a": [1, 2, 8], "n": 3, "k": 9}],
    ),
}


@pytest.mark.parametrize("name", list(MEETINGS))
def test_concurrent_edits_merge(pair: tuple[rf.Realm, rf.Realm], name: str) -> None:
    """What two clients do to one collection at the same time is all there afterwards, on both."""
    key = 10 + list(MEETINGS).index(name)
    first, second, field, expected = MEETINGS[name]
    one, two = pair
    with one.write() as tx:
        tx.create("Person", START | {"_id": key})
    one.upload_all_local_changes(timeout=WAIT)
    two.download_all_server_changes(timeout=WAIT)
    two.sync_session.pause()
    for realm, do in ((one, first), (two, second)):
        with realm.write() as tx:
            do(tx.object("Person", key))
    one.upload_all_local_changes(timeout=WAIT)
    two.sync_session.resume()
    two.upload_all_local_changes(timeout=WAIT)
    for realm in pair:
        realm.download_all_server_changes(timeout=WAIT)
    ends = [next(r[field] for r in realm["Person"].to_dict("records") if r["_id"] == key) for realm in pair]
    ends = [sorted(e) if field == "labels" else e for e in ends]
    assert ends[0] == ends[1]
    assert ends[0] in expected
