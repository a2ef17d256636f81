"""What the real engine makes of instructions where its rules are not obvious."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.conformance.vectors import value_to_json
from realmframe.errors import ApplyError
from realmframe.model import ClassKind, Collection, Decimal128, GlobalKey, Link, Marker, PropertyType
from realmframe.store import Snapshot, apply, objects_changeset

T, C = PropertyType, Collection
NAN, INF, MINUS, SMALL = float("nan"), float("inf"), -0.0, np.float32(0.1)


def _dec(text: str) -> Decimal128:
    return Decimal128.from_decimal(text)


def _begin(kind: PropertyType, collection: Collection, optional: bool = False) -> list[i.Instruction]:
    key = T.STRING if collection is C.DICTIONARY else None
    target = "E" if kind is T.OBJECT else None
    return [
        i.AddTable("A", ClassKind.TOPLEVEL, "_id", T.INT),
        i.AddTable("E", ClassKind.EMBEDDED),
        i.AddColumn("A", "p", kind, optional, collection, target, key),
        i.CreateObject("A", 1),
    ]


def _set(path: i.Path, value: Any, size: int = 0) -> i.Instruction:
    return i.Update("A", 1, "p", path, value, size)


def _put(index: int, value: Any, size: int) -> i.Instruction:
    return i.ArrayInsert("A", 1, "p", (index,), value, size)


def _add(value: Any) -> i.Instruction:
    return i.SetInsert("A", 1, "p", (), value)


def _drop(value: Any) -> i.Instruction:
    return i.SetErase("A", 1, "p", (), value)


def _plus(*path: Any) -> i.Instruction:
    return i.AddInteger("A", 1, "p", path, 2)


ZERO, NEGATIVE, ONE, ONE_ZERO = _dec("0"), _dec("-0"), _dec("1"), _dec("1.0")
#: Type, collection, whether nulls may be in it, instructions, and what is held then (None where the engine refuses).
RULES: list[tuple[PropertyType, Collection, bool, list[i.Instruction], Any]] = [
    # An equal number is not written: in lists, dictionaries, Mixed; a property of one decimal is.
    (T.DOUBLE, C.LIST, False, [_put(0, 0.0, 0), _set((0,), MINUS, 1)], [0.0]),
    (T.DOUBLE, C.DICTIONARY, False, [_set(("k",), 0.0), _set(("k",), MINUS)], {"k": 0.0}),
    (T.DOUBLE, C.DICTIONARY, False, [_set(("k",), MINUS)], {"k": MINUS}),
    (T.DECIMAL128, C.LIST, False, [_put(0, ONE_ZERO, 0), _set((0,), ONE, 1)], [ONE_ZERO]),
    (T.DECIMAL128, C.DICTIONARY, True, [_set(("k",), ONE_ZERO), _set(("k",), ONE)], {"k": ONE_ZERO}),
    (T.DECIMAL128, C.SINGLE, True, [_set((), ONE_ZERO), _set((), ONE)], ONE),
    (T.MIXED, C.LIST, True, [_put(0, 0.0, 0), _set((0,), MINUS, 1)], [0.0]),
    (T.MIXED, C.LIST, True, [_put(0, 1, 0), _set((0,), 1.0, 1)], [1.0]),
    (T.MIXED, C.SINGLE, True, [_set((), ONE_ZERO), _set((), ONE)], ONE_ZERO),
    # A decimal -0 loses its sign in a list or set of nothing but zeros.
    (T.DECIMAL128, C.LIST, False, [_put(0, NEGATIVE, 0), _put(1, ONE, 1)], [ZERO, ONE]),
    (T.DECIMAL128, C.LIST, False, [_put(0, ONE, 0), _put(1, NEGATIVE, 1)], [ONE, NEGATIVE]),
    (T.DECIMAL128, C.SET, False, [_add(NEGATIVE)], [ZERO]),
    (T.DECIMAL128, C.SET, False, [_add(ONE), _add(NEGATIVE)], [ONE, NEGATIVE]),
    (T.MIXED, C.SET, True, [_add(NEGATIVE)], [NEGATIVE]),
    # Sets of floating-point numbers find not-a-number neither to refuse nor to erase it.
    (T.DOUBLE, C.SET, False, [_add(NAN), _add(NAN), _add(1.0)], [NAN, NAN, 1.0]),
    (T.DOUBLE, C.SET, False, [_add(NAN), _drop(NAN)], [NAN]),
    (
        T.FLOAT,
        C.SET,
        False,
        [_add(np.float32(2)), _add(np.float32(1)), _add(np.float32(2))],
        [np.float32(n) for n in (1, 2)],
    ),
    # It lies before all numbers, and hides from the halving search what stands on its side.
    (T.DOUBLE, C.SET, False, [_add(-INF), _add(NAN), _drop(-INF)], [NAN, -INF]),
    (T.DOUBLE, C.SET, False, [_add(-INF), _add(NAN), _add(-INF)], [-INF, NAN, -INF]),
    (T.DOUBLE, C.SET, False, [_add(1.0), _add(2.0), _add(NAN), _drop(1.0)], [NAN, 1.0, 2.0]),
    (T.DOUBLE, C.SET, False, [_add(3.0), _add(1.0), _add(2.0), _add(NAN), _drop(1.0)], [NAN, 1.0, 2.0, 3.0]),
    (T.DOUBLE, C.SET, True, [_add(1.0), _add(NAN), _add(None), _add(None)], [None, NAN, 1.0]),
    (T.FLOAT, C.SET, False, [_add(SMALL), _add(np.float32(NAN)), _add(SMALL)], [SMALL, np.float32(NAN), SMALL]),
    (T.DECIMAL128, C.SET, False, [_add(_dec("NaN")), _add(_dec("-NaN")), _drop(_dec("NaN"))], [_dec("-NaN")]),
    (T.DOUBLE, C.SET, True, [_add(None), _add(0.0), _add(None), _add(MINUS)], [None, 0.0]),
    (T.MIXED, C.SET, True, [_add(NAN), _add(NAN)], [NAN]),
    # Numbers of several types: a decimal is compared with what 15 or 7 digits say.
    (T.MIXED, C.SET, True, [_add(0.1), _add(_dec("0.1"))], [0.1]),
    (T.MIXED, C.SET, True, [_add(SMALL), _add(_dec("0.1"))], [SMALL]),
    (T.MIXED, C.SET, True, [_add(SMALL), _add(0.1)], [SMALL, 0.1]),
    (T.MIXED, C.SET, True, [_add(2**53 + 1), _add(2.0**53)], [2**53 + 1, 2.0**53]),
    # Counters are properties.
    (T.INT, C.DICTIONARY, False, [_set(("k",), 1), _plus("k")], None),
    (T.MIXED, C.SINGLE, True, [_set((), Marker.DICTIONARY), _set(("k",), 1), _plus("k")], None),
    (T.MIXED, C.SINGLE, True, [_set((), 1), _plus()], 3),
    (T.STRING, C.SINGLE, True, [_plus()], "null"),
    (T.STRING, C.SINGLE, True, [_set((), "a"), _plus()], None),
    # ObjectValue asks for nothing where there is something.
    (T.DATA, C.SINGLE, False, [_set((), Marker.OBJECT_VALUE)], b""),
    (T.INT, C.LIST, False, [_put(0, 1, 0), _set((0,), Marker.OBJECT_VALUE, 1)], [1]),
    (T.INT, C.DICTIONARY, False, [_set(("k",), Marker.OBJECT_VALUE)], None),
    # What is overwritten at once is checked too.
    (T.BOOL, C.SINGLE, False, [_set((), None), _set((), True)], None),
    (T.INT, C.SINGLE, False, [_set((), "a"), _set((), 1)], None),
    (T.INT, C.SINGLE, True, [_set((), None), _set((), 1)], 1),
]


@pytest.mark.parametrize(("kind", "collection", "optional", "instructions", "held"), RULES)
def test_values(kind: Any, collection: Any, optional: bool, instructions: list[i.Instruction], held: Any) -> None:
    """A property holds what the engine makes it hold, to the bit, or the changeset is refused."""
    changeset = Changeset.from_instructions([*_begin(kind, collection, optional), *instructions])
    if held is None:
        with pytest.raises(ApplyError):
            apply(Snapshot.empty(), changeset)
        return
    value = apply(Snapshot.empty(), changeset).snapshot.table("A").row(0)["p"]
    wanted = None if held == "null" else type(value)(held) if isinstance(value, list) else held
    assert value_to_json(value) == value_to_json(wanted)
    assert collection is C.SET or repr(value) == repr(wanted)


MINUS_ALONE: list[tuple[PropertyType, Collection, bool, list[i.Instruction], Any]] = [
    (T.DECIMAL128, C.LIST, False, [_put(0, ONE, 0), _set((0,), NEGATIVE, 1)], [NEGATIVE]),
    (T.DECIMAL128, C.SET, False, [_add(ONE), _add(NEGATIVE), _drop(ONE)], [NEGATIVE]),
    (T.MIXED, C.SINGLE, True, [_set((), MINUS)], MINUS),
    (T.MIXED, C.SINGLE, True, [_set((), ONE)], ONE),
]


@pytest.mark.parametrize("rule", [rule for rule in [*RULES, *MINUS_ALONE] if rule[4] is not None], ids=repr)
def test_what_is_held_can_be_written(rule: tuple[Any, ...]) -> None:
    """The changeset of an object's full state makes the same state, from nothing and over other values."""
    kind, collection, optional, instructions, _ = rule
    begin = [*_begin(kind, collection, optional)]
    held = apply(Snapshot.empty(), Changeset.from_instructions([*begin, *instructions])).snapshot
    value = value_to_json(held.table("A").row(0)["p"])
    over: list[i.Instruction] = []
    if collection is C.SINGLE and kind is T.MIXED:
        over = [_set((), n) for n in ((0.0,) if isinstance(rule[4], float) else (ONE_ZERO,))]
    for before in ([], over):
        start = apply(Snapshot.empty(), Changeset.from_instructions([*begin, *before])).snapshot
        found = apply(start, objects_changeset(held, "A", reset_collections=True)).snapshot
        assert value_to_json(found.table("A").row(0)["p"]) == value


