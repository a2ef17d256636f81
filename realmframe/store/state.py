"""What a realm's files hold beside its objects, and how each record of the journal changes it.

The same code runs when something is committed and when the journal is replayed, so that both give the same state.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from realmframe.changes import Changeset, concat
from realmframe.store.apply import Applied, apply
from realmframe.store.journal import Kind, Record
from realmframe.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Owner:
    """The app and user that a realm belongs to."""

    app_id: str
    user_id: str
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class ClientFile:
    """The number that the server gave the file, and its salt."""

    ident: int
    salt: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the file and the server have come with each other; as in the messages of the protocol."""

    download_server_version: int = 0
    download_client_version: int = 0
    latest_server_version: int = 0
    latest_salt: int = 0
    upload_client_version: int = 0
    upload_server_version: int = 0
    downloadable_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A changeset from the server."""

    server_version: int
    client_version: int
    timestamp: int
    file_ident: int
    changeset: bytes


@dataclass(slots=True, eq=False)
class LocalChange:
    """A local transaction that the server has not acknowledged.

    Attributes
    ----------
    version : int
        The realm's version that it made.
    server_version : int
        The server's version that it was based on.
    timestamp : int
        Milliseconds since 2015.
    changeset : bytes
        As it was written; this is what is uploaded.
    """

    version: int
    server_version: int
    timestamp: int
    changeset: bytes
    _merged: Changeset | None = None

    @property
    def merged(self) -> Changeset:
        """The changeset after what the server sent meanwhile was merged into it."""
        if self._merged is None:
            self._merged = Changeset.decode(self.changeset)
        return self._merged

    def with_merged(self, merged: Changeset) -> LocalChange:
        """Return this change, merged further."""
        return LocalChange(self.version, self.server_version, self.timestamp, self.changeset, merged)

    @property
    def merged_bytes(self) -> bytes | None:
        """The merged form, if it differs from the original."""
        return None if self._merged is None else self._merged.encode()


_LOCAL: Final = struct.Struct("<qQ")


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a realm's files hold, at one version; immutable."""

    snapshot: Snapshot
    progress: Progress = Progress()
    file: ClientFile | None = None
    owner: Owner | None = None
    subscriptions: Any = None
    quarantine: tuple[dict[str, Any], ...] = ()
    pending: tuple[LocalChange, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- records


def local_record(state: State, data: bytes, timestamp: int) -> Record:
    """Record a local transaction."""
    head = _LOCAL.pack(timestamp, state.progress.download_server_version)
    return Record(Kind.LOCAL, state.snapshot.version + 1, head + data)


def integrate_record(state: State, entries: Sequence[Entry], progress: Progress, query_version: int | None) -> Record:
    """Record what was downloaded, with the progress that came with it."""
    head = {
        "progress": list(asdict(progress).values()),
        "query": query_version,
        "entries": [[e.server_version, e.client_version, e.timestamp, e.file_ident, len(e.changeset)] for e in entries],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    version = state.snapshot.version + (1 if entries else 0)
    body = b"".join(bytes(e.changeset) for e in entries)
    return Record(Kind.INTEGRATE, version, struct.pack("<I", len(text)) + text + body)


def meta_record(state: State, **changes: Any) -> Record:
    """Record a change of anything else."""
    return Record(Kind.META, state.snapshot.version, json.dumps(changes, separators=(",", ":")).encode())


# ---------------------------------------------------------------------------------------------- replay


def advance(state: State, record: Record, decoded: Changeset | None = None) -> tuple[State, Applied | None]:
    """Apply a record.

    Parameters
    ----------
    state : State
    record : Record
    decoded : Changeset, optional
        The changeset of a LOCAL record, if it is at hand.

    Raises
    ------
    ApplyError, BadChangesetError, MergeError
        If its changesets contradict the state; nothing was changed then.
    """
    if record.kind is Kind.LOCAL:
        return _advance_local(state, record, decoded)
    if record.kind is Kind.INTEGRATE:
        return _advance_integrate(state, record)
    return _advance_meta(state, json.loads(record.payload)), None


def _advance_local(state: State, record: Record, decoded: Changeset | None) -> tuple[State, Applied]:
    timestamp, server_version = _LOCAL.unpack_from(record.payload)
    data = record.payload[_LOCAL.size :]
    changeset = Changeset.decode(data) if decoded is None else decoded
    applied = apply(state.snapshot, changeset, version=record.version)
    pending = state.pending
    if state.owner is not None and len(changeset):
        pending = (*pending, LocalChange(record.version, server_version, timestamp, data, changeset))
    return replace(state, snapshot=applied.snapshot, pending=pending), applied


def _advance_integrate(state: State, record: Record) -> tuple[State, Applied | None]:
    (size,) = struct.unpack_from("<I", record.payload)
    head = json.loads(record.payload[4 : 4 + size])
    progress = Progress(*head["progress"])
    entries, at = [], 4 + size
    view = memoryview(record.payload)
    for server, client, timestamp, file_ident, length in head["entries"]:
        entries.append(Entry(server, client, timestamp, file_ident, bytes(view[at : at + length])))
        at += length
    remote, pending = merged(state, entries)
    applied = apply(state.snapshot, remote, version=record.version) if entries else None
    kept = tuple(p for p in pending if p.version > progress.upload_client_version)
    snapshot = state.snapshot if applied is None else applied.snapshot
    return replace(state, snapshot=snapshot, progress=progress, pending=kept), applied


def merged(state: State, entries: Sequence[Entry]) -> tuple[Changeset, tuple[LocalChange, ...]]:
    """Merge downloaded entries with the local changes that the server did not know when it made them.

    Returns
    -------
    Changeset
        What is to be applied to the state.
    tuple of LocalChange
        The pending changes, with the entries merged into them.
    """
    ready: list[Changeset] = []
    pending = state.pending
    for entry in entries:
        changeset = Changeset.decode(entry.changeset)
        unknown = [p for p in pending if p.version > entry.client_version]
        if unknown and len(changeset):
            changeset, unknown = _merge_one(state, entry, changeset, unknown)
        known = pending[: len(pending) - len(unknown)]
        pending = (*known, *unknown)
        ready.append(changeset)
    return concat(ready), pending


def _merge_one(
    state: State, entry: Entry, changeset: Changeset, local: list[LocalChange]
) -> tuple[Changeset, list[LocalChange]]:
    from realmframe.merge import Timed, transform

    own = 0 if state.file is None else state.file.ident
    left = [Timed(changeset, entry.timestamp, entry.file_ident)]
    right = [Timed(p.merged, p.timestamp, own) for p in local]
    remote, reciprocal = transform(left, right)
    merged_local = [p if new is p.merged else p.with_merged(new) for p, new in zip(local, reciprocal, strict=True)]
    return remote[0], merged_local


def _advance_meta(state: State, changes: dict[str, Any]) -> State:
    if "file" in changes:
        state = replace(state, file=None if changes["file"] is None else ClientFile(*changes["file"]))
    if "owner" in changes:
        state = replace(state, owner=None if changes["owner"] is None else Owner(*changes["owner"]))
    if "subscriptions" in changes:
        state = replace(state, subscriptions=changes["subscriptions"])
    if "quarantine" in changes:
        state = replace(state, quarantine=(*state.quarantine, *changes["quarantine"]))
    if "extra" in changes:
        state = replace(state, extra={**state.extra, **changes["extra"]})
    return state


# ---------------------------------------------------------------------------------------------- checkpoints


def state_to_extra(state: State) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Write all but the snapshot: JSON and blobs."""
    form = {
        "progress": list(asdict(state.progress).values()),
        "file": None if state.file is None else [state.file.ident, state.file.salt],
        "owner": None if state.owner is None else list(asdict(state.owner).values()),
        "subscriptions": state.subscriptions,
        "quarantine": list(state.quarantine),
        "extra": dict(state.extra),
    }
    return form, {"pending": _pending_bytes(state.pending)}


def _pending_bytes(pending: Sequence[LocalChange]) -> bytes:
    heads, bodies = [], []
    for p in pending:
        merged_form = p.merged_bytes
        heads.append(
            [
                p.version,
                p.server_version,
                p.timestamp,
                len(p.changeset),
                -1 if merged_form is None else len(merged_form),
            ]
        )
        bodies += [p.changeset, merged_form or b""]
    text = json.dumps(heads).encode()
    return struct.pack("<I", len(text)) + text + b"".join(bodies)


def state_from_extra(snapshot: Snapshot, form: Mapping[str, Any], blobs: Mapping[str, bytes]) -> State:
    """Read what :func:`state_to_extra` wrote."""
    state = State(
        snapshot,
        Progress(*form["progress"]),
        None if form["file"] is None else ClientFile(*form["file"]),
        None if form["owner"] is None else Owner(*form["owner"]),
        form["subscriptions"],
        tuple(form["quarantine"]),
        extra=form["extra"],
    )
    blob = blobs["pending"]
    (size,) = struct.unpack_from("<I", blob)
    pending, at = [], 4 + size
    for version, server_version, timestamp, length, merged_length in json.loads(blob[4 : 4 + size]):
        data = blob[at : at + length]
        at += length
        change = LocalChange(version, server_version, timestamp, data)
        if merged_length >= 0:
            change = change.with_merged(Changeset.decode(blob[at : at + merged_length]))
            at += merged_length
        pending.append(change)
    return replace(state, pending=tuple(pending))
