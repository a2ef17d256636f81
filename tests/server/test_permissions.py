"""Partitions by name, and what rules do to what is read and written."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddInteger, AddTable, CreateObject, EraseObject
from realmframe.errors import ProtocolError
from realmframe.model import ObjectId, PropertyType
from realmframe.server import Permissions
from realmframe.server.partitions import partition_of
from realmframe.server.permissions import classes_of, has_data, split

OID = ObjectId(bytes.fromhex("0123456789abcdef01234567"))


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (('"text"', ' "text" '), "text"),
        (('""',), ""),
        (('{"$numberLong": "5"}', '{"$numberLong":"5"}', '{"$numberInt":"5"}', "5"), 5),
        (('{"$numberLong": "-9223372036854775808"}',), -(1 << 63)),
        (('{"$oid": "0123456789abcdef01234567"}', '{"$oid":"0123456789abcdef01234567"}'), OID),
        (
            (
                '{"$binary": {"base64": "ABEiM0RVZneImaq7zN3u/w==", "subType": "04"}}',
                '{"$binary":{"base64":"ABEiM0RVZneImaq7zN3u/w==","subType":"04"}}',
                '{"$uuid": "00112233-4455-6677-8899-aabbccddeeff"}',
            ),
            uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
        ),
        (("null", ""), None),
    ],
    ids=["string", "empty", "int", "smallest", "objectId", "uuid", "null"],
)
def test_one_partition_has_one_name(texts: tuple[str, ...], value: Any) -> None:
    """However an SDK writes a value, it is one realm, named as the SDKs of today write it."""
    found = [partition_of(text) for text in texts]
    assert [v for v, _ in found] == [value] * len(texts)
    assert {name for _, name in found} == {texts[0] or "null"}


@pytest.mark.parametrize("text", ["{", "true", "1.5", "[]", '{"a": 1}', '{"$oid": "x"}', '{"$numberLong": "1e5"}'])
def test_what_is_no_partition(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ProtocolError):
        partition_of(text)


def test_a_rule_that_raises_says_no() -> None:
    """A mistake in a rule opens nothing."""
    rules = Permissions(can_read=lambda user, partition: partition[user], can_write=lambda _u, _p: True)
    assert not rules.may_read("u", None)
    assert rules.may_write("u", None)
    assert rules.readable("u", {"Dog": "x"}) == {"Dog": "x"}


def test_split() -> None:
    """A changeset is parted by class; its schema stays together."""
    dogs = [CreateObject("Dog", 1), AddInteger("Dog", 1, "age", (), 1), EraseObject("Dog", 2)]
    cats = [CreateObject("Cat", 1)]
    schema = [AddTable("Dog", pk_field="_id", pk_type=PropertyType.INT), AddTable("Cat")]
    whole = Changeset.from_instructions([*schema, dogs[0], *cats, *dogs[1:]])
    classes = classes_of(whole)
    assert set(classes) == {"Dog", "Cat"}
    rest, taken = split(whole, [classes["Dog"]])
    assert list(rest.instructions()) == [*schema, *cats]
    assert list(taken.instructions()) == dogs
    assert has_data(whole)
    assert not has_data(Changeset.from_instructions(schema))
