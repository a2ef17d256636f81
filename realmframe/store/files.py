"""The file system, behind one small seam, so that tests can make any step of it fail."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from realmframe.errors import ReadOnlyError, StorageError

#: What the operating system says when a disk or a quota is full.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class FileSystem:
    """What the store asks of the operating system. Subclass it to inject faults."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file; one that is made is for its owner only."""
        return os.open(path, flags, 0o600)

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """Have what was written on disk."""
        os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Replace a file in one step."""
        os.replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Have a folder's entries on disk."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def step(self, name: str) -> None:
        """Pass a named step of a longer operation; does nothing, tests end the process here."""


def write_file(fs: FileSystem, path: Path, data: bytes) -> None:
    """Write a small file in one step: all of it or nothing, and on disk."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with explained(path):
        descriptor = fs.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            fs.write(descriptor, data)
            fs.sync(descriptor)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        fs.step("before rename")
        fs.rename(temporary, path)
        fs.sync_folder(path.parent)


def make_folder(fs: FileSystem, folder: Path) -> None:
    """Make a folder and those above it, for their owner only; all of them on disk."""
    with explained(folder):
        missing = [folder, *(p for p in folder.parents if not p.exists())]
        for made in reversed(missing):  # one by one: those above get the rights that the system gives otherwise
            made.mkdir(exist_ok=True, mode=0o700)
            fs.sync_folder(made.parent)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into ours.

    Raises
    ------
    StorageError
        For a full disk and everything else.
    ReadOnlyError
        If the folder or file cannot be written.
    """
    try:
        yield
    except OSError as fault:
        reason = fault.strerror or str(fault)
        if fault.errno in _FULL:
            raise StorageError(
                f"The disk is full: {path} cannot be written.",
                path=str(path),
                hint="Nothing was lost; free some space.",
            ) from fault
        if fault.errno in _READ_ONLY:
            raise ReadOnlyError(
                f"{path} cannot be written: {reason}.",
                path=str(path),
                hint="Choose another folder, or change its rights.",
            ) from fault
        raise StorageError(f"{path}: {reason}.", path=str(path)) from fault
