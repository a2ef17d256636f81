"""``apply(snapshot, changeset)``: the one path by which anything ever changes a realm.

A changeset that only creates objects and fills them is loaded (:mod:`realmframe.store.load`). This is the general way.
Rows of a changeset are taken class by class. Where every instruction on an object is a creation, an erasure or an
update of a plain field, whole columns are applied at once: the last write of the changeset wins. Objects that anything
else touches (nested paths, collections, counters, an erasure among other instructions) go one instruction at a time, in
order. Both ways meet in a :class:`~realmframe.store.edit.TableEdit`, which makes a new table that shares what did not
change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    Key,
    ObjectSchema,
    PayloadType,
    Property,
    PropertyType,
    Schema,
)
from realmframe.model.schema import MAX_PROPERTY_NAME
from realmframe.store import types as t
from realmframe.store.arrays import model_to_arrow
from realmframe.store.coercion import default_value
from realmframe.store.edit import TableEdit
from realmframe.store.gather import key_array, key_words_of, payload_array
from realmframe.store.index import Ids, group_keys, key_words
from realmframe.store.inverse import Inverse
from realmframe.store.load import IS_SCHEMA, load
from realmframe.store.nested import Applier, check_key, thaw
from realmframe.store.presence import Presence
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Cells, Chunk, Table

_CREATE, _ERASE, _UPDATE = 2, 3, 4
_NEGATIVE_ZERO: Final = -(1 << 63)
_ZERO: Final = Decimal128.from_parts(0, 0, False)


@dataclass(frozen=True, slots=True)
class Touched:
    """What a changeset did to the objects of one class, as stable row ids.

    Attributes
    ----------
    inserted : array of int64
        In the table after.
    modified : dict of str to array of int64
        For each property; in the tables before and after.
    deleted : array of int64
        In the table before.
    """

    inserted: Ids
    modified: dict[str, Ids]
    deleted: Ids

    @property
    def modified_ids(self) -> Ids:
        """Rows that were modified in any property."""
        return np.unique(np.concatenate([*self.modified.values(), np.empty(0, np.int64)]))


@dataclass(eq=False)
class Applied:
    """The result of :func:`apply`.

    Attributes
    ----------
    before, snapshot : Snapshot
        The states before and after.
    touched : dict of str to Touched
    replaced : set of (str, str or None)
        Classes (without a second word) and properties that were erased, whether or not they were added again.
    """

    before: Snapshot
    snapshot: Snapshot
    touched: dict[str, Touched] = field(default_factory=dict)
    replaced: frozenset[tuple[str, str | None]] = frozenset()

    @cached_property
    def inverse(self) -> Inverse:
        """The changeset that restores the state before (made when asked for); see :class:`Inverse`."""
        from realmframe.store.inverse import inverse_changeset

        return inverse_changeset(self)

    def keys(self, cls: str, ids: Ids, *, before: bool = False) -> list[Key]:
        """Give the keys of touched rows."""
        table = (self.before if before else self.snapshot).tables[cls]
        return [table.key(int(p)) for p in table.positions(ids)]


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


class _Run:
    """One application: the schema and tables so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.before, self.schema = snapshot, snapshot.schema
        self.tables = dict(snapshot.tables)
        self.touched: dict[str, Touched] = {}
        self.replaced: set[tuple[str, str | None]] = set()
        self._last: str | None = None
        self._stale: str | None = None

    def result(self, version: int) -> Applied:
        after = Snapshot(version, self.schema, self.tables)
        return Applied(self.before, after, self.touched, frozenset(self.replaced))

    def apply(self, cs: Changeset) -> None:
        is_schema = IS_SCHEMA[cs.op]
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

    # ------------------------------------------------------------------ schema

    def change_schema(self, instructions: Changeset) -> None:
        for one in instructions.instructions():
            _SCHEMA_HANDLERS[type(one)](self, one)

    def add_table(self, one: i.AddTable) -> None:
        old = self.schema.get(one.table)
        _check_name(one.table, one.pk_field)
        properties = {}
        if one.kind is not ClassKind.EMBEDDED and one.pk_type is not None:
            properties = {one.pk_field: Property(one.pk_field, one.pk_type, one.pk_nullable)}
        new = ObjectSchema(one.table, properties, one.pk_field if properties else None, one.kind)
        if old is not None:
            if one.pk_type is None and not new.embedded:
                return  # Without a key the real engine takes whatever class there is.
            # The real engine compares the key's name and nullability, not its type.
            key, new_key = old.key_property, new.key_property
            same_key = old.primary_key == new.primary_key
            same_key = same_key and (key is None or new_key is None or key.optional == new_key.optional)
            if old.kind is not new.kind or not same_key:
                raise ApplyError(f"Class {one.table} exists with another kind or primary key.")
            return
        self._set_class(new)
        if not new.embedded:
            self.tables[one.table] = Table.empty(new, self.schema)

    def erase_table(self, one: i.EraseTable) -> None:
        if one.table not in self.schema:
            raise ApplyError(f"There is no class {one.table} to erase.")
        users = [c.name for c in self.schema.values() for p in c.properties.values() if p.target == one.table]
        if any(name != one.table for name in users):
            raise ApplyError(f"Class {one.table} cannot be erased: {users[0]} links to it.")
        # The real engine keeps a handle on the table that it used last, and refuses that one until it used another.
        self._stale = one.table if one.table == self._last else None
        self.schema = self.schema.without_class(one.table)
        self.tables.pop(one.table, None)
        self.touched.pop(one.table, None)
        self.replaced.add((one.table, None))
        self._rebind()

    def use(self, first: str, last: str) -> None:
        if first == self._stale:
            raise ApplyError(f"Class {first} was erased and added again in one changeset.")
        self._last, self._stale = last, None

    def add_column(self, one: i.AddColumn) -> None:
        self.use(one.table, one.table)
        cls = self._class(one.table)
        optional = one.nullable or one.type is PropertyType.MIXED
        if one.type is PropertyType.OBJECT:
            # Whatever the instruction says.
            optional = one.collection in (Collection.SINGLE, Collection.DICTIONARY)
        target = None if one.type is PropertyType.MIXED else one.link_target
        prop = Property(one.field, one.type, optional, one.collection, target)
        self._check_property(one.table, prop)
        old = cls.properties.get(one.field)
        if old is not None:
            if not _same_type(old, prop):
                raise ApplyError(f"{one.table}.{one.field} exists as {old.word}, not {prop.word}.")
            return
        if one.collection is Collection.DICTIONARY and one.key_type is not PropertyType.STRING:
            raise ApplyError(f"{one.table}.{one.field}: the keys of dictionaries are strings.")
        self._set_class(cls.with_property(prop))
        self._fill(one.table, prop)

    def _check_property(self, name: str, prop: Property) -> None:
        """Refuse what no property can be; the bytes of a changeset may say it."""
        _check_name(name, prop.name)
        if not isinstance(prop.type, PropertyType):
            raise ApplyError(f"{name}.{prop.name}: no property is of type {int(prop.type)}.")
        if prop.type is not PropertyType.OBJECT:
            return
        target = self.schema.get(prop.target or "")
        if target is None:
            raise ApplyError(f"{name}.{prop.name} links to {prop.target}, which does not exist.")
        if target.kind is ClassKind.ASYMMETRIC:
            raise ApplyError(f"{name}.{prop.name} links to {prop.target}, whose objects leave when they are uploaded.")
        if target.embedded and prop.collection is Collection.SET:
            raise ApplyError(f"{name}.{prop.name}: a set cannot hold embedded objects.")

    def erase_column(self, one: i.EraseColumn) -> None:
        self.use(one.table, one.table)
        cls = self._class(one.table)
        if one.field not in cls.columns:
            raise ApplyError(f"There is no property {one.table}.{one.field} to erase.")
        self._set_class(cls.without_property(one.field))
        self.replaced.add((one.table, one.field))
        table = self.tables.get(one.table)
        if table is not None:
            chunks = [
                Chunk(c.ids, c.keys, {n: v for n, v in c.columns.items() if n != one.field}) for c in table.chunks
            ]
            self.tables[one.table] = Table(
                self.schema[one.table], self.schema, tuple(chunks), table.index, table.next_id
            )
        else:
            self._change_embedded(one.table, lambda fields: fields.pop(one.field, None))

    def _class(self, name: str) -> ObjectSchema:
        cls = self.schema.get(name)
        if cls is None:
            raise ApplyError(f"There is no class {name}.")
        return cls

    def _set_class(self, cls: ObjectSchema) -> None:
        self.schema = self.schema.with_class(cls)
        self._rebind()

    def _rebind(self) -> None:
        """Give every table the new schema; chunks are shared."""
        for name, table in self.tables.items():
            if name in self.schema:
                chunks = tuple(_with_schema(c, self.schema) for c in table.chunks)
                self.tables[name] = Table(self.schema[name], self.schema, chunks, table.index, table.next_id)

    def _fill(self, name: str, prop: Property) -> None:
        """Give the objects that exist a value for a new property."""
        table = self.tables.get(name)
        if table is None:
            self._change_embedded(name, lambda f: f.setdefault(prop.name, thaw(default_value(prop, self.schema))))
            return
        chunks = []
        for chunk in table.chunks:
            values = [thaw(default_value(prop, self.schema)) for _ in range(len(chunk))]
            chunks.append(
                Chunk(chunk.ids, chunk.keys, {**chunk.columns, prop.name: Cells(prop, self.schema, values=values)})
            )
        self.tables[name] = Table(self.schema[name], self.schema, tuple(chunks), table.index, table.next_id)

    def _change_embedded(self, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change every embedded object of a class, wherever it is."""
        for table_name, table in list(self.tables.items()):
            names = [n for n, p in table.cls.columns.items() if t.reaches(p, name, self.schema)]
            if not names or not table.chunks:
                continue
            chunks = []
            for chunk in table.chunks:
                columns = dict(chunk.columns)
                for column in names:
                    prop = table.cls.columns[column]
                    values = [thaw(v) for v in chunk.columns[column].values]
                    for value in values:
                        _visit(value, prop, name, self.schema, change)
                    columns[column] = Cells(prop, self.schema, values=values)
                chunks.append(Chunk(chunk.ids, chunk.keys, columns))
            self.tables[table_name] = Table(table.cls, self.schema, tuple(chunks), table.index, table.next_id)

    # ------------------------------------------------------------------ objects

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
            work = _ClassRun(self.schema, table, cs, rows[tables == number], presence)
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


_SCHEMA_HANDLERS: Final[dict[type, Callable[..., None]]] = {
    i.AddTable: _Run.add_table,
    i.EraseTable: _Run.erase_table,
    i.AddColumn: _Run.add_column,
    i.EraseColumn: _Run.erase_column,
}


def _check_name(cls: str, name: str) -> None:
    if len(name.encode("utf-8", "surrogateescape")) > MAX_PROPERTY_NAME:
        raise ApplyError(f"{cls}.{name[:20]}...: the name of a property has at most {MAX_PROPERTY_NAME} bytes.")


def _same_type(left: Property, right: Property) -> bool:
    return (left.type, left.collection, left.target) == (right.type, right.collection, right.target)


def _with_schema(chunk: Chunk, schema: Schema) -> Chunk:
    columns = {}
    for name, cells in chunk.columns.items():
        if cells.prop.type is PropertyType.OBJECT or cells.prop.type is PropertyType.MIXED:
            columns[name] = cells.with_schema(schema)
        else:
            columns[name] = cells
    return Chunk(chunk.ids, chunk.keys, columns)


def _visit(value: Any, prop: Property, name: str, schema: Schema, change: Callable[[dict[str, Any]], Any]) -> None:
    if value is None or not t.embeds(prop, schema):
        return
    if prop.collection is Collection.SINGLE:
        items = [value]
    else:
        items = list(value.values()) if isinstance(value, dict) else list(value)
    for item in items:
        if item is None:
            continue
        for inner in schema[prop.target or ""].properties.values():
            if inner.name in item:
                _visit(item[inner.name], inner, name, schema, change)
        if prop.target == name:
            change(item)


class _ClassRun:
    """The instructions on objects of one class."""

    def __init__(self, schema: Schema, table: Table, cs: Changeset, rows: Ids, presence: Presence) -> None:
        self.schema, self.table, self.cs, self.rows = schema, table, cs, rows
        self.presence = presence
        self.edit = TableEdit(table)
        self.cls = table.cls
        self._zeros_end: dict[str, int] = {}

    def run(self) -> tuple[Table, Ids, dict[str, Ids], Ids]:
        cs, rows = self.cs, self.rows
        self._check_keys()
        secret = self.table.index.secret
        first, second = key_words_of(cs, rows, secret)
        slots = np.full(max(16, 1 << (2 * len(rows)).bit_length()), -1, np.int64)
        group, leader = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        count = group_keys(first, second, slots, group, leader, secret)
        leader = leader[:count]
        ids = self.table.find_ids(first[leader], second[leader])
        slow = self._slow_groups(group, count)
        fast = ~slow[group]
        if fast.any():
            self._fast(rows[fast], group[fast], ids, leader, (first, second))
        if not fast.all():
            self._slow(rows[~fast], group[~fast], ids)
        return self.edit.finish()

    def _check_keys(self) -> None:
        """Check the type of every key."""
        cs, rows = self.cs, self.rows
        prop = self.cls.key_property
        kinds = np.unique(cs.key_type[rows]).tolist()
        wanted = -1 if prop is None else int(prop.type)
        for kind in kinds:
            if kind == wanted or (kind == 0 and prop is not None and prop.optional):
                continue
            raise ApplyError(f"A key of {self.cls.name} has the wrong type.")

    def _slow_groups(self, group: Ids, count: int) -> Any:
        """Tell which objects go one instruction at a time."""
        cs, rows = self.cs, self.rows
        op = cs.op[rows]
        plain = (
            (op == _CREATE) | (op == _ERASE) | ((op == _UPDATE) & (cs.path_len[rows] == 0) & (cs.value_type[rows] >= 0))
        )
        updates = np.flatnonzero(op == _UPDATE)
        for number in np.unique(cs.field[rows[updates]]).tolist():
            prop = self.cls.columns.get(cs.string(number))
            if prop is None or not t.is_scalar(prop, self.schema):
                plain[updates[cs.field[rows[updates]] == number]] = False
        plain &= cs.key_type[rows] != 0
        # Numbers that equal what is there are not written, so a negative zero needs to see what is there.
        kind, low = cs.value_type[rows], cs.value_lo[rows]
        plain &= ~((kind == PropertyType.DOUBLE) & (low == _NEGATIVE_ZERO))
        plain &= ~((kind == PropertyType.FLOAT) & (low == 0x80000000))
        slow = np.zeros(count, np.bool_)
        slow[group[~plain]] = True
        erased = np.zeros(count, np.bool_)
        erased[group[op == _ERASE]] = True
        slow |= erased & (np.bincount(group, minlength=count) > 1)
        return slow

    # ------------------------------------------------------------------ whole columns

    def _fast(self, rows: Ids, group: Ids, ids: Ids, leader: Ids, words: tuple[Any, Any]) -> None:
        cs = self.cs
        op = cs.op[rows]
        erase = op == _ERASE
        if erase.any():
            gone = ids[group[erase]]
            self.edit.erase(np.unique(gone[gone >= 0]))
            rows, group, op = rows[~erase], group[~erase], op[~erase]
        if not len(rows):
            return
        ids = ids.copy()
        self._create(rows, group, op, ids, leader, words)
        update = op == _UPDATE
        rows, target = rows[update], ids[group[update]]
        if not len(rows):
            return
        if (target < 0).any():
            missing = int(rows[np.flatnonzero(target < 0)[0]])
            raise ApplyError(f"An object of {self.cls.name} to update does not exist (instruction {missing}).")
        fields = cs.field[rows]
        order = np.argsort(fields, kind="stable")
        fields, rows, target = fields[order], rows[order], target[order]
        bounds = np.flatnonzero(np.diff(fields, prepend=-2)).tolist()
        for start, stop in zip(bounds, [*bounds[1:], len(rows)], strict=True):
            self._update_column(cs.string(int(fields[start])), rows[start:stop], target[start:stop])

    def _create(self, rows: Ids, group: Ids, op: Any, ids: Ids, leader: Ids, words: tuple[Any, Any]) -> None:
        """Create the objects that do not exist, provided that their creation comes first."""
        created = np.flatnonzero(op == _CREATE)
        new = created[ids[group[created]] < 0]
        if not len(new):
            return
        groups, where = np.unique(group[new], return_index=True)
        order = np.argsort(where, kind="stable")
        groups, where = groups[order], where[order]
        begins = new[where]
        first_use = np.full(len(ids), len(rows), np.int64)
        np.minimum.at(first_use, group, np.arange(len(group)))
        if (first_use[groups] != begins).any():
            raise ApplyError(f"An object of {self.cls.name} is updated before it is created.")
        at = rows[begins]
        leaders = leader[groups]
        keys = key_array(self.cs, at, self.cls.key_property)
        ids[groups] = self.edit.create_bulk(keys, (words[0][leaders], words[1][leaders]), at)

    def _update_column(self, name: str, rows: Ids, target: Ids) -> None:
        prop = self.cls.columns[name]
        other = np.empty(0, np.int64)
        if len(target) > 1 and not (np.diff(target) > 0).all():
            if prop.type in (PropertyType.FLOAT, PropertyType.DOUBLE):
                other = target[(self.cs.value_lo[rows] != 0) | (self.cs.value_type[rows] == 0)]
            # The last write to a row wins: the first one of the reversed order.
            _, last = np.unique(target[::-1], return_index=True)
            keep = len(target) - 1 - last
            self._check_values(np.delete(rows, keep), prop)
            rows, target = rows[keep], target[keep]
        if prop.type in (PropertyType.FLOAT, PropertyType.DOUBLE):
            rows, target = self._without_kept_zeros(name, rows, target, other)
        if len(rows):
            values = payload_array(self.cs, rows, prop, self.cls, self.schema)
            if prop.type is PropertyType.DECIMAL128 and not prop.optional:
                values = self._with_plain_zeros(name, rows, values)
            self.edit.set_bulk(name, target, values)

    def _check_values(self, rows: Ids, prop: Property) -> None:
        """Check values that are written and overwritten at once: those of a wrong type are refused all the same."""
        kinds = self.cs.value_type[rows]
        wrong = rows[(kinds != int(prop.type)) & ((kinds != 0) | (not prop.optional))]
        if len(wrong):
            payload_array(self.cs, wrong, prop, self.cls, self.schema)

    def _with_plain_zeros(self, name: str, rows: Ids, values: Any) -> Any:
        """Turn decimal -0 into 0 where the real engine does; see :meth:`zeros_end`."""
        odd = _is_zero(self.cs, rows) & (self.cs.value_hi[rows].view(np.uint64) != _ZERO.high)
        if not odd.any():
            return values
        raw = np.frombuffer(values.storage.buffers()[1], np.uint8).reshape(-1, 16).copy()
        raw[odd & (rows < self.zeros_end(name))] = np.frombuffer(_ZERO.to_bytes(), np.uint8)
        storage = pa.Array.from_buffers(pa.binary(16), len(raw), [None, pa.py_buffer(raw)])
        return pa.ExtensionArray.from_storage(values.type, storage)

    def zeros_end(self, name: str) -> int:
        """Give the row of the changeset up to which a decimal -0 is taken for 0.

        The real engine keeps a column whose decimals are all 0 without any bits, and -0 is no reason to change that;
        from the first other number on (0E+1 is one), it keeps -0 as it is written. (It decides by leaf of some 256
        objects, and never goes back; here a whole column is looked at, as it is now.)
        """
        found = self._zeros_end.get(name)
        if found is None:
            zero = pa.scalar(_ZERO.to_bytes(), pa.binary(16))
            arrays = (chunk.columns[name].array.storage for chunk in self.table.chunks)
            cs, rows, found = self.cs, self.rows, 0
            if all(pc.all(pc.equal(array, zero)).as_py() for array in arrays):
                mine = (cs.op[rows] == _UPDATE) & (cs.path_len[rows] == 0)
                mine &= cs.value_type[rows] == PropertyType.DECIMAL128
                rows = rows[mine]
                rows = rows[[cs.string(n) == name for n in cs.field[rows].tolist()]] if len(rows) else rows
                other = rows[~_is_zero(cs, rows)]
                found = int(other[0]) if len(other) else len(cs)
            self._zeros_end[name] = found
        return found

    def _without_kept_zeros(self, name: str, rows: Ids, target: Ids, other: Ids) -> tuple[Ids, Ids]:
        """Leave out zeros that would replace a negative zero: equal numbers are not written.

        Rows of ``other`` held another number, or null, in between.
        """
        zero = (self.cs.value_lo[rows] == 0) & (self.cs.value_type[rows] != 0) & (target < self.table.next_id)
        if not zero.any():
            return rows, target
        where = np.flatnonzero(zero)
        places = self.table.positions(target[where])
        old = self.table.column(name).take(places).to_numpy()
        kept = where[(old == 0) & np.signbit(old)]
        kept = kept[np.isin(target[kept], other, invert=True)] if len(other) else kept
        return np.delete(rows, kept), np.delete(target, kept)

    # ------------------------------------------------------------------ one at a time

    def _slow(self, rows: Ids, group: Ids, ids: Ids) -> None:
        objects: dict[int, _Object] = {}
        position = 0
        applier = Applier(self.schema, lambda link: self.presence.has(link, position))
        instructions = self.cs.take(rows).instructions()
        for position, number, one in zip(rows.tolist(), group.tolist(), instructions, strict=True):
            thing = objects.get(number)
            if thing is None:
                thing = objects[number] = _Object(self, int(ids[number]))
            thing.apply(one, position, applier)
        for thing in objects.values():
            thing.finish()


def _is_zero(cs: Changeset, rows: Ids) -> Any:
    """Tell which decimal values are 0 or -0, of exponent 0."""
    unsigned = cs.value_hi[rows].view(np.uint64) & np.uint64((1 << 63) - 1)
    return (unsigned == np.uint64(_ZERO.high)) & (cs.value_lo[rows] == 0)


class _Object:
    """One object that is changed instruction by instruction."""

    def __init__(self, run: _ClassRun, row_id: int) -> None:
        self._run, self._id = run, row_id
        self._position = int(run.table.positions(np.array([row_id]))[0]) if row_id >= 0 else -1
        self._fields: _Fields | None = _Fields(run, self._position) if row_id >= 0 else None

    def apply(self, one: Any, position: int, applier: Applier) -> None:
        if isinstance(one, i.CreateObject):
            if self._fields is None:
                self._id = self._run.edit.create_one(one.pk, position)
                self._fields = _Fields(self._run, -1)
        elif isinstance(one, i.EraseObject):
            if self._fields is not None:
                self._run.edit.erase(np.array([self._id], np.int64))
                self._fields = None
        elif self._fields is None:
            raise ApplyError(f"Object {one.pk!r} of {one.table} does not exist.")
        else:
            if one.field == self._run.cls.primary_key:
                self._rekey(one)
                return
            if isinstance(one, i.Update) and isinstance(one.value, Decimal128) and not one.path:
                one = self._with_plain_zero(one, position)
            applier.apply(one, self._fields, self._run.cls)

    def _with_plain_zero(self, one: i.Update, position: int) -> i.Update:
        """Take a decimal -0 for 0 where the real engine does; see :meth:`_ClassRun.zeros_end`."""
        prop, value = self._run.cls.columns.get(one.field), one.value
        plain = prop is not None and prop.type is PropertyType.DECIMAL128 and not prop.optional
        if not plain or prop is None or prop.collection is not Collection.SINGLE:
            return one
        assert isinstance(value, Decimal128)
        if (
            not value.negative
            or value.high & ((1 << 63) - 1) != _ZERO.high
            or value.low
            or position >= self._run.zeros_end(one.field)
        ):
            return one
        return i.Update(one.table, one.pk, one.field, one.path, _ZERO)

    def _rekey(self, one: Any) -> None:
        """Write the primary key, as the real engine does when told to (clients never tell it)."""
        if not isinstance(one, i.Update) or one.path:
            raise ApplyError(f"{one.table}.{one.field} is the primary key and holds nothing else.")
        key: Any = one.value
        check_key(key, self._run.cls)
        self._run.edit.rekey(self._id, key)

    def finish(self) -> None:
        if self._fields is None:
            return
        for name, value in self._fields.items():
            self._run.edit.set_one(name, self._id, value)


class _Fields(dict[str, Any]):
    """The fields of an object, read when they are first needed; all that it holds was touched."""

    def __init__(self, run: _ClassRun, position: int) -> None:
        super().__init__()
        self._run, self._position = run, position

    def __missing__(self, name: str) -> Any:
        prop = self._run.cls.columns[name]
        if self._position < 0:
            value = default_value(prop, self._run.schema)
        else:
            value = self._run.table.values(name, np.array([self._position]))[0]
        value = thaw(value)
        self[name] = value
        return value


__all__ = ["Applied", "Touched", "apply", "check_key", "key_words", "model_to_arrow"]
