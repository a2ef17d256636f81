"""The primary-key index: an open-addressing table from 128 bits of a key to the stable id of its row.

It only ever grows. A row id is valid for a snapshot when it is below the snapshot's limit and its row still exists, so
snapshots of one lineage share one index and none has to be undone; a second lineage that branches off an older snapshot
takes a copy.

Keys of 128 bits and less are entered as they are. Strings are entered by SipHash-1-3 of 128 bits under a random secret
of the index, and their text is not compared: two of n strings share a hash with a chance of about n^2 / 2^129 (for a
thousand million, 1 in 10^20), and nobody who does not know the secret can do better. It never leaves the realm's
folder, where it is kept beside the index, and no answer depends on it. Where a key is looked for in the table is
decided by a second secret, so keys that all want one slot cannot be chosen either.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from realmframe.changes.jit import byte_at, kernel, word_at
from realmframe.model import GlobalKey, Key, ObjectId, Property, PropertyType

Words: TypeAlias = "npt.NDArray[np.uint64]"
Ids: TypeAlias = "npt.NDArray[np.int64]"

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_MIN_SLOTS: Final = 16


#: Words of a secret: two for SipHash, five for the place in the table, two that stand for the null key.
_SECRET_WORDS: Final = 9


def new_secret() -> Words:
    """Give the secret of a new index."""
    return np.frombuffer(os.urandom(8 * _SECRET_WORDS), np.uint64)


@kernel
def opened(secret: Any) -> Any:
    """Give the words of a secret that :func:`place_of` and :func:`hash_piece` take."""
    return secret[0], secret[1], secret[2], secret[3], secret[4], secret[5], secret[6]


@kernel
def place_of(a: Any, b: Any, secret: Any) -> Any:
    """Give 64 bits by which two words are placed in a table.

    The sum is a universal hash (multilinear, over halves of the words; Lemire and Kaser, 2014): whatever two keys
    somebody chooses, few secrets let them meet. The rest lets every bit of it change every other.
    """
    low = np.uint64(0xFFFFFFFF)
    h = secret[2] + secret[3] * (a & low) + secret[4] * (a >> np.uint64(32))
    h += secret[5] * (b & low) + secret[6] * (b >> np.uint64(32))
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@kernel
def _turn(x: Any, bits: int) -> Any:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@kernel
def _round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    v0 += v1
    v1 = _turn(v1, 13) ^ v0
    v0 = _turn(v0, 32)
    v2 += v3
    v3 = _turn(v3, 16) ^ v2
    v0 += v3
    v3 = _turn(v3, 21) ^ v0
    v2 += v1
    v1 = _turn(v1, 17) ^ v2
    return v0, v1, _turn(v2, 32), v3


@kernel
def hash_piece(address: int, size: int, secret: Any) -> Any:
    """Hash the bytes at an address to two words: SipHash-1-3 (Aumasson and Bernstein, 2012), its form of 128 bits."""
    seed1, seed2 = secret[0], secret[1]
    v0 = seed1 ^ np.uint64(0x736F6D6570736575)
    v1 = seed2 ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE)
    v2 = seed1 ^ np.uint64(0x6C7967656E657261)
    v3 = seed2 ^ np.uint64(0x7465646279746573)
    at, end = address, address + size
    while at + 8 <= end:
        word = np.uint64(word_at(at))
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
        v0 ^= word
        at += 8
    word = np.uint64(size) << np.uint64(56)
    for j in range(end - at):
        word |= np.uint64(byte_at(at + j)) << np.uint64(8 * j)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    v0 ^= word
    v2 ^= np.uint64(0xEE)
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    first = v0 ^ v1 ^ v2 ^ v3
    v1 ^= np.uint64(0xDD)
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return first, v0 ^ v1 ^ v2 ^ v3


@kernel
def _hash_bytes(data: Any, start: Any, size: Any, first: Any, second: Any, secret: Any) -> None:
    """Hash each ``data[start : start + size]``."""
    base: Any = np.int64(data.ctypes.data)
    words = opened(secret)
    for i in range(len(start)):
        first[i], second[i] = hash_piece(base + start[i], size[i], words)


@kernel
def _find(first: Any, second: Any, slots1: Any, slots2: Any, rows: Any, limit: int, out: Any, secret: Any) -> None:
    """Find the newest row below ``limit`` for each key; -1 where there is none."""
    words = opened(secret)
    mask = np.uint64(len(rows) - 1)
    for i in range(len(first)):
        slot = place_of(first[i], second[i], words) & mask
        best = np.int64(-1)
        while rows[slot] >= 0:
            if slots1[slot] == first[i] and slots2[slot] == second[i] and rows[slot] < limit and rows[slot] > best:
                best = rows[slot]
            slot = (slot + np.uint64(1)) & mask
        out[i] = best


@kernel
def _insert(first: Any, second: Any, ids: Any, slots1: Any, slots2: Any, rows: Any, secret: Any) -> None:
    words = opened(secret)
    mask = np.uint64(len(rows) - 1)
    for i in range(len(first)):
        slot = place_of(first[i], second[i], words) & mask
        while rows[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots1[slot] = first[i]
        slots2[slot] = second[i]
        # Last, so that a reader in another thread sees the slot empty or whole.
        rows[slot] = ids[i]


@kernel
def group_keys(first: Any, second: Any, slots: Any, group: Any, leader: Any, secret: Any) -> int:
    """Give equal keys equal numbers, in order of appearance; ``slots`` is a power of two, filled with -1."""
    words = opened(secret)
    mask = np.uint64(len(slots) - 1)
    count = 0
    for i in range(len(first)):
        slot = place_of(first[i], second[i], words) & mask
        while True:
            g = slots[slot]
            if g < 0:
                slots[slot] = count
                leader[count] = i
                group[i] = count
                count += 1
                break
            other = leader[g]
            if first[other] == first[i] and second[other] == second[i]:
                group[i] = g
                break
            slot = (slot + np.uint64(1)) & mask
    return count


class KeyIndex:
    """The index of one table's lineage.

    Attributes
    ----------
    end : int
        Row ids below it have been entered.
    secret : array of uint64
        By which keys are entered; another lineage that branches off has the same.
    """

    def __init__(self, slots1: Words, slots2: Words, rows: Ids, used: int, end: int, secret: Words) -> None:
        self.slots1, self.slots2, self.rows, self.secret = slots1, slots2, rows, secret
        self.used, self.end = used, end

    @classmethod
    def empty(cls, room: int = _MIN_SLOTS, secret: Words | None = None) -> KeyIndex:
        """Make an index with room for so many slots (a power of two), by default with a secret of its own."""
        zeros = np.zeros(room, np.uint64)
        return cls(zeros, zeros.copy(), np.full(room, -1, np.int64), 0, 0, new_secret() if secret is None else secret)

    def find(self, first: Words, second: Words, limit: int) -> Ids:
        """Find the row id of each key, -1 where there is none."""
        out = np.empty(len(first), np.int64)
        _find(first, second, self.slots1, self.slots2, self.rows, limit, out, self.secret)
        return out

    def insert(self, first: Words, second: Words, ids: Ids) -> None:
        """Enter keys; grows as needed, in new arrays, so that readers keep theirs."""
        needed = self.used + len(ids)
        if 2 * needed > len(self.rows):
            self._grow(max(_MIN_SLOTS, 1 << (4 * needed - 1).bit_length()), self.end)
        if not self.rows.flags.writeable:
            self.slots1, self.slots2, self.rows = self.slots1.copy(), self.slots2.copy(), self.rows.copy()
        _insert(first, second, ids, self.slots1, self.slots2, self.rows, self.secret)
        self.used = needed
        if len(ids):
            self.end = max(self.end, int(ids[-1]) + 1)

    def _grow(self, room: int, limit: int) -> None:
        kept = (self.rows >= 0) & (self.rows < limit)
        ids = self.rows[kept]
        new = KeyIndex.empty(room, self.secret)
        _insert(self.slots1[kept], self.slots2[kept], ids, new.slots1, new.slots2, new.rows, self.secret)
        self.slots1, self.slots2, self.rows = new.slots1, new.slots2, new.rows
        self.used = len(ids)

    def branch(self, limit: int) -> KeyIndex:
        """Copy what is valid below a limit, for another lineage."""
        copy = KeyIndex(self.slots1, self.slots2, self.rows, self.used, self.end, self.secret)
        copy._grow(len(self.rows), limit)
        copy.end = limit
        return copy


def string_words(heap: Any, start: Any, size: Any, secret: Words) -> tuple[Words, Words]:
    """Hash strings of a heap."""
    first, second = np.empty(len(start), np.uint64), np.empty(len(start), np.uint64)
    _hash_bytes(heap, start, size, first, second, secret)
    return first, second


def _unsigned(words: Any) -> Words:
    return np.ascontiguousarray(words, np.int64).view(np.uint64)


def plain_words(kind: int, high: Any, low: Any) -> tuple[Words, Words]:
    """Give the words of keys that are no strings, out of a changeset's columns."""
    if kind == PropertyType.INT:
        return _unsigned(low), np.ones(len(low), np.uint64)
    return _unsigned(high), _unsigned(low)


