"""Clients that wrote, subscribed or lost their connection at the wrong moment end with what the server has for them."""

from __future__ import annotations

import pytest

from realmframe.changes.instructions import AddInteger, ArrayInsert, CreateObject, EraseObject, Update
from realmframe.server import bootstrap
from realmframe.server import session as sessions
from realmframe.wire import Download, Mark, primary_key_from_text
from tests.simulation.writes import SCHEMA, contents

from .stepwise import Client, World, joined


def test_creation_that_met_an_erasure_the_view_hides(tmp_path):
    """A creation that loses to a reverted one outside its client's view is taken from the client too."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "area == 1 ", "area == 2 ")
    for one, area in ((a, 3), (b, 2)):
        one.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), area))
    a.upload()
    a.deliver()
    world.check()


def test_plain_write_that_met_a_made_up_erasure(tmp_path):
    """A field written to an object that moved out of view and in again meanwhile has the server's value."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    a.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 1))
    world.settle()
    b.commit(AddInteger("Item", 1, "count", (), 4))
    for area in (2, 1):
        a.commit(Update("Item", 1, "area", (), area))
    a.upload()
    a.deliver()
    world.node.finish()
    while b.receive():
        pass
    world.check()
    assert contents(world.node.sync.history.snapshot)["Item"][1]["count"] == 4


def test_list_written_on_a_made_up_state(tmp_path):
    """Insertions made before and after a made-up state all reach the server; none is refused for the list's size."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    a.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 1))
    world.settle()
    b.commit(ArrayInsert("Item", 1, "tags", (0,), "before", 0))
    for area in (2, 1):
        a.commit(Update("Item", 1, "area", (), area))
    a.upload()
    a.deliver()
    world.node.finish()
    while b.receive():
        pass
    size = len(b.items()["Item"][1]["tags"])
    b.commit(ArrayInsert("Item", 1, "tags", (0,), "after", size))
    world.check()
    assert sorted(contents(world.node.sync.history.snapshot)["Item"][1]["tags"]) == ["after", "before"]


def test_outcome_that_was_on_its_way_when_the_connection_ended(tmp_path):
    """A write whose acknowledgement and correction were lost comes out as the server has it after a reconnect."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
    a.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 1))
    world.settle()
    b.lose()
    a.commit(ArrayInsert("Item", 1, "tags", (0,), "a", 0))
    world.settle()
    b.commit(ArrayInsert("Item", 1, "tags", (0,), "b", 0))
    b.connect()
    while b.receive():
        pass
    b.upload()
    b.deliver()
    world.node.finish()
    b.lose()
    world.check()
    assert sorted(contents(world.node.sync.history.snapshot)["Item"][1]["tags"]) == ["a", "b"]


def test_mark_between_a_query_and_writes(tmp_path):
    """An answer to MARK acknowledges no write whose own consequences are still queued behind it."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 2 ")
    b.subscribe("area >= 1 ")
    b.upload()
    b.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 1))
    b.upload()
    a.commit(CreateObject("Item", 2), Update("Item", 2, "area", (), 1))
    a.upload()
    b.commit(Update("Item", 1, "area", (), 3))
    b.upload()
    for one in (b, b, b, a, b):  # the query, the mark, a write, a write of the other's, a write
        assert one.deliver()
    world.node.finish()
    world.check()


def test_mark_before_a_query(tmp_path):
    """An answer to MARK announces no version above that of a bootstrap which is queued behind it."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 2 ")
    b.sending.append(Mark(1, 99))
    b.subscribe("area == 3 ")
    b.upload()
    b.deliver()
    b.deliver()
    for area in (0, 1, 3):  # what b does not see counts too
        a.commit(CreateObject("Item", area), Update("Item", area, "area", (), area))
        a.upload()
        a.deliver()
    world.node.finish()
    versions = [m.download_server_version for m in b.pipe.messages if isinstance(m, Download)]
    assert versions == sorted(versions)
    world.check()


def _write(client: Client, *keys: int, area: int = 1) -> None:
    for key in keys:
        client.commit(CreateObject("Item", key), Update("Item", key, "area", (), area))


def test_catch_up_that_was_cut(tmp_path, monkeypatch):
    """What did not come because the connection ended comes with the next one, however many messages it is."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
    b.lose()
    _write(a, 1, 2, 3, 4)
    world.settle()
    monkeypatch.setattr(bootstrap, "BATCH_BYTES", 10)
    monkeypatch.setattr(sessions, "BATCH_BYTES", 10)
    monkeypatch.setattr(bootstrap, "_FIRST_ROWS", 1)
    for count in range(5):
        b.connect()
        for _ in range(count):
            b.receive()
        b.lose()
    world.check()
    assert len(b.items()["Item"]) == 4


def test_creation_under_a_query_set_that_was_not_confirmed(tmp_path):
    """An object that left the view before its writer had the view is taken from the writer."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
    b.wanted = (b.wanted[0] + 1, {"Ledger": "TRUEPREDICATE "}, b.store.snapshot.version)
    world.settle()
    b.subscribe("area == 2 ")
    b.upload()
    _write(b, 1, area=2)
    b.upload()
    while b.deliver():
        pass
    world.node.finish()
    b.lose()
    world.settle()
    a.commit(Update("Item", 1, "area", (), 3))
    world.settle()
    world.check()
    assert not b.items()["Item"]


def test_creation_that_came_to_nothing_while_its_writer_was_away(tmp_path):
    """A write whose correction was on its way when the connection ended is corrected by the next one."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
    _write(a, 1)
    world.settle()
    b.lose()
    b.commit(EraseObject("Item", 1))
    _write(b, 1)
    for _ in range(2):
        a.commit(EraseObject("Item", 1))
        _write(a, 1)
    a.commit(EraseObject("Item", 1))
    world.settle()
    b.connect()
    while b.receive():
        pass
    b.upload()
    b.deliver()
    world.node.finish()
    b.lose()
    world.check()


@pytest.mark.parametrize("is_fresh", [False, True], ids=["catches up", "begins"])
@pytest.mark.parametrize("stays", [False, True], ids=["cut", "goes on"])
@pytest.mark.parametrize("count", range(1, 6))
def test_several_reverted_writes_told_again(tmp_path, count, stays, is_fresh):
    """What a client writes, or is cut off, among the reminders of several reverted writes costs it none of them."""
    world = World(tmp_path, 0, 2)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    if is_fresh:
        b = Client(world.node, tmp_path / "fresh", world.rng, "f")
        world.clients.append(b)
        b.commit(*SCHEMA)
        b.connect()
    _write(b, 1, 2, area=3)
    _write(a, 3)
    b.upload()
    while b.deliver():
        pass
    world.node.finish()
    b.lose()  # with all of the answers
    a.upload()
    a.deliver()
    world.node.finish()
    b.connect()
    for _ in range(count):
        b.receive()
    if not stays:
        b.lose()
    for key in b.items().get("Item", ()):
        b.commit(ArrayInsert("Item", key, "tags", (0,), "late", 0))
    if is_fresh:
        b.subscribe("area == 1 ")
    world.check()
    told = {rejected["pk"] for error in b.rejected for rejected in error.body["rejectedUpdates"]}
    assert {primary_key_from_text(text) for text in told} == {1, 2}
