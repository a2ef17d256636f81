"""Live frames: real DataFrames that move on when told, and never otherwise."""

from __future__ import annotations

import datetime as dt
import gc
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from realmframe.changes.instructions import ArrayInsert, CreateObject, EraseObject, Update
from realmframe.errors import QueryError, UsageError, WriteError
from realmframe.frames import LiveFrame
from realmframe.model import Link, Timestamp
from tests.frames.conftest import Source


def flights(*rows: tuple[int, str, float | None]) -> list[CreateObject | Update]:
    """Create flights."""
    out: list[CreateObject | Update] = []
    for key, carrier, delay in rows:
        out += [CreateObject("Flight", key), Update("Flight", key, "carrier", (), carrier)]
        if delay is not None:
            out.append(Update("Flight", key, "delay", (), delay))
    return out


def test_it_is_a_dataframe(source: Source) -> None:
    """A live frame is a DataFrame with one Arrow column per property and a RangeIndex."""
    source.apply(flights((1, "UA", 5.0), (2, "AA", None)))
    frame = source.frames["Flight"]
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["_id", "carrier", "delay", "at", "tags", "plane", "extra"]
    assert frame.index.equals(pd.RangeIndex(2))
    assert frame.carrier.dtype == pd.ArrowDtype(pa.string())
    assert frame.groupby("carrier").delay.mean().to_dict() == {"AA": pd.NA, "UA": 5.0} or len(frame) == 2
    assert frame.delay.sum() == 5.0


def test_one_object_per_class(source: Source) -> None:
    """The frame of a class is one object for as long as somebody holds it."""
    assert source.frames["Flight"] is source.frames["Flight"]


def test_it_moves_only_when_told(source: Source) -> None:
    """A commit changes nothing until the frames advance; then all show the new version."""
    frame, other = source.frames["Flight"], source.frames["Plane"]
    source.apply(flights((1, "UA", 5.0)))
    assert len(frame) == 0
    assert source.frames.advance() == 1
    assert len(frame) == 1
    assert len(other) == 0
    source.apply([Update("Flight", 1, "delay", (), 7.5), CreateObject("Plane", "N1")])
    assert source.frames.advance() == 2
    assert frame.delay.tolist() == [7.5]
    assert other._id.tolist() == ["N1"]
    source.apply([EraseObject("Flight", 1)])
    source.frames.advance()
    assert len(frame) == 0
    assert source.frames.advance() == 0


def test_what_is_derived_stays(source: Source) -> None:
    """Selections, copies and pinned frames are ordinary frames that never change."""
    source.apply(flights((1, "UA", 5.0), (2, "AA", 50.0)))
    frame = source.frames["Flight"]
    derived = [frame[frame.delay > 10], frame.copy(), frame.realm.pin(), frame.head(1), frame.sort_values("delay")]
    before = [d.copy() for d in derived]
    assert all(type(d) is pd.DataFrame for d in derived)
    source.apply([EraseObject("Flight", 1), Update("Flight", 2, "delay", (), 0.0)])
    source.frames.advance()
    for now, then in zip(derived, before, strict=True):
        pd.testing.assert_frame_equal(now, then)


@pytest.mark.parametrize(
    "assign",
    [
        lambda f: f.__setitem__("delay", 1.0),
        lambda f: f.loc.__setitem__((0, "delay"), 1.0),
        lambda f: f.iloc.__setitem__((0, 2), 1.0),
        lambda f: f.at.__setitem__((0, "delay"), 1.0),
        lambda f: f.iat.__setitem__((0, 2), 1.0),
        lambda f: setattr(f, "delay", 1.0),
        lambda f: f.insert(0, "new", 1),
        lambda f: f.pop("delay"),
        lambda f: f.__delitem__("delay"),
        lambda f: f.drop(columns="delay", inplace=True),
        lambda f: f.fillna({"delay": 0.0}, inplace=True),
        lambda f: f.sort_values("delay", inplace=True),
        lambda f: f.update(f.copy()),
        lambda f: setattr(f, "columns", list("abcdefg")),
        lambda f: setattr(f, "index", [5]),
    ],
)
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_assigning_raises(source: Source, assign: object) -> None:
    """Every way to change a frame in place raises one error that shows the right call, and changes nothing."""
    source.apply(flights((1, "UA", 5.0)))
    frame = source.frames["Flight"]
    before = frame.copy()
    with pytest.raises(WriteError, match=r"realm\.write"):
        assign(frame)  # type: ignore[operator]
    pd.testing.assert_frame_equal(frame.copy(), before)


def test_reading_by_label_works(source: Source) -> None:
    """The guarded indexers read as pandas does."""
    source.apply(flights((1, "UA", 5.0), (2, "AA", 50.0)))
    frame = source.frames["Flight"]
    assert frame.loc[frame.carrier == "AA", "delay"].tolist() == [50.0]
    assert frame.iloc[0, 1] == "UA"
    assert frame.at[1, "carrier"] == "AA"
    assert frame.iat[1, 2] == 50.0


