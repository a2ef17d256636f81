"""What changed between two frames of a class: the pure twin of a transaction.

``tx.frame("Flight")`` hands out a copy of a pinned frame; when the transaction commits, :func:`changes_for` finds what
was inserted, which fields of which objects were modified, and what was deleted. Only that is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from realmframe.errors import UsageError, WriteError
from realmframe.frames.arrow import records_to_arrow
from realmframe.frames.cells import to_python
from realmframe.frames.live import LiveFrame
from realmframe.model import ObjectSchema, Schema
from realmframe.store import arrays_differ, one_array


@dataclass(frozen=True, slots=True)
class FrameChanges:
    """The difference of two frames of one class.

    Attributes
    ----------
    class_name : str
    inserted : pyarrow.Table
        Whole new objects.
    modified : dict of str to pyarrow.Table
        For each property that changed somewhere: the key and the new value of the objects where it did.
    deleted : pyarrow.Array
        Keys of the objects that are gone.
    """

    class_name: str
    inserted: pa.Table
    modified: dict[str, pa.Table] = field(default_factory=dict)
    deleted: Any = None

    def __bool__(self) -> bool:
        return bool(self.inserted.num_rows or self.modified or len(self.deleted))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}: {table.num_rows}" for name, table in self.modified.items()) or "none"
        return (
            f"<changes of {self.class_name}: {self.inserted.num_rows} inserted, "
            f"{len(self.deleted)} deleted, modified fields {{{fields}}}>"
        )

    def to_frame(self) -> pd.DataFrame:
        """List every change: its key, what was done, the property and its new value."""
        rows: list[tuple[Any, str, str | None, Any]] = []
        rows += [(key, "insert", None, None) for key in _keys(self.inserted)]
        for name, table in self.modified.items():
            values = to_python(table[name])
            rows += [(key, "modify", name, value) for key, value in zip(_keys(table), values, strict=True)]
        rows += [(key, "delete", None, None) for key in self.deleted.to_pylist()]
        return pd.DataFrame(rows, columns=["key", "change", "property", "value"])


def _keys(table: pa.Table) -> list[Any]:
    return list(table.column(0).to_pylist())


def _class_of(frame: pd.DataFrame) -> tuple[ObjectSchema, Schema]:
    if isinstance(frame, LiveFrame):
        return frame.realm.object_schema, frame.realm.schema
    name, forms = frame.attrs.get("realm_class"), frame.attrs.get("realm_schema")
    if name is None or forms is None:
        raise UsageError(
            "The frame to compare with does not say which class it shows.",
            hint='Take it from the realm: realm["Class"], its frame.realm.pin(), or give the schema.',
        )
    schema = Schema(forms)
    return schema[name], schema


def changes_for(
    before: pd.DataFrame,
    after: pd.DataFrame,
    object_schema: ObjectSchema | None = None,
    schema: Schema | None = None,
) -> FrameChanges:
    """Find the minimal changes that turn one frame of a class into another; a dry run of writing it.

    Parameters
    ----------
    before : DataFrame
        A live frame, or what its ``realm.pin()`` gave.
    after : DataFrame
        The same, edited: rows added, dropped, reordered, values changed. Columns that it lacks are left alone.
    object_schema, schema : optional
        The class, when ``before`` is an ordinary frame.

    Raises
    ------
    WriteError
        For a key that stands twice or is missing, or a value that its property cannot hold.
    """
    if object_schema is None:
        object_schema, schema = _class_of(before)
    schema = schema or Schema([object_schema])
    key = object_schema.primary_key
    if key is None:
        raise WriteError(
            f"{object_schema.name} has no primary key, so its frames cannot be compared.",
            hint="Change its objects by tx.update and tx.delete, with a query or a mask over the live frame.",
        )
    old = records_to_arrow(before, object_schema, schema)
    new = records_to_arrow(after, object_schema, schema)
    old_index, new_index = _key_index(old[key], object_schema), _key_index(new[key], object_schema)
    place = old_index.get_indexer(new_index)
    known = np.flatnonzero(place >= 0)
    modified = {}
    for name in new.column_names:
        if name == key:
            continue
        prop = object_schema.properties[name]
        pairs = ((old, place[known]), (new, known))
        left, right = (one_array(table[name].take(pa.array(rows)), prop, schema) for table, rows in pairs)
        changed = known[arrays_differ(left, right, prop, schema)]
        if len(changed):
            modified[name] = new.select([key, name]).take(pa.array(changed))
    gone = np.flatnonzero(new_index.get_indexer(old_index) < 0)
    fresh = new.take(pa.array(np.flatnonzero(place < 0)))
    order = [key, *(n for n in fresh.column_names if n != key)]
    return FrameChanges(object_schema.name, fresh.select(order), modified, old[key].take(pa.array(gone)))


def _key_index(keys: Any, cls: ObjectSchema) -> pd.Index[Any]:
    storage = keys.cast(keys.type.storage_type) if isinstance(keys.type, pa.BaseExtensionType) else keys
    index: pd.Index[Any] = pd.Index(storage.to_pandas())
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise WriteError(f"{cls.name}: the key {twice!r} stands twice in the frame.")
    return index
