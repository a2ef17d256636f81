"""The way back: the changeset that restores the state before another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.store import types as t
from realmframe.store.builders import objects_changeset, value_instructions
from realmframe.store.emit import Emitter

if TYPE_CHECKING:
    from realmframe.store.apply import Applied, Touched


def inverse_changeset(applied: Applied) -> Changeset:
    """Restore every touched object: erase what was inserted, re-create what was deleted, set back what was modified."""
    parts: list[Changeset] = []
    for name, touched in applied.touched.items():
        if name in applied.before.tables and name in applied.snapshot.tables:
            parts += _class_parts(applied, name, touched)
        elif name in applied.snapshot.tables:
            parts.append(_erased(applied, name, touched))
    return concat(parts)


def _erased(applied: Applied, name: str, touched: Touched) -> Changeset:
    after = applied.snapshot.tables[name]
    emitter = Emitter(name, after.cls.key_property, after.schema)
    if len(touched.inserted):
        emitter.erase(after.keys().take(pa.array(after.positions(touched.inserted))))
    return emitter.finish()


def _class_parts(applied: Applied, name: str, touched: Touched) -> list[Changeset]:
    before = applied.before.tables[name]
    parts = [_erased(applied, name, touched)]
    if len(touched.deleted):
        parts.append(objects_changeset(applied.before, name, before.positions(touched.deleted)))
    emitter = Emitter(name, before.cls.key_property, before.schema)
    nested: list[i.Instruction] = []
    for field, ids in touched.modified.items():
        prop = before.cls.columns.get(field)
        if prop is None or field not in applied.snapshot.schema[name].columns:
            continue  # a property that the changeset added or erased cannot be set back
        rows = before.positions(ids)
        rows = rows[rows >= 0]
        if not len(rows):
            continue
        if t.is_scalar(prop, before.schema):
            where = pa.array(rows)
            emitter.update(prop, before.keys().take(where), before.column(field).take(where))
        else:
            for row, value in zip(rows.tolist(), before.values(field, np.asarray(rows)), strict=True):
                nested += value_instructions(before.schema, name, before.key(row), prop, value, reset=True)
    return [*parts, emitter.finish(), Changeset.from_instructions(nested)]
