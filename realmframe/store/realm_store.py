"""The folder of one realm: a checkpoint, a journal, and the state that the two give.

Any thread reads :attr:`RealmStore.snapshot` without a lock. A commit takes the store's lock and then the folder's
(between processes), catches up with what other processes committed, appends its record, and swaps the state.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from realmframe.changes import Changeset
from realmframe.errors import (
    ChangesetError,
    ClosedError,
    CorruptFileError,
    ReadOnlyError,
    StorageError,
    UsageError,
    WrongUserError,
)
from realmframe.store import lock as locks
from realmframe.store import state as st
from realmframe.store.applied import Applied
from realmframe.store.checkpoint import (
    MANIFEST,
    Checkpoint,
    freeze_index,
    read_checkpoint,
    read_manifest,
    remove_unreferenced,
    separate_index,
    write_checkpoint,
)
from realmframe.store.files import FileSystem, explained, make_folder
from realmframe.store.journal import Record, Segment, segment_numbers, segment_path
from realmframe.store.pending import LocalChange
from realmframe.store.reset import Reset, reset_record
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import ClientFile, Entry, Owner, Progress, State

#: A checkpoint is made in the background once the journal holds so many bytes.
CHECKPOINT_BYTES: Final = 64 * 1024 * 1024
#: ... and when a realm is closed with at least so many.
CLOSING_BYTES: Final = 256 * 1024
#: How many past commits are kept in memory for :meth:`RealmStore.as_of`; those before are replayed from the files.
PAST: Final = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Commit:
    """What listeners are told: a new snapshot, and what led to it (None for commits of other processes)."""

    snapshot: Snapshot
    applied: Applied | None


class RealmStore:
    """The files of one realm; see :meth:`open`."""

    def __init__(self, path: Path, fs: FileSystem, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._fs = fs
        self._lock = threading.RLock()
        self._folder_lock = locks.WriteLock(path)
        self._manifest_path = os.fspath(path / MANIFEST)
        self._sync_lock = locks.lock_file(path, locks.SYNC)
        self._checkpoint_lock = locks.lock_file(path, locks.CHECKPOINT)
        self._checkpoint_mutex = threading.Lock()
        self._depth = 0
        self._news: collections.deque[Commit] = collections.deque()
        self._telling = False
        self._state = State(Snapshot.empty())
        self._checkpoint: Checkpoint | None = None
        self._segment: Segment | None = None
        self._journal_bytes = 0
        self._manifest_id: tuple[int, ...] | None = None
        self._checkpoint_id: tuple[int, ...] | None = None
        self._listeners: list[Callable[[Commit], None]] = []
        self._past: list[Applied] = []
        self._closed = False
        self._checkpointing: threading.Thread | None = None
        self._use: locks.Use | None = None

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
        fresh = not cls.exists(folder)
        if fresh and (read_only or not create):
            raise StorageError(f"There is no realm at {folder}.", path=str(folder))
        if fresh:
            _check_foreign(folder)
            make_folder(fs, folder)
        store = cls(folder, fs, read_only=read_only)
        store._load(owner=owner)
        return store

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Tell whether there is a realm at a path."""
        folder = Path(path)
        return folder.is_dir() and ((folder / MANIFEST).exists() or bool(segment_numbers(folder)))

    @staticmethod
    def delete(path: str | os.PathLike[str]) -> None:
        """Delete the files of a realm; nothing happens if there is none.

        Raises
        ------
        UsageError
            If a process has it open.
        """
        folder = Path(path)
        if not RealmStore.exists(folder):
            return
        use = locks.Use(folder, FileSystem(), exclusive=True)
        try:
            with explained(folder):
                shutil.rmtree(folder)
        finally:
            use.release()

    @staticmethod
    def move(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        """Move the files of a realm.

        Raises
        ------
        UsageError
            If a process has it open, or there is something at the target.
        """
        folder, goal = Path(path), Path(target)
        if goal.exists():
            raise UsageError(f"There is something at {goal} already.", hint="Give another path.")
        use = locks.Use(folder, FileSystem(), exclusive=True)
        try:
            with explained(goal):
                goal.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.move(os.fspath(folder), os.fspath(goal))
        finally:
            use.release()

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

    def _let_go(self) -> None:
        self._closed = True
        self._sync_lock.release()
        self._folder_lock.close()
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        if self._use is not None:
            self._use.release()

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

    def _reload(self) -> None:
        """Read checkpoint and journal from the start."""
        self._manifest_id = self._manifest_now()
        checkpoint = read_checkpoint(self.path)
        first = 0
        self._state = State(Snapshot.empty())
        if checkpoint is not None:
            self._state = st.state_from_extra(checkpoint.snapshot, checkpoint.extra["state"], checkpoint.blobs)
            first = int(checkpoint.extra["segment"])
        self._checkpoint, self._checkpoint_id = checkpoint, self._manifest_id
        self._journal_bytes = 0
        self._past.clear()
        numbers = [n for n in segment_numbers(self.path) if n >= first]
        if not numbers and checkpoint is not None:
            raise CorruptFileError(
                f"The journal {segment_path(self.path, first)} is missing.",
                path=str(segment_path(self.path, first)),
                hint="Restore it from a backup, or delete the realm's folder and sync anew.",
            )
        for number in numbers or ([] if self.read_only else [1]):
            self._use_segment(number, create=not self.read_only)
            self._replay()

    def _reload_steadily(self) -> None:
        """Read everything without the folder's lock: again, if a checkpoint was made meanwhile."""
        for _ in range(20):
            try:
                self._reload()
            except (CorruptFileError, StorageError):
                if self._manifest_now() == self._manifest_id:
                    raise
            else:
                return
        self._reload()

    def _clean(self) -> None:
        """Cut off what was not finished, and remove what nothing names, while the folder is locked."""
        assert self._segment is not None
        self._segment.cut()
        with locks.held(self._checkpoint_lock, timeout=0) as idle:
            if not idle:
                return  # files that nothing names yet are being written
            manifest = read_manifest(self.path) or {"blobs": {}, "tables": {}, "extra": {"segment": 0}}
            self._remove_segments(int(manifest["extra"]["segment"]))
            remove_unreferenced(self.path, manifest)
            for path in self.path.glob("*.tmp"):
                path.unlink(missing_ok=True)

    def _remove_segments(self, before: int) -> None:
        for number in segment_numbers(self.path):
            if number < before:
                segment_path(self.path, number).unlink(missing_ok=True)

    def _use_segment(self, number: int, *, create: bool = False) -> None:
        segment = Segment(self.path, number, self._fs, read_only=self.read_only, create=create)
        if self._segment is not None:
            self._segment.close()
        self._segment = segment

    def _replay(self) -> int:
        assert self._segment is not None
        count, start = 0, self._segment.offset
        for record in self._segment.read():
            try:
                self._state, applied = st.advance(self._state, record)
            except (ChangesetError, KeyError, TypeError, ValueError) as fault:
                raise CorruptFileError(
                    f"{self._segment.path} holds a record (version {record.version}) that contradicts those before it.",
                    path=str(self._segment.path),
                    hint="Restore the realm's folder from a backup, or delete it and sync anew.",
                ) from fault
            self._remember(applied)
            count += 1
        self._journal_bytes += self._segment.offset - start
        return count

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

    def add_quarantine(self, *entries: dict[str, Any]) -> None:
        """Keep writes that were reverted or lost (JSON-able), in one record of the journal."""
        self._meta(quarantine=list(entries))

    def set_extra(self, **values: Any) -> None:
        """Store anything else by name (JSON-able)."""
        self._meta(extra=values)

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

    def _tell(self) -> None:
        """Call listeners in the order of versions; no lock is held meanwhile."""
        while True:
            with self._lock:
                if self._telling or not self._news or self._depth:
                    return
                news, callbacks, self._telling = self._news.popleft(), list(self._listeners), True
            for callback in callbacks:
                try:
                    callback(news)
                except Exception:
                    log.exception("a listener of the realm at %s failed", self.path)
            self._telling = False

    @contextlib.contextmanager
    def _writing(self, *, catch_up: bool = True) -> Iterator[None]:
        """Hold the store's lock and the folder's; everything that others committed is read."""
        if self.read_only:
            raise ReadOnlyError(f"The realm at {self.path} was opened read-only.", path=str(self.path))
        with self._lock:
            self._open_only()
            self._folder_lock.acquire()
            self._depth += 1
            try:
                if catch_up:
                    before = self._state.snapshot
                    unfinished = self._catch_up()
                    if self._state.snapshot is not before:
                        self._news.append(Commit(self._state.snapshot, None))
                    if unfinished and self._segment is not None:
                        self._segment.cut()
                yield
            finally:
                self._depth -= 1
                self._folder_lock.release()
        self._tell()

    def _open_only(self) -> None:
        if self._closed:
            raise ClosedError(f"The realm at {self.path} is closed.")

    def _manifest_now(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._manifest_path)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _catch_up(self) -> bool:
        """Read what other processes wrote; tell whether anything may follow the last whole record of the journal."""
        segment = self._segment
        if segment is None:
            self._reload()
            return True
        unfinished = self._replay_new(segment)
        while os.path.exists(segment.next_path):
            # Nothing is appended to a segment once there is a next one: now it is read to its end.
            self._replay_new(segment)
            self._use_segment(segment.number + 1)
            segment = self._segment
            assert segment is not None
            unfinished = self._replay_new(segment)
        # Two checkpoints later the next segment is gone, too; but they removed this one first.
        if segment.may_be_removed:
            manifest = read_manifest(self.path)
            if manifest is not None and int(manifest["extra"]["segment"]) > segment.number:
                self._reload()
                return True
        return unfinished

    def _replay_new(self, segment: Segment) -> bool:
        """Read whole records; tell whether anything follows them."""
        size = segment.size
        if size > segment.offset:
            self._replay()
        return size > segment.offset

    # ------------------------------------------------------------------ who syncs

    def try_sync_lock(self) -> bool:
        """Become the process that syncs this realm, unless another one is; the lock dies with its holder."""
        self._open_only()
        return locks.try_lock(self._sync_lock)

    def release_sync_lock(self) -> None:
        """Let another process sync this realm."""
        self._sync_lock.release()

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> None:
        """Write a checkpoint now; commits of other threads go on meanwhile.

        Raises
        ------
        StorageError
            If it cannot be written; nothing is lost.
        """
        with self._checkpoint_mutex, locks.held(self._checkpoint_lock):
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        with self._writing():
            state, previous = self._state, self._checkpoint
            assert self._segment is not None
            number = self._segment.number + 1
            self._use_segment(number, create=True)
            self._journal_bytes = 0
            indexes = {name: freeze_index(table) for name, table in state.snapshot.tables.items()}
        self._fs.step("journal rotated")
        form, blobs = st.state_to_extra(state)
        made = write_checkpoint(
            self.path,
            state.snapshot,
            {"segment": number, "state": form},
            blobs=blobs,
            previous=previous if self._manifest_now() == self._checkpoint_id else None,
            fs=self._fs,
            indexes=indexes,
            publishing=lambda: self._publishing(number),
        )
        self._checkpoint = made

    @contextlib.contextmanager
    def _publishing(self, number: int) -> Iterator[None]:
        with self._writing(catch_up=False):
            yield
            self._manifest_id = self._checkpoint_id = self._manifest_now()
            self._remove_segments(number)

    def _checkpoint_soon(self) -> None:
        if self._checkpointing is not None:
            return

        def run() -> None:
            try:
                with contextlib.suppress(StorageError, ClosedError):
                    self.checkpoint()
            finally:
                self._checkpointing = None

        self._checkpointing = threading.Thread(target=run, name=f"realmframe-checkpoint-{self.path.name}", daemon=True)
        self._checkpointing.start()

    # ------------------------------------------------------------------ the past

    def _remember(self, applied: Applied | None) -> None:
        if applied is not None:
            self._past.append(applied)
            del self._past[:-PAST]

    def as_of(self, version: int) -> Snapshot:
        """Give the state at a past version.

        Raises
        ------
        UsageError
            If the version is newer than the newest, or older than the last checkpoint and no longer in memory.
        """
        with self._lock:
            now = self._state.snapshot.version
            if version == now:
                return self._state.snapshot
            for applied in self._past:
                if applied.before.version <= version < applied.snapshot.version:
                    return applied.before
            oldest = self._past[0].before.version if self._past else now
        with contextlib.suppress(StorageError):
            found, oldest = self._replayed(version, oldest)
            if found is not None:
                return found
        raise UsageError(
            f"Version {version} of the realm is not kept.", hint=f"Versions {oldest} to {now} are, for now."
        )

    def _replayed(self, version: int, oldest: int) -> tuple[Snapshot | None, int]:
        """Read a version out of checkpoint and journal."""
        checkpoint = read_checkpoint(self.path)
        state, first = State(Snapshot.empty()), 0
        if checkpoint is not None:
            state = st.state_from_extra(checkpoint.snapshot, checkpoint.extra["state"], checkpoint.blobs)
            first = int(checkpoint.extra["segment"])
        if not state.snapshot.version <= version < self._state.snapshot.version:
            return None, min(oldest, state.snapshot.version)
        for number in [n for n in segment_numbers(self.path) if n >= first]:
            segment = Segment(self.path, number, self._fs, read_only=True)
            try:
                for record in segment.read():
                    if record.version > version:
                        return state.snapshot, oldest
                    state, _ = st.advance(state, record)
            finally:
                segment.close()
        return state.snapshot, oldest

    def copy_to(self, path: str | os.PathLike[str], *, with_identity: bool = True) -> None:
        """Write the newest state, with all that belongs to it, as a realm at another path.

        Parameters
        ----------
        with_identity : bool
            False leaves out who the file is to the server: its number, its user and its own history, not how far it has
            downloaded. It belongs to whichever user of the app opens it first; so it can be shipped to many.

        Raises
        ------
        UsageError
            If there is one already, or one without identity would lose what was not uploaded yet.
        """
        folder = Path(path)
        if self.exists(folder):
            raise UsageError(f"There is a realm at {folder} already.", hint="Delete it first, or give another path.")
        _check_foreign(folder)
        state = self._state if with_identity else st.without_identity(self._state, self.path)
        form, blobs = st.state_to_extra(state)
        make_folder(self._fs, folder)
        with self._lock:
            freeze = freeze_index if with_identity else separate_index
            indexes = {name: freeze(table) for name, table in state.snapshot.tables.items()}
        Segment(folder, 1, self._fs, create=True).close()
        write_checkpoint(
            folder, state.snapshot, {"segment": 1, "state": form}, blobs=blobs, fs=self._fs, indexes=indexes
        )

    def past(self) -> list[Applied]:
        """List the last commits, oldest first."""
        with self._lock:
            return list(self._past)


def _check_foreign(folder: Path) -> None:
    """Refuse to make a realm in a folder that holds something else."""
    if folder.is_dir():
        others = [p for p in folder.iterdir() if p.name not in locks.NAMES]
        if others:
            raise CorruptFileError(
                f"The folder {folder} holds {others[0].name!r}, which is no part of a realm.",
                path=str(others[0]),
                hint="Choose another path, or empty the folder.",
            )
