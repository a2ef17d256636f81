"""Schema instructions: classes and properties are added and erased, and the objects that exist follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError
from realmframe.model import ClassKind, Collection, ObjectSchema, Property, PropertyType, Schema
from realmframe.model.schema import MAX_PROPERTY_NAME
from realmframe.store import types as t
from realmframe.store.applied import Touched
from realmframe.store.coercion import default_value
from realmframe.store.nested import thaw
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Cells, Chunk, Table


class SchemaChanges:
    """The schema and tables so far, while a changeset is applied.

    Attributes
    ----------
    touched : dict of str to Touched
    replaced : set of (str, str or None)
        Classes (without a second word) and properties that were erased.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.before, self.schema = snapshot, snapshot.schema
        self.tables = dict(snapshot.tables)
        self.touched: dict[str, Touched] = {}
        self.replaced: set[tuple[str, str | None]] = set()
        self._last: str | None = None
        self._stale: str | None = None

    def change_schema(self, instructions: Changeset) -> None:
        """Apply schema instructions."""
        for one in instructions.instructions():
            _SCHEMA_HANDLERS[type(one)](self, one)

    def add_table(self, one: i.AddTable) -> None:
        """Add a class."""
        old = self.schema.get(one.table)
        _check_name(one.table, one.pk_field)
        new = class_of(one)
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
        """Erase a class."""
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
        """Note which classes the next instructions are about."""
        if first == self._stale:
            raise ApplyError(f"Class {first} was erased and added again in one changeset.")
        self._last, self._stale = last, None

    def add_column(self, one: i.AddColumn) -> None:
        """Add a property."""
        self.use(one.table, one.table)
        cls = self._class(one.table)
        prop = property_of(one)
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
        """Erase a property."""
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


_SCHEMA_HANDLERS: Final[dict[type, Callable[..., None]]] = {
    i.AddTable: SchemaChanges.add_table,
    i.EraseTable: SchemaChanges.erase_table,
    i.AddColumn: SchemaChanges.add_column,
    i.EraseColumn: SchemaChanges.erase_column,
}


def class_of(one: i.AddTable) -> ObjectSchema:
    """Give the class that an instruction declares."""
    properties = {}
    if one.kind is not ClassKind.EMBEDDED and one.pk_type is not None:
        properties = {one.pk_field: Property(one.pk_field, one.pk_type, one.pk_nullable)}
    return ObjectSchema(one.table, properties, one.pk_field if properties else None, one.kind)


def property_of(one: i.AddColumn) -> Property:
    """Give the property that an instruction declares."""
    optional = one.nullable or one.type is PropertyType.MIXED
    if one.type is PropertyType.OBJECT:
        # Whatever the instruction says.
        optional = one.collection in (Collection.SINGLE, Collection.DICTIONARY)
    target = None if one.type is PropertyType.MIXED else one.link_target
    return Property(one.field, one.type, optional, one.collection, target)


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
