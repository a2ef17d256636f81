"""Columns of every type are usable from pandas: shown, found, sorted, grouped, merged, taken apart, assigned."""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from realmframe.errors import WriteError
from realmframe.frames.array import RealmArray, RealmDtype
from realmframe.frames.columns import to_pandas_array
from realmframe.frames.names import type_of_name
from realmframe.model import Link, ObjectId, Property, Schema, Timestamp
from realmframe.store import MIXED, values_to_arrow

SCHEMA = Schema(
    [
        {"name": "Spot", "embedded": True, "properties": {"city": "string", "zip": "int?", "lines": "string[]"}},
        {"name": "Plane", "primaryKey": "_id", "properties": {"_id": "objectId"}},
    ]
)
A, B = ObjectId(b"a" * 12), ObjectId(b"b" * 12)
D = decimal.Decimal
NOON = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)
OSLO, ROME = {"city": "Oslo", "zip": 1, "lines": ["x"]}, {"city": "Rome", "zip": None, "lines": []}


def column(form: str, values: list[Any]) -> Any:
    """Make a column as a live frame has it."""
    array = values_to_arrow(values, Property.parse("x", form), SCHEMA)
    return to_pandas_array(pa.chunked_array([array.slice(0, 1), array.slice(1)]))


def frame(form: str, values: list[Any]) -> pd.DataFrame:
    """Make a frame with one column and a number for each row."""
    return pd.DataFrame({"x": column(form, values), "n": range(len(values))})


#: Form, two values in order, and how the first one is shown.
SCALARS: list[tuple[str, Any, Any, str]] = [
    ("objectId?", A, B, "616161616161616161616161"),
    ("uuid?", uuid.UUID(int=1), uuid.UUID(int=2), "00000000-0000-0000-0000-000000000001"),
    ("decimal128?", D("-1.5"), D("20"), "-1.5"),
    ("mixed", 2, 10.5, "2"),
    ("mixed", 5, "text", "5"),
    ("mixed", b"a", NOON, "b'a'"),
    ("Plane?", A, B, "616161616161616161616161"),
    ("int?", 1, 2, "1"),
    ("string?", "a", "b", "a"),
]


@pytest.mark.parametrize(("form", "low", "high", "text"), SCALARS)
def test_scalars(form: str, low: Any, high: Any, text: str) -> None:
    """A column of single values behaves as pandas' own do, nulls included."""
    one = frame(form, [high, low, None, high])
    assert isinstance(one.x.dtype, pd.ArrowDtype)
    assert text in repr(one)
    assert text.replace("'", "&#x27;") in one._repr_html_() or text in one._repr_html_()
    assert one.x[1] == low
    assert one.x.isna().tolist() == [False, False, True, False]
    assert (one.x == low).fillna(False).tolist() == [False, True, False, False]
    assert (one.x != low).fillna(False).tolist() == [True, False, False, True]
    assert one.x.isin([low]).tolist() == [False, True, False, False]
    assert one.sort_values("x").n.tolist() == [1, 0, 3, 2]
    assert one.sort_values("x", ascending=False, na_position="first").n.tolist()[:1] == [2]
    assert one.groupby("x").n.sum().to_dict() == {low: 1, high: 3}
    assert one.x.value_counts().to_dict() == {high: 2, low: 1}
    assert one.x.nunique() == 2
    assert one.drop_duplicates("x").n.tolist() == [0, 1, 2]
    assert one.x.min() == low
    assert one.x.max() == high
    other = frame(form, [low, high]).rename(columns={"n": "m"})
    assert one.merge(other, on="x").sort_values("n")[["n", "m"]].values.tolist() == [[0, 1], [1, 0], [3, 1]]
    assert one.set_index("x").loc[low, "n"] == 1
    joined = pd.concat([one, other.rename(columns={"m": "n"})])
    assert joined.x.dtype == one.x.dtype
    assert len(joined[joined.x == high]) == 3


