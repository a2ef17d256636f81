"""A million objects of seven fields, applied to an empty realm and committed, beside plain Python by instruction.

Run it as a script: ``python tests/benchmarks/bench_apply.py``.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.model import ObjectSchema, Property, PropertyType, Schema
from realmframe.store import Entry, Owner, Progress, RealmStore, Snapshot, apply, schema_changeset, upsert_changeset

OBJECTS = 1_000_000
SLICE = 20_000
ROUNDS = 3
TYPES = {
    "_id": PropertyType.INT,
    "i": PropertyType.INT,
    "j": PropertyType.INT,
    "d": PropertyType.DOUBLE,
    "e": PropertyType.DOUBLE,
    "b": PropertyType.BOOL,
    "s": PropertyType.STRING,
    "t": PropertyType.STRING,
}
SCHEMA = Schema([ObjectSchema("A", {n: Property(n, kind) for n, kind in TYPES.items()}, "_id")])


def records(count: int) -> pa.Table:
    """Make objects."""
    random = np.random.default_rng(7)
    texts = pa.array(["Alice", "bob", "Carol", "Zoë"])
    return pa.table(
        {
            "_id": pa.array(np.arange(count)),
            "i": pa.array(random.integers(0, 1 << 40, count)),
            "j": pa.array(random.integers(0, 100, count)),
            "d": pa.array(random.random(count)),
            "e": pa.array(random.random(count)),
            "b": pa.array(random.random(count) < 0.5),
            "s": texts.take(pa.array(random.integers(0, 4, count))),
            "t": texts.take(pa.array(random.integers(0, 4, count))),
        }
    )


def by_object(changeset: Changeset) -> Changeset:
    """Order a changeset by object, as servers send it; it comes ordered by property."""
    return changeset.take(np.lexsort([changeset.op != 2, changeset.key_lo]))


def plain(changeset: Changeset) -> dict[Any, dict[str, Any]]:
    """Apply creations and updates one after another to dictionaries."""
    objects: dict[Any, dict[str, Any]] = {}
    for one in changeset.instructions():
        if isinstance(one, i.CreateObject):
            objects.setdefault(one.pk, {})
        elif isinstance(one, i.Update):
            objects[one.pk][one.field] = one.value
    return objects


def plain_committed(changeset: Changeset, path: Path) -> None:
    """Apply to dictionaries, and have the changeset's bytes on disk."""
    data = changeset.encode()
    plain(Changeset.decode(data))
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fdatasync(file.fileno())


def committed(changeset: Changeset, folder: Path, way: str) -> tuple[float, float]:
    """Commit to a new realm, durably; give seconds and seconds of processor time."""
    path = folder / "big.realm"
    data = changeset.encode() if way == "integrate" else b""
    with RealmStore.open(path, owner=Owner("app", "user")) as store:
        store.commit(schema_changeset(SCHEMA), timestamp=0)
        start, used = time.perf_counter(), time.process_time()
        if way == "integrate":
            store.integrate([Entry(1, 1, 0, 9, data)], Progress(1, 0, 1))
        else:
            store.commit(changeset, timestamp=0)
        spent = time.perf_counter() - start, time.process_time() - used
        assert len(store.snapshot.table("A")) == OBJECTS
    shutil.rmtree(path)
    return spent


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Give seconds and seconds of processor time."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def medians(work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Give the medians of some runs."""
    runs = [work() for _ in range(ROUNDS)]
    return statistics.median(r[0] for r in runs), statistics.median(r[1] for r in runs)


def report(name: str, changeset: Changeset, spent: tuple[float, float]) -> float:
    """Print a line; give the processor time of an instruction, which other work on the machine changes least."""
    size, (wall, used) = len(changeset), spent
    print(f"{name:<34} {size:>9,} instructions: {wall:6.3f} s, {size / wall / 1e6:6.2f} M/s", end="")
    print(f"  (processor {used:6.3f} s, {size / used / 1e6:6.2f} M/s)")
    return used / size


def main() -> None:
    """Measure and print medians, and ratios per instruction."""
    empty = apply(Snapshot.empty(), schema_changeset(SCHEMA)).snapshot
    small = upsert_changeset(empty, "A", records(SLICE))
    big = upsert_changeset(empty, "A", records(OBJECTS))
    mixed = by_object(big)
    for one in (small, by_object(small)):  # compiles the kernels, too
        assert len(plain(one)) == len(apply(empty, one).snapshot.table("A"))
    ours = report("apply, by property", big, medians(lambda: timed(lambda: apply(empty, big))))
    report("apply, by object", mixed, medians(lambda: timed(lambda: apply(empty, mixed))))
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        durable = report("commit (durable), by property", big, medians(lambda: committed(big, folder, "commit")))
        report("commit (durable), by object", mixed, medians(lambda: committed(mixed, folder, "commit")))
        report("integrate (durable), by object", mixed, medians(lambda: committed(mixed, folder, "integrate")))
        theirs = report("plain Python", small, medians(lambda: timed(lambda: plain(small))))
        disk = medians(lambda: timed(lambda: plain_committed(small, folder / "plain.bin")))
        slow = report("plain Python (durable)", small, disk)
    print(f"times as fast as plain Python, by processor time: apply {theirs / ours:.0f}, commit {slow / durable:.0f}")
    full = apply(empty, big).snapshot
    one = Changeset.from_instructions([i.Update("A", OBJECTS // 2, "i", (), 1)])
    print(f"one update in {OBJECTS:,} objects: {medians(lambda: timed(lambda: apply(full, one)))[0] * 1000:.2f} ms")


if __name__ == "__main__":
    main()
