"""Whatever several sides do at once, in whatever order it arrives, leads to one state; but for the named anomalies."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe import store
from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError, MergeError
from realmframe.merge import Timed, transform
from realmframe.model import Collection, Decimal128, GlobalKey, Link, Marker
from tests.merge.anomalies import ANOMALIES, OF_THREE, found, found_in_three
from tests.merge.conftest import BASE, FIELDS, several, timed
from tests.plain import PlainRealm, content, unordered
from tests.writer import Writer

BASE_STATE = store.apply(store.Snapshot.empty(), Changeset.from_instructions(BASE)).snapshot
Parts = list[list[Any]]


def reached(changesets: Sequence[Changeset]) -> dict[str, Any]:
    """Apply to the base."""
    snapshot = BASE_STATE
    for changeset in changesets:
        snapshot = store.apply(snapshot, changeset).snapshot
    return unordered(content(snapshot))


def both_ways(left: Parts, right: Parts, stamps: Sequence[Any]) -> list[Any]:
    """Give the states of A then T(B, A) and of B then T(A, B), or what failed."""
    one = [timed(part, at, 1) for part, at in zip(left, stamps[0], strict=False)]
    other = [timed(part, at, 2) for part, at in zip(right, stamps[1], strict=False)]
    try:
        one_out, other_out = transform(one, other)
    except MergeError as error:
        return [error]
    states: list[Any] = []
    for first, then in ((one, other_out), (other, one_out)):
        try:
            states.append(reached([*(t.changeset for t in first), *then]))
        except ApplyError as error:
            states.append(error)
    return states


def anomalies(parts: Sequence[Parts]) -> set[str]:
    """Name the anomalies that any two of several sides may show."""
    whole = [[one for part in side for one in part] for side in parts]
    return {name for left, right in itertools.combinations(whole, 2) for name in found(left, right)}


STAMPS = st.tuples(*[st.integers(0, 3)] * 2)


@settings(max_examples=250)
@given(both=several(2), stamps=st.tuples(STAMPS, STAMPS))
def test_both_ways_reach_one_state(both: list[Parts], stamps: Any) -> None:
    """A and then T(B, A) gives what B and then T(A, B) gives, unless an anomaly has a name."""
    states = both_ways(both[0], both[1], stamps)
    if not anomalies(both):
        assert len(states) == 2, states
        assert states[0] == states[1]


def arrived_in(order: Sequence[int], parts: Sequence[Parts], at: Sequence[int]) -> dict[str, Any]:
    """Give the state of a server that gets the sides in this order."""
    log: list[Timed] = []
    for side in order:
        new = [timed(part, at[side], side + 1) for part in parts[side]]
        _, arrived = transform(log, new)
        log += [Timed(Changeset.decode(c.encode()), at[side], side + 1) for c in arrived]
    return reached([t.changeset for t in log])


@settings(max_examples=60)
@given(parts=several(3, 5), at=st.permutations([1, 2, 3]) | st.just([2, 2, 2]))
def test_three_sides_in_any_order(parts: list[Parts], at: list[int]) -> None:
    """A server that takes what three files did, in any order, reaches one state, unless an anomaly has a name."""
    if anomalies(parts) or set(found_in_three([[one for part in side for one in part] for side in parts])):
        return
    states = [arrived_in(order, parts, at) for order in itertools.permutations(range(3))]
    assert all(state == states[0] for state in states)


T1 = ("T", 1)
#: For each anomaly the smallest pair of sides that shows it; the right side is the later one. The real engine gives
#: the same outputs for each of them, and the same two states or errors.
SHOWN: dict[str, tuple[list[Any], list[Any]]] = {
    "move_against_deeper_path": (
        [i.ArrayMove(*T1, "le", (2,), 0, 3)],
        [i.ArrayInsert(*T1, "le", (1, "l", 0), -1, 0)],
    ),
    "erased_column": ([i.EraseColumn("T", "n")], [i.AddInteger(*T1, "n", (), 1)]),
    "link_to_erased_class": ([i.EraseTable("G")], [i.Update(*T1, "m", (), Link("G", GlobalKey(0, 1)))]),
    "set_erase_by_storage": (
        [i.SetInsert(*T1, "st", (), Link("U", "u")), i.SetErase(*T1, "st", (), Link("U", "u"))],
        [i.SetErase(*T1, "st", (), Link("U", ""))],
    ),
    "sign_of_zero": ([i.Update(*T1, "d", (), 1.0)], [i.Update(*T1, "d", (), -0.0)]),
    "element_cleared": (
        [i.ArrayInsert(*T1, "lm", (0,), Marker.DICTIONARY, 3)],
        [i.Clear(*T1, "lm", (0,), Collection.LIST)],
    ),
    "clear_of_erased_key": (
        [i.Update(*T1, "dm", ("a",), Marker.ERASED)],
        [i.Clear(*T1, "dm", ("a",), Collection.LIST)],
    ),
    "fresh_in_dictionary": (
        [i.Update(*T1, "de", ("b",), Marker.OBJECT_VALUE), i.ArrayInsert(*T1, "de", ("b", "l", 0), -1, 0)],
        [i.Update(*T1, "de", ("b",), Marker.OBJECT_VALUE)],
    ),
    "marker_keeps_content": (
        [i.Update(*T1, "dm", ("a",), 2)],
        [i.ArrayInsert(*T1, "dm", ("a", 0), 7, 0), i.Update(*T1, "dm", ("a",), Marker.LIST)],
    ),
    "numbers_in_sets": (
        [i.SetInsert(*T1, "sm", (), 0.0)],
        [i.SetInsert(*T1, "sm", (), Decimal128.from_decimal("0"))],
    ),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_each_anomaly_is_shown(name: str) -> None:
    """The two ways differ, or one fails; and the search for anomalies finds this one and no other."""
    left, right = SHOWN[name]
    assert set(found(left, right)) == set(found(right, left)) == {name}
    states = both_ways([left], [right], ((0,), (1,)))
    assert len(states) == 2
    assert states[0] != states[1]


M = (*T1, "m", ())
#: For each anomaly of three what they do, and when.
SHOWN_BY_THREE: dict[str, tuple[list[Any], tuple[int, int, int]]] = {
    "around_a_removal": (
        [i.ArrayErase(*T1, "li", (1,), 4), *(i.ArrayInsert(*T1, "li", (at,), at + 6, 4) for at in (1, 2))],
        (3, 4, 0),
    ),
    "addition_to_no_integer": ([i.AddInteger(*M, 1), i.Update(*M, "x"), i.Update(*M, 5)], (3, 1, 2)),
}


@pytest.mark.parametrize("name", OF_THREE)
def test_each_anomaly_of_three_is_shown(name: str) -> None:
    """No two of the sides show an anomaly, but in different orders the three give two states."""
    made, at = SHOWN_BY_THREE[name]
    parts = [[[one]] for one in made]
    assert not anomalies(parts)
    assert set(found_in_three([[one] for one in made])) == {name}
    states = [repr(arrived_in(order, parts, at)) for order in itertools.permutations(range(3))]
    assert len(set(states)) == 2


#: Pairs close to the anomalies that do converge.
CONVERGING: dict[str, tuple[list[Any], list[Any]]] = {
    "a move against an update of an element": (
        [i.ArrayMove(*T1, "li", (0,), 3, 4)],
        [i.Update(*T1, "li", (2,), 9, prior_size=4)],
    ),
    "an erased property against an update": ([i.EraseColumn("T", "n")], [i.Update(*T1, "n", (), 1)]),
    "set erasures of numbers": ([i.SetErase(*T1, "si", (), 1)], [i.SetErase(*T1, "si", (), 0)]),
    "a clear of a whole list": (
        [i.ArrayInsert(*T1, "lm", (0,), 1, 3)],
        [i.Clear(*T1, "lm", (), Collection.LIST)],
    ),
    "an insertion that shifts a path into a collection": (
        [i.ArrayInsert(*T1, "lm", (0,), 1, 3)],
        [i.ArrayInsert(*T1, "lm", (0, 0), 7, 2)],
    ),
    "two embedded objects in one property": (
        [i.Update(*T1, "to", (), None), i.Update(*T1, "e", ("x",), 1)],
        [i.Update(*T1, "e", (), None), i.Update(*T1, "e", (), Marker.OBJECT_VALUE)],
    ),
}


@pytest.mark.parametrize("name", CONVERGING)
def test_close_to_an_anomaly(name: str) -> None:
    """What is no anomaly converges, whichever side is later."""
    left, right = CONVERGING[name]
    for stamps in (((0,), (1,)), ((1,), (0,))):
        states = both_ways([left], [right], stamps)
        assert len(states) == 2
        assert states[0] == states[1]


def test_the_random_sides_do_meet() -> None:
    """The transactions have every kind of instruction, at depth too, and change one another often enough."""
    rng, kinds, deep, met = random.Random(5), set[str](), 0, 0
    for _ in range(150):
        focus, sides = rng.sample(FIELDS, 2), []
        for _ in range(2):
            writer = Writer(PlainRealm(BASE), rng.randrange, focus=focus)
            for _ in range(12):
                writer.step()
            sides.append(writer.made)
            kinds |= {type(one).__name__ for one in writer.made}
            deep += sum(len(getattr(one, "path", ())) > 1 for one in writer.made)
        both = [[timed(side, at, at)] for at, side in enumerate(sides, 1)]
        if not set(found(*sides)):
            outputs = transform(both[0], both[1])
            met += any(out[0] is not side[0].changeset for out, side in zip(outputs, both, strict=True))
    assert kinds == {kind.__name__ for kind in get_args(i.Instruction)}
    assert deep > 150
    assert met > 50
