"""The changeset codec: the protocol's bytes to columns and back.

An integer is base 128, least significant group first; the last byte holds six bits and, in its bit 6, the sign of a
magnitude that is complemented when negative. Encoders write the shortest form; decoders take padded ones up to the
limit of the target's width. Any bytes give a changeset or one
:class:`~realmframe.errors.BadChangesetError` with an offset, in memory that grows with the input only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from realmframe.changes import kernels as k
from realmframe.changes.columns import COLUMNS, Array, Changeset
from realmframe.changes.decode import decode_columns, first_repeated
from realmframe.changes.encode import encode_columns
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
    k.BAD_TABLE_KIND: "a class kind is unknown",
    k.REPEATED_STRING: "the string table holds a string twice",
}
#: Bytes of a typical instruction: the first guess at how many there are. A wrong guess costs a second pass.
_TYPICAL: Final = 9


def decode(data: bytes | bytearray | memoryview | Array) -> Changeset:
    """Read a changeset; the bytes become its heap and must not change afterwards.

    Raises
    ------
    BadChangesetError
        With the offset of the instruction at fault.
    """
    buf = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    if len(buf) == 0:
        return Changeset.empty()
    rows, steps, strings = len(buf) // _TYPICAL + 16, len(buf) // 16 + 16, len(buf) // 8 + 16
    while True:
        columns: dict[str, Any] = {name: np.empty(rows, dtype) for name, dtype in COLUMNS.items()}
        path, is_key = np.empty(steps, np.int64), np.empty(steps, np.bool_)
        start, size = np.empty(strings, np.int64), np.empty(strings, np.int64)
        error, offset, n, used, interned = decode_columns(buf, *columns.values(), path, is_key, start, size)
        if error != k.NO_ROOM:
            break
        # Every row, step and string takes at least two bytes, so this ends.
        rows, steps, strings = rows * 3, steps * 4, strings * 3
    if error:
        raise BadChangesetError(f"The changeset is malformed: {_WORDS[error]}", offset=int(offset))
    start, size = start[:interned], size[:interned]
    _check_strings(buf, start, size)
    return Changeset(
        **{name: column[:n] for name, column in columns.items()},
        path=path[:used],
        path_is_key=is_key[:used],
        string_start=start,
        string_len=size,
        heap=buf,
    )


def _check_strings(buf: Array, start: Array, size: Array) -> None:
    if len(start) < 2:
        return
    slots = np.full(1 << (2 * len(start)).bit_length(), -1, np.int64)
    repeated = first_repeated(buf, start, size, slots)
    if repeated >= 0:
        raise BadChangesetError(f"The changeset is malformed: {_WORDS[k.REPEATED_STRING]}", offset=int(start[repeated]))


def encode(changeset: Changeset) -> bytes:
    """Write a changeset, its strings first; one without instructions is no bytes at all."""
    if len(changeset) == 0:
        return b""
    inline = (changeset.value_type == 3) | (changeset.value_type == 4)
    room = 100 * len(changeset) + int(changeset.value_lo[inline].sum())
    room += 12 * int(changeset.path_len.sum()) + 16 * len(changeset.string_len) + int(changeset.string_len.sum())
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
    heap = np.concatenate([c.heap for c in parts])
    bases = np.cumsum([0, *(len(c.heap) for c in parts)])
    start = np.concatenate([c.string_start + base for c, base in zip(parts, bases, strict=False)])
    size = np.concatenate([c.string_len for c in parts])
    place, first = _unique_strings(heap, start, size)
    offsets = np.cumsum([0, *(len(c.string_start) for c in parts)])
    maps = [place[offsets[i] : offsets[i + 1]] for i in range(len(parts))]
    steps = np.cumsum([0, *(len(c.path) for c in parts)])
    renumbered = [_renumber(c, m, int(b), int(s)) for c, m, b, s in zip(parts, maps, bases, steps, strict=False)]
    columns: dict[str, Any] = {}
    for name in (*COLUMNS, "path", "path_is_key"):
        columns[name] = np.concatenate([r[name] for r in renumbered])
    return Changeset(**columns, string_start=start[first], string_len=size[first], heap=heap)


def _unique_strings(heap: Array, start: Array, size: Array) -> tuple[Array, Array]:
    """Give equal strings equal numbers: the number of each, and where each number first stands."""
    known: dict[bytes, int] = {}
    view = heap.data
    place = np.empty(len(start), np.int32)
    first: list[int] = []
    for i, (begin, length) in enumerate(zip(start.tolist(), size.tolist(), strict=True)):
        text = bytes(view[begin : begin + length])
        number = known.setdefault(text, len(known))
        if number == len(first):
            first.append(i)
        place[i] = number
    return place, np.asarray(first, np.int64)


def _renumber(c: Changeset, strings: Array, base: int, steps: int) -> dict[str, Any]:
    columns: dict[str, Any] = {name: getattr(c, name) for name in COLUMNS}
    if len(strings):
        for name in ("table", "field", "link_table"):
            index = columns[name]
            columns[name] = np.where(index >= 0, strings[np.maximum(index, 0)], -1).astype(np.int32)
        named = c.key_type == 3
        columns["key_lo"] = np.where(named, strings[np.where(named, c.key_lo, 0)], c.key_lo)
        linked = (c.value_type == 9) & (c.link_type == 3) & (c.op != 6)
        low = np.where(linked, strings[np.where(linked, c.value_lo, 0)], c.value_lo)
        columns["value_lo"] = low
        keys = c.path_is_key
        columns["path"] = np.where(keys, strings[np.where(keys, c.path, 0)], c.path)
    else:
        columns["path"] = c.path
    inline = (c.value_type == 3) | (c.value_type == 4)
    columns["value_hi"] = np.where(inline, c.value_hi + base, c.value_hi)
    columns["path_start"] = c.path_start + steps
    columns["path_is_key"] = c.path_is_key
    return columns
