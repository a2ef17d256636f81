"""What users write for a property, turned into the model value that its type holds exactly, or refused.

A refusal says where below the property the value stands (``[2]``, ``["key"]``, ``.field``), what was wrong and what to
write; the caller knows class, property and record, and puts them before it.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

from realmframe.errors import WriteError
from realmframe.model import (
    Collection,
    Decimal128,
    EmbeddedObject,
    GlobalKey,
    Link,
    ObjectId,
    ObjectSchema,
    Property,
    PropertyType,
    RealmSet,
    Schema,
    Timestamp,
)
from realmframe.store.mixed import encode_value, exact
from realmframe.store.scalars import COERCE, reject

#: How deep the SDKs nest lists and dictionaries in a Mixed value.
MAX_MIXED_DEPTH: Final = 100

#: What a Mixed value may be, beside lists, dictionaries and links: the first that fits.
_MIXED: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (bool | np.bool_, COERCE[PropertyType.BOOL]),
    (int | np.integer, COERCE[PropertyType.INT]),
    (np.float32, COERCE[PropertyType.FLOAT]),
    (float | np.floating, COERCE[PropertyType.DOUBLE]),
    (str, COERCE[PropertyType.STRING]),
    (bytes | bytearray | memoryview, COERCE[PropertyType.DATA]),
    (Timestamp | dt.datetime | np.datetime64, COERCE[PropertyType.DATE]),
    (Decimal128 | decimal.Decimal, COERCE[PropertyType.DECIMAL128]),
    (uuid.UUID, COERCE[PropertyType.UUID]),
    (ObjectId, COERCE[PropertyType.OBJECT_ID]),
)


def dictionary_key(key: Any) -> str:
    """Check a key of a dictionary.

    Raises
    ------
    WriteError
        If it is no string, begins with ``$`` or holds a dot: the SDKs refuse these.
    """
    if not isinstance(key, str):
        reject(key, "key of a dictionary", "Keys are strings.")
    if key.startswith("$") or "." in key:
        reject(key, "key of a dictionary", "The SDKs refuse keys that begin with $ or hold a dot.")
    return str(COERCE[PropertyType.STRING](key))


def _within(step: str, take: Callable[..., Any], *args: Any) -> Any:
    """Make a value below another; a refusal names the step."""
    try:
        return take(*args)
    except WriteError as fault:
        raise WriteError(f"{step}{'' if fault.message[:1] in '[.' else ': '}{fault.message}", hint=fault.hint) from None


def coerce_mixed(value: Any, schema: Schema | None = None, depth: int = 0) -> Any:
    """Take what users write for a Mixed value.

    Parameters
    ----------
    schema : Schema, optional
        Links are checked against it.
    depth : int
        How many lists and dictionaries are around it.
    """
    if value is None:
        return None
    if isinstance(value, Link):
        return _mixed_link(value, schema)
    for kinds, take in _MIXED:
        if isinstance(value, kinds):
            return take(value)
    if value.__class__.__name__ == "ObjectId":
        return COERCE[PropertyType.OBJECT_ID](value)
    if depth >= MAX_MIXED_DEPTH:
        raise WriteError(f"Lists and dictionaries in a mixed value nest {MAX_MIXED_DEPTH} deep at most.")
    if isinstance(value, Mapping) and not isinstance(value, EmbeddedObject):
        items = ((dictionary_key(k), v) for k, v in value.items())
        return {k: _within(f"[{k!r}]", coerce_mixed, v, schema, depth + 1) for k, v in items}
    plain = isinstance(value, list | tuple | np.ndarray) and not isinstance(value, RealmSet | GlobalKey)
    if plain:
        return [_within(f"[{n}]", coerce_mixed, v, schema, depth + 1) for n, v in enumerate(value)]
    raise WriteError(
        f"A {type(value).__name__} is no value that a realm can hold.",
        hint="A mixed value is a scalar, a realmframe.Link, or a list or dict of these.",
    )


def _mixed_link(value: Link, schema: Schema | None) -> Link:
    if schema is None:
        encode_value(value)
        return value
    target = schema.get(value.table)
    if target is None or target.embedded:
        reject(value, "link", f"Link to one of {', '.join(c.name for c in schema.values() if not c.embedded)}.")
    return _link(value, target)


def _link(value: Any, target: ObjectSchema) -> Link:
    """Take a link, the key that it holds, or a dict with that key."""
    key = target.key_property
    if isinstance(value, Link):
        if value.table != target.name:
            reject(value, f"link to {target.name}", f"Links of this property go to {target.name}.")
        value = value.key
    elif isinstance(value, Mapping) and key is not None:
        if key.name not in value:
            reject(value, f"link to {target.name}", f"Write the {key.name} of an object.")
        value = value[key.name]
    if key is None:
        if not isinstance(value, GlobalKey):
            reject(value, f"link to {target.name}", f"{target.name} has no primary key: give the GlobalKey.")
        return Link(target.name, value)
    if value is None and key.optional:
        return Link(target.name, None)
    return Link(target.name, COERCE[key.type](value))


def coerce(value: Any, prop: Property, schema: Schema) -> Any:
    """Take what users write for a property and give the model value.

    A collection that is None is empty; a set keeps the first of elements that are one to the real engine.

    Raises
    ------
    WriteError
        If the type cannot hold the value.
    """
    if prop.collection is Collection.SINGLE:
        return coerce_element(value, prop, schema)
    if prop.collection is Collection.DICTIONARY:
        pairs = _pairs(value)
        return {k: _within(f"[{k!r}]", coerce_element, v, prop, schema) for k, v in pairs.items()}
    kind = prop.collection.name.lower()
    if value is None:
        value = ()
    if isinstance(value, str | bytes | Mapping | Link | Timestamp) or not isinstance(value, Iterable):
        reject(value, kind, "Write a list of its elements.")
    items = [_within(f"[{n}]", coerce_element, v, prop, schema) for n, v in enumerate(value)]
    return _distinct(items) if prop.collection is Collection.SET else items


def _pairs(value: Any) -> dict[str, Any]:
    """Take a dictionary, or the list of pairs that Arrow makes of one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        try:
            pairs = [(k, v) for k, v in value]
        except (TypeError, ValueError):
            reject(value, "dictionary", "Write a dict with strings as keys.")
        value = dict(pairs)
        if len(value) != len(pairs):
            reject(pairs, "dictionary", "A key stands twice.")
    return {dictionary_key(k): v for k, v in value.items()}


