"""Loading of collections: what is put into lists, sets and dictionaries of new objects, beside the general way."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe import store
from realmframe.changes import Changeset, codec
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError
from realmframe.model import Collection, Decimal128, Link, Marker, ObjectId, PropertyType, Timestamp
from realmframe.store import load, loaded
from realmframe.store.apply import loaded_only
from tests.plain import content

P = PropertyType
NAN = np.float32(np.nan)
#: For each type values of which some are equal and yet differ, and some look alike.
VALUES: dict[P, tuple[Any, ...]] = {
    P.INT: (0, 1, -1, -(1 << 63)),
    P.BOOL: (True, False),
    P.STRING: ("", "a", "b", "é\0", "x" * 20),
    P.DATA: (b"", b"a", b"\xff\x00"),
    P.DATE: (Timestamp(0, 0), Timestamp(1, 5), Timestamp(-1, -5), Timestamp(1 << 60, 7)),
    P.FLOAT: (np.float32(0.0), np.float32(-0.0), np.float32(1.5), np.float32(np.inf), NAN, -NAN),
    P.DOUBLE: (0.0, -0.0, -1.5, np.inf, float("nan")),
    P.DECIMAL128: tuple(
        Decimal128.from_parts(*one) for one in ((0, 0, False), (0, 0, True), (15, -1, True), (0, 1, True))
    ),
    P.OBJECT_ID: (ObjectId(bytes(12)), ObjectId(bytes([1] * 12))),
    P.OBJECT: (Link("S", "a"), Link("S", "b"), Link("S", "")),
    P.MIXED: (1, "a", True, 1.0),
}
LISTS, DICTIONARIES, SETS = Collection.LIST, Collection.DICTIONARY, Collection.SET


def _column(kind: P, collection: Collection, null: bool) -> i.AddColumn:
    target, key = "S" if kind is P.OBJECT else None, P.STRING if collection is DICTIONARIES else None
    return i.AddColumn("I", f"{kind.name}{collection.name}{int(null)}", kind, null, collection, target, key)


COLUMNS = [_column(*one) for one in itertools.product(VALUES, (LISTS, DICTIONARIES, SETS), (False, True))]
PLAIN = [i.AddColumn("I", "n", P.INT), i.AddColumn("I", "s", P.STRING, True)]
SCHEMA: list[Any] = [
    i.AddTable("S", pk_field="_id", pk_type=P.STRING),
    i.AddTable("I", pk_field="_id", pk_type=P.INT),
    *PLAIN,
    *COLUMNS,
]
EMPTY = store.apply(store.Snapshot.empty(), Changeset.from_instructions(SCHEMA)).snapshot
BASE = store.apply(EMPTY, Changeset.from_instructions([i.CreateObject("I", 9)])).snapshot
KEYS = ("", "a", "b", "é", "aa")
WRONG: tuple[Any, ...] = ("wrong", 5, Link("I", 1), Link("S", 1), Marker.LIST, Marker.OBJECT_VALUE, Marker.ERASED)


@st.composite
def fills(draw: st.DrawFn, *, wrong: bool) -> list[Any]:
    """Draw creations, and elements of a few properties, in the order of objects, of properties, or any."""
    keys = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    columns = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3))
    made: list[Any] = [i.CreateObject("I", key) for key in keys]
    pairs = draw(
        st.lists(st.tuples(st.sampled_from(keys), st.sampled_from([*columns, *columns, PLAIN[1]])), max_size=24)
    )
    if draw(st.booleans()):
        pairs.sort(key=lambda pair: pair[1].field)
    if draw(st.booleans()):
        pairs.sort(key=lambda pair: pair[0])
    sizes: dict[tuple[int, str], int] = {}
    odd = draw(st.integers(0, len(pairs))) if wrong else -1
    for number, (key, column) in enumerate(pairs):
        values = (
            [*VALUES[column.type], None] if column.nullable and column.type is not P.OBJECT else VALUES[column.type]
        )
        value = draw(st.sampled_from((*values, *((*WRONG, None) if number == odd else ()))))
        size = sizes.setdefault((key, column.field), 0)
        at = ("I", key, column.field)
        if column.collection is LISTS:
            shift = draw(st.sampled_from(((0, 0), (1, 0), (0, 1), (-1, 0)))) if number == odd else (0, 0)
            made.append(i.ArrayInsert(*at, (max(0, size + shift[0]),), value, size + shift[1]))
            sizes[key, column.field] += 1
        elif column.collection is SETS:
            made.append(i.SetInsert(*at, (), value))
        elif column.collection is DICTIONARIES:
            step = draw(st.sampled_from((*KEYS, "a.b", "$a", "x$") if number == odd else KEYS))
            made.append(i.Update(*at, (step,), value))
        else:
            made.append(i.Update(*at, (), value))
    return made


def decoded(instructions: Any) -> Changeset:
    """Make a changeset as it comes off the wire."""
    return Changeset.decode(Changeset.from_instructions(instructions).encode())


def blocks(parts: list[list[Any]], rows: int) -> Iterator[tuple[Changeset, bool]]:
    """Give changesets in small blocks, as they are decoded from bytes."""
    for part in parts:
        for number, block in enumerate(codec.decode_blocks(Changeset.from_instructions(part).encode(), rows)):
            yield block, number == 0


def generally(base: store.Snapshot, made: list[Any]) -> Any:
    """Apply by the general way; give the content, or the error in words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("realmframe.store.apply"), "load", lambda *_, **__: False)
        try:
            return content(store.apply(base, decoded(made)).snapshot)
        except ApplyError as fault:
            return str(fault)


