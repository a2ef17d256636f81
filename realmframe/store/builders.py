"""Changesets out of states: full objects, schemas, differences, erasures.

Everything is columnar; only collections, embedded objects and Mixed values are made one instruction at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.errors import WriteError
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    EmbeddedObject,
    Key,
    Link,
    Marker,
    Property,
    PropertyType,
    RealmSet,
    Schema,
)
from realmframe.store import types as t
from realmframe.store.arrays import arrow_to_model
from realmframe.store.emit import Emitter
from realmframe.store.index import Ids
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Table

_ONE: Final = Decimal128.from_parts(1, 0, False)


class _Writer:
    """Writes model values as instructions on one object."""

    def __init__(self, schema: Schema, table: str, pk: Key, field: str) -> None:
        self._schema, self._table, self._pk, self._field = schema, table, pk, field

    def place(self, prop: Property, value: Any, path: i.Path, *, reset: bool) -> Iterator[i.Instruction]:
        """Make a place hold a value."""
        where = (self._table, self._pk, self._field, path)
        if isinstance(value, EmbeddedObject):
            if reset:
                yield i.Update(*where, None)
            yield i.Update(*where, Marker.OBJECT_VALUE)
            yield from self._fields(prop, value, path)
        elif isinstance(value, list | dict):
            kind = _kind_of(value)
            if prop.collection is Collection.SINGLE:
                yield i.Update(*where, Marker.LIST if kind is Collection.LIST else Marker.DICTIONARY)
            if reset:
                yield i.Clear(*where, kind)
            yield from self._items(prop, value, path)
        else:
            if reset and prop.type is PropertyType.MIXED and isinstance(value, float | np.float32 | Decimal128):
                yield i.Update(*where, None)  # an equal number, of another sign or with other zeros, stays otherwise
            yield i.Update(*where, value)

    def _fields(self, prop: Property, value: EmbeddedObject, path: i.Path) -> Iterator[i.Instruction]:
        for name, inner in self._schema[prop.target or ""].properties.items():
            held = value[name]
            if isinstance(held, float | np.float32) and held == 0 and np.signbit(held) and not inner.optional:
                # It holds 0 already, which equals -0, and what is equal is not written.
                yield i.Update(self._table, self._pk, self._field, (*path, name), type(held)(1))
            if inner.collection is not Collection.SINGLE and not held:
                continue  # a new embedded object holds empty collections
            yield from self.place(inner, held, (*path, name), reset=False)

    def _items(self, prop: Property, value: Any, path: i.Path) -> Iterator[i.Instruction]:
        element = replace(prop, collection=Collection.SINGLE)
        if isinstance(value, RealmSet):
            yield from self._members(prop, value, path)
        elif isinstance(value, dict):
            for key, item in value.items():
                yield from self.place(element, item, (*path, key), reset=False)
        else:
            for index, item in enumerate(value):
                yield from self.insert(element, item, (*path, index))

    def _members(self, prop: Property, value: RealmSet, path: i.Path) -> Iterator[i.Instruction]:
        where = (self._table, self._pk, self._field, path)
        minus = [item for item in value if prop.type is PropertyType.DECIMAL128 and _is_minus_zero(item)]
        for item in value:
            if item not in minus:
                yield i.SetInsert(*where, item)
        for item in minus:
            # Alone, it would lose its sign.
            if len(value) == 1:
                yield i.SetInsert(*where, _ONE)
            yield i.SetInsert(*where, item)
            if len(value) == 1:
                yield i.SetErase(*where, _ONE)

    def insert(self, element: Property, item: Any, path: i.Path) -> Iterator[i.Instruction]:
        """Append a value to a list that ends at the path's index."""
        index = path[-1]
        assert isinstance(index, int)
        where = (self._table, self._pk, self._field, path)
        if isinstance(item, EmbeddedObject):
            yield i.ArrayInsert(*where, Marker.OBJECT_VALUE, index)
            yield from self._fields(element, item, path)
        elif isinstance(item, list | dict):
            yield i.ArrayInsert(*where, Marker.LIST if isinstance(item, list) else Marker.DICTIONARY, index)
            yield from self._items(element, item, path)
        elif element.type is PropertyType.DECIMAL128 and _is_minus_zero(item):
            # Among zeros only, it would lose its sign where it is inserted, but not where it replaces another number.
            yield i.ArrayInsert(*where, _ONE, index)
            yield i.Update(*where, item, prior_size=index + 1)
        else:
            yield i.ArrayInsert(*where, item, index)


