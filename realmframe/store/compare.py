"""The changeset that leads from one state to another, object by object and field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.store import types as t
from realmframe.store.builders import column_differs, objects_changeset, schema_changeset, value_instructions
from realmframe.store.emit import Emitter
from realmframe.store.index import Ids
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Table


def difference_changeset(old: Snapshot, new: Snapshot) -> Changeset:
    """Give the changeset that turns one state into another; what is equal in both is not touched.

    Parameters
    ----------
    old, new : Snapshot
        The new one has every class and property of the old one.

    Returns
    -------
    Changeset
        Schema, then for each class erasures, creations, and updates of the fields that differ, bit for bit.
    """
    parts = [schema_changeset(new.schema, old.schema)]
    for name, table in new.tables.items():
        before = old.tables.get(name)
        if before is None or not len(before):
            if len(table):
                parts.append(objects_changeset(new, name))
        else:
            parts += _class(new, before, table)
    return concat([p for p in parts if len(p)])


def _class(new: Snapshot, before: Table, after: Table) -> Iterator[Changeset]:
    rows = before.find(after.keys())
    known = np.flatnonzero(rows >= 0)
    gone = np.setdiff1d(np.arange(len(before)), rows[known], assume_unique=True)
    emitter = Emitter(after.cls.name, after.cls.key_property, after.schema)
    emitter.erase(before.keys().take(pa.array(gone)))
    fresh = np.flatnonzero(rows < 0)
    nested: list[i.Instruction] = []
    for name, prop in after.cls.columns.items():
        if name not in before.cls.columns:
            changed = known
        elif t.is_scalar(prop, after.schema):
            changed = known[column_differs(before, name, rows[known], after.column(name).take(pa.array(known)))]
        else:
            changed = known[_nested_differs(before, after, name, rows[known], known)]
        if not len(changed):
            continue
        keys = after.keys().take(pa.array(changed))
        if t.is_scalar(prop, after.schema):
            emitter.update(prop, keys, after.column(name).take(pa.array(changed)))
            continue
        for row, value in zip(changed.tolist(), after.values(name, changed), strict=True):
            nested += value_instructions(after.schema, after.cls.name, after.key(row), prop, value, reset=True)
    yield emitter.finish()
    if len(fresh):
        yield objects_changeset(new, after.cls.name, fresh)
    if nested:
        yield Changeset.from_instructions(nested)


def _nested_differs(before: Table, after: Table, name: str, rows: Ids, known: Ids) -> Any:
    """Tell which rows of a column that is no plain Arrow type differ; whole runs that are equal cost one comparison."""
    old = before.column(name).take(pa.array(rows)).combine_chunks()
    new = after.column(name).take(pa.array(known)).combine_chunks()
    out = np.zeros(len(known), np.bool_)
    spans = [(0, len(known))]
    while spans:
        start, stop = spans.pop()
        size = stop - start
        if not size or (old.type == new.type and old.slice(start, size).equals(new.slice(start, size))):
            continue
        if size == 1:
            out[start] = True
            continue
        middle = (start + stop) // 2
        spans += [(start, middle), (middle, stop)]
    return out