#: Instructions on a list of Mixed of object 1 of A, and what is held then; objects 1 and 2 exist, 3 does not.
NULLS: list[tuple[list[i.Instruction], Any]] = [
    ([_put(0, Link("A", 3), 0), _set((0,), None, 1)], [Link("A", 3)]),
    ([_put(0, Link("A", 2), 0), _set((0,), None, 1)], [None]),
    ([_put(0, Link("A", 2), 0), i.EraseObject("A", 2), _set((0,), None, 1)], [Link("A", 2)]),
    ([_put(0, Link("A", 2), 0), _set((0,), None, 1), i.EraseObject("A", 2)], [None]),
    ([_put(0, Link("A", 3), 0), i.CreateObject("A", 3), _set((0,), None, 1)], [None]),
    ([_put(0, Link("A", 3), 0), _set((0,), False, 1), _set((0,), None, 1)], [None]),
    ([_put(0, Marker.LIST, 0), i.ArrayInsert("A", 1, "p", (0, 0), Link("A", 3), 0), _set((0, 0), None, 1)],
     [[Link("A", 3)]]),
    ([_put(0, Marker.DICTIONARY, 0), _set((0, "k"), Link("A", 3)), _set((0, "k"), None)], [{"k": None}]),
]  # fmt: skip


@pytest.mark.parametrize(("instructions", "held"), NULLS)
def test_null_does_not_replace_a_link_to_nothing(instructions: list[i.Instruction], held: Any) -> None:
    """In a list of Mixed null is not written over a link to an object that does not exist at that moment."""
    changeset = Changeset.from_instructions(
        [*_begin(T.MIXED, C.LIST, optional=True), i.CreateObject("A", 2), *instructions]
    )
    made = apply(Snapshot.empty(), changeset).snapshot.table("A")
    assert made.row(0)["p"] == held