def test_filtered_is_live(source: Source) -> None:
    """A query's frame follows what enters and leaves it, in the query's order."""
    source.apply(flights((1, "UA", 5.0), (2, "AA", 50.0)))
    late = source.frames["Flight"].filtered("delay > $0 SORT(delay DESC)", 10)
    assert isinstance(late, LiveFrame)
    assert late._id.tolist() == [2]
    source.apply(flights((3, "DL", 99.0)))
    source.frames.advance()
    assert late._id.tolist() == [3, 2]
    source.apply([Update("Flight", 2, "delay", (), 0.0)])
    source.frames.advance()
    assert late._id.tolist() == [3]
    assert late.realm.class_name == "Flight"
    assert "delay > 10" in (late.realm.query or "")


def test_bad_names_are_told(source: Source) -> None:
    """An unknown class or a bad query is one error."""
    with pytest.raises(UsageError, match="no class 'Flght'"):
        _ = source.frames["Flght"]
    with pytest.raises(QueryError):
        source.frames["Flight"].filtered("delay >")


def test_links_collections_and_mixed(source: Source) -> None:
    """A link shows the target's key, a list a list, a Mixed value itself."""
    source.apply(
        [
            *flights((1, "UA", 5.0)),
            Update("Flight", 1, "plane", (), Link("Plane", "N1")),
            ArrayInsert("Flight", 1, "tags", (0,), "late", 0),
            Update("Flight", 1, "extra", (), "note"),
            Update("Flight", 1, "at", (), Timestamp(1, 500)),
        ]
    )
    row = source.frames["Flight"].iloc[0]
    assert row["plane"] == "N1"
    assert list(row["tags"]) == ["late"]
    assert row["extra"] == "note"
    assert row["at"] == pd.Timestamp(1_000_000_500, tz="UTC")


@pytest.mark.parametrize("moment", [Timestamp(-62_135_596_800, 0), Timestamp(253_402_300_799, 999_000_000)])
def test_dates_beyond_nanoseconds(source: Source, moment: Timestamp) -> None:
    """The years 1 and 9999 show as exact dates."""
    source.apply([*flights((1, "UA", None)), Update("Flight", 1, "at", (), moment)])
    assert source.frames["Flight"]["at"][0] == moment.to_datetime()


def test_status_and_html(source: Source) -> None:
    """A frame says how fresh it is, in words and in its HTML."""
    source.apply(flights((1, "UA", 5.0)))
    frame = source.frames["Flight"]
    source.current = type(source.current)(1, dt.datetime(2026, 1, 2, tzinfo=dt.UTC), True, 2)
    assert frame.realm.is_stale
    assert frame.realm.pending_writes == 2
    assert frame.realm.version == source.snapshot.version
    page = frame._repr_html_()
    assert page is not None
    assert "stale" in page
    assert "2 pending writes" in page


def test_other_engines_and_pickle(source: Source) -> None:
    """The rows go to other engines through the C stream, and a pickled frame is an ordinary one."""
    source.apply(flights((1, "UA", 5.0), (2, "AA", None)))
    frame = source.frames["Flight"]
    table = pa.table(frame)
    assert table["_id"].to_pylist() == [1, 2]
    restored = pickle.loads(pickle.dumps(source.frames["Plane"]))
    assert type(restored) is pd.DataFrame


def test_nothing_leaks(source: Source) -> None:
    """A frame that nobody holds is forgotten."""
    frame = source.frames["Flight"].filtered("delay > 1")
    assert len(source.frames._all) == 2
    del frame
    gc.collect()
    source.frames.advance()
    assert len(source.frames._all) <= 1


def test_advance_costs_no_copies(source: Source) -> None:
    """Advancing shares the chunks of the store: the buffers are the same memory."""
    source.apply(flights((1, "UA", 5.0)))
    frame = source.frames["Flight"]
    chunk = source.snapshot.table("Flight").column("delay").chunk(0)
    shown = frame["delay"].array.__arrow_array__()
    assert shown.chunk(0).buffers()[1].address == chunk.buffers()[1].address
    assert np.isclose(frame.delay[0], 5.0)


def test_attrs_say_how_fresh(source: Source, tmp_path: Path) -> None:
    """``attrs`` names class and version, moves with the frame, and can be written into a Parquet file."""
    frame = source.frames["Flight"]
    before = frame.attrs["realm_version"]
    derived = frame.copy()
    source.apply(flights((1, "UA", 5.0)))
    source.frames.advance()
    assert frame.attrs["realm_class"] == "Flight"
    assert frame.attrs["realm_version"] == source.snapshot.version > before
    assert derived.attrs["realm_version"] == before
    frame[["_id", "carrier"]].to_parquet(tmp_path / "flights.parquet")
    assert pd.read_parquet(tmp_path / "flights.parquet").attrs["realm_version"] == source.snapshot.version
