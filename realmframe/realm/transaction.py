"""A write transaction: many calls, one changeset, one commit.

Each call makes a columnar changeset against the state that the calls before it left, so a transaction reads its own
writes. Nothing is on disk until it ends; an exception drops all of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from realmframe.changes import Changeset, Instruction, concat
from realmframe.errors import ClosedError, UsageError, WriteError
from realmframe.frames import FrameStatus, LiveFrames, changes_for, coerce_cell, frame_to_arrow
from realmframe.frames.arrow import records_to_tables
from realmframe.model import ClassKind, Key, ObjectSchema, PropertyType, Schema
from realmframe.query import parse
from realmframe.realm.place import WrittenObject
from realmframe.realm.schema import refuse_to_read
from realmframe.store import Snapshot, apply, erase_changeset, key_type, new_global_keys, upsert_changeset

#: The protocol's clock starts here.
EPOCH: Final = dt.datetime(2015, 1, 1, tzinfo=dt.UTC)


class _Pinned:
    """A snapshot as the source of frames."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def status(self) -> FrameStatus:
        return FrameStatus(self.snapshot.version, synced=False)


class Transaction:
    """What is written together; made by ``with realm.write() as tx:``.

    Parameters
    ----------
    snapshot : Snapshot
        The state that it starts from.
    shown : Snapshot
        The state that the realm's frames show: masks refer to its rows.
    check : callable
        Raises NoSubscriptionForWriteError for a class that cannot be written to.
    """

    def __init__(self, snapshot: Snapshot, shown: Snapshot, check: Callable[[str], None]) -> None:
        self._snapshot = snapshot
        self._shown = shown
        self._check = check
        self._done: list[Changeset] = []
        self._waiting: list[Changeset] = []
        self._edits: dict[str, tuple[Any, Any]] = {}
        self._open = True

    # ------------------------------------------------------------------ reading

    @property
    def snapshot(self) -> Snapshot:
        """The state with what was written so far."""
        self._need_open()
        for changeset in self._waiting:
            self._snapshot = apply(self._snapshot, changeset).snapshot
        self._waiting.clear()
        return self._snapshot

    @property
    def schema(self) -> Schema:
        """The classes that can be written."""
        return self._snapshot.schema

    @property
    def changeset(self) -> Changeset:
        """What was written so far, as it will be sent; edits of frames are in it when the transaction has ended."""
        return self._done[0] if len(self._done) == 1 else concat(self._done)

    def frame(self, class_name: str) -> Any:
        """Give an ordinary frame of a class to edit; when the transaction ends, the difference is written.

        Only what differs is: fields that changed, rows that were added or dropped. Asking again gives the same frame.

        Raises
        ------
        WriteError
            For a class without primary key: nothing tells which rows are the same objects.
        """
        if self._kept_class(class_name).primary_key is None:
            raise WriteError(
                f"{class_name} has no primary key, so an edited frame cannot be compared with it.",
                hint="Write tx.create, or tx.update and tx.delete with a query or a mask over the live frame.",
            )
        if class_name not in self._edits:
            before = LiveFrames(_Pinned(self.snapshot))[class_name].realm.pin()
            self._edits[class_name] = (before, before.copy())
        return self._edits[class_name][1]

    # ------------------------------------------------------------------ writing

    def create(self, class_name: str, values: Any) -> pa.ChunkedArray:
        """Create one object (a dict) or many (a list of dicts, DataFrame, Arrow table).

        Returns
        -------
        pyarrow.ChunkedArray
            The keys of the objects, in the order of the records: links to them are written so. Objects of a class
            without primary key, which only local realms have, get a new :class:`GlobalKey` each.

        Raises
        ------
        WriteError
            If an object with this key exists, or a value does not fit.
        """
        cls = self._class(class_name)
        made: list[Any] = []
        for table in records_to_tables(values, cls, self.schema):
            keys = new_global_keys(table.num_rows) if cls.primary_key is None else table[cls.primary_key]
            self._put(upsert_changeset(self.snapshot, class_name, table, mode="create", keys=keys))
            made += keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
        return pa.chunked_array(made, key_type(cls.key_property))

    def upsert(self, class_name: str, values: Any) -> None:
        """Create objects, or change the fields given of those that exist; takes what :meth:`create` takes."""
        cls = self._class(class_name)
        for table in records_to_tables(values, cls, self.schema):
            self._put(upsert_changeset(self.snapshot, class_name, table))

    def update(self, class_name: str, which: Any = None, *args: Any, **values: Any) -> int:
        """Set fields of all objects that match.

        Parameters
        ----------
        class_name : str
        which : str, mask, key or sequence of keys
            A query (with ``$0``... from `args`), a boolean mask over the realm's frame, or keys; None is all.
        **values
            New value of each field, whole; ``**{"address.city": "Oslo"}`` sets one field of embedded objects.

        Returns
        -------
        int
            How many objects matched.
        """
        cls = self._kept_class(class_name)
        if not values:
            raise WriteError(f"tx.update({class_name!r}, ...) names no field.", hint="Write dep_delay=0.0.")
        rows = self._rows(cls, which, args)
        if len(rows) == 0:
            return 0
        keys = self.snapshot.table(class_name).keys()
        if cls.primary_key in values:
            raise WriteError(f"{class_name}.{cls.primary_key} is the primary key and cannot be changed.")
        inner = {name: values.pop(name) for name in list(values) if "." in name and name not in cls.properties}
        self._update_inside(cls, [keys[int(r)].as_py() for r in rows] if inner else [], inner)
        if not values:
            return len(rows)
        named = {} if cls.primary_key is None else {cls.primary_key: keys[int(rows[0])].as_py()}
        one = frame_to_arrow({**named, **values}, cls, self.schema)
        same = pa.array(np.zeros(len(rows), np.int64))
        columns = {name: one[name].take(same) for name in values}
        which_keys = keys.take(pa.array(rows)).combine_chunks()
        if cls.primary_key is not None:
            columns[cls.primary_key] = which_keys
        self._put(upsert_changeset(self.snapshot, class_name, pa.table(columns), keys=which_keys))
        return len(rows)

    def _update_inside(self, cls: ObjectSchema, keys: list[Key], values: Mapping[str, Any]) -> None:
        """Set fields of embedded objects, named by their way there."""
        for key in keys:
            for name, value in values.items():
                first, *steps = name.split(".")
                place = self.object(cls.name, key)[first]
                for step in steps:
                    place = place[step]
                place.set(value)

    def increment(self, class_name: str, key: Key, field: str, amount: int = 1) -> None:
        """Add to an integer, so that increments on several devices add up."""
        prop = self._kept_class(class_name).properties.get(field)
        if prop is None or prop.type not in (PropertyType.INT, PropertyType.MIXED):
            raise WriteError(f"{class_name}.{field} is no integer that could be incremented.")
        self.object(class_name, key)[field].increment(amount)

    def object(self, class_name: str, key: Key) -> WrittenObject:
        """Give one object to be changed in place: its lists, sets, dictionaries and embedded objects.

        What is done to a collection is written as that and not as a new collection, so it merges with what others do to
        the same one; see :class:`~realmframe.realm.place.Place`.

        Raises
        ------
        WriteError
            If there is no object with this key.
        """
        cls = self._kept_class(class_name)
        rows = self._rows(cls, [key], ())
        if not len(rows):
            raise WriteError(f"{class_name} has no object with the key {key!r}.", hint="Create it first.")
        return WrittenObject(self, cls, self.snapshot.table(class_name).key(int(rows[0])))

    def put_instructions(self, instructions: Iterable[Instruction]) -> None:
        """Write instructions of one's own making; they must fit the transaction's state."""
        self._need_open()
        self._put(Changeset.from_instructions(list(instructions)))

    def delete(self, class_name: str, which: Any = None, *args: Any) -> int:
        """Delete all objects that match; `which` as in :meth:`update`. Return how many."""
        cls = self._kept_class(class_name)
        rows = self._rows(cls, which, args)
        if len(rows):
            self._put(erase_changeset(self.snapshot, class_name, rows))
        return len(rows)

    # ------------------------------------------------------------------ the end

    def finish(self) -> Changeset | None:
        """Give everything written as one changeset, None if nothing was; the transaction is over."""
        self._need_open()
        for class_name, (before, edited) in self._edits.items():
            self._write_difference(class_name, before, edited)
        self._open = False
        made = self.changeset
        return made if len(made) else None

    def abandon(self) -> None:
        """Drop everything, if the transaction has not ended."""
        if not self._open:
            return
        self._open = False
        self._done.clear()
        self._waiting.clear()

    def _write_difference(self, class_name: str, before: Any, edited: Any) -> None:
        cls = self.schema[class_name]
        difference = changes_for(before, edited, cls, self.schema)
        if difference.inserted.num_rows:
            self._put(upsert_changeset(self.snapshot, class_name, difference.inserted, mode="create"))
        for table in difference.modified.values():
            self._put(upsert_changeset(self.snapshot, class_name, table, mode="upsert"))
        if len(difference.deleted):
            keys = difference.deleted.to_pylist()
            rows = self.snapshot.find(class_name, keys)
            self._put(erase_changeset(self.snapshot, class_name, rows[rows >= 0]))

    # ------------------------------------------------------------------ helpers

    def _need_open(self) -> None:
        if not self._open:
            raise ClosedError("The transaction has ended.", hint="Open another with `with realm.write() as tx:`.")

    def _put(self, changeset: Changeset) -> None:
        if len(changeset):
            self._done.append(changeset)
            self._waiting.append(changeset)

    def _class(self, class_name: str) -> ObjectSchema:
        self._need_open()
        cls = self.schema.get(class_name)
        if cls is None:
            raise WriteError(
                f"The realm has no class {class_name!r}.", hint=f"It has {', '.join(self.schema) or 'none yet'}."
            )
        if cls.kind is ClassKind.EMBEDDED:
            raise WriteError(f"{class_name} is embedded: its objects are written inside others.")
        self._check(class_name)
        return cls

    def _kept_class(self, class_name: str) -> ObjectSchema:
        """Give a class whose objects can be looked for."""
        cls = self._class(class_name)
        refuse_to_read(self.schema, class_name)
        return cls

    def _key(self, cls: ObjectSchema, key: Any) -> Key:
        """Take what users write for a key."""
        prop = cls.key_property
        found: Key = key if prop is None else coerce_cell(key, prop, self.schema)
        return found

    def _rows(self, cls: ObjectSchema, which: Any, args: Sequence[Any]) -> np.ndarray[Any, Any]:
        """Find row positions in the transaction's state."""
        snapshot = self.snapshot
        if which is None:
            return np.arange(snapshot.num_rows(cls.name), dtype=np.int64)
        if isinstance(which, str) and (cls.primary_key is None or not _is_key(snapshot, cls, which)):
            return np.asarray(parse(which, *args).bind(snapshot.schema, cls.name).rows(snapshot), np.int64)
        mask = _mask(which)
        if mask is not None:
            shown = self._shown.table(cls.name)
            if len(mask) != len(shown):
                raise UsageError(
                    f"The mask has {len(mask)} rows, but the frame of {cls.name} has {len(shown)}.",
                    hint="Make it from the live frame, realm[...].",
                )
            keys = shown.keys().take(pa.array(np.flatnonzero(mask))).to_pylist()
        else:
            several = isinstance(which, Iterable) and not isinstance(which, str | bytes | Mapping)
            keys = [self._key(cls, key) for key in (which if several else [which])]
        rows = snapshot.find(cls.name, keys)
        return np.asarray(rows[rows >= 0], np.int64)


def _is_key(snapshot: Snapshot, cls: ObjectSchema, text: str) -> bool:
    """Tell whether a string is meant as a key: only if an object of a class with string keys has it."""
    key = cls.key_property
    return key is not None and key.type is PropertyType.STRING and int(snapshot.find(cls.name, [text])[0]) >= 0


def _mask(which: Any) -> np.ndarray[Any, Any] | None:
    """Take a boolean array, Series or Arrow array; None if it is no mask."""
    kind = getattr(which, "dtype", getattr(which, "type", None))
    if kind is None or "bool" not in str(kind):
        return None
    if isinstance(which, pa.Array | pa.ChunkedArray):
        return np.asarray(which.fill_null(False).to_numpy(zero_copy_only=False), bool)
    fill = getattr(which, "fillna", None)
    return np.asarray((fill(False) if fill is not None else which), bool)


def timestamp_now(clock: Callable[[], float]) -> int:
    """Give the protocol's time of now: milliseconds since 2015-01-01 UTC."""
    return int((clock() - EPOCH.timestamp()) * 1000)
