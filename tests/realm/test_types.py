"""Every property type with its hardest values, through every step of its life: equal to the last bit at each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import realmframe as rf
from realmframe.changes import Changeset
from realmframe.client.loop import stop_sync_loop
from realmframe.frames import coerce_cell, frame_to_arrow
from realmframe.frames.array import to_pandas
from realmframe.frames.cells import from_python
from realmframe.store import MAX_DATA_BYTES, MAX_STRING_BYTES, MIXED
from realmframe.store.arrays import arrow_to_model
from realmframe.store.mixed import exact
from realmframe.testing import Server
from tests.values import FORMS, KEYS, ROWS, SCALARS, SCHEMA, TARGETS, YEAR_1, YEAR_9999, equal_in_a_set, value_of
from tests.waiting import WAIT

WAYS = ["dicts", "frame", "arrow", "upsert"]
STEPS = ["written", "reopened", "edited", "received"]
States = dict[str, dict[str, list[bytes]]]


def key_of(way: str, row: int) -> int:
    """Keys of objects that were written in one way follow each other."""
    return 1000 * WAYS.index(way) + row


def expected(name: str, row: int) -> bytes:
    """What a row is to hold."""
    return exact(coerce_cell(value_of(name, row), SCHEMA["Every"].properties[name], SCHEMA))


def records(way: str, shift: int = 0) -> list[dict[str, Any]]:
    """Make the objects of one way; a shift gives each row the values of another."""
    return [{"_id": key_of(way, r)} | {n: value_of(n, r + shift) for n in FORMS} for r in range(ROWS)]


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Make a frame of objects, as a user would who has Python values."""
    return pd.DataFrame({name: column_of(name, [r[name] for r in rows]) for name in rows[0]})


def column_of(name: str, values: list[Any]) -> Any:
    """Make a column of Python values; where not-a-numbers are meant, one that does not take them for missing."""
    word = FORMS[name][0] if name in FORMS else ""
    if word in ("double?", "float?"):
        return pd.arrays.ArrowExtensionArray(pa.array(values, pa.float64() if word == "double?" else pa.float32()))
    if word == "mixed":
        return to_pandas(from_python(values, MIXED))
    return pd.Series(values, dtype=object)


def state(realm: rf.Realm) -> dict[str, list[bytes]]:
    """Read every property of every object."""
    table = realm.snapshot.table("Every")
    order = sorted(range(len(table)), key=lambda r: table.key(r))  # type: ignore[arg-type, return-value]
    return {name: [exact(table.values(name)[r]) for r in order] for name in FORMS}


def configuration(app: rf.App) -> dict[str, Any]:
    """Open everything of the server."""
    user = app.current_user or app.log_in(rf.Credentials.anonymous())
    sync = rf.SyncConfiguration(
        user,
        flexible=True,
        initial_subscriptions=lambda subs, realm: [subs.add(c) for c in realm.schema if not SCHEMA[c].embedded],
    )
    return {"path": "every.realm", "schema": list(SCHEMA.values()), "sync": sync}


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[States, rf.Realm, rf.Realm]]:
    """Lead all values through all steps once; give the state after each, and both realms."""
    folder = tmp_path_factory.mktemp("types")
    states: States = {}
    with Server() as server:
        apps = [rf.App("types", base_url=server.url, base_file_path=folder / n, timeout=30.0) for n in "ab"]
        with rf.Realm.open(**configuration(apps[0])) as realm:
            write_all(realm)
            states["written"] = state(realm)
            realm.upload_all_local_changes(timeout=60.0)
            realm.core.store.checkpoint()
        with rf.Realm.open(**configuration(apps[0])) as realm, rf.Realm.open(**configuration(apps[1])) as other:
            states["reopened"] = state(realm)
            edit_all(realm)
            states["edited"] = state(realm)
            realm.upload_all_local_changes(timeout=60.0)
            other.download_all_server_changes(timeout=60.0)
            states["received"] = state(other)
            yield states, realm, other
        stop_sync_loop()


def write_all(realm: rf.Realm) -> None:
    """Write the same objects in each way, after those that they link to."""
    with realm.write() as tx:
        for table, key in TARGETS:
            tx.create(table, {"_id": key})
    with realm.write() as tx:
        tx.create("Every", records("dicts"))
    with realm.write() as tx:
        tx.create("Every", frame_of(records("frame")))
    with realm.write() as tx:
        made = frame_to_arrow(records("arrow"), SCHEMA["Every"], realm.schema)
        assert isinstance(made, pa.Table)
        tx.create("Every", made)
    with realm.write() as tx:
        tx.create("Every", [{"_id": key_of("upsert", r)} for r in range(ROWS)])
    with realm.write() as tx:
        tx.upsert("Every", records("upsert", shift=5))
        tx.upsert("Every", records("upsert"))


