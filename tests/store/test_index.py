"""The index of keys: found, entered, branched, and entered again after an erasure."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.model import ClassKind, GlobalKey, Key, ObjectId, Property, PropertyType
from realmframe.store import Snapshot, apply
from realmframe.store.arrays import keys_to_arrow
from realmframe.store.index import KeyIndex, Words, arrow_words, key_words, string_words

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
    index = KeyIndex.empty()
    words = key_words(keys, index.secret)
    for mine, other in zip(words, arrow_words(column, prop, index.secret), strict=True):
        np.testing.assert_array_equal(mine, other)
    index.insert(*words, np.arange(len(keys)))
    assert index.find(*words, len(keys)).tolist() == list(range(len(keys)))
    assert index.find(*key_words([None], index.secret), len(keys)).tolist() == [-1]


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


_WORD = (1 << 64) - 1


def _rounds(v: list[int], count: int) -> None:
    def turn(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & _WORD

    for _ in range(count):
        v[0] = (v[0] + v[1]) & _WORD
        v[2] = (v[2] + v[3]) & _WORD
        v[1], v[3] = turn(v[1], 13) ^ v[0], turn(v[3], 16) ^ v[2]
        v[0] = turn(v[0], 32)
        v[2] = (v[2] + v[1]) & _WORD
        v[0] = (v[0] + v[3]) & _WORD
        v[1], v[3] = turn(v[1], 17) ^ v[2], turn(v[3], 21) ^ v[0]
        v[2] = turn(v[2], 32)


def siphash(data: bytes, key: bytes, per_word: int, at_end: int) -> bytes:
    """Hash to 16 bytes, after the paper: so many rounds for each word, and at the end."""
    k = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
    v = [int.from_bytes(b"somepseudorandomlygeneratedbytes"[j : j + 8], "big") ^ k[j // 8 % 2] for j in (0, 8, 16, 24)]
    v[1] ^= 0xEE
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for j in range(0, len(padded), 8):
        word = int.from_bytes(padded[j : j + 8], "little")
        v[3] ^= word
        _rounds(v, per_word)
        v[0] ^= word
    out = b""
    for place, constant in ((2, 0xEE), (1, 0xDD)):
        v[place] ^= constant
        _rounds(v, at_end)
        out += (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    return out


@settings(max_examples=60)
@given(data=st.lists(st.binary(max_size=40), max_size=5), secret=st.binary(min_size=72, max_size=72))
def test_strings_are_hashed_by_siphash(data: list[bytes], secret: bytes) -> None:
    """Strings have the hashes of SipHash-1-3, written anew here; this one gives what was published for 2-4."""
    key = bytes(range(16))
    assert siphash(b"", key, 2, 4).hex() == "a3817f04ba25a8e66df67214c7550293"
    assert siphash(key[:8], key, 2, 4)[:8] != siphash(key[:7], key, 2, 4)[:8]
    sizes = np.array([len(one) for one in data], np.int64)
    heap = np.frombuffer(b"".join(data) + bytes(8), np.uint8)
    words = string_words(heap, np.cumsum(sizes) - sizes, sizes, np.frombuffer(secret, np.uint64))
    found = [b"".join(int(word).to_bytes(8, "little") for word in pair) for pair in zip(*words, strict=True)]
    assert found == [siphash(one, secret[:16], 1, 3) for one in data]


def _unkeyed_place(a: Words, b: Words) -> Words:
    """Give the place of two words in a table as an index without a secret chose it."""
    h = (a ^ (b * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(32))


def _unkeyed_words(texts: Any) -> tuple[Words, Words]:
    """Hash texts of one size, a row each, as they were without a secret."""
    size = np.uint64(texts.shape[1])
    a = np.full(len(texts), np.uint64(0xCBF29CE484222325) ^ size)
    b = np.full(len(texts), np.uint64(0x84222325CBF29CE4) + size)
    for j in range(texts.shape[1]):
        byte = texts[:, j].astype(np.uint64)
        a = (a ^ byte) * np.uint64(0x100000001B3)
        b = (b + byte) * np.uint64(0xC6A4A7935BD1E995)
        b ^= b >> np.uint64(47)
    return _unkeyed_place(a, b), _unkeyed_place(b, a)


def _longest_run(index: KeyIndex) -> int:
    """Count the slots that a search may have to pass."""
    empty = np.flatnonzero(index.rows < 0)
    return int(np.diff(empty).max()) - 1


def test_chosen_strings_do_not_gather() -> None:
    """Strings chosen to be in one place by a hash without a secret are spread as any others, and all found."""
    numbers = np.arange(1 << 21)
    texts = np.stack([65 + (numbers >> shift & 7) for shift in range(0, 21, 3)], axis=1).astype(np.uint8)
    texts = texts[_unkeyed_place(*_unkeyed_words(texts)) % 2048 == 7]
    assert len(texts) > 900
    keys = [bytes(row).decode() for row in texts]
    index = KeyIndex.empty()
    index.insert(*key_words(keys, index.secret), np.arange(len(keys)))
    assert len(index.rows) <= 4096
    assert _longest_run(index) < 200
    assert index.find(*key_words(keys, index.secret), len(keys)).tolist() == list(range(len(keys)))


@pytest.mark.parametrize("stride", [None, 1, 1 << 20, 1 << 32, 1 << 44, 1 << 63 | 1 << 30])
def test_chosen_numbers_do_not_gather(stride: int | None) -> None:
    """Nor do UUIDs chosen so, or numbers at any distance."""
    low = np.arange(20_000, dtype=np.uint64) * np.uint64(stride or 1)
    high = np.zeros(20_000, np.uint64)
    if stride is None:
        high = low * np.uint64(0x9E3779B97F4A7C15)
        assert len(np.unique(_unkeyed_place(high, low))) == 1
    index = KeyIndex.empty()
    unique = np.unique(np.stack([high, low]), axis=1)
    index.insert(*np.ascontiguousarray(unique), np.arange(unique.shape[1]))
    assert _longest_run(index) < 400


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.text(st.sampled_from("ab\0é"), max_size=3)), max_size=60), st.data())
def test_strings_against_a_dictionary(steps: list[tuple[bool, str]], data: st.DataObject) -> None:
    """Objects created and erased under keys that are much alike are found as in a dictionary, at once or in parts."""
    add = i.AddTable("A", ClassKind.TOPLEVEL, "_id", PropertyType.STRING)
    snapshot = apply(Snapshot.empty(), Changeset.from_instructions([add])).snapshot
    held: dict[str, None] = {}
    while steps:
        cut = data.draw(st.integers(1, len(steps)))
        part, steps = steps[:cut], steps[cut:]
        made: list[Any] = []
        for create, key in part:
            made.append(i.CreateObject("A", key) if create else i.EraseObject("A", key))
            if create:
                held.setdefault(key)
            else:
                held.pop(key, None)
        snapshot = apply(snapshot, Changeset.from_instructions(made)).snapshot
        assert snapshot.values("A", "_id") == list(held)
        asked = sorted({key for _, key in [*part, *steps]})
        places = {key: at for at, key in enumerate(held)}
        assert snapshot.find("A", asked).tolist() == [places.get(key, -1) for key in asked]


def test_each_index_has_a_secret_of_its_own() -> None:
    """The same keys have other words in another index, and the same ones in a lineage that branches off."""
    one, two = KeyIndex.empty(), KeyIndex.empty()
    assert key_words(["a"], one.secret)[0] != key_words(["a"], two.secret)[0]
    assert (one.branch(0).secret == one.secret).all()
