"""Subscription sets: every move of the table and no other, editing, JSON, and what goes on the wire."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.errors import LocalProtocolError, RemoteProtocolError, UsageError
from realmframe.session.subscriptions import (
    TRANSITIONS,
    MutableSubscriptionSet,
    State,
    Step,
    SubscriptionSet,
    SubscriptionStore,
    join_texts,
    next_state,
    query_body,
    unique_ids,
)

IDS = unique_ids(7)


def _add(changes: MutableSubscriptionSet, cls: str, query: str, name: str | None = None, **how: bool) -> None:
    changes.add(cls, query, new_id=next(IDS), now=5, name=name, **how)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("step", list(Step))
def test_moves(state: State, step: Step) -> None:
    """A move of the table is made, any other is the server's fault."""
    if (state, step) in TRANSITIONS:
        assert SubscriptionSet(3, state).after(step).state is TRANSITIONS[state, step]
    else:
        with pytest.raises(RemoteProtocolError, match="query version 3"):
            next_state(state, step, 3)


def test_faults_of_the_server_are_no_moves() -> None:
    """A query error for a complete set and a bootstrap of a refused one end real clients: they are not in the table."""
    assert (State.COMPLETE, Step.QUERY_ERROR) not in TRANSITIONS
    assert (State.ERROR, Step.FIRST_BATCH) not in TRANSITIONS
    assert (State.PENDING, Step.LAST_BATCH) not in TRANSITIONS


def test_adding_and_removing() -> None:
    """A name is unique, an unnamed query too; both can be found and removed."""
    changes = SubscriptionSet().update()
    _add(changes, "P", "age > 1 ")
    _add(changes, "P", "age > 1 ")
    _add(changes, "P", "age > 1 ", "old")
    _add(changes, "D", "TRUEPREDICATE ", "dogs")
    assert len(changes) == 3
    first = changes.find_by_name("old")
    assert first is not None
    _add(changes, "P", "age > 2 ", "old", throw_on_update=False)
    second = changes.find_by_name("old")
    assert second is not None
    assert (second.id, second.query) == (first.id, "age > 2 ")
    with pytest.raises(UsageError, match="'old'"):
        _add(changes, "P", "age > 3 ", "old", throw_on_update=True)
    _add(changes, "P", "age > 2 ", "old", throw_on_update=True)
    assert changes.remove_by_name("dogs")
    assert not changes.remove_by_name("dogs")
    assert changes.remove_query("P", "age > 1 ")
    assert not changes.remove_query("P", "age > 1 ")
    assert changes.remove(second)
    assert len(changes) == 0
    assert not changes.is_changed


def test_removing_many() -> None:
    """All of a class, all without a name, or all."""
    base = SubscriptionSet().update()
    for cls, name in (("P", None), ("P", "a"), ("D", None), ("D", "b")):
        _add(base, cls, f"{name} ", name)
    made = base.commit(1, 9)
    assert made.classes == {"P", "D"}
    assert (made.version, made.snapshot_version, made.state) == (1, 9, State.PENDING)
    changes = made.update()
    assert changes.remove_all("P") == 2
    assert changes.remove_all(unnamed_only=True) == 1
    assert [s.name for s in changes] == ["b"]
    assert changes.remove_all() == 1
    assert len(made) == 4
    with pytest.raises(LocalProtocolError, match="not above"):
        changes.commit(1, 9)


def test_wire_form() -> None:
    """Per class the distinct texts are sorted, put in parentheses and joined; an empty set is an empty object."""
    changes = SubscriptionSet().update()
    for query, name in (('name == "Ann" ', None), ("age > 35 ", None), ("age > 35 ", "again")):
        _add(changes, "Person", query, name)
    _add(changes, "Dog", "TRUEPREDICATE ")
    found = query_body(changes, join_texts)
    assert found == {"Dog": "(TRUEPREDICATE )", "Person": '(age > 35 ) OR (name == "Ann" )'}
    assert list(found) == ["Dog", "Person"]
    assert query_body([], join_texts) == {}


