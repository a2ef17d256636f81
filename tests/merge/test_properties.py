"""What holds for any two concurrent transactions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.changes import Changeset, Instruction
from realmframe.changes import instructions as i
from realmframe.conformance.checks import forms
from realmframe.errors import MergeError
from realmframe.merge import Timed, transform
from realmframe.merge.index import Minor
from realmframe.model import Collection, Link, Marker, PropertyType
from tests.merge.conftest import several, timed


def encoded(changesets: Sequence[Changeset]) -> list[bytes]:
    """Give the bytes of each."""
    return [c.encode() for c in changesets]


def stamped(parts: Sequence[Sequence[Instruction]], timestamps: Sequence[int], file_ident: int) -> list[Timed]:
    """Make the changesets of one side."""
    return [timed(part, at, file_ident) for part, at in zip(parts, timestamps, strict=True)]


STAMPS = st.tuples(*[st.integers(0, 3)] * 2)


@settings(max_examples=150)
@given(both=several(2), at=STAMPS, to=STAMPS)
def test_exchanged_sides_give_exchanged_outputs(both: Any, at: Any, to: Any) -> None:
    """What each side becomes does not depend on which is called left; what fails to merge fails both ways."""
    left, right = both
    one, other = stamped(left, at[: len(left)], 1), stamped(right, to[: len(right)], 2)
    try:
        first, second = transform(one, other)
    except MergeError:
        with pytest.raises(MergeError):
            transform(other, one)
        return
    exchanged = transform(other, one)
    assert encoded(first) == encoded(exchanged[1])
    assert encoded(second) == encoded(exchanged[0])


@settings(max_examples=50)
@given(made=several(1))
def test_nothing_changes_nothing(made: Any) -> None:
    """Against no changesets, or empty ones, each changeset is the very same object."""
    (left,) = made
    one = stamped(left, (1, 2)[: len(left)], 1)
    for other in ([], [Timed(Changeset.empty(), 5, 2)]):
        for found in (transform(one, other)[0], transform(other, one)[1]):
            assert all(c is t.changeset for c, t in zip(found, one, strict=True))


@settings(max_examples=50)
@given(made=several(2, schema=False))
def test_other_classes_do_not_conflict(made: Any) -> None:
    """The same changes to other classes leave both sides as the very same objects."""
    for part in made[1]:
        for one in part:
            one.table += "'"
    both = [stamped(side, (1, 2)[: len(side)], file) for file, side in enumerate(made, 1)]
    for found, side in zip(transform(*both), both, strict=True):
        assert all(c is t.changeset for c, t in zip(found, side, strict=True))


@settings(max_examples=100)
@given(both=several(2), at=STAMPS, to=STAMPS)
def test_outputs_can_be_sent(both: Any, at: Any, to: Any) -> None:
    """Each output decodes from its bytes to the instructions that it holds."""
    left, right = both
    try:
        outputs = transform(stamped(left, at[: len(left)], 1), stamped(right, to[: len(right)], 2))
    except MergeError:
        return
    for output in (*outputs[0], *outputs[1]):
        assert forms(Changeset.decode(output.encode()).instructions()) == forms(output.instructions())


# ---------------------------------------------------------------------------------------------- against all pairs

WORKS = sys.modules[transform.__module__]
FIELDS = ("f", "g")
LINKS = i.AddColumn("A", "f", PropertyType.OBJECT, True, link_target="B")
PATHS = st.lists(st.one_of(st.integers(0, 2), st.sampled_from(["k", "j"])), max_size=3).map(tuple)
VALUES = st.sampled_from([None, 1, 2, "x", "y", b"x", True, 1.0, Link("A", 1), *list(Marker)[:3], Marker.ERASED])
SIZE = 3


@st.composite
def any_instruction(draw: Any) -> Instruction:
    """Draw any instruction, whether or not it could hold together with others."""
    kind = draw(st.integers(0, 13))
    table, field, pk = draw(st.sampled_from("AB")), draw(st.sampled_from(FIELDS)), draw(st.sampled_from([1, 2, "x"]))
    schema: dict[int, Any] = {
        0: lambda: i.AddTable(table, pk_field="_id", pk_type=PropertyType.INT),
        1: lambda: i.EraseTable(table),
        6: lambda: draw(st.sampled_from([i.AddColumn(table, field, PropertyType.INT), LINKS])),
        7: lambda: i.EraseColumn(table, field),
        2: lambda: i.CreateObject(table, pk),
        3: lambda: i.EraseObject(table, pk),
    }
    if kind in schema:
        made: Instruction = schema[kind]()
        return made
    at = (table, pk, field, draw(PATHS))
    indexed = (*at[:3], (*at[3], draw(st.integers(0, SIZE - 1))))
    paths: dict[int, Any] = {
        4: lambda: i.Update(*at, draw(VALUES), prior_size=SIZE, is_default=False),
        5: lambda: i.AddInteger(*at, 3),
        8: lambda: i.ArrayInsert(*indexed, draw(VALUES), SIZE),
        9: lambda: i.ArrayMove(*indexed, (indexed[3][-1] + 1) % SIZE, SIZE),
        10: lambda: i.ArrayErase(*indexed, SIZE),
        11: lambda: i.Clear(*at, draw(st.sampled_from(Collection))),
        12: lambda: i.SetInsert(*at, draw(VALUES)),
        13: lambda: i.SetErase(*at, draw(VALUES)),
    }
    found: Instruction = paths[kind]()
    return found


def outcome(both: tuple[list[Timed], list[Timed]]) -> Any:
    """Give the bytes of both outputs, or that merging failed."""
    try:
        found = transform(*both)
    except MergeError:
        return "failed"
    return [encoded(side) for side in found]


@settings(max_examples=400)
@given(left=st.lists(any_instruction(), max_size=7), right=st.lists(any_instruction(), max_size=7), later=st.booleans())
def test_what_the_join_leaves_out_makes_no_difference(left: Any, right: Any, later: bool) -> None:
    """Letting every instruction meet every other gives the same bytes as meeting only what the join finds."""
    both = [timed(left, 5, 1)], [timed(right, 6 if later else 4, 2)]
    quick = outcome(both)

    class Everything(Minor):
        def __init__(self, nodes: Any, majors: Any) -> None:
            self.nodes = list(nodes)

        def add(self, node: Any) -> None:
            self.nodes.append(node)

        def candidates(self, node: Any) -> Any:
            return sorted((n for n in self.nodes if not n.discarded), key=lambda n: n.order)

    with pytest.MonkeyPatch.context() as patch:
        everything = tuple([np.arange(len(t.changeset)) for t in side] for side in both)
        patch.setattr(WORKS, "common_rows", lambda *_: everything)
        patch.setattr(WORKS, "Minor", Everything)
        assert outcome(both) == quick
