"""What was downloaded goes into the store: one commit at a time, in a worker thread, so that the loop goes on."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from realmframe.client.lost import reverted
from realmframe.client.mismatch import explain_bad_changes
from realmframe.client.pause import collection_paused
from realmframe.errors import ChangesetError, RealmError, SchemaMismatchError, StorageError, SyncError
from realmframe.session import events as ev
from realmframe.session.client_session import ClientSession
from realmframe.session.progress import Progress
from realmframe.store import Commit, Entry
from realmframe.store import Progress as StoredProgress

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession


class Integration:
    """The queue of one session's downloads.

    Parameters
    ----------
    session : SyncSession
    """

    def __init__(self, session: SyncSession) -> None:
        self.session = session
        self._work: asyncio.Queue[ev.BootstrapBatch | ev.DownloadReceived] = asyncio.Queue()
        self._is_committing = False
        self._objects = 0
        self.close = session.store.listen(self._on_commit)

    def _on_commit(self, news: Commit) -> None:
        """Count the objects that a download touched; nobody else commits in this process meanwhile."""
        if self._is_committing and news.applied is not None:
            for touched in news.applied.touched.values():
                self._objects += len(touched.inserted) + len(touched.modified) + len(touched.deleted)

    def put(self, event: ev.BootstrapBatch | ev.DownloadReceived) -> None:
        """*loop* Queue a download."""
        self._work.put_nowait(event)

    def renew(self) -> None:
        """*loop* Begin an empty queue for a new binding; whoever waits at the old one is being cancelled."""
        self._work = asyncio.Queue()

    def clear(self) -> None:
        """*loop* Forget what waits."""
        while not self._work.empty():
            self._work.get_nowait()

    async def run(self) -> None:
        """Commit what was downloaded, one at a time, in a worker thread."""
        session = self.session
        while True:
            event = await self._work.get()
            machine = session.binding.machine
            bootstrap = isinstance(event, ev.BootstrapBatch)
            entries = event.bootstrap if isinstance(event, ev.BootstrapBatch) else event.entries
            query_version = event.query_version if bootstrap else None
            # Shielded: a commit that has begun is told to the machine even when the session ends meanwhile.
            work = asyncio.ensure_future(asyncio.to_thread(self._commit, machine, entries, event, query_version))
            try:
                version = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})
                raise
            except RealmError as fault:
                reason = self._tell(fault, machine, entries)
                if self._awaits_reset(reason, machine):
                    continue
                raise reason from fault
            if machine is not None and session.binding.machine is machine:
                machine.integrated(version, event.progress)
                session.binding.pump()
            if session.caught_up:
                session.caught_up_at = time.time()
            session.transfer = session.transfer.after(objects=self._objects)
            session.waits.settle()
            session.notify()

    def _tell(self, fault: RealmError, machine: ClientSession | None, entries: tuple[Any, ...]) -> RealmError:
        """*loop* Tell the server of a download that could not be used; give the reason in the clearest words."""
        reason = explain_bad_changes(fault, entries, self.session.store.snapshot.schema)
        if machine is not None and not isinstance(fault, StorageError):
            # In the words that the real engine has for it.
            is_schema = isinstance(reason, SchemaMismatchError)
            machine.integration_failed(f"Schema mismatch: {reason.message}" if is_schema else reason.message)
            self.session.binding.pump()
        return reason

    def _awaits_reset(self, reason: RealmError, machine: ClientSession | None) -> bool:
        """*loop* Report what the server answers with a client reset; whether there is one to wait for.

        Nothing else can repair a realm that has gone astray from the server's; its own words come with the reset. A
        fresh copy that is made for a reset is not repaired by another one.
        """
        session = self.session
        if machine is None or not isinstance(reason, ChangesetError) or session.options.client_reset.mode == "none":
            return False
        self.clear()  # the session is deaf until then
        session.caught_up = False
        session.last_error = SyncError(f"A download cannot be applied: {reason.message}", code=212)
        session.report(session.last_error)
        session.patience.trouble()
        return True

    def _commit(
        self,
        machine: ClientSession | None,
        entries: tuple[Any, ...],
        event: ev.BootstrapBatch | ev.DownloadReceived,
        query_version: int | None,
    ) -> int:
        """Integrate into the store; give the realm's newest version."""
        session = self.session
        found = [
            Entry(
                server_version=e.server_version,
                client_version=e.client_version,
                timestamp=e.timestamp,
                file_ident=e.file_ident,
                changeset=e.changeset,
            )
            for e in entries
        ]
        with session.commit_lock, collection_paused():
            if machine is not None and machine is not session.binding.machine and session.binding.is_resetting:
                return session.store.snapshot.version  # what the server said before it asked for a reset
            self._is_committing = True
            try:
                session.store.integrate(
                    found,
                    _to_store(event.progress),
                    subscriptions=None if query_version is None else session.subscriptions.bootstrapped(query_version),
                    quarantine=partial(reverted, events=event.compensating) if event.compensating else None,
                )
            finally:
                self._is_committing = False
            session.cover_classes()
            return session.store.snapshot.version


def to_session(progress: StoredProgress) -> Progress:
    """Give the store's progress in the session's form."""
    return Progress(*(getattr(progress, name) for name in Progress.__slots__))


def _to_store(progress: Progress) -> StoredProgress:
    return StoredProgress(**{name: getattr(progress, name) for name in Progress.__slots__})
