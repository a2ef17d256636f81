"""What users hand over becomes exact Arrow tables, or one clear error."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from realmframe.errors import WriteError
from realmframe.frames import frame_to_arrow
from realmframe.frames.arrow import records_to_tables
from realmframe.model import ObjectId, Schema
from realmframe.store import arrow_type

EVERY = Schema(
    [
        {
            "name": "Every",
            "primaryKey": "_id",
            "properties": {
                "_id": "int",
                "b": "bool?",
                "s": "string?",
                "d": "double?",
                "f": "float?",
                "x": "data?",
                "at": "date?",
                "u": "uuid?",
                "o": "objectId?",
                "n": "decimal128?",
                "l": "int[]",
                "m": "mixed",
                "other": "Every?",
                "must": "int",
            },
        }
    ]
)
CLS = EVERY["Every"]
MOMENT = dt.datetime(2020, 1, 2, 3, 4, 5, 600_000, tzinfo=dt.UTC)
UUID = uuid.UUID(int=7)
OID = ObjectId(bytes(range(12)))

GOOD = [
    ("b", True, True),
    ("s", "é日本", "é日本"),
    ("d", 1, 1.0),
    ("d", 2.5, 2.5),
    ("f", 0.5, 0.5),
    ("x", b"\0\xff", b"\0\xff"),
    ("at", MOMENT, pd.Timestamp(MOMENT)),
    (
        "at",
        pd.Timestamp("2020-01-01 00:00:00.000000001", tz="UTC"),
        pd.Timestamp("2020-01-01 00:00:00.000000001", tz="UTC"),
    ),
    ("u", UUID, UUID),
    ("u", str(UUID), UUID),
    ("o", str(OID), OID),
    ("n", decimal.Decimal("1.50"), decimal.Decimal("1.50")),
    ("l", [1, 2], [1, 2]),
    ("m", "text", "text"),
    ("m", 5, 5),
    ("other", 9, 9),
    ("must", 3, 3),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_one_value(name: str, value: Any, expected: Any) -> None:
    """Each value a user may write becomes the store's type exactly, as a record and as a column of a frame."""
    table = frame_to_arrow({"_id": 1, name: value}, CLS, EVERY)
    assert table.schema.field(name).type == arrow_type(CLS.properties[name], EVERY)
    assert table[name][0].as_py() == expected
    frame = pd.DataFrame({"_id": [1], name: pd.Series([value], dtype=object)})
    again = frame_to_arrow(frame, CLS, EVERY)
    assert again[name][0].as_py() == expected


@pytest.mark.parametrize("name", [n for n in CLS.properties if n not in ("_id", "must", "l")])
@pytest.mark.parametrize("null", [None, np.nan, pd.NaT, pd.NA])
def test_nulls(name: str, null: Any) -> None:
    """Every null of pandas is null."""
    frame = pd.DataFrame({"_id": [1], name: pd.Series([null], dtype=object)})
    assert frame_to_arrow(frame, CLS, EVERY)[name][0].as_py() is None


BAD = [
    ({"_id": 1, "nme": 1}, "no property 'nme'"),
    ({"s": "x"}, "primary key '_id' is missing"),
    ({"_id": "one"}, r"Every\._id|no int"),
    ({"_id": 1, "must": None}, "not optional"),
    ({"_id": 1, "d": "high"}, "number"),
    ({"_id": 1, "b": 2}, "bool"),
    ({"_id": 1, "u": "not one"}, "uuid"),
    ({"_id": 1, "o": "zz"}, "objectId"),
    ({"_id": 2**63}, "64 bits|range"),
    ({"_id": 1, "l": 5}, "list"),
    ({"_id": 1, "m": object()}, "realm can hold"),
]


@pytest.mark.parametrize(("record", "fragment"), BAD)
def test_refused(record: dict[str, Any], fragment: str) -> None:
    """What a type cannot hold is one error that names the property."""
    with pytest.raises(WriteError, match=fragment):
        frame_to_arrow(record, CLS, EVERY)


def test_arrow_is_not_copied() -> None:
    """A column of exactly the right type is taken as it is."""
    column = pa.chunked_array([[1, 2, 3]], pa.int64())
    table = frame_to_arrow(pa.table({"_id": column}), CLS, EVERY)
    assert table["_id"].chunk(0).buffers()[1].address == column.chunk(0).buffers()[1].address


def test_numpy_frames() -> None:
    """Ordinary frames of numpy types convert, with NaN as null where null is allowed."""
    frame = pd.DataFrame({"_id": np.arange(3, dtype="int32"), "d": [1.0, np.nan, 3.0], "s": ["a", None, "c"]})
    table = frame_to_arrow(frame, CLS, EVERY)
    assert table["_id"].to_pylist() == [0, 1, 2]
    assert table["d"].to_pylist() == [1.0, None, 3.0]
    assert table["s"].to_pylist() == ["a", None, "c"]


def test_fractions_are_no_integers() -> None:
    """A float column converts to int only when nothing is lost."""
    assert frame_to_arrow(pd.DataFrame({"_id": [1.0, 2.0]}), CLS, EVERY)["_id"].to_pylist() == [1, 2]
    with pytest.raises(WriteError):
        frame_to_arrow(pd.DataFrame({"_id": [1.5]}), CLS, EVERY)


def test_the_index_may_be_the_key() -> None:
    """An index named like the primary key is taken for it."""
    frame = pd.DataFrame({"s": ["a"]}, index=pd.Index([4], name="_id"))
    assert frame_to_arrow(frame, CLS, EVERY)["_id"].to_pylist() == [4]


def test_runs_of_records() -> None:
    """Records with different fields come as one table for each run, in order."""
    records = [{"_id": 1, "s": "a"}, {"_id": 2, "s": "b"}, {"_id": 3}, {"_id": 4, "s": "d"}]
    tables = list(records_to_tables(records, CLS, EVERY))
    assert [t.to_pylist() for t in tables] == [
        [{"_id": 1, "s": "a"}, {"_id": 2, "s": "b"}],
        [{"_id": 3}],
        [{"_id": 4, "s": "d"}],
    ]
