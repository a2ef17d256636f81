"""Changesets applied in bulk, beside a dictionary changed one instruction at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError
from realmframe.model import Collection, Decimal128, ObjectSchema, Property, PropertyType, Schema
from realmframe.store import Snapshot, apply, schema_changeset

_FIELDS = {
    "_id": Property("_id", PropertyType.INT),
    "n": Property("n", PropertyType.INT),
    "s": Property("s", PropertyType.STRING, True),
    "l": Property("l", PropertyType.INT, False, Collection.LIST),
}
_SCHEMA = Schema([ObjectSchema("A", _FIELDS, "_id")])
_Model = dict[int, dict[str, Any]]


def _start() -> Snapshot:
    return apply(Snapshot.empty(), schema_changeset(_SCHEMA)).snapshot


def _content(snapshot: Snapshot) -> _Model:
    table = snapshot.table("A")
    rows = [table.row(r) for r in range(len(table))]
    return {row.pop("_id"): row for row in rows}


def _draw(data: st.DataObject, model: _Model) -> Changeset:
    """Draw a valid transaction and apply it to the dictionary, instruction by instruction."""
    found: list[i.Instruction] = []
    for _ in range(data.draw(st.integers(0, 12))):
        key = data.draw(st.integers(0, 4))
        held = model.get(key)
        if held is None:
            found.append(i.CreateObject("A", key))
            model[key] = {"n": 0, "s": None, "l": []}
            continue
        match data.draw(st.sampled_from("nnnssael")):
            case "n":
                held["n"] = data.draw(st.integers(-9, 9))
                found.append(i.Update("A", key, "n", (), held["n"]))
            case "s":
                held["s"] = data.draw(st.none() | st.text(max_size=3))
                found.append(i.Update("A", key, "s", (), held["s"]))
            case "a":
                found.append(i.AddInteger("A", key, "n", (), 3))
                held["n"] += 3
            case "e":
                found.append(i.EraseObject("A", key))
                del model[key]
            case _:
                found.append(i.ArrayInsert("A", key, "l", (0,), 7, len(held["l"])))
                held["l"] = [7, *held["l"]]
    return Changeset.from_instructions(found)


@settings(max_examples=80)
@given(data=st.data())
def test_bulk_equals_one_at_a_time_and_inverse_restores(data: st.DataObject) -> None:
    """Every transaction leaves what the dictionary holds; its inverse brings back what was there before."""
    snapshot, model = _start(), {}
    for _ in range(3):
        before = _content(snapshot)
        applied = apply(snapshot, _draw(data, model))
        assert _content(applied.snapshot) == model
        assert _content(snapshot) == before
        assert _content(apply(applied.snapshot, applied.inverse).snapshot) == before
        snapshot = applied.snapshot


@settings(max_examples=40)
@given(data=st.data())
def test_lineages_are_independent(data: st.DataObject) -> None:
    """Two transactions on one snapshot, and what follows each, do not see one another."""
    model: _Model = {}
    base = apply(_start(), _draw(data, model)).snapshot
    held = _content(base)
    left_model, right_model = ({k: dict(v) for k, v in held.items()} for _ in range(2))
    left, right = base, base
    for _ in range(2):
        left = apply(left, _draw(data, left_model)).snapshot
        right = apply(right, _draw(data, right_model)).snapshot
    assert (_content(base), _content(left), _content(right)) == (held, left_model, right_model)
    for state, expected in ((left, left_model), (right, right_model)):
        found = state.find("A", list(range(5))) >= 0
        assert found.tolist() == [k in expected for k in range(5)]


BAD: list[i.Instruction] = [
    i.Update("A", 9, "n", (), 1),
    i.Update("A", 1, "n", (), "text"),
    i.Update("A", 1, "n", (), None),
    i.Update("A", 1, "none", (), 1),
    i.CreateObject("A", "text"),
    i.CreateObject("B", 1),
    i.ArrayInsert("A", 1, "l", (0,), 1, 5),
]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_error_leaves_the_snapshot(bad: i.Instruction) -> None:
    """A contradiction raises, the old snapshot holds what it held, and the next transaction applies to it."""
    first = [i.CreateObject("A", 1), i.Update("A", 1, "n", (), 5)]
    base = apply(_start(), Changeset.from_instructions(first)).snapshot
    held = _content(base)
    good = [i.CreateObject("A", 2), i.Update("A", 1, "n", (), 6)]
    with pytest.raises(ApplyError):
        apply(base, Changeset.from_instructions([*good, bad]))
    assert _content(base) == held
    assert _content(apply(base, Changeset.from_instructions(good)).snapshot)[1]["n"] == 6


ZERO, MINUS, TEN = (Decimal128.from_parts(*p) for p in ((0, 0, False), (0, 0, True), (1, 1, False)))


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(("writes", "held"), [([MINUS], ZERO), ([TEN, MINUS], MINUS), ([MINUS, TEN], TEN)])
def test_decimal_minus_zero(writes: list[Decimal128], held: Decimal128, slow: bool) -> None:
    """In a column of zeros -0 is no change; once there was another number, it is kept."""
    props = {"_id": Property("_id", PropertyType.INT), "d": Property("d", PropertyType.DECIMAL128)}
    props["n"] = Property("n", PropertyType.INT)
    base = apply(Snapshot.empty(), schema_changeset(Schema([ObjectSchema("A", props, "_id")]))).snapshot
    base = apply(base, Changeset.from_instructions([i.CreateObject("A", 1)])).snapshot
    found: list[i.Instruction] = [i.AddInteger("A", 1, "n", (), 1)] if slow else []
    found += [i.Update("A", 1, "d", (), w) for w in writes]
    assert apply(base, Changeset.from_instructions(found)).snapshot.values("A", "d") == [held]
