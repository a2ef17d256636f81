"""The changeset codec: the protocol's bytes to columns and back.

An integer is base 128, least significant group first; the last byte holds six bits and, in its bit 6, the sign of a
magnitude that is complemented when negative. Encoders write the shortest form; decoders take padded ones up to the
limit of the target's width. Any bytes give a changeset or one
:class:`~realmframe.errors.BadChangesetError` with an offset, in memory that grows with the input only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from realmframe.changes import kernels as k
from realmframe.changes.columns import COLUMNS, Array, Changeset
from realmframe.changes.decode import BLOCKS, decode_columns, number_strings
from realmframe.changes.encode import encode_columns, room_for
from realmframe.errors import BadChangesetError

_WORDS: Final = {
    k.TRUNCATED: "it ends inside an instruction",
    k.BAD_INTEGER: "an integer does not fit its field",
    k.BAD_STRING_INDEX: "a string index is out of range",
    k.BAD_INTERN_INDEX: "the string table is out of order",
    k.BAD_TYPE: "a type code is unknown, or not allowed here",
    k.BAD_OPCODE: "an instruction is unknown",
    k.NO_INDEX: "a list instruction has no index",
    k.TOO_LONG: "a string is too long",
    k.BAD_TIMESTAMP: "a timestamp is out of range",
    k.BAD_KEY_TYPE: "an object key has a type that keys cannot have",
    k.BAD_COLLECTION: "a collection kind is unknown",
    k.BAD_CLASS_KIND: "a class kind is unknown",
    k.REPEATED_STRING: "the string table holds a string twice",
}
#: Bytes of a typical instruction: the first guess at how many there are. A wrong guess costs another pass.
_TYPICAL: Final = 9


def decode(data: bytes | bytearray | memoryview | Array) -> Changeset:
    """Read a changeset; the bytes become its heap and must not change afterwards.

    Raises
    ------
    BadChangesetError
        With the offset of the instruction at fault.
    """
    # The kernel reads by address, so the bytes have to lie together.
    buf = np.frombuffer(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data, np.uint8)
    if len(buf) == 0:
        return Changeset.empty()
    rows, steps, strings = len(buf) // _TYPICAL + 16, len(buf) // 64 + 16, len(buf) // 16 + 16
    while True:
        blocks = {dtype: np.empty((len(names), rows), dtype) for dtype, names in BLOCKS.items()}
        path, is_key = np.empty(steps, np.int64), np.empty(steps, np.bool_)
        start, size = np.empty(strings, np.int64), np.empty(strings, np.int64)
        error, offset, n, used, interned = decode_columns(buf, 0, 0, *blocks.values(), path, is_key, start, size)
        if error != k.NO_ROOM:
            break
        # Only what ran out grows. Every row, step and string takes at least a byte, so this ends.
        rows = rows * 3 if n == rows else rows
        strings = strings * 4 if interned == strings else strings
        steps = steps * 4 if n < rows and interned < strings else steps
    start, size = start[:interned], size[:interned]
    if not error and interned > 1:
        error, at = _find_repeated(buf, start, size)
        if error:
            # Up to the length of that string, its instruction is the one that is cut.
            _, offset, *_ = decode_columns(
                buf[: at - 1], 0, 0, *blocks.values(), path, is_key, start.copy(), size.copy()
            )
    if error:
        raise BadChangesetError(f"The changeset is malformed: {_WORDS[error]}", offset=int(offset))
    return Changeset(
        **_columns(blocks, n),
        path=path[:used],
        path_is_key=is_key[:used],
        string_start=start,
        string_len=size,
        heap=buf,
    )


def _columns(blocks: dict[str, Array], rows: int) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: blocks[dtype][i, :rows] for dtype, names in BLOCKS.items() for i, name in enumerate(names)
    }
    columns["op"] = columns["op"].view(np.uint8)
    return columns


def decode_blocks(data: bytes | memoryview, rows: int = 16_384) -> Iterator[Changeset]:
    """Read a changeset some rows at a time, in memory that stays small: each block holds until the next is asked for.

    A block knows the strings that stand before its end.

    Raises
    ------
    BadChangesetError
        With the offset of the instruction at fault, once the blocks before it were given.
    """
    buf = np.frombuffer(data, np.uint8)
    blocks = {dtype: np.empty((len(names), rows), dtype) for dtype, names in BLOCKS.items()}
    path, is_key = np.empty(rows, np.int64), np.empty(rows, np.bool_)
    start, size = np.empty(rows, np.int64), np.empty(rows, np.int64)
    at = strings = 0
    error = k.NO_ROOM if len(buf) else 0
    while error == k.NO_ROOM:
        error, at, n, used, strings = decode_columns(buf, at, strings, *blocks.values(), path, is_key, start, size)
        if error not in (0, k.NO_ROOM):
            break
        if n:
            yield Changeset(
                **_columns(blocks, n),
                path=path[:used],
                path_is_key=is_key[:used],
                string_start=start[:strings],
                string_len=size[:strings],
                heap=buf,
            )
        if strings == len(start):
            start, size = (np.concatenate([old, np.empty(3 * len(old), np.int64)]) for old in (start, size))
        elif n < rows:
            path, is_key = np.empty(4 * len(path), np.int64), np.empty(4 * len(path), np.bool_)
    if not error and strings > 1:
        error, at = _find_repeated(buf, start[:strings], size[:strings])
    if error:
        raise BadChangesetError(f"The changeset is malformed: {_WORDS[error]}", offset=int(at))


def _number_strings(heap: Array, start: Array, size: Array) -> tuple[Array, int]:
    """Give equal strings equal numbers, in order of appearance; and how many different ones there are."""
    number = np.empty(len(start), np.int64)
    slots = np.full(1 << (2 * len(start)).bit_length(), -1, np.int64)
    count = int(number_strings(heap, start, size, slots, number, 16 * len(start) + int(size.sum()) + 1024))
    if count >= 0:
        return number, count
    # Somebody chose strings that collide. Python's own hash is keyed and cannot be aimed at.
    view, known = heap.data, dict[bytes, int]()
    for i, (begin, length) in enumerate(zip(start.tolist(), size.tolist(), strict=True)):
        number[i] = known.setdefault(bytes(view[begin : begin + length]), len(known))
    return number, len(known)


def _find_repeated(buf: Array, start: Array, size: Array) -> tuple[int, int]:
    """Give the error and where the bytes of a string begin that stands twice in a table, or no error."""
    number, count = _number_strings(buf, start, size)
    if count == len(start):
        return 0, 0
    return k.REPEATED_STRING, int(start[np.argmax(number != np.arange(len(number)))])


def encode(changeset: Changeset) -> bytes:
    """Write a changeset, its strings first; one without instructions is no bytes at all."""
    if len(changeset) == 0:
        return b""
    room = room_for(changeset.value_type, changeset.value_lo, changeset.path_len, changeset.string_len)
    out = np.empty(room, np.uint8)
    size = encode_columns(
        out,
        *(getattr(changeset, name) for name in COLUMNS),
        changeset.path,
        changeset.path_is_key,
        changeset.string_start,
        changeset.string_len,
        changeset.heap,
    )
    return bytes(out[:size].data)


def concat(changesets: Sequence[Changeset]) -> Changeset:
    """Join changesets into one that does the same, one after another.

    String tables are merged (a string that stands in several is kept once), heaps are put end to end.
    """
    parts = [c for c in changesets if len(c)]
    if len(parts) <= 1:
        return parts[0] if parts else Changeset.empty()
    heap, bases = _end_to_end([c.heap for c in parts], [id(c.heap) for c in parts])
    start = np.concatenate([c.string_start + base for c, base in zip(parts, bases, strict=True)])
    size = np.concatenate([c.string_len for c in parts])
    number, count = _number_strings(heap, start, size)
    # Numbers are given in order of appearance, so each stands first where it exceeds all before it.
    first = np.flatnonzero(np.diff(np.maximum.accumulate(number), prepend=-1)) if count else np.empty(0, np.int64)
    # The keys in a path are numbers of a string table, so two parts share a path only if they share the table.
    owners = [(id(c.path), id(c.path_is_key), id(c.string_start)) for c in parts]
    path, steps = _end_to_end([c.path for c in parts], owners)
    path_is_key, _ = _end_to_end([c.path_is_key for c in parts], owners)
    columns: dict[str, Any] = {"path": path, "path_is_key": path_is_key}
    renumbered, offset = [], 0
    for c, base, step in zip(parts, bases, steps, strict=True):
        names = number[offset : offset + len(c.string_start)]
        offset += len(names)
        renumbered.append(_renumber(c, names, base, step))
        if len(names) and len(c.path):
            part = slice(step, step + len(c.path))
            path[part] = np.where(c.path_is_key, names[np.where(c.path_is_key, c.path, 0)], c.path)
    for name in COLUMNS:
        columns[name] = np.concatenate([r[name] for r in renumbered])
    return Changeset(**columns, string_start=start[first], string_len=size[first], heap=heap)


def _end_to_end(arrays: Sequence[Array], owners: Sequence[Hashable]) -> tuple[Array, list[int]]:
    """Join arrays, and tell where each begins; what an owner brought already is not repeated."""
    begins: dict[Hashable, int] = {}
    kept, length = [], 0
    for owner, array in zip(owners, arrays, strict=True):
        if owner not in begins:
            begins[owner] = length
            kept.append(array)
            length += len(array)
    return np.concatenate(kept), [begins[owner] for owner in owners]


def _renumber(c: Changeset, names: Array, base: int, steps: int) -> dict[str, Any]:
    """Give the columns that differ, and those that do not: string ``i`` is ``names[i]``, heap and path are moved."""
    columns: dict[str, Any] = {name: getattr(c, name) for name in COLUMNS}
    if len(names):
        for name in ("table", "field", "link_table"):
            index = columns[name]
            columns[name] = np.where(index >= 0, names[np.maximum(index, 0)], -1).astype(np.int32)
        named = c.key_type == 3
        columns["key_lo"] = np.where(named, names[np.where(named, c.key_lo, 0)], c.key_lo)
        linked = (c.value_type == 9) & (c.link_type == 3) & (c.op != 6)
        columns["value_lo"] = np.where(linked, names[np.where(linked, c.value_lo, 0)], c.value_lo)
    inline = ((c.value_type == 3) | (c.value_type == 4)) & (c.op > 1) & (c.op != 6)
    columns["value_hi"] = np.where(inline, c.value_hi + base, c.value_hi)
    columns["path_start"] = c.path_start + steps
    return columns
