"""The difference of two frames is exactly what was edited."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.errors import UsageError, WriteError
from realmframe.frames import changes_for
from tests.frames.conftest import SCHEMA, Source
from tests.frames.test_live import flights

PLANE = SCHEMA["Plane"]


def test_minimal_changes(source: Source) -> None:
    """Only fields that changed, objects that are new and keys that are gone are listed."""
    source.apply(flights((1, "UA", 5.0), (2, "AA", 50.0), (3, "DL", None)))
    before = source.frames["Flight"]
    edit = before.realm.pin()
    edit.loc[edit.carrier == "AA", "delay"] = 7.0
    edit = edit[edit._id != 3]
    edit = pd.concat([edit, pd.DataFrame({"_id": [9], "carrier": ["B6"]})], ignore_index=True)
    changes = changes_for(before, edit)
    assert {name: table.to_pylist() for name, table in changes.modified.items()} == {
        "delay": [{"_id": 2, "delay": 7.0}]
    }
    assert changes.inserted["_id"].to_pylist() == [9]
    assert changes.deleted.to_pylist() == [3]
    assert sorted(changes.to_frame().change) == ["delete", "insert", "modify"]


def test_nothing_changed(source: Source) -> None:
    """An untouched copy, also reordered, has no difference."""
    source.apply(flights((1, "UA", 5.0), (2, "AA", None)))
    before = source.frames["Flight"]
    assert not changes_for(before, before.copy())
    assert not changes_for(before, before.sort_values("_id", ascending=False))


def test_keys_must_be_unique(source: Source) -> None:
    """A key that stands twice is refused."""
    source.apply(flights((1, "UA", 5.0)))
    before = source.frames["Flight"]
    with pytest.raises(WriteError, match="twice"):
        changes_for(before, pd.concat([before, before]))


def test_ordinary_frames_need_a_schema() -> None:
    """Frames that do not come from a realm need to say their class."""
    frame = pd.DataFrame({"_id": ["a"], "seats": [1]})
    with pytest.raises(UsageError, match="which class"):
        changes_for(frame, frame)
    assert not changes_for(frame, frame, PLANE)


ROWS = st.dictionaries(st.text(max_size=3), st.none() | st.integers(-5, 5), max_size=6)


def _frame(rows: dict[str, int | None]) -> pd.DataFrame:
    seats = pd.array(list(rows.values()), dtype="Int64")
    return pd.DataFrame({"_id": pd.Series(list(rows), dtype=object), "seats": seats})


@given(ROWS, ROWS)
def test_difference_leads_from_one_to_the_other(before: dict[str, int | None], after: dict[str, int | None]) -> None:
    """Applying the difference to one frame gives the other."""
    changes = changes_for(_frame(before), _frame(after), PLANE)
    state = dict(before)
    for key in changes.deleted.to_pylist():
        del state[key]
    state |= {r["_id"]: r["seats"] for r in changes.inserted.to_pylist()}
    for row in changes.modified["seats"].to_pylist() if changes.modified else []:
        assert state[row["_id"]] != row["seats"]
        state[row["_id"]] = row["seats"]
    assert state == after


def test_pinned_frames_compare_without_the_realm(source: Source) -> None:
    """A pinned frame knows its class, so it and an edited copy are enough for a dry run."""
    source.apply(flights((1, "UA", 5.0)))
    pinned = source.frames["Flight"].realm.pin()
    edit = pinned.copy()
    edit.loc[0, "delay"] = 6.0
    source.apply(flights((2, "AA", None)))
    source.frames.advance()
    assert changes_for(pinned, edit).modified["delay"].to_pylist() == [{"_id": 1, "delay": 6.0}]
