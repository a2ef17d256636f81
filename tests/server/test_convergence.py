"""Clients that wrote, subscribed or lost their connection at the wrong moment end with what the server has for them.

The clients are stores; messages travel in queues of the test instead of sockets, one at a time. ``tests/simulation``
does at random, and with everything that a client is made of, what is done here step by step.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddInteger, ArrayInsert, CreateObject, EraseObject, Update
from realmframe.server import bootstrap
from realmframe.server import sync as server_sync
from realmframe.server.database import Database
from realmframe.server.history import History
from realmframe.server.sync import RealmSync, Session
from realmframe.session.checks import check_entries, check_progress
from realmframe.store import Entry, FileSystem, Owner, Progress, RealmStore
from realmframe.wire import (
    BatchState,
    ClientIdent,
    Download,
    JsonError,
    Mark,
    Query,
    Upload,
    UploadEntry,
    primary_key_from_text,
)
from tests.simulation.writes import SCHEMA, VIEWS, contents


class Quick(FileSystem):
    """Nothing of a test outlives its process."""

    def sync(self, descriptor: int) -> None:
        """Skip it."""

    def sync_folder(self, folder: Any) -> None:
        """Skip it."""


class Pipe:
    """The outlet of a session: what is sent waits here until the client reads it."""

    def __init__(self) -> None:
        self.messages: deque[Any] = deque()

    def send(self, message: Any) -> None:
        """Queue a message."""
        self.messages.append(message)

    def has_room(self) -> bool:
        """Say yes up to a few messages, so that a session also has to wait."""
        return len(self.messages) < 6


class Node:
    """A server that can be started again, with one realm."""

    def __init__(self, folder: Any) -> None:
        self.database = Database(folder)
        self.start()

    def start(self) -> None:
        """Begin, from what is on disk."""
        self.sync = RealmSync(History(self.database, "app", "flx"), development=True)

    def finish(self) -> None:
        """Commit, then send."""
        if self.sync.history.is_dirty:
            with self.database.transaction() as sql:
                self.sync.history.write(sql)
        for session in self.sync.sessions:
            self.sync.pump(session)


class Client:
    """A realm and its session."""

    def __init__(self, node: Node, folder: Any, rng: random.Random, name: str) -> None:
        self.node, self.rng, self.name = node, rng, name
        self.store = RealmStore.open(folder, owner=Owner("app", "user"), fs=Quick())
        file = node.sync.history.new_file("user")
        self.store.set_file(file.ident, file.salt)
        self.pipe: Pipe | None = None
        self.session: Session | None = None
        self.sending: deque[Any] = deque()
        self.active: tuple[int, dict[str, str]] = (0, {})
        self.wanted: tuple[int, dict[str, str], int] = (0, {}, 0)
        self.asked = 0
        self.cursor = 0
        self.clock = 1_000
        self.staged: list[Entry] = []
        self.rejected: list[Any] = []
        self.announced: list[int] = []

    # ---- the connection

    def connect(self) -> None:
        """BIND and IDENT."""
        assert self.store.file is not None
        p, file = self.store.progress, self.node.sync.history.files[self.store.file.ident]
        self.pipe, self.sending, self.announced = Pipe(), deque(), []
        self.cursor, self.asked = p.upload_client_version, self.active[0]
        self.session = Session(1, self.pipe, file, flexible=True)
        self.received: Any = p
        message = ClientIdent(
            1,
            file.ident,
            file.salt,
            p.download_server_version,
            p.download_client_version,
            p.latest_server_version,
            p.latest_salt,
            *self.active,
        )
        self.node.sync.identify(self.session, message)
        self.node.finish()

    def lose(self) -> None:
        """Lose the connection, with all that is on its way."""
        if self.session is not None:
            self.node.sync.remove(self.session)
        self.pipe = self.session = None
        self.sending.clear()

    def upload(self) -> None:
        """Put what is to be said on its way, in the order of the protocol."""
        limit = self.wanted[2] if self.wanted[0] > self.asked else 1 << 60
        waiting = [c for c in self.store.pending() if self.cursor < c.version <= limit]
        if waiting:
            entries = tuple(UploadEntry(c.version, c.server_version, c.timestamp, 0, c.changeset) for c in waiting)
            self.cursor = waiting[-1].version
            self.sending.append(Upload(1, self.cursor, waiting[-1].server_version, 0, entries))
        if self.wanted[0] > self.asked:
            self.asked = self.wanted[0]
            self.sending += [Query(1, self.asked, self.wanted[1]), Mark(1, self.asked)]

    def deliver(self) -> bool:
        """Let the server handle one message."""
        if not self.sending or self.session is None:
            return False
        message = self.sending.popleft()
        if isinstance(message, Upload):
            assert self.node.sync.upload(self.session, message) is None
        elif isinstance(message, Query):
            self.node.sync.query(self.session, message)
        else:
            self.node.sync.mark(self.session, message)
        return True

    def receive(self) -> bool:
        """Integrate one message."""
        if self.pipe is None or not self.pipe.messages:
            return False
        message = self.pipe.messages.popleft()
        if isinstance(message, Download):
            self._download(message)
        elif isinstance(message, JsonError):
            assert message.code == 231
            self.rejected.append(message)
            self.announced.append(message.body["compensatingWriteServerVersion"])
        else:
            assert isinstance(message, Mark)
        return True

    def _download(self, m: Download) -> None:
        assert self.store.file is not None
        check_progress(self.received, m, self.store.snapshot.version)
        check_entries(self.received, m, self.store.file.ident, flexible=True)
        self.received = m
        entries = [Entry(e.server_version, e.client_version, e.timestamp, e.file_ident, e.changeset) for e in m.entries]
        progress = Progress(
            m.download_server_version,
            m.download_client_version,
            m.latest_server_version,
            m.latest_salt,
            m.upload_client_version,
            m.upload_server_version,
        )
        if m.batch is BatchState.STEADY_STATE:
            self._compensate(entries)
            self.store.integrate(entries, progress)
            return
        self.staged += entries
        if m.batch is BatchState.LAST_IN_BATCH:
            self._compensate(self.staged)
            self.store.integrate(self.staged, progress)
            self.staged = []
            if m.query_version == self.wanted[0]:
                self.active = self.wanted[:2]

    def _compensate(self, entries: list[Entry]) -> None:
        """Check what the real engine asserts: that an error of a reverted write comes with its version's entries."""
        if entries:
            assert self.announced == sorted(self.announced)
            told = [v for v in self.announced if v <= entries[-1].server_version]
            assert all(v >= entries[0].server_version for v in told)
            self.announced = self.announced[len(told) :]

    # ---- writing

    def commit(self, *instructions: Any) -> int:
        """Commit a transaction."""
        self.clock += self.rng.randrange(3)
        return self.store.commit(Changeset.from_instructions(list(instructions)), timestamp=self.clock).version

    def subscribe(self, text: str) -> None:
        """Want another query set from now on."""
        query = {"Ledger": "TRUEPREDICATE ", "Item": f"({text})"}
        self.wanted = (self.wanted[0] + 1, query, self.store.snapshot.version)

    def items(self) -> dict[Any, dict[str, Any]]:
        """Give all objects of the client."""
        return contents(self.store.snapshot)


