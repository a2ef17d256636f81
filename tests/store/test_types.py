"""Model values become Arrow arrays and come back with every bit."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.model import (
    ClassKind,
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
from realmframe.store.arrays import arrow_to_model, keys_to_arrow, keys_to_list, model_to_arrow
from realmframe.store.mixed import decode_value, encode_value
from realmframe.store.types import WIDE_DATE, arrow_type

_WORD = st.integers(0, (1 << 64) - 1)
_DOUBLES = _WORD.map(lambda n: float(np.uint64(n).view(np.float64)))
_FLOATS = st.integers(0, (1 << 32) - 1).map(lambda n: np.uint32(n).view(np.float32))
_YEAR_1, _YEAR_9999 = -62_135_596_800, 253_402_300_799
_TEXTS = st.binary(max_size=12).map(lambda b: b.decode("utf-8", "surrogateescape"))
_SCALARS: dict[PropertyType, st.SearchStrategy[Any]] = {
    PropertyType.INT: st.integers(-(1 << 63), (1 << 63) - 1),
    PropertyType.BOOL: st.booleans(),
    PropertyType.STRING: _TEXTS,
    PropertyType.DATA: st.binary(max_size=12),
    PropertyType.DATE: st.one_of(
        st.integers(0, (1 << 62)).map(Timestamp.from_nanoseconds),
        st.sampled_from([Timestamp(_YEAR_1, 0), Timestamp(_YEAR_9999, 999_999_999), Timestamp(-1, -1)]),
    ),
    PropertyType.FLOAT: _FLOATS,
    PropertyType.DOUBLE: _DOUBLES,
    PropertyType.DECIMAL128: st.builds(Decimal128, _WORD, _WORD),
    PropertyType.OBJECT_ID: st.binary(min_size=12, max_size=12).map(ObjectId),
    PropertyType.UUID: st.uuids(),
}
_LEAVES = st.one_of(st.none(), *_SCALARS.values(), st.builds(Link, st.just("A"), _SCALARS[PropertyType.INT]))
_MIXED = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=6
)
_SCALARS[PropertyType.MIXED] = _MIXED


def _bits(value: Any) -> bytes:
    """Every bit of a value, so that not-a-numbers and zeros can be compared."""
    return encode_value(value)


@pytest.mark.parametrize("collection", list(Collection), ids=lambda c: c.name)
@pytest.mark.parametrize("kind", list(_SCALARS), ids=lambda k: k.name)
@settings(max_examples=15)
@given(data=st.data())
def test_every_type_and_collection_comes_back(kind: PropertyType, collection: Collection, data: st.DataObject) -> None:
    """Values of every type survive as a column, alone and in collections, with nulls and without rows."""
    prop = Property("f", kind, True, collection)
    one = st.none() | _SCALARS[kind]
    if collection is Collection.DICTIONARY:
        one = st.dictionaries(_TEXTS, one, max_size=3)
    elif collection is not Collection.SINGLE:
        one = st.lists(one, max_size=3).map(RealmSet if collection is Collection.SET else list)
    values = data.draw(st.lists(one, max_size=5))
    array = model_to_arrow(values, prop, Schema())
    assert array.type in (arrow_type(prop, Schema()), WIDE_DATE)
    assert [_bits(v) for v in arrow_to_model(array, prop, Schema())] == [_bits(v) for v in values]
    part = arrow_to_model(array.slice(1), prop, Schema())
    assert [_bits(v) for v in part] == [_bits(v) for v in values[1:]]


EXTREMES: list[tuple[PropertyType, list[Any]]] = [
    (PropertyType.INT, [-(1 << 63), (1 << 63) - 1, None]),
    (PropertyType.DOUBLE, [-0.0, float(np.uint64(0x7FF4000000000001).view(np.float64)), float("inf"), None]),
    (PropertyType.FLOAT, [np.float32(-0.0), np.uint32(0x7FA00001).view(np.float32), None]),
    (PropertyType.DATE, [Timestamp(_YEAR_1, 0), Timestamp(_YEAR_9999, 999_999_999), Timestamp(0, 1), None]),
    (PropertyType.STRING, ["", "\udcff\udc80", "\0", None]),
    (PropertyType.DATA, [b"", b"\0\xff", None]),
    (PropertyType.UUID, [uuid.UUID(int=0), uuid.UUID(int=(1 << 128) - 1), None]),
]


@pytest.mark.parametrize(("kind", "values"), EXTREMES, ids=lambda v: getattr(v, "name", ""))
def test_extremes_come_back(kind: PropertyType, values: list[Any]) -> None:
    """The limits of every type keep every bit."""
    prop = Property("f", kind, True)
    back = arrow_to_model(model_to_arrow(values, prop, Schema()), prop, Schema())
    assert [_bits(v) for v in back] == [_bits(v) for v in values]


@given(value=_MIXED)
@settings(max_examples=100)
def test_mixed_bytes_come_back(value: Any) -> None:
    """What a mixed value was written as reads as the same value."""
    assert _bits(decode_value(_bits(value))) == _bits(value)


def test_nested_embedded_objects_and_links_come_back() -> None:
    """Embedded objects in embedded objects, links of both sorts and keys without primary key survive."""
    leaf = ObjectSchema("Leaf", {"n": Property("n", PropertyType.INT, True)}, None, ClassKind.EMBEDDED)
    inner = {
        "leaf": Property("leaf", PropertyType.OBJECT, True, Collection.SINGLE, "Leaf"),
        "leaves": Property("leaves", PropertyType.OBJECT, False, Collection.LIST, "Leaf"),
        "to": Property("to", PropertyType.OBJECT, True, Collection.SINGLE, "Free"),
    }
    free = ObjectSchema("Free", {}, None, ClassKind.TOPLEVEL)
    schema = Schema([leaf, ObjectSchema("Emb", inner, None, ClassKind.EMBEDDED), free])
    prop = Property("e", PropertyType.OBJECT, True, Collection.SINGLE, "Emb")
    key = GlobalKey((1 << 64) - 1, 7)
    nine = EmbeddedObject({"n": 9})
    full = EmbeddedObject({"leaf": nine, "leaves": [nine, EmbeddedObject({"n": None})], "to": Link("Free", key)})
    values = [full, None, EmbeddedObject({"leaf": None, "leaves": [], "to": None})]
    assert arrow_to_model(model_to_arrow(values, prop, schema), prop, schema) == values
    assert keys_to_list(keys_to_arrow([key], None), None) == [key]
