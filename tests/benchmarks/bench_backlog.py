"""Long backlogs: a client that was offline uploads, while the log has grown; and downloads come in meanwhile.

Run it as ``python tests/benchmarks/bench_backlog.py [CHANGESETS] [ENTRIES]`` (200 and 1,000 by default). The server's
part is from the bytes of an UPLOAD to the commit, with 50 changesets to a message and with one; the client's is one
DOWNLOAD of one entry that meets a backlog of so many entries, without the disk. Beside it stands what it takes to merge
each changeset with the whole other side anew, in the same run and on the same data. Times are the processor's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from realmframe.changes import Changeset, Instruction, concat
from realmframe.changes import instructions as i
from realmframe.merge import Meeting, Timed, transform
from realmframe.model import Collection, PropertyType
from realmframe.server.database import Database
from realmframe.server.entries import ClientFile
from realmframe.server.history import History
from realmframe.server.windows import Windows
from realmframe.store import Entry, Owner, Progress, Snapshot, merging, state
from realmframe.store.pending import Changes
from realmframe.wire import UploadEntry

OBJECTS = 5_000
#: What is in the list at first.
ITEMS = 10
SCHEMA: list[Instruction] = [
    i.AddTable("T", pk_field="_id", pk_type=PropertyType.INT),
    i.AddColumn("T", "a", PropertyType.INT),
    i.AddColumn("T", "s", PropertyType.STRING, nullable=True),
    i.AddColumn("T", "l", PropertyType.INT, collection=Collection.LIST),
]


class Anew(Windows):
    """Merges each upload with all entries since its base."""

    def merge(self, file: ClientFile, base: int, upload: Timed, schema: Any) -> Meeting:
        """Merge."""
        others = [e for e in self._since(base) if e.origin != file.ident and len(e.data)]
        theirs = [file.reciprocals.get(e.version, e.changeset) for e in others]
        mine, made = transform([upload], [Timed(c, e.timestamp, e.origin) for c, e in zip(theirs, others, strict=True)])
        self._note(file, {e.version: new for e, old, new in zip(others, theirs, made, strict=True) if new is not old})
        return Meeting(mine)

    def accept(self, file: ClientFile, meeting: Meeting) -> None:
        """Nothing is left to do."""


def plain(key: int, _: int) -> list[Instruction]:
    """Write a property."""
    return [i.Update("T", key % OBJECTS, "a", (), key)]


def one_list(key: int, count: int) -> list[Instruction]:
    """Insert into one list."""
    return [i.ArrayInsert("T", 0, "l", (key * 7 % (ITEMS + count + 1),), key, ITEMS + count)]


def mixed(key: int, count: int) -> list[Instruction]:
    """Insert into a list now and then, create objects, write properties of which one in ten meets the other side's."""
    if key % 5 == 0:
        return one_list(key, count // 5)
    if key % 5 == 1:
        return [i.CreateObject("T", OBJECTS + key), i.Update("T", OBJECTS + key, "a", (), key)]
    if key % 5 == 2:
        return [i.Update("T", count % 100, "s", (), str(key))]
    return plain(key, count)


KINDS = {"properties": plain, "one list": one_list, "mixed": mixed}


def content() -> list[Instruction]:
    """Make what is there at first."""
    objects = [i.CreateObject("T", key) for key in range(OBJECTS)]
    return [*SCHEMA, *objects, *(one for n in range(ITEMS) for one in one_list(n, n - ITEMS))]


class Scene:
    """A server with a log, and a client that was away since its beginning."""

    def __init__(self, folder: Path, kind: type[Windows], make: Callable[[int, int], list[Instruction]], log: int):
        self.database = Database(folder)
        self.history = History(self.database, "app", "flx")
        files = self.history.files
        self.history._windows = kind(self.history.since, files.note_reciprocals, self.history.passing)
        self.there, self.away = files.new("there"), files.new("away")
        self.make = make
        self._upload(self.there, 1, content())
        self.base, self.sent = self.history.version, 0
        for n in range(log):
            self._upload(self.there, self.history.version, make(n, n))
        self.commit()

    def _upload(self, file: ClientFile, base: int, made: list[Instruction]) -> None:
        version = file.client_version + 1
        entry = UploadEntry(version, base, version + 1_000, 0, Changeset.from_instructions(made).encode())
        self.history.integrate(file, entry)

    def message(self, count: int) -> float:
        """Upload one message; give the milliseconds for a changeset."""
        made = [self.make(OBJECTS // 2 + n, n) for n in range(self.sent, self.sent + count)]
        self.sent += count
        start = time.thread_time()
        for one in made:
            self._upload(self.away, self.base, one)
        self.commit()
        return 1000 * (time.thread_time() - start) / count

    def commit(self) -> None:
        """Write the log."""
        with self.database.transaction() as sql:
            self.history.write(sql)


def upload(kind: type[Windows], make: Any, log: int, uploads: int, size: int) -> tuple[float, float, list[bytes]]:
    """Give the milliseconds for a changeset, of the first message and the median of those after it; and the log."""
    with tempfile.TemporaryDirectory() as name:
        scene = Scene(Path(name), kind, make, log)
        first, *others = [scene.message(size) for _ in range(max(4, uploads // size))]
        return first, statistics.median(others), [e.data for e in scene.history.since(1)]


def merged_anew(have: state.State, entries: Sequence[Entry]) -> tuple[Changeset, Changes]:
    """Merge a download with the whole backlog."""
    left = [Timed(Changeset.decode(e.data), e.timestamp, e.file_ident) for e in entries]
    unknown = have.pending.after(entries[0].client_version)
    mine, others = transform(left, [Timed(p.reciprocal, p.timestamp, 3) for p in unknown])
    pairs = zip(unknown, others, strict=True)
    return concat(mine), have.pending.replaced(
        [p if new is p.reciprocal else p.with_reciprocal(new) for p, new in pairs]
    )


def download(merged: Any, make: Any, backlog: int, downloads: int) -> tuple[float, float, bytes]:
    """Give the milliseconds for the first download, and the median of those after it; and what is pending."""
    file, owner = state.ClientFile(3, 5), Owner("app", "user")
    have = state.State(Snapshot.empty(), file=file, owner=owner, pending=Changes())
    times = []
    with mock.patch.object(state, "merged", merged):
        for version in range(downloads + 1):
            made = make(OBJECTS // 2 + version, version - 1) if version else content()
            entry = Entry(version + 1, 0, 5, 2, Changeset.from_instructions(made).encode())
            record = state.integrate_record(have, [entry], Progress(version + 1, 0, version + 1, 7, 0), None)
            start = time.thread_time()
            have, _ = state.advance(have, record)
            times.append(1000 * (time.thread_time() - start))
            for n in range(0 if version else backlog):
                data = Changeset.from_instructions(make(n, n)).encode()
                have, _ = state.advance(have, state.local_record(have, data, 10 + n))
    return times[1], statistics.median(times[2:]), have.pending.to_bytes()


def main() -> None:
    """Print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    log = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    upload(Windows, one_list, 100, 10, 5)  # loads the compiled kernels
    print(f"{log:,} entries; milliseconds of processor time for a changeset, at first and then")
    print(f"{'':<34} {'prepared':>18} {'anew':>18} {'ratio':>6}")
    for name, make in KINDS.items():
        for size in (50, 1):
            quick = upload(Windows, make, log, count if size > 1 else count // 10, size)
            slow = upload(Anew, make, log, 4 * size if size > 1 else 6, size)
            assert all(a == b for a, b in zip(quick[2], slow[2], strict=False))
            show(f"uploads, {name}, {size} to a message", quick, slow)
        found = [download(merged, make, log, 20) for merged in (merging.merged, merged_anew)]
        assert found[0][2] == found[1][2]
        show(f"downloads, {name}", *found)


def show(what: str, quick: Any, slow: Any) -> None:
    """Print a row."""
    times = f"{quick[0]:>9.2f} {quick[1]:>8.2f} {slow[0]:>9.1f} {slow[1]:>8.1f} {slow[1] / quick[1]:>6.1f}"
    print(f"{what:<34} {times}", flush=True)


if __name__ == "__main__":
    main()
