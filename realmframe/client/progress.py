"""How far a transfer is, in words and numbers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realmframe.store import RealmStore


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """What a session has reached.

    Attributes
    ----------
    phase : str
        ``login``, ``location``, ``connect``, ``download``, ``subscriptions``, ``upload`` or ``done``.
    bytes : int
        Bytes of changesets received since the session began; of an upload, those that the server has acknowledged.
    batches : int
        Messages that brought them.
    changesets : int
        Changesets in them; of an upload, those that still wait.
    fraction : float
        The server's estimate of how much has come, 0 to 1; never goes down within one phase.
    objects : int
        Objects that downloads have created, changed or deleted here, as far as they are integrated.
    transferable : int
        Bytes that there are to transfer as far as known, those transferred already included.
    """

    phase: str = "login"
    bytes: int = 0
    batches: int = 0
    changesets: int = 0
    fraction: float = 0.0
    objects: int = 0
    transferable: int = 0

    @property
    def estimate(self) -> float:
        """The SDK's word for the fraction."""
        return self.fraction

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
            "objects": self.objects,
        }


class UploadMeter:
    """Follows the local changes of a store from when it is made: how much of them the server has acknowledged.

    Parameters
    ----------
    store : RealmStore
    outstanding_only : bool
        Whether only what waits now counts, and not what is written later.
    """

    def __init__(self, store: RealmStore, *, outstanding_only: bool) -> None:
        self._store = store
        self._waiting: deque[tuple[int, int]] = deque()
        self._newest = self._done = self._total = 0
        self._limit = store.snapshot.version if outstanding_only else None

    def read(self) -> TransferProgress:
        """Look what has changed; costs as much as there is that is new."""
        for change in self._store.pending(self._newest):
            if self._limit is not None and change.version > self._limit:
                break
            self._newest = change.version
            self._waiting.append((change.version, len(change.changeset)))
            self._total += len(change.changeset)
        acknowledged = self._store.progress.upload_client_version
        while self._waiting and self._waiting[0][0] <= acknowledged:
            self._done += self._waiting.popleft()[1]
        is_done = not self._waiting
        return TransferProgress(
            "done" if is_done else "upload",
            self._done,
            changesets=len(self._waiting),
            fraction=1.0 if is_done else self._done / max(1, self._total),
            transferable=self._total,
        )
