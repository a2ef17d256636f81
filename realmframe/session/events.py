"""What the client's machine tells its owner, one frozen dataclass each. ``session`` is the session's number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from realmframe.errors import RemoteProtocolError
from realmframe.session.progress import Progress
from realmframe.wire import DownloadEntry


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
    compensating : tuple of CompensatingWrites
        Writes that this reverts.
    """

    session: int
    entries: tuple[DownloadEntry, ...]
    query_version: int
    last: bool
    progress: Progress
    estimate: float
    bootstrap: tuple[DownloadEntry, ...] = ()
    compensating: tuple[CompensatingWrites, ...] = ()


@dataclass(frozen=True, slots=True)
class BootstrapDiscarded:
    """The connection was cut in a bootstrap; its batches are gone, the server will begin anew."""

    session: int
    query_version: int


@dataclass(frozen=True, slots=True)
class DownloadReceived:
    """Changes of the steady state, or of a partition: integrate them, then call ``session.integrated(...)``.

    ``compensating`` are the writes that this reverts; they are events of their own once it is integrated.
    """

    session: int
    entries: tuple[DownloadEntry, ...]
    progress: Progress
    query_version: int = 0
    estimate: float = 1.0
    downloadable_bytes: int = 0
    compensating: tuple[CompensatingWrites, ...] = ()


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


# ---- the rest


@dataclass(frozen=True, slots=True)
class TestCommandReceived:
    """The answer to a test command."""

    __test__ = False

    session: int
    request: int
    body: str


@dataclass(frozen=True, slots=True)
class ProtocolFailure:
    """The server broke the protocol; the connection is over. ``session`` is 0 if no session was at fault."""

    session: int
    error: RemoteProtocolError