def arrow_words(keys: pa.Array, prop: Property | None, secret: Words) -> tuple[Words, Words]:
    """Give the words of a column of keys (nulls must be looked up by :func:`key_words`)."""
    storage = keys.storage if isinstance(keys, pa.ExtensionArray) else keys
    count = len(storage)
    if prop is not None and prop.type is PropertyType.INT:
        data = np.frombuffer(storage.buffers()[1], np.int64)[storage.offset : storage.offset + count]
        return plain_words(PropertyType.INT, data, data)
    if prop is not None and prop.type is PropertyType.STRING:
        _, offsets, data = storage.buffers()
        where = np.frombuffer(offsets, np.int32)[storage.offset : storage.offset + count + 1].astype(np.int64)
        heap = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        return string_words(heap, where[:-1], np.diff(where), secret)
    width = storage.type.byte_width
    raw = np.frombuffer(storage.buffers()[1], np.uint8)
    raw = raw[storage.offset * width : (storage.offset + count) * width].reshape(count, width)
    high = np.ascontiguousarray(raw[:, :8]).view(">u8").astype(np.uint64).reshape(count)
    low = np.ascontiguousarray(raw[:, 8:]).view(">u8" if width == 16 else ">u4").astype(np.uint64).reshape(count)
    return high, low


