"""The folder of one realm: a checkpoint, a journal, and the state that the two give.

Any thread reads :attr:`RealmStore.snapshot` without a lock. A commit takes the store's lock and then the folder's
(between processes), catches up with what other processes committed, appends its record, and swaps the state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import filelock

from realmframe.changes import Changeset
from realmframe.errors import (
    ClosedError,
    CorruptFileError,
    ReadOnlyError,
    StorageError,
    UsageError,
    WrongUserError,
)
from realmframe.store import state as st
from realmframe.store.apply import Applied
from realmframe.store.checkpoint import (
    MANIFEST,
    Checkpoint,
    read_checkpoint,
    read_manifest,
    remove_unreferenced,
    write_checkpoint,
)
from realmframe.store.files import FileSystem, explained
from realmframe.store.journal import Record, Segment, segment_numbers, segment_path
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import ClientFile, Entry, LocalChange, Owner, Progress, State

#: A checkpoint is made in the background once the journal holds so many bytes.
CHECKPOINT_BYTES: Final = 64 * 1024 * 1024
#: ... and when a realm is closed with at least so many.
CLOSING_BYTES: Final = 256 * 1024
#: How many past commits are kept in memory for :meth:`RealmStore.as_of`.
PAST: Final = 256
LOCK_SECONDS: Final = 60.0
_LOCKS: Final = ("write.lock", "use.lock", "sync.lock")


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
        self._folder_lock = filelock.FileLock(path / "write.lock", timeout=LOCK_SECONDS, mode=0o600)
        self._state = State(Snapshot.empty())
        self._checkpoint: Checkpoint | None = None
        self._segment: Segment | None = None
        self._journal_bytes = 0
        self._manifest_id: tuple[int, int] | None = None
        self._listeners: list[Callable[[Commit], None]] = []
        self._past: list[Applied] = []
        self._closed = False
        self._checkpointing: threading.Thread | None = None
        self._use: contextlib.AbstractContextManager[bool] = contextlib.nullcontext(True)

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
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise CorruptFileError(
                f"{folder} is a file, but a realm is a folder.", path=str(folder), hint="Choose another path."
            )
        fresh = not cls.exists(folder)
        if fresh and (read_only or not create):
            raise StorageError(f"There is no realm at {folder}.", path=str(folder))
        if fresh:
            _check_foreign(folder)
            with explained(folder):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = cls(folder, fs or FileSystem(), read_only=read_only)
        store._load(fresh=fresh, owner=owner)
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
        with _in_use(folder, exclusive=True) as free:
            if not free:
                raise UsageError(f"The realm at {folder} is in use.", hint="Close it first.")
            with explained(folder):
                shutil.rmtree(folder)

    def _load(self, *, fresh: bool, owner: Owner | None) -> None:
        if self.read_only:
            self._reload()
        else:
            self._use = _in_use(self.path, exclusive=False)
            self._use.__enter__()
            with self._writing(catch_up=False):
                self._reload()
                if fresh and owner is not None:
                    self._append(st.meta_record(self._state, owner=list(asdict(owner).values())))
        self._check_owner(owner)

    def _check_owner(self, owner: Owner | None) -> None:
        have = self._state.owner
        if owner is None or have is None or (have.app_id, have.user_id) == (owner.app_id, owner.user_id):
            return
        self.close()
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
        self._checkpoint = checkpoint
        self._journal_bytes = 0
        numbers = [n for n in segment_numbers(self.path) if n >= first]
        if not numbers:
            if self.read_only:
                return
            numbers = [max(first, 1)]
        for number in numbers:
            self._use_segment(number)
            self._replay()
        if not self.read_only and self._segment is not None:
            self._segment.cut()
            self._remove_old(first)

    def _use_segment(self, number: int) -> None:
        if self._segment is not None:
            self._segment.close()
        self._segment = Segment(self.path, number, self._fs, read_only=self.read_only)

    def _replay(self) -> int:
        assert self._segment is not None
        count, start = 0, self._segment.offset
        for record in self._segment.read():
            self._state, applied = st.advance(self._state, record)
            self._remember(applied)
            count += 1
        self._journal_bytes += self._segment.offset - start
        return count

    def _remove_old(self, first: int) -> None:
        for number in segment_numbers(self.path):
            if number < first:
                segment_path(self.path, number).unlink(missing_ok=True)
        manifest = read_manifest(self.path)
        if manifest is not None:
            remove_unreferenced(self.path, manifest)

    def close(self) -> None:
        """Close the files; a checkpoint is made first if the journal is long."""
        with self._lock:
            if self._closed:
                return
            thread = self._checkpointing
        if thread is not None:
            thread.join(LOCK_SECONDS)
        with self._lock:
            if not self.read_only and self._journal_bytes >= CLOSING_BYTES:
                with contextlib.suppress(StorageError):
                    self.checkpoint()
            self._closed = True
            self._listeners.clear()
            if self._segment is not None:
                self._segment.close()
            if not self.read_only:
                self._use.__exit__(None, None, None)

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

    def pending(self) -> list[LocalChange]:
        """List the local transactions that the server has not acknowledged, oldest first."""
        return list(self._state.pending)

    def refresh(self) -> Snapshot:
        """Catch up with what other processes committed; give the newest snapshot."""
        with self._lock:
            self._open_only()
            before = self._state.snapshot
            if self._catch_up() and self._state.snapshot is not before:
                self._tell(None)
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
            record = st.local_record(self._state, data, timestamp)
            return self._append(record, decoded=Changeset.decode(data))

    def integrate(self, entries: Sequence[Entry], progress: Progress, *, query_version: int | None = None) -> Snapshot:
        """Commit what was downloaded, all of it or nothing, merged with the local changes that the server did not know.

        Parameters
        ----------
        entries : sequence of Entry
            Those of one DOWNLOAD, or of a whole bootstrap.
        progress : Progress
        query_version : int, optional
            The query set whose bootstrap this is.

        Raises
        ------
        BadChangesetError, ApplyError, MergeError
            If the entries cannot be used; nothing was written then.
        """
        with self._writing():
            record = st.integrate_record(self._state, entries, progress, query_version)
            # An acknowledgement alone may be lost in a crash: the server sends it again.
            return self._append(record, durable=bool(entries))

    def set_file(self, ident: int, salt: int) -> None:
        """Store the file's number at the server."""
        self._meta(file=[ident, salt])

    def set_subscriptions(self, subscriptions: Any) -> None:
        """Store subscription sets (JSON-able)."""
        self._meta(subscriptions=subscriptions)

    def add_quarantine(self, entry: dict[str, Any]) -> None:
        """Keep a write that was reverted or lost (JSON-able)."""
        self._meta(quarantine=[entry])

    def set_extra(self, **values: Any) -> None:
        """Store anything else by name (JSON-able)."""
        self._meta(extra=values)

    def _meta(self, **changes: Any) -> None:
        with self._writing():
            self._append(st.meta_record(self._state, **changes))

    def _append(self, record: Record, *, decoded: Changeset | None = None, durable: bool = True) -> Snapshot:
        """Apply a record, then write it, then show it."""
        assert self._segment is not None
        before = self._segment.offset
        state, applied = st.advance(self._state, record, decoded)
        self._segment.append(record, durable=durable)
        self._journal_bytes += self._segment.offset - before
        changed = state.snapshot is not self._state.snapshot
        self._state = state
        self._remember(applied)
        if changed:
            self._tell(applied)
        if self._journal_bytes >= CHECKPOINT_BYTES:
            self._checkpoint_soon()
        return state.snapshot

    def _tell(self, applied: Applied | None) -> None:
        news = Commit(self._state.snapshot, applied)
        for callback in list(self._listeners):
            callback(news)

    @contextlib.contextmanager
    def _writing(self, *, catch_up: bool = True) -> Iterator[None]:
        """Hold the store's lock and the folder's; everything that others committed is read."""
        if self.read_only:
            raise ReadOnlyError(f"The realm at {self.path} was opened read-only.", path=str(self.path))
        with self._lock:
            self._open_only()
            try:
                with explained(self.path / "write.lock"):
                    self._folder_lock.acquire()
            except filelock.Timeout:
                raise StorageError(
                    f"Another process has been writing to {self.path} for {LOCK_SECONDS:.0f} s.", path=str(self.path)
                ) from None
            try:
                if catch_up and self._catch_up():
                    self._tell(None)
                    if self._segment is not None:
                        self._segment.cut()
                yield
            finally:
                self._folder_lock.release()

    def _open_only(self) -> None:
        if self._closed:
            raise ClosedError(f"The realm at {self.path} is closed.")

    def _manifest_now(self) -> tuple[int, int] | None:
        try:
            found = (self.path / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _catch_up(self) -> bool:
        """Read what other processes wrote; tell whether there was anything."""
        segment = self._segment
        if segment is None:
            self._reload()
            return True
        read = self._replay() if segment.size > segment.offset else 0
        while segment_path(self.path, segment.number + 1).exists():
            self._use_segment(segment.number + 1)
            segment = self._segment
            assert segment is not None
            read += self._replay()
        if self._manifest_now() != self._manifest_id:
            self._manifest_id = self._manifest_now()
            manifest = read_manifest(self.path)
            if manifest is not None and int(manifest["extra"]["segment"]) > segment.number:
                self._reload()
                return True
        return read > 0

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> None:
        """Write a checkpoint now; commits of other threads go on meanwhile.

        Raises
        ------
        StorageError
            If it cannot be written; nothing is lost.
        """
        with self._writing():
            state, previous = self._state, self._checkpoint
            assert self._segment is not None
            number = self._segment.number + 1
            self._use_segment(number)
            self._journal_bytes = 0
        self._fs.step("journal rotated")
        form, blobs = st.state_to_extra(state)
        extra = {"segment": number, "state": form}
        made = write_checkpoint(self.path, state.snapshot, extra, blobs=blobs, previous=previous, fs=self._fs)
        with self._writing(catch_up=False):
            self._checkpoint = made
            self._manifest_id = self._manifest_now()
            for old in segment_numbers(self.path):
                if old < number:
                    segment_path(self.path, old).unlink(missing_ok=True)

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
            If the version is newer than the newest, or no longer kept.
        """
        with self._lock:
            if version == self._state.snapshot.version:
                return self._state.snapshot
            kept = [a for a in self._past if a.before.version <= version < a.snapshot.version]
            if kept:
                return kept[-1].before
        oldest = self._past[0].before.version if self._past else self._state.snapshot.version
        raise UsageError(
            f"Version {version} of the realm is not kept any more.",
            hint=f"Versions {oldest} to {self._state.snapshot.version} are.",
        )

    def past(self) -> list[Applied]:
        """List the last commits, oldest first."""
        with self._lock:
            return list(self._past)


def _check_foreign(folder: Path) -> None:
    """Refuse to make a realm in a folder that holds something else."""
    if folder.is_dir():
        others = [p for p in folder.iterdir() if p.name not in _LOCKS]
        if others:
            raise CorruptFileError(
                f"The folder {folder} holds {others[0].name!r}, which is no part of a realm.",
                path=str(others[0]),
                hint="Choose another path, or empty the folder.",
            )


@contextlib.contextmanager
def _in_use(folder: Path, *, exclusive: bool) -> Iterator[bool]:
    """Hold a realm as used by this process; with ``exclusive``, tell whether no process uses it."""
    import fcntl

    with explained(folder):
        descriptor = os.open(folder / "use.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        free = True
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(descriptor)
