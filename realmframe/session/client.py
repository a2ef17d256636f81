"""The client's end: sessions of several realms on one connection, without its socket.

Rules. After BIND and IDENT a session asks for a MARK, and neither uploads nor sends queries until it is answered
(except within a minute of the last connection). Query sets are ordered among commits: what was written before a set
goes up before it. Every DOWNLOAD that raised the download version is acknowledged by an UPLOAD, empty if need be.
After an error the session answers UNBIND and, when it tries again, binds under the same number.

The shell feeds :meth:`ClientConnection.receive`, acts on the events in order, writes what
:meth:`ClientConnection.data_to_send` gives, and calls :meth:`ClientConnection.on_deadline` at
:meth:`ClientConnection.deadline`. Times are seconds of any clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

from realmframe.errors import RemoteProtocolError
from realmframe.session.actions import REACTIONS, UNKNOWN
from realmframe.session.backoff import Backoff, BackoffPolicy
from realmframe.session.events import (
    ClientEvent,
    CompensatingWrites,
    ConnectionProblem,
    DownloadReceived,
    IdentAssigned,
    LogReceived,
    MarkReached,
    QueryRefused,
    QuerySent,
    SessionProblem,
    SessionUnbound,
)
from realmframe.session.timers import SyncTimeouts
from realmframe.wire import (
    Action,
    Bind,
    ClientIdent,
    ClientJsonError,
    Dialect,
    Download,
    Ident,
    JsonError,
    LegacyError,
    LogMessage,
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

#: An UPLOAD takes no more changesets once it holds so many bytes.
UPLOAD_BYTES: Final = 128 * 1024
#: The machine stops making UPLOADs while so many bytes wait to be written.
WAITING_BYTES: Final = 4 * 1024 * 1024


class ClientState(Enum):
    """Where a session is."""

    IDLE = "idle"
    BINDING = "waiting for a file number"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    UNBINDING = "unbinding"
    FAILED = "failed"


C = ClientState

#: State and message to the next state; what is missing is a protocol error of the server.
TRANSITIONS: Final[dict[tuple[ClientState, type], ClientState]] = {
    (C.BINDING, Ident): C.ACTIVE,
    (C.BINDING, JsonError): C.SUSPENDED,
    (C.BINDING, LegacyError): C.SUSPENDED,
    (C.ACTIVE, Download): C.ACTIVE,
    (C.ACTIVE, Mark): C.ACTIVE,
    (C.ACTIVE, QueryError): C.ACTIVE,
    (C.ACTIVE, JsonError): C.SUSPENDED,
    (C.ACTIVE, LegacyError): C.SUSPENDED,
    (C.UNBINDING, Unbound): C.IDLE,
    (C.UNBINDING, Ident): C.UNBINDING,
    (C.UNBINDING, Download): C.UNBINDING,
    (C.UNBINDING, Mark): C.UNBINDING,
    (C.UNBINDING, QueryError): C.UNBINDING,
    (C.UNBINDING, JsonError): C.IDLE,
    (C.UNBINDING, LegacyError): C.IDLE,
}


@dataclass(slots=True)
class SyncProgress:
    """How far a file and the server have come with each other; kept on disk by the shell."""

    download_server_version: int = 0
    download_client_version: int = 0
    latest_server_version: int = 0
    latest_salt: int = 0
    upload_client_version: int = 0
    upload_server_version: int = 0

    @classmethod
    def of(cls, message: Download) -> SyncProgress:
        """Read it from a DOWNLOAD."""
        return cls(
            message.download_server_version,
            message.download_client_version,
            message.latest_server_version,
            message.latest_salt,
            message.upload_client_version,
            message.upload_server_version,
        )


class UploadSource(Protocol):
    """The local changes that still have to go up."""

    @property
    def latest_version(self) -> int:
        """The newest version of the file."""

    def changes_after(self, version: int, upto: int | None, max_bytes: int) -> Sequence[UploadEntry]:
        """Give local changesets after a version, oldest first, about ``max_bytes`` of them (at least one if any)."""


@dataclass(frozen=True, slots=True)
class QuerySet:
    """A query set to send: its version, its wire form, and the file's version when it was made."""

    version: int
    body: dict[str, str]
    snapshot_version: int


