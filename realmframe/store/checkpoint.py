"""Checkpoints: a snapshot as immutable Arrow files, memory-mapped when it is opened again.

The folder holds ``manifest.json``, which is replaced in one step, and ``data/`` with the files that it names: for each
class an Arrow IPC file and the arrays of its key index, and one file for each blob. Files of classes that did not
change since the previous checkpoint are kept and named again.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from realmframe.errors import CorruptFileError
from realmframe.model import ClassKind, Collection, ObjectSchema, Property, PropertyType, Schema
from realmframe.store.arrow_io import batch_schema, chunk_to_batch, table_from_batches
from realmframe.store.files import FileSystem, explained, make_folder, write_file
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Table, build_index

MANIFEST: Final = "manifest.json"
#: In a manifest of the first form the indexes of keys have no secret.
FORMAT: Final = "realmframe/2"
_KNOWN: Final = ("realmframe/1", FORMAT)
_INDEX_PARTS: Final = ("first", "second", "rows")


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
    indexes: Mapping[str, FrozenIndex] | None = None,
    publishing: Callable[[], AbstractContextManager[object]] | None = None,
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
    indexes : mapping, optional
        What :func:`freeze_indexes` gave, for a snapshot that another thread goes on from meanwhile.
    publishing : callable, optional
        Gives a context in which the manifest is replaced and old files are removed.

    Raises
    ------
    StorageError
        If it cannot be written; the current one stays.
    """
    fs = fs or FileSystem()
    data = folder / "data"
    make_folder(fs, data)
    files: dict[str, tuple[Table, dict[str, str]]] = {}
    for name, table in snapshot.tables.items():
        known = previous.files.get(name) if previous is not None else None
        if known is not None and _same_rows(known[0], table):
            files[name] = (table, known[1])
        else:
            frozen = indexes[name] if indexes is not None else freeze_index(table)
            files[name] = (table, _write_table(fs, data, table, frozen))
    named = {name: _write_blob(fs, data, blob) for name, blob in (blobs or {}).items()}
    fs.sync_folder(data)
    fs.step("files written")
    manifest = {
        "format": FORMAT,
        "version": snapshot.version,
        "schema": schema_to_json(snapshot.schema),
        "tables": {name: _entry(*files[name], (indexes or {}).get(name)) for name in files},
        "blobs": named,
        "extra": dict(extra),
    }
    with publishing() if publishing is not None else contextlib.nullcontext():
        write_file(fs, folder / MANIFEST, json.dumps(manifest).encode())
        fs.step("manifest written")
        remove_unreferenced(folder, manifest)
    return Checkpoint(snapshot, dict(extra), dict(blobs or {}), files)


def _entry(table: Table, files: dict[str, str], frozen: FrozenIndex | None) -> dict[str, Any]:
    """Describe a class in the manifest."""
    secret = (table.index if frozen is None else frozen).secret
    return {"files": files, "next_id": table.next_id, "used": table.index.used, "secret": secret.tobytes().hex()}


def _same_rows(old: Table, new: Table) -> bool:
    """Tell whether the files of one table are good for another (their schemas may differ in other classes).

    They are if the tables share all their arrays, and what the index of the old one holds beyond them means nothing in
    the new one, whose row ids have gone further in the same lineage.
    """
    if old.cls != new.cls or len(old.chunks) != len(new.chunks) or new.next_id < old.next_id:
        return False
    if not np.array_equal(old.index.secret, new.index.secret):
        return False
    return all(
        a is b or (a.ids is b.ids and a.keys is b.keys and all(b.columns[n] is c for n, c in a.columns.items()))
        for a, b in zip(old.chunks, new.chunks, strict=True)
    )


@dataclass(frozen=True, slots=True, eq=False)
class FrozenIndex:
    """A key index as it was when a snapshot was the newest one."""

    first: Any
    second: Any
    rows: Any
    limit: int
    secret: Any

    def arrays(self) -> dict[str, Any]:
        """Give the arrays to be written, without what was entered since."""
        rows = np.array(self.rows)
        # What came later was put where no older entry's search passes, so it can be blanked.
        rows[rows >= self.limit] = -1
        return {"first": self.first, "second": self.second, "rows": rows}


def freeze_index(table: Table) -> FrozenIndex:
    """Hold on to a table's index; while nobody enters keys."""
    index = table.index
    return FrozenIndex(index.slots1, index.slots2, index.rows, table.next_id, index.secret)


def separate_index(table: Table) -> FrozenIndex:
    """Make an index with a secret of its own, for a copy of a table that is given away."""
    index = build_index(table.cls, table.chunks)
    return FrozenIndex(index.slots1, index.slots2, index.rows, table.next_id, index.secret)


def _write_table(fs: FileSystem, data: Path, table: Table, frozen: FrozenIndex) -> dict[str, str]:
    stem = uuid.uuid4().hex
    names = {"table": f"{stem}.arrow"}
    schema = batch_schema(table)
    path = data / names["table"]
    sink = _Sink(fs, path)
    with explained(path), sink, pa.PythonFile(sink, "w") as file, pa.ipc.new_file(file, schema) as writer:
        for chunk in table.chunks:
            writer.write_batch(chunk_to_batch(table, chunk, schema))
    for part, array in frozen.arrays().items():
        names[part] = f"{stem}.{part}.npy"
        sink = _Sink(fs, data / names[part])
        with explained(data / names[part]), sink:
            np.lib.format.write_array_header_1_0(sink, np.lib.format.header_data_from_array_1_0(array))
            sink.write(np.ascontiguousarray(array).data.cast("B"))
    return names


class _Sink(io.RawIOBase):
    """A new file that is written through the seam, and on disk once it was left without an error."""

    def __init__(self, fs: FileSystem, path: Path) -> None:
        self._fs, self._path = fs, path
        with explained(path):
            self._descriptor = fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def writable(self) -> bool:
        """Say so."""
        return True

    def write(self, data: Any) -> int:
        """Write all of it."""
        self._fs.write(self._descriptor, data)
        return len(data)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._fs.sync(self._descriptor)
        finally:
            os.close(self._descriptor)
            if kind is not None:
                self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave it open: whoever writes through it closes it too early."""


def _write_blob(fs: FileSystem, data: Path, blob: bytes) -> str:
    name = f"{uuid.uuid4().hex}.bin"
    write_file(fs, data / name, blob)
    return name


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
    if not isinstance(found, dict) or found.get("format") not in _KNOWN:
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
            if "secret" in entry:
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
        index = None
        if "secret" in entry:  # An index of an older version, without one, is built anew.
            # Copy on write: what is entered later stays in memory, page by page.
            index = {part: np.load(data / files[part], mmap_mode="c").view(np.ndarray) for part in _INDEX_PARTS}
            index["secret"] = np.frombuffer(bytes.fromhex(entry["secret"]), np.uint64)
    except (pa.ArrowException, OSError, ValueError, EOFError) as fault:
        raise _damaged(path) from fault
    try:
        table = table_from_batches(schema[name], schema, batches, next_id=entry["next_id"], index=index)
    except (pa.ArrowException, CorruptFileError, ValueError) as fault:
        raise _damaged(path) from fault
    if index is not None:
        table.index.used = entry["used"]
    return table


def remove_unreferenced(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Remove files that the manifest does not name."""
    named = set(manifest["blobs"].values())
    for entry in manifest["tables"].values():
        named |= set(entry["files"].values())
    for path in (folder / "data").glob("*"):
        if path.name not in named:
            path.unlink(missing_ok=True)
