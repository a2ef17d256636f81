"""New objects with lists, sets and dictionaries, beside objects of plain properties and plain Python by instruction.

Run it as a script: ``python tests/benchmarks/bench_collections.py``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.model import Collection, PropertyType
from realmframe.store import Entry, Owner, Progress, RealmStore, Snapshot, apply

OBJECTS = 20_000
ELEMENTS = 3
ROUNDS = 5
P = PropertyType
SCHEMA: list[i.Instruction] = [
    i.AddTable("A", pk_field="_id", pk_type=P.INT),
    i.AddColumn("A", "n", P.INT),
    i.AddColumn("A", "s", P.STRING),
    *(i.AddColumn("A", f"plain{n}", P.STRING) for n in range(ELEMENTS)),
    i.AddColumn("A", "list", P.STRING, collection=Collection.LIST),
    i.AddColumn("A", "set", P.INT, collection=Collection.SET),
    i.AddColumn("A", "dictionary", P.DOUBLE, collection=Collection.DICTIONARY, key_type=P.STRING),
]


def filled(kind: str, count: int) -> Changeset:
    """Create objects with two plain properties and some elements, as they come off the wire."""
    made: list[i.Instruction] = []
    for k in range(count):
        made += [i.CreateObject("A", k), i.Update("A", k, "n", (), k), i.Update("A", k, "s", (), f"object {k}")]
        for n in range(ELEMENTS):
            if kind == "list":
                made.append(i.ArrayInsert("A", k, "list", (n,), f"tag {n}", n))
            elif kind == "set":
                made.append(i.SetInsert("A", k, "set", (), 7 * n))
            elif kind == "dictionary":
                made.append(i.Update("A", k, "dictionary", (f"key {n}",), n / 2))
            else:
                made.append(i.Update("A", k, f"plain{n}", (), f"tag {n}"))
    return Changeset.decode(Changeset.from_instructions(made).encode())


def plain(changeset: Changeset) -> dict[Any, dict[str, Any]]:
    """Apply to dictionaries, one instruction after another."""
    objects: dict[Any, dict[str, Any]] = {}
    for one in changeset.instructions():
        if isinstance(one, i.CreateObject):
            objects[one.pk] = {"list": [], "set": set(), "dictionary": {}}
        elif isinstance(one, i.ArrayInsert):
            objects[one.pk][one.field].insert(one.path[0], one.value)
        elif isinstance(one, i.SetInsert):
            objects[one.pk][one.field].add(one.value)
        elif isinstance(one, i.Update) and one.path:
            objects[one.pk][one.field][one.path[0]] = one.value
        elif isinstance(one, i.Update):
            objects[one.pk][one.field] = one.value
    return objects


def used(work: Callable[[], Any]) -> float:
    """Give the median of processor seconds."""
    spent = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def integrated(data: bytes, folder: Path, name: str) -> None:
    """Take a download into a new realm, durably."""
    with RealmStore.open(folder / name, owner=Owner("app", "user")) as store:
        store.commit(Changeset.from_instructions(SCHEMA), timestamp=0)
        store.integrate([Entry(1, 1, 0, 9, data)], Progress(1, 0, 1))


def main(count: int = OBJECTS) -> None:
    """Measure and print medians per instruction, and ratios."""
    empty = apply(Snapshot.empty(), Changeset.from_instructions(SCHEMA)).snapshot
    scalars = 0.0
    for kind in ("plain", "list", "set", "dictionary"):
        changeset = filled(kind, count)
        apply(empty, filled(kind, 10))  # compiles the kernels
        ours = used(lambda changeset=changeset: apply(empty, changeset).snapshot.table("A").chunks[0].columns)
        with tempfile.TemporaryDirectory(dir=".") as name:
            numbers, data = iter(range(ROUNDS)), changeset.encode()
            whole = used(lambda d=data, n=numbers, f=name: integrated(d, Path(f), f"{next(n)}.realm"))
        theirs = used(lambda changeset=changeset: plain(changeset))
        scalars = scalars or ours
        print(f"{kind:<11} {len(changeset):>9,} instructions: apply {ours / len(changeset) * 1e9:6.0f} ns each", end="")
        print(f" ({ours / scalars:.1f} times plain properties, plain Python {theirs / ours:.0f} times as long)", end="")
        print(f", integrate {whole * 1000:.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else OBJECTS)