@dataclass(slots=True, eq=False)
class ClientSession:
    """One realm on a connection. Made by :meth:`ClientConnection.open_session`.

    Attributes
    ----------
    number : int
        Its number on the wire.
    partition : str or None
        Partition as extended JSON text; None for Flexible Sync.
    source : UploadSource
    file_ident, salt : int
        0 until the server has given them.
    progress : SyncProgress
        As it is on disk.
    active_query : QuerySet
        The set in force.
    pending : list of QuerySet
        Sets not yet answered, oldest first.
    """

    number: int
    source: UploadSource
    file_ident: int = 0
    salt: int = 0
    progress: SyncProgress = field(default_factory=SyncProgress)
    partition: str | None = None
    active_query: QuerySet = field(default_factory=lambda: QuerySet(0, {}, 0))
    pending: list[QuerySet] = field(default_factory=list)
    schema_version: int = 0
    reason: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    state: ClientState = C.IDLE
    wanted: bool = True
    allow_upload: bool = False
    mark_target: int = 0
    mark_sent: int = 0
    mark_reached: int = 0
    upload_cursor: int = 0
    query_sent: int = 0
    acknowledge: bool = False
    received: SyncProgress = field(default_factory=SyncProgress)
    resume_at: float | None = None
    last_active: float | None = None
    backoff: Backoff | None = None

    def request_mark(self) -> int:
        """Ask to be told when everything that the server has now was received; give the request's number."""
        self.mark_target += 1
        return self.mark_target

    def integrated(self, message: Download) -> None:
        """Say that a DOWNLOAD is on disk: it will be acknowledged."""
        if message.download_server_version > self.progress.download_server_version:
            self.acknowledge = True
        self.progress = SyncProgress.of(message)

    def set_queries(self, active: QuerySet, pending: Sequence[QuerySet]) -> None:
        """Say which query sets are in force and waiting."""
        self.active_query, self.pending = active, list(pending)
        self.query_sent = max(self.query_sent, active.version)


