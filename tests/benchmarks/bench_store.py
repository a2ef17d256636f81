"""Benchmark of a realm's files: durable commits, opening, a bootstrap; beside SQLite on the same disk.

Run it as ``python tests/benchmarks/bench_store.py [ROWS]`` (1,000,000 by default).
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.model import PropertyType
from realmframe.store import Entry, Owner, Progress, RealmStore

COMMITS = 2_000
BATCH = 10_000
OPEN = """
import sys, time, resource
from realmframe.store import RealmStore
import realmframe.store.checkpoint
base = int(open('/proc/self/statm').read().split()[1]) * 4096
start = time.perf_counter()
store = RealmStore.open(sys.argv[1])
rows = len(store.snapshot.table("C"))
spent = time.perf_counter() - start
grown = int(open('/proc/self/statm').read().split()[1]) * 4096 - base
print(f"open to len() of {rows:,} rows: {spent * 1e3:.1f} ms, {grown / 1e6:.0f} MB resident beyond imports")
"""


def _schema() -> Changeset:
    columns = [ins.AddColumn("C", name, PropertyType.INT) for name in "abcde"]
    return Changeset.from_instructions([ins.AddTable("C", pk_field="_id", pk_type=PropertyType.INT), *columns])


def _objects(first: int, count: int) -> Changeset:
    rows: list[ins.Instruction] = []
    for key in range(first, first + count):
        rows.append(ins.CreateObject("C", key))
        rows += [ins.Update("C", key, name, (), key) for name in "abcde"]
    return Changeset.from_instructions(rows)


def commits(folder: Path) -> None:
    """Measure durable one-object commits, and SQLite's."""
    with RealmStore.open(folder / "c.realm", owner=Owner("app", "user")) as store:
        store.commit(_schema(), timestamp=0)
        changes = [_objects(n, 1) for n in range(COMMITS + 50)]
        for change in changes[:50]:
            store.commit(change, timestamp=0)
        start, used = time.perf_counter(), time.process_time()
        for change in changes[50:]:
            store.commit(change, timestamp=0)
        rate = COMMITS / (time.perf_counter() - start)
        used = (time.process_time() - used) / COMMITS
    database = sqlite3.connect(folder / "c.sqlite", isolation_level=None)
    database.executescript(
        "pragma journal_mode=wal; pragma synchronous=full; create table C (id integer primary key, a)"
    )
    start = time.perf_counter()
    for n in range(COMMITS):
        database.execute("insert into C values (?, ?)", (n, n))
    other = COMMITS / (time.perf_counter() - start)
    database.close()
    print(f"durable one-object commits: {rate:,.0f}/s, processor time {used * 1e6:.0f} us each")
    print(f"beside: fdatasync alone {_syncs(folder):,.0f}/s; SQLite WAL, synchronous=FULL: {other:,.0f}/s")


def _syncs(folder: Path) -> float:
    """Measure how often a second a growing file can be on disk, with nothing else to do."""
    with (folder / "sync.bin").open("wb", buffering=0) as file:
        start = time.perf_counter()
        for _ in range(COMMITS // 4):
            file.write(bytes(160))
            os.fdatasync(file.fileno())
        return COMMITS / 4 / (time.perf_counter() - start)


def bootstrap(folder: Path, rows: int) -> None:
    """Measure a bootstrap, its checkpoint, and the opening of the realm by a fresh process."""
    path = folder / "b.realm"
    entries = [Entry(1, 1, 0, 9, _schema().encode())]
    entries += [Entry(1, 1, 0, 9, _objects(n, BATCH).encode()) for n in range(0, rows, BATCH)]
    size = sum(len(e.data) for e in entries)
    with RealmStore.open(path, owner=Owner("app", "user")) as store:
        start = time.perf_counter()
        store.integrate(entries, Progress(1, 0, 1))
        spent = time.perf_counter() - start
        print(f"bootstrap of {rows:,} objects, {size / 1e6:.0f} MB: {spent:.2f} s committed, {rows / spent:,.0f}/s")
        start = time.perf_counter()
        store.checkpoint()
        print(f"checkpoint: {time.perf_counter() - start:.2f} s")
    subprocess.run([sys.executable, "-c", OPEN, str(path)], check=True, timeout=120)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=".") as name:
        commits(Path(name))
        bootstrap(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
