"""The words of a schema: short and long forms, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from realmframe.errors import SchemaError
from realmframe.model import ClassKind, Collection, ObjectSchema, Property, PropertyType, Schema

T, C = PropertyType, Collection
FORMS: list[tuple[Any, Property]] = [
    ("int", Property("p", T.INT)),
    ("string?", Property("p", T.STRING, optional=True)),
    ("double[]", Property("p", T.DOUBLE, collection=C.LIST)),
    ("uuid?<>", Property("p", T.UUID, optional=True, collection=C.SET)),
    ("mixed{}", Property("p", T.MIXED, optional=True, collection=C.DICTIONARY)),
    ("mixed", Property("p", T.MIXED, optional=True)),
    ("Dog", Property("p", T.OBJECT, optional=True, target="Dog")),
    ("Dog[]", Property("p", T.OBJECT, collection=C.LIST, target="Dog")),
    ("Dog{}", Property("p", T.OBJECT, optional=True, collection=C.DICTIONARY, target="Dog")),
    ({"type": "int", "optional": True}, Property("p", T.INT, optional=True)),
    ({"type": "list", "objectType": "Dog"}, Property("p", T.OBJECT, collection=C.LIST, target="Dog")),
    ({"type": "object", "objectType": "Dog"}, Property("p", T.OBJECT, optional=True, target="Dog")),
    ({"type": "set", "objectType": "int", "optional": True}, Property("p", T.INT, optional=True, collection=C.SET)),
]


@pytest.mark.parametrize(("form", "wanted"), FORMS)
def test_forms(form: Any, wanted: Property) -> None:
    """Each form is understood, and its own short form means the same."""
    assert Property.parse("p", form) == wanted
    assert Property.parse("p", wanted.word) == wanted


@pytest.mark.parametrize("form", ["", "int??", "int[", "[]", "int [] []", {"type": "object"}])
def test_no_forms(form: Any) -> None:
    """What cannot be read names the property."""
    with pytest.raises(SchemaError, match="'p'"):
        Property.parse("p", form)


def test_sdk_form_round_trip() -> None:
    """The SDK's object forms give the same schema again."""
    schema = Schema(
        [
            ObjectSchema("Person", {"_id": "objectId", "dogs": "Dog[]", "home": "Address"}, "_id"),
            ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id"),
            ObjectSchema("Address", {"street": "string"}, kind=ClassKind.EMBEDDED),
            ObjectSchema("Event", {"_id": "uuid", "what": "mixed"}, "_id", ClassKind.ASYMMETRIC),
        ]
    )
    schema.validate()
    assert dict(Schema(schema.to_list())) == dict(schema)


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([ObjectSchema("A", {"_id": "int", "b": "B"}, "_id")], "no class of the schema"),
        ([ObjectSchema("x" * 100, {"_id": "int"}, "_id")], "Class name"),
        ([ObjectSchema("A", {"_id": "int", "y" * 100: "int"}, "_id")], "property name"),
        ([ObjectSchema("E", {"_id": "int"}, "_id", ClassKind.EMBEDDED)], "cannot have a primary key"),
        (
            [ObjectSchema("A", {"_id": "int", "e": "E<>"}, "_id"), ObjectSchema("E", {}, kind=ClassKind.EMBEDDED)],
            "set cannot hold",
        ),
    ],
)
def test_contradictions(classes: list[ObjectSchema], text: str) -> None:
    """A schema that cannot be is refused with the class and property at fault."""
    with pytest.raises(SchemaError, match=text):
        Schema(classes).validate()


@pytest.mark.parametrize("key", ["double", "int[]", "Dog", "mixed"])
def test_primary_key_types(key: str) -> None:
    """Only ints, strings, objectIds and uuids are keys."""
    with pytest.raises(SchemaError, match="primary key"):
        ObjectSchema("A", {"_id": key}, "_id")


def test_missing_primary_key() -> None:
    """A key has to be a property."""
    with pytest.raises(SchemaError, match="not among its properties"):
        ObjectSchema("A", {"n": "int"}, "_id")
