"""The words for types: what a property may hold, with the codes that the protocol uses for them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class PropertyType(IntEnum):
    """Type of a property; the number is the protocol's type code (``MIXED`` travels as Null, 0)."""

    MIXED = 0
    INT = 1
    BOOL = 2
    STRING = 3
    DATA = 4
    DATE = 5
    FLOAT = 6
    DOUBLE = 7
    DECIMAL128 = 8
    OBJECT = 9  # a link, or an embedded object
    OBJECT_ID = 10
    UUID = 11


class Collection(IntEnum):
    """Whether a property holds one value or many; the number is the protocol's."""

    SINGLE = 0
    LIST = 1
    DICTIONARY = 2
    SET = 3


class ClassKind(IntEnum):
    """What kind of class; the number is the protocol's."""

    TOPLEVEL = 0
    EMBEDDED = 1
    ASYMMETRIC = 2


class PayloadType(IntEnum):
    """Type code of a value inside a changeset (a superset of :class:`PropertyType`)."""

    SET = -6
    LIST = -5
    ERASED = -4
    DICTIONARY = -3
    OBJECT_VALUE = -2
    GLOBAL_KEY = -1
    NULL = 0
    INT = 1
    BOOL = 2
    STRING = 3
    BINARY = 4
    TIMESTAMP = 5
    FLOAT = 6
    DOUBLE = 7
    DECIMAL = 8
    LINK = 9
    OBJECT_ID = 10
    UUID = 11


#: The SDK's words for property types, as they stand in a schema.
TYPE_WORDS: Final[dict[str, PropertyType]] = {
    "int": PropertyType.INT,
    "bool": PropertyType.BOOL,
    "string": PropertyType.STRING,
    "data": PropertyType.DATA,
    "date": PropertyType.DATE,
    "float": PropertyType.FLOAT,
    "double": PropertyType.DOUBLE,
    "decimal128": PropertyType.DECIMAL128,
    "objectId": PropertyType.OBJECT_ID,
    "uuid": PropertyType.UUID,
    "mixed": PropertyType.MIXED,
}

TYPE_NAMES: Final[dict[PropertyType, str]] = {v: k for k, v in TYPE_WORDS.items()}

#: Suffixes of the short form of a property.
COLLECTION_SUFFIXES: Final[dict[str, Collection]] = {
    "[]": Collection.LIST,
    "<>": Collection.SET,
    "{}": Collection.DICTIONARY,
}
