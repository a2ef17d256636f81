"""Every property type with its hardest values, through every step of its life: equal to the last bit at each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import realmframe as rf
from realmframe.client.loop import stop_sync_loop
from realmframe.frames import coerce_cell, frame_to_arrow
from realmframe.frames.array import to_pandas
from realmframe.frames.cells import from_python
from realmframe.store import MIXED
from realmframe.store.mixed import exact
from realmframe.testing import Server
from tests.values import FORMS, ROWS, SCHEMA, value_of

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
    """Write the same objects in each way."""
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
