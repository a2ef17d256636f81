"""What the two machines tell their owners, one frozen dataclass each. ``session`` is the session's number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from realmframe.errors import RemoteProtocolError
from realmframe.session.progress import Progress
from realmframe.wire import DownloadEntry, UploadEntry


class FollowUp(StrEnum):
    """What the owner of a session has to do after an error; everything else the machine does by itself."""

    NOTHING = "nothing"
    RETRY = "retry"
    """The machine tries again after a back-off."""
    STOP = "stop"
    """The session stays inactive until the app opens or resumes it."""
    DELETE_FILE = "delete file"
    CLIENT_RESET = "client reset"
    CLIENT_RESET_NO_RECOVERY = "client reset without recovery"
    LOG_OUT = "log out"
    REFRESH_USER = "refresh user"
    """POST /auth/session, then ``session.resume(now)`` or ``connection.reconnect(now)``."""
    REFRESH_LOCATION = "refresh location"
    """GET location, POST /auth/session, then a new session or ``connection.reconnect(now)``."""
    MIGRATE_TO_FLX = "migrate to flexible sync"
    REVERT_TO_PBS = "revert to partition-based sync"
    MIGRATE_SCHEMA = "migrate schema"


# ---- client: connection


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """Open a WebSocket now, then call ``opened`` or ``closed``."""


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Drop the WebSocket; the machine has already forgotten it. ``reason`` is for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionStateChanged:
    """``disconnected``, ``connecting`` or ``connected``."""

    state: str


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The connection failed, was refused, or the server ended it.

    Attributes
    ----------
    error : str
        The SDK's name, such as ``ConnectionClosed`` or ``AuthError``.
    message : str
    follow_up : FollowUp
    is_fatal : bool
        The machine will not connect again by itself.
    is_reported : bool
        Whether the SDKs tell the app.
    code : int
        The protocol's error code, 0 if it was none.
    body : Mapping
        The raw body of the json_error, if one came.
    """

    error: str
    message: str
    follow_up: FollowUp
    is_fatal: bool
    is_reported: bool = True
    code: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A PONG came: seconds since its PING."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ServerLog:
    """The server said something for the log; session 0 is the connection."""

    session: int
    level: str
    message: str
    request_id: str


# ---- client: session


@dataclass(frozen=True, slots=True)
class SessionBound:
    """BIND was sent."""

    session: int


@dataclass(frozen=True, slots=True)
class IdentAssigned:
    """The server gave the file its number: store it before anything else. The client's IDENT follows by itself."""

    session: int
    file_ident: int
    salt: int


@dataclass(frozen=True, slots=True)
class BootstrapBatch:
    """One DOWNLOAD of a bootstrap.

    Attributes
    ----------
    entries : tuple of DownloadEntry
        Those of this message, for progress display.
    query_version : int
    last : bool
        Then ``bootstrap`` holds all entries, to be integrated together with ``progress`` in one commit; after it call
        ``session.integrated(...)``, or ``session.integration_failed(...)``.
    bootstrap : tuple of DownloadEntry
    """

    session: int
    entries: tuple[DownloadEntry, ...]
    query_version: int
    last: bool
    progress: Progress
    estimate: float
    bootstrap: tuple[DownloadEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class BootstrapDiscarded:
    """The connection was cut in a bootstrap; its batches are gone, the server will begin anew."""

    session: int
    query_version: int


@dataclass(frozen=True, slots=True)
class DownloadReceived:
    """Changes of the steady state, or of a partition: integrate them, then call ``session.integrated(...)``."""

    session: int
    entries: tuple[DownloadEntry, ...]
    progress: Progress
    query_version: int = 0
    estimate: float = 1.0
    downloadable_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UploadAcknowledged:
    """The server has everything up to this client version."""

    session: int
    client_version: int


@dataclass(frozen=True, slots=True)
class MarkReached:
    """Everything that the server had when asked is integrated: all requests up to this one are answered."""

    session: int
    request: int


@dataclass(frozen=True, slots=True)
class QueryStateChanged:
    """A query set changed its state: store it. ``state`` is one of subscriptions.State."""

    session: int
    version: int
    state: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class SessionError:
    """The server failed the session, or the session found the server at fault.

    Attributes
    ----------
    code : int
        The protocol's error code.
    error : str
        The SDK's name, such as ``SyncPermissionDenied``.
    action : str
        What the server asked for, see wire.Action.
    follow_up : FollowUp
        What the owner does.
    is_fatal : bool
        The session stays inactive.
    is_reported : bool
        Whether the SDKs tell the app.
    body : Mapping
        The raw body.
    """

    session: int
    code: int
    error: str
    action: str
    message: str
    follow_up: FollowUp
    is_fatal: bool
    is_reported: bool = True
    log_url: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CompensatingWrites:
    """Writes that the server reverted, told when the change that reverts them is integrated.

    ``writes`` are dicts with ``class``, ``primary_key`` and ``reason``.
    """

    session: int
    message: str
    writes: tuple[Mapping[str, Any], ...]
    rejected_client_version: int
    server_version: int
    log_url: str = ""


@dataclass(frozen=True, slots=True)
class SessionResumed:
    """A suspended session binds again."""

    session: int


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """UNBIND is done, or the connection is gone: the number is not used any more."""

    session: int


# ---- server


@dataclass(frozen=True, slots=True)
class BindReceived:
    """A client opens a session: answer with send_ident if it needs one, or send_json_error.

    Attributes
    ----------
    partition : str or None
        The partition value as extended JSON text (partition-based sync).
    body : Mapping
        The JSON object of BIND (Flexible Sync).
    session_reason : int
        1 means client reset.
    """

    session: int
    partition: str | None
    body: Mapping[str, Any]
    need_ident: bool
    session_reason: int = 0
    schema_version: int = 0
    migrated_partition: str | None = None


@dataclass(frozen=True, slots=True)
class IdentReceived:
    """A client says which file it is; from now on the session may be sent DOWNLOADs."""

    session: int
    file_ident: int
    salt: int
    progress: Progress
    query_version: int = 0
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueryReceived:
    """A new query set: answer with a bootstrap or send_query_error."""

    session: int
    version: int
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UploadReceived:
    """Changes of a client; acknowledge them by a DOWNLOAD with this progress_client_version when they are durable."""

    session: int
    entries: tuple[UploadEntry, ...]
    progress_client_version: int
    progress_server_version: int
    locked_server_version: int


@dataclass(frozen=True, slots=True)
class MarkReceived:
    """Answer with send_mark after everything there is at this moment was sent."""

    session: int
    request: int


@dataclass(frozen=True, slots=True)
class UnbindReceived:
    """A client ends a session: answer with send_unbound."""

    session: int


@dataclass(frozen=True, slots=True)
class SessionDiscarded:
    """The UNBIND that answers our error came: the number is free again, nothing is to be sent."""

    session: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """A sign of life; the machine has answered it."""

    timestamp: int
    rtt: int


@dataclass(frozen=True, slots=True)
class ClientError:
    """A client could not use a DOWNLOAD; it will ignore all that follow."""

    session: int
    code: int
    message: str


# ---- both


@dataclass(frozen=True, slots=True)
class TestCommandReceived:
    """A test command, or the answer to one."""

    __test__ = False

    session: int
    request: int
    body: str


@dataclass(frozen=True, slots=True)
class ProtocolFailure:
    """The other side broke the protocol; the connection is over.

    A server sends what ``data_to_send`` still gives (a json_error) and closes; a client closes at once.
    """

    session: int
    error: RemoteProtocolError
