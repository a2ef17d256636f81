"""Loading: changesets that only create and fill objects, beside plain dictionaries changed one by one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe import store
from realmframe.changes import Changeset, codec
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError, BadChangesetError, ChangesetError
from realmframe.model import Collection, Decimal128, GlobalKey, Key, Link, ObjectId, PropertyType, Timestamp
from realmframe.store import Entry, Owner, Progress, RealmStore, load, loaded
from realmframe.store.apply import loaded_only
from tests.plain import PlainRealm, content, plain_content

P, SINGLE = PropertyType, Collection.SINGLE
KEYS: dict[str, tuple[P | None, tuple[Key, ...]]] = {
    "I": (P.INT, (0, 1, -1, 1 << 40, -(1 << 63), 7)),
    "S": (P.STRING, ("", "a", "é", "a longer one", "aa", "b")),
    "O": (P.OBJECT_ID, tuple(ObjectId(bytes([n]) * 12) for n in (0, 1, 127, 128, 255, 9))),
    "V": (P.UUID, tuple(uuid.UUID(bytes=bytes([n]) * 16) for n in (0, 1, 127, 128, 255, 9))),
    "G": (None, tuple(GlobalKey(n, m) for n, m in ((0, 0), (1, 2), (2, 1), ((1 << 64) - 1, 5), (0, 1), (3, 3)))),
}
VALUES: dict[P, tuple[Any, ...]] = {
    P.INT: (0, 1, -1, (1 << 63) - 1, -(1 << 63)),
    P.BOOL: (True, False),
    P.STRING: ("", "a", "é\0", "x" * 300),
    P.DATA: (b"", b"a", b"\xff\x00"),
    P.DATE: (Timestamp(0, 0), Timestamp(1, 5), Timestamp(-1, -5), Timestamp(9_000_000_000, 999_999_999)),
    P.FLOAT: tuple(np.float32(n) for n in (0.0, -0.0, 1.5, np.inf)),
    P.DOUBLE: (0.0, -0.0, -1.5, np.nan),
    P.DECIMAL128: (Decimal128.from_parts(0, 0, False), Decimal128.from_parts(15, -1, True)),
    P.OBJECT_ID: KEYS["O"][1],
    P.UUID: KEYS["V"][1],
}
LINKS: list[Any] = [i.AddColumn("I", f"to{name}", P.OBJECT, True, SINGLE, name) for name in KEYS]
COLUMNS: list[Any] = [
    *(i.AddColumn("I", f"{kind.name}{int(null)}", kind, null) for kind in VALUES for null in (False, True)),
    *LINKS,
    i.AddColumn("I", "list", P.INT, False, Collection.LIST),
    i.AddColumn("I", "any", P.MIXED, True),
    *(i.AddColumn(name, "n", P.INT) for name in "SOVG"),
    *(i.AddColumn(name, "s", P.STRING, True) for name in "SOVG"),
]
SCHEMA: list[Any] = [
    *(i.AddTable(n, pk_field="_id" if kind else "", pk_type=kind) for n, (kind, _) in KEYS.items()),
    *COLUMNS,
]
FIELDS = {name: [c for c in COLUMNS if c.table == name and c.field not in ("list", "any")] for name in KEYS}
EMPTY = store.apply(store.Snapshot.empty(), Changeset.from_instructions(SCHEMA)).snapshot
HELD: list[Any] = [i.CreateObject(name, keys[5]) for name, (_, keys) in KEYS.items()]
BASE = store.apply(EMPTY, Changeset.from_instructions(HELD)).snapshot


def decoded(instructions: Any) -> Changeset:
    """Make a changeset as it comes off the wire."""
    return Changeset.decode(Changeset.from_instructions(instructions).encode())


def blocks(parts: list[list[Any]], rows: int) -> Iterator[tuple[Changeset, bool]]:
    """Give changesets in small blocks, as they are decoded from bytes."""
    for part in parts:
        for number, block in enumerate(codec.decode_blocks(Changeset.from_instructions(part).encode(), rows)):
            yield block, number == 0


@st.composite
def fills(draw: st.DrawFn) -> list[Any]:
    """Draw creations and updates: of any class, by object, by column or in any order, a key or a place twice."""
    made: list[Any] = []
    for name in draw(st.lists(st.sampled_from("IISOVG"), min_size=1, max_size=3)):
        keys = draw(st.lists(st.sampled_from(KEYS[name][1][:5]), min_size=1, max_size=6))
        made += [i.CreateObject(name, key) for key in keys]
        pairs = draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(FIELDS[name])), max_size=20))
        if draw(st.booleans()):
            pairs.sort(key=lambda pair: FIELDS[name].index(pair[1]))
        for key, column in pairs:
            value = draw(st.sampled_from([None] if column.nullable else VALUES[column.type]))
            if column.type is P.OBJECT:
                target = column.link_target
                value = draw(st.sampled_from([None, *(Link(target, k) for k in KEYS[target][1])]))
            elif column.nullable:
                value = draw(st.sampled_from([None, *VALUES[column.type]]))
            made.append(i.Update(name, key, column.field, (), value))
    return made


@settings(max_examples=150)
@given(made=fills(), cut=st.integers(0, 40), rows=st.integers(1, 9), slab=st.integers(1, 4), held=st.booleans())
def test_loaded_equals_dictionaries(made: list[Any], cut: int, rows: int, slab: int, held: bool) -> None:
    """At once, or in blocks of two changesets, with small slabs: objects are loaded, and are what dictionaries hold."""
    base, plain = (BASE, PlainRealm([*SCHEMA, *HELD])) if held else (EMPTY, PlainRealm(SCHEMA))
    for one in made:
        plain.apply(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "CHUNK_ROWS", slab)
        patch.setattr(load, "_FREE", 1_000_000)
        patch.setattr(loaded, "_LAZY_ROWS", 2)
        parts = [made[:cut], made[cut:]]
        for given_parts in ([(decoded(made), True)], blocks(parts, rows)):
            found = loaded_only(base, given_parts, version=9)
            assert found is not None
            assert found.snapshot.version == 9
            assert content(found.snapshot) == plain_content(plain)
            for name, touched in found.touched.items():
                after = found.snapshot.table(name)
                assert touched.inserted.tolist() == list(range(base.table(name).next_id, after.next_id))
                assert not touched.modified
                keys = [after.key(row) for row in range(len(after))]
                assert after.find(keys).tolist() == list(range(len(keys)))
                assert after.find(after.keys()).tolist() == list(range(len(keys)))
            assert content(store.apply(found.snapshot, found.inverse).snapshot) == content(base)
    assert content(store.apply(base, decoded(made)).snapshot) == plain_content(plain)


FRESH = i.CreateObject("I", 100)
#: What cannot be loaded, each after the creation of an object.
UNFIT: dict[str, list[Any]] = {
    "an object that was there": [i.Update("I", 7, "INT0", (), 1)],
    "a creation of what was there": [i.CreateObject("I", 7)],
    "an erasure": [i.EraseObject("I", 100)],
    "a counter": [i.AddInteger("I", 100, "INT0", (), 1)],
    "the front of a list": [i.ArrayInsert("I", 100, "list", (n,), 1, size) for n, size in ((0, 0), (0, 1))],
    "an element of a list": [i.ArrayInsert("I", 100, "list", (0,), 1, 0), i.Update("I", 100, "list", (0,), 2)],
    "a mixed value": [i.Update("I", 100, "any", (), 1)],
    "a date far away": [i.Update("I", 100, "DATE0", (), Timestamp(1 << 60, 0))],
    "a column that came later": [i.AddColumn("I", "new", P.INT), i.Update("I", 100, "new", (), 1), HELD[0]],
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_loaded_is_applied(name: str) -> None:
    """Anything else is told apart, and gives what it gives in dictionaries; the state before stays as it was."""
    made, plain = [FRESH, *UNFIT[name]], PlainRealm([*SCHEMA, *HELD])
    before = content(BASE)
    assert loaded_only(BASE, [(decoded(made), True)], version=1) is None
    assert content(BASE) == before
    for one in made:
        plain.apply(one)
    assert content(store.apply(BASE, decoded(made)).snapshot) == plain_content(plain)
    # The attempt entered nothing into the index that snapshots share.
    assert content(store.apply(BASE, decoded([FRESH])).snapshot) != before


def test_negative_decimal_zero_goes_the_general_way() -> None:
    """A column of zeros takes a negative decimal zero for 0, as the real engine does; one that may be null keeps it."""
    minus = Decimal128.from_parts(0, 0, True)
    for field, fits in (("DECIMAL1280", False), ("DECIMAL1281", True)):
        made = decoded([FRESH, i.Update("I", 100, field, (), minus)])
        assert (loaded_only(EMPTY, [(made, True)], version=1) is not None) is fits
        assert store.apply(EMPTY, made).snapshot.values("I", field)[0].negative is fits


WRONG: dict[str, list[Any]] = {
    "null": [i.Update("I", 100, "INT0", (), None)],
    "another type": [i.Update("I", 100, "INT0", (), "x")],
    "no such property": [i.Update("I", 100, "nothing", (), 1)],
    "no such object": [i.Update("I", 101, "INT0", (), 1)],
    "no such class": [i.CreateObject("Z", 1)],
    "a key of another type": [i.CreateObject("I", "x")],
    "a link to another class": [i.Update("I", 100, "toS", (), Link("O", KEYS["O"][1][0]))],
    "a link by another key": [i.Update("I", 100, "toS", (), Link("S", 5))],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_changesets_are_refused(name: str) -> None:
    """What contradicts the state is an error, also after much that could be loaded."""
    many = [i.CreateObject("S", f"{n}") for n in range(100)]
    with pytest.raises(ApplyError):
        store.apply(BASE, decoded([*many, FRESH, *WRONG[name]]))
    assert len(store.apply(BASE, decoded(many)).snapshot.table("S")) == 101


def test_order_that_jumps_between_slabs_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where going from object to object costs too much, the general way is gone, with the same result."""
    monkeypatch.setattr(load, "CHUNK_ROWS", 256)
    order = np.random.default_rng(1).permutation(2_000).tolist()
    creations = [i.CreateObject("V", uuid.UUID(int=n)) for n in range(2_000)]
    for numbers, fits in ((range(2_000), True), (order, False)):
        made = decoded([*creations, *(i.Update("V", uuid.UUID(int=n), "n", (), n) for n in numbers)])
        assert (loaded_only(EMPTY, [(made, True)], version=1) is not None) is fits
        assert store.apply(EMPTY, made).snapshot.values("V", "n") == list(range(2_000))


