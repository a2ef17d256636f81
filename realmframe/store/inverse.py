"""The way back: the changeset that restores the state before another one.

An :class:`Inverse` is a changeset like any other: it can be encoded, sent, applied to whatever state. Applied to the
very state that it leads back from it gives the very state before, row ids and row order included, which bytes cannot
say: what was erased is created again at the end of its table by everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.model import Property, Schema
from realmframe.store import types as t
from realmframe.store.builders import objects_changeset, schema_changeset
from realmframe.store.emit import Emitter
from realmframe.store.writer import value_instructions

if TYPE_CHECKING:
    from realmframe.store.applied import Applied, Touched
    from realmframe.store.index import Ids
    from realmframe.store.snapshot import Snapshot
    from realmframe.store.table import Table


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Inverse(Changeset):
    """A changeset that knows the states that it leads from and to.

    Attributes
    ----------
    applied : Applied
        What it takes back.
    """

    applied: Applied

    def leads_from(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot is the one to go back from, with all its objects; its version may be another."""
        mine = self.applied.snapshot
        if snapshot.schema is not mine.schema or snapshot.tables.keys() != mine.tables.keys():
            return False
        return all(snapshot.tables[name] is table for name, table in mine.tables.items())


def inverse_changeset(applied: Applied) -> Inverse:
    """Restore every touched object: erase what was inserted, re-create what was deleted, set back what was modified.

    The schema goes first, so that what is erased with a class or a property need not be erased one by one.
    """
    work = _Work(applied)
    made = concat([Changeset.from_instructions(work.schema()), *work.objects()])
    return Inverse(**{f.name: getattr(made, f.name) for f in fields(made)}, applied=applied)


class _Work:
    """The way back from one changeset."""

    def __init__(self, applied: Applied) -> None:
        self.applied = applied
        self.before, self.after = applied.before, applied.snapshot
        self.old, self.new = self.before.schema, self.after.schema
        same = self.old.keys() & self.new.keys()
        # Classes and properties that are not what they were, even under the old name.
        self.lost = {name for name in self.old if name not in same or (name, None) in applied.replaced}
        self.lost |= {name for name in same if not _same_class(self.old, self.new, name)}

    def _lost_properties(self, name: str) -> list[Property]:
        """Give the properties of a class that is still there whose values went with the property."""
        have = self.new[name].columns
        columns = self.old[name].columns.values()
        return [p for p in columns if have.get(p.name) != p or (name, p.name) in self.applied.replaced]

    # ------------------------------------------------------------------ schema

    def schema(self) -> list[i.Instruction]:
        """Erase what is new, then add what is missing."""
        if self.old is self.new:
            return []
        gone = {name for name in self.new if name not in self.old or name in self.lost}
        found: list[i.Instruction] = []
        for name, cls in self.new.items():
            have = self.old[name].columns if name in self.old else {}
            for prop in cls.columns.values():
                untangled = name in gone and prop.target in gone and prop.target != name
                if untangled or (name not in gone and have.get(prop.name) != prop):
                    found.append(i.EraseColumn(name, prop.name))
        found += [i.EraseTable(name) for name in self.new if name in gone]
        kept = [_without(self.new[n], found) for n in self.new if n not in gone]
        return [*found, *schema_changeset(self.old, Schema(kept)).instructions()]

    # ------------------------------------------------------------------ objects

    def objects(self) -> Iterator[Changeset]:
        """Give the changesets that restore objects, class by class."""
        for name, table in self.before.tables.items():
            if name in self.lost:
                yield objects_changeset(self.before, name)
            elif name in self.applied.touched or self.old is not self.new:
                yield from self._class(name, table)

    def _class(self, name: str, before: Table) -> Iterator[Changeset]:
        touched = self.applied.touched.get(name)
        emitter = Emitter(name, before.cls.key_property, before.schema)
        kept = np.arange(len(before))
        if touched is not None:
            yield self._without_inserted(name, touched)
            yield self._with_old_keys(name, touched)
            if len(touched.deleted):
                gone = before.positions(touched.deleted)
                yield objects_changeset(self.before, name, gone)
                kept = np.setdiff1d(kept, gone, assume_unique=True)
        nested: list[i.Instruction] = []
        whole = self._whole_columns(name)
        for field, prop in before.cls.columns.items():
            rows = kept if field in whole else np.empty(0, np.int64)
            if field not in whole and touched is not None and field in touched.modified:
                rows = before.positions(touched.modified[field])
                rows = rows[rows >= 0]
            if len(rows):
                nested += self._column(emitter, before, prop, rows)
        yield emitter.finish()
        yield Changeset.from_instructions(nested)

    def _column(self, emitter: Emitter, before: Table, prop: Property, rows: Ids) -> list[i.Instruction]:
        """Set back one property of some rows: in bulk, or by the instructions that are returned."""
        if t.is_scalar(prop, before.schema):
            where = pa.array(rows)
            emitter.update(prop, before.keys().take(where), before.column(prop.name).take(where), over=True)
            return []
        found: list[i.Instruction] = []
        for row, value in zip(rows.tolist(), before.values(prop.name, rows), strict=True):
            found += value_instructions(before.schema, before.cls.name, before.key(row), prop, value, reset=True)
        return found

    def _whole_columns(self, name: str) -> set[str]:
        """Name the properties whose values went in every row, because they or something that they embed was erased."""
        if self.old is self.new:
            return set()
        found = {p.name for p in self._lost_properties(name)}
        embedded = [n for n, c in self.old.items() if c.embedded]
        broken = [n for n in embedded if n in self.lost or self._lost_properties(n)]
        columns = self.old[name].columns.values()
        return found | {p.name for p in columns if any(t.reaches(p, n, self.old) for n in broken)}

    def _without_inserted(self, name: str, touched: Touched) -> Changeset:
        after = self.after.tables[name]
        emitter = Emitter(name, after.cls.key_property, after.schema)
        if len(touched.inserted):
            emitter.erase(after.keys().take(pa.array(after.positions(touched.inserted))))
        return emitter.finish()

    def _with_old_keys(self, name: str, touched: Touched) -> Changeset:
        """Write back primary keys that were written (no client does, but it is allowed)."""
        before, after = self.before.tables[name], self.after.tables[name]
        field = before.cls.primary_key
        ids: Any = () if field is None else touched.modified.get(field, ())
        found: list[i.Instruction] = []
        for old, new in zip(before.positions(np.asarray(ids)), after.positions(np.asarray(ids)), strict=True):
            if old >= 0 and new >= 0:
                key: Any = before.key(int(old))
                found.append(i.Update(name, after.key(int(new)), field or "", (), key))
        return Changeset.from_instructions(found)


def _same_class(old: Schema, new: Schema, name: str) -> bool:
    return (old[name].kind, old[name].key_property) == (new[name].kind, new[name].key_property)


def _without(cls: Any, erased: list[i.Instruction]) -> Any:
    for one in erased:
        if isinstance(one, i.EraseColumn) and one.table == cls.name:
            cls = cls.without_property(one.field)
    return cls
