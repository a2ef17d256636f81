"""A realm's frames without a realm: a source whose snapshot the test moves on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from realmframe.changes import Changeset, Instruction
from realmframe.frames import FrameStatus, LiveFrames
from realmframe.model import Schema
from realmframe.store import Snapshot, apply, schema_changeset

SCHEMA = Schema(
    [
        {
            "name": "Flight",
            "primaryKey": "_id",
            "properties": {
                "_id": "int",
                "carrier": "string",
                "delay": "double?",
                "at": "date?",
                "tags": "string[]",
                "plane": "Plane?",
                "extra": "mixed",
            },
        },
        {"name": "Plane", "primaryKey": "_id", "properties": {"_id": "string", "seats": "int?"}},
    ]
)


class Source:
    """What a facade shows to its frames."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = apply(Snapshot.empty(), schema_changeset(SCHEMA)).snapshot
        self.current = FrameStatus(0)
        self.frames = LiveFrames(self)

    def status(self) -> FrameStatus:
        """How fresh it is."""
        return FrameStatus(
            self.snapshot.version, self.current.as_of, self.current.is_stale, self.current.pending_writes
        )

    def apply(self, instructions: Sequence[Instruction] | Changeset) -> None:
        """Move the snapshot on, but not the frames."""
        changeset = instructions if isinstance(instructions, Changeset) else Changeset.from_instructions(instructions)
        self.snapshot = apply(self.snapshot, changeset).snapshot


@pytest.fixture
def source() -> Source:
    """An empty realm with two classes."""
    return Source()
