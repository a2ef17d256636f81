"""A realm's folder as one process has it open: the state read from checkpoint and journal, and kept up to date."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from realmframe.errors import ChangesetError, ClosedError, CorruptFileError, ReadOnlyError, StorageError
from realmframe.store import forks as _forks  # noqa: F401 - for what it does
from realmframe.store import lock as locks
from realmframe.store import state as st
from realmframe.store.applied import Applied
from realmframe.store.checkpoint import MANIFEST, Checkpoint, read_checkpoint, read_manifest, remove_unreferenced
from realmframe.store.files import FileSystem
from realmframe.store.journal import Segment, segment_numbers, segment_path
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import State

#: How many past commits are kept in memory for :meth:`RealmStore.as_of`; those before are replayed from the files.
PAST: Final = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Commit:
    """What listeners are told: a new snapshot, and what led to it (None for commits of other processes)."""

    snapshot: Snapshot
    applied: Applied | None


class RealmFiles:
    """State, locks and listeners of one open realm; every change is made inside :meth:`_writing`."""

    def __init__(self, path: Path, fs: FileSystem, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._fs = fs
        self.begin_anew()
        self._folder_lock = locks.WriteLock(path)
        self._manifest_path = os.fspath(path / MANIFEST)
        self._checkpoint_lock = locks.lock_file(path, locks.CHECKPOINT)
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
        _known.add(self)

    def begin_anew(self) -> None:
        """Forget who held the locks between threads, in a forked process."""
        self._lock = threading.RLock()
        self._checkpoint_mutex = threading.Lock()

    def _let_go(self) -> None:
        self._closed = True
        self._folder_lock.close()
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        if self._use is not None:
            self._use.close()

    # ------------------------------------------------------------------ reading

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

    def _remember(self, applied: Applied | None) -> None:
        if applied is not None:
            self._past.append(applied)
            del self._past[:-PAST]

    # ------------------------------------------------------------------ keeping up

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

    def _manifest_now(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._manifest_path)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    # ------------------------------------------------------------------ changing

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


_known: Final[weakref.WeakSet[RealmFiles]] = weakref.WeakSet()


def _after_fork() -> None:
    for files in list(_known):
        files.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
