"""Clients of a realm whose log was trimmed: what they get and write is not always what anybody wrote."""

from __future__ import annotations

import pytest

from realmframe.changes.instructions import ArrayInsert, CreateObject, EraseObject, Update
from realmframe.server import bootstrap
from realmframe.server import session as sessions

from .stepwise import SCHEMA, Client, World, contents


def _trimmed(world: World) -> None:
    """Trim all of the log."""
    history = world.node.sync.history
    world.node.finish()
    assert history.trim(history.version)


def _tag(client: Client, text: str, at: int = 0) -> None:
    client.commit(ArrayInsert("Item", 1, "tags", (at,), text, len(client.items()["Item"][1]["tags"])))


def _world(tmp_path, clients: int = 1) -> World:
    world = World(tmp_path, 0, clients, flexible=False)
    first = world.clients[0]
    first.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 1))
    _tag(first, "a")
    world.settle()
    return world


def _tags(world: World) -> list[str]:
    found: list[str] = contents(world.node.sync.history.snapshot)["Item"][1]["tags"]
    return sorted(found)


def _answered(world: World, client: Client) -> None:
    """Let the server handle all that a client has to say; nothing of what it answers comes yet."""
    client.upload()
    while client.deliver():
        pass
    world.node.finish()


def test_new_client_that_wrote_before_it_had_the_state(tmp_path):
    """What it writes on its merge with the state is kept, before it hears how its first write came out."""
    world = _world(tmp_path)
    _trimmed(world)
    new = world.join()
    new.commit(*SCHEMA)
    new.commit(CreateObject("Item", 1), ArrayInsert("Item", 1, "tags", (0,), "b", 0))
    new.connect()
    new.upload()
    while new.receive():
        pass
    _tag(new, "c")
    while new.deliver():
        pass
    world.node.finish()
    _answered(world, new)
    world.check()
    assert _tags(world) == ["a", "b", "c"]


def test_client_that_comes_back(tmp_path):
    """What it writes on its merge with a correction is kept, before it hears how that came out."""
    world = _world(tmp_path, 2)
    _trimmed(world)
    a, b = world.clients
    _tag(b, "b")
    _tag(a, "c")
    _answered(world, a)
    while b.receive():
        pass
    b.lose()
    b.connect()
    _answered(world, b)  # based on less than the version that it came with
    _tag(b, "d")
    while b.receive():
        pass
    _tag(b, "e")
    _answered(world, b)
    world.check()
    assert _tags(world) == sorted("abcde")


def test_client_with_nothing_confirmed_when_the_log_is_trimmed(tmp_path):
    """A client that had the log, and has not said so yet, gets its merge corrected: the log is gone."""
    world = _world(tmp_path)
    new = world.join()
    new.commit(*SCHEMA)
    new.commit(CreateObject("Item", 1), ArrayInsert("Item", 1, "tags", (0,), "b", 0))
    new.connect()
    new.upload()
    _trimmed(world)
    while new.receive():
        pass
    _tag(new, "c")
    while new.deliver():
        pass
    world.node.finish()
    _answered(world, new)
    world.check()
    assert _tags(world) == ["a", "b", "c"]


def test_field_written_before_the_first_bootstrap(tmp_path):
    """A write that lost to a newer one at its client, and not here because the log is gone, comes out alike."""
    world = World(tmp_path, 0, 1)
    (a,) = world.clients
    a.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), 1), Update("Item", 1, "name", (), "first"))
    world.settle()
    new = world.join()
    new.commit(*SCHEMA)
    new.subscribe("TRUEPREDICATE ")
    new.active = new.wanted[:2]
    new.commit(CreateObject("Item", 1), Update("Item", 1, "name", (), "old"))
    new.connect()
    while new.receive():
        world.node.finish()
    a.clock += 1_000
    a.commit(Update("Item", 1, "name", (), "new"))
    _answered(world, a)
    while new.receive():
        pass
    assert new.items()["Item"][1]["name"] == "new"
    _trimmed(world)
    _answered(world, new)
    world.check()


@pytest.mark.parametrize("is_newest", [True, False])
@pytest.mark.parametrize("has_state", [True, False])
def test_correction_that_was_lost_with_the_connection(tmp_path, is_newest, has_state):
    """A client of a partition gets what it was to be told with its next session, whatever was written since."""
    world = _world(tmp_path)
    _trimmed(world)
    new = world.join()
    new.commit(*SCHEMA)
    new.commit(CreateObject("Item", 1), ArrayInsert("Item", 1, "tags", (0,), "b", 0))
    new.connect()
    new.upload()
    while has_state and new.receive():
        pass
    while new.deliver():
        pass
    world.node.finish()
    new.lose()
    if not is_newest:
        _tag(world.clients[0], "c", at=1)
        world.settle()
    new.connect()
    _tag(new, "d")
    world.check()
    _tag(new, "e")
    world.check()
    assert _tags(world) == ["a", "b", *([] if is_newest else ["c"]), "d", "e"]


def test_correction_of_a_slow_client(tmp_path, monkeypatch):
    """A client of a partition gets it with what it has missed."""
    world = _world(tmp_path)
    first = world.clients[0]
    _trimmed(world)
    new = world.join()
    new.commit(*SCHEMA)
    new.commit(CreateObject("Item", 1), ArrayInsert("Item", 1, "tags", (0,), "b", 0))
    new.connect()
    while new.receive():
        pass
    monkeypatch.setattr(sessions, "_OUTBOX_BYTES", 100)
    for _ in range(40):
        _tag(first, "c")
        _answered(world, first)
        while first.receive():
            pass
    assert new.session.is_lagging
    _answered(world, new)
    _tag(new, "d")
    world.check()


@pytest.mark.parametrize("received", range(1, 6))
@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("is_cut", [False, True])
def test_state_that_is_cut(tmp_path, monkeypatch, received, writes, is_cut):
    """A new client may lose its connection, and write, before it has all of the state: it goes on from there."""
    monkeypatch.setattr(bootstrap, "_FIRST_ROWS", 1)
    for module in (bootstrap, sessions):
        monkeypatch.setattr(module, "BATCH_BYTES", 10)
    world = _world(tmp_path)
    first = world.clients[0]
    for key in range(2, 6):
        first.commit(CreateObject("Item", key), Update("Item", key, "area", (), key))
    world.settle()
    _trimmed(world)
    new = world.join()
    new.room = 100
    new.commit(*SCHEMA)
    new.connect()
    for _ in range(received):
        new.receive()
    assert 0 < new.store.progress.download_server_version < world.node.sync.history.trimmed
    if writes:
        new.commit(CreateObject("Item", 9), ArrayInsert("Item", 9, "tags", (0,), "x", 0))
        for key in new.items().get("Item", ()):
            new.commit(ArrayInsert("Item", key, "tags", (0,), "b", len(new.items()["Item"][key]["tags"])))
    if is_cut:
        new.lose()
        first.commit(EraseObject("Item", 2))
        first.commit(Update("Item", 1, "name", (), "later"))
        world.settle()
    world.check()
    assert (9 in first.items()["Item"]) == writes
