"""Clients that read too slowly: what was left out for them comes together when they have room again."""

from __future__ import annotations

import pytest

from realmframe.changes.instructions import CreateObject, Update
from realmframe.server import bootstrap
from realmframe.server import session as sessions
from realmframe.wire import Download, primary_key_from_text

from .stepwise import Client, World, joined


def _write(client: Client, *keys: int, area: int = 1) -> None:
    for key in keys:
        client.commit(CreateObject("Item", key), Update("Item", key, "area", (), area))


def _upload(world: World, client: Client, *keys: int, area: int = 1) -> None:
    """Write, and let the server handle it; who has room gets it."""
    for key in keys:
        _write(client, key, area=area)
        client.upload()
        while client.deliver():
            pass
        world.node.finish()


def _fill(world: World, writer: Client, slow: Client) -> None:
    """Write until what waits for a client that does not read is too much."""
    for key in range(100, 140):
        _upload(world, writer, key)
        while writer.receive():
            pass
        if slow.session.is_lagging:
            return
    raise AssertionError("it never lags")


def _told(client: Client) -> list[int]:
    return sorted(primary_key_from_text(w["pk"]) for error in client.rejected for w in error.body["rejectedUpdates"])


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A server that keeps little for slow clients, and two clients."""
    monkeypatch.setattr(sessions, "_OUTBOX_BYTES", 100)
    return World(tmp_path, 0, 2)


@pytest.mark.parametrize("size", [1 << 20, 10], ids=["one message", "several messages"])
@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("is_trimmed", [False, True])
def test_reverted_write_of_a_slow_client(world, monkeypatch, size, others, is_trimmed):
    """It hears of it with the version that the object's state comes with, once, as the real engine asserts."""
    for module in (bootstrap, sessions):
        monkeypatch.setattr(module, "BATCH_BYTES", size)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    _fill(world, a, b)
    _upload(world, b, 1, 2, area=3)
    _upload(world, a, *range(3, 3 + others))
    if is_trimmed:
        count, behind = world.node.sync.trim(world.node.sync.history.version)
        assert count
        assert not behind
    world.check()
    assert _told(b) == [1, 2]


def test_reverted_write_that_makes_a_client_slow(world, monkeypatch):
    """When what it is told of is what was too much, it hears of it later, and once."""
    monkeypatch.setattr(sessions, "_OUTBOX_BYTES", 1 << 20)
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    while b.session.outlet.has_room():
        _upload(world, a, 100 + world.node.sync.history.version)
    _upload(world, a, 1)
    assert b.session.outbox
    monkeypatch.setattr(sessions, "_OUTBOX_BYTES", b.session.outbox_bytes)
    _upload(world, b, 2, area=3)
    assert b.session.is_lagging
    _upload(world, a, 3)
    world.check()
    assert _told(b) == [2]


def test_query_of_a_slow_client_after_a_reverted_write(world):
    """A query set that comes when a client lags behind is answered after what the client has missed."""
    a, b = joined(world, "TRUEPREDICATE ", "area == 1 ")
    _fill(world, a, b)
    _upload(world, b, 1, area=3)
    _upload(world, a, 2, area=2)
    b.subscribe("area == 2 ")
    world.check()
    assert _told(b) == [1]
    versions = [m.download_server_version for m in b.pipe.messages if isinstance(m, Download)]
    assert not versions


@pytest.mark.parametrize("flexible", [True, False], ids=["flexible", "partition"])
def test_log_trimmed_while_a_new_client_lags(tmp_path, monkeypatch, flexible):
    """Who has nothing yet, and lags behind what is gone, begins anew: nothing is left out without a word."""
    monkeypatch.setattr(sessions, "_OUTBOX_BYTES", 100)
    world = World(tmp_path, 0, 1, flexible=flexible)
    (a,) = joined(world, "TRUEPREDICATE ")
    _upload(world, a, 1, 2)
    new = world.join()
    new.room = 0
    new.subscribe("TRUEPREDICATE ")
    new.active = new.wanted[:2]
    new.connect()
    _fill(world, a, new)
    _upload(world, a, 3)
    count, behind = world.node.sync.trim(world.node.sync.history.version)
    assert count
    assert behind == [new.session]
