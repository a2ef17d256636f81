"""The journal: an append-only file of records, one for each commit.

A segment begins with a magic number. A record is its length, a checksum, a kind, the realm's version after it, and a
payload. A record whose bytes end early, at the end of the last segment, was never committed: the writer cuts it off,
readers stop before it. A record that is there and does not match its checksum is damage.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from realmframe.errors import CorruptFileError
from realmframe.store.files import FileSystem, explained

MAGIC: Final = b"RFJOURN1"
_HEAD: Final = struct.Struct("<IIB7xQ")
_NAME: Final = re.compile(r"journal-(\d{8})\.log")
#: No record is longer: a length beyond it is damage, not data.
MAX_RECORD: Final = 0xF0000000


class Kind(IntEnum):
    """What a record holds."""

    LOCAL = 1
    INTEGRATE = 2
    META = 3


_KINDS: Final = frozenset(int(k) for k in Kind)


@dataclass(frozen=True, slots=True)
class Record:
    """One record."""

    kind: Kind
    version: int
    payload: bytes


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
    offset : int
        Where the next record to read, or to append, begins.
    """

    def __init__(self, folder: Path, number: int, fs: FileSystem, *, read_only: bool = False) -> None:
        self.number, self._fs = number, fs
        self.path = segment_path(folder, number)
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        with explained(self.path):
            self._descriptor = os.open(self.path, flags, 0o600)
        self.offset = len(MAGIC)
        size = self.size
        if size == 0 and not read_only:
            with explained(self.path):
                fs.write(self._descriptor, MAGIC)
                fs.sync(self._descriptor)
        elif size >= len(MAGIC) and os.pread(self._descriptor, len(MAGIC), 0) != MAGIC:
            self.close()
            raise CorruptFileError(
                f"{self.path} is no journal of a realm.",
                path=str(self.path),
                hint="Another program wrote it; move it out of the realm's folder.",
            )

    @property
    def size(self) -> int:
        """Size of the file now."""
        return os.fstat(self._descriptor).st_size

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
            length, checksum, kind, version = _HEAD.unpack(head)
            start = self.offset + _HEAD.size
            if length <= MAX_RECORD and start + length > end:
                return
            payload = os.pread(self._descriptor, length, start) if length <= MAX_RECORD else b""
            if zlib.crc32(payload, zlib.crc32(head[8:])) != checksum or kind not in _KINDS:
                if not any(os.pread(self._descriptor, end - self.offset, self.offset)):
                    return  # a file system that grew the file before a crash leaves zeros
                raise CorruptFileError(
                    f"{self.path} is damaged at byte {self.offset}.",
                    path=str(self.path),
                    hint="What came before is whole. Restore it from a backup, or delete the realm and sync anew.",
                )
            self.offset = start + length
            yield Record(Kind(kind), version, payload)

    def cut(self) -> None:
        """Cut off what follows the last whole record."""
        if self.size > self.offset:
            with explained(self.path):
                os.ftruncate(self._descriptor, self.offset)

    def append(self, record: Record, *, durable: bool = True) -> None:
        """Append a record; on disk on return, unless ``durable`` is false.

        Raises
        ------
        StorageError
            If it cannot be written; nothing of it is left then.
        """
        tail = _HEAD.pack(len(record.payload), 0, record.kind, record.version)[8:]
        checksum = zlib.crc32(record.payload, zlib.crc32(tail))
        head = _HEAD.pack(len(record.payload), checksum, record.kind, record.version)
        with explained(self.path):
            os.lseek(self._descriptor, self.offset, os.SEEK_SET)
            try:
                self._fs.step("before append")
                self._fs.write(self._descriptor, head + record.payload)
                self._fs.step("after append")
                if durable:
                    self._fs.sync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, self.offset)
                raise
        self.offset += _HEAD.size + len(record.payload)
        self._fs.step("after sync")