class ClientConnection:
    """One connection to a server, without its socket.

    Parameters
    ----------
    flexible : bool
    random : callable
        Gives numbers from 0 to 1, for jitter.
    timeouts : SyncTimeouts
    numbers : callable
        Gives session numbers that no other connection of the process uses.
    """

    def __init__(
        self,
        flexible: bool,
        random: Callable[[], float],
        numbers: Callable[[], int],
        timeouts: SyncTimeouts | None = None,
    ) -> None:
        self.flexible = flexible
        self.timeouts = timeouts or SyncTimeouts()
        self.sessions: dict[int, ClientSession] = {}
        self._random, self._numbers = random, numbers
        self._dialect: Dialect | None = None
        self._out: list[bytes] = []
        self._waiting = 0
        self._ping_at: float | None = None
        self._ping_sent: tuple[int, float] | None = None
        self._rtt = 0

    # ------------------------------------------------------------------ the connection

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._dialect is not None

    def open_session(self, source: UploadSource, **settings: Any) -> ClientSession:
        """Add a session; it binds as soon as there is a connection (``settings``: fields of ClientSession)."""
        session = ClientSession(self._numbers(), source, **settings)
        session.backoff = Backoff(self._random)
        self.sessions[session.number] = session
        return session

    def connected(self, dialect: Dialect, now: float) -> None:
        """Begin a new connection: every session that is wanted binds."""
        self._dialect, self._out, self._waiting = dialect, [], 0
        self._ping_at = now + self._random() * self.timeouts.ping_keep_alive_period
        self._ping_sent = None
        for session in self.sessions.values():
            if session.wanted and session.state is C.IDLE:
                self._bind(session, now)

    def disconnected(self, now: float) -> None:
        """End the connection; sessions wait for the next one."""
        self._dialect, self._out, self._waiting = None, [], 0
        self._ping_at, self._ping_sent = None, None
        for session in list(self.sessions.values()):
            if session.state is C.ACTIVE:
                session.last_active = now
            if session.state is C.UNBINDING and not session.wanted:
                del self.sessions[session.number]
            elif session.state is not C.FAILED:
                session.state = C.IDLE
                session.resume_at = None

    def ping_now(self, now: float) -> None:
        """Ask for a sign of life at once, as after "reconnect"."""
        if self._ping_at is not None:
            self._ping_at = now

    # ------------------------------------------------------------------ intents

    def bind(self, session: ClientSession, now: float) -> None:
        """Bind a session that was unbound, failed or new."""
        session.wanted = True
        self.sessions[session.number] = session
        if session.state in (C.FAILED, C.SUSPENDED):
            session.state = C.IDLE
        if self.is_connected and session.state is C.IDLE:
            self._bind(session, now)

    def unbind(self, session: ClientSession, now: float) -> None:
        """End a session."""
        session.wanted = False
        session.resume_at = None
        if session.state in (C.BINDING, C.ACTIVE):
            if session.state is C.ACTIVE:
                session.last_active = now
            self._put(Unbind(session.number))
            session.state = C.UNBINDING
        elif session.state is not C.UNBINDING:
            session.state = C.IDLE
            self.sessions.pop(session.number, None)

    def report_bad_download(self, session: ClientSession, code: int, message: str) -> None:
        """Tell the server that a DOWNLOAD could not be used."""
        if session.state is C.ACTIVE:
            self._put(ClientJsonError(session.number, code, {"message": message}))

    def _bind(self, session: ClientSession, now: float) -> None:
        dialect = self._need()
        body: dict[str, Any] | str = session.partition or ""
        if self.flexible:
            versions: dict[str, Any] = {"schemaVersion": session.schema_version} if dialect.version >= 11 else {}
            reason: dict[str, Any] = {"sessionReason": session.reason} if dialect.version >= 10 else {}
            body = {**versions, **reason, **session.extra}
        self._put(Bind(session.number, body, need_ident=session.file_ident == 0))
        recent = session.last_active is not None and now - session.last_active < self.timeouts.fast_reconnect_limit
        session.allow_upload = recent and session.file_ident != 0
        session.received = session.progress
        session.upload_cursor = session.progress.upload_client_version
        session.query_sent = session.active_query.version
        session.acknowledge = False
        session.resume_at = None
        session.mark_sent = session.mark_reached
        if session.mark_target <= session.mark_reached:
            session.mark_target = session.mark_reached + 1
        session.state = C.BINDING
        if session.file_ident:
            self._identify(session)

    def _identify(self, session: ClientSession) -> None:
        p, query = session.progress, session.active_query
        flexible: dict[str, Any] = {"query_version": query.version, "query": query.body} if self.flexible else {}
        self._put(
            ClientIdent(
                session.number,
                session.file_ident,
                session.salt,
                p.download_server_version,
                p.download_client_version,
                p.latest_server_version,
                p.latest_salt,
                **flexible,
            )
        )
        session.state = C.ACTIVE

    # ------------------------------------------------------------------ sending

    def _need(self) -> Dialect:
        assert self._dialect is not None
        return self._dialect

    def _put(self, message: Any) -> None:
        if self._dialect is not None:
            data = encode(message, self._dialect)
            self._out.append(data)
            self._waiting += len(data)

    def data_to_send(self) -> tuple[list[bytes], list[ClientEvent]]:
        """Take what has to be written now, with the events that it causes; call again until there is nothing."""
        events: list[ClientEvent] = []
        if self._dialect is not None:
            for session in self.sessions.values():
                if session.state is C.ACTIVE:
                    self._pump(session, events)
        out, self._out, self._waiting = self._out, [], 0
        return out, events

    def _pump(self, session: ClientSession, events: list[ClientEvent]) -> None:
        if session.mark_target > session.mark_sent:
            session.mark_sent = session.mark_target
            self._put(Mark(session.number, session.mark_sent))
        while session.allow_upload and self._waiting < WAITING_BYTES:
            query = next((q for q in session.pending if q.version > session.query_sent), None)
            limit = None if query is None else query.snapshot_version
            if self._upload(session, limit):
                continue
            if query is None:
                break
            self._put(Query(session.number, query.version, query.body))
            session.query_sent = query.version
            events.append(QuerySent(session, query.version))
        if session.acknowledge and self._waiting < WAITING_BYTES:
            self._upload_message(session, ())

    def _upload(self, session: ClientSession, limit: int | None) -> bool:
        entries = session.source.changes_after(session.upload_cursor, limit, UPLOAD_BYTES)
        if not entries:
            end = session.source.latest_version if limit is None else limit
            session.upload_cursor = max(session.upload_cursor, end)
            return False
        session.upload_cursor = entries[-1].client_version
        self._upload_message(session, entries)
        return True

    def _upload_message(self, session: ClientSession, entries: Sequence[UploadEntry]) -> None:
        server = session.progress.download_server_version
        self._put(Upload(session.number, session.upload_cursor, server, server, tuple(entries)))
        session.acknowledge = False

    # ------------------------------------------------------------------ receiving

    def receive(self, data: bytes, now: float) -> list[ClientEvent]:
        """Take one WebSocket message; you must send what :meth:`data_to_send` gives afterwards.

        A broken rule comes as a :class:`ConnectionProblem`, never as an exception.
        """
        try:
            message = parse_server(data, self._need())
            return self._receive(message, now)
        except RemoteProtocolError as error:
            return [ConnectionProblem(0, str(error), try_again=True)]

    def _receive(self, message: Any, now: float) -> list[ClientEvent]:
        if isinstance(message, Pong):
            return self._pong(message, now)
        if isinstance(message, LogMessage):
            level, text = str(message.body.get("level", "info")), str(message.body.get("msg", ""))
            return [LogReceived(level, text, message.body.get("co_id"))]
        if isinstance(message, JsonError | LegacyError) and message.session == 0:
            return [_connection_problem(message)]
        session = self.sessions.get(message.session)
        if session is None:
            if isinstance(message, Unbound | JsonError | LegacyError | Download | Mark | Ident | QueryError):
                return []  # it was on its way when the session ended
            raise RemoteProtocolError("The server named a session that does not exist.")
        if session.state in (C.SUSPENDED, C.FAILED):
            return []
        if isinstance(message, JsonError) and message.code == 231:
            return [_compensating(session, message)]
        after = TRANSITIONS.get((session.state, type(message)))
        if after is None:
            name = type(message).__name__
            raise RemoteProtocolError(f"The server sent {name} in a session that is {session.state.value}.")
        handler: Callable[..., list[ClientEvent]] = getattr(self, _HANDLERS[type(message)])
        return handler(session, message, after, now)

    def _ident(self, session: ClientSession, message: Ident, after: ClientState, _now: float) -> list[ClientEvent]:
        if after is C.UNBINDING:
            return []
        if session.file_ident:
            raise RemoteProtocolError("The server gave a file number that was not asked for.")
        session.file_ident, session.salt = message.file_ident, message.salt
        self._identify(session)
        return [IdentAssigned(session, message.file_ident, message.salt)]

    def _download(
        self, session: ClientSession, message: Download, after: ClientState, _now: float
    ) -> list[ClientEvent]:
        if after is C.UNBINDING:
            return []
        check_download(session, message)
        session.received = SyncProgress.of(message)
        if session.backoff is not None:
            session.backoff.reset()
        return [DownloadReceived(session, message)]

    def _mark(self, session: ClientSession, message: Mark, after: ClientState, _now: float) -> list[ClientEvent]:
        if after is C.UNBINDING:
            return []
        if not session.mark_reached < message.request <= session.mark_sent:
            raise RemoteProtocolError("The server answered a MARK that was not sent.")
        session.mark_reached = message.request
        session.allow_upload = True
        return [MarkReached(session, message.request)]

    def _query_error(
        self, session: ClientSession, message: QueryError, after: ClientState, _now: float
    ) -> list[ClientEvent]:
        if after is C.UNBINDING:
            return []
        session.pending = [q for q in session.pending if q.version != message.query_version]
        return [QueryRefused(session, message.query_version, message.message)]

    def _unbound(self, session: ClientSession, _message: Unbound, after: ClientState, now: float) -> list[ClientEvent]:
        session.state = after
        if session.wanted:
            self._bind(session, now)
            return []
        self.sessions.pop(session.number, None)
        return [SessionUnbound(session)]

    def _error(
        self, session: ClientSession, message: JsonError | LegacyError, after: ClientState, now: float
    ) -> list[ClientEvent]:
        if after is C.IDLE:
            # It crossed the UNBIND that is on its way: no UNBOUND will come.
            return self._unbound(session, Unbound(session.number), after, now)
        body = message.body if isinstance(message, JsonError) else {"message": message.message}
        action = str(body.get("action", Action.PROTOCOL_VIOLATION))
        try_again = bool(body.get("tryAgain", getattr(message, "try_again", False)))
        reaction = REACTIONS.get(action, UNKNOWN)
        self._put(Unbind(session.number))
        session.state = C.SUSPENDED if reaction.retries else C.FAILED
        session.last_active = None
        delay: float | None = None
        if reaction.retries and try_again and session.backoff is not None:
            delay = session.backoff.next(message.code, _policy(message.code, body))
            session.resume_at = now + delay
        text = str(body.get("message", ""))
        fatal = reaction.fatal or not try_again
        return [SessionProblem(session, message.code, action, text, fatal, reaction.reported, delay, dict(body))]

    # ------------------------------------------------------------------ time

    def _pong(self, message: Pong, now: float) -> list[ClientEvent]:
        if self._ping_sent is None or self._ping_sent[0] != message.timestamp:
            raise RemoteProtocolError("The server sent a PONG that was not asked for.")
        self._rtt = max(0, round((now - self._ping_sent[1]) * 1000))
        self._ping_sent = None
        self._ping_at = now + self.timeouts.ping_keep_alive_period * (1.0 - 0.1 * self._random())
        return []

    def deadline(self) -> float | None:
        """Give the time at which :meth:`on_deadline` has something to do, if any."""
        if not self.is_connected:
            return None
        times = [s.resume_at for s in self.sessions.values() if s.resume_at is not None]
        if self._ping_sent is not None:
            times.append(self._ping_sent[1] + self.timeouts.pong_keep_alive_timeout)
        elif self._ping_at is not None:
            times.append(self._ping_at)
        return min(times, default=None)

    def on_deadline(self, now: float) -> list[ClientEvent]:
        """Do what is due."""
        if not self.is_connected:
            return []
        for session in list(self.sessions.values()):
            if session.resume_at is not None and session.resume_at <= now:
                session.resume_at, session.state = None, C.IDLE
                self._bind(session, now)
        if self._ping_sent is not None:
            if now >= self._ping_sent[1] + self.timeouts.pong_keep_alive_timeout:
                return [ConnectionProblem(0, "The server does not answer PING.", try_again=True)]
        elif self._ping_at is not None and now >= self._ping_at:
            stamp = round(now * 1000)
            self._ping_sent = (stamp, now)
            self._put(Ping(stamp, self._rtt))
        return []