@pytest.mark.parametrize(("form", "low", "high", "text"), SCALARS)
def test_scalars_are_assigned(form: str, low: Any, high: Any, text: str) -> None:
    """Cells, masks and slices take values; nothing else changes, and the original keeps its own."""
    one = frame(form, [high, None, high])
    edit = one.copy()
    edit.at[1, "x"] = low
    edit.loc[edit.n == 2, "x"] = low
    assert edit.x.tolist() == [high, low, low]
    edit.loc[[0, 2], "x"] = [low, None]
    assert edit.x.isna().tolist() == [False, False, True]
    assert edit.x[0] == low
    assert edit.x.fillna(high)[2] == high
    assert edit.x.where(edit.n != 0).isna().tolist() == [True, False, True]
    assert one.x[0] == high
    assert one.x.isna().tolist() == [False, True, False]
    back = pickle.loads(pickle.dumps(one))
    assert back.x.dtype == one.x.dtype
    assert back.x[0] == high


#: Form, a value, another one, how the first is shown.
NESTED: list[tuple[str, Any, Any, str]] = [
    ("int?[]", [1, None], [2], "[1, None]"),
    ("string<>", ["a", "b"], [], "['a', 'b']"),
    ("uuid[]", [uuid.UUID(int=1)], [], "[UUID('00000000-0000-0000-0000-000000000001')]"),
    ("decimal128[]", [D("1.50")], [D(2)], "[1.50]"),
    ("mixed[]", [1, "a", True], [[None]], "[1, 'a', True]"),
    ("string?{}", {"a": "1", "b": None}, {}, "{'a': '1', 'b': None}"),
    ("mixed{}", {"a": [1]}, {"b": {}}, "{'a': [1]}"),
    ("Spot?", OSLO, ROME, "{'city': 'Oslo', 'zip': 1, 'lines': ['x']}"),
    ("Spot[]", [OSLO, ROME], [], "[{'city': 'Oslo', 'zip': 1, 'lines': ['x']}"),
    ("Spot{}", {"home": OSLO, "away": None}, {}, "{'home': {'city': 'Oslo'"),
    ("Plane[]", [A, B], [], "[ObjectId('616161616161616161616161'), ObjectId("),
    ("mixed", {"a": [1, {"b": None}]}, [1, 2], "{'a': [1, {'b': None}]}"),
]


@pytest.mark.parametrize(("form", "one", "other", "text"), NESTED)
def test_nested(form: str, one: Any, other: Any, text: str) -> None:
    """Collections and embedded objects are lists and dicts, shown as such, and assigned cell by cell."""
    made = frame(form, [one, other, one])
    with pd.option_context("display.max_colwidth", 200, "display.width", 300):
        assert text in repr(made)
    assert made.x[0] == one
    assert made.x.tolist() == [one, other, one]
    assert made.x.map(lambda v: v == one).tolist() == [True, False, True]
    assert len(made.x.unique()) == 2
    assert made.drop_duplicates("x").n.tolist() == [0, 1]
    edit = made.copy()
    edit.at[1, "x"] = one
    edit.at[0, "x"] = other
    assert edit.x.tolist() == [other, one, one]
    assert made.x.tolist() == [one, other, one]
    back = pickle.loads(pickle.dumps(edit))
    assert back.x.tolist() == edit.x.tolist()
    if form != "mixed":
        with pytest.raises(TypeError, match="have no order"):
            made.sort_values("x")


#: One value of every form that pandas alone does not keep.
EVERY: dict[str, Any] = {
    "objectId?": A,
    "uuid?": uuid.UUID(int=7),
    "decimal128?": D("1.50"),
    "mixed": {"a": [1, Link("Plane", A), D("2.0")]},
    "Plane?": A,
    "Spot?": OSLO,
    "Spot[]": [OSLO, ROME],
    "uuid[]": [uuid.UUID(int=7)],
    "date<>": [NOON],
    "bool{}": {"x": True},
    "mixed{}": {"x": A, "y": None},
    "decimal128{}": {"x": D("1.0")},
    "Plane{}": {"x": A, "y": None},
}


