"""The table of rules, a row for each pair that conflicts."""

from __future__ import annotations

from typing import Any

import pytest

from realmframe.changes import Instruction
from realmframe.changes import instructions as i
from realmframe.errors import MergeError
from realmframe.merge import transform
from realmframe.model import ClassKind, Collection, Decimal128, Marker, PropertyType
from tests.merge.conftest import timed

T1 = ("T", 1)
N = (*T1, "n", ())
L = (*T1, "l")
S = (*T1, "s", ())
DICT, LIST = Collection.DICTIONARY, Collection.LIST
INT, LINK = PropertyType.INT, PropertyType.OBJECT


def up(value: Any, path: Any = (), **rest: Any) -> i.Update:
    """Make an update of the field ``n``."""
    return i.Update(*T1, "n", path, value, **rest)


def insert(at: int, size: int, value: Any = 1) -> i.ArrayInsert:
    """Make an insertion."""
    return i.ArrayInsert(*L, (at,), value, size)


def move(at: int, to: int, size: int) -> i.ArrayMove:
    """Make a move."""
    return i.ArrayMove(*L, (at,), to, size)


def erase(at: int, size: int) -> i.ArrayErase:
    """Make a removal."""
    return i.ArrayErase(*L, (at,), size)


def put(at: int, size: int) -> i.Update:
    """Make an update of an element."""
    return i.Update(*L, (at,), 9, prior_size=size)


def deep(at: int) -> i.Update:
    """Make an update inside an element."""
    return i.Update(*L, (at, "x"), 9)


E1, C1 = i.EraseObject(*T1), i.CreateObject(*T1)
ADD = i.AddInteger(*N, 5)
BIG = (1 << 63) - 1
ADD_T, ERASE_T = i.AddTable("T", pk_field="_id", pk_type=INT), i.EraseTable("T")
COLUMN, GONE = i.AddColumn("T", "n", INT), i.EraseColumn("T", "n")
TO_T = i.AddColumn("U", "t", LINK, True, link_target="T")
ONE, SAME = Decimal128.from_decimal("1.0"), Decimal128.from_decimal("1.00")
SAME_ROW = "same"

