"""Operational transformation of two large sides: the cost grows with what conflicts, not with the sides.

Run it as a script: ``python tests/benchmarks/bench_merge.py``. Beside it stands what a plain
implementation spends before its first rule: one Python object for each instruction, grouped by the object it is on.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np

from realmframe.changes import Changeset, Instruction
from realmframe.changes.instructions import ArrayInsert, SetInsert, Update
from realmframe.merge import Timed, transform

ROWS = 100_000
ROUNDS = 5


def updates(first: int, field: str = "a", rows: int = ROWS) -> Changeset:
    """Encode and decode one update of each of ``rows`` objects."""
    made: list[Instruction] = [Update("T", k, field, (), k) for k in range(first, first + rows)]
    return Changeset.decode(Changeset.from_instructions(made).encode())


def scattered(step: int) -> Changeset:
    """Give an update of every ``step``-th object."""
    everything = updates(0)
    return Changeset.decode(everything.take(np.arange(0, ROWS, step)).encode())


def plain(left: Changeset, right: Changeset) -> int:
    """Group both sides by object, one Python object for each instruction; give the number of pairs that meet."""
    groups: dict[Any, list[Instruction]] = defaultdict(list)
    for one in right.instructions():
        groups[one.table, one.pk].append(one)  # type: ignore[union-attr]
    return sum(len(groups.get((one.table, one.pk), ())) for one in left.instructions())  # type: ignore[union-attr]


def inserts(rows: int, base: int = 0) -> Changeset:
    """Give insertions all over one list, which has some elements already."""
    made = [ArrayInsert("T", 1, "l", (k * 7919 % (base + k + 1),), k, base + k) for k in range(rows)]
    return Changeset.from_instructions(made)


def members(first: int, rows: int) -> Changeset:
    """Give insertions into one set."""
    return Changeset.from_instructions([SetInsert("T", 1, "s", (), k) for k in range(first, first + rows)])


CASES = {
    "100,000 x 100,000, nothing in common": lambda: (updates(0), updates(ROWS)),
    "100,000 x 100,000, same objects, other fields": lambda: (updates(0), updates(0, "b")),
    "100,000 x 100,000, 100 in conflict": lambda: (updates(0), updates(ROWS - 100)),
    "100,000 x 1,000 scattered, all in conflict": lambda: (updates(0), scattered(100)),
    "100,000 x 100,000, all in conflict": lambda: (updates(0), updates(0)),
    "2,000 x 2,000 into one set, nothing in common": lambda: (members(0, 2000), members(2000, 2000)),
    "300 x 300 into one list": lambda: (inserts(300), inserts(300)),
    "10,000 x 100 into one list of 100,000": lambda: (inserts(10_000, 100_000), inserts(100, 100_000)),
    "10,000 x 10,000 into one list of 100,000": lambda: (inserts(10_000, 100_000), inserts(10_000, 100_000)),
    "1 x 1, nothing in common": lambda: (updates(0, rows=1), updates(1, rows=1)),
    "1 x 1, in conflict": lambda: (updates(0, rows=1), updates(0, rows=1)),
}


def measure(work: Any) -> float:
    """Give the median time in milliseconds."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    """Print a table."""
    print(f"{'case':<50} {'transform':>12} {'plain grouping':>16}")
    for name, make in CASES.items():
        left, right = make()
        sides = [Timed(left, 1, 1)], [Timed(right, 2, 2)]
        quick = measure(lambda sides=sides: transform(*sides))
        slow = measure(lambda left=left, right=right: plain(left, right))
        print(f"{name:<50} {quick:>9.2f} ms {slow:>13.2f} ms")


if __name__ == "__main__":
    main()
