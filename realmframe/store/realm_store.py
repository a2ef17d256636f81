"""The folder of one realm: a checkpoint, a journal, and the state that the two give.

Any thread reads :attr:`RealmStore.snapshot` without a lock. A commit takes the store's lock and then the folder's
(between processes), catches up with what other processes committed, appends its record, and swaps the state.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from realmframe.changes import Changeset
from realmframe.errors import ClosedError, CorruptFileError, StorageError, UsageError, WrongUserError
from realmframe.store import folder as folders
from realmframe.store import lock as locks
from realmframe.store import state as st
from realmframe.store.applied import Applied
from realmframe.store.checkpointing import CheckpointedFiles
from realmframe.store.files import FileSystem, make_folder
from realmframe.store.journal import Record
from realmframe.store.pending import LocalChange
from realmframe.store.realm_files import Commit
from realmframe.store.reset import Reset, reset_record
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import ClientFile, Entry, Owner, Progress, State

#: A checkpoint is made in the background once the journal holds so many bytes.
CHECKPOINT_BYTES: Final = 64 * 1024 * 1024
#: ... and when a realm is closed with at least so many.
CLOSING_BYTES: Final = 256 * 1024


class RealmStore(CheckpointedFiles):
    """The files of one realm; see :meth:`open`."""

    #: Whether there is a realm at a path, its deletion, and its move; see :mod:`realmframe.store.folder`.
    exists = staticmethod(folders.exists)
    enclosing = staticmethod(folders.enclosing)
    delete = staticmethod(folders.delete)
    move = staticmethod(folders.move)

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        read_only: bool = False,
        owner: Owner | None = None,
        fs: FileSystem | None = None,
    ) -> RealmStore:
        """Open the realm at a path.

        Parameters
        ----------
        path : path-like
            The realm's folder.
        create : bool
            Whether to make it if it does not exist.
        read_only : bool
        owner : Owner, optional
            The app and user that open it; recorded in a new realm, checked in one that exists.
        fs : FileSystem, optional
            Where tests inject faults.

        Raises
        ------
        StorageError
            If it does not exist and may not be made.
        CorruptFileError
            If something at the path is damaged, or not a realm.
        WrongUserError
            If it belongs to another app or user.
        """
        folder, fs = Path(path), fs or FileSystem()
        if folder.exists() and not folder.is_dir():
            raise CorruptFileError(
                f"{folder} is a file, but a realm is a folder.", path=str(folder), hint="Choose another path."
            )
        fresh = not folders.exists(folder)
        if fresh and (read_only or not create):
            raise StorageError(f"There is no realm at {folder}.", path=str(folder))
        if fresh:
            folders.check_foreign(folder)
            make_folder(fs, folder)
        store = cls(folder, fs, read_only=read_only)
        store._load(owner=owner)
        return store

    def _load(self, *, owner: Owner | None) -> None:
        try:
            self._use = locks.Use(self.path, self._fs, read_only=self.read_only)
            if self.read_only:
                self._reload_steadily()
            else:
                with self._writing(catch_up=False):
                    self._reload()
                    self._clean()
                    have = self._state.owner
                    is_new = have is None and not self._state.snapshot.version
                    if owner is not None and (is_new or have == replace(owner, user_id="")):
                        self._append(st.meta_record(self._state, owner=list(asdict(owner).values())))
            self._check_owner(owner)
        except BaseException:
            self._let_go()
            raise

    def _check_owner(self, owner: Owner | None) -> None:
        have = self._state.owner
        if owner is None:
            return
        if have is None:
            if self.read_only or not self._state.snapshot.version:
                return
            raise UsageError(
                f"The realm at {self.path} was made without sync, so it cannot be opened with it.",
                hint="Write a copy of it that syncs, or choose another path.",
            )
        if (have.app_id, have.user_id) != (owner.app_id, owner.user_id):
            raise WrongUserError(
                f"The realm at {self.path} belongs to user {have.user_id} of app {have.app_id}, "
                f"not to user {owner.user_id} of app {owner.app_id}.",
                hint="Log in as that user, or choose another path.",
            )

    def close(self) -> None:
        """Close the files; a checkpoint is made first if the journal is long."""
        with self._lock:
            if self._closed:
                return
            thread = self._checkpointing
        if thread is not None:
            thread.join(locks.LOCK_SECONDS)
        if not self.read_only and self._journal_bytes >= CLOSING_BYTES:
            with contextlib.suppress(StorageError, ClosedError):
                self.checkpoint()
        with self._lock:
            if not self._closed:
                self._listeners.clear()
                self._let_go()

    def __enter__(self) -> RealmStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ reading

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot that this process knows."""
        return self._state.snapshot

    @property
    def progress(self) -> Progress:
        """How far the file and the server have come with each other."""
        return self._state.progress

    @property
    def file(self) -> ClientFile | None:
        """The file's number at the server."""
        return self._state.file

    @property
    def owner(self) -> Owner | None:
        """The app and user that the realm belongs to."""
        return self._state.owner

    @property
    def subscriptions(self) -> Any:
        """What :meth:`set_subscriptions` stored."""
        return self._state.subscriptions

    @property
    def quarantine(self) -> list[dict[str, Any]]:
        """Writes that the server reverted or a client reset lost."""
        return list(self._state.quarantine)

    @property
    def extra(self) -> dict[str, Any]:
        """What :meth:`set_extra` stored."""
        return dict(self._state.extra)

    def pending(self, after: int = 0) -> list[LocalChange]:
        """List the local transactions that the server has not acknowledged, oldest first.

        Parameters
        ----------
        after : int
            Only those with a version above it.
        """
        state = self._state
        return list(state.pending.after(max(after, state.progress.upload_client_version)))

    def refresh(self) -> Snapshot:
        """Catch up with what other processes committed; give the newest snapshot."""
        with self._lock:
            self._open_only()
            before = self._state.snapshot
            try:
                self._catch_up()
            except (CorruptFileError, StorageError):
                # Another process may have been in the middle of something.
                if self.read_only:
                    self._reload_steadily()
                else:
                    with self._writing():
                        pass
            if self._state.snapshot is not before:
                self._news.append(Commit(self._state.snapshot, None))
        self._tell()
        return self._state.snapshot

    def listen(self, callback: Callable[[Commit], None]) -> Callable[[], None]:
        """Have a callback called after each new snapshot, in the thread that made it; give what stops it."""
        with self._lock:
            self._listeners.append(callback)

        def stop() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._listeners.remove(callback)

        return stop

    # ------------------------------------------------------------------ writing

    def commit(self, changeset: Changeset, *, timestamp: int) -> Snapshot:
        """Commit a local transaction; on disk on return.

        Parameters
        ----------
        changeset : Changeset
        timestamp : int
            Milliseconds since 2015.

        Raises
        ------
        ApplyError
            If it contradicts the state; nothing was written then.
        StorageError
            If it cannot be written; the realm stays as it was.
        """
        data = changeset.encode()
        with self._writing():
            # What is applied is what was written, read back: replaying it cannot give anything else.
            return self._append(st.local_record(self._state, data, timestamp))

    def integrate(
        self,
        entries: Sequence[Entry],
        progress: Progress,
        *,
        subscriptions: Callable[[Any], Any] | None = None,
        quarantine: Callable[[Applied | None], list[dict[str, Any]]] | None = None,
    ) -> Snapshot:
        """Commit what was downloaded, all of it or nothing, merged with the local changes that the server did not know.

        Parameters
        ----------
        entries : sequence of Entry
            Those of one DOWNLOAD, or of a whole bootstrap.
        progress : Progress
        subscriptions : callable, optional
            ``f(stored)``: gives the subscription sets from then on, in the same commit. A bootstrap needs it: what a
            realm holds and the query set that it says to have must never contradict each other.
        quarantine : callable, optional
            ``f(applied)``: gives what this takes back of local writes, to be kept in the same record.

        Raises
        ------
        BadChangesetError, ApplyError, MergeError
            If the entries cannot be used; nothing was written then.
        RemoteProtocolError
            If the progress goes back.
        """
        with self._writing():
            st.check_progress(self._state.progress, progress)
            after = self._state.subscriptions if subscriptions is None else subscriptions(self._state.subscriptions)
            record = st.integrate_record(self._state, entries, progress, after)
            if quarantine is not None:  # rare, so it may be applied twice
                lost = quarantine(st.advance(self._state, record)[1])
                record = st.integrate_record(self._state, entries, progress, after, lost)
            # An acknowledgement alone may be lost in a crash: the server sends it again.
            return self._append(record, durable=bool(entries) or subscriptions is not None)

    def reset(self, make: Callable[[State], Reset]) -> Snapshot:
        """Put a fresh copy's state, number and progress in the place of the realm's own, in one commit.

        Parameters
        ----------
        make : callable
            ``f(state)``: gives the reset for the newest state. Nobody commits meanwhile, other processes included.

        Raises
        ------
        ApplyError
            If the reset's changeset contradicts the state; nothing was written then. So too whatever ``make`` raises.
        """
        with self._writing():
            return self._append(reset_record(self._state, make(self._state)))

    def set_file(self, ident: int, salt: int) -> None:
        """Store the file's number at the server."""
        self._meta(file=[ident, salt])

    def set_subscriptions(self, change: Callable[[Any], Any]) -> None:
        """Store subscription sets: ``change(stored)`` gives the new ones (JSON-able), or ``stored`` for none.

        Nobody else changes them meanwhile, other processes included.
        """
        with self._writing():
            stored = self._state.subscriptions
            wanted = change(stored)
            if wanted is not stored:
                self._append(st.meta_record(self._state, subscriptions=wanted))

    def set_extra(self, **values: Any) -> None:
        """Store anything else by name (JSON-able)."""
        self._meta(extra=values)

    def leave_partition(self, **extra: Any) -> None:
        """Make it a realm of Flexible Sync, and store other values in the same record."""
        owner = self._state.owner
        if owner is None:
            raise UsageError(f"The realm at {self.path} does not sync.")
        self._meta(owner=list(asdict(replace(owner, partition=None)).values()), extra=extra)

    def _meta(self, **changes: Any) -> None:
        with self._writing():
            self._append(st.meta_record(self._state, **changes))

    def _append(self, record: Record, *, durable: bool = True) -> Snapshot:
        """Apply a record, then write it, then show it."""
        assert self._segment is not None
        before = self._segment.offset
        state, applied = st.advance(self._state, record)
        self._segment.append(record, durable=durable)
        self._journal_bytes += self._segment.offset - before
        changed = state.snapshot is not self._state.snapshot
        self._state = state
        self._remember(applied)
        if changed:
            self._news.append(Commit(state.snapshot, applied))
        if self._journal_bytes >= CHECKPOINT_BYTES:
            self._checkpoint_soon()
        return state.snapshot
