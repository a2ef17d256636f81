"""Random schemas with random objects: what a realm shows, writes back and sends is what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import realmframe as rf
from realmframe.changes import Changeset
from realmframe.frames import FrameStatus, LiveFrames, coerce_cell
from realmframe.model import Decimal128, Link, ObjectId, Schema, Timestamp
from realmframe.store import Snapshot, apply, objects_changeset, schema_changeset
from realmframe.store.mixed import exact
from tests.values import KEYS, distinct, equal_in_a_set

_INTS = st.integers(-(1 << 63), (1 << 63) - 1)
_TEXTS = st.text(max_size=6) | st.sampled_from(["\0", "\U0001f6eb"])
#: Zeros have one sign: the real engine does not write a number over an equal one.
_DOUBLES = st.floats().filter(lambda v: v != 0) | st.just(0.0)
_DATES = st.builds(
    lambda s, n: Timestamp(s, n if s >= 0 else -n), st.integers(-(1 << 62), 1 << 62), st.integers(0, 999_999_999)
) | st.integers(-(1 << 63), (1 << 63) - 1).map(Timestamp.from_nanoseconds)
_DECIMALS = (
    st.decimals(allow_nan=True, allow_infinity=True)
    .map(Decimal128.from_decimal)
    .filter(lambda d: d.is_nan or d.to_decimal() != 0)
)
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int": _INTS,
    "bool": st.booleans(),
    "float": st.floats(width=32).filter(lambda v: v != 0),
    "double": _DOUBLES,
    "string": _TEXTS,
    "data": st.binary(max_size=6),
    "date": _DATES,
    "decimal128": _DECIMALS,
    "objectId": st.binary(min_size=12, max_size=12).map(ObjectId),
    "uuid": st.uuids(),
}
_KEYS = st.sampled_from(KEYS)
_LINKS = st.builds(Link, st.just("Other"), _TEXTS)
_SCALARS["mixed"] = st.recursive(
    st.one_of(st.none(), *_SCALARS.values(), _LINKS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=5,
)
_SUFFIXES = ["", "[]", "<>", "{}"]


@st.composite
def _forms(draw: st.DrawFn, inside: bool = False) -> str:
    word = draw(st.sampled_from([*_SCALARS, "Other"] if inside else [*_SCALARS, "Other", "Inner"]))
    suffix = draw(st.sampled_from(_SUFFIXES))
    if word == "Inner" and suffix == "<>":
        suffix = "[]"
    if word in ("Other", "Inner"):
        return f"{word}{'?' if suffix in ('', '{}') else ''}{suffix}"
    return f"{word}{'?' if word != 'mixed' and draw(st.booleans()) else ''}{suffix}"


def _values(form: str, inner: dict[str, str]) -> st.SearchStrategy[Any]:
    word = form.rstrip("?[]<>{}")
    one: st.SearchStrategy[Any] = _LINKS
    if word == "Inner":
        one = st.fixed_dictionaries({name: _values(f, {}) for name, f in inner.items()})
    elif word != "Other":
        one = _SCALARS[word]
    if "?" in form or word == "mixed":
        one = st.none() | one
    if form.endswith("[]"):
        return st.lists(one, max_size=4)
    if form.endswith("<>"):
        return st.lists(one, max_size=4).map(distinct)
    return st.dictionaries(_KEYS, one, max_size=3) if form.endswith("{}") else one


@st.composite
def realms(draw: st.DrawFn) -> tuple[Schema, list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw a schema, objects of it, and as many others with the same keys."""
    inner = draw(st.dictionaries(st.sampled_from("pqrs"), _forms(inside=True), min_size=1, max_size=3))
    outer = draw(st.dictionaries(st.sampled_from("abcdefgh"), _forms(), min_size=1, max_size=5))
    word = draw(st.sampled_from(["int", "string", "objectId", "uuid"]))
    schema = Schema(
        [
            {"name": "Thing", "primaryKey": "_id", "properties": {"_id": word, **outer}},
            {"name": "Inner", "embedded": True, "properties": inner},
            {"name": "Other", "primaryKey": "_id", "properties": {"_id": "string"}},
        ]
    )
    keys = draw(st.lists(_SCALARS[word], unique=True, max_size=4))
    rows = [[{"_id": k} | {n: draw(_values(f, inner)) for n, f in outer.items()} for k in keys] for _ in range(2)]
    return schema, *rows


