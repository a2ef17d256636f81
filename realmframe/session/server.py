"""The server's end of a connection: which message may come when, and which may be sent.

Rules. One connection carries many sessions, numbered by the client. A session is opened by BIND, named by IDENT, then
active until UNBIND. Once the server has failed a session with a json_error it says nothing more for that number: what
was on its way is discarded, the UNBIND that answers the error is not answered, and BIND with the same number may come
again. All state is in the table below; the connection itself only looks up, and queues what is to be sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

from realmframe.errors import LocalProtocolError, RemoteProtocolError
from realmframe.wire import (
    Action,
    BatchState,
    Bind,
    ClientIdent,
    ClientJsonError,
    Dialect,
    Download,
    DownloadEntry,
    Ident,
    JsonError,
    LogMessage,
    Mark,
    Ping,
    Pong,
    Query,
    QueryError,
    Unbind,
    Unbound,
    Upload,
    encode,
    json_error_body,
    parse_client,
)
from realmframe.wire.errors import check_sendable


class ServerState(Enum):
    """Where a session is."""

    WAIT_IDENT = "wait for IDENT"
    ACTIVE = "active"
    FAILED = "failed"
    CLOSED = "closed"


S = ServerState

#: What a message does to a session: state and message to the next state. What is missing is a protocol error.
TRANSITIONS: Final[dict[tuple[ServerState, type], ServerState]] = {
    (S.CLOSED, Bind): S.WAIT_IDENT,
    (S.WAIT_IDENT, ClientIdent): S.ACTIVE,
    (S.WAIT_IDENT, Unbind): S.CLOSED,
    (S.ACTIVE, Query): S.ACTIVE,
    (S.ACTIVE, Upload): S.ACTIVE,
    (S.ACTIVE, Mark): S.ACTIVE,
    (S.ACTIVE, ClientJsonError): S.ACTIVE,
    (S.ACTIVE, Unbind): S.CLOSED,
    (S.FAILED, Bind): S.WAIT_IDENT,
    (S.FAILED, ClientIdent): S.FAILED,
    (S.FAILED, Query): S.FAILED,
    (S.FAILED, Upload): S.FAILED,
    (S.FAILED, Mark): S.FAILED,
    (S.FAILED, ClientJsonError): S.FAILED,
    (S.FAILED, Unbind): S.CLOSED,
}

#: Most sessions on one connection.
MAX_SESSIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Received:
    """A message that a session may act on."""

    session: int
    message: Any


ServerEvent: TypeAlias = Received


@dataclass(slots=True)
class _Session:
    state: ServerState = S.CLOSED
    file_ident: int = 0
    need_ident: bool = False
    #: Highest numbers sent or received, which never go down.
    download_version: int = 0
    latest_version: int = 0
    upload_client: int = 0
    download_client: int = 0
    query_version: int = -1
    #: Client version up to which everything was received, and the server version integrated there.
    upload_cursor: tuple[int, int] = (0, 0)
    locked_version: int = 0
    opened: set[int] = field(default_factory=set)


class ServerConnection:
    """One connection of a client, without its socket.

    Feed bytes to :meth:`receive`, act on the events, then write what :meth:`data_to_send` gives.

    Parameters
    ----------
    dialect : Dialect
        What both ends agreed on.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._sessions: dict[int, _Session] = {}
        self._out: deque[bytes] = deque()

    # ------------------------------------------------------------------ receiving

    def receive(self, data: bytes) -> list[ServerEvent]:
        """Take one WebSocket message; you must send what :meth:`data_to_send` gives afterwards.

        Raises
        ------
        RemoteProtocolError
            If the client broke the protocol; close the connection.
        """
        message = parse_client(data, self.dialect)
        if isinstance(message, Ping):
            self._out.append(encode(Pong(message.timestamp), self.dialect))
            return []
        number = message.session
        session = self._sessions.get(number)
        if session is None:
            session = self._open(number)
        before = session.state
        after = TRANSITIONS.get((before, type(message)))
        if after is None:
            name = type(message).__name__
            raise RemoteProtocolError(f"The client sent {name} in a session that is {before.value}.")
        session.state = after
        if before is S.FAILED and after is not S.WAIT_IDENT:
            return []
        self._note(session, message)
        if isinstance(message, Unbind):
            self._out.append(encode(Unbound(number), self.dialect))
        return [Received(number, message)]

    def _open(self, number: int) -> _Session:
        if sum(s.state is not S.CLOSED for s in self._sessions.values()) >= MAX_SESSIONS:
            raise RemoteProtocolError(f"The client opened more than {MAX_SESSIONS} sessions on one connection.")
        return self._sessions.setdefault(number, _Session())

    def _note(self, session: _Session, message: Any) -> None:
        if isinstance(message, Bind):
            session.need_ident = message.need_ident
            session.download_version = session.latest_version = session.locked_version = 0
            session.upload_cursor = (0, 0)
            session.upload_client = session.download_client = 0
            session.query_version = -1
        elif isinstance(message, ClientIdent):
            if session.file_ident and session.need_ident and message.file_ident != session.file_ident:
                # A client may have been given a number by BIND and then, after a client reset, use another one.
                session.file_ident = message.file_ident
            session.file_ident = message.file_ident
            session.download_version = message.download_server_version
            session.latest_version = message.latest_server_version
            session.query_version = message.query_version or 0
        elif isinstance(message, Query):
            if message.version <= session.query_version:
                raise RemoteProtocolError("The client sent a query version that is not new.")
            session.query_version = message.version
        elif isinstance(message, Upload):
            self._check_upload(session, message)

    def _check_upload(self, session: _Session, message: Upload) -> None:
        """Check that the client's place in its own history only moves forward, as the real server does."""
        cursor = session.upload_cursor
        for entry in message.entries:
            if entry.client_version <= cursor[0]:
                raise RemoteProtocolError("The client uploaded changesets out of order.")
            cursor = _follow(cursor, (entry.client_version, entry.server_version), session.download_version)
        progress = message.progress_client_version, message.progress_server_version
        if progress[0] < cursor[0]:
            raise RemoteProtocolError("The client's upload progress is behind what it uploaded.")
        locked = message.locked_server_version
        if not session.locked_version <= locked <= session.download_version:
            raise RemoteProtocolError(f"The client's locked server version {locked} goes down, or was never sent.")
        session.upload_cursor = _follow(cursor, progress, session.download_version)
        session.locked_version = locked

    # ------------------------------------------------------------------ sending

    def state(self, number: int) -> ServerState:
        """Tell where a session is."""
        session = self._sessions.get(number)
        return S.CLOSED if session is None else session.state

    def active(self) -> list[int]:
        """List the sessions that are active."""
        return [n for n, s in self._sessions.items() if s.state is S.ACTIVE]

    def _need(self, number: int, *states: ServerState) -> _Session:
        session = self._sessions.get(number)
        if session is None or session.state not in states:
            where = "unknown" if session is None else session.state.value
            raise LocalProtocolError(f"The server may not send this in a session that is {where}.")
        return session

    def send_ident(self, number: int, file_ident: int, salt: int) -> None:
        """Give the client file its number."""
        session = self._need(number, S.WAIT_IDENT)
        if file_ident < 1 or not 0 < salt < 1 << 63:
            raise LocalProtocolError("A client file needs a number from 1 and a salt from 1 below 2^63.")
        session.file_ident = file_ident
        self._out.append(encode(Ident(number, file_ident, salt), self.dialect))

    def send_download(self, message: Download) -> None:
        """Send changesets or an acknowledgement, if it obeys the version rules that clients enforce."""
        session = self._need(message.session, S.ACTIVE)
        self.check_download(message)
        self._out.append(encode(message, self.dialect))
        session.download_version = message.download_server_version
        session.latest_version = message.latest_server_version
        session.upload_client = message.upload_client_version
        session.download_client = message.download_client_version

    def check_download(self, message: Download) -> None:
        """Check a DOWNLOAD against what was sent before.

        Raises
        ------
        LocalProtocolError
            Naming the rule that it would break.
        """
        session = self._need(message.session, S.ACTIVE)
        m, s = message, session
        rules = {
            "download version above the latest": m.download_server_version > m.latest_server_version,
            "download version goes down": m.download_server_version < s.download_version,
            "latest version goes down": m.latest_server_version < s.latest_version,
            "upload client version goes down": m.upload_client_version < s.upload_client,
            "download client version goes down": m.download_client_version < s.download_client,
            "download client version above the upload's": m.download_client_version > m.upload_client_version,
            "download version below the upload's server version": m.download_server_version < m.upload_server_version,
            "empty last batch of a bootstrap": self._empty_bootstrap(s, m),
        }
        broken = [rule for rule, is_broken in rules.items() if is_broken]
        broken += self._broken_entries(s, m)
        if broken:
            raise LocalProtocolError(f"The server would break the rules of DOWNLOAD: {'; '.join(broken)}.")

    def _empty_bootstrap(self, session: _Session, message: Download) -> bool:
        """Find a bootstrap without a single entry: a real client spins for ever on it."""
        if not self.dialect.flexible or message.batch is BatchState.STEADY_STATE:
            return False
        if message.entries:
            session.opened.add(message.query_version)
        empty = message.query_version not in session.opened
        if message.batch is BatchState.LAST_IN_BATCH:
            session.opened.discard(message.query_version)
            return empty
        return False

    def _broken_entries(self, session: _Session, message: Download) -> list[str]:
        broken, version, client = [], 0, 0
        for entry in message.entries:
            if entry.server_version < max(1, version) or entry.server_version > message.download_server_version:
                broken.append("entry server versions out of order")
            if entry.client_version < client or entry.client_version > message.download_client_version:
                broken.append("entry client versions out of order")
            if entry.file_ident < 1 or entry.file_ident == session.file_ident:
                broken.append("an entry's origin is the receiver itself")
            version, client = entry.server_version, entry.client_version
        return broken

    def send_mark(self, number: int, request: int) -> None:
        """Answer a MARK."""
        self._need(number, S.ACTIVE)
        self._out.append(encode(Mark(number, request), self.dialect))

    def send_query_error(self, number: int, query_version: int, message: str, code: int = 226) -> None:
        """Refuse a query set; the session goes on with the previous one."""
        self._need(number, S.ACTIVE)
        self._out.append(encode(QueryError(number, code, query_version, message), self.dialect))

    def send_log(self, number: int, level: str, message: str) -> None:
        """Tell the client something for its log (version 10 and newer)."""
        if self.dialect.version >= 10:
            self._out.append(encode(LogMessage(number, {"level": level, "msg": message}), self.dialect))

    def send_error(
        self, number: int, code: int, message: str, action: Action, *, try_again: bool = False, **extra: Any
    ) -> None:
        """Report an error; it fails the session unless it is a warning about writes (code 231) or schema (236)."""
        check_sendable(code)
        body = json_error_body(message, action=action, try_again=try_again, **extra)
        if number:
            session = self._need(number, S.WAIT_IDENT, S.ACTIVE)
            if code not in (231, 236):
                session.state = S.FAILED
        self._out.append(encode(JsonError(number, code, body), self.dialect))

    def data_to_send(self) -> list[bytes]:
        """Take what has to be written, one WebSocket message each."""
        out = list(self._out)
        self._out.clear()
        return out


def _follow(before: tuple[int, int], after: tuple[int, int], known: int) -> tuple[int, int]:
    """Check one place in a client's history against the one before it.

    Parameters
    ----------
    before, after : tuple of int
        Client version, and the server version that the client had integrated there.
    known : int
        The server version that the client was sent.

    Raises
    ------
    RemoteProtocolError
    """
    if after[1] > known:
        raise RemoteProtocolError("The client uploaded a changeset based on a version that it does not have.")
    if after[0] < before[0] or after[1] < before[1]:
        raise RemoteProtocolError(f"The client's upload progress goes down, from {before} to {after}.")
    if after[1] != before[1] and after[0] == before[0]:
        raise RemoteProtocolError(f"The client says two things of its version {after[0]}: {before[1]} and {after[1]}.")
    return after


def acknowledge(number: int, last: Download, entries: Sequence[DownloadEntry] = ()) -> Download:
    """Make the DOWNLOAD that acknowledges uploads: as ``last``, in steady state."""
    return Download(
        number,
        last.download_server_version,
        last.download_client_version,
        last.latest_server_version,
        last.latest_salt,
        last.upload_client_version,
        last.upload_server_version,
        last.query_version,
        entries=tuple(entries),
    )
