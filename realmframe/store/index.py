"""The primary-key index: an open-addressing table from 128 bits of a key to the stable id of its row.

It only ever grows. A row id is valid for a snapshot when it is below the snapshot's limit and its row still exists, so
snapshots of one lineage share one index and none has to be undone; a second lineage that branches off an older snapshot
takes a copy. Strings are entered by two independent 64-bit hashes.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from realmframe.changes.jit import byte_at, kernel
from realmframe.model import GlobalKey, Key, ObjectId, Property, PropertyType

Words: TypeAlias = "npt.NDArray[np.uint64]"
Ids: TypeAlias = "npt.NDArray[np.int64]"

_SECOND: Final = 0x9E3779B97F4A7C15
_MASK: Final = 0xFFFFFFFFFFFFFFFF
_MIN_SLOTS: Final = 16


@kernel
def mix(a: Any, b: Any) -> Any:
    """Give the hash of two words."""
    h = (a ^ (b * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(32)
    return h


@kernel
def hash_piece(address: int, size: int) -> Any:
    """Hash the bytes at an address twice."""
    a = np.uint64(0xCBF29CE484222325) ^ np.uint64(size)
    b = np.uint64(0x84222325CBF29CE4) + np.uint64(size)
    for j in range(address, address + size):
        byte = np.uint64(byte_at(j))
        a = (a ^ byte) * np.uint64(0x100000001B3)
        b = (b + byte) * np.uint64(0xC6A4A7935BD1E995)
        b ^= b >> np.uint64(47)
    return mix(a, b), mix(b, a)


@kernel
def _hash_bytes(data: Any, start: Any, size: Any, first: Any, second: Any) -> None:
    """Hash each ``data[start : start + size]`` twice."""
    base: Any = np.int64(data.ctypes.data)
    for i in range(len(start)):
        first[i], second[i] = hash_piece(base + start[i], size[i])


@kernel
def _find(first: Any, second: Any, slots1: Any, slots2: Any, rows: Any, limit: int, out: Any) -> None:
    """Find the newest row below ``limit`` for each key; -1 where there is none."""
    mask = np.uint64(len(rows) - 1)
    for i in range(len(first)):
        slot = mix(first[i], second[i]) & mask
        best = np.int64(-1)
        while rows[slot] >= 0:
            if slots1[slot] == first[i] and slots2[slot] == second[i] and rows[slot] < limit and rows[slot] > best:
                best = rows[slot]
            slot = (slot + np.uint64(1)) & mask
        out[i] = best


@kernel
def _insert(first: Any, second: Any, ids: Any, slots1: Any, slots2: Any, rows: Any) -> None:
    mask = np.uint64(len(rows) - 1)
    for i in range(len(first)):
        slot = mix(first[i], second[i]) & mask
        while rows[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots1[slot] = first[i]
        slots2[slot] = second[i]
        # Last, so that a reader in another thread sees the slot empty or whole.
        rows[slot] = ids[i]


@kernel
def group_keys(first: Any, second: Any, slots: Any, group: Any, leader: Any) -> int:
    """Give equal keys equal numbers, in order of appearance; ``slots`` is a power of two, filled with -1."""
    mask = np.uint64(len(slots) - 1)
    count = 0
    for i in range(len(first)):
        slot = mix(first[i], second[i]) & mask
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
    """

    def __init__(self, slots1: Words, slots2: Words, rows: Ids, used: int, end: int) -> None:
        self.slots1, self.slots2, self.rows = slots1, slots2, rows
        self.used, self.end = used, end

    @classmethod
    def empty(cls, room: int = _MIN_SLOTS) -> KeyIndex:
        """Make an index with room for so many slots (a power of two)."""
        zeros = np.zeros(room, np.uint64)
        return cls(zeros, zeros.copy(), np.full(room, -1, np.int64), 0, 0)

    def find(self, first: Words, second: Words, limit: int) -> Ids:
        """Find the row id of each key, -1 where there is none."""
        out = np.empty(len(first), np.int64)
        _find(first, second, self.slots1, self.slots2, self.rows, limit, out)
        return out

    def insert(self, first: Words, second: Words, ids: Ids) -> None:
        """Enter keys; grows as needed, in new arrays, so that readers keep theirs."""
        needed = self.used + len(ids)
        if 2 * needed > len(self.rows):
            self._grow(max(_MIN_SLOTS, 1 << (4 * needed - 1).bit_length()), self.end)
        if not self.rows.flags.writeable:
            self.slots1, self.slots2, self.rows = self.slots1.copy(), self.slots2.copy(), self.rows.copy()
        _insert(first, second, ids, self.slots1, self.slots2, self.rows)
        self.used = needed
        if len(ids):
            self.end = max(self.end, int(ids[-1]) + 1)

    def _grow(self, room: int, limit: int) -> None:
        kept = (self.rows >= 0) & (self.rows < limit)
        ids = self.rows[kept]
        new = KeyIndex.empty(room)
        _insert(self.slots1[kept], self.slots2[kept], ids, new.slots1, new.slots2, new.rows)
        self.slots1, self.slots2, self.rows = new.slots1, new.slots2, new.rows
        self.used = len(ids)

    def branch(self, limit: int) -> KeyIndex:
        """Copy what is valid below a limit, for another lineage."""
        copy = KeyIndex(self.slots1, self.slots2, self.rows, self.used, self.end)
        copy._grow(len(self.rows), limit)
        copy.end = limit
        return copy


def string_words(heap: Any, start: Any, size: Any) -> tuple[Words, Words]:
    """Hash strings of a heap."""
    first, second = np.empty(len(start), np.uint64), np.empty(len(start), np.uint64)
    _hash_bytes(heap, start, size, first, second)
    return first, second


def _unsigned(words: Any) -> Words:
    return np.ascontiguousarray(words, np.int64).view(np.uint64)


def plain_words(kind: int, high: Any, low: Any) -> tuple[Words, Words]:
    """Give the words of keys that are no strings, out of a changeset's columns."""
    if kind == PropertyType.INT:
        return _unsigned(low), np.ones(len(low), np.uint64)
    return _unsigned(high), _unsigned(low)


def arrow_words(keys: pa.Array, prop: Property | None) -> tuple[Words, Words]:
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
        return string_words(heap, where[:-1], np.diff(where))
    width = storage.type.byte_width
    raw = np.frombuffer(storage.buffers()[1], np.uint8)
    raw = raw[storage.offset * width : (storage.offset + count) * width].reshape(count, width)
    high = np.ascontiguousarray(raw[:, :8]).view(">u8").astype(np.uint64).reshape(count)
    low = np.ascontiguousarray(raw[:, 8:]).view(">u8" if width == 16 else ">u4").astype(np.uint64).reshape(count)
    return high, low


_NULL_WORDS: Final = (0x6E756C6C6B657921, 0x21796B6C6C756E00)


def key_words(keys: Sequence[Key]) -> tuple[Words, Words]:
    """Give the words of keys as Python values."""
    pairs = [_one(key) for key in keys]
    return np.array([p[0] for p in pairs], np.uint64), np.array([p[1] for p in pairs], np.uint64)


def _one(key: Key) -> tuple[int, int]:
    if key is None:
        return _NULL_WORDS
    if isinstance(key, str):
        data = np.frombuffer(key.encode("utf-8", "surrogateescape"), np.uint8)
        first, second = string_words(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))
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
