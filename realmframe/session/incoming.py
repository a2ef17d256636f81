"""What came for a client session and is not integrated yet: DOWNLOADs, a bootstrap in parts, announced reverts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from realmframe.errors import LocalProtocolError
from realmframe.session import events as ev
from realmframe.session.progress import Progress
from realmframe.wire import Download, DownloadEntry


@dataclass(frozen=True, slots=True)
class Waiting:
    """A DOWNLOAD that the owner has been told of and has not integrated yet.

    Attributes
    ----------
    progress : Progress
        The session's once it is integrated.
    compensating : tuple of CompensatingWrites
        What it reverts of the client's own writes.
    bootstrap_of : int or None
        The query version whose bootstrap it ends.
    """

    progress: Progress
    compensating: tuple[ev.CompensatingWrites, ...]
    bootstrap_of: int | None


class Incoming:
    """What came in and waits.

    Parameters
    ----------
    number : int
        The session's.
    progress : Progress
        What is integrated.
    emit : callable
        Is told of bootstraps that are given up.

    Attributes
    ----------
    progress : Progress
        That of the newest DOWNLOAD received.
    """

    def __init__(self, number: int, progress: Progress, emit: Callable[[Any], None]) -> None:
        self._number, self._emit = number, emit
        self.progress = progress
        self._waiting: deque[Waiting] = deque()
        self._bootstrap: list[DownloadEntry] = []
        self._bootstrap_of: int | None = None
        self._compensating: list[ev.CompensatingWrites] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, progress: Progress, entries: tuple[DownloadEntry, ...], bootstrap_of: int | None = None) -> Waiting:
        """Have one more wait for being integrated."""
        self.progress = progress
        self._waiting.append(Waiting(progress, self._compensated_by(entries), bootstrap_of))
        return self._waiting[-1]

    def oldest(self) -> Waiting:
        """Give the one that has to be integrated first, without forgetting it.

        Raises
        ------
        LocalProtocolError
            If nothing waits.
        """
        if not self._waiting:
            raise LocalProtocolError(f"Session {self._number} has no DOWNLOAD that waits to be integrated.")
        return self._waiting[0]

    def integrated(self) -> Waiting:
        """Forget the oldest one."""
        oldest = self.oldest()
        self._waiting.popleft()
        return oldest

    def clear(self) -> None:
        """Forget all that wait, and the bootstrap."""
        self._waiting.clear()
        self.drop_bootstrap()

    # ---- bootstraps, which come in parts

    def begins(self, query_version: int) -> bool:
        """Begin a bootstrap, unless this is a further part of it; one of another version is given up."""
        if self._bootstrap_of == query_version:
            return False
        self.drop_bootstrap()
        self._bootstrap_of = query_version
        return True

    def collect(self, message: Download) -> None:
        """Keep a part."""
        self._bootstrap.extend(message.entries)

    def complete(self) -> tuple[DownloadEntry, ...]:
        """Take all parts."""
        parts = tuple(self._bootstrap)
        self._bootstrap, self._bootstrap_of = [], None
        return parts

    def drop_bootstrap(self) -> None:
        """Give up a bootstrap of which parts have come."""
        if self._bootstrap_of is not None:
            self._emit(ev.BootstrapDiscarded(self._number, self._bootstrap_of))
        self._bootstrap, self._bootstrap_of = [], None

    # ---- reverted writes, which are announced before the DOWNLOAD that reverts them

    def announce(self, writes: ev.CompensatingWrites) -> None:
        """Keep what will be reverted."""
        self._compensating.append(writes)

    def forget_announced(self) -> None:
        """Forget it: another binding announces it anew."""
        self._compensating.clear()

    def _compensated_by(self, entries: tuple[DownloadEntry, ...]) -> tuple[ev.CompensatingWrites, ...]:
        newest = entries[-1].server_version if entries else 0
        found = tuple(e for e in self._compensating if e.server_version <= newest)
        self._compensating = [e for e in self._compensating if e.server_version > newest]
        return found
