"""The journal: whole records survive whatever happens to the end of the file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.errors import CorruptFileError, ReadOnlyError, StorageError
from realmframe.store.files import FileSystem
from realmframe.store.journal import MAGIC, Kind, Record, Segment, segment_numbers

RECORDS = [Record(Kind.LOCAL, 1, b"one"), Record(Kind.META, 1, b""), Record(Kind.INTEGRATE, 2, b"x" * 100_000)]


def _written(folder: Path) -> list[int]:
    """Write the records; give the offset after each, the first one included."""
    segment = Segment(folder, 1, FileSystem(), create=True)
    ends = [segment.offset]
    for record in RECORDS:
        segment.append(record)
        ends.append(segment.offset)
    segment.close()
    return ends


def _read(folder: Path) -> list[Record]:
    segment = Segment(folder, 1, FileSystem())
    try:
        return list(segment.read())
    finally:
        segment.close()


def test_round_trip(tmp_path: Path) -> None:
    """Records come back as they were written, by a second handle too."""
    _written(tmp_path)
    assert _read(tmp_path) == RECORDS
    assert segment_numbers(tmp_path) == [1]


def test_any_torn_tail_leaves_the_whole_records(tmp_path: Path) -> None:
    """Wherever the file ends, the records before are read, and the writer goes on after them."""
    ends = _written(tmp_path)
    path = tmp_path / "journal-00000001.log"
    whole = path.read_bytes()
    cuts = [*range(ends[2] + 40), *range(ends[2] + 40, len(whole), 9_973)]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        segment = Segment(tmp_path, 1, FileSystem(), create=True)
        expected = RECORDS[: sum(e <= cut for e in ends[1:])]
        assert list(segment.read()) == expected
        segment.cut()
        segment.append(RECORDS[0])
        segment.close()
        assert _read(tmp_path) == [*expected, RECORDS[0]]


@pytest.mark.parametrize("zeros", [1, 24, 600, 5000])
def test_zeros_at_the_end_are_a_torn_tail(tmp_path: Path, zeros: int) -> None:
    """What a file system filled with zeros was never committed."""
    _written(tmp_path)
    path = tmp_path / "journal-00000001.log"
    path.write_bytes(path.read_bytes() + bytes(zeros))
    assert _read(tmp_path) == RECORDS


def test_pages_that_were_never_written_are_a_torn_tail(tmp_path: Path) -> None:
    """Where the size reached the disk and the last pages did not, the records before them are read."""
    sizes = [30, 700, 500, 10, 480, 20]
    records = [Record(Kind.LOCAL, n, bytes([n + 1]) * size) for n, size in enumerate(sizes)]
    segment = Segment(tmp_path, 1, FileSystem(), create=True)
    ends = [segment.offset]
    for record in records:
        segment.append(record, durable=False)
        ends.append(segment.offset)
    segment.close()
    path = tmp_path / "journal-00000001.log"
    whole = path.read_bytes()
    for at in range(512, len(whole), 512):
        path.write_bytes(whole[:at] + bytes(len(whole) - at))
        assert _read(tmp_path) == records[: sum(e <= at for e in ends[1:])]


@pytest.mark.parametrize("begun", [b"", MAGIC[:3], bytes(8), MAGIC[:3] + bytes(5)])
def test_a_segment_that_was_being_made(tmp_path: Path, begun: bytes) -> None:
    """Whatever a power failure left of a segment that held nothing yet, it is begun anew."""
    (tmp_path / "journal-00000001.log").write_bytes(begun)
    segment = Segment(tmp_path, 1, FileSystem(), create=True)
    assert list(segment.read()) == []
    segment.append(RECORDS[0])
    segment.close()
    assert _read(tmp_path) == RECORDS[:1]


def test_the_name_of_a_segment_is_on_disk_before_its_first_record(tmp_path: Path) -> None:
    """Also where whoever made it was killed in between; after that no commit pays for it any more."""
    done: list[str] = []

    class Listening(FileSystem):
        def sync(self, descriptor: int) -> None:
            done.append("file")
            super().sync(descriptor)

        def sync_folder(self, folder: Path) -> None:
            done.append("folder")
            super().sync_folder(folder)

    (tmp_path / "journal-00000001.log").write_bytes(MAGIC)
    segment = Segment(tmp_path, 1, Listening())
    for record in RECORDS[:2]:
        segment.append(record)
    segment.close()
    assert done == ["folder", "file", "file"]


def test_what_is_cut_off_is_gone_from_the_disk(tmp_path: Path) -> None:
    """The disk holds whole records only before anything is appended behind them: else zeros could begin in one."""
    sizes: list[int] = []

    class Listening(FileSystem):
        def sync(self, descriptor: int) -> None:
            sizes.append(os.fstat(descriptor).st_size)
            super().sync(descriptor)

    ends = _written(tmp_path)
    path = tmp_path / "journal-00000001.log"
    path.write_bytes(path.read_bytes()[: ends[1] + 10])
    segment = Segment(tmp_path, 1, Listening())
    assert list(segment.read()) == RECORDS[:1]
    segment.cut()
    segment.close()
    assert sizes == [ends[1]]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, where: int, flip: int) -> None:
    """Any changed byte of a record is damage, with the file and the offset of the record in the message."""
    folder = tmp_path_factory.mktemp("journal")
    ends = _written(folder)
    path = folder / "journal-00000001.log"
    data = bytearray(path.read_bytes())
    at = len(MAGIC) + where % (ends[3] - len(MAGIC))
    data[at] ^= flip
    path.write_bytes(data)
    begin = max(e for e in ends if e <= at)
    with pytest.raises(CorruptFileError, match=rf"journal-00000001.log is damaged at byte {begin}\.") as found:
        _read(folder)
    assert found.value.path == str(path)


def test_foreign_file(tmp_path: Path) -> None:
    """A file of another program under the journal's name is refused, and left as it is."""
    path = tmp_path / "journal-00000001.log"
    path.write_bytes(b"SQLite format 3\0")
    with pytest.raises(CorruptFileError, match="no journal of a realm"):
        Segment(tmp_path, 1, FileSystem(), create=True)
    assert path.read_bytes() == b"SQLite format 3\0"


