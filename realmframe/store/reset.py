"""What a client reset makes of a realm's state: one record of the journal, so that it happens whole or not at all."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from realmframe.changes import Changeset
from realmframe.store.applied import Applied
from realmframe.store.apply import apply
from realmframe.store.journal import Kind, Record
from realmframe.store.passing import without_passing
from realmframe.store.pending import Changes, LocalChange

if TYPE_CHECKING:
    from realmframe.store.state import ClientFile, Progress, State

_HEAD: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Reset:
    """A reset, ready to be committed.

    Attributes
    ----------
    changeset : Changeset
        What leads from the realm's state to the new one; it is not uploaded.
    file : ClientFile
        The fresh copy's number at the server.
    progress : Progress
        The fresh copy's.
    pending : list of LocalChange
        What is still to be uploaded.
    subscriptions : Any
    quarantine : list of dict
        Added to what is there.
    extra : dict
        Merged into what is there.
    """

    changeset: Changeset
    file: ClientFile
    progress: Progress
    pending: list[LocalChange] = field(default_factory=list)
    subscriptions: Any = None
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def reset_record(state: State, reset: Reset) -> Record:
    """Record a reset."""
    head = {
        "file": [reset.file.ident, reset.file.salt],
        "progress": list(asdict(reset.progress).values()),
        "subscriptions": reset.subscriptions,
        "quarantine": reset.quarantine,
        "extra": reset.extra,
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    pending = Changes(list(reset.pending)).to_bytes()
    payload = b"".join([_HEAD.pack(len(text), len(pending)), text, pending, reset.changeset.encode()])
    return Record(Kind.RESET, state.snapshot.version + 1, payload)


def advance_reset(state: State, record: Record) -> tuple[State, Applied]:
    """Apply the record of a reset.

    Raises
    ------
    ApplyError, BadChangesetError
    """
    from realmframe.store.state import ClientFile, Progress

    text_size, pending_size = _HEAD.unpack_from(record.payload)
    at = _HEAD.size + text_size
    head = json.loads(record.payload[_HEAD.size : at])
    pending = Changes.from_bytes(record.payload[at : at + pending_size])
    changeset = Changeset.decode(record.payload[at + pending_size :])
    applied = apply(state.snapshot, changeset, version=record.version)
    applied = without_passing(state.snapshot, applied, lambda: changeset, record.version)
    after = replace(
        state,
        snapshot=applied.snapshot,
        file=ClientFile(*head["file"]),
        progress=Progress(*head["progress"]),
        subscriptions=head["subscriptions"],
        quarantine=(*state.quarantine, *head["quarantine"]),
        pending=pending,
        extra={**state.extra, **head["extra"]},
    )
    return after, applied
