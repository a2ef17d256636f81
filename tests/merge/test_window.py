"""A side that stays while the other one comes bit by bit: to the bit what merging everything anew gives."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.changes import Changeset, Instruction
from realmframe.changes import instructions as i
from realmframe.errors import MergeError
from realmframe.merge import Timed, Window, columns, lanes, lists, transform
from realmframe.model import Link, PropertyType
from tests.merge.conftest import several, timed
from tests.merge.test_lists import sides as list_sides
from tests.merge.test_properties import any_instruction


class Anew:
    """What a window does, by merging everything anew each time."""

    def __init__(self) -> None:
        self.held: dict[int, Timed] = {}
        self.changed: dict[int, None] = {}

    def append(self, key: int, timed: Timed) -> None:
        """Add to the end."""
        self.held[key] = timed

    def forget(self, through: int) -> None:
        """Forget the first ones."""
        for key in [k for k in self.held if k <= through]:
            del self.held[key]
            self.changed.pop(key, None)

    def meet(self, side: Sequence[Timed]) -> tuple[list[Changeset], list[Changeset]]:
        """Merge."""
        return transform(side, list(self.held.values()))

    def accept(self, others: Sequence[Changeset]) -> None:
        """Be what it became."""
        for (key, old), new in zip(list(self.held.items()), others, strict=True):
            if new is not old.changeset:
                self.held[key] = Timed(new, old.timestamp, old.file_ident)
                self.changed[key] = None

    def settle(self, through: int) -> dict[int, bytes]:
        """Give what changed."""
        wanted = [k for k in self.changed if k <= through]
        for key in wanted:
            del self.changed[key]
        return {k: self.held[k].changeset.encode() for k in wanted}


def check(here: Sequence[Timed], there: Sequence[Sequence[Timed]], draw: Any) -> int:
    """Let groups of changesets meet a window and its oracle, with everything else that happens to a window between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "FEW", (1, 3, 1 << 60)[draw(3)])
        if draw(2):
            patch.setattr(columns, "FEW", 0)
            patch.setattr(columns, "RATIO", 0)
        return _check(here, there, draw)


def _check(here: Sequence[Timed], there: Sequence[Sequence[Timed]], draw: Any) -> int:
    window, anew = Window(), Anew()
    added = count = 0
    later: list[tuple[bytes, Any]] = []
    is_whole = draw(3)  # what comes later does not fit what was there before, so many a meeting fails
    for group in there:
        for _ in range(len(here) - added if is_whole else draw(len(here) - added + 1)):
            window.append(added, here[added])
            anew.append(added, here[added])
            added += 1
        try:
            mine, others = anew.meet(group)
        except MergeError as error:
            with pytest.raises(MergeError, match=f"^{re.escape(str(error))}$"):
                window.meet(group)
            continue
        meeting = window.meet(group)
        assert [c.encode() for c in meeting.outputs] == [c.encode() for c in mine]
        for new, new_too, old in zip(meeting.outputs, mine, group, strict=True):
            assert (new is old.changeset) == (new_too is old.changeset)
        if draw(4):  # what is not accepted leaves no trace
            meeting.accept()
            anew.accept(others)
            count += len(anew.changed)
        if not draw(3):
            through = draw(added + 1) if draw(2) else added
            assert {k: c.encode() for k, c in window.settle(through)} == anew.settle(through)
        elif not draw(3):
            forms, expected = dict(window.tell()), anew.settle(added)
            assert forms.keys() == expected.keys()
            later += [(expected[key], form) for key, form in forms.items()]
            assert window.is_settled
        if not draw(4):
            through = draw(added + 1) - 1
            window.forget(through)
            anew.forget(through)
            assert len(window) == len(anew.held)
    assert {k: c.encode() for k, c in window.settle()} == anew.settle(added)
    assert window.is_settled
    assert all(form().encode() == data for data, form in later)
    return count


def split(parts: Sequence[Timed], draw: Any) -> list[list[Timed]]:
    """Put changesets that come one after another into groups."""
    groups: list[list[Timed]] = []
    for part in parts:
        if groups and not draw(3):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def chopped(side: Sequence[Sequence[Instruction]], draw: Any, file: int) -> list[Timed]:
    """Make many small changesets of what a side did."""
    flat, made = [one for part in side for one in part], []
    while flat:
        size = 1 + draw(3)
        made.append(timed(flat[:size], draw(4), file))
        del flat[:size]
    return made


@settings(max_examples=250)
@given(both=several(2, 14), rng=st.randoms(use_true_random=False))
def test_transactions_meet_a_window(both: Any, rng: random.Random) -> None:
    """Transactions as clients make them, of every kind of instruction."""
    draw = rng.randrange
    check(chopped(both[0], draw, 1), split(chopped(both[1], draw, 2), draw), draw)


