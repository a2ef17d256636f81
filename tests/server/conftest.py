"""A raw client of the server: the messages of the protocol, and the rules that a real client enforces."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from realmframe.testing import Server
from realmframe.wire import (
    BatchState,
    Bind,
    ClientIdent,
    Dialect,
    Download,
    Ident,
    JsonError,
    Mark,
    Ping,
    Pong,
    Query,
    QueryError,
    Unbind,
    Unbound,
    Upload,
    UploadEntry,
    encode,
    parse_server,
)
from tests.waiting import WAIT

from .databases import close_databases


class Rules:
    """What a real client checks of every DOWNLOAD of one session."""

    def __init__(self, file_ident: int) -> None:
        self.file_ident = file_ident
        self.version = self.latest = self.upload = self.client = 0
        self.entries_of: dict[int, int] = {}
        self.complete: set[int] = set()
        self.has_written = 0

    def check(self, m: Download) -> None:
        """Fail on whatever would end a real client's session or process."""
        assert m.download_server_version <= m.latest_server_version
        assert m.download_server_version >= self.version
        assert m.latest_server_version >= self.latest
        assert self.upload <= m.upload_client_version <= self.has_written
        assert self.client <= m.download_client_version <= m.upload_client_version
        assert m.download_server_version >= m.upload_server_version
        assert 0 <= m.estimate <= 1
        version, client = 1, 0
        for e in m.entries:
            assert version <= e.server_version <= m.download_server_version
            assert client <= e.client_version <= m.download_client_version
            assert e.file_ident >= 1
            assert e.file_ident != self.file_ident
            version, client = e.server_version, e.client_version
        self.version, self.latest = m.download_server_version, m.latest_server_version
        self.upload, self.client = m.upload_client_version, m.download_client_version
        if m.batch is not BatchState.STEADY_STATE:
            self.entries_of[m.query_version] = self.entries_of.get(m.query_version, 0) + len(m.entries)
            if m.batch is BatchState.LAST_IN_BATCH:
                assert self.entries_of.pop(m.query_version) >= 1, "a real client spins for ever on an empty bootstrap"
                self.complete.add(m.query_version)


class RawSession:
    """One session of a raw client."""

    def __init__(self, wire: RawConnection, number: int) -> None:
        self.wire, self.number = wire, number
        self.ident: Ident | None = None
        self.file = (0, 0)
        self.rules = Rules(0)
        self.downloads: list[Download] = []
        self.marks: set[int] = set()
        self.errors: list[JsonError | QueryError] = []
        self.is_unbound = False

    def take(self, message: Any) -> None:
        """Note a message of the server."""
        if isinstance(message, Ident):
            self.ident = message
            self.rules.file_ident = message.file_ident
        elif isinstance(message, Download):
            self.rules.check(message)
            self.downloads.append(message)
        elif isinstance(message, Mark):
            self.marks.add(message.request)
        elif isinstance(message, JsonError | QueryError):
            self.errors.append(message)
        elif isinstance(message, Unbound):
            self.is_unbound = True

    @property
    def entries(self) -> list[Any]:
        """All entries received."""
        return [e for d in self.downloads for e in d.entries]

    def open(
        self,
        ident: tuple[int, int, int, int] | None = None,
        query: Any = None,
        query_version: int = 0,
        server_salt: int = 0,
    ) -> None:
        """BIND and IDENT; ``ident`` is file, salt, download server and client version."""
        body: Any = {"schemaVersion": 0, "sessionReason": 0} if self.wire.dialect.flexible else '"p"'
        self.wire.send(Bind(self.number, body, ident is None))
        if ident is None:
            self.wire.until(lambda: self.ident is not None)
            assert self.ident is not None
            ident = (self.ident.file_ident, self.ident.salt, 0, 0)
        self.rules.file_ident = ident[0]
        self.rules.has_written = max(self.rules.has_written, ident[3])
        version, texts = (query_version, query or {}) if self.wire.dialect.flexible else (None, None)
        place = (*ident, ident[2], server_salt)
        self.wire.send(ClientIdent(self.number, *place, version, texts))

    def mark(self, request: int) -> None:
        """Ask for everything there is."""
        self.wire.send(Mark(self.number, request))
        self.wire.until(lambda: request in self.marks)

    def query(self, version: int, **texts: str) -> None:
        """Send a query set; returns after its bootstrap."""
        self.wire.send(Query(self.number, version, texts))
        self.wire.until(lambda: version in self.rules.complete or bool(self.errors))

    def upload(self, client_version: int, *changesets: bytes, base: int | None = None, timestamp: int = 1000) -> None:
        """Upload changesets, the last of which gets this version; returns when they are acknowledged."""
        base = self.rules.version if base is None else base
        first = client_version - len(changesets) + 1
        entries = tuple(UploadEntry(first + i, base, timestamp, 0, c) for i, c in enumerate(changesets))
        self.rules.has_written = client_version
        self.wire.send(Upload(self.number, client_version, base, 0, entries))
        self.wire.until(lambda: self.rules.upload >= client_version or bool(self.errors))