#: Which method takes which message.
_HANDLERS: Final[dict[type, str]] = {
    Ident: "_ident",
    Download: "_download",
    Mark: "_mark",
    QueryError: "_query_error",
    Unbound: "_unbound",
    JsonError: "_error",
    LegacyError: "_error",
}


def _policy(code: int, body: dict[str, Any]) -> BackoffPolicy | None:
    """Take the delays that the server names; a session that it closed without an error waits one second."""
    if code == 200:
        return BackoffPolicy(1.0, 1.0, 1.0)
    if "backoffIntervalSec" not in body:
        return None
    first, longest = float(body["backoffIntervalSec"]), float(body.get("backoffMaxDelaySec", 300))
    return BackoffPolicy(first, longest, float(body.get("backoffMultiplier", 2)))


def _connection_problem(message: JsonError | LegacyError) -> ConnectionProblem:
    if isinstance(message, LegacyError):
        return ConnectionProblem(message.code, message.message, message.try_again)
    body = message.body
    return ConnectionProblem(message.code, str(body.get("message", "")), bool(body.get("tryAgain")), dict(body))


def _compensating(session: ClientSession, message: JsonError) -> CompensatingWrites:
    body = message.body
    writes = tuple(w for w in body.get("rejectedUpdates", ()) if isinstance(w, dict))
    server, client = int(body.get("compensatingWriteServerVersion", 0)), int(body.get("rejectedClientVersion", 0))
    return CompensatingWrites(session, writes, server, client, str(body.get("message", "")))