class World:
    """A server and its clients."""

    def __init__(self, folder: Any, seed: int, clients: int = 3) -> None:
        self.rng = random.Random(seed)
        self.node = Node(folder / "server")
        self.clients = [Client(self.node, folder / f"c{i}", self.rng, "abcdef"[i]) for i in range(clients)]
        first = self.clients[0]
        first.commit(*SCHEMA)
        first.subscribe(VIEWS[3])
        first.connect()
        self.settle()
        first.commit(CreateObject("Ledger", 1), Update("Ledger", 1, "count", (), 0))
        for one in self.clients[1:]:
            one.commit(*SCHEMA)
            one.subscribe(self.rng.choice(VIEWS))
            one.connect()
        self.settle()

    def settle(self) -> None:
        """Go on until nothing moves."""
        for _ in range(10_000):
            moved = False
            for one in self.clients:
                if one.session is not None:
                    one.upload()
                moved |= one.deliver()
            self.node.finish()
            for one in self.clients:
                moved |= one.receive()
            self.node.finish()
            if not moved:
                return
        raise AssertionError("it never ends")

    def check(self) -> None:
        """Let everybody come together, and compare."""
        for one in self.clients:
            if one.session is None:
                one.connect()
        self.settle()
        snapshot = self.node.sync.history.snapshot
        for one in self.clients:
            assert one.session is not None
            assert (
                not one.store.pending() or one.store.progress.upload_client_version >= one.store.pending()[-1].version
            )
            assert one.active[0] == one.wanted[0]
            view = self.node.sync.view(one.wanted[1])
            expected = contents(snapshot, lambda name, v=view: v.rows(snapshot, name))
            assert contents(one.store.snapshot) == expected, one.name


def _joined(world: World, *views: str) -> tuple[Client, ...]:
    for one, view in zip(world.clients, views, strict=True):
        one.subscribe(view)
    world.settle()
    return tuple(world.clients)


def test_creation_that_met_an_erasure_the_view_hides(tmp_path):
    """A creation that loses to a reverted one outside its client's view is taken from the client too."""
    world = World(tmp_path, 0, 2)
    a, b = _joined(world, "area == 1 ", "area == 2 ")
    for one, area in ((a, 3), (b, 2)):
        one.commit(CreateObject("Item", 1), Update("Item", 1, "area", (), area))
    a.upload()
    a.deliver()
    world.check()


def test_plain_write_that_met_a_made_up_erasure(tmp_path):
    """A field written to an object that moved out of view and in again meanwhile has the server's value."""
    world = World(tmp_path, 0, 2)
    a, b = _joined(world, "TRUEPREDICATE ", "area == 1 ")
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
    a, b = _joined(world, "TRUEPREDICATE ", "area == 1 ")
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
    a, b = _joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
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
    a, b = _joined(world, "TRUEPREDICATE ", "area == 2 ")
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
    a, b = _joined(world, "TRUEPREDICATE ", "area == 2 ")
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
    a, b = _joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
    b.lose()
    _write(a, 1, 2, 3, 4)
    world.settle()
    monkeypatch.setattr(bootstrap, "BATCH_BYTES", 10)
    monkeypatch.setattr(server_sync, "BATCH_BYTES", 10)
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
    a, b = _joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
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
    a, b = _joined(world, "TRUEPREDICATE ", "TRUEPREDICATE ")
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
    a, b = _joined(world, "TRUEPREDICATE ", "area == 1 ")
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
