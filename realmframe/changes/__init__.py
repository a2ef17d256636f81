"""Floor 1: the changeset, the one currency: columns, codec and kernels."""

from realmframe.changes.columns import Changeset
from realmframe.changes.instructions import Instruction

__all__ = ["Changeset", "Instruction"]
