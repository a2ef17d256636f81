"""A realm as plain Python dictionaries, changed one instruction at a time: what everything faster is compared with.

It takes valid instructions only; what is refused is a matter of the golden vectors.
"""

from __future__ import annotations

import copy
import struct
import uuid
from collections.abc import Iterable
from typing import Any

import numpy as np

from realmframe import store
from realmframe.changes import Instruction
from realmframe.changes import instructions as i
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    EmbeddedObject,
    Key,
    Marker,
    ObjectId,
    PropertyType,
    RealmSet,
    Timestamp,
)

Fields = dict[str, Any]
EMPTY: dict[Collection, Any] = {Collection.LIST: list, Collection.SET: RealmSet, Collection.DICTIONARY: dict}
ZERO: dict[PropertyType, Any] = {
    PropertyType.INT: 0,
    PropertyType.BOOL: False,
    PropertyType.STRING: "",
    PropertyType.DATA: b"",
    PropertyType.DATE: Timestamp(0, 0),
    PropertyType.FLOAT: np.float32(0),
    PropertyType.DOUBLE: 0.0,
    PropertyType.DECIMAL128: Decimal128.from_parts(0, 0, False),
    PropertyType.OBJECT_ID: ObjectId(bytes(12)),
    PropertyType.UUID: uuid.UUID(int=0),
}
NUMBERS = (int, float, np.float32, Decimal128)


def default(column: i.AddColumn) -> Any:
    """Give what a new object holds."""
    if column.collection is not Collection.SINGLE:
        return EMPTY[column.collection]()
    if column.nullable or column.type in (PropertyType.MIXED, PropertyType.OBJECT):
        return None
    return ZERO[column.type]


