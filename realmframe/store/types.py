"""Realm types as Arrow types: two dictionaries and the exceptions.

Scalars have an Arrow type of their own. Collections become lists and maps, embedded objects structs. What Arrow cannot
say exactly (Mixed, classes that embed themselves, links to objects whose key may be null) travels in one extension type
over binary, ``realmframe.mixed``, which holds any value.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import pyarrow as pa

from realmframe.model import Collection, Decimal128, GlobalKey, ObjectId, Property, PropertyType, Schema
from realmframe.store.mixed import decode_value


class _MixedScalar(pa.ExtensionScalar):
    def as_py(self, **_: Any) -> Any:
        """Give the model value."""
        return None if self.value is None else decode_value(self.value.as_py())


class _ObjectIdScalar(pa.ExtensionScalar):
    def as_py(self, **_: Any) -> Any:
        """Give the model value."""
        return None if self.value is None else ObjectId(self.value.as_py())


class _Decimal128Scalar(pa.ExtensionScalar):
    def as_py(self, **_: Any) -> Any:
        """Give a ``decimal.Decimal``."""
        return None if self.value is None else Decimal128.from_bytes(self.value.as_py()).to_decimal()


class _GlobalKeyScalar(pa.ExtensionScalar):
    def as_py(self, **_: Any) -> Any:
        """Give the model value."""
        if self.value is None:
            return None
        raw = self.value.as_py()
        return GlobalKey(int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big"))


class _Extension(pa.ExtensionType):
    NAME = ""
    STORAGE: Any = None
    SCALAR: Any = None

    def __init__(self) -> None:
        super().__init__(self.STORAGE, self.NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: Any, _serialized: bytes) -> Any:
        return cls()

    def __arrow_ext_scalar_class__(self) -> Any:
        return self.SCALAR


class MixedType(_Extension):
    """Any value, in a binary form of ours."""

    NAME, STORAGE, SCALAR = "realmframe.mixed", pa.binary(), _MixedScalar


class ObjectIdType(_Extension):
    """Twelve bytes."""

    NAME, STORAGE, SCALAR = "pymongoarrow.objectid", pa.binary(12), _ObjectIdScalar


class Decimal128Type(_Extension):
    """The sixteen bytes of the pattern, least significant first."""

    NAME, STORAGE, SCALAR = "pymongoarrow.decimal128", pa.binary(16), _Decimal128Scalar


class GlobalKeyType(_Extension):
    """The key of an object without primary key: two big-endian words."""

    NAME, STORAGE, SCALAR = "realmframe.globalkey", pa.binary(16), _GlobalKeyScalar


def _register() -> None:
    for kind in (MixedType, ObjectIdType, Decimal128Type, GlobalKeyType):
        # PyMongoArrow's own type of the same name and storage is as good.
        with contextlib.suppress(pa.ArrowKeyError):
            pa.register_extension_type(kind())


_register()

MIXED: Final = MixedType()
OBJECT_ID: Final = ObjectIdType()
DECIMAL128: Final = Decimal128Type()
GLOBAL_KEY: Final = GlobalKeyType()
DATE: Final = pa.timestamp("ns", "UTC")
#: The form of a date column that holds an instant which nanoseconds since 1970 cannot reach in 64 bits.
WIDE_DATE: Final = pa.struct([("seconds", pa.int64()), ("nanoseconds", pa.int32())])

SCALARS: Final[dict[PropertyType, pa.DataType]] = {
    PropertyType.INT: pa.int64(),
    PropertyType.BOOL: pa.bool_(),
    PropertyType.STRING: pa.string(),
    PropertyType.DATA: pa.binary(),
    PropertyType.DATE: DATE,
    PropertyType.FLOAT: pa.float32(),
    PropertyType.DOUBLE: pa.float64(),
    PropertyType.DECIMAL128: DECIMAL128,
    PropertyType.OBJECT_ID: OBJECT_ID,
    PropertyType.UUID: pa.uuid(),
    PropertyType.MIXED: MIXED,
}


def key_type(prop: Property | None) -> pa.DataType:
    """Give the Arrow type of a class's keys (None: a class without primary key)."""
    return GLOBAL_KEY if prop is None else SCALARS[prop.type]


def is_scalar(prop: Property, schema: Schema) -> bool:
    """Whether a property is one value with an Arrow type of its own, such as a link to keys that cannot be null."""
    if prop.collection is not Collection.SINGLE or prop.type is PropertyType.MIXED:
        return False
    return prop.type is not PropertyType.OBJECT or is_plain_link(prop, schema)


def is_plain_link(prop: Property, schema: Schema) -> bool:
    """Whether a link can be kept as its target's key."""
    target = schema.get(prop.target or "")
    if target is None or target.embedded:
        return False
    key = target.key_property
    return key is None or not key.optional


def embeds(prop: Property, schema: Schema) -> bool:
    """Whether a property embeds objects."""
    target = schema.get(prop.target or "") if prop.type is PropertyType.OBJECT else None
    return target is not None and target.embedded


def reaches(prop: Property, name: str, schema: Schema, seen: frozenset[str] = frozenset()) -> bool:
    """Whether objects of an embedded class can be somewhere below a property."""
    if not embeds(prop, schema) or (prop.target or "") in seen:
        return False
    if prop.target == name:
        return True
    inside = seen | {prop.target or ""}
    return any(reaches(p, name, schema, inside) for p in schema[prop.target or ""].properties.values())


def _is_recursive(name: str, schema: Schema, above: frozenset[str] = frozenset()) -> bool:
    if name in above:
        return True
    cls = schema.get(name)
    if cls is None:
        return False
    inside = above | {name}
    return any(_is_recursive(p.target or "", schema, inside) for p in cls.properties.values() if embeds(p, schema))


def element_type(prop: Property, schema: Schema) -> pa.DataType:
    """Give the Arrow type of one value of a property, whatever its collection."""
    if prop.type is not PropertyType.OBJECT:
        return SCALARS[prop.type]
    if is_plain_link(prop, schema):
        return key_type(schema[prop.target or ""].key_property)
    if not embeds(prop, schema) or _is_recursive(prop.target or "", schema):
        return MIXED
    fields = [pa.field(p.name, _inner_type(p, schema)) for p in schema[prop.target or ""].properties.values()]
    return pa.struct(fields) if fields else MIXED


def _inner_type(prop: Property, schema: Schema) -> pa.DataType:
    """Give the type of a field of a struct: there a date has no other form to fall back on."""
    kind = arrow_type(prop, schema)
    return WIDE_DATE if kind == DATE else kind


def arrow_type(prop: Property, schema: Schema) -> pa.DataType:
    """Give the Arrow type of a property's column."""
    element = element_type(prop, schema)
    if prop.collection is Collection.SINGLE:
        return element
    if element == DATE:
        element = WIDE_DATE  # inside a collection there is no other form to fall back on
    if prop.collection is Collection.DICTIONARY:
        return pa.map_(pa.string(), element)
    return pa.list_(element)
