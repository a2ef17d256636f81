"""Checkpoints on their own: what the server uses, without a journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.errors import CorruptFileError
from realmframe.model import PropertyType
from realmframe.store import Snapshot, apply, read_checkpoint, write_checkpoint


def _snapshot(before: Snapshot, name: str, count: int) -> Snapshot:
    rows: list[ins.Instruction] = [ins.AddTable(name, pk_field="_id", pk_type=PropertyType.STRING)]
    rows.append(ins.AddColumn(name, "v", PropertyType.DOUBLE))
    for n in range(count):
        rows += [ins.CreateObject(name, f"k{n}"), ins.Update(name, f"k{n}", "v", (), n / 2)]
    return apply(before, Changeset.from_instructions(rows)).snapshot


def test_round_trip_and_reuse(tmp_path: Path) -> None:
    """A snapshot comes back whole; the files of a class that did not change are used again, others removed."""
    assert read_checkpoint(tmp_path) is None
    one = _snapshot(Snapshot.empty(), "A", 100)
    write_checkpoint(tmp_path, one, {"n": 1}, blobs={"x": b"abc"})
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert (found.snapshot.version, found.extra, found.blobs) == (1, {"n": 1}, {"x": b"abc"})
    assert found.snapshot.schema.to_list() == one.schema.to_list()
    table = found.snapshot.table("A")
    assert table.column("v").to_pylist() == [n / 2 for n in range(100)]
    assert table.find(["k7", "no"]).tolist() == [7, -1]
    kept = {p.name for p in (tmp_path / "data").iterdir() if p.suffix != ".bin"}
    changed = _snapshot(found.snapshot, "B", 3)
    write_checkpoint(tmp_path, changed, {}, previous=found)
    again = read_checkpoint(tmp_path)
    assert again is not None
    names = {p.name for p in (tmp_path / "data").iterdir()}
    assert kept <= names
    assert len(names) == len(kept) + 4
    assert len(again.snapshot.table("B")) == 3
    # What was read can be written to: its index takes new keys, and the files stay as they were.
    more = apply(
        again.snapshot, Changeset.from_instructions([ins.CreateObject("A", "new"), ins.EraseObject("A", "k0")])
    ).snapshot
    assert more.table("A").find(["new", "k0", "k1"]).tolist() == [99, -1, 0]
    last = read_checkpoint(tmp_path)
    assert last is not None
    assert last.snapshot.table("A").find(["new", "k0"]).tolist() == [-1, 0]


def test_manifest_of_something_else(tmp_path: Path) -> None:
    """A manifest of another program is refused by name."""
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(CorruptFileError, match=r"manifest\.json"):
        read_checkpoint(tmp_path)