def applied(base: store.Snapshot, made: list[Any]) -> Any:
    """Apply; give the content, or the error in words."""
    try:
        return content(store.apply(base, decoded(made)).snapshot)
    except ApplyError as fault:
        return str(fault)


@settings(max_examples=120)
@given(
    made=fills(wrong=False), cut=st.integers(0, 30), rows=st.integers(1, 9), slab=st.integers(1, 3), held=st.booleans()
)
def test_loaded_equals_the_general_way(made: list[Any], cut: int, rows: int, slab: int, held: bool) -> None:
    """At once, or in blocks of two changesets, with small slabs, collections are what the general way makes of them."""
    base = BASE if held else EMPTY
    wanted = generally(base, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "CHUNK_ROWS", slab)
        patch.setattr(load, "_FREE", 1_000_000)
        patch.setattr(load, "_FEW_ELEMENTS", 1)
        patch.setattr(loaded, "_LAZY_ROWS", 2)
        for parts in ([(decoded(made), True)], blocks([made[:cut], made[cut:]], rows)):
            found = loaded_only(base, parts, version=9)
            assert found is None or content(found.snapshot) == wanted
    assert applied(base, made) == wanted


@settings(max_examples=120)
@given(made=fills(wrong=True))
def test_what_is_wrong_is_refused_as_in_the_general_way(made: list[Any]) -> None:
    """With one instruction that may contradict the state, the result or the error is that of the general way."""
    assert applied(BASE, made) == generally(BASE, made)


FITS: dict[str, tuple[str, bool, list[Any]]] = {
    "strings": ("STRINGLIST0", True, ["a", "", "a"]),
    "nulls": ("STRINGLIST1", True, ["a", None, ""]),
    "far dates": ("DATELIST0", True, list(VALUES[P.DATE])),
    "links": ("OBJECTLIST0", True, list(VALUES[P.OBJECT])),
    "decimals": ("DECIMAL128LIST0", True, [VALUES[P.DECIMAL128][0], VALUES[P.DECIMAL128][2]]),
    "a negative decimal zero": ("DECIMAL128LIST0", False, [VALUES[P.DECIMAL128][1]]),
    "a set of doubles": ("DOUBLESET1", False, [0.0]),
    "a set of numbers": ("INTSET1", True, [5, None, 5, 0, None]),
    "a set of text": ("STRINGSET0", True, ["a", "b", "a"]),
    "a set of decimals": ("DECIMAL128SET0", False, list(VALUES[P.DECIMAL128][:1])),
    "mixed": ("MIXEDLIST1", False, [1]),
    "entries": ("INTDICTIONARY0", True, [1, 2, 3]),
    "links under keys": ("OBJECTDICTIONARY1", True, [None, Link("S", "a")]),
}


@pytest.mark.parametrize("name", FITS)
def test_what_is_loaded(name: str) -> None:
    """These are loaded and those are not; what is one element, what is kept and in which order is the same."""
    field, fits, values = FITS[name]
    made: list[Any] = [i.CreateObject("I", 1)]
    for n, value in enumerate(values):
        if "LIST" in field:
            made.append(i.ArrayInsert("I", 1, field, (n,), value, n))
        elif "SET" in field:
            made.append(i.SetInsert("I", 1, field, (), value))
        else:
            made.append(i.Update("I", 1, field, ("a" if n != 1 else "b",), value))
    found = loaded_only(EMPTY, [(decoded(made), True)], version=1)
    assert (found is not None) is fits
    assert applied(EMPTY, made) == generally(EMPTY, made)


def test_objects_with_collections_that_come_one_by_one() -> None:
    """Chunks of small commits are joined, read or not; each snapshot keeps its own."""
    snapshot, kept = EMPTY, []
    for n in range(40):
        made: list[Any] = [i.CreateObject("I", n)]
        made += [i.ArrayInsert("I", n, "STRINGLIST0", (j,), f"{n}.{j}", j) for j in range(n % 4)]
        made += [i.Update("I", n, "INTDICTIONARY0", (f"k{j}",), n * j) for j in range(n % 3)]
        snapshot = store.apply(snapshot, decoded(made)).snapshot
        kept.append(snapshot)
        if n % 7 == 3:
            assert len(snapshot.values("I", "STRINGLIST0")) == n + 1
    for n, old in enumerate(kept):
        assert old.values("I", "STRINGLIST0") == [[f"{m}.{j}" for j in range(m % 4)] for m in range(n + 1)]
        assert old.values("I", "INTDICTIONARY0") == [{f"k{j}": m * j for j in range(m % 3)} for m in range(n + 1)]
    assert len(snapshot.table("I").chunks) < 8