@pytest.mark.parametrize(
    ("collection", "optional"), [(C.SINGLE, True), (C.LIST, False), (C.DICTIONARY, True), (C.SET, False)]
)
def test_links_are_null_where_they_can_be(collection: Collection, optional: bool) -> None:
    """Of a column of links it is not the instruction that says whether nulls may be in it."""
    for said in (False, True):
        key = T.STRING if collection is C.DICTIONARY else None
        column = i.AddColumn("A", "p", T.OBJECT, said, collection, "A", key)
        made = apply(
            Snapshot.empty(), Changeset.from_instructions([i.AddTable("A", pk_field="_id", pk_type=T.INT), column])
        )
        assert made.snapshot.schema["A"].properties["p"].optional is optional


#: Instructions on classes and whether the engine takes them.
SCHEMAS: list[tuple[list[i.Instruction], bool]] = [
    ([i.AddColumn("A", "q", T.OBJECT, False, C.SET, "E")], False),
    ([i.AddColumn("A", "q", T.OBJECT, True, C.DICTIONARY, "E", T.STRING)], True),
    ([i.AddColumn("A", "p", T.INT, True, C.DICTIONARY, None, T.INT)], True),
    ([i.AddColumn("A", "q", T.INT, True, C.DICTIONARY, None, T.INT)], False),
    ([i.EraseObject("E", GlobalKey(1, 1))], True),
    ([i.EraseObject("E", 1)], False),
    ([i.CreateObject("E", GlobalKey(1, 1))], False),
    ([i.EraseObject("F", GlobalKey(1, 1))], False),
    ([i.AddTable("A")], True),
    ([i.AddTable("E")], True),
    ([i.AddTable("A", ClassKind.EMBEDDED)], False),
    ([i.AddTable("E", pk_field="_id", pk_type=T.INT)], False),
]


@pytest.mark.parametrize(("instructions", "taken"), SCHEMAS)
def test_schemas(instructions: list[i.Instruction], taken: bool) -> None:
    """Additions to a schema, and what is done to embedded objects, are taken or refused as by the engine."""
    changeset = Changeset.from_instructions([*_begin(T.INT, C.DICTIONARY), *instructions])
    if taken:
        apply(Snapshot.empty(), changeset)
        return
    with pytest.raises(ApplyError):
        apply(Snapshot.empty(), changeset)
