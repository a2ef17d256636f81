"""What a realm's history is made of: entries of the log, the files of clients, and outcomes of uploads."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from realmframe.changes import Changeset
from realmframe.server.reverted import Reverted
from realmframe.store import Applied

#: The server's own file; client files start above it.
SERVER_FILE: Final = 1
#: Version of a realm without history: entries of a bootstrap need a version above 0.
FIRST_VERSION: Final = 1


@dataclass(eq=False)
class Entry:
    """One changeset of the log.

    Attributes
    ----------
    version : int
    origin : int
        The client file that wrote it, or 1.
    client_version : int
        Its version at the origin.
    base : int
        Server version that it was based on.
    timestamp : int
        Milliseconds since 2015.
    original_size : int
        Bytes as uploaded.
    data : bytes
        As integrated.
    compensates : int
        The client file whose write it takes back, else 0.
    withdrawn : bytes
        A changeset that names objects which the upload named and this does not.
    """

    version: int
    origin: int
    client_version: int
    base: int
    timestamp: int
    original_size: int
    data: bytes
    compensates: int = 0
    withdrawn: bytes = b""

    @cached_property
    def changeset(self) -> Changeset:
        """The columns."""
        return Changeset.decode(self.data)


@dataclass(eq=False)
class ClientFile:
    """What the server knows of one file of a client."""

    ident: int
    salt: int
    user: str
    client_version: int = 0
    server_version: int = 0
    #: Log entries as this client will transform them, by version; only those that differ from the log.
    reciprocals: dict[int, Changeset] = field(default_factory=dict)
    #: What was taken back of its writes, by version, until it says that it has the version.
    reverted: dict[int, Reverted] = field(default_factory=dict)
    #: Version of the state that it began with, if the log before was gone by then; as long as the server runs.
    began: int = 0
    #: Version with which it was told how a write came out, that it held otherwise; as long as the server runs.
    told: int = 0


@dataclass(frozen=True, slots=True)
class Integrated:
    """The outcome of one upload.

    Attributes
    ----------
    entry : Entry
    applied : Applied
    changed : bool
        Whether the merge changed it: part of it lost to others.
    original : Changeset
        As its client wrote it.
    cleared : bool
        Whether its client has Clears that are left out here; see :mod:`.elements`.
    """

    entry: Entry
    applied: Applied
    changed: bool
    original: Changeset
    cleared: bool = False
