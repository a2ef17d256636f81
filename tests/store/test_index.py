"""The index of keys: found, entered, branched, and entered again after an erasure."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.model import ClassKind, GlobalKey, Key, ObjectId, Property, PropertyType
from realmframe.store import Snapshot, apply
from realmframe.store.arrays import keys_to_arrow
from realmframe.store.index import KeyIndex, arrow_words, key_words

KINDS: list[tuple[Property | None, list[Any]]] = [
    (Property("_id", PropertyType.INT), [0, -1, (1 << 63) - 1, -(1 << 63)]),
    (Property("_id", PropertyType.STRING), ["", "a", "ab", "é\udcff", "x" * 1000]),
    (Property("_id", PropertyType.UUID), [uuid.UUID(int=n) for n in (0, 1, 1 << 64, (1 << 128) - 1)]),
    (Property("_id", PropertyType.OBJECT_ID), [ObjectId(bytes([n] * 12)) for n in (0, 1, 255)]),
    (None, [GlobalKey(0, 0), GlobalKey(0, 1), GlobalKey(1, 0), GlobalKey((1 << 64) - 1, (1 << 64) - 1)]),
]


@pytest.mark.parametrize(("prop", "keys"), KINDS, ids=["int", "string", "uuid", "objectId", "globalKey"])
def test_arrow_and_python_keys_agree(prop: Property | None, keys: list[Key]) -> None:
    """Keys have the same words as a column, as a slice of one, and one by one, and all are found."""
    column = keys_to_arrow([keys[-1], *keys], prop).slice(1)
    words = key_words(keys)
    for mine, other in zip(words, arrow_words(column, prop), strict=True):
        np.testing.assert_array_equal(mine, other)
    index = KeyIndex.empty()
    index.insert(*words, np.arange(len(keys)))
    assert index.find(*words, len(keys)).tolist() == list(range(len(keys)))
    assert index.find(*key_words([None]), len(keys)).tolist() == [-1]


def test_many_keys_grow_and_branch() -> None:
    """A hundred thousand keys are found; a branch forgets what is above its limit and grows on its own."""
    index, count = KeyIndex.empty(), 100_000
    keys = np.arange(count, dtype=np.int64) * 7919
    words = keys.view(np.uint64), np.ones(count, np.uint64)
    for start in range(0, count, 9_999):
        part = slice(start, start + 9_999)
        index.insert(words[0][part], words[1][part], np.arange(count)[part])
    assert (index.find(*words, count) == np.arange(count)).all()
    assert (index.find(*words, 500)[500:] == -1).all()
    copy = index.branch(500)
    copy.insert(words[0][-1:], words[1][-1:], np.array([500]))
    assert copy.find(*words, count)[-1] == 500
    assert index.find(*words, count)[-1] == count - 1


@pytest.mark.parametrize("key", ["a", "", None])
def test_erased_and_created_again(key: Key) -> None:
    """A key that was erased and created again stands for the new row, and for none in between."""
    add = i.AddTable("A", ClassKind.TOPLEVEL, "_id", PropertyType.STRING, True)
    made = apply(Snapshot.empty(), Changeset.from_instructions([add, i.CreateObject("A", key)])).snapshot
    gone = apply(made, Changeset.from_instructions([i.EraseObject("A", key)])).snapshot
    again = apply(gone, Changeset.from_instructions([i.CreateObject("A", "z"), i.CreateObject("A", key)])).snapshot
    found = [s.find("A", [key]).tolist() for s in (made, gone, again)]
    assert found == [[0], [-1], [1]]