def same(value: Any) -> Any:
    """Give what is compared: every bit, but an element of a set may be one that equals it, such as 1.0 for 1."""
    if isinstance(value, rf.RealmSet):
        return sorted(repr(equal_in_a_set(v)) for v in value)
    if isinstance(value, dict):
        return {k: same(v) for k, v in value.items()}
    return [same(v) for v in value] if type(value) is list else exact(value)


def state(snapshot: Snapshot) -> dict[bytes, dict[str, Any]]:
    """Read every object."""
    table = snapshot.table("Thing")
    return {exact(table.key(r)): {n: same(v) for n, v in table.row(r).items()} for r in range(len(table))}


def expected(schema: Schema, rows: list[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    """Give what objects are to hold."""
    cls = schema["Thing"]
    made = [{n: coerce_cell(v, cls.properties[n], schema) for n, v in row.items()} for row in rows]
    return {exact(row["_id"]): {n: same(v) for n, v in row.items()} for row in made}


class Memory:
    """A realm without files: what a transaction gives travels as bytes."""

    def __init__(self, schema: Schema) -> None:
        self.snapshot = apply(Snapshot.empty(), schema_changeset(schema)).snapshot

    def status(self) -> FrameStatus:
        """What frames ask for."""
        return FrameStatus(self.snapshot.version, synced=False)

    def write(self, do: Callable[[rf.Transaction], object]) -> int:
        """Run a transaction; give how many instructions it made."""
        tx = rf.Transaction(self.snapshot, self.snapshot, lambda _: None)
        do(tx)
        made = tx.finish()
        if made is None:
            return 0
        self.snapshot = apply(self.snapshot, Changeset.decode(made.encode())).snapshot
        return len(made)


@settings(max_examples=100)
@given(realms())
def test_random_realms(drawn: tuple[Schema, list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """Written, shown, written back, sent and edited: nothing changes that was not changed, and all that was."""
    schema, first, second = drawn
    realm = Memory(schema)
    realm.write(lambda tx: tx.create("Thing", first))
    assert state(realm.snapshot) == expected(schema, first)
    things = LiveFrames(realm)["Thing"]
    assert repr(things)
    assert realm.write(lambda tx: tx.frame("Thing")) == 0
    assert realm.write(lambda tx: tx.upsert("Thing", things.copy())) == 0
    assert realm.write(lambda tx: tx.upsert("Thing", pa.table(things))) == 0
    copy = Snapshot.empty()
    for made in (schema_changeset(realm.snapshot.schema), objects_changeset(realm.snapshot, "Thing")):
        copy = apply(copy, Changeset.decode(made.encode())).snapshot
    assert state(copy) == state(realm.snapshot)
    realm.write(lambda tx: edit_cells(tx.frame("Thing"), second, schema["Thing"]))
    assert state(realm.snapshot) == expected(schema, second)


def edit_cells(edit: pd.DataFrame, rows: list[dict[str, Any]], cls: rf.ObjectSchema) -> None:
    """Put other values into every cell; not-a-numbers are meant."""
    with pd.option_context("future.distinguish_nan_and_na", True):
        for name, prop in cls.columns.items():
            cells = [record[name] for record in rows]
            if "date" in prop.word or prop.target == "Inner":  # a column of nanoseconds has no room for the year 9999
                edit[name] = pd.Series(cells, dtype=object)
                continue
            for row, value in enumerate(cells):
                is_key = isinstance(value, Link) and prop.word == "Other?"  # a cell of a link is the key
                edit.at[row, name] = value.key if is_key else value