@settings(max_examples=250)
@given(
    here=st.lists(st.lists(any_instruction(), max_size=3), max_size=8),
    there=st.lists(st.lists(any_instruction(), max_size=3), max_size=8),
    rng=st.randoms(use_true_random=False),
)
def test_anything_meets_a_window(here: Any, there: Any, rng: random.Random) -> None:
    """Instructions that need not hold together; some meetings fail, and with the same words."""
    draw = rng.randrange
    left = [timed(part, draw(4), 1) for part in here]
    check(left, split([timed(part, draw(4), 2) for part in there], draw), draw)


@settings(max_examples=150)
@given(left=list_sides(), right=list_sides(), rng=st.randoms(use_true_random=False), many=st.sampled_from([1, 1 << 60]))
def test_lists_meet_a_window(left: Any, right: Any, rng: random.Random, many: int) -> None:
    """Lists, in the compiled loop and one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "_MANY", many)
        check(left, split(right, rng.randrange), rng.randrange)


VALUES = ("x", "y", b"x", Link("A", "x"), Link("A", "y"), 1, 2)


@settings(max_examples=150)
@given(rng=st.randoms(use_true_random=False))
def test_erasures_from_sets_meet_a_window(rng: random.Random) -> None:
    """What two erasures from a set have in common depends on how they are stored: that changes as rows are dropped."""
    draw = rng.randrange
    both = []
    for file in (1, 2):
        parts = []
        for _ in range(8):
            kinds = [rng.choice((i.SetErase, i.SetErase, i.SetInsert)) for _ in range(1 + draw(3))]
            parts.append([kind("A", 1, rng.choice("fg"), (), rng.choice(VALUES)) for kind in kinds])
        both.append([timed(part, draw(4), file) for part in parts])
    check(both[0], split(both[1], draw), draw)


def list_changes(rng: random.Random, count: int, file: int, kinds: int) -> list[Timed]:
    """Make what one side does to a list of four, one changeset after another."""
    size, made = 4, []
    for at in range(count):
        one: Instruction
        kind = rng.randrange(kinds) if size > 1 else 0
        if kind < 2:
            one, size = i.ArrayInsert("T", 1, "l", (rng.randrange(size + 1),), at, size), size + 1
        elif kind == 2:
            one, size = i.ArrayErase("T", 1, "l", (rng.randrange(size),), size), size - 1
        elif kind == 3:
            one = i.Update("T", 1, "l", (rng.randrange(size),), at, prior_size=size)
        else:
            one = i.ArrayMove("T", 1, "l", (rng.randrange(1, size),), 0, size)
        erased: list[Instruction] = [i.EraseObject("T", 1)] if rng.randrange(40) == 0 else []
        made.append(timed([*erased, one], rng.randrange(count), file))
    return made


def test_one_list_and_long_sides() -> None:
    """Two sides do much to one list: what stays changes again and again, and parts of it vanish."""
    rng, count = random.Random(3), 0
    for number in range(100):
        kinds = 5 - number % 2  # moves have no lane
        here, there = list_changes(rng, 12, 1, kinds), list_changes(rng, 12, 2, kinds)
        count += check(here, split(there, rng.randrange), rng.randrange)
    assert count > 1_500


def test_many_rows_are_searched() -> None:
    """In a window of very many rows the few that matter are found, also those that came after the others."""
    rng, window, anew = random.Random(5), Window(), Anew()
    for key in range(40):
        rows: list[Instruction] = [i.Update("T", rng.randrange(9_000), "ab"[n % 2], (), key) for n in range(250)]
        rows[7] = i.EraseObject("T", rng.randrange(9_000))
        for side in (window, anew):
            side.append(key, timed(rows, key, 1))
        if key < 20:
            continue
        met: list[Instruction] = [i.Update("T", rng.randrange(9_000), "a", (), 1) for _ in range(40)]
        side_2 = [timed([*met, i.EraseObject("T", rng.randrange(9_000))], rng.randrange(40), 2)]
        mine, others = anew.meet(side_2)
        meeting = window.meet(side_2)
        assert [c.encode() for c in meeting.outputs] == [c.encode() for c in mine]
        meeting.accept()
        anew.accept(others)
        if key % 7 == 0:
            for side in (window, anew):
                side.forget(key - 19)
        assert {k: c.encode() for k, c in window.settle()} == anew.settle(key)


def test_size_and_what_is_kept() -> None:
    """The bytes that a window says to take grow with what is in it, and are gone with it."""
    window = Window()
    assert window.nbytes == len(window) == 0
    for key in range(10):
        window.append(key, timed([i.Update("T", 1, "a", (), key)], key, 1))
    size = window.nbytes
    window.meet([timed([i.Update("T", 1, "a", (), 0)], 20, 2)]).accept()
    assert window.nbytes > size > 0
    window.append(10, timed([i.AddColumn("T", "b", PropertyType.INT)], 1, 1))
    window.forget(4)
    assert 0 < window.nbytes < size
    window.forget(10)
    assert window.nbytes == len(window) == 0
    assert window.is_settled
