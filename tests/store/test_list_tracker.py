"""The places of a list that a recovery knows, beside dictionaries."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.store.list_tracker import ListTracker

STEPS = st.tuples(st.sampled_from("iiiiuemc"), st.integers(0, 6), st.integers(0, 6))


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=40))
def test_places_against_a_dictionary(steps: list[tuple[str, int, int]]) -> None:
    """Known elements are found at the places at which a dictionary from one side to the other has them."""
    tracker, known, lost = ListTracker(), dict[int, int](), False
    for kind, one, two in steps:
        if kind == "c":
            tracker.clear()
            known, lost = {}, False
            continue
        if kind == "i":
            found: object = tracker.insert(one, two)
            wanted: object = None if lost else min(one, two)
            if not lost:
                known = {here + (here >= one): there + (here >= one) for here, there in known.items()}
                known[one] = min(one, two)
        elif lost or one not in known or (kind == "m" and (two not in known or one == two)):
            found = tracker.move(one, two) if kind == "m" else (tracker.update if kind == "u" else tracker.erase)(one)
            wanted, known, lost = None, {}, True
        elif kind == "u":
            found, wanted = tracker.update(one), known[one]
        elif kind == "e":
            found, wanted = tracker.erase(one), known.pop(one)
            known = {here - (here > one): there - (here > one) for here, there in known.items()}
        else:
            found, wanted = tracker.move(one, two), (known[one], known[two])
            del known[one]
            step, low, high = (-1 if one < two else 1), min(one, two), max(one, two)
            known = {h + step * (low <= h <= high): t + step * (low <= h <= high) for h, t in known.items()}
            known[two] = wanted[1]
        assert found == wanted
        assert tracker.wants_copy == lost


def test_many_elements_cost_little_each() -> None:
    """Twenty thousand insertions and updates take no more than some microseconds for each."""
    tracker, start = ListTracker(), time.process_time()
    for n in range(20_000):
        assert tracker.insert(n // 2, 100_000) == n // 2
        assert tracker.update(n // 2) == n // 2
    assert time.process_time() - start < 10