def edit_all(realm: rf.Realm) -> None:
    """Give every row the values of the next one, in a frame: columns at once, one way cell by cell."""
    with realm.write() as tx, pd.option_context("future.distinguish_nan_and_na", True):
        edit = tx.frame("Every")
        place = {key: row for row, key in enumerate(edit._id)}
        for name in FORMS:
            cells = [None if v is pd.NA or v is pd.NaT else v for v in edit[name].tolist()]
            moved = list(cells)
            for way in WAYS[1:]:
                for r in range(ROWS):
                    moved[place[key_of(way, r)]] = value_of(name, r + 1)
            edit[name] = column_of(name, moved)
        for name in FORMS:
            for r in range(ROWS):
                edit.at[place[key_of("dicts", r)], name] = value_of(name, r + 1)


@pytest.mark.parametrize("name", list(FORMS))
@pytest.mark.parametrize("step", STEPS)
def test_every_value_survives(lives: tuple[States, rf.Realm, rf.Realm], step: str, name: str) -> None:
    """Whatever way it was written in, a value is the same at every step, on both sides."""
    shift = 1 if step in ("edited", "received") else 0
    held = iter(lives[0][step][name])
    for way in WAYS:
        for row in range(ROWS):
            wanted = expected(name, row + shift)
            assert next(held) == wanted, f"{way}, row {row}: {value_of(name, row + shift)!r}"


def test_unchanged_frames_write_nothing(lives: tuple[States, rf.Realm, rf.Realm]) -> None:
    """A frame with every type that is written back as it was, whole or column by column, is no change."""
    realm = lives[1]
    with realm.write() as tx:
        tx.frame("Every")
        edit = tx.frame("Every")
        for name in FORMS:
            edit[name] = edit[name].copy()
    assert not len(tx.changeset)
    with realm.write() as tx:
        tx.upsert("Every", realm["Every"].copy())
    assert not len(tx.changeset)
    with realm.write() as tx:
        tx.upsert("Every", pa.table(realm["Every"]))
    assert not len(tx.changeset)


def test_no_records_write_nothing(lives: tuple[States, rf.Realm, rf.Realm]) -> None:
    """A frame and a table of every type without rows are no change."""
    realm = lives[1]
    with realm.write() as tx:
        tx.upsert("Every", realm["Every"].head(0))
        tx.upsert("Every", pa.table(realm["Every"].head(0).copy()).slice(0, 0))
    assert not len(tx.changeset)


def test_a_copy_is_equal(lives: tuple[States, rf.Realm, rf.Realm], tmp_path: Path) -> None:
    """A realm's copy holds every value as well."""
    realm = lives[1]
    realm.write_copy_to(tmp_path / "copy.realm")
    with rf.Realm.open(path=tmp_path / "copy.realm") as copy:
        assert state(copy) == state(realm)


SINGLE = [n for n, (form, _) in FORMS.items() if form.endswith("?")]
COLLECTIONS = [(n, form[-2:]) for n, (form, _) in FORMS.items() if n.split("_")[0] in SCALARS and form[-1] in "]>}"]


def _is_comparable(value: Any) -> bool:
    """Whether a query can name a value: not a collection, an object, or a not-a-number, which equals nothing."""
    if isinstance(value, rf.Decimal128):
        return not value.is_nan
    return not isinstance(value, list | dict) and value == value


@pytest.mark.parametrize("name", [n for n in SINGLE if "leaf" not in n and "deep" not in n and "tree" not in n])
def test_single_values_are_found(lives: tuple[States, rf.Realm, rf.Realm], name: str) -> None:
    """A query by a value, or by null, finds exactly the objects that hold it."""
    realm = lives[1]
    table = realm.snapshot.table("Every")
    held = dict(zip(table.values("_id"), table.values(name), strict=True))
    for wanted in FORMS[name][1]:
        if not _is_comparable(wanted):
            continue
        keys = {k for k, v in held.items() if (v is None if wanted is None else _finds(v, wanted))}
        assert set(realm["Every"].filtered(f"{name} == $0", wanted)._id) == keys, wanted


