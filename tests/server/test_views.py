"""What of a change a client gets: whatever its view, it holds afterwards what is in view then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.changes import Changeset, Instruction
from realmframe.changes.instructions import AddColumn, AddTable, CreateObject, EraseObject, Update
from realmframe.model import PropertyType
from realmframe.server.views import View, share
from realmframe.store import Snapshot, apply

BASE: list[Instruction] = [
    AddTable("Item", pk_field="_id", pk_type=PropertyType.INT),
    AddColumn("Item", "area", PropertyType.INT),
]
#: Views, and which areas they see; the first two see the same, one of them by its query.
VIEWS = {
    "TRUEPREDICATE": lambda _area: True,
    "area >= 0": lambda _area: True,
    "area == 1": lambda area: area == 1,
    "area < 2": lambda area: area < 2,
    "area == 9": lambda _area: False,
}


def played(held: dict[int, int], changes: list[Instruction]) -> dict[int, int]:
    """Give the areas by key after some changes, in plain Python."""
    out = dict(held)
    for one in changes:
        if isinstance(one, CreateObject):
            out.setdefault(one.pk, 0)  # type: ignore[arg-type]
        elif isinstance(one, EraseObject):
            out.pop(one.pk, None)  # type: ignore[arg-type]
        elif isinstance(one, Update) and one.pk in out:
            out[one.pk] = one.value  # type: ignore[index, assignment]
    return out


KEYS = st.integers(0, 5)
CHANGES = st.lists(
    st.one_of(
        st.builds(CreateObject, st.just("Item"), KEYS),
        st.builds(EraseObject, st.just("Item"), KEYS),
        st.builds(Update, st.just("Item"), KEYS, st.just("area"), st.just(()), st.integers(0, 3)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("query", VIEWS)
@given(steps=st.lists(CHANGES, min_size=1, max_size=4), wanted=CHANGES)
def test_what_a_client_holds_afterwards(query: str, steps: list[list[Instruction]], wanted: list[Instruction]) -> None:
    """Objects that move into view come whole, those that move out go; nothing else is said of what is out of view."""
    before, here = apply(Snapshot.empty(), Changeset.from_instructions(BASE)).snapshot, dict[int, int]()
    for step in steps:  # several commits, so that the rows lie in several chunks
        before, here = apply(before, Changeset.from_instructions(_fitting(here, step))).snapshot, played(here, step)
    changes = _fitting(here, wanted)
    changeset = Changeset.from_instructions(changes)
    after, there = apply(before, changeset).snapshot, played(here, changes)
    sees = VIEWS[query]
    held = {key: area for key, area in here.items() if sees(area)}
    found = share(View({"Item": query}), changeset, before, after)
    said = [one for part in (found.passed, found.synthetic) if part is not None for one in part.instructions()]
    assert played(held, said) == {key: area for key, area in there.items() if sees(area)}
    hidden = {key for key in here if key not in held and key in there and not sees(there[key])}
    assert not hidden & {one.pk for one in said if isinstance(one, Update)}  # type: ignore[comparison-overlap]
    if query == "TRUEPREDICATE":
        assert found.synthetic is None
        assert found.passed is (changeset if len(changeset) else None)


@given(first=CHANGES, wanted=CHANGES)
def test_a_class_that_is_wholly_in_view(first: list[Instruction], wanted: list[Instruction]) -> None:
    """It makes no difference whether every object is in view by no query, or by one that every object matches."""
    before = apply(Snapshot.empty(), Changeset.from_instructions([*BASE, *_fitting({}, first)])).snapshot
    changeset = Changeset.from_instructions(_fitting(played({}, first), wanted))
    after = apply(before, changeset).snapshot
    for is_origin in (False, True):
        whole, matched = (
            share(View({"Item": query}), changeset, before, after, is_origin=is_origin)
            for query in ("TRUEPREDICATE", "area >= 0")
        )
        assert whole.synthetic is matched.synthetic is None
        assert (whole.passed is None) == (matched.passed is None)
        if whole.passed is not None and matched.passed is not None:
            assert whole.passed.instructions() == matched.passed.instructions()


def _fitting(held: dict[int, int], changes: list[Instruction]) -> list[Instruction]:
    """Leave out what cannot be applied: updates of objects that are not there."""
    out: list[Instruction] = []
    for one in changes:
        if not isinstance(one, Update) or one.pk in held:
            out.append(one)
            held = played(held, [one])
    return out
