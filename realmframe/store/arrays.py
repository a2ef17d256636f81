"""Model values to Arrow arrays and back, exactly."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
from realmframe.store.coercion import coerce, default_value
from realmframe.store.mixed import decode_value, encode_value

_NS_MIN, _NS_MAX = -(1 << 63), (1 << 63) - 1


# ---------------------------------------------------------------------------------------------- values to arrays


def _mask(values: Sequence[Any]) -> Any:
    return np.fromiter((v is None for v in values), np.bool_, len(values))


def _strings(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        raw = pa.array([None if v is None else v.encode("utf-8", "surrogateescape") for v in values], pa.binary())
        return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)


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
        single = inner.collection is Collection.SINGLE
        columns.append(_inner(filled, inner, schema) if single else model_to_arrow(filled, inner, schema))
        fields.append(pa.field(name, columns[-1].type))
    missing = _mask(values)
    mask = pa.array(missing) if missing.any() else None
    return pa.StructArray.from_arrays(columns, fields=fields, mask=mask)


def one_array(column: Any, prop: Property, schema: Schema) -> pa.Array:
    """Give a column of a property as one array (Arrow itself cannot join no chunks of a nested extension type)."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 0:
        return model_to_arrow([], prop, schema)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


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
