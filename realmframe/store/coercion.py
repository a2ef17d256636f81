"""What users write for a property, turned into the model value that its type holds exactly, or refused.

A refusal says where below the property the value stands (``[2]``, ``["key"]``, ``.field``), what was wrong and what to
write; the caller knows class, property and record, and puts them before it.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

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

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_BILLION: Final = 1_000_000_000
#: The longest string and the longest data that the SDKs store, in bytes.
MAX_STRING_BYTES: Final = 0xFFFFF8 - 9
MAX_DATA_BYTES: Final = 0xFFFFF8 - 8
#: How deep the SDKs nest lists and dictionaries in a Mixed value.
MAX_MIXED_DEPTH: Final = 100


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"


def _reject(value: Any, word: str, hint: str | None = None) -> NoReturn:
    raise WriteError(f"{_shown(value)} is no {word}.", hint=hint)


def _int(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        if not (isinstance(value, float) and value.is_integer()):
            _reject(value, "int", "Write a whole number.")
        value = int(value)
    if not _INT_MIN <= value <= _INT_MAX:
        raise WriteError(f"{value} does not fit an int of 64 bits.")
    return int(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        _reject(value, "bool", "Write True or False.")
    return bool(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        _reject(value, "string", "Write a str.")
    if len(value) > MAX_STRING_BYTES // 4 or not value.isascii():
        try:
            size = len(value.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as fault:
            raise WriteError(
                f"{_shown(value)} is no text: half a surrogate pair stands at {fault.start}.",
                hint="Join the pair to one character, or drop it.",
            ) from None
        check_size(size, MAX_STRING_BYTES, "string")
    return value


def _data(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        _reject(value, "data", "Write bytes.")
    check_size(memoryview(value).nbytes, MAX_DATA_BYTES, "data")
    return bytes(value)


def check_size(size: int, limit: int, word: str) -> None:
    """Refuse text or data that the SDKs cannot store.

    Raises
    ------
    WriteError
    """
    if size > limit:
        raise WriteError(
            f"A {word} of {size:,} bytes is too long: the SDKs store {limit:,} at most.",
            hint="Cut it up, or keep it in a file of its own.",
        )


def _date(value: Any) -> Timestamp:
    if isinstance(value, Mapping) and value.keys() == {"seconds", "nanoseconds"}:
        value = Timestamp(value["seconds"], value["nanoseconds"])
    if isinstance(value, Timestamp):
        seconds, nanos = value
        if not (_INT_MIN <= seconds <= _INT_MAX and -_BILLION < nanos < _BILLION and seconds * nanos >= 0):
            _reject(value, "date", "Nanoseconds have the sign of the seconds and stay below 10**9.")
        return value
    if isinstance(value, dt.datetime):
        return Timestamp.from_datetime(value)
    if isinstance(value, np.datetime64):
        return _numpy_date(value)
    return _reject(value, "date", "Write a datetime, a pandas.Timestamp or a realmframe.Timestamp.")


def _numpy_date(value: np.datetime64) -> Timestamp:
    """Convert exactly, whatever the unit: numpy itself would wrap around at the ends of nanoseconds."""
    unit = np.datetime_data(value.dtype)[0]
    fraction = {"ms": 10**6, "us": 10**3, "ns": 1}.get(unit)
    if np.isnat(value) or unit in ("ps", "fs", "as", "generic"):
        _reject(value, "date", "Write it in nanoseconds or coarser.")
    if fraction is not None:
        return Timestamp.from_nanoseconds(int(value.astype(f"datetime64[{unit}]").astype(np.int64)) * fraction)
    return Timestamp(int(value.astype("datetime64[s]").astype(np.int64)), 0)


def _float(value: Any) -> np.float32:
    if isinstance(value, np.float32):
        return value
    wide = _double(value)
    try:
        return np.float32(struct.unpack("<f", struct.pack("<f", wide))[0])
    except OverflowError:
        raise WriteError(f"{wide!r} does not fit a float of 32 bits.", hint="Make the property a double.") from None


def _double(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, float | int | np.floating | np.integer):
        _reject(value, "number")
    if isinstance(value, int | np.integer) and abs(int(value)) > 1 << 53 and int(float(value)) != int(value):
        raise WriteError(f"{value} has more digits than a double holds.", hint="Write float(...) to round it.")
    return float(value)


def _decimal(value: Any) -> Decimal128:
    if isinstance(value, Decimal128):
        return value
    if isinstance(value, decimal.Decimal | int | str | np.integer) and not isinstance(value, bool):
        try:
            return Decimal128.from_decimal(int(value) if isinstance(value, np.integer) else value)
        except decimal.Overflow:
            raise WriteError(f"{_shown(value)} is too large for a decimal128 (9.99...E+6144).") from None
        except decimal.DecimalException:
            pass
    return _reject(value, "decimal128", "Write a decimal.Decimal, an int, or digits as a str.")


def _object_id(value: Any) -> ObjectId:
    if isinstance(value, ObjectId):
        return value
    if isinstance(value, str):
        return ObjectId.parse(value)
    if isinstance(value, bytes):
        return ObjectId(value)
    binary = getattr(value, "binary", None)
    if isinstance(binary, bytes):
        return ObjectId(binary)  # bson's own class
    return _reject(value, "objectId", "Write a realmframe.ObjectId or 24 hexadecimal digits.")


def _uuid(value: Any) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    try:
        if isinstance(value, str):
            return uuid.UUID(value)
        if isinstance(value, bytes):
            return uuid.UUID(bytes=value)
    except ValueError:
        pass
    return _reject(value, "uuid", "Write a uuid.UUID or its text.")


#: Takes what users write for a type and gives the model value.
COERCE: Final[dict[PropertyType, Callable[[Any], Any]]] = {
    PropertyType.INT: _int,
    PropertyType.BOOL: _bool,
    PropertyType.STRING: _string,
    PropertyType.DATA: _data,
    PropertyType.DATE: _date,
    PropertyType.FLOAT: _float,
    PropertyType.DOUBLE: _double,
    PropertyType.DECIMAL128: _decimal,
    PropertyType.OBJECT_ID: _object_id,
    PropertyType.UUID: _uuid,
}

#: What a Mixed value may be, beside lists, dictionaries and links: the first that fits.
_MIXED: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (bool | np.bool_, _bool),
    (int | np.integer, _int),
    (np.float32, _float),
    (float | np.floating, _double),
    (str, _string),
    (bytes | bytearray | memoryview, _data),
    (Timestamp | dt.datetime | np.datetime64, _date),
    (Decimal128 | decimal.Decimal, _decimal),
    (uuid.UUID, _uuid),
    (ObjectId, _object_id),
)


def dictionary_key(key: Any) -> str:
    """Check a key of a dictionary.

    Raises
    ------
    WriteError
        If it is no string, begins with ``$`` or holds a dot: the SDKs refuse these.
    """
    if not isinstance(key, str):
        _reject(key, "key of a dictionary", "Keys are strings.")
    if key.startswith("$") or "." in key:
        _reject(key, "key of a dictionary", "The SDKs refuse keys that begin with $ or hold a dot.")
    return _string(key)


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
        return _object_id(value)
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
        _reject(value, "link", f"Link to one of {', '.join(c.name for c in schema.values() if not c.embedded)}.")
    return _link(value, target)


def _link(value: Any, target: ObjectSchema) -> Link:
    """Take a link, the key that it holds, or a dict with that key."""
    key = target.key_property
    if isinstance(value, Link):
        if value.table != target.name:
            _reject(value, f"link to {target.name}", f"Links of this property go to {target.name}.")
        value = value.key
    elif isinstance(value, Mapping) and key is not None:
        if key.name not in value:
            _reject(value, f"link to {target.name}", f"Write the {key.name} of an object.")
        value = value[key.name]
    if key is None:
        if not isinstance(value, GlobalKey):
            _reject(value, f"link to {target.name}", f"{target.name} has no primary key: give the GlobalKey.")
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
        _reject(value, kind, "Write a list of its elements.")
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
            _reject(value, "dictionary", "Write a dict with strings as keys.")
        value = dict(pairs)
        if len(value) != len(pairs):
            _reject(pairs, "dictionary", "A key stands twice.")
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
        _reject(value, f"embedded {target.name}", "Write a dict of its fields.")
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
