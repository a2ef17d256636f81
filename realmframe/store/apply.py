"""``apply(snapshot, changeset)``: the one path by which anything ever changes a realm.

A changeset that only creates objects and fills them is loaded (:mod:`realmframe.store.load`). This is the general way.
Rows of a changeset are taken class by class. Where every instruction on an object is a creation, an erasure or an
update of a plain field, whole columns are applied at once: the last write of the changeset wins. Objects that anything
else touches (nested paths, collections, counters, an erasure among other instructions) go one instruction at a time, in
order. Both ways meet in a :class:`~realmframe.store.edit.TableEdit`, which makes a new table that shares what did not
change.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from realmframe.changes import Changeset
from realmframe.errors import ApplyError
from realmframe.model import PayloadType
from realmframe.store.applied import Applied, Touched
from realmframe.store.class_run import ClassRun
from realmframe.store.index import Ids
from realmframe.store.inverse import Inverse
from realmframe.store.load import load
from realmframe.store.presence import Presence
from realmframe.store.schema_changes import SchemaChanges
from realmframe.store.snapshot import Snapshot

_CREATE, _ERASE = 2, 3


def apply(snapshot: Snapshot, changeset: Changeset, *, version: int | None = None) -> Applied:
    """Apply a changeset.

    Parameters
    ----------
    snapshot : Snapshot
    changeset : Changeset
    version : int, optional
        Version of the new snapshot; one more by default.

    Raises
    ------
    ApplyError
        If the changeset contradicts the state; nothing was applied then.
    """
    version = snapshot.version + 1 if version is None else version
    if isinstance(changeset, Inverse) and changeset.leads_from(snapshot):
        return _taken_back(snapshot, changeset.applied, version)
    room = int(np.count_nonzero(changeset.op == _CREATE))
    if room:
        loaded = loaded_only(snapshot, [(changeset, True)], version=version, room=room)
        if loaded is not None:
            return loaded
    run = _Run(snapshot)
    if len(changeset):
        run.apply(changeset)
    return run.result(version)


def loaded_only(
    snapshot: Snapshot, parts: Iterable[tuple[Changeset, bool]], *, version: int, room: int | None = None
) -> Applied | None:
    """Apply changesets if they can be loaded; see :func:`~realmframe.store.load.load`."""
    run = _Run(snapshot)
    return run.result(version) if load(run, parts, room=room) else None


def _taken_back(snapshot: Snapshot, done: Applied, version: int) -> Applied:
    """Go back to the tables before: what was erased has its row ids and its place again."""
    touched = {name: Touched(one.deleted, one.modified, one.inserted) for name, one in done.touched.items()}
    touched = {name: one for name, one in touched.items() if name in done.before.tables}
    after = Snapshot(version, done.before.schema, done.before.tables)
    return Applied(snapshot, after, touched, done.replaced)


class _Run(SchemaChanges):
    """One application."""

    def result(self, version: int) -> Applied:
        """Give what became of it."""
        after = Snapshot(version, self.schema, self.tables)
        return Applied(self.before, after, self.touched, frozenset(self.replaced))

    def apply(self, cs: Changeset) -> None:
        """Apply a changeset."""
        is_schema = cs.is_schema
        if not is_schema.any():
            self._objects(cs, np.arange(len(cs)))
            return
        # Schema and object instructions alternate rarely: take runs of each.
        bounds = np.flatnonzero(np.diff(is_schema, prepend=~is_schema[0])).tolist()
        for start, stop in zip(bounds, [*bounds[1:], len(cs)], strict=True):
            rows = np.arange(start, stop)
            if is_schema[start]:
                self.change_schema(cs.take(rows))
            else:
                self._objects(cs, rows)

    def _objects(self, cs: Changeset, rows: Ids) -> None:
        tables = cs.table[rows]
        self.use(cs.string(int(tables[0])), cs.string(int(tables[-1])))
        presence = Presence(dict(self.tables), cs, rows)
        for number in np.unique(tables).tolist():
            name = cs.string(number)
            table = self.tables.get(name)
            if table is None:
                self._only_erasures(name, cs, rows[tables == number])
                continue
            work = ClassRun(self.schema, table, cs, rows[tables == number], presence)
            new, inserted, modified, deleted = work.run()
            self.tables[name] = new
            self.note(name, inserted, modified, deleted)

    def _only_erasures(self, name: str, cs: Changeset, rows: Ids) -> None:
        """Let embedded objects be erased by a key, which none of them has; nothing else can be done to them."""
        cls = self.schema.get(name)
        harmless = (cs.op[rows] == _ERASE) & (cs.key_type[rows] == PayloadType.GLOBAL_KEY)
        if cls is None or not cls.embedded or not harmless.all():
            raise ApplyError(f"There is no class {name} with objects of its own.")

    def note(self, name: str, inserted: Ids, modified: dict[str, Ids], deleted: Ids) -> None:
        """Note what became of a class."""
        before = self.touched.get(name)
        if before is not None:
            # Several runs in one changeset: what was inserted here and then changed or erased stays inserted or goes.
            modified = {n: np.setdiff1d(v, before.inserted) for n, v in modified.items()}
            for n, ids in before.modified.items():
                modified[n] = np.union1d(modified.get(n, ids), ids)
            inserted = np.setdiff1d(np.union1d(before.inserted, inserted), deleted)
            deleted = np.union1d(before.deleted, np.setdiff1d(deleted, before.inserted))
            modified = {n: np.setdiff1d(v, deleted) for n, v in modified.items()}
        self.touched[name] = Touched(inserted, modified, deleted)
