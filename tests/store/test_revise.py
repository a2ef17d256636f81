"""The way from any nested value to any other leads there to the last bit, near-equal numbers included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe import store
from realmframe.changes import Changeset, Instruction
from realmframe.changes import instructions as i
from realmframe.model import Collection, Decimal128, PropertyType, RealmSet, Schema
from realmframe.store import Snapshot
from realmframe.store.mixed import exact
from realmframe.store.nested import same_element
from realmframe.store.revise import revision_instructions

P, C, STRING = PropertyType, Collection, PropertyType.STRING
DECIMALS = tuple(map(Decimal128.from_decimal, ("0", "-0", "0.0", "1", "1.0", "-1", "NaN")))
DOUBLES = (0.0, -0.0, 1.0, 2.5, float("nan"), float("inf"))
FLOATS = tuple(map(np.float32, DOUBLES))
VALUES: dict[P, tuple[Any, ...]] = {
    P.DOUBLE: DOUBLES,
    P.FLOAT: FLOATS,
    P.DECIMAL128: DECIMALS,
    P.MIXED: (None, True, 0, 1, *DOUBLES, *FLOATS, *DECIMALS, "0"),
}


def name_of(kind: P, where: C) -> str:
    """Name a property."""
    return f"{kind.name}_{where.name}".lower()


BASE: list[Instruction] = [
    i.AddTable("T", pk_field="_id", pk_type=P.INT),
    *(
        i.AddColumn(
            "T", name_of(kind, where), kind, kind is P.MIXED, where, None, STRING if where is C.DICTIONARY else None
        )
        for kind in VALUES
        for where in C
    ),
    i.CreateObject("T", 1),
]


def step(snapshot: Snapshot, made: list[Instruction]) -> Snapshot:
    """Apply what went over the wire."""
    return store.apply(snapshot, Changeset.decode(Changeset.from_instructions(made).encode())).snapshot


START = step(Snapshot.empty(), BASE)
SCHEMA: Schema = START.schema


def as_set(values: list[Any]) -> RealmSet:
    """Keep the first of equal members, and one zero among decimals: what a set can hold."""
    kept: list[Any] = []
    for value in values:
        if not any(same_element(value, one) for one in kept):
            kept.append(value)
    return RealmSet(kept)


def held(kind: P, where: C) -> st.SearchStrategy[Any]:
    """Draw what a property can hold."""
    value = st.sampled_from(VALUES[kind])
    if where is C.SINGLE:
        inner = st.recursive(value, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from("ab"), v))
        return inner if kind is P.MIXED else value
    if where is C.DICTIONARY:
        return st.dictionaries(st.sampled_from("abc"), value)
    return st.lists(value, max_size=4).map(as_set if where is C.SET else list)


@pytest.mark.parametrize("where", list(C), ids=lambda c: c.name.lower())
@pytest.mark.parametrize("kind", list(VALUES), ids=lambda k: k.name.lower())
@settings(max_examples=40)
@given(data=st.data())
def test_any_value_becomes_any_other(kind: P, where: C, data: Any) -> None:
    """After the revision the property holds the new value, bit by bit; between equal values there is nothing to do."""
    prop = SCHEMA["T"].properties[name_of(kind, where)]
    snapshot, before = START, START.table("T").row(0)[prop.name]
    for _ in range(3):
        after = data.draw(held(kind, where))
        snapshot = step(snapshot, list(revision_instructions(SCHEMA, "T", 1, prop, before, after)))
        found = snapshot.table("T").row(0)[prop.name]
        assert exact(found) == exact(after), (before, after)
        assert not list(revision_instructions(SCHEMA, "T", 1, prop, found, after))
        before = found
