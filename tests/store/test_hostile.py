"""Changesets that decode, but that no client makes: an error of its kind, nothing applied, and no state that breaks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from realmframe import store
from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.conformance.vectors import read_lines
from realmframe.errors import ApplyError, BadChangesetError, ChangesetError, MergeError
from realmframe.merge import Timed, transform
from realmframe.model import ClassKind, Collection, Link, Marker, PayloadType, PropertyType
from realmframe.store.nested import MAX_DEPTH
from tests.changes.test_mutations import mutated
from tests.plain import content

VECTORS = Path(__file__).parents[1] / "data" / "vectors"
T = i.AddTable("T", pk_field="_id", pk_type=PropertyType.INT)
E = i.AddTable("E", ClassKind.EMBEDDED)
Y = i.AddTable("Y", ClassKind.ASYMMETRIC, "_id", PropertyType.INT)
MIXED = i.AddColumn("T", "m", PropertyType.MIXED, True)
LINK = PropertyType.OBJECT


def decoded(instructions: Any) -> Changeset:
    """Make a changeset as it comes off the wire."""
    return Changeset.decode(Changeset.from_instructions(instructions).encode())


REFUSED: dict[str, list[Any]] = {
    **{f"a property of type {kind.name}": [T, i.AddColumn("T", "f", kind)] for kind in PayloadType if kind < 0},  # type: ignore[arg-type]
    "a set of embedded objects": [T, E, i.AddColumn("T", "f", LINK, False, Collection.SET, "E")],
    "a link to asymmetric objects": [T, Y, i.AddColumn("T", "f", LINK, True, link_target="Y")],
    "a Mixed link to an asymmetric object": [
        T,
        Y,
        MIXED,
        i.CreateObject("T", 1),
        i.Update("T", 1, "m", (), Link("Y", 1)),
    ],
    "a property with a long name": [T, i.AddColumn("T", "f" * 64, PropertyType.INT)],
    "a primary key with a long name": [i.AddTable("T", pk_field="f" * 64, pk_type=PropertyType.INT)],
    "integers as keys of a dictionary": [
        T,
        i.AddColumn("T", "f", PropertyType.INT, False, Collection.DICTIONARY, None, PropertyType.INT),
    ],
    "an addition to a value of a dictionary": [
        T,
        i.AddColumn("T", "f", PropertyType.INT, False, Collection.DICTIONARY, None, PropertyType.STRING),
        i.CreateObject("T", 1),
        i.Update("T", 1, "f", ("a",), 1),
        i.AddInteger("T", 1, "f", ("a",), 1),
    ],
    "an embedded object by itself": [E, i.CreateObject("E", 1)],
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """The real engine refuses these too (or stops the process)."""
    with pytest.raises(ApplyError):
        store.apply(store.Snapshot.empty(), decoded(REFUSED[name]))


def nest(depth: int, marker: Marker) -> list[Any]:
    """Put collections into each other."""
    found: list[Any] = [T, MIXED, i.CreateObject("T", 1), i.Update("T", 1, "m", (), marker)]
    for n in range(1, depth + 1):
        if marker is Marker.LIST:
            found.append(i.ArrayInsert("T", 1, "m", (0,) * n, marker, 0))
        else:
            found.append(i.Update("T", 1, "m", ("k",) * n, marker))
    return found


@pytest.mark.parametrize("marker", [Marker.LIST, Marker.DICTIONARY])
def test_depth_is_bounded(marker: Marker) -> None:
    """The deepest value can be read, written, and taken back; a deeper one is refused."""
    deepest = store.apply(store.Snapshot.empty(), decoded(nest(MAX_DEPTH, marker))).snapshot
    assert len(deepest.column("T", "m")) == 1
    gone = store.apply(deepest, decoded([i.EraseObject("T", 1)]))
    assert content(store.apply(gone.snapshot, Changeset.decode(gone.inverse.encode())).snapshot) == content(deepest)
    with pytest.raises(ApplyError, match="deep"):
        store.apply(store.Snapshot.empty(), decoded(nest(MAX_DEPTH + 1, marker)))
    with pytest.raises(ApplyError, match="deep"):
        store.apply(deepest, decoded([i.AddInteger("T", 1, "m", ("k",) * 100_000, 1)]))


def test_changed_vectors() -> None:
    """Whatever decodes, applies or is refused as a whole, merges or is refused; what was applied can be read."""
    rng, counts = random.Random(3), {"applied": 0, "refused": 0, "merged": 0}
    for line in list(read_lines(VECTORS / "merge_state.jsonl.gz"))[::60]:
        base = store.Snapshot.empty()
        for text in line["base"]:
            base = store.apply(base, Changeset.decode(bytes.fromhex(text))).snapshot
        held = content(base)
        sides = [bytes.fromhex(entry["hex"]) for entry in (*line["left"], *line["right"])]
        other = [Timed(Changeset.decode(side), 2, 2) for side in sides]
        for _ in range(350):
            _try(base, mutated(rng, rng.choice(sides)), other, counts)
        assert content(base) == held
    assert min(counts.values()) > 200, counts


def _try(base: store.Snapshot, data: bytes, other: list[Timed], counts: dict[str, int]) -> None:
    try:
        changeset = Changeset.decode(data)
    except BadChangesetError:
        return
    try:
        transform([Timed(changeset, 1, 1)], other)
        counts["merged"] += 1
    except MergeError:
        pass
    try:
        applied = store.apply(base, changeset)
    except ChangesetError:
        counts["refused"] += 1
        return
    counts["applied"] += 1
    content(applied.snapshot)
    for name, table in applied.snapshot.tables.items():
        for field in table.cls.properties:
            assert len(applied.snapshot.column(name, field)) == len(table)
