"""Local changes that were never uploaded, written anew for a fresh copy of a realm: the rules of client reset.

Theory
------
The history that would merge both sides is gone, so the changes are replayed, instruction by instruction, on the state
that the server has now. The rules are those of the real engine (``client_reset_recovery.cpp``):

* What names an object that no longer exists is left out: nothing that was deleted comes back, except by an instruction
  that creates it.
* What leads through an embedded object, a key of a dictionary or a value of Mixed that is gone or of another kind is
  left out; so is an addition to what is no integer now.
* A link to an object that does not exist becomes null, or is left out where null is not allowed.
* Elements of lists: see :mod:`realmframe.store.list_tracker`.
* Classes and properties are added, never erased; one that exists with another type ends the recovery.

Objects of which nothing but plain fields was written are handled as columns, the rest one instruction at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError, MergeError
from realmframe.model import Key
from realmframe.store.apply import apply
from realmframe.store.builders import unlink_changeset
from realmframe.store.gather import key_words_of
from realmframe.store.index import Ids
from realmframe.store.passing import is_passing
from realmframe.store.pending import LocalChange
from realmframe.store.replay import Objects, Replay
from realmframe.store.snapshot import Snapshot

_ERASING_SCHEMA: Final = (1, 7)
_CREATE, _ERASE, _UPDATE, _LINK = 2, 3, 4, 9
#: What an instruction without an object left to act on is quarantined with.
DELETED: Final = "the object does not exist on the server any more"


@dataclass(frozen=True, slots=True)
class Lost:
    """A local change of one object that could not be recovered.

    Attributes
    ----------
    cls : str
    key : Key
    reason : str
    values : dict
        Property to the value that was written (empty for a deletion).
    """

    cls: str
    key: Key
    reason: str
    values: dict[str, Any]


@dataclass(slots=True)
class Recovered:
    """What came out.

    Attributes
    ----------
    snapshot : Snapshot
        The fresh state with the changes applied.
    changes : list of LocalChange
        To be uploaded, under the versions and times that they had, based on the fresh copy's server version.
    lost : list of Lost
    """

    snapshot: Snapshot
    changes: list[LocalChange] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


def recover(fresh: Snapshot, local: Snapshot, changes: Iterable[LocalChange], server_version: int) -> Recovered:
    """Replay local changes on a fresh copy.

    Parameters
    ----------
    fresh : Snapshot
    local : Snapshot
        The state of this client, with all its changes.
    changes : iterable of LocalChange
    server_version : int
        Version of the fresh copy.

    Raises
    ------
    MergeError
        If the changes cannot be recovered: they erase a class or property, or contradict the schema.
    """
    work = _Recovery(fresh, local)
    out = Recovered(fresh)
    last = 0
    for change in changes:
        found = work.change(Changeset.decode(change.changeset))
        last = len(out.changes)
        if len(found):
            out.changes.append(LocalChange(change.version, server_version, change.timestamp, found.encode()))
    unlinked = work.unlink()
    if len(unlinked) and out.changes:
        end = out.changes[min(last, len(out.changes) - 1)]
        whole = concat([Changeset.decode(end.changeset), unlinked]).encode()
        out.changes[out.changes.index(end)] = LocalChange(end.version, server_version, end.timestamp, whole)
    out.snapshot, out.lost = work.snapshot, work.lost.finish()
    return out


def keep_schema(fresh: Snapshot, changes: Iterable[LocalChange], server_version: int) -> Recovered:
    """Keep nothing of local changes but the classes and properties that they add.

    Raises
    ------
    MergeError
    """
    out = Recovered(fresh)
    for change in changes:
        cs = Changeset.decode(change.changeset)
        schema = cs.take(np.flatnonzero(np.isin(cs.op, (0, 6))))
        if len(schema):
            out.snapshot = _applied(out.snapshot, schema)
            out.changes.append(LocalChange(change.version, server_version, change.timestamp, schema.encode()))
    return out


def written(local: Snapshot, result: Snapshot, changes: Iterable[LocalChange], reason: str) -> list[Lost]:
    """List what local changes had made of objects, as far as a result differs from it."""
    sheet = _Lost()
    for change in changes:
        cs = Changeset.decode(change.changeset)
        sheet.note(cs.take(np.flatnonzero(~cs.is_schema)), reason)
    found: list[Lost] = []
    for one in sheet.finish():
        if is_passing(local.schema, one.cls):
            found.append(one)  # never kept here: what was to be uploaded is all there is of it
            continue
        have, row = local.object(one.cls, one.key), result.object(one.cls, one.key)
        if have is None:
            if row is not None:
                found.append(Lost(one.cls, one.key, reason, {}))
            continue
        names = [n for n in one.values if n in have] if row is not None else list(have)
        values = {n: have[n] for n in names if row is None or _differ(have[n], row.get(n))}
        if values or row is None:
            found.append(Lost(one.cls, one.key, reason, values))
    return found


def _differ(left: Any, right: Any) -> bool:
    return type(left) is not type(right) or bool(left != right)


def _applied(snapshot: Snapshot, changeset: Changeset) -> Snapshot:
    try:
        return apply(snapshot, changeset).snapshot
    except ApplyError as fault:
        raise MergeError(f"Local changes contradict what the server has: {fault.message}") from fault


class _Lost:
    """Collects what was lost, one entry for each object and reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Key, str], dict[str, Any]] = {}

    def note(self, cs: Changeset, reason: str) -> None:
        for one in cs.instructions():
            self.add(one, reason)

    def add(self, one: Any, reason: str) -> None:
        values = self._found.setdefault((one.table, one.pk, reason), {})
        name = getattr(one, "field", None)
        if name is not None:
            values[name] = getattr(one, "value", None)

    def finish(self) -> list[Lost]:
        return [Lost(cls, key, reason, values) for (cls, key, reason), values in self._found.items()]


