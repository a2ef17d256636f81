"""What the client's machine tells its shell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from realmframe.wire import Action, Download

if TYPE_CHECKING:
    from realmframe.session.client import ClientSession


@dataclass(frozen=True, slots=True)
class IdentAssigned:
    """The server gave the file its number; store it before anything else."""

    session: ClientSession
    file_ident: int
    salt: int


@dataclass(frozen=True, slots=True)
class DownloadReceived:
    """Changesets, an acknowledgement, or part of a bootstrap; call ``session.integrated`` once it is on disk."""

    session: ClientSession
    message: Download


@dataclass(frozen=True, slots=True)
class MarkReached:
    """Everything that the server had when it was asked has been received."""

    session: ClientSession
    request: int


@dataclass(frozen=True, slots=True)
class QuerySent:
    """A query set is on its way."""

    session: ClientSession
    version: int


@dataclass(frozen=True, slots=True)
class QueryRefused:
    """The server cannot use a query set; the previous one stays in force."""

    session: ClientSession
    version: int
    message: str


@dataclass(frozen=True, slots=True)
class CompensatingWrites:
    """Writes that the server reverts; tell the app once ``server_version`` was downloaded."""

    session: ClientSession
    writes: tuple[dict[str, Any], ...]
    server_version: int
    client_version: int
    message: str


@dataclass(frozen=True, slots=True)
class SessionProblem:
    """The server failed the session (it was unbound), or warned about it.

    ``retry_in`` is the delay after which the machine binds again by itself; None if it will not.
    """

    session: ClientSession
    code: int
    action: Action | str
    message: str
    is_fatal: bool
    reported: bool
    retry_in: float | None = None
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionUnbound:
    """The session has ended as asked."""

    session: ClientSession


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """The connection has to be dropped: an error of the whole connection, a broken rule, or a PONG that never came."""

    code: int
    message: str
    try_again: bool
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogReceived:
    """The server says something for the log."""

    level: str
    message: str
    correlation_id: str | None = None


ClientEvent: TypeAlias = (
    IdentAssigned
    | DownloadReceived
    | MarkReached
    | QuerySent
    | QueryRefused
    | CompensatingWrites
    | SessionProblem
    | SessionUnbound
    | ConnectionProblem
    | LogReceived
)
