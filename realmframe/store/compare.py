"""The changeset that leads from one state to another, object by object and field by field."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.store import types as t
from realmframe.store.arrays import one_array
from realmframe.store.builders import column_differs, objects_changeset, schema_changeset
from realmframe.store.emit import Emitter
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Table
from realmframe.store.writer import value_instructions


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
        else:
            values = one_array(after.column(name).take(pa.array(known)), prop, after.schema)
            changed = known[column_differs(before, name, rows[known], values)]
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
