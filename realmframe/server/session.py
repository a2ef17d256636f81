"""One client file, connected: what waits for it, and what it is sent of that.

A session's outbox is a queue of what its client shall get: changes, bootstraps, answers to MARK, errors. It is filled
while messages are handled, and emptied by :meth:`Session.pump` after the commit, as far as the connection has room.
A message carries the progress of the moment when its item was queued, so the version rules of the protocol hold by
construction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from realmframe.server.bootstrap import BATCH_BYTES
from realmframe.server.entries import SERVER_FILE, ClientFile, Entry
from realmframe.server.history import History
from realmframe.server.reverted import Reverted
from realmframe.server.views import View
from realmframe.wire import BatchState, Download, DownloadEntry, Mark, QueryError

#: Timestamp of full states and erasures: older than anything a client writes.
SYNTHETIC_TIMESTAMP: Final = 1
_LAG: Final = 2_000
_OUTBOX_BYTES: Final = 32 << 20


class Outlet(Protocol):
    """Where a session's messages go."""

    def send(self, message: Any) -> None:
        """Queue a message of the protocol."""

    def has_room(self) -> bool:
        """Whether more may be queued now."""


@dataclass(slots=True)
class Changes:
    """Entries up to a server version, for the steady state.

    Attributes
    ----------
    version : int
        What the client has when it has them.
    client_version : int
    entries : tuple of DownloadEntry
    size : int
        In bytes.
    before : int
        The highest version that the client may be said to have while they are still to come.
    """

    version: int
    client_version: int
    entries: tuple[DownloadEntry, ...]
    size: int
    before: int

    @classmethod
    def of(cls, entries: tuple[DownloadEntry, ...], version: int, client_version: int) -> Changes:
        """Take what one entry of the log is for a client."""
        return cls(version, client_version, entries, sum(len(e.changeset) for e in entries), version - 1)

    @classmethod
    def made(cls, version: int, client_version: int, data: bytes, before: int) -> Changes:
        """Take a changeset that nobody wrote."""
        entry = synthetic(version, client_version, data)
        return cls(version, client_version, (entry,), len(data), before)


@dataclass(slots=True)
class Bootstrap:
    """A bootstrap under way."""

    version: int
    client_version: int
    query_version: int
    batches: Iterator[tuple[list[bytes], float, bool]]

    @property
    def before(self) -> int:
        """The highest version that the client may be said to have while it is still to come."""
        return self.version - 1


