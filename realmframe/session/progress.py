"""How far both sides have come: the numbers that IDENT and DOWNLOAD carry, and the changes a client has to upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from realmframe.wire import Download


@dataclass(frozen=True, slots=True)
class Progress:
    """How far client and server have come with each other.

    Attributes
    ----------
    download_server_version : int
        The server's version up to which the client has everything.
    download_client_version : int
        The client's version that the server had integrated at that point of its history.
    latest_server_version : int
        The newest server version known to the client.
    latest_salt : int
        Its salt.
    upload_client_version : int
        The client's version up to which the server has acknowledged everything.
    upload_server_version : int
        The server's version that the client had integrated in that version of its own.
    """

    download_server_version: int = 0
    download_client_version: int = 0
    latest_server_version: int = 0
    latest_salt: int = 0
    upload_client_version: int = 0
    upload_server_version: int = 0

    def replace(self, **changes: int) -> Progress:
        """Copy it with some numbers changed."""
        return replace(self, **changes)


def progress_of(message: Download) -> Progress:
    """Take the progress out of a DOWNLOAD."""
    return Progress(
        message.download_server_version,
        message.download_client_version,
        message.latest_server_version,
        message.latest_salt,
        message.upload_client_version,
        message.upload_server_version,
    )


class LocalChange(Protocol):
    """One local transaction that the server has not acknowledged; the store's ``pending()`` gives such."""

    @property
    def version(self) -> int:
        """The client version that it made."""

    @property
    def server_version(self) -> int:
        """The server version that the realm had integrated when it was written."""

    @property
    def timestamp(self) -> int:
        """When, in milliseconds since 2015-01-01 UTC."""

    @property
    def changeset(self) -> bytes:
        """The bytes, as written (never transformed)."""


class UploadSource(Protocol):
    """Where a client session finds what it has to upload. Asked only when an UPLOAD may be sent."""

    def changes_after(self, version: int, upto: int, max_bytes: int) -> Sequence[LocalChange]:
        """List local changes, oldest first.

        Parameters
        ----------
        version : int
            Changes with a version above this one.
        upto : int
            And not above this one.
        max_bytes : int
            May stop once the changesets listed have this size together; listing more does no harm.
        """


class PendingList:
    """An :class:`UploadSource` over a function that lists all pending changes, such as ``store.pending``."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending

    def changes_after(self, version: int, upto: int, max_bytes: int) -> Sequence[LocalChange]:
        """List local changes, oldest first; see :class:`UploadSource`."""
        found: list[LocalChange] = []
        size = 0
        for change in self._pending():
            if version < change.version <= upto:
                found.append(change)
                size += len(change.changeset)
                if size >= max_bytes:
                    break
        return found


class Pending(Protocol):
    """A function that lists all pending local changes, oldest first."""

    def __call__(self) -> Sequence[LocalChange]:
        """List them."""
