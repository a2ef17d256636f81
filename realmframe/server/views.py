"""What a query set sees: which objects are in view, and what of a change a client gets.

A view is one distinct query set, shared by all sessions that have it. Flexible queries look at one object at a time, so
whether an object is in view depends on its own fields only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from realmframe.changes import Changeset, concat
from realmframe.changes.instructions import EraseObject, Update
from realmframe.errors import QueryError
from realmframe.model import ClassKind, Key, Link, PropertyType, Schema
from realmframe.server.repair import value_at
from realmframe.store import Snapshot, Table, objects_changeset
from realmframe.store.gather import key_words_of

Rows = npt.NDArray[np.int64]
#: Characters of a query that an error repeats.
_SHOWN: Final = 500
_UPDATE: Final = 4
_LINK: Final = int(PropertyType.OBJECT)
_NONE: Final = np.empty(0, np.int64)
_EVERYTHING: Final = frozenset({"TRUEPREDICATE", "(TRUEPREDICATE )", "(TRUEPREDICATE)"})


def _refused(name: str, error: QueryError) -> QueryError:
    """Say of which class a query is; a long one is not repeated."""
    text = error.text if error.text is None or len(error.text) <= _SHOWN else None
    message = f"Invalid query on class {name}: {error.message}"
    return QueryError(message, position=error.position, text=text, kind=error.kind, hint=error.hint)


class View:
    """A query set, bound to whatever schema a snapshot has.

    Parameters
    ----------
    texts : mapping
        Class name to query text.

    Raises
    ------
    QueryError
        If a text cannot be parsed or used by a subscription.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = dict(texts)
        self._queries: dict[str, Any] = {}
        for name, text in self.texts.items():
            if text.strip() not in _EVERYTHING:
                from realmframe.query import parse

                try:
                    self._queries[name] = parse(text)
                except QueryError as error:
                    raise _refused(name, error) from None
        self._schema: Schema | None = None
        self._bound: dict[str, Any] = {}

    def check(self, schema: Schema) -> None:
        """Check the queries against what is known of their classes.

        Raises
        ------
        QueryError
        """
        for name in self.texts:
            cls = schema.get(name)
            if cls is None:
                continue
            if cls.kind is not ClassKind.TOPLEVEL:
                raise QueryError(f"Class {name} is {cls.kind.name.lower()}: subscriptions see top-level classes only.")
            if name not in self._queries:
                continue
            try:
                self._queries[name].bind(schema, name).check_flexible()
            except QueryError as error:
                raise _refused(name, error) from None

    def _bind(self, schema: Schema) -> None:
        if self._schema is schema:
            return
        self._schema, self._bound = schema, {}
        for name, query in self._queries.items():
            if name in schema:
                try:
                    self._bound[name] = query.bind(schema, name)
                except QueryError:
                    continue  # its property does not exist yet: nothing is in view

    def sees(self, cls: str) -> bool:
        """Whether the query set names a class."""
        return cls in self.texts

    def is_whole(self, cls: str) -> bool:
        """Whether every object of a class is in view."""
        return cls in self.texts and cls not in self._queries

    def rows(self, snapshot: Snapshot, cls: str, rows: Rows | None = None) -> Rows:
        """Give the positions in view, ascending; ``rows`` (ascending) restricts them."""
        if cls not in self.texts or cls not in snapshot.tables:
            return _NONE
        if self.is_whole(cls):
            return np.arange(len(snapshot.tables[cls])) if rows is None else rows
        self._bind(snapshot.schema)
        bound = self._bound.get(cls)
        if bound is None or not len(snapshot.tables[cls]) or (rows is not None and not len(rows)):
            return _NONE
        return np.sort(np.asarray(bound.rows(snapshot, rows), np.int64))

    def members(self, snapshot: Snapshot, cls: str, ids: Rows) -> npt.NDArray[np.bool_]:
        """Say which row ids (unique) are of objects that exist and are in view."""
        table = snapshot.tables.get(cls)
        out = np.zeros(len(ids), np.bool_)
        if table is None or cls not in self.texts or not len(ids):
            return out
        positions = table.positions(ids)
        exists = positions >= 0
        if self.is_whole(cls):
            return exists
        out[exists] = np.isin(positions[exists], self.rows(snapshot, cls, np.sort(positions[exists])))
        return out


def everything(snapshot: Snapshot) -> View:
    """Give the view of who has a whole partition."""
    return View(dict.fromkeys(snapshot.tables, "TRUEPREDICATE"))


@dataclass(frozen=True, slots=True)
class Share:
    """What of one log entry a view gets.

    Attributes
    ----------
    passed : Changeset or None
        Instructions as they are; the entry's own object if all of them.
    synthetic : Changeset or None
        Full state of objects that moved in, erasure of those that moved out.
    """

    passed: Changeset | None
    synthetic: Changeset | None


def _ids(table: Table | None, cs: Changeset, rows: Rows) -> Rows:
    if table is None:
        return np.full(len(rows), -1, np.int64)
    return table.find_ids(*key_words_of(cs, rows, table.index.secret))


def erasures(table: Table, ids: Rows) -> Changeset:
    """Give the erasure of objects."""
    keys: list[Key] = [table.key(int(p)) for p in table.positions(ids)]
    return Changeset.from_instructions([EraseObject(table.cls.name, key) for key in keys])