def test_parquet_files_of_pandas(tmp_path: Path) -> None:
    """What ``to_parquet`` wrote ``read_parquet`` reads, every column in its type."""
    made = pd.DataFrame({form: column(form, [value, value]) for form, value in EVERY.items()})
    made.to_parquet(tmp_path / "x.parquet")
    back = pd.read_parquet(tmp_path / "x.parquet")
    assert back.dtypes.tolist() == made.dtypes.tolist()
    assert back.to_dict("list") == made.to_dict("list")


@pytest.mark.parametrize("form", EVERY)
def test_rows_are_added_by_label(form: str) -> None:
    """``loc`` with a new label adds a row; the column keeps its type, and the other rows what they hold."""
    empty: Any = {"[": [], "<": [], "{": {}}.get(form[-2])
    made = frame(form, [EVERY[form], empty])
    made.loc[9] = {"x": EVERY[form], "n": 9}
    assert made.x.dtype == column(form, [empty, empty]).dtype
    before = frame(form, [EVERY[form], empty, EVERY[form]])
    assert made.x.tolist() == before.x.tolist()


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()),
        pa.map_(pa.string(), pa.list_(pa.float32())),
        pa.struct([("a", pa.timestamp("us", "UTC")), ("b c", pa.struct([("d", pa.binary())])), ("e", pa.bool_())]),
        pa.struct([]),
        MIXED,
        pa.list_(pa.map_(pa.string(), MIXED)),
    ],
    ids=str,
)
def test_names_of_types(kind: Any) -> None:
    """A type is told by its name."""
    assert type_of_name(str(kind)) == kind


@pytest.mark.parametrize(
    "text", ["", "int64", "list<", "list<item: what>", "struct<a>", "map<string>", "extension<x<Y>>"]
)
def test_what_names_no_type(text: str) -> None:
    """What is no name of a nested type or of one of ours is none, and pandas is left to say so."""
    assert type_of_name(text) is None
    with pytest.raises(TypeError):
        RealmDtype.construct_from_string(text + "[pyarrow]")


def test_lists_are_taken_apart() -> None:
    """``explode`` and ``.list`` work, also for elements of types that pandas does not know."""
    one = frame("uuid[]", [[uuid.UUID(int=1), uuid.UUID(int=2)], [], [uuid.UUID(int=3)]])
    flat = one.explode("x")
    assert flat.n.tolist() == [0, 0, 1, 2]
    assert [None if v is pd.NA else v.int for v in flat.x] == [1, 2, None, 3]
    assert flat.groupby("x").size().tolist() == [1, 1, 1]
    assert one.x.list.len().tolist() == [2, 0, 1]
    words = frame("string[]", [["a", "b"], ["c"]])
    assert words.x.list[0].tolist() == ["a", "c"]
    assert words.x.list.flatten().tolist() == ["a", "b", "c"]
    dates = frame("date[]", [[NOON], [NOON, NOON]]).explode("x")
    assert dates.x.dt.hour.tolist() == [12, 12, 12]


def test_embedded_objects_are_taken_apart() -> None:
    """``.struct`` gives the fields of embedded objects as columns."""
    one = frame("Spot?", [OSLO, None, ROME])
    assert one.x.struct.field("city").tolist() == ["Oslo", pd.NA, "Rome"]
    assert list(one.x.struct.explode().columns) == ["city", "zip", "lines"]
    assert one[(one.x.struct.field("zip") == 1).fillna(False)].n.tolist() == [0]


def test_mixed_keeps_types_apart() -> None:
    """In a Mixed column 1 is no True and "1" no 1; numbers of one amount are equal."""
    values = [1, True, 1.0, "1", None, [1], Link("Plane", A), Timestamp(0, 1), D("1.50")]
    one = frame("mixed", values)
    assert (one.x == 1).fillna(False).tolist() == [True, False, True, *[False] * 6]
    assert (one.x == True).fillna(False).tolist() == [False, True, *[False] * 7]  # noqa: E712
    assert one.x[6] == Link("Plane", A)
    assert one.x[7] == pd.Timestamp(1, tz="UTC")
    assert one.x[8] == D("1.50")
    assert one.x.map(lambda v: type(v).__name__).tolist()[:4] == ["int", "bool", "float", "str"]
    with pytest.raises(TypeError, match="cannot be ordered"):
        _ = one.x > 1


