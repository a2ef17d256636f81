"""Floor 0: what a realm is made of — types, values and schemas."""

from realmframe.model.schema import ObjectSchema, Property, Schema
from realmframe.model.types import ClassKind, Collection, PayloadType, PropertyType
from realmframe.model.values import (
    Decimal128,
    EmbeddedObject,
    GlobalKey,
    Key,
    Link,
    Marker,
    ObjectId,
    Payload,
    RealmSet,
    Timestamp,
    decimal_of_float,
)

__all__ = [
    "ClassKind",
    "Collection",
    "Decimal128",
    "EmbeddedObject",
    "GlobalKey",
    "Key",
    "Link",
    "Marker",
    "ObjectId",
    "ObjectSchema",
    "Payload",
    "PayloadType",
    "Property",
    "PropertyType",
    "RealmSet",
    "Schema",
    "Timestamp",
    "decimal_of_float",
]