#: name: (the earlier side, the later side, what the earlier becomes, what the later becomes)
ROWS: dict[str, tuple[Any, Any, Any, Any]] = {
    "an erased object takes its creation along": ([C1], [E1], [], SAME_ROW),
    "an erased object takes later updates along": ([E1], [up(1)], SAME_ROW, []),
    "of two erases the later is kept": ([E1], [E1], [], SAME_ROW),
    "creations are both kept": ([C1], [C1], SAME_ROW, SAME_ROW),
    "creating again does not bring edits back": ([E1, C1], [up(1)], SAME_ROW, []),
    "the later update wins": ([up(1)], [up(2)], [], SAME_ROW),
    "a default loses whatever the time": ([up(1)], [up(2, is_default=True)], SAME_ROW, []),
    "a value beats an embedded object": ([up(1)], [up(Marker.OBJECT_VALUE)], SAME_ROW, []),
    "two dictionaries are one": ([up(Marker.DICTIONARY)], [up(Marker.DICTIONARY)], SAME_ROW, SAME_ROW),
    "a value takes what is below along": ([up(1)], [up(2, ("k",))], SAME_ROW, []),
    "a dictionary keeps its entries": ([up(Marker.DICTIONARY)], [up(2, ("k",))], SAME_ROW, SAME_ROW),
    "a list keeps no entries with keys": ([up(Marker.LIST)], [up(2, ("k",))], SAME_ROW, []),
    "a later addition adds to the update": ([up(1)], [ADD], [up(6)], SAME_ROW),
    "an addition wraps": ([up(BIG)], [ADD], [up(4 - (1 << 63))], SAME_ROW),
    "an earlier addition is overwritten": ([ADD], [up(1)], [], SAME_ROW),
    "an earlier addition survives a default": ([ADD], [up(1, is_default=True)], SAME_ROW, [up(6, is_default=True)]),
    "an addition to null is kept": ([up(None)], [ADD], SAME_ROW, SAME_ROW),
    "an addition to text is dropped": ([up("x")], [ADD], SAME_ROW, []),
    "additions add up": ([ADD], [ADD], SAME_ROW, SAME_ROW),
    "insertions at one place keep the order of time": ([insert(0, 2)], [insert(0, 2)], [insert(0, 3)], [insert(1, 3)]),
    "an insertion shifts what is behind": ([insert(0, 2)], [put(1, 2)], SAME_ROW, [put(2, 3)]),
    "an insertion shifts paths into elements": ([insert(0, 2)], [deep(1)], SAME_ROW, [deep(2)]),
    "a removal shifts what is behind": ([erase(0, 2)], [put(1, 2)], SAME_ROW, [put(0, 1)]),
    "a removal takes the update along": ([erase(1, 2)], [put(1, 2)], SAME_ROW, []),
    "a removal takes what is inside along": ([erase(1, 2)], [deep(1)], SAME_ROW, []),
    "two removals of one element cancel": ([erase(1, 2)], [erase(1, 2)], [], []),
    "a removal and an insertion": ([erase(1, 2)], [insert(1, 2)], [erase(2, 3)], [insert(1, 1)]),
    "a move carries the update": ([move(0, 2, 3)], [put(0, 3)], SAME_ROW, [put(2, 3)]),
    "a moved element is removed where it went": ([move(0, 2, 3)], [erase(0, 3)], [], [erase(2, 3)]),
    "of two moves of one element the later wins": ([move(0, 2, 3)], [move(0, 1, 3)], [], [move(2, 1, 3)]),
    "a move to where it already is goes": ([move(0, 2, 3)], [move(0, 2, 3)], [], []),
    "a path into an element shifts the move (the engine's anomaly)": (
        [move(0, 2, 3)],
        [deep(1)],
        SAME_ROW,
        SAME_ROW,
    ),
    "a path into an element behind a move's start (the engine's anomaly)": (
        [move(1, 2, 3)],
        [deep(0)],
        [move(0, 2, 3)],
        SAME_ROW,
    ),
    "a clear takes elements along": ([i.Clear(*L, (), LIST)], [insert(0, 0)], SAME_ROW, []),
    "a clear takes members of a set along": ([i.Clear(*S, Collection.SET)], [i.SetInsert(*S, 1)], SAME_ROW, []),
    "a clear takes an addition along": ([i.Clear(*N, LIST)], [ADD], SAME_ROW, []),
    "of two clears the later is kept": ([i.Clear(*N, LIST)], [i.Clear(*N, LIST)], [], SAME_ROW),
    "a clear and a marker of one kind": ([i.Clear(*N, DICT)], [up(Marker.DICTIONARY)], SAME_ROW, SAME_ROW),
    "a clear and a marker of another kind": ([i.Clear(*N, LIST)], [up(Marker.DICTIONARY)], [], SAME_ROW),
    "of set changes of one value the later is kept": ([i.SetInsert(*S, 1)], [i.SetErase(*S, 1)], [], SAME_ROW),
    "values of two types are two members": ([i.SetInsert(*S, 1)], [i.SetErase(*S, True)], SAME_ROW, SAME_ROW),
    "decimals compare by number": ([i.SetInsert(*S, ONE)], [i.SetInsert(*S, SAME)], [], SAME_ROW),
    "not a number equals nothing": (
        [i.SetInsert(*S, float("nan"))],
        [i.SetInsert(*S, float("nan"))],
        SAME_ROW,
        SAME_ROW,
    ),
    "set erasures of text compare where it lies": ([i.SetErase(*S, "x")], [C1, i.SetErase(*S, "y")], [], SAME_ROW),
    "equal definitions of a class cancel": ([ADD_T], [ADD_T], [], []),
    "equal definitions of a property cancel": ([COLUMN], [COLUMN], [], []),
    "an erased class takes everything along": ([ERASE_T], [ADD_T, COLUMN, C1, up(1), E1], SAME_ROW, []),
    "two erases of a class cancel": ([ERASE_T], [ERASE_T], [], []),
    "a link to an erased class goes too": ([ERASE_T], [TO_T], [i.EraseColumn("U", "t"), ERASE_T], []),
    "a property erased for its link takes later updates along": (
        [ERASE_T],
        [TO_T, i.Update("U", 1, "t", (), None)],
        [i.EraseColumn("U", "t"), ERASE_T],
        [],
    ),
    "an erased property takes its definition and updates along": ([GONE], [COLUMN, up(1)], SAME_ROW, []),
    "an erased property leaves additions alone": ([GONE], [ADD], SAME_ROW, SAME_ROW),
    "two erases of a property cancel": ([GONE], [GONE], [], []),
}


