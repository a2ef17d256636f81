"""What happened when the real engine's clients wrote at random against the server, each case as small as it gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import ArrayErase, ArrayInsert, CreateObject, EraseObject, Update
from realmframe.model import Link, Marker
from realmframe.server import Permissions
from realmframe.server.database import Database
from realmframe.server.engine import Engine
from realmframe.server.views import View, share
from realmframe.store import Snapshot, apply

from .stepwise import SCHEMA, World, contents, joined


@pytest.mark.parametrize("area", [2, 1])
def test_creation_of_an_object_that_exists_out_of_view(area, tmp_path):
    """A key taken by an object that its client does not see: the lists of both fit, and nobody's session ends."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    a.commit(
        CreateObject("Item", 1),
        Update("Item", 1, "area", (), 2),
        ArrayInsert("Item", 1, "tags", (0,), "a", 0),
        ArrayInsert("Item", 1, "tags", (1,), "b", 1),
        Update("Item", 1, "notes", ("k",), Marker.LIST),
        ArrayInsert("Item", 1, "notes", ("k", 0), 1, 0),
    )
    world.settle()
    b.subscribe("area == 1 ")  # whose answer makes its next writes based on what it does not see
    world.settle()
    assert 1 not in b.items().get("Item", {})
    b.commit(
        CreateObject("Item", 1),
        Update("Item", 1, "area", (), area),
        ArrayInsert("Item", 1, "tags", (0,), "c", 0),
        ArrayErase("Item", 1, "tags", (0,), 1),
        ArrayInsert("Item", 1, "tags", (0,), "d", 0),
        CreateObject("Item", 2),
        Update("Item", 2, "area", (), 1),
    )
    world.check()
    held = contents(world.node.sync.history.snapshot)["Item"]
    assert held[1]["area"] == area
    assert {"a", "b", "d"} <= set(held[1]["tags"])
    assert held[2]["area"] == 1


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_object_erased_and_created_again_at_once(before, after, tmp_path):
    """One transaction erases an object and creates it again, in view or out of it, before and after."""
    world = World(tmp_path, 0, 2)
    a, _ = joined(world, "TRUEPREDICATE ", "area == 1 ")
    a.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), before), Update("Item", 1, "name", (), "old"))
    world.check()
    a.commit(EraseObject("Item", 1), CreateObject("Item", 1), Update("Item", 1, "area", (), after))
    world.check()
    a.commit(Update("Item", 1, "count", (), 7))
    world.check()


def test_creation_on_its_way_when_the_query_is_answered(tmp_path):
    """What a client wrote before it got a query's answer is told apart from what it wrote after, at one version too."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    a.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 2), ArrayInsert("Item", 1, "tags", (0,), "a", 0))
    a.commit(CreateObject("Item", 2), Update("Item", 2, "area", (), 1))
    world.settle()  # the second creation tells the other client of the version
    b.subscribe("TRUEPREDICATE ")
    b.upload()
    assert b.deliver()
    b.commit(CreateObject("Item", 1), ArrayInsert("Item", 1, "tags", (0,), "b", 0))
    world.check()
    assert sorted(contents(world.node.sync.history.snapshot)["Item"][1]["tags"]) == ["a", "b"]


def test_queries_one_after_the_other(tmp_path):
    """Several query sets and marks at once: each is answered in turn, at versions that never go down."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    a.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 2))
    world.settle()
    for text in ("area == 2 ", "area >= 1 ", "area == 0 "):
        b.subscribe(text)
        b.upload()
    while b.deliver():
        pass
    world.check()
    assert "Item" not in b.items() or not b.items()["Item"]


REPEATED = Update("Item", 1, "notes", ("k", 0), Link("Item", 2), 3)


@pytest.mark.parametrize(
    ("view", "written", "passes"),
    [
        ("area == 1 ", [REPEATED], False),
        ("area == 1 ", [CreateObject("Item", 2), REPEATED], False),
        ("area >= 1 ", [replace(REPEATED, path=("k", 2), value=Link("Item", 9))], False),
        ("area >= 1 ", [REPEATED], True),
        ("area == 1 ", [replace(REPEATED, value=Link("Item", 3))], True),
        ("area == 1 ", [replace(REPEATED, path=("k", 1))], True),
        ("area == 1 ", [ArrayErase("Item", 1, "notes", ("k", 0), 3), replace(REPEATED, prior_size=2)], True),
        ("area == 1 ", [Update("Item", 1, "notes", ("l",), Link("Item", 2))], True),
    ],
)
def test_link_that_is_there_already(view, written, passes):
    """An element of a list that is set to its own link, of an object out of view, is left out: it ends real clients."""
    begin = [
        *SCHEMA,
        *(one for key in (1, 2) for one in (CreateObject("Item", key), Update("Item", key, "area", (), key))),
        Update("Item", 1, "notes", ("k",), Marker.LIST),
        ArrayInsert("Item", 1, "notes", ("k", 0), Link("Item", 2), 0),
        ArrayInsert("Item", 1, "notes", ("k", 1), 5, 1),
        ArrayInsert("Item", 1, "notes", ("k", 2), Link("Item", 9), 2),
        Update("Item", 1, "notes", ("l",), Link("Item", 2)),
    ]
    before = apply(Snapshot.empty(), Changeset.from_instructions(begin)).snapshot
    changeset = Changeset.from_instructions(written)
    after = apply(before, changeset).snapshot
    passed = share(View({"Item": view}), changeset, before, after).passed
    kept = [] if passed is None else passed.instructions()
    assert kept == [one for one in written if passes]


def test_what_may_not_be_read_may_not_be_written(tmp_path):
    """A key of a class that its writer may not read changes nothing at the server, and stays with nobody."""
    world = World(tmp_path, 0, 2)
    a, b = world.clients
    assert b.store.file is not None
    world.node.sync.history.files[b.store.file.ident].user = "other"
    world.node.sync.permissions = Permissions(can_read_class=lambda user, name: name != "Item" or user == "user")
    joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
    a.commit(CreateObject("Item", 1), Update("Item", 1, "name", (), "secret"))
    world.settle()
    b.commit(CreateObject("Item", 1), Update("Item", 1, "name", (), "guessed"), CreateObject("Item", 2))
    world.settle()
    held = contents(world.node.sync.history.snapshot)["Item"]
    assert {key: row["name"] for key, row in held.items()} == {1: "secret"}
    assert not b.items().get("Item")
    assert len(b.rejected) == 1


def test_nothing_is_lost_when_much_comes_at_once(tmp_path):
    """However much waits for the engine's thread, everything is done once and in order."""
    database = Database(tmp_path)
    engine = Engine(database, development=True)
    done: list[int] = []
    calls = [engine.call(lambda _engine, number=number: done.append(number)) for number in range(1_000)]
    engine.start()
    engine.stop()
    database.close()
    assert done == list(range(1_000))
    assert all(call.done() for call in calls)