def test_identifiers_may_be_text() -> None:
    """Object ids and uuids compare with their text; what is none equals none."""
    ids = frame("objectId?", [A, B, None])
    assert (ids.x == str(A)).fillna(False).tolist() == [True, False, False]
    assert (ids.x == "nonsense").fillna(False).tolist() == [False, False, False]
    assert (ids.x != "nonsense").fillna(True).tolist() == [True, True, True]
    assert ids.x.isin([str(B), "nonsense", 5]).tolist() == [False, True, False]
    assert (ids.x > A).fillna(False).tolist() == [False, True, False]


def test_decimals_add_up_exactly() -> None:
    """Sums and means of decimals are decimals; equal amounts are one group."""
    one = frame("decimal128?", [D("0.1"), D("0.2"), None, D("0.10")])
    assert one.x.sum() == D("0.40")
    assert isinstance(one.x.sum(), decimal.Decimal)
    assert one.x.dropna().mean() == D("0.40") / 3
    assert one.groupby("x").size().tolist() == [2, 1]
    with pytest.raises(TypeError, match="reduction"):
        frame("uuid?", [uuid.UUID(int=1)]).x.sum()


DATES: list[tuple[list[Any], str | None]] = [
    ([Timestamp(0, 1), Timestamp(-1, -1)], "ns"),
    ([Timestamp(-62_135_596_800, 0), Timestamp(253_402_300_799, 999_999_000)], "us"),
    ([Timestamp(253_402_300_799, 999_999_999)], None),
    ([Timestamp(-62_135_596_800, 0), Timestamp(0, 1)], None),
    ([Timestamp(1 << 62, 5)], None),
]


@pytest.mark.parametrize("form", ["date?", "date?[]", "date?{}"])
@pytest.mark.parametrize(("dates", "unit"), DATES)
def test_dates_are_shown_as_fine_as_they_are(form: str, dates: list[Any], unit: str | None) -> None:
    """Dates show in nanoseconds, in microseconds where only those reach, else exactly as they are."""
    wrap = {"date?": lambda d: d, "date?[]": lambda d: [d], "date?{}": lambda d: {"k": d}}[form]
    one = frame(form, [*(wrap(d) for d in dates), None])
    kind = one.x.dtype.pyarrow_dtype
    inner = {"date?": lambda k: k, "date?[]": lambda k: k.value_type, "date?{}": lambda k: k.item_type}[form](kind)
    assert (inner.unit if pa.types.is_timestamp(inner) else None) == unit
    for cell, moment in zip(one.x.tolist(), dates, strict=False):
        shown = cell if form == "date?" else next(iter(cell.values() if isinstance(cell, dict) else cell))
        exact = Timestamp.from_datetime(shown) if isinstance(shown, dt.datetime) else shown
        assert exact == moment


WRONG: list[tuple[str, Any, str]] = [
    ("int[]", "abc", "no list"),
    ("int[]", ["x"], "cannot hold"),
    ("Spot?", 5, "no embedded object"),
    ("Spot?", {"town": "x"}, "no property 'town'"),
    ("string{}", [1], "no dictionary"),
    ("mixed", object(), "no value that a realm can hold"),
    ("objectId?", "zz", "24 hexadecimal digits"),
    ("date[]", ["2020"], "cannot hold|no date"),
]


@pytest.mark.parametrize(("form", "value", "text"), WRONG)
def test_wrong_cells_are_refused(form: str, value: Any, text: str) -> None:
    """A cell that cannot hold a value says so at once, and keeps its own."""
    one = frame(form, [None])
    before = one.x.tolist()
    with pytest.raises(WriteError, match=text):
        one.x.array[0] = value
    assert one.x.tolist() == before or one.x.isna().all()


def test_nothing_is_copied() -> None:
    """An identifier's column in a frame is the store's memory."""
    array = values_to_arrow([A, B], Property.parse("x", "objectId?"), SCHEMA)
    shown = to_pandas_array(pa.chunked_array([array]))
    assert isinstance(shown, RealmArray)
    assert shown.column.chunk(0).storage.buffers()[1].address == array.storage.buffers()[1].address