def _is_minus_zero(value: Any) -> bool:
    return isinstance(value, Decimal128) and value.negative and not value.coefficient and not value.exponent


def _kind_of(value: Any) -> Collection:
    if isinstance(value, RealmSet):
        return Collection.SET
    return Collection.LIST if isinstance(value, list) else Collection.DICTIONARY


def value_instructions(
    schema: Schema, table: str, pk: Key, prop: Property, value: Any, *, reset: bool = False
) -> Iterator[i.Instruction]:
    """Give the instructions that make a property of an object hold a value.

    Parameters
    ----------
    reset : bool
        Whether it may hold something already: collections are cleared, embedded objects replaced.
    """
    return _Writer(schema, table, pk, prop.name).place(prop, value, (), reset=reset)


def insertion_instructions(
    schema: Schema, table: str, pk: Key, field: str, element: Property, item: Any, path: i.Path, size: int
) -> Iterator[i.Instruction]:
    """Give the instructions that insert a value, with all that is in it, into a list of ``size`` elements."""
    first, *rest = _Writer(schema, table, pk, field).insert(element, item, path)
    assert isinstance(first, i.ArrayInsert)
    yield replace(first, prior_size=size)
    yield from rest


def _emitter(table: Table) -> Emitter:
    return Emitter(table.cls.name, table.cls.key_property, table.schema)


def objects_changeset(
    snapshot: Snapshot, cls: str, rows: Ids | None = None, *, reset_collections: bool = False
) -> Changeset:
    """Give the full state of objects: creations, then updates of every property.

    Parameters
    ----------
    snapshot : Snapshot
    cls : str
    rows : array of int64, optional
        Row positions; all by default.
    reset_collections : bool
        Whether the receiver may hold the objects already: collections are cleared first.
    """
    table = snapshot.table(cls)
    keys = _taken(table.keys(), rows)
    emitter = _emitter(table)
    emitter.create(keys)
    nested: list[i.Instruction] = []
    for name, prop in table.cls.columns.items():
        if t.is_scalar(prop, table.schema):
            emitter.update(prop, keys, _taken(table.column(name), rows))
        else:
            nested += _nested(table, prop, rows, reset_collections)
    return _joined(emitter.finish(), nested)


def _taken(column: Any, rows: Ids | None) -> Any:
    return column.combine_chunks() if rows is None else column.take(pa.array(rows)).combine_chunks()


def _nested(table: Table, prop: Property, rows: Ids | None, reset: bool) -> list[i.Instruction]:
    found: list[i.Instruction] = []
    values = table.values(prop.name, rows)
    positions = range(len(table)) if rows is None else rows.tolist()
    for position, value in zip(positions, values, strict=True):
        if value is None and not reset:
            continue
        if not reset and isinstance(value, list | dict) and not value and prop.collection is not Collection.SINGLE:
            continue
        key = table.key(int(position))
        found += value_instructions(table.schema, table.cls.name, key, prop, value, reset=reset)
    return found


def _joined(bulk: Changeset, nested: list[i.Instruction]) -> Changeset:
    return concat([bulk, Changeset.from_instructions(nested)]) if nested else bulk


def schema_changeset(schema: Schema, have: Schema | None = None) -> Changeset:
    """Give what adds the classes and properties that ``have`` lacks, in the order of the SDKs.

    Classes come first, in byte order of their names, then the properties of each class in declared order.
    """
    known = have or Schema()
    found: list[i.Instruction] = []
    names = sorted(schema, key=lambda n: n.encode())
    for name in names:
        if name not in known:
            cls, key = schema[name], schema[name].key_property
            if cls.kind is ClassKind.EMBEDDED:
                found.append(i.AddTable(name, cls.kind))
            else:
                pk_type = None if key is None else key.type
                found.append(i.AddTable(name, cls.kind, cls.primary_key or "", pk_type, bool(key and key.optional)))
    fresh = [n for n in names if n not in known]
    for name in [*fresh, *(n for n in names if n in known)]:
        have_columns = known[name].properties if name in known else {}
        for prop in schema[name].columns.values():
            if prop.name not in have_columns:
                found.append(_add_column(name, prop))
    return Changeset.from_instructions(found)