def amount(value: Any) -> Any:
    """Give what a number is worth, whatever its type; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        return None
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    return "nan" if number != number else number


def is_member(value: Any, held: Any) -> bool:
    """Whether a set that holds one value holds another one already."""
    if amount(value) is not None and amount(held) is not None:
        return bool(amount(value) == amount(held))
    return type(value) is type(held) and bool(value == held)


def is_kept(held: Any, column: i.AddColumn, *, inside: bool) -> bool:
    """Whether a number stays where an equal one of its type is written; a property of one decimal is written always."""
    if column.type is PropertyType.DECIMAL128 and not inside:
        return False
    return isinstance(held, float | np.float32 | Decimal128)


def is_lost(value: Any, column: i.AddColumn) -> bool:
    """Whether a set cannot find a value: not-a-number, among floating-point numbers."""
    return column.type in (PropertyType.FLOAT, PropertyType.DOUBLE) and value is not None and bool(value != value)


class PlainRealm:
    """Classes, and objects in the order in which they were made."""

    def __init__(self, instructions: Iterable[Instruction] = ()) -> None:
        self.tables: dict[str, i.AddTable] = {}
        self.columns: dict[str, dict[str, i.AddColumn]] = {}
        self.objects: dict[str, dict[Key, Fields]] = {}
        for one in instructions:
            self.apply(one)

    def copy(self) -> PlainRealm:
        """Give a realm of its own with the same content."""
        return copy.deepcopy(self)

    def apply(self, one: Instruction) -> None:
        """Apply an instruction."""
        getattr(self, "_" + type(one).__name__)(one)

    # ------------------------------------------------------------------ schema

    def _AddTable(self, one: i.AddTable) -> None:
        if one.table not in self.tables:
            self.tables[one.table], self.columns[one.table] = one, {}
            if one.kind is not ClassKind.EMBEDDED:
                self.objects[one.table] = {}

    def _EraseTable(self, one: i.EraseTable) -> None:
        for held in (self.tables, self.columns, self.objects):
            held.pop(one.table, None)

    def _AddColumn(self, one: i.AddColumn) -> None:
        if one.field not in self.columns[one.table]:
            self.columns[one.table][one.field] = one
            for fields in self._objects_of(one.table):
                fields[one.field] = default(one)

    def _EraseColumn(self, one: i.EraseColumn) -> None:
        for fields in self._objects_of(one.table):
            del fields[one.field]
        del self.columns[one.table][one.field]

    def _objects_of(self, table: str) -> list[Fields]:
        if table in self.objects:
            return list(self.objects[table].values())
        found: list[Fields] = []
        for name, objects in self.objects.items():
            for fields in objects.values():
                self._embedded(name, fields, table, found)
        return found

    def _embedded(self, cls: str, fields: Fields, table: str, found: list[Fields]) -> None:
        for column in self.columns[cls].values():
            value = fields.get(column.field)
            if column.type is not PropertyType.OBJECT:
                continue
            items = [value] if isinstance(value, EmbeddedObject) or not isinstance(value, list | dict) else value
            for item in items.values() if isinstance(items, dict) else items:
                if isinstance(item, EmbeddedObject):
                    self._embedded(column.link_target or "", item, table, found)
                    if column.link_target == table:
                        found.append(item)

    # ------------------------------------------------------------------ objects

    def new_object(self, table: str) -> Fields:
        """Give the fields of a new object."""
        return {name: default(column) for name, column in self.columns[table].items()}

    def _CreateObject(self, one: i.CreateObject) -> None:
        self.objects[one.table].setdefault(one.pk, self.new_object(one.table))

    def _EraseObject(self, one: i.EraseObject) -> None:
        self.objects[one.table].pop(one.pk, None)

    def place(self, one: Any, steps: int) -> tuple[Any, Any, i.AddColumn, bool]:
        """Follow a path for some steps: what holds the place, the step in it, its property, whether in a collection."""
        holder: Any = self.objects[one.table][one.pk]
        step: Any = one.field
        column, inside = self.columns[one.table][step], False
        for next_step in one.path[:steps]:
            holder, step = holder[step], next_step
            inside = not isinstance(holder, EmbeddedObject)
            if not inside:
                column = self.columns[column.link_target or ""][step]
        return holder, step, column, inside

    def _made(self, marker: Any, column: i.AddColumn) -> Any:
        if marker is Marker.OBJECT_VALUE:
            return EmbeddedObject(self.new_object(column.link_target or ""))
        if isinstance(marker, Marker):
            return [] if marker is Marker.LIST else {}
        return marker

    def _Update(self, one: i.Update) -> None:
        holder, step, column, inside = self.place(one, len(one.path))
        keyed = inside and isinstance(holder, dict)
        if one.value is Marker.ERASED:
            holder.pop(step, None)
            return
        held = holder.get(step) if isinstance(holder, dict) else holder[step]
        new = self._made(one.value, column)
        if one.value is Marker.OBJECT_VALUE:
            # An element that exists is an object already.
            if keyed or (not inside and held is None):
                holder[step] = new
        elif isinstance(one.value, Marker):
            if type(held) is not type(new):
                holder[step] = new
        elif type(held) is not type(new) or not is_kept(held, column, inside=inside):
            holder[step] = new
        elif amount(held) != amount(new):
            # Numbers that are equal are not written: the sign of zero stays.
            holder[step] = new

    def _AddInteger(self, one: i.AddInteger) -> None:
        holder, step, _, _ = self.place(one, len(one.path))
        if holder[step] is not None:
            holder[step] = (holder[step] + one.value + (1 << 63)) % (1 << 64) - (1 << 63)

    def _items(self, one: Any) -> tuple[Any, i.AddColumn]:
        holder, step, column, _ = self.place(one, len(one.path) - 1)
        assert len(holder[step]) == one.prior_size
        return holder[step], column

    def _ArrayInsert(self, one: i.ArrayInsert) -> None:
        items, column = self._items(one)
        items.insert(one.path[-1], self._made(one.value, column))

    def _ArrayMove(self, one: i.ArrayMove) -> None:
        items, _ = self._items(one)
        items.insert(one.ndx_2, items.pop(one.path[-1]))

    def _ArrayErase(self, one: i.ArrayErase) -> None:
        items, _ = self._items(one)
        del items[one.path[-1]]

    def _Clear(self, one: i.Clear) -> None:
        holder, step, column, inside = self.place(one, len(one.path))
        kind = one.collection if inside or column.collection is Collection.SINGLE else column.collection
        holder[step] = EMPTY[kind]()

    def _SetInsert(self, one: i.SetInsert) -> None:
        holder, step, column, _ = self.place(one, len(one.path))
        if is_lost(one.value, column) or not any(is_member(one.value, held) for held in holder[step]):
            holder[step].append(one.value)

    def _SetErase(self, one: i.SetErase) -> None:
        holder, step, column, _ = self.place(one, len(one.path))
        if not is_lost(one.value, column):
            holder[step] = RealmSet(held for held in holder[step] if not is_member(one.value, held))


# ---------------------------------------------------------------------------------------------- comparing


def shape(value: Any) -> Any:
    """Give a value with its types and bits, so that 1, 1.0 and True differ and NaN equals itself."""
    if isinstance(value, RealmSet):
        return "set", sorted(repr(shape(item)) for item in value)
    if isinstance(value, list):
        return "list", [shape(item) for item in value]
    if isinstance(value, dict):
        return type(value).__name__, {name: shape(item) for name, item in value.items()}
    if isinstance(value, np.float32):
        return "float", int(value.view(np.uint32))
    if isinstance(value, float):
        return "double", struct.pack(">d", value).hex()
    return type(value).__name__, value


def plain_content(realm: PlainRealm) -> dict[str, Any]:
    """Give everything a realm of dictionaries holds: objects in order, in one comparable form."""
    content: dict[str, Any] = {}
    for name, table in realm.tables.items():
        columns = {c.field: (c.type, c.collection, c.link_target) for c in realm.columns[name].values()}
        objects = realm.objects.get(name, {})
        rows = [(shape(key), {f: shape(v) for f, v in fields.items()}) for key, fields in objects.items()]
        content[name] = (table.kind, columns, rows)
    return content


def content(snapshot: store.Snapshot) -> dict[str, Any]:
    """Give everything a snapshot holds, in the same form."""
    found: dict[str, Any] = {}
    for name, cls in snapshot.schema.items():
        columns = {p.name: (p.type, p.collection, p.target) for p in cls.columns.values()}
        rows: list[Any] = []
        if not cls.embedded:
            table = snapshot.table(name)
            values = {field: table.values(field) for field in columns}
            for row in range(len(table)):
                rows.append((shape(table.key(row)), {field: shape(values[field][row]) for field in columns}))
        found[name] = (cls.kind, columns, rows)
    return found


def unordered(found: dict[str, Any]) -> dict[str, Any]:
    """Leave the order of objects out."""
    return {name: (kind, columns, sorted(rows, key=repr)) for name, (kind, columns, rows) in found.items()}
