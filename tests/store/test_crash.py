"""Processes that are killed: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realmframe.store import Owner, RealmStore

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
