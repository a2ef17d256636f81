"""What a realm's files hold beside its objects, and how each record of the journal changes it.

The same code runs when something is committed and when the journal is replayed, so that both give the same state.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from realmframe.changes import Changeset, concat
from realmframe.errors import RemoteProtocolError, UsageError
from realmframe.store.applied import Applied
from realmframe.store.apply import apply, loaded_only
from realmframe.store.journal import Kind, Record
from realmframe.store.merging import merged
from realmframe.store.passing import without_passing
from realmframe.store.pending import Changes, LocalChange
from realmframe.store.reset import advance_reset
from realmframe.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Owner:
    """The app and user that a realm belongs to; without a user, to whoever of the app opens it first."""

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
    changeset: bytes | Changeset

    @property
    def data(self) -> bytes:
        """The bytes of the changeset."""
        return self.changeset.encode() if isinstance(self.changeset, Changeset) else bytes(self.changeset)


#: What the real client refuses to see decrease.
_CURSORS: Final = (
    "latest_server_version",
    "download_server_version",
    "download_client_version",
    "upload_client_version",
    "upload_server_version",
)
_LOCAL: Final = struct.Struct("<qQ")
#: Changesets of at least so many bytes are applied block by block while they are decoded, where that is possible.
_BLOCKWISE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a realm's files hold, at one version; immutable.

    ``pending`` are the local changes that the server may still send changes against: those above the client version of
    the download cursor. Those above the upload cursor among them are to be uploaded.
    """

    snapshot: Snapshot
    progress: Progress = Progress()
    file: ClientFile | None = None
    owner: Owner | None = None
    subscriptions: Any = None
    quarantine: tuple[dict[str, Any], ...] = ()
    pending: Changes = field(default_factory=Changes)
    extra: Mapping[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- records


def local_record(state: State, data: bytes, timestamp: int) -> Record:
    """Record a local transaction."""
    head = _LOCAL.pack(timestamp, state.progress.download_server_version)
    return Record(Kind.LOCAL, state.snapshot.version + 1, head, data)


def integrate_record(
    state: State,
    entries: Sequence[Entry],
    progress: Progress,
    subscriptions: Any,
    quarantine: Sequence[dict[str, Any]] = (),
) -> Record:
    """Record what was downloaded, with the progress and subscriptions that come with it, and what it takes back."""
    data = [e.data for e in entries]
    head: dict[str, Any] = {
        "progress": list(asdict(progress).values()),
        "entries": [
            [e.server_version, e.client_version, e.timestamp, e.file_ident, len(d)]
            for e, d in zip(entries, data, strict=True)
        ],
    }
    if subscriptions is not state.subscriptions:
        head["subscriptions"] = subscriptions
    if quarantine:
        head["quarantine"] = list(quarantine)
    text = json.dumps(head, separators=(",", ":")).encode()
    version = state.snapshot.version + (1 if entries else 0)
    return Record(Kind.INTEGRATE, version, b"".join([struct.pack("<I", len(text)), text, *data]))


def meta_record(state: State, **changes: Any) -> Record:
    """Record a change of anything else."""
    return Record(Kind.META, state.snapshot.version, json.dumps(changes, separators=(",", ":")).encode())


# ---------------------------------------------------------------------------------------------- replay


def advance(state: State, record: Record) -> tuple[State, Applied | None]:
    """Apply a record.

    Parameters
    ----------
    state : State
    record : Record

    Raises
    ------
    ApplyError, BadChangesetError, MergeError
        If its changesets contradict the state; nothing was changed then.
    """
    if record.kind is Kind.LOCAL:
        return _advance_local(state, record)
    if record.kind is Kind.INTEGRATE:
        return _advance_integrate(state, record)
    if record.kind is Kind.RESET:
        return advance_reset(state, record)
    return _advance_meta(state, json.loads(record.payload)), None


def _advance_local(state: State, record: Record) -> tuple[State, Applied]:
    timestamp, server_version = _LOCAL.unpack_from(record.payload)
    data = record.body or record.payload[_LOCAL.size :]
    applied = _loaded(state, [data], record.version) if len(data) >= _BLOCKWISE else None
    if applied is None:
        applied = apply(state.snapshot, Changeset.decode(data), version=record.version)
    applied = without_passing(state.snapshot, applied, lambda: Changeset.decode(data), record.version)
    pending = state.pending
    if state.owner is not None and data:
        pending = pending.appended(LocalChange(record.version, server_version, timestamp, data))
    return replace(state, snapshot=applied.snapshot, pending=pending), applied


def _loaded(state: State, parts: Sequence[bytes | memoryview], version: int) -> Applied | None:
    """Apply changesets while they are decoded, if they only create objects and fill them."""
    blocks = ((block, number == 0) for data in parts for number, block in enumerate(Changeset.blocks(data)))
    return loaded_only(state.snapshot, blocks, version=version)


def _joined(parts: Sequence[bytes | memoryview]) -> Changeset:
    return concat([Changeset.decode(bytes(part)) for part in parts])


def _advance_integrate(state: State, record: Record) -> tuple[State, Applied | None]:
    (size,) = struct.unpack_from("<I", record.payload)
    head = json.loads(record.payload[4 : 4 + size])
    progress = Progress(*head["progress"])
    parts, at = [], 4 + size
    view = memoryview(record.payload)
    for *_, length in head["entries"]:
        parts.append(view[at : at + length])
        at += length
    applied, pending = None, state.pending
    known_all = not any(len(pending.after(form[1])) for form in head["entries"])
    if known_all and at >= _BLOCKWISE:
        applied = _loaded(state, parts, record.version)
        if applied is not None:
            whole = partial(_joined, parts)
            applied = without_passing(state.snapshot, applied, whole, record.version)
    if applied is None and parts:
        entries = [
            Entry(server, client, timestamp, file_ident, bytes(part))
            for (server, client, timestamp, file_ident, _), part in zip(head["entries"], parts, strict=True)
        ]
        remote, pending = merged(state, entries)
        applied = apply(state.snapshot, remote, version=record.version)
        applied = without_passing(state.snapshot, applied, lambda: remote, record.version)
    if progress.upload_server_version == 0:
        progress = replace(progress, upload_server_version=state.progress.upload_server_version)
    unsent = pending.after(progress.download_client_version)
    snapshot = state.snapshot if applied is None else applied.snapshot
    return replace(
        state,
        snapshot=snapshot,
        progress=progress,
        pending=unsent,
        subscriptions=head.get("subscriptions", state.subscriptions),
        quarantine=(*state.quarantine, *head.get("quarantine", ())),
    ), applied


def check_progress(have: Progress, new: Progress) -> None:
    """Refuse a progress that goes back.

    Raises
    ------
    RemoteProtocolError
        Naming the number that did.
    """
    for name in _CURSORS:
        old, now = getattr(have, name), getattr(new, name)
        if now < old and not (name == "upload_server_version" and now == 0):
            raise RemoteProtocolError(
                f"The server's {name.replace('_', ' ')} went back from {old} to {now}.",
                hint="Nothing of the download was used.",
            )


def _advance_meta(state: State, changes: dict[str, Any]) -> State:
    if "file" in changes:
        # A new number starts new cursors into the file's own history, as in the real client.
        progress = replace(state.progress, download_client_version=0, upload_client_version=0)
        file = None if changes["file"] is None else ClientFile(*changes["file"])
        state = replace(state, file=file, progress=progress)
    if "owner" in changes:
        state = replace(state, owner=None if changes["owner"] is None else Owner(*changes["owner"]))
    if "subscriptions" in changes:
        state = replace(state, subscriptions=changes["subscriptions"])
    if "quarantine" in changes:
        state = replace(state, quarantine=(*state.quarantine, *changes["quarantine"]))
    if "extra" in changes:
        state = replace(state, extra={**state.extra, **changes["extra"]})
    return state


def without_identity(state: State, path: Path) -> State:
    """Leave out who a file is to the server.

    Raises
    ------
    UsageError
        If something was not uploaded yet: without the file's own history it would be lost.
    """
    waiting = len(state.pending.after(state.progress.upload_client_version))
    if waiting:
        raise UsageError(
            f"The server has not got everything of the realm at {path} yet ({waiting} transactions).",
            hint="A copy that syncs would lose them: call upload_all_local_changes() first.",
        )
    cursors = {"download_client_version": 0, "upload_client_version": 0, "upload_server_version": 0}
    return replace(
        state,
        progress=replace(state.progress, **cursors),
        file=None,
        owner=None if state.owner is None else replace(state.owner, user_id=""),
        pending=Changes(),
        quarantine=(),
        extra={},
    )


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
    return form, {"pending": state.pending.to_bytes()}


def state_from_extra(snapshot: Snapshot, form: Mapping[str, Any], blobs: Mapping[str, bytes]) -> State:
    """Read what :func:`state_to_extra` wrote."""
    return State(
        snapshot,
        Progress(*form["progress"]),
        None if form["file"] is None else ClientFile(*form["file"]),
        None if form["owner"] is None else Owner(*form["owner"]),
        form["subscriptions"],
        tuple(form["quarantine"]),
        Changes.from_bytes(blobs["pending"]),
        form["extra"],
    )