@pytest.mark.parametrize("name", ROWS)
def test_rule(name: str) -> None:
    """The pair becomes what the row says, whichever side is called left."""
    early, late, early_out, late_out = ROWS[name]
    for files in ((1, 2), (2, 1)):
        one, other = timed(early, 10, files[0]), timed(late, 20, files[1])
        (first,), (second,) = transform([one], [other])
        (other_second,), (other_first,) = transform([other], [one])
        for timed_in, found, again, wanted in (
            (one, first, other_first, early_out),
            (other, second, other_second, late_out),
        ):
            if wanted is SAME_ROW:
                assert found is timed_in.changeset
                assert again is timed_in.changeset
            else:
                assert found.instructions() == again.instructions() == wanted


CONTRADICTIONS: dict[str, tuple[Instruction, Instruction]] = {
    "class, type of key": (ADD_T, i.AddTable("T", pk_field="_id", pk_type=PropertyType.STRING)),
    "class, name of key": (ADD_T, i.AddTable("T", pk_field="id", pk_type=INT)),
    "class, null keys": (ADD_T, i.AddTable("T", pk_field="_id", pk_type=INT, pk_nullable=True)),
    "class, kind": (ADD_T, i.AddTable("T", ClassKind.EMBEDDED)),
    "class, asymmetric": (ADD_T, i.AddTable("T", ClassKind.ASYMMETRIC, "_id", INT)),
    "property, type": (COLUMN, i.AddColumn("T", "n", PropertyType.STRING)),
    "property, null": (COLUMN, i.AddColumn("T", "n", INT, True)),
    "property, collection": (COLUMN, i.AddColumn("T", "n", INT, collection=LIST)),
    "property, target": (TO_T, i.AddColumn("U", "t", LINK, True, link_target="V")),
    "sizes of a list": (insert(0, 2), insert(0, 3)),
    "index of an insertion": (insert(3, 2), put(0, 2)),
    "index of a removal": (erase(2, 2), put(0, 2)),
    "end of a move": (move(0, 3, 3), move(1, 2, 3)),
    "an index against a key": (insert(0, 2), i.Update(*L, ("k",), 1)),
    "an index above a key": (insert(0, 2), i.Update(*L, ("k", "x"), 1)),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(name: str) -> None:
    """Two sides that contradict one another fail to merge, whichever is called left."""
    one, other = (timed([instruction], 1, file) for file, instruction in enumerate(CONTRADICTIONS[name], 1))
    for sides in (([one], [other]), ([other], [one])):
        with pytest.raises(MergeError):
            transform(*sides)


def test_times_that_are_equal_are_told_apart_by_file() -> None:
    """With one timestamp, the greater file ident is later."""
    for files, early in (((1, 2), 0), ((2, 1), 1)):
        sides = [timed([up(k)], 10, file) for k, file in enumerate(files)]
        found = transform([sides[0]], [sides[1]])
        assert [len(found[0][0]), len(found[1][0])] == [early, 1 - early]


def test_large_changesets_keep_what_does_not_conflict() -> None:
    """Of many rows only those that conflict change; the rest stands as it did, in order."""
    size = 5000
    left = [i.Update("T", k, "n", (), f"left {k}") for k in range(size)]
    right = [i.Update("T", 7 * k, "n", (), f"right {k}") for k in range(size)]
    one, other = timed(left, 1, 1), timed(right, 2, 2)
    (first,), (second,) = transform([one], [other])
    assert second is other.changeset
    assert first.instructions() == [u for u in left if u.pk % 7]