def full_state(snapshot: Snapshot, cls: str, ids: Rows) -> Changeset:
    """Give the full state of objects to someone who may hold them in part."""
    return objects_changeset(snapshot, cls, np.sort(snapshot.tables[cls].positions(ids)), reset_collections=True)


def is_beyond(view: View, cs: Changeset, snapshot: Snapshot) -> bool:
    """Tell whether a changeset names objects that exist and that a client with this view does not see."""
    objects = np.flatnonzero(~cs.is_schema)
    for number in np.unique(cs.table[objects]).tolist():
        name = cs.string(number)
        ids = _ids(snapshot.tables.get(name), cs, objects[cs.table[objects] == number])
        if not view.members(snapshot, name, np.unique(ids[ids >= 0])).all():
            return True
    return False


def share(view: View, cs: Changeset, before: Snapshot, after: Snapshot, *, is_origin: bool = False) -> Share:
    """Work out what of a change a client with this view gets.

    Parameters
    ----------
    view : View
    cs : Changeset
        As integrated.
    before, after : Snapshot
    is_origin : bool
        Whether the client wrote it: then it has it already, and gets only what it cannot know: objects that it may hold
        but that are not in view, and the rest of those that it moved into view.
    """
    if not len(cs):
        return Share(None, None)
    keep = cs.is_schema
    objects = np.flatnonzero(~keep)
    extra: list[Changeset] = []
    for number in np.unique(cs.table[objects]).tolist():
        name = cs.string(number)
        if view.sees(name) and name in after.tables:
            rows = objects[cs.table[objects] == number]
            if view.is_whole(name):  # nothing moves in or out
                keep[rows] = is_origin or ~_repeated_links(view, cs, rows, before, after)
            else:
                keep[rows] = _share_class(view, cs, rows, name, (before, after), extra, is_origin)
    synthetic = concat(extra) if extra else None
    if is_origin:
        return Share(None, synthetic)
    if keep.all():
        return Share(cs, synthetic)
    return Share(cs.take(np.flatnonzero(keep)) if keep.any() else None, synthetic)


def _share_class(
    view: View,
    cs: Changeset,
    rows: Rows,
    name: str,
    states: tuple[Snapshot, Snapshot],
    extra: list[Changeset],
    is_origin: bool,
) -> npt.NDArray[np.bool_]:
    before, after = states
    old, new = _ids(before.tables.get(name), cs, rows), _ids(after.tables[name], cs, rows)
    # An object erased and created again in one change has two ids; each is looked at where it exists.
    seen_old, seen_new = _seen(view, before, name, old), _seen(view, after, name, new)
    exists_old, exists_new = old >= 0, new >= 0
    both = exists_old & exists_new
    moved_in = both & ~seen_old & seen_new
    moved_out = both & (seen_old | is_origin) & ~seen_new
    if moved_out.any():
        extra.append(erasures(after.tables[name], np.unique(new[moved_out])))
    if moved_in.any():
        extra.append(full_state(after, name, np.unique(new[moved_in])))
    passes: npt.NDArray[np.bool_] = np.where(both, seen_old & seen_new, seen_old | seen_new)
    # Gone before and after: an erasure still has to beat what a client has not sent yet.
    passes |= ~(exists_old | exists_new)
    if not is_origin:
        passes &= ~_repeated_links(view, cs, rows, before, after)
    return passes


def _seen(view: View, snapshot: Snapshot, name: str, ids: Rows) -> npt.NDArray[np.bool_]:
    """Tell which row ids, -1 for none, are of objects that are in view."""
    known, which = np.unique(ids, return_inverse=True)
    return view.members(snapshot, name, known)[which]


def _repeated_links(view: View, cs: Changeset, rows: Rows, before: Snapshot, after: Snapshot) -> npt.NDArray[np.bool_]:
    """Find updates of list elements to the link that they hold, where the view hides what is linked to.

    They change nothing, and end the process of a real client that holds the same link in a list of mixed values. SDKs
    write them for all links to an object that they did not see, when they create an object of its key.
    """
    out = np.zeros(len(rows), np.bool_)
    maybe = (cs.op[rows] == _UPDATE) & (cs.value_type[rows] == _LINK) & (cs.path_len[rows] > 0)
    for n in np.flatnonzero(maybe).tolist():
        (one,) = cs.take(rows[n : n + 1]).instructions()
        assert isinstance(one, Update)
        assert isinstance(one.value, Link)
        held = value_at(before, one.table, one.pk, one.field, one.path)
        if not isinstance(one.path[-1], int) or held != one.value:
            continue
        # Only where nothing else of this change touches the property, or the element may be another one by then.
        row = rows[n]
        same = rows[(cs.field[rows] == cs.field[row]) & (cs.key_hi[rows] == cs.key_hi[row])]
        same = same[(cs.key_lo[same] == cs.key_lo[row]) & (cs.key_type[same] == cs.key_type[row])]
        table = after.tables.get(one.value.table)
        at = np.empty(0, np.int64) if table is None else table.find([one.value.key])
        is_hidden = table is None or not view.members(after, one.value.table, table.ids_at(at[at >= 0])).any()
        out[n] = is_hidden and bool(np.isin(same, rows[maybe]).all())
    return out