class RawConnection:
    """One WebSocket of a raw client."""

    def __init__(self, url: str, app: str, token: str, dialect: Dialect | None = None) -> None:
        self.dialect = dialect or Dialect()
        address = f"{url.replace('http', 'ws', 1)}/api/client/v2.0/app/{app}/realm-sync?baas_at={token}"
        kind: Any = self.dialect.subprotocol
        self.socket = connect(address, subprotocols=[kind], compression=None, max_size=None, legacy=True)
        self.sessions: dict[int, RawSession] = {}
        self.pongs: list[int] = []

    def session(self, number: int = 1) -> RawSession:
        """Make a session."""
        found = self.sessions[number] = RawSession(self, number)
        return found

    def send(self, message: Any) -> None:
        """Write a message."""
        self.socket.send(encode(message, self.dialect))

    def until(self, done: Any, wait: float = WAIT, *, may_fail: bool = False) -> None:
        """Read until something holds; the server's errors are failures unless they may come."""
        ends = time.monotonic() + wait
        while not done():
            assert may_fail or not [s.errors for s in self.sessions.values() if s.errors]
            message = parse_server(self.socket.recv(timeout=max(0.01, ends - time.monotonic())), self.dialect)
            if isinstance(message, Pong):
                self.pongs.append(message.timestamp)
            elif message.session in self.sessions:
                self.sessions[message.session].take(message)

    def ping(self, timestamp: int) -> None:
        """Ask for a sign of life."""
        self.send(Ping(timestamp, 0))
        self.until(lambda: timestamp in self.pongs)

    def unbind(self, number: int) -> None:
        """End a session."""
        self.send(Unbind(number))
        self.until(lambda: self.sessions[number].is_unbound)

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()


def log_in(url: str, app: str = "test") -> dict[str, Any]:
    """Log in anonymously."""
    address = f"{url}/api/client/v2.0/app/{app}/auth/providers/anon-user/login"
    answer = httpx.post(address, json={"provider": "anon-user"}, timeout=WAIT)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(autouse=True)
def no_open_databases() -> Iterator[None]:
    """Close what a test opened with :func:`open_database`."""
    yield
    close_databases()


@pytest.fixture
def server(tmp_path):
    """A server of one test."""
    with Server(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    """A server of all tests of a module; they use apps of their own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def client(server):
    """Make raw connections, closed at the end."""
    made: list[RawConnection] = []

    def make(app: str = "test", token: str | None = None, dialect: Dialect | None = None) -> RawConnection:
        made.append(RawConnection(server.url, app, token or log_in(server.url, app)["access_token"], dialect))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def app_id():
    """An app of one test."""
    return f"app-{uuid.uuid4().hex[:10]}"


def claims_of(token: str) -> dict[str, Any]:
    """Read the payload of a token as clients do."""
    import json

    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
