"""Lists that many instructions of both sides change: in a compiled loop as one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.errors import MergeError
from realmframe.merge import Timed, lists, transform
from realmframe.model import Collection, Marker

VALUES = (1, "a", None, Marker.OBJECT_VALUE, Marker.LIST, Marker.DICTIONARY)


@st.composite
def sides(draw: st.DrawFn) -> list[Timed]:
    """Draw changesets that change two lists, and now and then something beside them; some of them contradict."""
    sizes, found = {"l": 4, "k": 3}, []
    odd = draw(st.integers(0, 40))
    for number in range(draw(st.integers(1, 3))):
        made: list[i.Instruction] = []
        for _ in range(draw(st.integers(0, 8))):
            odd -= 1
            field = draw(st.sampled_from("lllk"))
            size, kind = sizes[field], draw(st.sampled_from("iiieeuum" if odd == 0 else "iiieeuu"))
            shift = draw(st.sampled_from((0, 1, 5))) if odd == 1 else 0
            if kind == "i":
                made.append(i.ArrayInsert("T", 1, field, (draw(st.integers(0, size)) + shift,), 7, size))
                sizes[field] += 1
            elif size and kind == "e":
                made.append(i.ArrayErase("T", 1, field, (draw(st.integers(0, size - 1)),), size + shift))
                sizes[field] -= 1
            elif size and kind == "u":
                at, value = draw(st.integers(0, size - 1)), draw(st.sampled_from(VALUES))
                made.append(i.Update("T", 1, field, (at + shift,), value, prior_size=size))
            elif kind == "m":
                made.append(
                    draw(
                        st.sampled_from(
                            (i.EraseObject("T", 1), i.Clear("T", 1, "l", (), Collection.LIST), i.CreateObject("T", 1))
                        )
                    )
                )
        found.append(
            Timed(Changeset.from_instructions(made), draw(st.integers(1, 3)) + number, draw(st.integers(2, 3)))
        )
    return found


def merged(left: list[Timed], right: list[Timed], many: int) -> Any:
    """Merge, in a compiled loop from so many pairs on; give both sides, or the error in words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "_MANY", many)
        try:
            return [[repr(c.instructions()) for c in side] for side in transform(left, right)]
        except MergeError as fault:
            return str(fault)


@settings(max_examples=200)
@given(left=sides(), right=sides())
def test_many_meet_as_one_by_one(left: list[Timed], right: list[Timed]) -> None:
    """Both ways give the same instructions, or the same error."""
    assert merged(left, right, 1) == merged(left, right, 1 << 60)


def test_three_thousand_insertions_meet_three_thousand() -> None:
    """A list into which both sides insert three thousand elements has all of them at both, in one order."""
    base, count = 30_000, 3_000
    both = []
    for file, step in ((2, 7919), (3, 104_729)):
        made = [i.ArrayInsert("T", 1, "l", (k * step % (base + k),), f"{file}.{k}", base + k) for k in range(count)]
        both.append(Timed(Changeset.from_instructions(made), 1, file))
    left, right = transform([both[0]], [both[1]])
    results = []
    for first, second in ((both[0].changeset, right[0]), (both[1].changeset, left[0])):
        items: list[Any] = list(range(base))
        for one in [*first.instructions(), *second.instructions()]:
            assert isinstance(one, i.ArrayInsert)
            assert one.prior_size == len(items)
            assert isinstance(one.path[0], int)
            items.insert(one.path[0], one.value)
        results.append(items)
    assert results[0] == results[1]
    assert len(results[0]) == base + 2 * count
