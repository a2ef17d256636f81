"""Checkpoints: a snapshot as immutable Arrow files, memory-mapped when it is opened again.

The folder holds ``manifest.json``, which is replaced in one step, and ``data/`` with the files that it names: for each
class an Arrow IPC file and the arrays of its key index, and one file for each blob. Files of classes that did not change
since the previous checkpoint are kept and named again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from realmframe.errors import CorruptFileError
from realmframe.model import ClassKind, Collection, ObjectSchema, Property, PropertyType, Schema
from realmframe.store.arrow_io import batch_schema, chunk_to_batch, index_arrays, table_from_batches
from realmframe.store.files import FileSystem, explained, write_file
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Table

MANIFEST: Final = "manifest.json"
FORMAT: Final = "realmframe/1"


@dataclass(slots=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes
    ----------
    snapshot : Snapshot
    extra : dict
        What the writer added.
    blobs : dict of str to bytes
    files : dict
        For each class the table and the names of its files, to be given to the next :func:`write_checkpoint`.
    """

    snapshot: Snapshot
    extra: dict[str, Any]
    blobs: dict[str, bytes]
    files: dict[str, tuple[Table, dict[str, str]]] = field(default_factory=dict)


def schema_to_json(schema: Schema) -> list[Any]:
    """Write a schema exactly."""
    return [
        [c.name, int(c.kind), c.primary_key, [_property_to_json(p) for p in c.properties.values()]]
        for c in schema.values()
    ]


def _property_to_json(p: Property) -> list[Any]:
    return [p.name, int(p.type), p.optional, int(p.collection), p.target]


def schema_from_json(form: list[Any]) -> Schema:
    """Read what :func:`schema_to_json` wrote."""
    classes = []
    for name, kind, key, properties in form:
        props = {p[0]: Property(p[0], PropertyType(p[1]), p[2], Collection(p[3]), p[4]) for p in properties}
        classes.append(ObjectSchema(name, props, key, ClassKind(kind)))
    return Schema(classes)


def write_checkpoint(
    folder: Path,
    snapshot: Snapshot,
    extra: Mapping[str, Any],
    *,
    blobs: Mapping[str, bytes] | None = None,
    previous: Checkpoint | None = None,
    fs: FileSystem | None = None,
) -> Checkpoint:
    """Write a checkpoint and make it the folder's current one.

    Parameters
    ----------
    folder : Path
    snapshot : Snapshot
    extra : mapping
        JSON-able.
    blobs : mapping, optional
        Bytes to be kept with it.
    previous : Checkpoint, optional
        The folder's current one; its files are used again for classes that are unchanged.
    fs : FileSystem, optional

    Raises
    ------
    StorageError
        If it cannot be written; the current one stays.
    """
    fs = fs or FileSystem()
    data = folder / "data"
    with explained(data):
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    files: dict[str, tuple[Table, dict[str, str]]] = {}
    for name, table in snapshot.tables.items():
        known = previous.files.get(name) if previous is not None else None
        if known is not None and known[0].chunks == table.chunks and known[0].cls == table.cls:
            files[name] = (table, known[1])
        else:
            files[name] = (table, _write_table(fs, data, table))
    named = {name: _write_blob(fs, data, blob) for name, blob in (blobs or {}).items()}
    fs.sync_folder(data)
    fs.step("files written")
    manifest = {
        "format": FORMAT,
        "version": snapshot.version,
        "schema": schema_to_json(snapshot.schema),
        "tables": {n: {"files": f, "next_id": t.next_id} for n, (t, f) in files.items()},
        "blobs": named,
        "extra": dict(extra),
    }
    write_file(fs, folder / MANIFEST, json.dumps(manifest).encode())
    fs.step("manifest written")
    remove_unreferenced(folder, manifest)
    return Checkpoint(snapshot, dict(extra), dict(blobs or {}), files)


def _write_table(fs: FileSystem, data: Path, table: Table) -> dict[str, str]:
    stem = uuid.uuid4().hex
    names = {"table": f"{stem}.arrow"}
    schema = batch_schema(table)
    path = data / names["table"]
    with explained(path):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for chunk in table.chunks:
                writer.write_batch(chunk_to_batch(table, chunk, schema))
        _sync_path(fs, path)
        for part, array in index_arrays(table).items():
            names[part] = f"{stem}.{part}.npy"
            np.save(data / names[part], array)
            _sync_path(fs, data / names[part])
    return names


def _write_blob(fs: FileSystem, data: Path, blob: bytes) -> str:
    name = f"{uuid.uuid4().hex}.bin"
    write_file(fs, data / name, blob)
    return name


def _sync_path(fs: FileSystem, path: Path) -> None:
    with path.open("rb") as file:
        fs.sync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read a folder's manifest; None if it has none.

    Raises
    ------
    CorruptFileError
        If it is not ours or damaged.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        raise _damaged(path) from fault
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _damaged(path)
    return found


def _damaged(path: Path) -> CorruptFileError:
    return CorruptFileError(
        f"{path} is damaged, or not a file of a realm.",
        path=str(path),
        hint="Restore it from a backup, or delete the realm's folder and sync anew.",
    )


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Open a folder's current checkpoint, memory-mapped; None if it has none.

    Raises
    ------
    CorruptFileError
        Naming the file that is damaged or missing.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    data = folder / "data"
    try:
        schema = schema_from_json(manifest["schema"])
        tables, files = {}, {}
        for name, entry in manifest["tables"].items():
            tables[name] = _read_table(data, schema, name, entry)
            files[name] = (tables[name], entry["files"])
        blobs = {name: (data / file).read_bytes() for name, file in manifest["blobs"].items()}
        snapshot = Snapshot(manifest["version"], schema, tables)
    except CorruptFileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise _damaged(folder / MANIFEST) from fault
    except OSError as fault:
        raise _damaged(Path(fault.filename or data)) from fault
    return Checkpoint(snapshot, manifest["extra"], blobs, files)


def _read_table(data: Path, schema: Schema, name: str, entry: Mapping[str, Any]) -> Table:
    files = entry["files"]
    path = data / files["table"]
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path), "r"))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        index = {part: np.load(data / files[part], mmap_mode="r") for part in ("first", "second", "rows")}
    except (pa.ArrowException, OSError, ValueError, EOFError) as fault:
        raise _damaged(path) from fault
    return table_from_batches(schema[name], schema, batches, next_id=entry["next_id"], index=index)


def remove_unreferenced(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Remove files that the manifest does not name."""
    named = set(manifest["blobs"].values())
    for entry in manifest["tables"].values():
        named |= set(entry["files"].values())
    for path in (folder / "data").glob("*"):
        if path.name not in named:
            path.unlink(missing_ok=True)