def null_words(count: int, secret: Words) -> tuple[Words, Words]:
    """Give the words of null keys: secret ones, because no words are free that a UUID could not have."""
    return np.full(count, secret[-2], np.uint64), np.full(count, secret[-1], np.uint64)


def key_words(keys: Sequence[Key], secret: Words) -> tuple[Words, Words]:
    """Give the words of keys as Python values."""
    pairs = [_one(key, secret) for key in keys]
    return np.array([p[0] for p in pairs], np.uint64), np.array([p[1] for p in pairs], np.uint64)


def _one(key: Key, secret: Words) -> tuple[int, int]:
    if key is None:
        return int(secret[-2]), int(secret[-1])
    if isinstance(key, str):
        data = np.frombuffer(key.encode("utf-8", "surrogateescape"), np.uint8)
        first, second = string_words(data, np.zeros(1, np.int64), np.array([len(data)], np.int64), secret)
        return int(first[0]), int(second[0])
    if isinstance(key, ObjectId):
        high, low = struct.unpack(">QI", key.binary)
        return high, low
    if isinstance(key, uuid.UUID):
        high, low = struct.unpack(">QQ", key.bytes)
        return high, low
    if isinstance(key, GlobalKey):
        return key.hi & _MASK, key.lo & _MASK
    return int(key) & _MASK, 1
