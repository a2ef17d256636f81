"""A realm and a server made of numbers, to drive both machines without a socket."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from realmframe.session import ClientConnection, ClientSession, QuerySet, ServerConnection, SessionStart
from realmframe.session import events as ev
from realmframe.session.progress import Progress
from realmframe.session.rules import LOST
from realmframe.session.subscriptions import State
from realmframe.wire import (
    BatchState,
    Bind,
    ClientIdent,
    Dialect,
    Download,
    DownloadEntry,
    Mark,
    Query,
    Upload,
    parse_client,
    parse_server,
    parse_subprotocol,
)
from tests import transcripts

FLX, PBS = Dialect(14, flexible=True), Dialect(14, flexible=False)


@dataclass
class Change:
    """One local transaction."""

    version: int
    server_version: int
    timestamp: int
    changeset: bytes


@dataclass
class Realm:
    """What a client has on disk: it survives every connection."""

    version: int = 1
    file_ident: int = 0
    salt: int = 0
    progress: Progress = field(default_factory=Progress)
    changes: list[Change] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    sets: dict[int, QuerySet] = field(default_factory=lambda: {0: QuerySet()})

    def changes_after(self, version: int, upto: int, max_bytes: int) -> Sequence[Change]:
        """List local changes, more than asked for."""
        assert max_bytes > 0
        return [c for c in self.changes if version < c.version <= upto]

    def write(self, changeset: bytes) -> int:
        """Commit a change."""
        self.version += 1
        self.changes.append(Change(self.version, self.progress.download_server_version, 7, changeset))
        return self.version

    def subscribe(self, query: dict[str, str]) -> QuerySet:
        """Commit a query set."""
        self.version += 1
        found = QuerySet(max(self.sets) + 1, self.version, query)
        self.sets[found.version] = found
        return found

    def start(self, **settings: Any) -> SessionStart:
        """Say where the realm is."""
        where = {"file_ident": self.file_ident, "salt": self.salt, "progress": self.progress}
        queries = tuple(self.sets.values()) if settings.get("partition") is None else ()
        return SessionStart(latest_version=self.version, queries=queries, **(where | settings))


class Server:
    """A server that merges nothing: it logs uploads, gives its own log to everybody, and answers everything at once."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.log: list[tuple[int, bytes]] = [(0, b"schema")]
        self.files: dict[int, int] = {}

    @property
    def version(self) -> int:
        """Its newest version."""
        return len(self.log)

    def write(self, changeset: bytes) -> None:
        """Commit a change of its own."""
        self.log.append((0, changeset))