class Session:
    """One client file, connected.

    Parameters
    ----------
    number : int
        As the client numbers it.
    outlet : Outlet
    file : ClientFile
    flexible : bool
    may_write : bool
        False for a partition that the user may only read.
    """

    def __init__(
        self, number: int, outlet: Outlet, file: ClientFile, *, flexible: bool, may_write: bool = True
    ) -> None:
        self.number, self.outlet, self.file, self.flexible = number, outlet, file, flexible
        self.may_write = may_write
        self.view = View({})
        self.query_version = 0
        self.outbox: deque[Changes | Bootstrap | Reverted | Mark | QueryError] = deque()
        self.outbox_bytes = 0
        #: Up to which server version everything for this client has been queued, and been sent.
        self.covered = self.sent = 0
        self.sent_client = 0
        self.needs_ack = False
        self.has_schema = False
        #: Uploads based on versions below it may have met synthetic states on the client.
        self.synthetic = 0
        #: Entries up to this version did not all go to the client as they are.
        self.partial = 0
        #: Version of the first bootstrap of a fresh file, if this session sent it.
        self.first = -1
        #: Whether changes were left out of the outbox because it was too full; the client catches up when it is empty.
        self.is_lagging = False
        #: What waits for that.
        self.marks: list[Mark] = []

    def queue(self, item: Changes) -> None:
        """Queue changes; too many, and the client catches up later instead."""
        self.covered = item.version
        if self.is_lagging or not item.entries:
            return
        if self.outbox_bytes + item.size > _OUTBOX_BYTES and self.outbox_bytes:
            self.is_lagging = True
            while self.outbox and isinstance(last := self.outbox[-1], Changes | Reverted):
                if last.version != item.version:
                    break
                # What belongs together comes together.
                self.outbox.pop()
                self.outbox_bytes -= last.size if isinstance(last, Changes) else 0
            return
        self.outbox.append(item)
        self.outbox_bytes += item.size

    def append_made(self, version: int, data: bytes, before: int) -> None:
        """Queue a changeset that nobody wrote, however much waits already."""
        self.outbox.append(Changes.made(version, self.file.client_version, data, before))
        self.outbox_bytes += len(data)

    @property
    def reached(self) -> int:
        """The version that the client has when it has what is queued."""
        return max([self.sent, *(i.version for i in self.outbox if isinstance(i, Changes | Bootstrap))])

    # ------------------------------------------------------------------ sending

    def pump(self, history: History) -> None:
        """Send what is queued, as far as there is room."""
        while self.outlet.has_room():
            if not self.outbox:
                break
            item = self.outbox[0]
            if isinstance(item, Changes):
                self._send_changes(item, history)
            elif isinstance(item, Bootstrap):
                self._send_batch(item, history)
            else:
                if isinstance(item, Mark) and (self.needs_ack or self.sent < self.covered) and not self.is_lagging:
                    self._send(history, (), *self._reachable())
                self.outlet.send(item.warning(self.number) if isinstance(item, Reverted) else item)
                self.outbox.popleft()
        idle = not self.outbox and not self.is_lagging and self.outlet.has_room()
        if idle and (self.needs_ack or self.covered - self.sent > _LAG):
            self._send(history, (), self.covered, self.file.client_version)

    def _reachable(self) -> tuple[int, int]:
        """Give the server and client version that may be announced now: nothing queued behind belongs to them."""
        behind = [i for i in self.outbox if isinstance(i, Changes | Bootstrap)]
        version = min([self.covered, *(i.before for i in behind)])
        client = min([self.file.client_version, *(i.client_version for i in behind)])
        return max(self.sent, version), client

    def _send_changes(self, first: Changes, history: History) -> None:
        entries: list[DownloadEntry] = []
        size, last = 0, first
        while self.outbox and isinstance(item := self.outbox[0], Changes):
            if size >= BATCH_BYTES and item.before >= last.version:
                break
            last = item
            self.outbox.popleft()
            entries += last.entries
            size += last.size
        self.outbox_bytes -= size
        self._send(history, tuple(entries), last.version, last.client_version)

    def _send_batch(self, item: Bootstrap, history: History) -> None:
        batch = next(item.batches, None)
        if batch is None:
            self.outbox.popleft()
            return
        changesets, estimate, last = batch
        version, client = item.version, item.client_version
        entries = tuple(synthetic(version, client, changeset) for changeset in changesets)
        state = BatchState.LAST_IN_BATCH if last else BatchState.MORE_TO_COME
        self._send(history, entries, version, client, state, estimate, item.query_version)
        if last:
            self.outbox.popleft()

    def _send(
        self,
        history: History,
        entries: tuple[DownloadEntry, ...],
        version: int,
        client_version: int,
        batch: BatchState = BatchState.STEADY_STATE,
        estimate: float = 1.0,
        query_version: int | None = None,
    ) -> None:
        file = self.file
        self.outlet.send(
            Download(
                self.number,
                version,
                max(client_version, self.sent_client),
                history.version,
                history.salt,
                file.client_version,
                min(file.server_version, version),
                self.query_version if query_version is None else query_version,
                batch,
                estimate,
                entries=entries,
            )
        )
        self.sent, self.sent_client = version, max(client_version, self.sent_client)
        self.needs_ack = False


def as_is(entry: Entry, client_version: int) -> DownloadEntry:
    """Give an entry of the log to a client of a partition."""
    return DownloadEntry(entry.version, client_version, entry.timestamp, entry.origin, entry.original_size, entry.data)


def synthetic(version: int, client_version: int, data: bytes) -> DownloadEntry:
    """Give a changeset that nobody wrote to a client."""
    return DownloadEntry(version, client_version, SYNTHETIC_TIMESTAMP, SERVER_FILE, len(data), data)
