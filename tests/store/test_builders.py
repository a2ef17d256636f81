"""Changesets built out of states: full objects, schemas, upserts and erasures."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.errors import WriteError
from realmframe.model import Collection, Link, ObjectSchema, Property, PropertyType, Schema
from realmframe.store import (
    Snapshot,
    apply,
    erase_changeset,
    objects_changeset,
    schema_changeset,
    upsert_changeset,
)

_P, _T, _C = Property, PropertyType, Collection
_FIELDS = {
    "_id": _P("_id", _T.STRING),
    "n": _P("n", _T.INT),
    "d": _P("d", _T.DOUBLE, True),
    "m": _P("m", _T.MIXED, True),
    "to": _P("to", _T.OBJECT, True, _C.SINGLE, "A"),
    "many": _P("many", _T.OBJECT, False, _C.LIST, "A"),
    "some": _P("some", _T.OBJECT, False, _C.SET, "A"),
    "by": _P("by", _T.OBJECT, True, _C.DICTIONARY, "A"),
}
_SCHEMA = Schema([ObjectSchema("A", _FIELDS, "_id"), ObjectSchema("Z", {"_id": _P("_id", _T.INT)}, "_id")])


def _start(*more: i.Instruction) -> Snapshot:
    base = apply(Snapshot.empty(), schema_changeset(_SCHEMA)).snapshot
    return apply(base, Changeset.from_instructions(list(more))).snapshot


def _linked() -> Snapshot:
    a, where = Link("A", "a"), ("A", "b")
    return _start(
        i.CreateObject("A", "a"),
        i.CreateObject("A", "b"),
        i.Update(*where, "n", (), 5),
        i.Update(*where, "to", (), a),
        i.Update(*where, "m", (), a),
        i.ArrayInsert(*where, "many", (0,), a, 0),
        i.ArrayInsert(*where, "many", (1,), Link("A", "b"), 1),
        i.ArrayInsert(*where, "many", (2,), a, 2),
        i.SetInsert(*where, "some", (), a),
        i.Update(*where, "by", ("k",), a),
    )


def _rows(snapshot: Snapshot) -> list[dict[str, object]]:
    table = snapshot.table("A")
    return [table.row(r) for r in range(len(table))]


def test_full_state_rebuilds_itself() -> None:
    """What holds all objects, applied to an empty realm, gives the same objects; so does applying it again."""
    full = _linked()
    once = apply(_start(), objects_changeset(full, "A")).snapshot
    twice = apply(once, objects_changeset(full, "A", reset_collections=True)).snapshot
    assert _rows(once) == _rows(full) == _rows(twice)


def test_schema_order_and_idempotence() -> None:
    """Classes come first, by name, then their properties; nothing is left to add afterwards."""
    made = list(schema_changeset(_SCHEMA).instructions())
    assert [one.table for one in made if isinstance(one, i.AddTable)] == ["A", "Z"]
    assert [one.field for one in made[2:] if isinstance(one, i.AddColumn)] == list(_FIELDS)[1:]
    base = _start()
    assert len(schema_changeset(_SCHEMA, base.schema)) == 0
    assert apply(base, schema_changeset(_SCHEMA)).snapshot.schema == base.schema


_RECORDS = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.integers(-2, 2), st.none() | st.sampled_from([0.0, 1.5])), max_size=4
)


def _records(records: dict[str, tuple[int, float | None]]) -> pa.Table:
    ns, ds = [r[0] for r in records.values()], [r[1] for r in records.values()]
    columns = [pa.array(list(records), pa.string()), pa.array(ns, pa.int64()), pa.array(ds, pa.float64())]
    return pa.table(columns, names=["_id", "n", "d"])


@settings(max_examples=50)
@given(first=_RECORDS, second=_RECORDS)
def test_upsert_is_minimal(
    first: dict[str, tuple[int, float | None]], second: dict[str, tuple[int, float | None]]
) -> None:
    """Upserts hold what merging dictionaries does, and write nothing that is there already."""
    base = apply(_start(), upsert_changeset(_start(), "A", _records(first))).snapshot
    changes = upsert_changeset(base, "A", _records(second))
    after = apply(base, changes).snapshot
    assert {r["_id"]: (r["n"], r["d"]) for r in _rows(after)} == first | second
    assert len(upsert_changeset(after, "A", _records(second))) == 0
    updates = [one for one in changes.instructions() if isinstance(one, i.Update) and one.pk in first]
    wanted = sum(a != b for k in first.keys() & second.keys() for a, b in zip(first[k], second[k], strict=True))
    assert len(updates) == wanted


def test_upsert_refuses() -> None:
    """A key that stands twice, and one that exists where it must not, are refused."""
    one = _records({"a": (1, None)})
    with pytest.raises(WriteError, match="twice"):
        upsert_changeset(_start(), "A", pa.concat_tables([one, one]))
    with pytest.raises(WriteError, match="already"):
        upsert_changeset(_linked(), "A", one, mode="create")


def test_erasing_takes_incoming_links_along() -> None:
    """Links to an erased object become null or leave their collection."""
    full = _linked()
    left = apply(full, erase_changeset(full, "A", full.find("A", ["a"]))).snapshot
    (row,) = _rows(left)
    assert (row["_id"], row["n"], row["to"], row["m"], row["by"]) == ("b", 5, None, None, {"k": None})
    assert (list(row["many"]), list(row["some"])) == ([Link("A", "b")], [])  # type: ignore[call-overload]
