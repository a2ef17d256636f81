"""How far a transfer is, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """What a session has reached.

    Attributes
    ----------
    phase : str
        ``login``, ``location``, ``connect``, ``download``, ``subscriptions`` or ``done``.
    bytes : int
        Bytes of changesets received since the session began.
    batches : int
        Messages that brought them.
    changesets : int
        Changesets in them.
    fraction : float
        The server's estimate of how much has come, 0 to 1; never goes down within one phase.
    """

    phase: str = "login"
    bytes: int = 0
    batches: int = 0
    changesets: int = 0
    fraction: float = 0.0

    def after(self, **changes: Any) -> TransferProgress:
        """Copy with some fields changed; the fraction never falls while the phase stays."""
        made = replace(self, **changes)
        if made.phase == self.phase and made.fraction < self.fraction:
            return replace(made, fraction=self.fraction)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Give it as a dict, for errors."""
        return {
            "bytes": self.bytes,
            "batches": self.batches,
            "changesets": self.changesets,
            "fraction": self.fraction,
        }
