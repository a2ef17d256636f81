"""What a session has to know of its realm when it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from realmframe.session.progress import Progress
from realmframe.session.subscriptions import State


@dataclass(frozen=True, slots=True)
class QuerySet:
    """A subscription set as the session knows it.

    Attributes
    ----------
    version : int
    snapshot_version : int
        The realm's version that it was committed as.
    query : Mapping
        Class to query text.
    state : State
    """

    version: int = 0
    snapshot_version: int = 0
    query: Mapping[str, str] = field(default_factory=dict)
    state: State = State.PENDING


@dataclass(frozen=True, slots=True)
class SessionStart:
    """What a session has to know of its realm when it begins.

    Attributes
    ----------
    latest_version : int
        The realm's newest version.
    file_ident, salt : int
        What the server gave it; 0: it will be asked for.
    progress : Progress
    queries : tuple of QuerySet
        Flexible Sync: the set in force and all newer ones. Version 0 is added if none is in force.
    partition : str or None
        Partition-based sync: the value as extended JSON text.
    schema_version : int
    session_reason : int
        1 for both sessions of a client reset.
    migrated_partition : str or None
        After a migration from partitions: the partition the realm was of.
    sentinel : int
        Version of the query set after whose QUERY nothing more is uploaded in this binding; 0: none.
    may_upload : bool
        False for the fresh copy that a client reset downloads: it never sends an UPLOAD.
    """

    latest_version: int = 0
    file_ident: int = 0
    salt: int = 0
    progress: Progress = field(default_factory=Progress)
    queries: tuple[QuerySet, ...] = ()
    partition: str | None = None
    schema_version: int = 0
    session_reason: int = 0
    migrated_partition: str | None = None
    sentinel: int = 0
    may_upload: bool = True
