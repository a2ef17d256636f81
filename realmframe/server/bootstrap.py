"""What a client is sent in bulk: bootstraps of a query set, and catching up after an absence.

All of it is *synthetic*: full states and erasures that nobody wrote. They carry timestamp 1 and the server's own file,
so that they never beat what a client has not sent yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from realmframe.changes import Changeset, concat
from realmframe.changes.instructions import EraseObject
from realmframe.model import Key, Schema
from realmframe.server.entries import Entry
from realmframe.server.named import keys_as_pairs, newest_rows, rows_by_class
from realmframe.server.views import Rows, View, erasures, full_state
from realmframe.store import Snapshot, objects_changeset, schema_changeset
from realmframe.store.gather import key_words_of
from realmframe.store.passing import is_passing

#: About so many bytes of changesets go into one message.
BATCH_BYTES: Final = 1 << 20
_FIRST_ROWS: Final = 2_000
_ERASE: Final = 3


def full_states(snapshot: Snapshot, cls: str, rows: Rows) -> Iterator[bytes]:
    """Give the full state of rows, in pieces of about one message each."""
    size, start = _FIRST_ROWS, 0
    while start < len(rows):
        piece = rows[start : start + size]
        data = objects_changeset(snapshot, cls, piece, reset_collections=True).encode()
        yield data
        start += len(piece)
        size = max(1, min(len(rows), int(size * BATCH_BYTES / max(1, len(data)))))


def bootstrap(
    snapshot: Snapshot, have: Schema | None, old: View, new: View
) -> Iterator[tuple[list[bytes], float, bool]]:
    """Turn what a client holds of one query set into what it shall hold of another.

    Yields
    ------
    tuple of list of bytes, float and bool
        Changesets of one message (at least one), how much is done from 0 to 1, and whether it is the last.
    """
    first: list[Changeset] = [schema_changeset(snapshot.schema, have)]
    entering: list[tuple[str, Rows]] = []
    for name in sorted({*old.texts, *new.texts}):
        if name not in snapshot.tables:
            continue
        before, after = old.rows(snapshot, name), new.rows(snapshot, name)
        leaving = np.setdiff1d(before, after, assume_unique=True)
        if len(leaving):
            table = snapshot.tables[name]
            first.append(erasures(table, table.ids_at(leaving)))
        fresh = np.setdiff1d(after, before, assume_unique=True)
        if len(fresh):
            entering.append((name, fresh))
    yield from _in_messages(snapshot, concat(first), entering)


def _in_messages(
    snapshot: Snapshot, first: Changeset, entering: Sequence[tuple[str, Rows]]
) -> Iterator[tuple[list[bytes], float, bool]]:
    head = first.encode()
    waiting, size = ([head], len(head)) if head or not entering else ([], 0)
    pieces = (piece for name, rows in entering for piece in full_states(snapshot, name, rows))
    total, done = sum(len(rows) for _, rows in entering), 0
    piece = next(pieces, None)
    while piece is not None:
        waiting.append(piece)
        size += len(piece)
        following = next(pieces, None)
        if size >= BATCH_BYTES * 3 // 4 and following is not None:
            done += size
            estimate = min(0.99, done / (done + max(1, total)))
            yield waiting, estimate, False
            waiting, size = [], 0
        piece = following
    yield waiting, 1.0, True


def catch_up(
    snapshot: Snapshot, entries: Sequence[Entry], view: View, own_file: int, without: Changeset
) -> Iterator[bytes]:
    """Bring a client that has been away from an older version to this one.

    Every object that the log names since then is sent as it is now, or erased if it is not in view; that is right
    whatever the client held before.

    Parameters
    ----------
    snapshot : Snapshot
    entries : sequence of Entry
        The log since then.
    view : View
        The client's.
    own_file : int
        The client's.
    without : Changeset
        Names the objects that are left out.
    """
    others = concat([e.changeset for e in entries if e.origin != own_file])
    # What of its writes came to nothing too: it may have merged them otherwise.
    own = concat([c for e in entries if e.origin == own_file for c in (e.changeset, Changeset.decode(e.withdrawn))])
    schema = others.take(np.flatnonzero(others.is_schema))
    gone: list[Changeset] = []
    states: list[tuple[str, Rows]] = []
    for cs, is_own in ((others, False), (own, True)):
        # What it wrote itself it may hold whatever its view: for the query set that it had then, or was about to have.
        for name, ids, absent in _named(snapshot, cs, None if is_own else view, without):
            inside = view.members(snapshot, name, ids)
            if len(absent):
                gone.append(_erased(cs, absent, name, is_own=is_own))
            if not inside.all():
                gone.append(erasures(snapshot.tables[name], ids[~inside]))
            if inside.any():  # own writes too: how they came out may have been on its way when the connection ended
                states.append((name, np.sort(snapshot.tables[name].positions(ids[inside]))))
    head = concat([schema, *gone]).encode()
    if head:
        yield head
    for name, rows in states:
        yield from full_states(snapshot, name, rows)


def _named(
    snapshot: Snapshot, cs: Changeset, view: View | None, without: Changeset
) -> Iterator[tuple[str, Rows, Rows]]:
    """Give each class in view (all, without one) with the ids of its objects that exist, and the rows of others."""
    for name, rows in rows_by_class(cs):
        if (view is not None and not view.sees(name)) or name not in snapshot.tables:
            continue
        if is_passing(snapshot.schema, name):
            continue  # nobody has any
        for _, left_out in [found for found in rows_by_class(without) if found[0] == name]:
            rows = rows[~np.isin(keys_as_pairs(cs, rows), keys_as_pairs(without, left_out))]
        if not len(rows):
            continue
        table = snapshot.tables[name]
        ids = table.find_ids(*key_words_of(cs, rows, table.index.secret))
        yield name, np.unique(ids[ids >= 0]), rows[ids < 0]


def states_of(snapshot: Snapshot, cs: Changeset, view: View) -> Changeset:
    """Give what the objects that a changeset names have become: their full state, or their erasure."""
    parts: list[Changeset] = []
    for name, rows in rows_by_class(cs):
        table = snapshot.tables.get(name)
        if table is None or not view.sees(name):
            continue
        ids = table.find_ids(*key_words_of(cs, rows, table.index.secret))
        existing = np.unique(ids[ids >= 0])
        inside = view.members(snapshot, name, existing)
        missing = rows[ids < 0]
        if len(missing):
            parts.append(_erase_keys(name, _keys_of(cs.take(missing))))
        if not inside.all():
            parts.append(erasures(table, existing[~inside]))
        if inside.any():
            parts.append(full_state(snapshot, name, existing[inside]))
    return concat(parts)


def _erased(cs: Changeset, rows: Rows, name: str, *, is_own: bool) -> Changeset:
    """Give the erasures of objects that do not exist any more; of own ones only if others erased them."""
    if not is_own:
        return cs.take(rows[cs.op[rows] == _ERASE])
    newest = newest_rows(cs, rows)
    return _erase_keys(name, _keys_of(cs.take(newest[cs.op[newest] != _ERASE])))


def _keys_of(cs: Changeset) -> list[Key]:
    """List the keys of the objects that a changeset names, in the order in which it does."""
    return list(dict.fromkeys(one.pk for one in cs.instructions() if hasattr(one, "pk")))


def _erase_keys(name: str, keys: Sequence[Key]) -> Changeset:
    return Changeset.from_instructions([EraseObject(name, key) for key in keys])
