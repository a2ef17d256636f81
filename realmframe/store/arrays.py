"""Model values to Arrow arrays and back, exactly."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.errors import WriteError
from realmframe.model import (
    Collection,
    Decimal128,
    EmbeddedObject,
    GlobalKey,
    Link,
    ObjectId,
    Property,
    PropertyType,
    RealmSet,
    Schema,
    Timestamp,
)
from realmframe.store import types as t
from realmframe.store.mixed import encode_value

_NS_MIN, _NS_MAX = -(1 << 63), (1 << 63) - 1
_INT_MIN, _INT_MAX = _NS_MIN, _NS_MAX


def _reject(value: Any, word: str) -> WriteError:
    return WriteError(f"{value!r} is no {word}.")


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        else:
            raise _reject(value, "int")
    if not _INT_MIN <= value <= _INT_MAX:
        raise WriteError(f"{value} does not fit an int of 64 bits.")
    return int(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _reject(value, "bool")
    return bool(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _reject(value, "string")
    return value


def _data(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _reject(value, "data (bytes)")
    return bytes(value)


def _date(value: Any) -> Timestamp:
    if isinstance(value, Timestamp):
        return value
    if isinstance(value, dt.datetime):
        return Timestamp.from_datetime(value)
    if isinstance(value, np.datetime64):
        return Timestamp.from_nanoseconds(int(value.astype("datetime64[ns]").astype(np.int64)))
    if isinstance(value, dict) and value.keys() == {"seconds", "nanoseconds"}:
        return Timestamp(value["seconds"], value["nanoseconds"])
    raise _reject(value, "date")


def _float(value: Any) -> np.float32:
    if isinstance(value, np.float32):
        return value
    return np.float32(_double(value))


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, float | int | np.floating | np.integer):
        raise _reject(value, "number")
    return float(value)


def _decimal(value: Any) -> Decimal128:
    if isinstance(value, Decimal128):
        return value
    if isinstance(value, decimal.Decimal | int | str) and not isinstance(value, bool):
        try:
            return Decimal128.from_decimal(value)
        except decimal.InvalidOperation:
            raise _reject(value, "decimal128") from None
    raise _reject(value, "decimal128")


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
    raise _reject(value, "objectId")


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
    raise _reject(value, "uuid")


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


def coerce_mixed(value: Any) -> Any:
    """Take what users write for a Mixed value."""
    if isinstance(value, list | tuple):
        return [coerce_mixed(v) for v in value]
    if isinstance(value, dict):
        return {str(k): coerce_mixed(v) for k, v in value.items()}
    if isinstance(value, dt.datetime):
        return Timestamp.from_datetime(value)
    if isinstance(value, decimal.Decimal):
        return Decimal128.from_decimal(value)
    if isinstance(value, np.generic) and not isinstance(value, np.float32):
        return value.item()
    if value.__class__.__name__ == "ObjectId" and not isinstance(value, ObjectId):
        return _object_id(value)
    encode_value(value)  # raises for what a realm cannot hold
    return value


def coerce(value: Any, prop: Property, schema: Schema) -> Any:
    """Take what users write for a property and give the model value.

    Raises
    ------
    WriteError
        If the type cannot hold the value.
    """
    if prop.collection is Collection.SINGLE:
        return coerce_element(value, prop, schema)
    if prop.collection is Collection.DICTIONARY:
        pairs = dict(value) if value is not None else {}
        return {str(k): coerce_element(v, prop, schema) for k, v in pairs.items()}
    if value is None:
        return RealmSet() if prop.collection is Collection.SET else []
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise _reject(value, prop.collection.name.lower())
    items = [coerce_element(v, prop, schema) for v in value]
    if prop.collection is Collection.SET:
        kept: list[Any] = []
        for item in items:
            if item not in kept:
                kept.append(item)
        return RealmSet(kept)
    return items


def coerce_element(value: Any, prop: Property, schema: Schema) -> Any:
    """Take one value of a property, whatever its collection."""
    if value is None:
        return None
    if prop.type is PropertyType.MIXED:
        return coerce_mixed(value)
    if prop.type is not PropertyType.OBJECT:
        return COERCE[prop.type](value)
    target = schema[prop.target or ""]
    if target.embedded:
        return _coerce_embedded(value, target, schema)
    if isinstance(value, Link):
        return value
    key = target.key_property
    if key is None:
        if isinstance(value, GlobalKey):
            return Link(target.name, value)
        raise _reject(value, f"link to {target.name}")
    if isinstance(value, dict):
        value = value.get(key.name)
    return Link(target.name, COERCE[key.type](value))


def _coerce_embedded(value: Any, target: Any, schema: Schema) -> EmbeddedObject:
    if not isinstance(value, dict):
        raise _reject(value, f"embedded {target.name} (a dict)")
    unknown = value.keys() - target.properties.keys()
    if unknown:
        raise WriteError(f"{target.name} has no property {sorted(unknown)[0]!r}.")
    found = {}
    for name, prop in target.properties.items():
        found[name] = coerce(value[name], prop, schema) if name in value else default_value(prop, schema)
    return EmbeddedObject(found)


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


# ---------------------------------------------------------------------------------------------- values to arrays


def _mask(values: Sequence[Any]) -> Any:
    return np.fromiter((v is None for v in values), np.bool_, len(values))


def _strings(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        raw = pa.array([None if v is None else v.encode("utf-8", "surrogateescape") for v in values], pa.binary())
        return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)


def _numbers(values: Sequence[Any], dtype: Any, word: Callable[[Any], int], view: Any, kind: pa.DataType) -> pa.Array:
    """Build numbers by their bits, so that every not-a-number survives."""
    bits = np.fromiter((0 if v is None else word(v) for v in values), dtype, len(values)).view(view)
    return pa.array(bits, kind, mask=_mask(values)) if None in values else pa.array(bits, kind)


def _floats(values: Sequence[Any]) -> pa.Array:
    bits = np.array([0 if v is None else int(v.view(np.uint32)) for v in values], np.uint32).view(np.float32)
    return _plain_array(bits, values, pa.float32())


def _doubles(values: Sequence[Any]) -> pa.Array:
    return _plain_array(np.array([0.0 if v is None else v for v in values], np.float64), values, pa.float64())


def _plain_array(data: Any, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    valid = None
    missing = _mask(values)
    if missing.any():
        valid = pa.array(~missing).buffers()[1]
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(data.tobytes())])


def _dates(values: Sequence[Timestamp | None]) -> pa.Array:
    totals = [None if v is None else v.total_nanoseconds for v in values]
    if all(n is None or _NS_MIN <= n <= _NS_MAX for n in totals) and all(v is None or _is_canonical(v) for v in values):
        return pa.array(totals, pa.int64()).cast(t.DATE)
    return wide_dates(values)


def _is_canonical(value: Timestamp) -> bool:
    return abs(value.nanoseconds) < 1_000_000_000 and value.seconds * value.nanoseconds >= 0


def wide_dates(values: Sequence[Timestamp | None]) -> pa.Array:
    """Build dates in the form that reaches everywhere."""
    forms = [None if v is None else {"seconds": v.seconds, "nanoseconds": v.nanoseconds} for v in values]
    return pa.array(forms, t.WIDE_DATE)


def _stored(kind: Any, raw: Callable[[Any], bytes]) -> Callable[[Sequence[Any]], pa.Array]:
    def build(values: Sequence[Any]) -> pa.Array:
        storage = pa.array([None if v is None else raw(v) for v in values], kind.storage_type)
        return pa.ExtensionArray.from_storage(kind, storage)

    return build


_BUILDERS: Final[dict[PropertyType, Callable[[Sequence[Any]], pa.Array]]] = {
    PropertyType.INT: lambda v: pa.array(v, pa.int64()),
    PropertyType.BOOL: lambda v: pa.array(v, pa.bool_()),
    PropertyType.STRING: _strings,
    PropertyType.DATA: lambda v: pa.array(v, pa.binary()),
    PropertyType.DATE: _dates,
    PropertyType.FLOAT: _floats,
    PropertyType.DOUBLE: _doubles,
    PropertyType.DECIMAL128: _stored(t.DECIMAL128, lambda v: v.to_bytes()),
    PropertyType.OBJECT_ID: _stored(t.OBJECT_ID, lambda v: v.binary),
    PropertyType.UUID: _stored(pa.uuid(), lambda v: v.bytes),
    PropertyType.MIXED: _stored(t.MIXED, encode_value),
}
_global_keys = _stored(t.GLOBAL_KEY, lambda v: v.hi.to_bytes(8, "big") + v.lo.to_bytes(8, "big"))
_any_values = _BUILDERS[PropertyType.MIXED]


def keys_to_arrow(keys: Sequence[Any], prop: Property | None) -> pa.Array:
    """Build a column of keys."""
    return _global_keys(keys) if prop is None else _BUILDERS[prop.type](keys)


def model_to_arrow(values: Sequence[Any], prop: Property, schema: Schema) -> pa.Array:
    """Build a column out of model values."""
    if prop.collection is Collection.SINGLE:
        return _elements(values, prop, schema)
    sizes = [0 if v is None else len(v) for v in values]
    offsets = pa.array(np.cumsum([0, *sizes], dtype=np.int32))
    if prop.collection is Collection.DICTIONARY:
        keys = _strings([k for v in values for k in (v or ())])
        items = _inner([x for v in values for x in (v or {}).values()], prop, schema)
        return pa.MapArray.from_arrays(offsets, keys, items)
    items = _inner(list(itertools.chain.from_iterable(v or () for v in values)), prop, schema)
    return pa.ListArray.from_arrays(offsets, items)


def _inner(values: Sequence[Any], prop: Property, schema: Schema) -> pa.Array:
    return wide_dates(values) if prop.type is PropertyType.DATE else _elements(values, prop, schema)


def _elements(values: Sequence[Any], prop: Property, schema: Schema) -> pa.Array:
    if prop.type is not PropertyType.OBJECT:
        return _BUILDERS[prop.type](values)
    if t.is_plain_link(prop, schema):
        keys = [None if v is None else v.key for v in values]
        return keys_to_arrow(keys, schema[prop.target or ""].key_property)
    kind = t.element_type(prop, schema)
    if kind == t.MIXED:
        return _any_values(values)
    target = schema[prop.target or ""]
    columns, fields = [], []
    for name, inner in target.properties.items():
        filled = [default_value(inner, schema) if v is None else v[name] for v in values]
        column = model_to_arrow(filled, inner, schema)
        columns.append(column)
        fields.append(pa.field(name, columns[-1].type))
    mask = pa.array(_mask(values)) if None in values else None
    if not columns:
        return _any_values(values)
    return pa.StructArray.from_arrays(columns, fields=fields, mask=mask)


def values_to_arrow(values: Sequence[Any], prop: Property, schema: Schema) -> pa.Array:
    """Build a column out of what users write; see :func:`coerce`."""
    return model_to_arrow([coerce(v, prop, schema) for v in values], prop, schema)


# ---------------------------------------------------------------------------------------------- arrays to values


def _string_list(array: pa.Array) -> list[str | None]:
    try:
        found: list[str | None] = array.to_pylist()
        return found
    except UnicodeDecodeError:
        raw = pa.Array.from_buffers(pa.binary(), len(array), array.buffers(), array.null_count, array.offset)
        return [None if v is None else v.decode("utf-8", "surrogateescape") for v in raw.to_pylist()]


def _date_list(array: pa.Array) -> list[Timestamp | None]:
    if pa.types.is_struct(array.type):
        return [None if v is None else Timestamp(v["seconds"], v["nanoseconds"]) for v in array.to_pylist()]
    totals = array.cast(pa.int64()).to_pylist()
    return [None if n is None else Timestamp.from_nanoseconds(n) for n in totals]


def _float_list(array: pa.Array) -> list[np.float32 | None]:
    data = array.to_numpy(zero_copy_only=False) if not array.null_count else pc.fill_null(array, 0).to_numpy()
    valid = array.is_valid().to_pylist()
    return [v if ok else None for v, ok in zip(data, valid, strict=True)]


def _storage_list(build: Callable[[bytes], Any]) -> Callable[[pa.Array], list[Any]]:
    return lambda array: [None if v is None else build(v) for v in _storage(array).to_pylist()]


def _storage(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _mixed_list(array: pa.Array) -> list[Any]:
    from realmframe.store.mixed import decode_value

    return [None if v is None else decode_value(v) for v in _storage(array).to_pylist()]


_LISTERS: Final[dict[PropertyType, Callable[[pa.Array], list[Any]]]] = {
    PropertyType.INT: lambda a: a.to_pylist(),
    PropertyType.BOOL: lambda a: a.to_pylist(),
    PropertyType.STRING: _string_list,
    PropertyType.DATA: lambda a: a.to_pylist(),
    PropertyType.DATE: _date_list,
    PropertyType.FLOAT: _float_list,
    PropertyType.DOUBLE: lambda a: a.to_pylist(),
    PropertyType.DECIMAL128: _storage_list(Decimal128.from_bytes),
    PropertyType.OBJECT_ID: _storage_list(ObjectId),
    PropertyType.UUID: _storage_list(lambda b: uuid.UUID(bytes=b)),
    PropertyType.MIXED: _mixed_list,
}
_global_key_list = _storage_list(lambda b: GlobalKey(int.from_bytes(b[:8], "big"), int.from_bytes(b[8:], "big")))


def keys_to_list(array: pa.Array, prop: Property | None) -> list[Any]:
    """Read a column of keys."""
    return _global_key_list(array) if prop is None else _LISTERS[prop.type](array)


def arrow_to_model(array: pa.Array, prop: Property, schema: Schema) -> list[Any]:
    """Read a column as model values."""
    if prop.collection is Collection.SINGLE:
        return _element_list(array, prop, schema)
    offsets = array.offsets.to_pylist()
    first, last = offsets[0], offsets[-1]
    if prop.collection is Collection.DICTIONARY:
        keys = _string_list(array.keys.slice(first, last - first))
        items = _element_list(array.items.slice(first, last - first), prop, schema)
        pairs = list(zip(keys, items, strict=True))
        return [dict(pairs[a - first : b - first]) for a, b in itertools.pairwise(offsets)]
    items = _element_list(array.values.slice(first, last - first), prop, schema)
    kind = RealmSet if prop.collection is Collection.SET else list
    return [kind(items[a - first : b - first]) for a, b in itertools.pairwise(offsets)]


def _element_list(array: pa.Array, prop: Property, schema: Schema) -> list[Any]:
    if prop.type is not PropertyType.OBJECT:
        return _LISTERS[prop.type](array)
    if isinstance(array.type, t.MixedType):
        return _mixed_list(array)
    target = schema[prop.target or ""]
    if not target.embedded:
        keys = keys_to_list(array, target.key_property)
        return [None if k is None else Link(target.name, k) for k in keys]
    columns = {n: arrow_to_model(_field(array, n), p, schema) for n, p in target.properties.items()}
    names = list(columns)
    valid = array.is_valid().to_pylist()
    rows = zip(*columns.values(), strict=True)
    return [EmbeddedObject(zip(names, row, strict=True)) if ok else None for row, ok in zip(rows, valid, strict=True)]


def _field(array: pa.Array, name: str) -> pa.Array:
    return array.field(name)
