"""Changesets applied in columns, beside plain dictionaries changed one instruction at a time; and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe import store
from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.conformance.vectors import read_lines
from realmframe.errors import ChangesetError
from realmframe.model import Collection, Decimal128, ObjectId, PropertyType
from tests.plain import PlainRealm, content, plain_content, unordered
from tests.writer import OBJECTS, SCHEMA, Writer

VECTORS = Path(__file__).parents[1] / "data" / "vectors"
BASE = store.apply(store.Snapshot.empty(), Changeset.from_instructions([*SCHEMA, *OBJECTS])).snapshot
PLAIN = PlainRealm([*SCHEMA, *OBJECTS])
FIELDS = [one.field for one in SCHEMA if isinstance(one, i.AddColumn) and one.table == "T"]


def decoded(instructions: Any) -> Changeset:
    """Make a changeset as it comes off the wire."""
    return Changeset.decode(Changeset.from_instructions(instructions).encode())


def restores(applied: store.Applied, before: dict[str, Any]) -> None:
    """Check that the inverse restores the state: exactly, and as bytes in everything but the order of objects."""
    assert content(store.apply(applied.snapshot, applied.inverse).snapshot) == before
    sent = Changeset.decode(applied.inverse.encode())
    assert unordered(content(store.apply(applied.snapshot, sent).snapshot)) == unordered(before)


@settings(max_examples=100)
@given(data=st.data(), client=st.booleans(), focus=st.lists(st.sampled_from(FIELDS), min_size=2, max_size=4))
def test_columns_equal_dictionaries_and_the_inverse_restores(data: Any, client: bool, focus: list[str]) -> None:
    """Whatever is done, in any order, leaves what it leaves in dictionaries; going back leaves what was there."""
    plain, snapshot = PLAIN.copy(), BASE
    before = content(snapshot)
    for _ in range(data.draw(st.integers(1, 3))):
        rng = data.draw(st.randoms(use_true_random=False))
        writer = Writer(plain, rng.randrange, focus=focus, client=client)
        for _ in range(data.draw(st.integers(1, 25))):
            writer.step()
        applied = store.apply(snapshot, decoded(writer.made))
        after = content(applied.snapshot)
        assert after == plain_content(plain)
        restores(applied, before)
        snapshot, before = applied.snapshot, after


def test_the_way_back_and_forth() -> None:
    """Row ids, row order and order of properties come back; so does the later state from the inverse's inverse."""
    steps = [i.EraseObject("T", 1), i.CreateObject("T", 3), i.Update("T", 2, "n", (), 5), i.EraseColumn("T", "s")]
    applied = store.apply(BASE, decoded(steps))
    back = store.apply(applied.snapshot, applied.inverse, version=9)
    assert back.snapshot.version == 9
    assert back.snapshot.table("T").ids_at(back.snapshot.find("T", [1, 2])).tolist() == [0, 1]
    assert list(back.snapshot.schema["T"].properties) == list(BASE.schema["T"].properties)
    touched = back.touched["T"]
    assert (touched.inserted.tolist(), touched.deleted.tolist()) == ([0], [2])
    assert touched.modified["n"].tolist() == [1]
    forth = store.apply(back.snapshot, back.inverse)
    assert content(forth.snapshot) == content(applied.snapshot)
    # What is written next finds every key where it is.
    after = store.apply(back.snapshot, decoded([i.CreateObject("T", 3), i.Update("T", 1, "n", (), 7)])).snapshot
    assert [after.values("T", name) for name in ("_id", "n")] == [[1, 2, 3], [7, 0, 0]]


def test_inverse_on_another_state() -> None:
    """Applied to a state that went on, an inverse takes back what it can by its instructions."""
    applied = store.apply(BASE, decoded([i.EraseObject("T", 1), i.Update("T", 2, "n", (), 5)]))
    later = store.apply(applied.snapshot, decoded([i.CreateObject("T", 3)])).snapshot
    found = store.apply(later, applied.inverse).snapshot
    assert found.values("T", "_id") == [2, 3, 1]
    assert found.values("T", "n") == [0, 0, 0]
    assert found.values("T", "li")[2] == BASE.values("T", "li")[0]


