"""Locks between processes: who uses a realm, who writes to it, who syncs it. All die with their holder.

A process that is forked off has none of its parent's: it closes what it got of their files, which leaves them locked
for the parent. (:mod:`filelock` does so with its own.) Otherwise they would outlive the parent with it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import filelock

from realmframe.errors import ReadOnlyError, StorageError, UsageError
from realmframe.store.files import FileSystem, explained

if sys.platform != "win32":  # which refuses to delete files in use by itself
    import fcntl

#: A lock between processes.
Lock = filelock.FileLock
#: How long a writer waits for another process.
LOCK_SECONDS: Final = 60.0
WRITE, USE, SYNC, CHECKPOINT = "write.lock", "use.lock", "sync.lock", "checkpoint.lock"
NAMES: Final = (WRITE, USE, SYNC, CHECKPOINT)


def lock_file(folder: Path, name: str) -> filelock.FileLock:
    """Make an exclusive lock, shared by all threads of its holder."""
    return filelock.FileLock(folder / name, timeout=LOCK_SECONDS, mode=0o600, thread_local=False)


class _OpenFile:
    """The file of a lock, while it is open."""

    def __init__(self) -> None:
        self._descriptor = -1
        _open_files.add(self)

    def close(self) -> None:
        """Close it, which ends the lock unless a process has it that this one was forked off."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_open_files: Final[weakref.WeakSet[_OpenFile]] = weakref.WeakSet()


def _after_fork() -> None:
    for found in list(_open_files):
        found.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class WriteLock(_OpenFile):
    """The lock around each commit. Its file stays open, so that taking it costs one call of the operating system.

    Only for use under a lock between threads.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / WRITE
        self._depth = 0
        self._fallback = lock_file(folder, WRITE) if sys.platform == "win32" else None

    def acquire(self) -> None:
        """Take it.

        Raises
        ------
        StorageError
            If another process holds it for very long.
        """
        if self._depth == 0 and not self._take():
            raise _hangs(self._path)
        self._depth += 1

    def release(self) -> None:
        """Let it go."""
        self._depth -= 1
        if self._depth:
            return
        if sys.platform != "win32":
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        elif self._fallback is not None:
            self._fallback.release()

    def _take(self) -> bool:
        with explained(self._path):
            if sys.platform == "win32":
                return self._fallback is None or _acquire(self._fallback, None)
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            ends, pause = time.monotonic() + LOCK_SECONDS, 0.0001
            while True:
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                except BlockingIOError:
                    if time.monotonic() > ends:
                        return False
                time.sleep(pause)
                pause = min(2 * pause, 0.01)


def _hangs(path: Path) -> StorageError:
    return StorageError(
        f"Another process has held {path} for {LOCK_SECONDS:.0f} s.",
        path=str(path),
        hint="Look for a process that hangs with the realm open.",
    )


@contextlib.contextmanager
def held(lock: filelock.FileLock, *, timeout: float | None = None) -> Iterator[bool]:
    """Hold a lock; tells whether it could be had when a ``timeout`` was given.

    Raises
    ------
    StorageError
        If another process holds it for very long.
    """
    path = Path(lock.lock_file)
    with explained(path):
        got = _acquire(lock, timeout)
    if not got:
        if timeout is not None:
            yield False
            return
        raise _hangs(path)
    try:
        yield True
    finally:
        lock.release()


class Use(_OpenFile):
    """That a realm is open in this process, so that nobody deletes it.

    Parameters
    ----------
    folder : Path
    fs : FileSystem
    exclusive : bool
        Claim it for deletion instead.
    read_only : bool
        Make no file for it; a realm without the file is not guarded then.

    Raises
    ------
    UsageError
        If it is in use (for ``exclusive``), or being deleted.
    """

    def __init__(self, folder: Path, fs: FileSystem, *, exclusive: bool = False, read_only: bool = False) -> None:
        super().__init__()
        path = folder / USE
        try:
            with explained(path):
                self._descriptor = fs.open(path, os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT)
        except StorageError as fault:
            if read_only and not isinstance(fault, ReadOnlyError):
                return
            raise
        if sys.platform != "win32":
            try:
                fcntl.flock(self._descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                what = "is in use" if exclusive else "is being deleted"
                raise UsageError(f"The realm at {folder} {what}.", hint="Close it first, or try again.") from None


def try_lock(lock: filelock.FileLock, seconds: float = 0) -> bool:
    """Take a lock unless another process has it for that long; one that is held already stays held."""
    return lock.is_locked or _acquire(lock, seconds)


def _acquire(lock: filelock.FileLock, timeout: float | None) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        return False
    return True
