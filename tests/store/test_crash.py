"""Processes that are killed: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.model import PropertyType
from realmframe.store import Owner, RealmStore, Snapshot, apply, journal, upsert_changeset

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]

#: Commits, or integrates, numbers one after another; prints each once it is durable. May end itself at a named step.
WRITER = """
import os, signal, sys
from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.model import PropertyType
from realmframe.store import Entry, FileSystem, Owner, Progress, RealmStore

path, kind, step, skip = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

class Killing(FileSystem):
    seen = 0
    def step(self, name):
        if name == step:
            self.seen += 1
            if self.seen > skip:
                os.kill(os.getpid(), signal.SIGKILL)
    def write(self, descriptor, data):
        if step == "half a write":
            self.seen += 1
            if self.seen > skip:
                os.write(descriptor, memoryview(data).cast("B")[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        super().write(descriptor, data)

fs = Killing()
store = RealmStore.open(path, owner=Owner("app", "ann"), fs=fs)
if "C" not in store.snapshot.schema:
    store.commit(Changeset.from_instructions([ins.AddTable("C", pk_field="_id", pk_type=PropertyType.INT),
        ins.AddColumn("C", "n", PropertyType.INT)]), timestamp=0)
n = len(store.snapshot.table("C"))
while True:
    made = Changeset.from_instructions([ins.CreateObject("C", n), ins.AddInteger("C", n, "n", (), 1)])
    if kind == "commit":
        store.commit(made, timestamp=n)
    else:
        at = store.snapshot.version
        store.integrate([Entry(n + 1, at, n, 7, made.encode())], Progress(n + 1, at, n + 1, 1, 0, 0))
    print(n, flush=True)
    if n % 5 == 4:
        store.checkpoint()
    n += 1
"""


def _run(path: Path, kind: str, step: str = "-", skip: int = 0, *, kill_after: float | None = None) -> int:
    """Run a writer until it is dead; give the last number that it acknowledged."""
    command = [sys.executable, "-c", WRITER, str(path), kind, step, str(skip)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if kill_after is not None:
            first = process.stdout.readline()
            assert first, process.stderr.read()
            time.sleep(kill_after)
            os.kill(process.pid, signal.SIGKILL)
            out = first + process.stdout.read()
        else:
            out = process.stdout.read()
        assert process.wait(60) == -signal.SIGKILL, process.stderr.read()
    lines = out.splitlines()
    return int(lines[-1]) if lines else -1


def _check(path: Path, acknowledged: int, kind: str) -> None:
    with RealmStore.open(path, owner=Owner("app", "ann")) as store:
        snapshot = store.snapshot
        count = len(snapshot.table("C")) if "C" in snapshot.tables else 0
        # One more than was acknowledged may have become durable before the process could say so.
        assert acknowledged + 1 <= count <= acknowledged + 2
        if not count:
            return
        table = snapshot.table("C")
        assert table.keys().to_pylist() == list(range(count))
        assert table.column("n").to_pylist() == [1] * count
        assert table.find(list(range(count))).tolist() == list(range(count))
        assert snapshot.version == count + 1
        if kind == "commit":
            assert [p.version for p in store.pending()] == list(range(1, count + 2))
        else:
            assert store.progress.download_server_version == count
        assert store.owner == Owner("app", "ann")


STEPS = [
    "before append",
    "after append",
    "after sync",
    "journal rotated",
    "files written",
    "before rename",
    "manifest written",
    "half a write",
]


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(tmp_path: Path, step: str) -> None:
    """Killed at any named step, twice in a row, the realm opens with all that was acknowledged."""
    path = tmp_path / "a.realm"
    for kind, skip in (("commit", 9 if "write" in step or "append" in step or "sync" in step else 0), ("commit", 2)):
        acknowledged = _run(path, kind, step, skip)
        if acknowledged >= 0:
            _check(path, acknowledged, kind)


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 5])
def test_killed_while_it_is_made(tmp_path: Path, skip: int) -> None:
    """A realm whose maker was killed at any write is made anew, with its owner."""
    path = tmp_path / "a.realm"
    _run(path, "commit", "half a write", skip)
    with RealmStore.open(path, owner=Owner("app", "ann")) as store:
        assert store.owner == Owner("app", "ann")


@pytest.mark.parametrize("kind", ["commit", "integrate"])
def test_killed_at_random(tmp_path: Path, kind: str) -> None:
    """Killed at random moments again and again, one realm goes on from where it was."""
    path, chance = tmp_path / "a.realm", random.Random(kind)
    for _ in range(4):
        _check(path, _run(path, kind, kill_after=chance.uniform(0.0, 0.25)), kind)


#: Commits, or integrates, one changeset of some megabytes; is killed at a step, or after a part of the record's bytes.
BIG_WRITER = """
import os, signal, sys
from pathlib import Path
from realmframe.changes import Changeset
from realmframe.store import Entry, FileSystem, Owner, Progress, RealmStore

path, source, kind, step, part = *sys.argv[1:5], float(sys.argv[5])
armed = False

class Killing(FileSystem):
    def step(self, name):
        if armed and name == step:
            os.kill(os.getpid(), signal.SIGKILL)
    def write(self, descriptor, data):
        if armed and step == "part" and len(data) > 1_000_000:
            super().write(descriptor, memoryview(data)[: int(part * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(descriptor, data)

data = Path(source).read_bytes()
with RealmStore.open(path, owner=Owner("app", "ann"), fs=Killing()) as store:
    armed = True
    if kind == "commit":
        store.commit(Changeset.decode(data), timestamp=1)
    else:
        store.integrate([Entry(5, 0, 1, 7, data)], Progress(5, 0, 5, 1, 0, 0))
    print("done", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
BIG_ROWS = 60_000


def _big() -> Changeset:
    made = [ins.AddTable("B", pk_field="_id", pk_type=PropertyType.INT)]
    empty = apply(Snapshot.empty(), Changeset.from_instructions([*made, *BIG_COLUMNS])).snapshot
    texts = pa.array([f"text {n % 50}" for n in range(BIG_ROWS)])
    numbers = pa.array(range(BIG_ROWS))
    return upsert_changeset(empty, "B", pa.table({"_id": numbers, "n": numbers, "s": texts}))


BIG_COLUMNS: list[ins.Instruction] = [
    ins.AddColumn("B", "n", PropertyType.INT),
    ins.AddColumn("B", "s", PropertyType.STRING),
]
#: Way, step, part of the bytes that are written, whether the objects are there afterwards.
BIG_POINTS = [
    ("commit", "before append", 0.0, False),
    ("commit", "part", 0.0, False),
    ("commit", "part", 0.5, False),
    ("commit", "part", 0.99999, False),
    ("commit", "after append", 1.0, True),
    ("commit", "after sync", 1.0, True),
    ("integrate", "part", 0.3, False),
    ("integrate", "-", 1.0, True),
]


def test_killed_amid_a_large_commit(tmp_path: Path) -> None:
    """Wherever a commit of many objects is killed, all of them are there or none, and the next attempt succeeds."""
    made = _big()
    source = tmp_path / "changeset.bin"
    source.write_bytes(made.encode())
    assert source.stat().st_size > 2_000_000
    for number, (kind, step, part, there) in enumerate(BIG_POINTS):
        path = tmp_path / f"{number}.realm"
        with RealmStore.open(path, owner=Owner("app", "ann")) as store:
            schema = [ins.AddTable("B", pk_field="_id", pk_type=PropertyType.INT), *BIG_COLUMNS]
            store.commit(Changeset.from_instructions(schema), timestamp=0)
        command = [sys.executable, "-c", BIG_WRITER, str(path), str(source), kind, step, str(part)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert ended.stdout == ("done\n" if step == "-" else "")
        with RealmStore.open(path, owner=Owner("app", "ann")) as store:
            table = store.snapshot.table("B")
            assert len(table) == (BIG_ROWS if there else 0), (kind, step, part)
            assert len(store.pending()) == 1 + (there and kind == "commit")
            assert store.progress.download_server_version == (5 if there and kind == "integrate" else 0)
            if not there:
                table = store.commit(made, timestamp=2).table("B")
            assert table.column("n").combine_chunks().to_pylist() == list(range(BIG_ROWS))
            assert table.column("s")[BIG_ROWS - 1].as_py() == f"text {(BIG_ROWS - 1) % 50}"


@pytest.mark.parametrize("size", [0, 3, 8])
def test_segment_that_another_process_began_and_did_not_finish(tmp_path, size):
    """A process that lives appends to it only after its head is whole: nothing that follows could be read otherwise."""
    path = tmp_path / "r.realm"
    schema = [ins.AddTable("C", pk_field="_id", pk_type=PropertyType.INT)]
    with RealmStore.open(path) as store:
        store.commit(Changeset.from_instructions(schema), timestamp=0)
        (last,) = journal.segment_numbers(path)
        journal.segment_path(path, last + 1).write_bytes(journal.MAGIC[:size])
        for key in range(2):
            store.commit(Changeset.from_instructions([ins.CreateObject("C", key)]), timestamp=1)
        with RealmStore.open(path) as other:
            other.commit(Changeset.from_instructions([ins.CreateObject("C", 2)]), timestamp=2)
    with RealmStore.open(path) as again:
        assert list(again.snapshot.values("C", "_id")) == [0, 1, 2]