class _Recovery:
    """The fresh state so far, and what is known of its lists."""

    def __init__(self, fresh: Snapshot, local: Snapshot) -> None:
        self.snapshot, self.local = fresh, local
        self.lost = _Lost()
        self._replay = Replay(local, self.lost.add)
        self._erased: dict[str, set[Key]] = {}

    def change(self, cs: Changeset) -> Changeset:
        """Recover one changeset: give what is left of it, applied."""
        if np.isin(cs.op, _ERASING_SCHEMA).any():
            raise MergeError("Local changes erase a class or a property, which cannot be recovered.")
        schema = cs.take(np.flatnonzero(cs.is_schema))
        if len(schema):
            self.snapshot = _applied(self.snapshot, schema)
        objects = self._objects(cs)
        if len(objects):
            self.snapshot = _applied(self.snapshot, objects)
        return concat([schema, objects]) if len(schema) and len(objects) else (schema if len(schema) else objects)

    def unlink(self) -> Changeset:
        """Take away the links to what was erased that this client did not know of."""
        parts = []
        for cls, keys in self._erased.items():
            table = self.snapshot.tables[cls]
            gone = [key for key in keys if int(table.find([key])[0]) < 0]
            part = unlink_changeset(self.snapshot, cls, gone)
            if len(part):
                self.snapshot = _applied(self.snapshot, part)
                parts.append(part)
        return concat(parts) if parts else Changeset.empty()

    # ------------------------------------------------------------------ one changeset

    def _objects(self, cs: Changeset) -> Changeset:
        rows = np.flatnonzero(~cs.is_schema)
        kept: list[Ids] = []
        nested: list[Ids] = []
        for number in np.unique(cs.table[rows]).tolist():
            here = rows[cs.table[rows] == number]
            name = cs.string(number)
            if name not in self.snapshot.tables:
                raise MergeError(f"The class {name} does not exist on the server any more.")
            group, exists = self._existing(cs, here, name)
            hard = self._is_nested(cs, here)
            involved = np.zeros(int(group.max()) + 1, np.bool_)
            involved[group[hard]] = True
            plain = ~involved[group]
            keeps = plain & exists
            kept.append(here[keeps])
            nested.append(here[~plain])
            dropped = here[plain & ~exists]
            self.lost.note(cs.take(dropped[cs.op[dropped] != _ERASE]), DELETED)
            erased = here[exists & (cs.op[here] == _ERASE)]
            if len(erased):
                keys = (one.pk for one in cs.take(erased).instructions() if isinstance(one, i.EraseObject))
                self._erased.setdefault(name, set()).update(keys)
        return self._joined(cs, _concat(kept), _concat(nested))

    def _joined(self, cs: Changeset, kept: Ids, nested: Ids) -> Changeset:
        """Put what stays as it is and what was rewritten into the order that they had."""
        if not len(nested):
            return cs.take(np.sort(kept))
        positions, found = self._replay.run(Objects(self.snapshot, cs), nested)
        both = concat([cs.take(kept), Changeset.from_instructions(found)])
        order = np.argsort(np.concatenate([kept, np.asarray(positions, np.int64)]), kind="stable")
        return both.take(order)

    def _existing(self, cs: Changeset, rows: Ids, name: str) -> tuple[Ids, Any]:
        """Give the objects of rows numbers, and say for each row whether its object exists when its turn comes."""
        table = self.snapshot.tables[name]
        first, second = key_words_of(cs, rows, table.index.secret)
        words = np.stack([first, second], axis=1)
        _, leader, group = np.unique(words, axis=0, return_index=True, return_inverse=True)
        group = group.reshape(-1)
        initially = table.find_ids(first[leader], second[leader]) >= 0
        order = np.lexsort((rows, group))
        op = cs.op[rows][order]
        starts = np.diff(group[order], prepend=-1) != 0
        # The last creation or erasure before each row of its group decides; before any, the state does.
        decides = (op == _CREATE) | (op == _ERASE)
        place = np.arange(len(order))
        last = np.maximum.accumulate(np.where(starts | np.roll(decides, 1), place, 0))
        before = np.where(starts[last], initially[group[order]], op[last - 1] == _CREATE)
        exists = np.empty(len(rows), np.bool_)
        exists[order] = before | (op == _CREATE)
        return group, exists

    def _is_nested(self, cs: Changeset, rows: Ids) -> Any:
        """Say which rows need more than their object: nested places, collections, counters, links that may dangle."""
        op, kind = cs.op[rows], cs.value_type[rows]
        plain = (op == _CREATE) | (op == _ERASE)
        update = (op == _UPDATE) & (cs.path_len[rows] == 0) & (kind >= 0)
        links = np.flatnonzero(update & (kind == _LINK))
        plain |= update & (kind != _LINK)
        if len(links):
            plain[links] = self._is_safe(cs, rows[links])
        return ~plain

    def _is_safe(self, cs: Changeset, rows: Ids) -> Any:
        """Say which links go to objects that exist, and do not go meanwhile."""
        out = np.zeros(len(rows), np.bool_)
        erased = set(np.unique(cs.table[cs.op == _ERASE]).tolist())
        targets = cs.link_table[rows]
        for number in np.unique(targets).tolist():
            table = self.snapshot.tables.get(cs.string(number))
            if table is None or number in erased:
                continue
            here = np.flatnonzero(targets == number)
            as_keys = cs.take(rows[here])
            words = key_words_of(_keyed_by_links(as_keys), np.arange(len(here)), table.index.secret)
            out[here] = table.find_ids(*words) >= 0
        return out


def _keyed_by_links(cs: Changeset) -> Changeset:
    """Give rows whose object keys are the targets of their links."""
    from dataclasses import replace

    return replace(cs, key_type=cs.link_type, key_hi=cs.value_hi, key_lo=cs.value_lo)


def _concat(parts: Sequence[Ids]) -> Ids:
    return np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64)