def check_download(session: ClientSession, message: Download) -> None:
    """Check the version rules of a DOWNLOAD.

    Raises
    ------
    RemoteProtocolError
        Naming the rule that the server broke.
    """
    m, last = message, session.received
    rules = {
        "the download version is above the latest": m.download_server_version > m.latest_server_version,
        "the download version went down": m.download_server_version < last.download_server_version,
        "the latest version went down": m.latest_server_version < last.latest_server_version,
        "the upload client version went down": m.upload_client_version < last.upload_client_version,
        "the download client version went down": m.download_client_version < last.download_client_version,
        "an upload is acknowledged that was never made": m.upload_client_version > session.source.latest_version,
        "the download client version is above the upload's": m.download_client_version > m.upload_client_version,
        "the download version is below the upload's": m.download_server_version < m.upload_server_version,
    }
    broken = next((rule for rule, is_broken in rules.items() if is_broken), None) or _broken_entry(session, message)
    if broken:
        raise RemoteProtocolError(f"The server broke the rules of DOWNLOAD: {broken}.")


def _broken_entry(session: ClientSession, message: Download) -> str | None:
    version, client = 0, 0
    for entry in message.entries:
        repeated = session.partition is not None and entry.server_version == version
        if entry.server_version < version or repeated or entry.server_version > message.download_server_version:
            return "entry server versions are out of order"
        if entry.client_version < client or entry.client_version > message.download_client_version:
            return "entry client versions are out of order"
        if entry.file_ident < 1 or entry.file_ident == session.file_ident:
            return "an entry comes from this very file"
        version, client = entry.server_version, entry.client_version
    return None
