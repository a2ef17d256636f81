"""Checkpoints on their own: what the server uses, without a journal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.errors import CorruptFileError
from realmframe.model import ClassKind, Collection, Marker, PropertyType
from realmframe.store import RealmStore, Snapshot, apply, read_checkpoint, write_checkpoint


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


def test_files_of_erased_objects_are_not_used_for_a_class_added_again(tmp_path: Path) -> None:
    """A class that was empty, erased and added again is empty: no key of the old one is found later."""
    one = _snapshot(Snapshot.empty(), "A", 3)
    gone = apply(one, Changeset.from_instructions([ins.EraseObject("A", f"k{n}") for n in range(3)])).snapshot
    first = write_checkpoint(tmp_path, gone, {})
    again = apply(gone, Changeset.from_instructions([ins.EraseTable("A")])).snapshot
    write_checkpoint(tmp_path, _snapshot(again, "A", 0), {}, previous=first)
    found = read_checkpoint(tmp_path)
    assert found is not None
    made = [ins.EraseObject("A", "none"), ins.CreateObject("A", "other")]
    new = apply(found.snapshot, Changeset.from_instructions(made)).snapshot
    assert new.table("A").find(["k0", "other"]).tolist() == [-1, 0]


def test_an_index_without_a_secret_is_built_anew(tmp_path: Path) -> None:
    """A checkpoint of an earlier version, whose strings were entered without a secret, opens and is written anew."""
    write_checkpoint(tmp_path, _snapshot(Snapshot.empty(), "A", 100), {})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["tables"]["A"].pop("secret")
    manifest["format"] = "realmframe/1"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for part in ("first", "second"):
        path = tmp_path / "data" / manifest["tables"]["A"]["files"][part]
        np.save(path, np.load(path) ^ np.uint64(12345))
    found = read_checkpoint(tmp_path)
    assert found is not None
    assert found.snapshot.table("A").find(["k7", "no"]).tolist() == [7, -1]
    write_checkpoint(tmp_path, found.snapshot, {}, previous=found)
    again = read_checkpoint(tmp_path)
    assert again is not None
    assert again.files
    more = apply(again.snapshot, Changeset.from_instructions([ins.CreateObject("A", "new")])).snapshot
    assert more.table("A").find(["k7", "new", "no"]).tolist() == [7, 100, -1]


def test_a_copy_to_be_shipped_has_a_secret_of_its_own(tmp_path: Path) -> None:
    """Who gets a copy without identity does not learn by what secret the original enters its keys."""
    with RealmStore.open(tmp_path / "a.realm") as store:
        store.commit(
            Changeset.from_instructions([ins.AddTable("A", pk_field="_id", pk_type=PropertyType.STRING)]), timestamp=0
        )
        store.commit(Changeset.from_instructions([ins.CreateObject("A", "k")]), timestamp=0)
        same, other = tmp_path / "same.realm", tmp_path / "other.realm"
        store.copy_to(same)
        secret = store.snapshot.table("A").index.secret.tobytes()
    with RealmStore.open(same) as copied:
        assert copied.snapshot.table("A").index.secret.tobytes() == secret
        copied.copy_to(other, with_identity=False)
    with RealmStore.open(other) as copied:
        assert copied.snapshot.table("A").index.secret.tobytes() != secret
        assert copied.snapshot.find("A", ["k", "x"]).tolist() == [0, -1]


def test_embedded_objects_of_a_file_take_another_schema(tmp_path: Path) -> None:
    """Embedded objects that were read from a file gain and lose properties as any others, also where there are none."""
    made: list[ins.Instruction] = [
        ins.AddTable("E", ClassKind.EMBEDDED),
        ins.AddColumn("E", "x", PropertyType.INT),
        ins.AddTable("A", pk_field="_id", pk_type=PropertyType.STRING),
        ins.AddColumn("A", "one", PropertyType.OBJECT, True, link_target="E"),
        ins.AddColumn("A", "many", PropertyType.OBJECT, collection=Collection.LIST, link_target="E"),
        ins.CreateObject("A", "k"),
        ins.Update("A", "k", "one", (), Marker.OBJECT_VALUE),
        ins.Update("A", "k", "one", ("x",), 5),
        ins.CreateObject("A", "l"),
    ]
    write_checkpoint(tmp_path, apply(Snapshot.empty(), Changeset.from_instructions(made)).snapshot, {})
    found = read_checkpoint(tmp_path)
    assert found is not None
    change = [ins.AddColumn("E", "y", PropertyType.STRING), ins.EraseColumn("E", "x")]
    new = apply(found.snapshot, Changeset.from_instructions(change)).snapshot
    assert new.values("A", "one") == [{"y": ""}, None]
    assert new.values("A", "many") == [[], []]
    assert new.column("A", "one").to_pylist() == [{"y": ""}, None]


def test_manifest_of_something_else(tmp_path: Path) -> None:
    """A manifest of another program is refused by name."""
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(CorruptFileError, match=r"manifest\.json"):
        read_checkpoint(tmp_path)