T1 = ("T", 1)
MINUS = Decimal128.from_parts(0, 0, True)
#: name: (what comes before, what is taken back)
WAYS_BACK: dict[str, tuple[list[Any], list[Any]]] = {
    "negative zero, erased with its object": ([i.Update(*T1, "d", (), -0.0)], [i.EraseObject(*T1)]),
    "negative zero, overwritten": ([i.Update(*T1, "d", (), -0.0)], [i.Update(*T1, "d", (), 1.0)]),
    "zero, made negative": ([], [i.Update(*T1, "d", (), 1.0), i.Update(*T1, "d", (), -0.0)]),
    "negative zero in an embedded object": ([i.Update(*T1, "e", ("d",), -0.0)], [i.Update(*T1, "e", (), None)]),
    "negative decimal zero": ([i.Update(*T1, "q", (), MINUS)], [i.Update(*T1, "q", (), None)]),
    "a column of embedded objects' class": ([i.Update(*T1, "e", ("x",), 5)], [i.EraseColumn("E", "x")]),
    "a column erased and added again": (
        [i.Update(*T1, "n", (), 5)],
        [i.EraseColumn("T", "n"), i.AddColumn("T", "n", PropertyType.INT)],
    ),
    "a column that has another type now": (
        [i.Update(*T1, "n", (), 5)],
        [i.EraseColumn("T", "n"), i.AddColumn("T", "n", PropertyType.STRING, collection=Collection.LIST)],
    ),
    "a class with its objects": ([i.CreateObject("Y", ObjectId(b"a" * 12))], [i.EraseTable("Y")]),
    "a primary key": ([], [i.Update(*T1, "_id", (), 77), i.Update("T", 2, "n", (), 5)]),
    "the order of a set": ([i.SetInsert(*T1, "si", (), 9)], [i.SetErase(*T1, "si", (), 0)]),
    "the order of a dictionary": (
        [i.Update(*T1, "di", (k,), 1) for k in "abc"],
        [i.Update(*T1, "di", ("a",), None), i.Update(*T1, "di", ("b",), 3)],
    ),
}


@pytest.mark.parametrize("name", WAYS_BACK)
def test_way_back(name: str) -> None:
    """What is hard to restore is restored, also by the inverse's bytes."""
    first, then = WAYS_BACK[name]
    snapshot = store.apply(BASE, decoded(first)).snapshot
    applied = store.apply(snapshot, decoded(then))
    assert content(applied.snapshot) != content(snapshot)
    restores(applied, content(snapshot))


@pytest.mark.parametrize("kind", ["apply", "merge_state"])
def test_every_vector_can_be_taken_back(kind: str) -> None:
    """Each changeset of the golden vectors, taken back, leaves what was there before it."""
    count = 0
    for number, line in enumerate(read_lines(VECTORS / f"{kind}.jsonl.gz")):
        if kind == "merge_state" and number % 8:
            continue  # all of them take minutes
        texts = line["changesets"] if kind == "apply" else [*line["base"], *(e["hex"] for e in line["left"])]
        snapshot = store.Snapshot.empty()
        for text in texts:
            try:
                applied = store.apply(snapshot, Changeset.decode(bytes.fromhex(text)))
            except ChangesetError:
                break
            restores(applied, content(snapshot))
            snapshot, count = applied.snapshot, count + 1
    assert count > 90


def test_zero_after_another_number_replaces_negative_zero() -> None:
    """Equal numbers are not written, but what another number or null has replaced is no longer there."""
    minus = store.apply(BASE, decoded([i.Update(*T1, "d", (), v) for v in (1.0, -0.0)])).snapshot
    for writes in ([0.0], [1.0, 0.0], [0.0, 0.0], [1.0, -0.0]):
        steps = [i.Update(*T1, "d", (), value) for value in writes]
        found = store.apply(minus, decoded(steps)).snapshot
        assert np.signbit(found.values("T", "d")[0]) == (writes[0] == 0 or np.signbit(writes[-1]))
