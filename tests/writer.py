"""Random transactions that a client could have made: every kind of instruction, at any depth."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from realmframe.changes import Instruction
from realmframe.changes import instructions as i
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    EmbeddedObject,
    GlobalKey,
    Key,
    Link,
    Marker,
    ObjectId,
    PropertyType,
    RealmSet,
    Timestamp,
)
from tests.plain import PlainRealm

P, C = PropertyType, Collection
STRING = P.STRING
DICT = C.DICTIONARY


def _columns(table: str, *forms: tuple[Any, ...]) -> list[Instruction]:
    """Make columns of (name, type, nullable, collection, target)."""
    return [
        i.AddColumn(
            table, name, kind, null, where, rest[0] if rest else None, STRING if where is C.DICTIONARY else None
        )
        for name, kind, null, where, *rest in forms
    ]


#: Every type of property, in every kind of collection; embedded objects below embedded objects.
SCHEMA: list[Instruction] = [
    i.AddTable("E", ClassKind.EMBEDDED),
    i.AddTable("F", ClassKind.EMBEDDED),
    i.AddTable("G"),
    i.AddTable("T", pk_field="_id", pk_type=P.INT, pk_nullable=True),
    i.AddTable("U", pk_field="_id", pk_type=STRING),
    i.AddTable("Y", ClassKind.ASYMMETRIC, "_id", P.OBJECT_ID),
    *_columns("F", ("y", STRING, True, C.SINGLE), ("n", P.INT, False, C.SINGLE)),
    *_columns(
        "E",
        ("x", P.INT, True, C.SINGLE),
        ("d", P.DOUBLE, False, C.SINGLE),
        ("m", P.MIXED, True, C.SINGLE),
        ("l", P.INT, False, C.LIST),
        ("f", P.OBJECT, True, C.SINGLE, "F"),
        ("fs", P.OBJECT, False, C.LIST, "F"),
        ("to", P.OBJECT, True, C.SINGLE, "U"),
    ),
    *_columns("G", ("n", P.INT, False, C.SINGLE), ("to", P.OBJECT, True, C.SINGLE, "G")),
    *_columns(
        "T",
        ("n", P.INT, False, C.SINGLE),
        ("o", P.INT, True, C.SINGLE),
        ("s", STRING, True, C.SINGLE),
        ("b", P.DATA, False, C.SINGLE),
        ("ok", P.BOOL, False, C.SINGLE),
        ("f", P.FLOAT, False, C.SINGLE),
        ("d", P.DOUBLE, False, C.SINGLE),
        ("q", P.DECIMAL128, True, C.SINGLE),
        ("when", P.DATE, True, C.SINGLE),
        ("oid", P.OBJECT_ID, True, C.SINGLE),
        ("u", P.UUID, False, C.SINGLE),
        ("m", P.MIXED, True, C.SINGLE),
        ("e", P.OBJECT, True, C.SINGLE, "E"),
        ("to", P.OBJECT, True, C.SINGLE, "U"),
        ("li", P.INT, False, C.LIST),
        ("ls", STRING, True, C.LIST),
        ("lm", P.MIXED, True, C.LIST),
        ("le", P.OBJECT, False, C.LIST, "E"),
        ("lt", P.OBJECT, False, C.LIST, "U"),
        ("si", P.INT, False, C.SET),
        ("ss", STRING, False, C.SET),
        ("sm", P.MIXED, True, C.SET),
        ("st", P.OBJECT, False, C.SET, "U"),
        ("di", P.INT, True, C.DICTIONARY),
        ("dm", P.MIXED, True, C.DICTIONARY),
        ("de", P.OBJECT, True, C.DICTIONARY, "E"),
        ("dt", P.OBJECT, True, C.DICTIONARY, "T"),
    ),
    *_columns("U", ("n", P.INT, False, C.SINGLE), ("back", P.OBJECT, False, C.LIST, "T")),
    *_columns("Y", ("n", P.INT, False, C.SINGLE), ("e", P.OBJECT, True, C.SINGLE, "E")),
]
#: What may be added: one definition for each name, so that two sides agree.
MORE_TABLES: list[i.AddTable] = [i.AddTable("V", pk_field="_id", pk_type=P.UUID), i.AddTable("W")]
MORE_COLUMNS: list[Any] = [
    *_columns("T", ("x0", P.INT, False, C.SINGLE), ("x1", P.OBJECT, False, C.LIST, "V")),
    *_columns("E", ("x0", P.MIXED, True, C.LIST), ("x1", STRING, False, C.SINGLE)),
    *_columns("V", ("x0", P.INT, False, C.SINGLE), ("x1", P.OBJECT, True, C.SINGLE, "E")),
    *_columns("W", ("x0", P.OBJECT, True, C.SINGLE, "V")),
]
VALUES: dict[P, tuple[Any, ...]] = {
    P.INT: (0, 1, 2, -1, (1 << 63) - 1),
    P.BOOL: (True, False),
    P.STRING: ("", "a", "b", "é"),
    P.DATA: (b"", b"a", b"\xff"),
    P.DATE: (Timestamp(0, 0), Timestamp(1, 5), Timestamp(-1, -5)),
    P.FLOAT: (np.float32(0), np.float32(-0.0), np.float32(1.5), np.float32("nan")),
    P.DOUBLE: (0.0, -0.0, 1.0, float("nan"), float("inf")),
    P.DECIMAL128: tuple(map(Decimal128.from_decimal, ("0", "1", "1.0", "-2.5"))),
    P.OBJECT_ID: (ObjectId(bytes(12)), ObjectId(b"a" * 12)),
    P.UUID: (uuid.UUID(int=0), uuid.UUID(int=7)),
}
KEYS: dict[str, tuple[Key, ...]] = {
    "T": (1, 2, 3, None),
    "U": ("", "u", "v"),
    "G": (GlobalKey(0, 1), GlobalKey(1, 2)),
    "Y": VALUES[P.OBJECT_ID],
    "V": VALUES[P.UUID],
    "W": (GlobalKey(2, 2),),
}
WORDS = ("a", "b")
#: Objects to begin with.
OBJECTS: list[Instruction] = [i.CreateObject(table, key) for table in "TUG" for key in KEYS[table][:2]]
for _key in KEYS["T"][:2]:
    OBJECTS += [i.ArrayInsert("T", _key, "li", (k,), k, k) for k in range(4)]
    OBJECTS += [i.ArrayInsert("T", _key, "le", (k,), Marker.OBJECT_VALUE, k) for k in range(3)]
    OBJECTS += [i.ArrayInsert("T", _key, "lm", (k,), (Marker.LIST, 1, Marker.DICTIONARY)[k], k) for k in range(3)]
    OBJECTS += [i.ArrayInsert("T", _key, "lm", (0, k), k, k) for k in range(2)]
    OBJECTS += [i.ArrayInsert("T", _key, "lt", (k,), Link("U", "u"), k) for k in range(2)]
    OBJECTS += [i.SetInsert("T", _key, "si", (), k) for k in range(2)]
    OBJECTS += [i.SetInsert("T", _key, "ss", (), text) for text in ("a", "b")]
    OBJECTS += [
        i.Update("T", _key, "e", (), Marker.OBJECT_VALUE),
        i.Update("T", _key, "e", ("f",), Marker.OBJECT_VALUE),
    ]
    OBJECTS += [i.Update("T", _key, "de", ("a",), Marker.OBJECT_VALUE), i.Update("T", _key, "di", ("a",), 1)]
    OBJECTS += [i.Update("T", _key, "dm", ("a",), Marker.LIST), i.Update("T", _key, "to", (), Link("U", "u"))]
Path = tuple[int | str, ...]
Where = tuple[str, Key, str]


class Writer:
    """Makes transactions on a realm, which it changes.

    Parameters
    ----------
    realm : PlainRealm
    pick : callable
        ``pick(n)`` gives a number from 0 to below n.
    schema : bool
        Whether to change classes and properties too.
    focus : sequence of str, optional
        The properties of class T to change; all by default.
    client : bool
        Whether to delete as clients do, incoming links first, and to link to objects that exist only.
    """

    def __init__(
        self,
        realm: PlainRealm,
        pick: Callable[[int], int],
        *,
        focus: Sequence[str] = (),
        schema: bool = True,
        client: bool = True,
    ) -> None:
        self.realm, self.pick, self.focus, self.schema, self.client = realm, pick, focus, schema, client
        self.made: list[Instruction] = []

    def emit(self, one: Instruction) -> None:
        """Add an instruction."""
        self.realm.apply(one)
        self.made.append(one)

    def choose(self, choices: Any) -> Any:
        """Pick one of some choices."""
        choices = list(choices)
        return choices[self.pick(len(choices))]

    def step(self) -> None:
        """Do one thing."""
        kind = self.pick(24)
        table = self.choose(self.realm.objects) if self.pick(3) == 0 else "T"
        key = self.choose(KEYS[table][: 2 if self.pick(4) else None])
        columns = list(self.realm.columns[table].values())
        if table == "T" and self.focus:
            columns = [c for c in columns if c.field in self.focus or c.field[0] == "x"]
        if kind == 23 and self.schema:
            self._schema()
        elif key not in self.realm.objects[table]:
            self.emit(i.CreateObject(table, key))
        elif kind == 0 and table != "Y":
            self._erase(table, key)
        elif columns:
            column = self.choose(columns)
            self._change((table, key, column.field), (), column, self.realm.objects[table][key][column.field])

    # ------------------------------------------------------------------ values

    def _value(self, column: i.AddColumn) -> Any:
        """Pick a value that is no collection and no embedded object."""
        if column.type is P.MIXED:
            kind = self.choose([*VALUES, None, P.OBJECT])
            if kind is P.OBJECT:
                return self._link(self.choose([t for t in self.realm.objects if t != "Y"]))
            return None if kind is None else self.choose(VALUES[kind])
        if column.type is P.OBJECT:
            return self._link(column.link_target or "")
        if column.nullable and not self.pick(4):
            return None
        return self.choose(VALUES[column.type])

    def _link(self, table: str) -> Link | None:
        keys = self.realm.objects[table] if self.client else KEYS[table]
        return Link(table, self.choose(keys)) if keys else None

    def _is_embedded(self, column: i.AddColumn) -> bool:
        return column.type is P.OBJECT and self.realm.tables[column.link_target or ""].kind is ClassKind.EMBEDDED

    # ------------------------------------------------------------------ changes

    def _change(self, where: Where, path: Path, column: i.AddColumn, value: Any) -> None:
        """Change the value of a property, or something inside it."""
        if column.collection is C.SINGLE:
            self._change_one(where, path, column, value)
        else:
            {C.LIST: self._list, C.DICTIONARY: self._dictionary, C.SET: self._set}[column.collection](
                where, path, column, value
            )

    def _change_one(self, where: Where, path: Path, column: i.AddColumn, value: Any) -> None:
        if isinstance(value, EmbeddedObject):
            self._embedded(where, path, column, value)
        elif isinstance(value, list) and self.pick(5):
            self._list(where, path, column, value)
        elif isinstance(value, dict) and self.pick(5):
            self._dictionary(where, path, column, value)
        elif type(value) is int and column.type in (P.INT, P.MIXED):
            _, _, _, inside = self.realm.place(i.AddInteger(*where, path, 0), len(path))
            if not inside and self.pick(2):
                self.emit(i.AddInteger(*where, path, self.choose((1, -2, (1 << 63) - 1))))
            else:
                self._set_value(where, path, self._value(column))
        elif self._is_embedded(column):
            self._set_value(where, path, Marker.OBJECT_VALUE)
        elif column.type is P.MIXED and not self.pick(3):
            self._collection(where, path)
        else:
            self._set_value(where, path, self._value(column))

    def _set_value(self, where: Where, path: Path, value: Any) -> None:
        one = i.Update(*where, path, value)
        if path and isinstance(path[-1], int):
            holder, _, _, _ = self.realm.place(one, len(path))
            one.prior_size = len(holder)
        else:
            one.is_default = not self.pick(8)
        self.emit(one)

    def _collection(self, where: Where, path: Path) -> None:
        """Make a Mixed value a collection."""
        marker, kind = ((Marker.LIST, C.LIST), (Marker.DICTIONARY, C.DICTIONARY))[self.pick(2)]
        self._set_value(where, path, marker)
        if self.pick(2):
            self.emit(i.Clear(*where, path, kind))

    def _embedded(self, where: Where, path: Path, column: i.AddColumn, value: EmbeddedObject) -> None:
        columns = self.realm.columns[column.link_target or ""]
        kind = self.pick(6)
        if kind == 0 and not (path and isinstance(path[-1], int)):
            self.emit(i.Update(*where, path, None))
            if self.pick(2):
                self.emit(i.Update(*where, path, Marker.OBJECT_VALUE))
        elif columns:
            inner = self.choose(columns.values())
            self._change(where, (*path, inner.field), inner, value[inner.field])

    def _list(self, where: Where, path: Path, column: i.AddColumn, value: list[Any]) -> None:
        size, kind = len(value), self.pick(12)
        if size and kind < 6:
            self._element(where, (*path, self.pick(size)), column, value)
        elif size and kind < 8:
            self.emit(i.ArrayErase(*where, (*path, self.pick(size)), size))
        elif size > 1 and kind == 8:
            at = self.pick(size)
            self.emit(i.ArrayMove(*where, (*path, at), (at + 1 + self.pick(size - 1)) % size, size))
        elif size and kind == 9 and self.pick(2):
            self.emit(i.Clear(*where, path, C.LIST))
        else:
            new = self._new_item(column)
            if new is not None or (column.nullable and column.type is not P.OBJECT):
                self.emit(i.ArrayInsert(*where, (*path, self.pick(size + 1)), new, size))

    def _new_item(self, column: i.AddColumn) -> Any:
        if self._is_embedded(column):
            return Marker.OBJECT_VALUE
        if column.type is P.MIXED and not self.pick(3):
            return self.choose((Marker.LIST, Marker.DICTIONARY))
        return self._value(column)

    def _element(self, where: Where, path: Path, column: i.AddColumn, value: list[Any]) -> None:
        at: Any = path[-1]
        if isinstance(value[at], EmbeddedObject | list | dict):
            self._change_one(where, path, column, value[at])
            return
        new = self._value(column)
        if new is not None or (column.nullable and column.type is not P.OBJECT):
            self.emit(i.Update(*where, path, new, prior_size=len(value)))

    def _dictionary(self, where: Where, path: Path, column: i.AddColumn, value: dict[str, Any]) -> None:
        kind, word = self.pick(10), self.choose(WORDS)
        held = value.get(word)
        if kind == 0:
            self.emit(i.Clear(*where, path, DICT))
        elif kind == 1:
            self._set_value(where, (*path, word), Marker.ERASED)
        elif word in value and isinstance(held, list | dict):
            self._change_one(where, (*path, word), column, held)
        else:
            self._set_value(where, (*path, word), self._new_item(column))

    def _set(self, where: Where, path: Path, column: i.AddColumn, value: RealmSet) -> None:
        kind, new = self.pick(8), self._value(column)
        if kind == 0:
            self.emit(i.Clear(*where, path, C.SET))
        elif new is None and column.type is not P.MIXED:
            return
        elif kind < 5:
            self.emit(i.SetInsert(*where, path, new))
        else:
            self.emit(i.SetErase(*where, path, self.choose(value) if value and self.pick(2) else new))

    # ------------------------------------------------------------------ objects and schema

    def _erase(self, table: str, key: Key) -> None:
        if self.client:
            gone = Link(table, key)
            for name, objects in self.realm.objects.items():
                for pk, fields in objects.items():
                    for field, value in fields.items():
                        for one in list(_unlinked((name, pk, field), (), value, gone)):
                            self.emit(one)
        self.emit(i.EraseObject(table, key))

    def _schema(self) -> None:
        """Add or erase a class or a property."""
        kind = self.pick(8)
        if kind < 2:
            self.emit(self.choose(MORE_TABLES))
        elif kind < 6:
            column = self.choose(MORE_COLUMNS)
            if column.table in self.realm.tables and (column.link_target or "T") in self.realm.tables:
                self.emit(column)
        elif kind == 6:
            table = self.choose(self.realm.columns)
            if self.realm.columns[table] and table != "Y":
                self.emit(i.EraseColumn(table, self.choose(self.realm.columns[table])))
        else:
            used = {c.link_target for t, cs in self.realm.columns.items() for c in cs.values() if t != c.link_target}
            free = [t for t in self.realm.tables if t not in used and t in "GVW"]
            if free and not self.made:
                # Only at the beginning: the real engine refuses a class that is added again after it was used.
                self.emit(i.EraseTable(self.choose(free)))


def _unlinked(where: Where, path: Path, value: Any, gone: Link) -> Iterator[Instruction]:
    """Give what removes a link, in an order in which it can be done."""
    if isinstance(value, Link):
        if value == gone:
            yield i.Update(*where, path, None)
    elif isinstance(value, RealmSet):
        if any(isinstance(item, Link) and item == gone for item in value):
            yield i.SetErase(*where, path, gone)
    elif isinstance(value, list):
        size = len(value)
        for at in reversed(range(len(value))):
            if isinstance(value[at], Link) and value[at] == gone:
                yield i.ArrayErase(*where, (*path, at), size)
                size -= 1
            else:
                yield from _unlinked(where, (*path, at), value[at], gone)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _unlinked(where, (*path, name), item, gone)
