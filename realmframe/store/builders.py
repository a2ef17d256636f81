"""Changesets out of states: full objects, schemas, differences, erasures.

Everything is columnar; only collections, embedded objects and Mixed values are made one instruction at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.errors import WriteError
from realmframe.model import (
    ClassKind,
    Collection,
    Key,
    Link,
    Property,
    PropertyType,
    RealmSet,
    Schema,
)
from realmframe.store import types as t
from realmframe.store.arrays import arrow_to_model, keys_to_arrow, keys_to_list, one_array
from realmframe.store.emit import Emitter
from realmframe.store.exactly import arrays_differ
from realmframe.store.index import Ids
from realmframe.store.revise import revision_instructions
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Table
from realmframe.store.writer import value_instructions


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


def new_global_keys(count: int) -> Any:
    """Give keys, as an Arrow array, for new objects of a class without primary key: no two are the same anywhere."""
    raw = pa.py_buffer(os.urandom(16 * count))
    return pa.ExtensionArray.from_storage(t.GLOBAL_KEY, pa.Array.from_buffers(pa.binary(16), count, [None, raw]))


def upsert_changeset(
    snapshot: Snapshot, cls: str, records: pa.Table, *, mode: str = "upsert", keys: Any = None
) -> Changeset:
    """Give the minimal changeset that makes objects hold what records say.

    Parameters
    ----------
    snapshot : Snapshot
    cls : str
    records : pyarrow.Table
        With exactly the store's types, the primary key among the columns. Absent properties are left alone.
    mode : str
        ``upsert``, or ``create`` to refuse objects that exist.
    keys : pyarrow.Array, optional
        The keys of the records, for a class without primary key.

    Raises
    ------
    WriteError
        For a key that stands twice, or exists in mode ``create``.
    """
    table = snapshot.table(cls)
    key = table.cls.primary_key
    keys = keys if key is None else records[key].combine_chunks()
    if keys is None:
        raise WriteError(
            f"{cls} has no primary key, so records cannot be matched with its objects.",
            hint="Use create for new objects, and update with a query or a mask for those that exist.",
        )
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
        values = one_array(records[name], prop, table.schema)
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
    prop = table.cls.columns[name]
    old = one_array(table.column(name).take(pa.array(rows)), prop, table.schema)
    return arrays_differ(old, new, prop, table.schema)


def _nested_upsert(table: Table, prop: Property, rows: Ids, keys: Any, values: Any) -> list[i.Instruction]:
    found: list[i.Instruction] = []
    name, known, fresh = table.cls.name, np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    key_of = keys_to_list(keys, table.cls.key_property)
    new = arrow_to_model(values.take(pa.array(fresh)), prop, table.schema)
    for at, value in zip(fresh.tolist(), new, strict=True):
        if value is not None and (prop.collection is Collection.SINGLE or value):
            found += value_instructions(table.schema, name, key_of[at], prop, value)
    if len(known):
        kept = values.take(pa.array(known))
        changed = np.flatnonzero(column_differs(table, prop.name, rows[known], kept))
        old = table.values(prop.name, rows[known[changed]])
        new = arrow_to_model(kept.take(pa.array(changed)), prop, table.schema)
        for at, before, value in zip(known[changed].tolist(), old, new, strict=True):
            found += revision_instructions(table.schema, name, key_of[at], prop, before, value)
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