def _add_column(name: str, prop: Property) -> i.AddColumn:
    key_type = PropertyType.STRING if prop.collection is Collection.DICTIONARY else None
    return i.AddColumn(name, prop.name, prop.type, prop.optional, prop.collection, prop.target, key_type)


def upsert_changeset(snapshot: Snapshot, cls: str, records: pa.Table, *, mode: str = "upsert") -> Changeset:
    """Give the minimal changeset that makes objects hold what records say.

    Parameters
    ----------
    snapshot : Snapshot
    cls : str
    records : pyarrow.Table
        With exactly the store's types, the primary key among the columns. Absent properties are left alone.
    mode : str
        ``upsert``, or ``create`` to refuse objects that exist.

    Raises
    ------
    WriteError
        For a key that stands twice, or exists in mode ``create``.
    """
    table = snapshot.table(cls)
    key = table.cls.primary_key
    if key is None:
        raise WriteError(f"{cls} has no primary key, so records cannot be matched with its objects.")
    keys = records[key].combine_chunks()
    if len(pc.unique(keys.storage if isinstance(keys, pa.ExtensionArray) else keys)) != len(keys):
        raise WriteError(f"{cls}: a primary key stands twice in the records.")
    rows = table.find(keys)
    known, fresh = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    if mode == "create" and len(known):
        raise WriteError(
            f"{cls} has an object with the primary key {keys[int(known[0])].as_py()!r} already.",
            hint="Use upsert to change objects that exist.",
        )
    emitter = _emitter(table)
    new_keys = keys if not len(known) else keys.take(pa.array(fresh))
    emitter.create(new_keys)
    nested: list[i.Instruction] = []
    for name in records.column_names:
        if name == key:
            continue
        prop = table.cls.columns[name]
        values = records[name].combine_chunks()
        if t.is_scalar(prop, table.schema):
            fresh_values = values if not len(known) else values.take(pa.array(fresh))
            emitter.update(prop, new_keys, fresh_values)
            if len(known):
                changed = known[column_differs(table, name, rows[known], values.take(pa.array(known)))]
                emitter.update(prop, keys.take(pa.array(changed)), values.take(pa.array(changed)))
        else:
            nested += _nested_upsert(table, prop, rows, keys, values)
    return _joined(emitter.finish(), nested)


def column_differs(table: Table, name: str, rows: Ids, new: Any) -> Any:
    """Tell which rows hold another value, bit for bit (a null differs from everything but a null)."""
    old = table.column(name).take(pa.array(rows)).combine_chunks()
    if old.type != new.type:
        prop = table.cls.columns[name]
        pairs = zip(arrow_to_model(old, prop, table.schema), arrow_to_model(new, prop, table.schema), strict=True)
        return np.fromiter((a != b for a, b in pairs), np.bool_, len(new))
    if isinstance(old, pa.ExtensionArray):
        old, new = old.storage, new.storage
    if pa.types.is_floating(old.type):
        # Compared as bits, so that a not-a-number equals itself.
        kind = pa.int64() if old.type == pa.float64() else pa.int32()
        old, new = old.view(kind), new.view(kind)
    unequal = pc.fill_null(pc.not_equal(old, new), False)
    return pc.or_(unequal, pc.xor(pc.is_null(old), pc.is_null(new))).to_numpy(zero_copy_only=False)


