"""Clients that are stores, and a server without its engine: messages travel in queues, one at a time.

``tests/simulation`` does at random, with everything that a client is made of, what tests do with these step by step.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from realmframe.changes import Changeset
from realmframe.changes.instructions import CreateObject, Update
from realmframe.server.history import History
from realmframe.server.session import Session
from realmframe.server.sync import RealmSync
from realmframe.session.checks import check_entries, check_progress
from realmframe.store import Entry, FileSystem, Owner, Progress, RealmStore
from realmframe.wire import BatchState, ClientIdent, Download, JsonError, Mark, Query, Upload, UploadEntry
from tests.simulation.writes import SCHEMA, VIEWS, contents

from .databases import open_database


class Quick(FileSystem):
    """Nothing of a test outlives its process."""

    def sync(self, descriptor: int) -> None:
        """Skip it."""

    def sync_folder(self, folder: Any) -> None:
        """Skip it."""


class Pipe:
    """The outlet of a session: what is sent waits here until the client reads it."""

    def __init__(self, room: int) -> None:
        self.messages: deque[Any] = deque()
        self.room = room

    def send(self, message: Any) -> None:
        """Queue a message."""
        self.messages.append(message)

    def has_room(self) -> bool:
        """Say yes up to a few messages, so that a session also has to wait."""
        return len(self.messages) < self.room


class Node:
    """A server that can be started again, with one realm."""

    def __init__(self, folder: Any, *, flexible: bool = True) -> None:
        self.database, self.flexible = open_database(folder), flexible
        self.start()

    def start(self) -> None:
        """Begin, from what is on disk."""
        name = "flx" if self.flexible else 'partition "p"'
        self.sync = RealmSync(History(self.database, "app", name), development=True)

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
        file = node.sync.history.files.new("user")
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
        #: Messages that may be on their way to it.
        self.room = 6

    # ---- the connection

    @property
    def flexible(self) -> bool:
        """Whether it subscribes; otherwise it has a whole partition."""
        return self.node.flexible

    def connect(self) -> None:
        """BIND and IDENT."""
        assert self.store.file is not None
        p, file = self.store.progress, self.node.sync.history.files[self.store.file.ident]
        self.pipe, self.sending, self.announced = Pipe(self.room), deque(), []
        self.cursor, self.asked = p.upload_client_version, self.active[0]
        self.session = Session(1, self.pipe, file, flexible=self.flexible)
        self.received: Any = p
        message = ClientIdent(
            1,
            file.ident,
            file.salt,
            p.download_server_version,
            p.download_client_version,
            p.latest_server_version,
            p.latest_salt,
            *(self.active if self.flexible else (None, None)),
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
        check_entries(self.received, m, self.store.file.ident, flexible=self.flexible)
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
            self.store.integrate(self.staged, progress)
            self.staged = []
            if m.query_version == self.wanted[0]:
                self.active = self.wanted[:2]

    def _compensate(self, entries: list[Entry]) -> None:
        """Check what the real engine asserts: that an error of a reverted write comes with its version's entries.

        It does so for what is no bootstrap.
        """
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
        if not self.flexible:
            return
        query = {"Ledger": "TRUEPREDICATE ", "Item": f"({text})"}
        self.wanted = (self.wanted[0] + 1, query, self.store.snapshot.version)

    def items(self) -> dict[Any, dict[str, Any]]:
        """Give all objects of the client."""
        return contents(self.store.snapshot)


class World:
    """A server and its clients."""

    def __init__(self, folder: Any, seed: int, clients: int = 3, *, flexible: bool = True) -> None:
        self.rng, self.folder = random.Random(seed), folder
        self.node = Node(folder / "server", flexible=flexible)
        self.clients = list[Client]()
        for _ in range(clients):
            self.join()
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

    def join(self) -> Client:
        """Make one more client; it is not connected yet."""
        name = "abcdef"[len(self.clients)]
        self.clients.append(Client(self.node, self.folder / name, self.rng, name))
        return self.clients[-1]

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
            expected = contents(snapshot)
            if one.flexible:
                view = self.node.sync.query_sets.view(one.wanted[1])
                expected = contents(snapshot, lambda name, v=view: v.rows(snapshot, name))
            assert contents(one.store.snapshot) == expected, one.name


def joined(world: World, *views: str) -> tuple[Client, ...]:
    """Have the clients of a world subscribe to items, one text each."""
    for one, view in zip(world.clients, views, strict=True):
        one.subscribe(view)
    world.settle()
    return tuple(world.clients)