class Failing(FileSystem):
    """Writes some bytes, then fails."""

    def __init__(self, code: int, room: int, *, at_sync: bool = False) -> None:
        self.code, self.room, self.at_sync, self.armed = code, room, at_sync, False

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Write, or fail when armed."""
        if self.armed and not self.at_sync:
            os.write(descriptor, data[: self.room])
            raise OSError(self.code, os.strerror(self.code))
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Sync, or fail when armed."""
        if self.armed and self.at_sync:
            raise OSError(self.code, os.strerror(self.code))
        super().sync(descriptor)


@pytest.mark.parametrize(
    ("code", "at_sync", "kind", "words"),
    [
        (errno.ENOSPC, False, StorageError, "disk is full"),
        (errno.EDQUOT, True, StorageError, "disk is full"),
        (errno.EROFS, False, ReadOnlyError, "cannot be written"),
        (errno.EIO, True, StorageError, "Input/output error"),
    ],
)
def test_failed_append_leaves_nothing(
    tmp_path: Path, code: int, at_sync: bool, kind: type[StorageError], words: str
) -> None:
    """A record that could not be written is cut off, and the next one takes its place."""
    fs = Failing(code, 10, at_sync=at_sync)
    segment = Segment(tmp_path, 1, fs, create=True)
    segment.append(RECORDS[0])
    fs.armed = True
    with pytest.raises(kind, match=words):
        segment.append(RECORDS[2])
    assert segment.size == segment.offset
    fs.armed = False
    segment.append(RECORDS[1])
    segment.close()
    assert _read(tmp_path) == RECORDS[:2]
