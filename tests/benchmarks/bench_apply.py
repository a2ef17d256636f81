"""Applying a million objects of seven fields to an empty realm, beside plain Python that goes by instruction.

Run it as a script: ``python tests/benchmarks/bench_apply.py``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.model import ObjectSchema, Property, PropertyType, Schema
from realmframe.store import Snapshot, apply, schema_changeset, upsert_changeset

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


def plain(changeset: Changeset) -> dict[Any, dict[str, Any]]:
    """Apply creations and updates one after another to dictionaries."""
    objects: dict[Any, dict[str, Any]] = {}
    for one in changeset.instructions():
        if isinstance(one, i.CreateObject):
            objects.setdefault(one.pk, {})
        elif isinstance(one, i.Update):
            objects[one.pk][one.field] = one.value
    return objects


def median(work: Callable[[], Any]) -> float:
    """Give the median of some runs, in seconds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print medians per instruction, and their ratio."""
    schema = Schema([ObjectSchema("A", {n: Property(n, kind) for n, kind in TYPES.items()}, "_id")])
    empty = apply(Snapshot.empty(), schema_changeset(schema)).snapshot
    small = upsert_changeset(empty, "A", records(SLICE))
    big = upsert_changeset(empty, "A", records(OBJECTS))
    assert len(plain(small)) == len(apply(empty, small).snapshot.table("A"))  # compiles the kernels, too
    ours, theirs = median(lambda: apply(empty, big)), median(lambda: plain(small))
    print(f"apply: {OBJECTS:,} objects, {len(big):,} instructions: {ours:.2f} s, {len(big) / ours:,.0f} a second")
    print(f"plain: {SLICE:,} objects, {len(small):,} instructions: {theirs:.2f} s, {len(small) / theirs:,.0f} a second")
    print(f"ratio: {(theirs / len(small)) / (ours / len(big)):.1f} times as fast per instruction")
    full = apply(empty, big).snapshot
    one = Changeset.from_instructions([i.Update("A", OBJECTS // 2, "i", (), 1)])
    print(f"one update in {OBJECTS:,} objects: {median(lambda: apply(full, one)) * 1000:.2f} ms")


if __name__ == "__main__":
    main()