class Pair:
    """Both machines back to back: bytes wait in two queues until they are delivered, and can be lost."""

    def __init__(self, dialect: Dialect = FLX, realm: Realm | None = None, seed: int = 1, **settings: Any) -> None:
        self.now = 1000.0
        self.realm = realm or Realm()
        self.server = Server(dialect)
        partition = None if dialect.flexible else '"p"'
        self.client = ClientConnection(dialect, random=random.Random(seed))
        self.session: ClientSession = self.client.add_session(
            self.realm.start(partition=partition, **settings), self.realm, self.now
        )
        self.machine: ServerConnection | None = None
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.seen: list[Any] = []
        self.said: list[Any] = []
        self.is_slow = False
        self.late: deque[Any] = deque()
        self.pump()

    # ---- the client's owner

    def pump(self) -> None:
        """Act on the client's events and take what it says."""
        again = True
        while again:
            events = self.client.events()
            for event in events:
                self.seen.append(event)
                self._act(event)
            out = self.client.data_to_send()
            self.said += [parse_client(data, self.server.dialect) for data in out]
            self.up.extend(out)
            again = bool(events or out)

    def _act(self, event: Any) -> None:
        if isinstance(event, ev.OpenConnection):
            self.machine = ServerConnection(self.server.dialect)
            self.up.clear()
            self.down.clear()
            self.client.opened(self.now, self.server.dialect)
        elif isinstance(event, ev.CloseConnection):
            self.machine = None
        elif isinstance(event, ev.IdentAssigned):
            self.realm.file_ident, self.realm.salt = event.file_ident, event.salt
        elif isinstance(event, ev.QueryStateChanged):
            old = self.realm.sets[event.version]
            self.realm.sets[event.version] = QuerySet(old.version, old.snapshot_version, old.query, State(event.state))
        elif isinstance(event, ev.DownloadReceived) or (isinstance(event, ev.BootstrapBatch) and event.last):
            self.late.append(event)
            if not self.is_slow:
                self.integrate()

    def integrate(self) -> None:
        """Commit the oldest download that waits."""
        event = self.late.popleft()
        entries = event.bootstrap if isinstance(event, ev.BootstrapBatch) else event.entries
        self.realm.got += [e.changeset for e in entries if e.changeset]
        self.realm.progress = event.progress
        self.realm.version += bool(entries)  # as the store: an acknowledgement alone makes no version
        self.session.integrated(self.realm.version, event.progress)

    def write(self, changeset: bytes) -> None:
        """Commit a local change and say so."""
        self.session.local_changes(self.realm.write(changeset))
        self.pump()

    def subscribe(self, **query: str) -> QuerySet:
        """Commit a query set and say so."""
        found = self.realm.subscribe(query)
        self.session.new_query_set(found)
        self.pump()
        return found

    # ---- the wire

    def deliver_up(self) -> bool:
        """Give the server one message."""
        if not self.up or self.machine is None:
            return False
        for received in self.machine.receive(self.up.popleft()):
            self.answer(received.session, received.message)
        self.down.extend(self.machine.data_to_send())
        return True

    def deliver_down(self) -> bool:
        """Give the client one message."""
        if not self.down:
            return False
        self.client.receive(self.down.popleft(), self.now)
        self.pump()
        return True

    def settle(self) -> None:
        """Deliver everything, in order, until both are silent."""
        for _ in range(10_000):
            self.pump()
            if not (self.deliver_up() or self.deliver_down()):
                return
        raise AssertionError("the two never come to rest")

    def drop(self) -> None:
        """Cut the connection; what was on its way is lost."""
        self.machine = None
        self.up.clear()
        self.down.clear()
        self.client.closed(LOST, self.now)
        self.pump()

    def tick(self, seconds: float) -> None:
        """Let time pass, one timer after another."""
        end = self.now + seconds
        for _ in range(1000):
            due = self.client.deadline()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.client.on_deadline(self.now)
            self.pump()
            self.settle()
        self.now = end

    # ---- the server's logic

    def answer(self, number: int, message: Any) -> None:
        """Do what a server does."""
        machine, server = self.machine, self.server
        assert machine is not None
        if isinstance(message, Bind) and message.need_ident:
            machine.send_ident(number, 2, 77)
        elif isinstance(message, ClientIdent):
            server.files.setdefault(2, 0)
            self.position = message.download_server_version
            if server.dialect.flexible and message.query_version == 0 and message.download_server_version == 0:
                self.bootstrap(number, 0)
            else:
                self.download(number)
        elif isinstance(message, Query):
            self.bootstrap(number, message.version)
        elif isinstance(message, Upload):
            for entry in message.entries:
                if entry.client_version > server.files[2]:
                    server.log.append((2, entry.changeset))
            server.files[2] = max(server.files[2], message.progress_client_version)
            self.download(number)
        elif isinstance(message, Mark):
            self.download(number)
            machine.send_mark(number, message.request)

    def entries(self) -> tuple[DownloadEntry, ...]:
        """What the client has not got yet, without its own."""
        server = self.server
        new = enumerate(server.log[self.position :], self.position + 1)
        known = server.files[2]
        return tuple(DownloadEntry(v, known, 5, 1, len(c), c) for v, (origin, c) in new if origin == 0)

    def download(self, number: int) -> None:
        """Send everything there is, or at least an acknowledgement."""
        assert self.machine is not None
        entries, server = self.entries(), self.server
        acknowledged = server.files[2]
        versions = server.version, acknowledged, server.version, 9, acknowledged, 0
        self.machine.send_download(Download(number, *versions, entries=entries))
        self.position = server.version

    def bootstrap(self, number: int, version: int) -> None:
        """Send a bootstrap of two batches."""
        assert self.machine is not None
        entries, server = self.entries(), self.server
        acknowledged = server.files[2]
        versions = server.version, acknowledged, server.version, 9, acknowledged, 0
        empty = DownloadEntry(server.version, acknowledged, 5, 1, 0, b"")
        first = Download(number, *versions, version, BatchState.MORE_TO_COME, 0.5, entries=entries or (empty,))
        last = Download(number, *versions, version, BatchState.LAST_IN_BATCH, 1.0, entries=(empty,))
        self.machine.send_download(first)
        self.machine.send_download(last)
        self.position = server.version

    def kinds(self, since: int = 0) -> list[str]:
        """Name what the client said."""
        return [type(m).__name__ for m in self.said[since:]]


@pytest.fixture
def pair() -> Pair:
    """Give both machines, with everything said that an empty realm says."""
    found = Pair()
    found.settle()
    return found


def recorded(name: str) -> Iterator[tuple[int, Dialect, bool, Any]]:
    """Read the messages of a recorded conversation: connection, dialect, whether the client said it, message."""
    dialects: dict[int, Dialect | None] = {}
    for record in transcripts.records(name):
        if record["kind"] == "ws_open":
            dialects[record["conn"]] = parse_subprotocol(str(record.get("answer", "")))
        elif record["kind"] == "ws":
            dialect = dialects[record["conn"]]
            assert dialect is not None
            parse = parse_client if record["dir"] == "c2s" else parse_server
            yield record["conn"], dialect, record["dir"] == "c2s", parse(transcripts.message(record)[0], dialect)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a ``transcript`` once for each conversation between a client and a good server."""
    if "transcript" in metafunc.fixturenames:
        metafunc.parametrize("transcript", transcripts.names("flx_", "pbs_", "session_"))
