"""A state of the vectors as the instructions that make it, so that a query fixture becomes a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from realmframe.changes import instructions as ins
from realmframe.conformance.vectors import TYPES, value_from_json
from realmframe.model import ClassKind, Collection, EmbeddedObject, Key, Marker, PropertyType, RealmSet

_Where = tuple[str, Key, str]
_Instructions = Iterator[ins.Instruction]


def state_to_instructions(classes: Mapping[str, Any]) -> list[ins.Instruction]:
    """Give the instructions that make a state out of nothing; objects are created in the order listed."""
    return [*_tables(classes), *_columns(classes), *_objects(classes)]


def _tables(classes: Mapping[str, Any]) -> Iterator[ins.Instruction]:
    for name, form in classes.items():
        kind, pk = ClassKind[form["kind"].upper()], form["pk"]
        if pk is None:
            yield ins.AddTable(name, kind)
        else:
            yield ins.AddTable(name, kind, pk["name"], TYPES[pk["type"]], pk["nullable"])


def _columns(classes: Mapping[str, Any]) -> Iterator[ins.Instruction]:
    for name, form in classes.items():
        for column, prop in form["columns"].items():
            kind = PropertyType.MIXED if prop["type"] == "Mixed" else TYPES[prop["type"]]
            collection = Collection[prop["collection"].upper()]
            key_type = PropertyType.STRING if collection is Collection.DICTIONARY else None
            yield ins.AddColumn(name, column, kind, prop["nullable"], collection, prop.get("link_target"), key_type)


def _objects(classes: Mapping[str, Any]) -> Iterator[ins.Instruction]:
    for name, form in classes.items():
        for one in form.get("objects", ()):
            pk = value_from_json(one["pk"])
            yield ins.CreateObject(name, pk)
            for field, value in one["fields"].items():
                column = form["columns"][field]
                yield from _value(classes, column, (name, pk, field), (), value_from_json(value))


def _value(classes: Mapping[str, Any], column: Any, where: _Where, path: ins.Path, value: Any) -> _Instructions:
    """Set what stands at a path of a property (of the object, or of one embedded in it)."""
    # A property's own collection is there from the start; one inside Mixed has to be made.
    made = not path and column["collection"] != "Single"
    if isinstance(value, EmbeddedObject):
        yield ins.Update(*where, path, Marker.OBJECT_VALUE)
        yield from _fields(classes, column, where, path, value)
    elif isinstance(value, RealmSet):
        for element in value:
            yield ins.SetInsert(*where, path, element)
    elif isinstance(value, dict | list):
        if not made:
            yield ins.Update(*where, path, Marker.DICTIONARY if isinstance(value, dict) else Marker.LIST)
        yield from _items(classes, column, where, path, value)
    else:
        yield ins.Update(*where, path, value)


def _items(classes: Mapping[str, Any], column: Any, where: _Where, path: ins.Path, value: Any) -> _Instructions:
    if isinstance(value, dict):
        for name, element in value.items():
            yield from _value(classes, column, where, (*path, name), element)
        return
    for i, element in enumerate(value):
        at = (*path, i)
        if isinstance(element, EmbeddedObject):
            yield ins.ArrayInsert(*where, at, Marker.OBJECT_VALUE, i)
            yield from _fields(classes, column, where, at, element)
        elif isinstance(element, dict | list):
            yield ins.ArrayInsert(*where, at, Marker.DICTIONARY if isinstance(element, dict) else Marker.LIST, i)
            yield from _items(classes, column, where, at, element)
        else:
            yield ins.ArrayInsert(*where, at, element, i)


def _fields(
    classes: Mapping[str, Any], column: Any, where: _Where, path: ins.Path, value: EmbeddedObject
) -> _Instructions:
    columns = classes[column["link_target"]]["columns"]
    for name, field in value.items():
        if columns[name]["collection"] == "Single":
            yield from _value(classes, columns[name], where, (*path, name), field)
        elif isinstance(field, RealmSet):
            yield from (ins.SetInsert(*where, (*path, name), element) for element in field)
        else:
            yield from _items(classes, columns[name], where, (*path, name), field)