@settings(max_examples=150)
@given(made=fills(), rows=st.integers(1, 9), data=st.data())
def test_blocks_are_the_changeset(made: list[Any], rows: int, data: st.DataObject) -> None:
    """Blocks hold the instructions of the whole; bytes that are damaged fail as they do at once."""
    raw = Changeset.from_instructions([*SCHEMA, *made, i.ArrayMove("I", 1, "list", (3,), 4, 5)]).encode()
    found = [one for block in codec.decode_blocks(raw, rows) for one in block.instructions()]
    assert repr(found) == repr(Changeset.decode(raw).instructions())
    at = data.draw(st.integers(0, len(raw) - 1))
    bad = raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :]
    try:
        whole: Any = repr(Changeset.decode(bad).instructions())
    except ChangesetError as fault:
        whole = type(fault)
    try:
        parts: Any = repr([one for block in codec.decode_blocks(bad, rows) for one in block.instructions()])
    except ChangesetError as fault:
        parts = type(fault)
    assert parts == whole


def _many(first: int, count: int) -> list[Any]:
    made: list[Any] = []
    for n in range(first, first + count):
        made += [i.CreateObject("S", f"key {n}"), i.Update("S", f"key {n}", "s", (), f"{n}" * 3)]
        made.append(i.Update("S", f"key {n}", "n", (), n))
    return made