@pytest.mark.parametrize(("name", "suffix"), COLLECTIONS)
def test_elements_are_found(lives: tuple[States, rf.Realm, rf.Realm], name: str, suffix: str) -> None:
    """A query by an element of a list, set or dictionary, and by the size, finds exactly the objects that have it."""
    realm = lives[1]
    table = realm.snapshot.table("Every")
    held = dict(zip(table.values("_id"), table.values(name), strict=True))
    every = realm["Every"]
    for size in {len(v) for v in held.values()}:
        assert set(every.filtered(f"{name}.@size == {size}")._id) == {k for k, v in held.items() if len(v) == size}
    path = f"{name}.@values" if suffix == "{}" else name
    for wanted in (v for v in SCALARS[name.split("_")[0]] if _is_comparable(v)):
        inside = {k: list(v.values() if isinstance(v, dict) else v) for k, v in held.items()}
        keys = {k for k, items in inside.items() if any(_finds(v, wanted) for v in items)}
        assert set(every.filtered(f"ANY {path} == $0", wanted)._id) == keys, wanted


def _finds(value: Any, wanted: Any) -> bool:
    return value is not None and bool(equal_in_a_set(value) == equal_in_a_set(wanted))


def test_dictionaries_are_found_by_key(lives: tuple[States, rf.Realm, rf.Realm]) -> None:
    """Every key that the SDKs take can be asked for, odd ones too."""
    realm = lives[1]
    table = realm.snapshot.table("Every")
    held = dict(zip(table.values("_id"), table.values("int_dict"), strict=True))
    for key in KEYS:
        found = set(realm["Every"].filtered("ANY int_dict.@keys == $0", key)._id)
        assert found == {k for k, v in held.items() if key in v}
        assert found


REFUSED: list[tuple[str, Any, str]] = [
    ("int_one", 1 << 63, r"Every\.int_one \(int\?\), record 0: .*64 bits"),
    ("int_one", True, "True is no int"),
    ("int_one", 1.5, "1.5 is no int"),
    ("bool_one", 1, "1 is no bool.*True or False"),
    ("float_one", 1e39, "float of 32 bits.*double"),
    ("double_one", (1 << 53) + 1, "more digits than a double"),
    ("double_one", "1", "'1' is no number"),
    ("string_one", b"x", "is no string.*str"),
    ("string_one", "\ud800", "half a surrogate pair"),
    ("data_one", "x", "is no data.*bytes"),
    ("date_one", "2020-01-01", "is no date.*datetime"),
    ("date_one", dt.date(2020, 1, 1), "is no date"),
    ("date_one", rf.Timestamp(1, -1), "sign of the seconds"),
    ("decimal128_one", "1E+6145", "too large for a decimal128"),
    ("decimal128_one", 1.5, "is no decimal128.*Decimal"),
    ("objectId_one", "12", "24 hexadecimal digits"),
    ("uuid_one", "zz", "is no uuid"),
    ("mixed_one", object(), r"Every\.mixed_one \(mixed\), record 0: A object is no value"),
    ("mixed_one", [1, {"a": {1, 2}}], r"\[1\]\['a'\]: A set is no value"),
    ("mixed_one", rf.Link("Nothing", 1), "is no link.*ByInt"),
    ("mixed_one", rf.Link("ByInt", "a"), "is no int"),
    ("mixed_one", {"$a": 1}, r"begin with \$"),
    ("int_list", "12", "is no list"),
    ("int_list", {"a": 1}, "is no list"),
    ("int_list", [1, "x"], r"record 0: \[1\]: 'x' is no int"),
    ("int_dict", [1], "is no dictionary"),
    ("int_dict", {1: 1}, "Keys are strings"),
    ("int_dict", {"a.b": 1}, "hold a dot"),
    ("int_dict", {"a": "x"}, r"\['a'\]: 'x' is no int"),
    ("leaf_one", {"town": 1}, "Leaf has no property 'town'.*It has n, at"),
    ("leaf_one", {"text": None}, r"\.text: text is not optional"),
    ("leaf_list", [None], r"\[0\]: An element of leaf_list .*cannot be null"),
    ("leaf_list", [{"tags": [1]}], r"\[0\]\.tags\[0\]: 1 is no string"),
    ("leaf_one", 5, "no embedded Leaf.*dict"),
    ("int_link", "x", "is no int"),
    ("int_link", rf.Link("ByText", "x"), "no link to ByInt"),
    ("links_list", [None], "cannot be null"),
]


@pytest.mark.parametrize("way", ["dict", "frame"])
@pytest.mark.parametrize(("name", "value", "text"), REFUSED)
def test_bad_values_are_refused(tmp_path: Path, way: str, name: str, value: Any, text: str) -> None:
    """What a property cannot hold is one WriteError with class, property, record, place and what to write."""
    with rf.Realm.open(path=tmp_path / "every.realm", schema=list(SCHEMA.values())) as realm:
        record = {"_id": 1, name: value}
        given: Any = (
            record if way == "dict" else pd.DataFrame({n: pd.Series([v], dtype=object) for n, v in record.items()})
        )
        with pytest.raises(rf.WriteError, match=text) as caught, realm.write() as tx:
            tx.create("Every", given)
        assert f"Every.{name}" in str(caught.value)
        assert len(realm["Every"]) == 0


