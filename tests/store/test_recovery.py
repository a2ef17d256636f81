"""Recovery of local changes: by rows of rules, and beside an oracle of plain dictionaries."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe import store
from realmframe.changes import Changeset, Instruction
from realmframe.changes import instructions as i
from realmframe.conformance.checks import comparable
from realmframe.conformance.vectors import state_to_json
from realmframe.errors import MergeError
from realmframe.model import Collection, Link, Marker, PropertyType
from realmframe.store import LocalChange, Snapshot, difference_changeset, keep_schema, recover, written
from tests.store.small import BASE, sides, transactions

LINKS: list[Instruction] = [
    i.AddTable("L", pk_field="_id", pk_type=PropertyType.INT),
    i.AddColumn("L", "one", PropertyType.OBJECT, nullable=True, link_target="T"),
    i.AddColumn("L", "many", PropertyType.OBJECT, collection=Collection.LIST, link_target="T"),
    i.AddColumn("L", "some", PropertyType.OBJECT, collection=Collection.SET, link_target="T"),
    i.CreateObject("L", 1),
]


def state(*parts: Sequence[Instruction], base: Snapshot | None = None) -> Snapshot:
    """Apply instructions."""
    snapshot = base or Snapshot.empty()
    for part in parts:
        snapshot = store.apply(snapshot, Changeset.decode(Changeset.from_instructions(part).encode())).snapshot
    return snapshot


BASE_STATE = state(BASE, LINKS)


def changes(parts: Sequence[Sequence[Instruction]]) -> list[LocalChange]:
    """Make local changes of instructions."""
    return [LocalChange(10 + n, 3, 7 + n, Changeset.from_instructions(p).encode()) for n, p in enumerate(parts)]


def seen(snapshot: Snapshot) -> Any:
    """Give what can be compared."""
    return comparable(state_to_json(snapshot))


# ---------------------------------------------------------------------------------------------- the oracle


class Oracle:
    """The rules once more, on plain dictionaries, for the classes that the random transactions write to."""

    def __init__(self) -> None:
        self.objects: dict[int, dict[str, Any]] = {}
        self.lists: dict[tuple[int, str], dict[str, Any]] = {}

    @classmethod
    def of(cls, snapshot: Snapshot) -> Oracle:
        """Read a state."""
        made = cls()
        table = snapshot.table("T")
        for row in range(len(table)):
            made.objects[int(table.key(row))] = copy.deepcopy(table.row(row))  # type: ignore[call-overload]
        return made

    def tracker(self, key: int, name: str) -> dict[str, Any]:
        """Give what is known of a list: pairs of places, and whether it is copied."""
        return self.lists.setdefault((key, name), {"known": [], "copy": False, "done": False})

    def place(self, key: int, name: str, local: int) -> int | None:
        """Translate a place."""
        known = self.tracker(key, name)
        size = len(self.objects[key][name])
        found = [there for here, there in known["known"] if here == local and not known["copy"]]
        if found and 0 <= found[0] < size:
            return int(found[0])
        known["copy"], known["known"] = True, []
        return None

    def take(self, one: Any) -> None:
        """Replay one instruction."""
        key = one.pk
        if isinstance(one, i.CreateObject):
            fresh = {"_id": key, "n": 0, "l": [], "e": [], "s": [], "d": {}, "m": None}
            self.objects.setdefault(key, fresh)
        elif isinstance(one, i.EraseObject):
            self.objects.pop(key, None)
        elif key in self.objects:
            self.change(one, self.objects[key])

    def change(self, one: Any, fields: dict[str, Any]) -> None:
        """Change a field of an object that exists."""
        name = one.field
        if name in ("l", "e"):
            self.change_list(one, fields[name])
        elif isinstance(one, i.AddInteger):
            fields[name] += one.value
        elif isinstance(one, i.Clear):
            fields[name].clear()
        elif isinstance(one, i.SetInsert | i.SetErase):
            kept = [v for v in fields[name] if v != one.value]
            fields[name] = [*kept, one.value] if isinstance(one, i.SetInsert) else kept
        elif one.path and one.value is Marker.ERASED:
            fields[name].pop(one.path[0], None)
        elif one.path:
            fields[name][one.path[0]] = one.value
        else:
            fields[name] = one.value

    def change_list(self, one: Any, items: list[Any]) -> None:
        """Change a list by the rules of known places."""
        key, name = one.pk, one.field
        known = self.tracker(key, name)
        if isinstance(one, i.Clear):
            items.clear()
            known["known"], known["copy"] = [], False
            return
        local = one.path[0]
        if isinstance(one, i.ArrayInsert):
            if not known["copy"]:
                there = min(local, len(items))
                known["known"] = [(h + (h >= local), t + (h >= local)) for h, t in known["known"]]
                known["known"].append((local, there))
                items.insert(there, {"x": None} if one.value is Marker.OBJECT_VALUE else one.value)
        elif isinstance(one, i.ArrayMove):
            self.move(one, items)
        elif isinstance(one, i.ArrayErase):
            there = self.place(key, name, local)
            if there is not None:
                rest = [(h, t) for h, t in known["known"] if h != local]
                known["known"] = [(h - (h > local), t - (h > local)) for h, t in rest]
                items.pop(there)
        else:
            there = self.place(key, name, local)
            if there is not None and len(one.path) > 1:
                items[there]["x"] = one.value
            elif there is not None:
                items[there] = one.value

    def move(self, one: Any, items: list[Any]) -> None:
        """Move between two known places."""
        key, name, start, end = one.pk, one.field, one.path[0], one.ndx_2
        first, second = self.place(key, name, start), self.place(key, name, end)
        if first is None or second is None:
            self.tracker(key, name).update(copy=True, known=[])
            return
        known = self.tracker(key, name)
        low, high, step = min(start, end), max(start, end), -1 if start < end else 1
        rest = [(h, t) for h, t in known["known"] if h != start]
        shift = [(h + step, t + step) if low <= h <= high else (h, t) for h, t in rest]
        known["known"] = [*shift, (end, second)]
        if first != second:
            items.insert(second, items.pop(first))

    def end_of_changeset(self, local: Oracle) -> None:
        """Copy the lists whose places are not known."""
        for (key, name), known in self.lists.items():
            if known["copy"] and not known["done"] and key in self.objects and key in local.objects:
                self.objects[key][name] = copy.deepcopy(local.objects[key][name])
                known["done"] = True

    def content(self) -> dict[int, Any]:
        """Give what can be compared."""
        sorted_sets = {k: {**f, "s": sorted(f["s"])} for k, f in self.objects.items()}
        return {k: {n: ([dict(e) for e in v] if n == "e" else v) for n, v in f.items()} for k, f in sorted_sets.items()}


@settings(max_examples=120)
@given(local=sides(), remote=transactions(8))
def test_recovery_beside_the_oracle(local: Any, remote: Any) -> None:
    """Random local changes, replayed on what random remote changes left, give what the oracle gives."""
    mine, fresh = state(*local, base=BASE_STATE), state(remote, base=BASE_STATE)
    oracle, own = Oracle.of(fresh), Oracle.of(mine)
    for part in local:
        for one in part:
            oracle.take(one)
        if part:
            oracle.end_of_changeset(own)
    found = recover(fresh, mine, changes(local), 9)
    assert Oracle.of(found.snapshot).content() == oracle.content()
    # What is uploaded leads a server that has the fresh state to the same.
    sent = fresh
    for change in found.changes:
        assert (change.server_version, change.version >= 10) == (9, True)
        sent = store.apply(sent, Changeset.decode(change.changeset)).snapshot
    assert seen(sent) == seen(found.snapshot)
    # And the realm itself gets there by one changeset.
    changeset = difference_changeset(mine, found.snapshot)
    assert seen(store.apply(mine, Changeset.decode(changeset.encode())).snapshot) == seen(found.snapshot)


@settings(max_examples=50)
@given(local=sides(), remote=transactions(8))
def test_discarding_leaves_the_fresh_state(local: Any, remote: Any) -> None:
    """Discarding leaves exactly what the server has; what is listed as lost is what differs from it."""
    mine, fresh = state(*local, base=BASE_STATE), state(remote, base=BASE_STATE)
    kept = keep_schema(fresh, changes(local), 9)
    assert kept.changes == []
    assert seen(kept.snapshot) == seen(fresh)
    assert seen(store.apply(mine, difference_changeset(mine, fresh)).snapshot) == seen(fresh)
    before, after = Oracle.of(mine).objects, Oracle.of(fresh).objects
    for lost in written(mine, fresh, changes(local), "discarded"):
        key = int(lost.key)  # type: ignore[call-overload]
        assert lost.reason == "discarded"
        assert all(before[key][n] == v for n, v in lost.values.items())
        # 1 and True are equal in Python, and different values of Mixed.
        differs = [
            type(after[key][n]) is not type(v) or after[key][n] != v for n, v in lost.values.items() if key in after
        ]
        assert key not in before or key not in after or any(differs)


@settings(max_examples=50)
@given(old=transactions(8), new=transactions(8))
def test_difference_of_equal_states_is_empty(old: Any, new: Any) -> None:
    """The difference leads from any state to any other; between equal states there is none."""
    one, other = state(old, base=BASE_STATE), state(new, base=BASE_STATE)
    assert seen(store.apply(one, difference_changeset(one, other)).snapshot) == seen(other)
    assert len(difference_changeset(one, one)) == 0
    assert len(difference_changeset(one, state(old, base=BASE_STATE))) == 0


# ---------------------------------------------------------------------------------------------- the rules, by rows

T1: tuple[str, int] = ("T", 1)
CASES: dict[str, tuple[list[Instruction], list[Instruction], Any]] = {
    "an update of what was deleted is left out": (
        [i.EraseObject(*T1)],
        [i.Update(*T1, "n", (), 5)],
        lambda t: t.get(1),
    ),
    "what is created anew comes back": (
        [i.EraseObject(*T1)],
        [i.EraseObject(*T1), i.CreateObject(*T1), i.Update(*T1, "n", (), 5)],
        lambda t: t[1]["n"] == 5,
    ),
    "additions add to what the server has": (
        [i.Update(*T1, "n", (), 40)],
        [i.AddInteger(*T1, "n", (), 2)],
        lambda t: t[1]["n"] == 42,
    ),
    "a key of a dictionary that is gone is not erased again": (
        [i.Update(*T1, "d", ("a",), Marker.ERASED)],
        [i.Update(*T1, "d", ("a",), Marker.ERASED)],
        lambda t: t[1]["d"] == {"b": 7},
    ),
    "insertions keep their places": (
        [i.ArrayErase(*T1, "l", (0,), 4)],
        [i.ArrayInsert(*T1, "l", (4,), 99, 4)],
        lambda t: t[1]["l"] == [10, 20, 30, 99],
    ),
    "a change of an element that is not known copies the list": (
        [i.ArrayErase(*T1, "l", (0,), 4)],
        [i.Update(*T1, "l", (3,), 5, prior_size=4)],
        lambda t: t[1]["l"] == [0, 10, 20, 5],
    ),
    "after a clear all places are known": (
        [i.ArrayErase(*T1, "l", (0,), 4)],
        [i.Clear(*T1, "l", (), Collection.LIST), i.ArrayInsert(*T1, "l", (0,), 1, 0), i.ArrayErase(*T1, "l", (0,), 1)],
        lambda t: t[1]["l"] == [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str) -> None:
    """Each rule in one row: what the server did, what the client had done, what holds after."""
    remote, local, holds = CASES[name]
    mine = state(local, base=BASE_STATE)
    found = recover(state(remote, base=BASE_STATE), mine, changes([local]), 9)
    objects = Oracle.of(found.snapshot).objects
    result = holds(objects)
    assert result or (result is None and 1 not in objects)


def test_links_to_deleted_objects() -> None:
    """A link to what the server deleted becomes null; in lists and sets it is left out, and told."""
    local: list[Instruction] = [
        i.Update("L", 1, "one", (), Link("T", 1)),
        i.ArrayInsert("L", 1, "many", (0,), Link("T", 2), 0),
        i.ArrayInsert("L", 1, "many", (1,), Link("T", 1), 1),
        i.SetInsert("L", 1, "some", (), Link("T", 1)),
    ]
    found = recover(state([i.EraseObject("T", 1)], base=BASE_STATE), state(local, base=BASE_STATE), changes([local]), 9)
    row = found.snapshot.table("L").row(0)
    assert (row["one"], list(row["many"]), list(row["some"])) == (None, [Link("T", 2)], [])
    assert [(x.cls, x.key) for x in found.lost] == [("L", 1)]


def test_links_to_what_was_deleted_here() -> None:
    """Links that others made to an object which this client deleted are taken away with it."""
    remote: list[Instruction] = [
        i.Update("L", 1, "one", (), Link("T", 1)),
        i.ArrayInsert("L", 1, "many", (0,), Link("T", 1), 0),
    ]
    local: list[Instruction] = [i.EraseObject("T", 1)]
    fresh = state(remote, base=BASE_STATE)
    found = recover(fresh, state(local, base=BASE_STATE), changes([local]), 9)
    row = found.snapshot.table("L").row(0)
    assert (row["one"], list(row["many"])) == (None, [])
    assert seen(store.apply(fresh, Changeset.decode(found.changes[-1].changeset)).snapshot) == seen(found.snapshot)


def test_lost_changes_are_named() -> None:
    """What cannot be recovered is listed with class, key, values and reason."""
    local: list[Instruction] = [i.Update("T", 1, "n", (), 5), i.Update("T", 1, "d", ("a",), 6)]
    found = recover(state([i.EraseObject("T", 1)], base=BASE_STATE), state(local, base=BASE_STATE), changes([local]), 9)
    assert found.changes == []
    assert [(x.cls, x.key) for x in found.lost] == [("T", 1)]
    assert found.lost[0].values == {"n": 5, "d": 6}
    assert "does not exist" in found.lost[0].reason


def test_plain_changes_that_are_lost() -> None:
    """So are those of fields alone; that somebody else deleted what was deleted here is no loss."""
    local: list[Instruction] = [i.Update("T", 1, "n", (), 5)]
    gone = state([i.EraseObject("T", 1)], base=BASE_STATE)
    found = recover(gone, state(local, base=BASE_STATE), changes([local]), 9)
    assert [(x.cls, x.key, x.values) for x in found.lost] == [("T", 1, {"n": 5})]
    assert found.changes == []
    erased: list[Instruction] = [i.EraseObject("T", 1)]
    found = recover(gone, state(erased, base=BASE_STATE), changes([erased]), 9)
    assert (found.lost, found.changes) == ([], [])


@pytest.mark.parametrize(
    ("local", "text"),
    [
        ([i.EraseTable("L")], "erase a class"),
        ([i.EraseColumn("T", "n")], "erase a class or a property"),
        ([i.AddColumn("T", "n", PropertyType.STRING)], "exists as int"),
        ([i.Update("T", 1, "gone", (), 1)], "no property 'gone'"),
    ],
)
def test_what_ends_a_recovery(local: list[Instruction], text: str) -> None:
    """Destructive or contradicting schema cannot be recovered."""
    with pytest.raises(MergeError, match=text):
        recover(BASE_STATE, BASE_STATE, changes([local]), 9)


@settings(max_examples=30)
@given(keys=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["create", "erase", "write"])), max_size=12))
def test_plain_objects_as_columns(keys: Any) -> None:
    """The way by columns agrees with one instruction at a time about which objects exist when."""
    make = {
        "create": lambda k: i.CreateObject("T", k),
        "erase": lambda k: i.EraseObject("T", k),
        "write": lambda k: i.Update("T", k, "m", (), k * 10),
    }
    local = [make[what](key) for key, what in keys]
    oracle = Oracle.of(BASE_STATE)
    for one in local:
        oracle.take(one)
    found = recover(BASE_STATE, BASE_STATE, changes([local] if local else []), 9)
    assert Oracle.of(found.snapshot).content() == oracle.content()