@pytest.mark.parametrize("way", ["commit", "integrate"])
def test_large_changesets_come_back(tmp_path: Path, way: str) -> None:
    """Large changesets that are committed, or come in several entries, are the same before and after opening again."""
    parts = [_many(n, 4_000) for n in (0, 4_000)]
    with RealmStore.open(tmp_path / "a.realm", owner=Owner("app", "ann")) as opened:
        if way == "commit":
            for part in (SCHEMA, *parts):
                opened.commit(Changeset.from_instructions(part), timestamp=0)
        else:
            data = [Changeset.from_instructions(part).encode() for part in (SCHEMA, *parts)]
            opened.integrate([Entry(1, 0, 0, 9, d) for d in data], Progress(1, 0, 1))
        held = content(opened.snapshot)
        opened.set_extra(done=True)
    plain = PlainRealm(SCHEMA)
    for one in [*parts[0], *parts[1]]:
        plain.apply(one)
    assert held == plain_content(plain)
    with RealmStore.open(tmp_path / "a.realm", owner=Owner("app", "ann")) as opened:
        assert content(opened.snapshot) == held


def test_damaged_entries_leave_nothing(tmp_path: Path) -> None:
    """An entry that is damaged near its end, after much that was loaded, is refused; the realm stays as it was."""
    data = Changeset.from_instructions(_many(0, 4_000)).encode()
    with RealmStore.open(tmp_path / "a.realm", owner=Owner("app", "ann")) as opened:
        opened.integrate([Entry(1, 0, 0, 9, Changeset.from_instructions(SCHEMA).encode())], Progress(1, 0, 1))
        before = opened.snapshot
        with pytest.raises(BadChangesetError):
            opened.integrate([Entry(2, 0, 0, 9, data), Entry(2, 0, 0, 9, data[:-1])], Progress(2, 0, 2))
        assert opened.snapshot is before
        opened.integrate([Entry(2, 0, 0, 9, data)], Progress(2, 0, 2))
        assert len(opened.snapshot.table("S")) == 4_000


def test_small_commits_are_joined_whether_or_not_they_were_read() -> None:
    """Objects created one by one, some of the snapshots read in between, are all there in every snapshot."""
    snapshot, kept = EMPTY, []
    for n in range(60):
        snapshot = store.apply(snapshot, decoded(_many(n, 1))).snapshot
        kept.append(snapshot)
        if n % 7 == 3:
            assert snapshot.values("S", "n") == list(range(n + 1))
    assert len(snapshot.table("S").chunks) < 8
    for n, old in enumerate(kept):
        assert old.values("S", "n") == list(range(n + 1))
        assert old.values("S", "_id") == [f"key {m}" for m in range(n + 1)]
        assert old.values("S", "s") == [f"{m}" * 3 for m in range(n + 1)]
