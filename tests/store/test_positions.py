"""Where the objects of a table stand, in however many pieces it lies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddTable, CreateObject, EraseObject
from realmframe.model import PropertyType
from realmframe.store import Snapshot, apply

KEYS = st.sets(st.integers(0, 40), max_size=12)


@given(steps=st.lists(st.tuples(KEYS, KEYS), max_size=5), wanted=st.lists(st.integers(-1, 90), max_size=6))
def test_positions(steps: list[tuple[set[int], set[int]]], wanted: list[int]) -> None:
    """Each row id has the position where it is listed, and -1 where no object has it: one, several, in any order."""
    schema = AddTable("C", pk_field="_id", pk_type=PropertyType.INT)
    snapshot = apply(Snapshot.empty(), Changeset.from_instructions([schema])).snapshot
    held: set[int] = set()
    for made, gone in steps:
        changes = [CreateObject("C", key) for key in sorted(made)] + [EraseObject("C", key) for key in sorted(gone)]
        snapshot = apply(snapshot, Changeset.from_instructions(changes)).snapshot
        held = (held | made) - gone
    table = snapshot.table("C")
    assert len(table) == len(held)
    listed = np.concatenate([np.empty(0, np.int64), *(chunk.ids for chunk in table.chunks)])
    at = {int(number): place for place, number in enumerate(listed)}
    ids = np.array(wanted, np.int64)
    assert table.positions(ids).tolist() == [at.get(one, -1) for one in wanted]
    assert table.positions(listed).tolist() == list(range(len(held)))
    assert {table.key(place) for place in range(len(held))} == held