def _nested_upsert(table: Table, prop: Property, rows: Ids, keys: Any, values: Any) -> list[i.Instruction]:
    from realmframe.store.arrays import keys_to_list

    found: list[i.Instruction] = []
    new = arrow_to_model(values, prop, table.schema)
    known = np.flatnonzero(rows >= 0)
    old = dict(zip(known.tolist(), table.values(prop.name, rows[known]), strict=True))
    for at, (key, value) in enumerate(zip(keys_to_list(keys, table.cls.key_property), new, strict=True)):
        if at in old and old[at] == value and type(old[at]) is type(value):
            continue
        if at not in old and (value is None or (prop.collection is not Collection.SINGLE and not value)):
            continue
        found += value_instructions(table.schema, table.cls.name, key, prop, value, reset=at in old)
    return found


def erase_changeset(snapshot: Snapshot, cls: str, rows: Ids) -> Changeset:
    """Give what a client emits when it deletes objects: their incoming links first, then the objects.

    Single links and Mixed values become null, elements of lists and sets are removed, dictionary values become null.
    """
    table = snapshot.table(cls)
    unlinked = unlink_changeset(snapshot, cls, [table.key(int(r)) for r in rows])
    emitter = _emitter(table)
    emitter.erase(table.keys().take(pa.array(rows)))
    bulk = emitter.finish()
    return concat([unlinked, bulk]) if len(unlinked) else bulk


def unlink_changeset(snapshot: Snapshot, cls: str, keys: Sequence[Key]) -> Changeset:
    """Give what takes away all links to objects of a class, as :func:`erase_changeset` does before it erases them."""
    gone = {Link(cls, key) for key in keys}
    found: list[i.Instruction] = []
    for name, other in snapshot.tables.items() if gone else ():
        for prop in other.cls.columns.values():
            if prop.type is PropertyType.MIXED or (prop.type is PropertyType.OBJECT and _may_link(prop, cls, snapshot)):
                found += _unlink(other, name, prop, gone, snapshot)
    return Changeset.from_instructions(found)


def _may_link(prop: Property, cls: str, snapshot: Snapshot) -> bool:
    return prop.target == cls or t.embeds(prop, snapshot.schema)


def _unlink(table: Table, name: str, prop: Property, gone: set[Link], snapshot: Snapshot) -> list[i.Instruction]:
    if t.is_scalar(prop, snapshot.schema):
        kind = t.arrow_type(prop, snapshot.schema)
        wanted = _key_values([link.key for link in gone], kind)
        column = table.column(prop.name)
        storage = pa.chunked_array([_plain(c) for c in column.chunks], wanted.type)
        hits = np.flatnonzero(pc.is_in(storage, value_set=wanted).combine_chunks().to_numpy(zero_copy_only=False))
        return [i.Update(name, table.key(int(r)), prop.name, (), None) for r in hits]
    found: list[i.Instruction] = []
    for row, value in enumerate(table.values(prop.name)):
        steps = list(_removals(value, gone, ()))
        if steps:
            key = table.key(row)
            found += [_removal(name, key, prop.name, step) for step in steps]
    return found


def _plain(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _key_values(keys: Sequence[Key], kind: pa.DataType) -> Any:
    from realmframe.store.arrays import keys_to_arrow

    prop = next((Property("", p) for p, k in t.SCALARS.items() if k == kind), None)
    return _plain(keys_to_arrow(keys, prop))


def _removals(value: Any, gone: set[Link], path: i.Path) -> Iterator[tuple[str, i.Path, Any, int]]:
    """Find links below a value, in the order in which they can be removed one after another."""
    if isinstance(value, Link):
        if value in gone:
            yield "null", path, None, 0
    elif isinstance(value, RealmSet):
        for item in value:
            if isinstance(item, Link) and item in gone:
                yield "set", path, item, 0
    elif isinstance(value, list):
        size = len(value)
        for index in range(len(value) - 1, -1, -1):
            item = value[index]
            if isinstance(item, Link) and item in gone:
                yield "list", (*path, index), None, size
                size -= 1
            else:
                yield from _removals(item, gone, (*path, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _removals(item, gone, (*path, key))


def _removal(table: str, key: Key, field: str, step: tuple[str, i.Path, Any, int]) -> i.Instruction:
    kind, path, item, size = step
    if kind == "set":
        return i.SetErase(table, key, field, path, item)
    if kind == "list":
        return i.ArrayErase(table, key, field, path, size)
    return i.Update(table, key, field, path, None)