def _distinct(items: list[Any]) -> RealmSet:
    kept: dict[Any, Any] = {}
    for item in items:
        kept.setdefault(set_identity(item), item)
    return RealmSet(kept.values())


def set_identity(item: Any) -> Any:
    """Give what tells an element of a set from others: numbers by their amount, all else by type and value."""
    if isinstance(item, Decimal128):
        item = item.to_decimal()
    if isinstance(item, int | float | np.float32 | decimal.Decimal) and not isinstance(item, bool):
        if item != item:
            return "number", "nan"
        return "number", float(item) if isinstance(item, np.float32) else item
    return type(item).__name__, exact(item)


def coerce_element(value: Any, prop: Property, schema: Schema) -> Any:
    """Take one value of a property, whatever its collection."""
    if prop.type is PropertyType.MIXED:
        return coerce_mixed(value, schema)
    if value is None:
        if prop.optional or (prop.type is PropertyType.OBJECT and prop.collection is Collection.SINGLE):
            return None
        raise WriteError(f"{_null_word(prop)} is not optional and cannot be null.")
    if prop.type is not PropertyType.OBJECT:
        return COERCE[prop.type](value)
    target = schema[prop.target or ""]
    return coerce_embedded(value, target, schema) if target.embedded else _link(value, target)


def _null_word(prop: Property) -> str:
    return prop.name if prop.collection is Collection.SINGLE else f"An element of {prop.name} ({prop.word})"


def coerce_embedded(value: Any, target: ObjectSchema, schema: Schema) -> EmbeddedObject:
    """Take a dict for an embedded object; fields that it lacks hold what they do in a new object."""
    if not isinstance(value, Mapping):
        reject(value, f"embedded {target.name}", "Write a dict of its fields.")
    for name in value:
        check_field(name, target)
    found = {}
    for name, prop in target.properties.items():
        if name in value:
            found[name] = _within(f".{name}", coerce, value[name], prop, schema)
        else:
            found[name] = default_value(prop, schema)
    return EmbeddedObject(found)


def check_field(name: Any, cls: ObjectSchema) -> Property:
    """Give a property of a class.

    Raises
    ------
    WriteError
        If there is none of that name.
    """
    prop = cls.properties.get(name)
    if prop is None:
        raise WriteError(f"{cls.name} has no property {name!r}.", hint=f"It has {', '.join(cls.properties)}.")
    return prop


_ZERO: Final[dict[PropertyType, Any]] = {
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


def default_value(prop: Property, schema: Schema) -> Any:
    """Give what a new object holds: null where that is allowed, else zero or empty."""
    if prop.collection is Collection.LIST:
        return []
    if prop.collection is Collection.SET:
        return RealmSet()
    if prop.collection is Collection.DICTIONARY:
        return {}
    if prop.optional or prop.type in (PropertyType.OBJECT, PropertyType.MIXED):
        return None
    return _ZERO[prop.type]
