"""The journal: an append-only file of records, one for each commit.

A segment begins with a magic number. A record is its length, a checksum, a kind, the realm's version after it, and a
payload. A record whose bytes end early, at the end of the last segment, or become zeros there, was never committed: the
writer cuts it off, readers stop before it. A record that is there and does not match its checksum is damage.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from realmframe.errors import CorruptFileError, StorageError
from realmframe.store.files import FileSystem, explained

MAGIC: Final = b"RFJOURN1"
_HEAD: Final = struct.Struct("<IIQB3xI")
_PAGE: Final = 512
_NAME: Final = re.compile(r"journal-(\d{8})\.log")
#: No record is longer.
MAX_RECORD: Final = 0xF0000000
#: A record below this is written in one call, for which its payload is copied.
_SMALL: Final = 1 << 16


class Kind(IntEnum):
    """What a record holds."""

    LOCAL = 1
    INTEGRATE = 2
    META = 3
    RESET = 4


_KINDS: Final = frozenset(int(k) for k in Kind)


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes
    ----------
    kind : Kind
    version : int
    payload : bytes
    body : bytes
        What follows the payload, so that large bytes need not be copied; empty in a record that was read.
    """

    kind: Kind
    version: int
    payload: bytes
    body: bytes = b""


def segment_path(folder: Path, number: int) -> Path:
    """Name a segment."""
    return folder / f"journal-{number:08d}.log"


def segment_numbers(folder: Path) -> list[int]:
    """List the segments of a folder, ascending."""
    found = (_NAME.fullmatch(p.name) for p in folder.iterdir())
    return sorted(int(m[1]) for m in found if m is not None)


class Segment:
    """One open segment.

    Attributes
    ----------
    number : int
    next_path : str
        Where the next segment will be.
    offset : int
        Where the next record to read, or to append, begins.
    may_be_removed : bool
        Whether the file may have had no name any more when :attr:`size` was asked for last.
    """

    may_be_removed = False

    def __init__(
        self, folder: Path, number: int, fs: FileSystem, *, read_only: bool = False, create: bool = False
    ) -> None:
        self.number, self._fs = number, fs
        self.path = segment_path(folder, number)
        self.next_path = os.fspath(segment_path(folder, number + 1))
        flags = os.O_RDONLY if read_only else os.O_RDWR | (os.O_CREAT if create else 0)
        with explained(self.path):
            self._descriptor = fs.open(self.path, flags)
        self.offset = len(MAGIC)
        begin = os.pread(self._descriptor, len(MAGIC), 0)
        #: Whether its head is whole; if not, it was being made when its process was killed, or the machine.
        self._is_begun = begin == MAGIC
        #: Whether its name is on disk for sure: whoever made it may have been killed before that.
        self._is_named = False
        if not self._is_begun and self.size <= len(MAGIC) and MAGIC.startswith(begin.rstrip(b"\0")):
            if create:
                try:
                    self._begin()
                except StorageError:
                    self.close()
                    raise
        elif not self._is_begun:
            self.close()
            raise CorruptFileError(
                f"{self.path} is no journal of a realm.",
                path=str(self.path),
                hint="Another program wrote it; move it out of the realm's folder.",
            )

    def _begin(self) -> None:
        if os.pread(self._descriptor, len(MAGIC), 0) != MAGIC:  # and nobody has finished it meanwhile
            with explained(self.path):
                os.ftruncate(self._descriptor, 0)
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                self._fs.write(self._descriptor, MAGIC)
                self._fs.sync(self._descriptor)
                self._fs.sync_folder(self.path.parent)
            self._is_named = True
        self._is_begun = True

    @property
    def size(self) -> int:
        """Size of the file now."""
        found = os.fstat(self._descriptor)
        # Where a file that is open cannot be removed, or links are not counted, nobody can tell.
        self.may_be_removed = found.st_nlink == 0 or sys.platform == "win32"
        return found.st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def read(self) -> Iterator[Record]:
        """Read the whole records from :attr:`offset` on, moving it.

        Raises
        ------
        CorruptFileError
            If a record does not match its checksum.
        """
        end = self.size
        while self.offset + _HEAD.size <= end:
            head = os.pread(self._descriptor, _HEAD.size, self.offset)
            length, checksum, version, kind, head_checksum = _HEAD.unpack(head)
            start = self.offset + _HEAD.size
            if zlib.crc32(head[:-4]) != head_checksum or kind not in _KINDS:
                if self._was_never_written(start, end):
                    return
                raise self._damaged()
            if start + length > end:
                return
            payload = os.pread(self._descriptor, length, start)
            if len(payload) < length:
                return  # another process cut off what it could not finish
            if zlib.crc32(payload) != checksum:
                if self._was_never_written(start + length, end):
                    return
                raise self._damaged()
            self.offset = start + length
            yield Record(Kind(kind), version, payload)

    def _was_never_written(self, stop: int, end: int) -> bool:
        """Whether what begins at :attr:`offset` and goes on to ``stop`` lacks its last page, and all those after it.

        After a power failure a file may have its size already, and zeros where pages have not been written.
        """
        page = max(self.offset, (stop - 1) // _PAGE * _PAGE)
        return not any(os.pread(self._descriptor, end - page, page))

    def _damaged(self) -> CorruptFileError:
        return CorruptFileError(
            f"{self.path} is damaged at byte {self.offset}.",
            path=str(self.path),
            hint="What came before is whole: restore the file from a backup, or delete the realm and sync anew.",
        )

    def cut(self) -> None:
        """Cut off what follows the last whole record, on disk too: zeros there begin where a record does, or a page."""
        if self.size > self.offset:
            with explained(self.path):
                os.ftruncate(self._descriptor, self.offset)
                self._fs.sync(self._descriptor)

    def append(self, record: Record, *, durable: bool = True) -> None:
        """Append a record; on disk on return, unless ``durable`` is false.

        Raises
        ------
        StorageError
            If it cannot be written; nothing of it is left then.
        """
        length = len(record.payload) + len(record.body)
        if length > MAX_RECORD:
            raise StorageError(
                f"One commit of {length:,} bytes is too large for {self.path}.",
                path=str(self.path),
                hint="Split it into several transactions.",
            )
        if not self._is_begun:
            self._begin()
        if durable and self.offset == len(MAGIC) and not self._is_named:
            with explained(self.path):
                self._fs.sync_folder(self.path.parent)
            self._is_named = True
        checksum = zlib.crc32(record.body, zlib.crc32(record.payload))
        head = _HEAD.pack(length, checksum, record.version, record.kind, 0)[:-4]
        head += zlib.crc32(head).to_bytes(4, "little")
        with explained(self.path):
            os.lseek(self._descriptor, self.offset, os.SEEK_SET)
            try:
                self._fs.step("before append")
                if length < _SMALL:
                    self._fs.write(self._descriptor, head + record.payload + record.body)
                else:
                    self._fs.write(self._descriptor, head)
                    self._fs.write(self._descriptor, record.payload)
                    self._fs.write(self._descriptor, record.body)
                self._fs.step("after append")
                if durable:
                    self._fs.sync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, self.offset)
                raise
        self.offset += _HEAD.size + length
        self._fs.step("after sync")