def test_store() -> None:
    """The active set is the newest in force; newer ones are pending; a set in force supersedes the older ones."""
    store = SubscriptionStore()
    assert (store.active.version, store.latest.version) == (0, 0)
    for n in range(3):
        changes = store.latest.update()
        _add(changes, "P", f"{n} ")
        store = store.commit(changes, 10 + n)
    assert [s.version for s in store.pending] == [1, 2, 3]
    store = store.advance(2, State.AWAITING_MARK)
    assert store.active.version == 2
    assert [s.version for s in store.pending] == [3]
    assert store.state_of(1) is State.SUPERSEDED
    store = store.advance(3, State.ERROR, "bad")
    assert (store.latest.error, store.pending, store.active.version) == ("bad", (), 2)
    store = store.advance(2, State.COMPLETE)
    assert store.state_of(2) is State.COMPLETE
    assert SubscriptionStore.from_json(json.loads(json.dumps(store.to_json()))) == store
    with pytest.raises(LocalProtocolError, match="same version"):
        SubscriptionStore([SubscriptionSet(), SubscriptionSet()])


def test_changes_made_side_by_side_all_count() -> None:
    """Who commits second changes what the first one made: nothing that either of them did is lost."""
    start = SubscriptionSet().update()
    for name in ("kept", "gone here", "gone there", "changed here", "changed there"):
        _add(start, "P", f"{name} ", name)
    _add(start, "P", "unnamed ")
    store = SubscriptionStore().commit(start, 1)
    here, there = store.latest.update(), store.latest.update()
    for changes, side, other in ((here, "here", "there"), (there, "there", "here")):
        assert changes.remove_by_name(f"gone {side}")
        _add(changes, "P", f"by {side} ", f"changed {side}")
        _add(changes, "D", f"new {side} ", f"new {side}")
        _add(changes, "D", f"both, said {side} ", "both")
        _add(changes, "D", "both unnamed ")
        assert changes.find_by_name(f"gone {other}") is not None
    store = store.commit(here, 2).commit(there, 3)
    assert store.latest.version == 3
    assert {s.name: s.query for s in store.latest if s.name is not None} == {
        "kept": "kept ",
        "changed here": "by here ",
        "changed there": "by there ",
        "new here": "new here ",
        "new there": "new there ",
        "both": "both, said there ",
    }
    assert sorted(s.query for s in store.latest if s.name is None) == ["both unnamed ", "unnamed "]


def test_changed_here_and_removed_there() -> None:
    """A subscription that one side changes while the other removes it is there in the end if the change came last."""
    start = SubscriptionSet().update()
    _add(start, "P", "old ", "a")
    store = SubscriptionStore().commit(start, 1)
    changed, removed = store.latest.update(), store.latest.update()
    _add(changed, "P", "new ", "a")
    assert removed.remove_by_name("a")
    assert [s.query for s in store.commit(removed, 2).commit(changed, 3).latest] == ["new "]
    assert [s.query for s in store.commit(changed, 2).commit(removed, 3).latest] == []


def test_an_incomplete_bootstrap_begins_anew_after_a_restart() -> None:
    """What was bootstrapping when the process ended is pending when it is read."""
    store = SubscriptionStore([SubscriptionSet(1, State.BOOTSTRAPPING)])
    assert SubscriptionStore.from_json(store.to_json()).state_of(1) is State.PENDING


@given(st.lists(st.tuples(st.sampled_from("PQ"), st.text(max_size=5), st.none() | st.text(max_size=3)), max_size=8))
def test_json_survives(found: list[tuple[str, str, str | None]]) -> None:
    """Any set reads back from its JSON as itself, and every id is another."""
    changes = SubscriptionSet().update()
    for cls, query, name in found:
        _add(changes, cls, query, name)
    made = changes.commit(1, 2)
    assert SubscriptionSet.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert len({s.id for s in made}) == len(made)
    assert all(len(s.id) == 24 for s in made)