def test_arrow_tables_are_checked_inside() -> None:
    """An Arrow table of the right types may still hold nulls and keys that a property does not take."""
    schema = rf.Schema([{"name": "A", "primaryKey": "_id", "properties": {"_id": "int", "l": "int[]", "d": "int{}"}}])
    keys = pa.array([1], pa.int64())
    for column, values, text in (
        ("l", pa.array([[1, None]], pa.list_(pa.int64())), r"A\.l \(int\[\]\), record 0: \[1\].*cannot be null"),
        ("d", pa.array([[("a.b", 1)]], pa.map_(pa.string(), pa.int64())), r"A\.d .*record 0: 'a\.b' is no key"),
    ):
        with pytest.raises(rf.WriteError, match=text):
            frame_to_arrow(pa.table({"_id": keys, column: values}), schema["A"], schema)


def test_the_longest_values(tmp_path: Path) -> None:
    """The longest text and data of the SDKs survive a reopening; one byte more is refused."""
    schema = [{"name": "Big", "primaryKey": "_id", "properties": {"_id": "int", "text": "string?", "data": "data?"}}]
    text, data = "x" * (MAX_STRING_BYTES - 2) + "é", b"\xff" * MAX_DATA_BYTES
    with rf.Realm.open(path=tmp_path / "big.realm", schema=schema) as realm, realm.write() as tx:
        tx.create("Big", {"_id": 1, "text": text, "data": data})
    with rf.Realm.open(path=tmp_path / "big.realm") as realm:
        assert realm["Big"].text[0] == text
        assert realm["Big"].data[0] == data
        for name, value in (("text", text + "x"), ("data", data + b"x")):
            with pytest.raises(rf.WriteError, match=f"Big.{name}.*too long"), realm.write() as tx:
                tx.upsert("Big", {"_id": 1, name: value})
            long = pa.table({"_id": pa.array([1]), name: pa.array([value])})
            with pytest.raises(rf.WriteError, match="too long"), realm.write() as tx:
                tx.upsert("Big", long)


def test_dates_of_every_unit() -> None:
    """Timestamps of pandas, numpy and Arrow in any unit are exact, the years 1 and 9999 included."""
    cls = SCHEMA["Every"]
    texts = ["0001-01-01T00:00:00", "1969-12-31T23:59:59", "2020-02-29T12:00:00", "9999-12-31T23:59:59"]
    moments = [dt.datetime.fromisoformat(t).replace(tzinfo=dt.UTC) for t in texts]
    wanted = [exact(rf.Timestamp.from_datetime(m)) for m in moments]
    for unit in ("s", "ms", "us"):
        numbers = np.array(texts, f"datetime64[{unit}]")
        for column in (pa.array(numbers), pd.Series(numbers), pd.Series(list(numbers), dtype=object)):
            given = {"_id": list(range(4)), "date_one": column}
            table = frame_to_arrow(
                pd.DataFrame(given) if isinstance(column, pd.Series) else pa.table(given), cls, SCHEMA
            )
            values = arrow_to_model(table["date_one"].combine_chunks(), cls.properties["date_one"], SCHEMA)
            assert [exact(v) for v in values] == wanted, unit


def test_asymmetric_objects_arrive(tmp_path: Path) -> None:
    """Objects of an asymmetric class, with what is embedded in them, reach the server as they were."""
    schema = [
        {
            "name": "Event",
            "asymmetric": True,
            "primaryKey": "_id",
            "properties": {"_id": "int", "where": "Spot?", "any": "mixed"},
        },
        {"name": "Spot", "embedded": True, "properties": {"x": "double", "at": "date?"}},
    ]
    event = {"_id": 1, "where": {"x": 0.1, "at": YEAR_9999}, "any": {"a": [None, YEAR_1]}}
    with Server(tmp_path / "server") as server:
        app = rf.App("events", base_url=server.url, base_file_path=tmp_path / "client", timeout=30.0)
        sync = rf.SyncConfiguration(app.log_in(rf.Credentials.anonymous()), flexible=True)
        with rf.Realm.open(path="events.realm", schema=schema, sync=sync) as realm:
            with realm.write() as tx:
                tx.create("Event", event)
            sent = tx.changeset.encode()
            realm.upload_all_local_changes(timeout=WAIT)
        stop_sync_loop()
    stored = b"".join(p.read_bytes() for p in (tmp_path / "server").rglob("*") if p.is_file())
    assert sent in stored
    assert [type(i).__name__ for i in Changeset.decode(sent).instructions()].count("CreateObject") == 1
