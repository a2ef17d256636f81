"""Floor 1: the changeset, the one currency: columns, codec and kernels."""

from __future__ import annotations

from collections.abc import Sequence

from realmframe.changes.columns import Changeset
from realmframe.changes.instructions import Instruction


def concat(changesets: Sequence[Changeset]) -> Changeset:
    """Join changesets into one that does the same, one after another."""
    from realmframe.changes import codec

    return codec.concat(changesets)


__all__ = ["Changeset", "Instruction", "concat"]
