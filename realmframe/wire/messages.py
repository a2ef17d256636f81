"""Every message, one frozen dataclass each. ``session`` is the number that BIND chose; 0 means the connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realmframe.wire.dialect import Dialect


class Message:
    """Base of all messages."""

    __slots__ = ()

    def encode(self, dialect: Dialect, *, level: int | None = None) -> bytes:
        """Write the message for the other side; see :func:`realmframe.wire.encode`."""
        from realmframe.wire.codec import encode  # the codec knows the messages, not the other way round

        return encode(self, dialect, level=level)


class BatchState(IntEnum):
    """What a Flexible Sync DOWNLOAD is part of."""

    MORE_TO_COME = 0
    LAST_IN_BATCH = 1
    STEADY_STATE = 2


@dataclass(frozen=True, slots=True)
class Bind(Message):
    """A client opens a session.

    ``body`` is a JSON object (Flexible Sync from version 8 on), or the partition as extended JSON text.
    """

    session: int
    body: dict[str, Any] | str
    need_ident: bool
    token: str = ""
    is_subserver: bool = False


@dataclass(frozen=True, slots=True)
class ClientIdent(Message):
    """A client says which file it is and how far it is."""

    session: int
    file_ident: int
    salt: int
    download_server_version: int
    download_client_version: int
    latest_server_version: int
    latest_salt: int
    query_version: int | None = None
    query: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Query(Message):
    """A client's new query set: class to query text."""

    session: int
    version: int
    query: dict[str, str]


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """One changeset of a client, as it was written."""

    client_version: int
    server_version: int
    timestamp: int
    file_ident: int
    changeset: bytes


@dataclass(frozen=True, slots=True)
class Upload(Message):
    """Changesets of a client, and how far it has come."""

    session: int
    progress_client_version: int
    progress_server_version: int
    locked_server_version: int
    entries: tuple[UploadEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark(Message):
    """A client asks to be told when it has everything; the server sends the same back."""

    session: int
    request: int


@dataclass(frozen=True, slots=True)
class Unbind(Message):
    """A client ends a session."""

    session: int


@dataclass(frozen=True, slots=True)
class Unbound(Message):
    """The server confirms the end of a session."""

    session: int


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """A client asks for a sign of life."""

    timestamp: int
    rtt: int


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """The server's sign of life: the timestamp of the PING."""

    timestamp: int


@dataclass(frozen=True, slots=True)
class ClientJsonError(Message):
    """A client could not use a DOWNLOAD."""

    session: int
    code: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ident(Message):
    """The server gives a client file its number."""

    session: int
    file_ident: int
    salt: int


@dataclass(frozen=True, slots=True)
class DownloadEntry:
    """One changeset for a client."""

    server_version: int
    client_version: int
    timestamp: int
    file_ident: int
    original_size: int
    changeset: bytes


@dataclass(frozen=True, slots=True)
class Download(Message):
    """Changesets for a client, and how far both sides have come.

    ``query_version``, ``batch`` and ``estimate`` are of Flexible Sync; ``downloadable_bytes`` of partition-based sync,
    and of Flexible Sync before version 12.
    """

    session: int
    download_server_version: int
    download_client_version: int
    latest_server_version: int
    latest_salt: int
    upload_client_version: int
    upload_server_version: int
    query_version: int = 0
    batch: BatchState = BatchState.STEADY_STATE
    estimate: float = 1.0
    downloadable_bytes: int = 0
    entries: tuple[DownloadEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class JsonError(Message):
    """The server reports an error; the body holds the six keys that clients need."""

    session: int
    code: int
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueryError(Message):
    """The server cannot use a query set."""

    session: int
    code: int
    query_version: int
    message: str


@dataclass(frozen=True, slots=True)
class LegacyError(Message):
    """The old form of an error."""

    session: int
    code: int
    try_again: bool
    message: str


@dataclass(frozen=True, slots=True)
class LogMessage(Message):
    """The server tells the client something for its log."""

    session: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TestCommand(Message):
    """A test asks the other side something."""

    __test__ = False

    session: int
    request: int
    body: str
