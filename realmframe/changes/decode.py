"""The compiled decoder: one pass over the bytes, filling blocks of columns of a given capacity.

Columns of one width are the rows of one block: ``small`` (int8), ``medium`` (int32) and ``wide`` (int64).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from realmframe.changes.jit import kernel
from realmframe.changes.kernels import (
    BAD_CLASS_KIND,
    BAD_INTERN_INDEX,
    BAD_KEY_TYPE,
    BAD_OPCODE,
    MAX_STRING,
    NO_INDEX,
    NO_ROOM,
    TOO_LONG,
    TRUNCATED,
    read_bool,
    read_byte,
    read_collection,
    read_key,
    read_signed,
    read_string_index,
    read_type,
    read_unsigned,
    read_unsigned32,
    read_value,
    skip,
)

#: Which column is which row of its block.
BLOCKS: Final[dict[str, tuple[str, ...]]] = {
    "i1": ("op", "key_type", "value_type", "link_type"),
    "i4": ("table", "field", "link_table", "path_len"),
    "i8": ("key_hi", "key_lo", "value_hi", "value_lo", "aux", "aux2", "path_start"),
}
_OP, _KEY_TYPE, _VALUE_TYPE, _LINK_TYPE = range(4)
_TABLE, _FIELD, _LINK_TABLE, _PATH_LEN = range(4)
_KEY_HI, _KEY_LO, _VALUE_HI, _VALUE_LO, _AUX, _AUX2, _PATH_START = range(7)
_NO: Final = 127


@kernel
def decode_columns(
    buf: Any,
    at: int,
    strings: int,
    small: Any,
    medium: Any,
    wide: Any,
    path: Any,
    path_is_key: Any,
    string_start: Any,
    string_len: Any,
) -> Any:
    """Fill the columns from offset ``at`` on, where ``strings`` are known.

    Return error (0 for none), offset of the instruction at fault, rows, path steps, strings.
    """
    # Signed on purpose: beside an unsigned number the compiler would turn to floats.
    base: Any = np.int64(buf.ctypes.data)
    pos: Any = base + at
    end, begun = base + len(buf), base + at
    rows, n, steps = small.shape[1], 0, 0
    while 0 <= pos < end:
        begun = pos
        code, pos = read_unsigned(pos, end)
        if code == 63:
            start, size, pos = _interned(pos, end, strings)
            if pos >= 0 and strings >= len(string_start):
                pos = NO_ROOM
            if pos >= 0:
                string_start[strings] = start - base
                string_len[strings] = size
                strings += 1
            continue
        code &= 0xFF
        if pos < 0:
            break
        if code > 13 or n >= rows:
            pos = BAD_OPCODE if code > 13 else NO_ROOM
            break
        table, pos = read_string_index(pos, end, strings)
        if pos < 0:
            break
        small[_OP, n] = code
        medium[_TABLE, n] = table
        wide[_PATH_START, n] = steps
        if code == 0 or code == 1 or code == 6 or code == 7:
            pos = _schema_row(pos, end, strings, code, n, small, medium, wide)
            n += 1
            continue
        kind, high, low, pos = read_key(pos, end, strings)
        small[_KEY_TYPE, n] = kind
        wide[_KEY_HI, n] = high
        wide[_KEY_LO, n] = low
        field, length, last_is_index = np.int64(-1), np.int64(0), False
        if code > 3:
            field, pos = read_string_index(pos, end, strings)
            length, pos = read_unsigned32(pos, end)
            if length > 0 and pos >= 0:
                last_is_index, pos = _path(pos, end, strings, length, steps, path, path_is_key)
                steps += length
        value_type, high, low, target, link_type, aux, aux2, pos = _members(
            pos, end, base, strings, code, last_is_index
        )
        if pos < 0:
            break
        medium[_FIELD, n] = field
        medium[_PATH_LEN, n] = length
        small[_VALUE_TYPE, n] = value_type
        wide[_VALUE_HI, n] = high
        wide[_VALUE_LO, n] = low
        medium[_LINK_TABLE, n] = target
        small[_LINK_TYPE, n] = link_type
        wide[_AUX, n] = aux
        wide[_AUX2, n] = aux2
        n += 1
    return min(pos, 0), begun - base, n, steps, strings


@kernel
def _interned(pos: int, end: int, strings: int) -> Any:
    """Read a string of the table: address and size."""
    index, pos = read_unsigned32(pos, end)
    if pos >= 0 and index != strings:
        pos = BAD_INTERN_INDEX
    size, pos = read_unsigned(pos, end)
    if pos >= 0 and (size < 0 or size > MAX_STRING):
        pos = TOO_LONG
    return pos, size, skip(pos, end, size)


@kernel
def _path(pos: int, end: int, strings: int, length: int, used: int, path: Any, path_is_key: Any) -> Any:
    """Read the steps of a path into ``path[used:]``: whether it ends in an index."""
    if length > end - pos:
        return False, TRUNCATED
    if used + length > len(path):
        return False, NO_ROOM
    is_key = False
    for i in range(used, used + length):
        element, pos = read_signed(pos, end)
        is_key = element < 0
        if is_key:
            element, pos = read_string_index(pos, end, strings)
        if pos < 0:
            break
        # The protocol reads an index as 64 bits and keeps 32 of them.
        path[i] = element & 0xFFFFFFFF
        path_is_key[i] = is_key
    return not is_key, pos


@kernel
def _members(pos: int, end: int, base: int, strings: int, code: int, last_is_index: bool) -> Any:
    """Read what follows the path: value type, high, low, link table, link key type, aux, aux2."""
    kind, high, low = np.int64(_NO), np.int64(0), np.int64(0)
    target, link_type, aux, aux2 = np.int64(-1), np.int64(_NO), np.int64(0), np.int64(0)
    if code == 2 or code == 3:
        return kind, high, low, target, link_type, aux, aux2, pos
    if 8 <= code <= 10 and not last_is_index and pos >= 0:
        pos = NO_INDEX
    if code == 4 or code == 8 or code >= 12:
        kind, high, low, target, link_type, pos = read_value(pos, end, base, strings)
    elif code == 5:
        kind = np.int64(1)
        low, pos = read_signed(pos, end)
    elif code == 9:
        aux2, pos = read_unsigned32(pos, end)
    if code == 11:
        aux, pos = read_collection(pos, end)
    elif code == 4 and not last_is_index:
        aux, pos = read_bool(pos, end)
    elif code != 5 and code < 12:
        aux, pos = read_unsigned32(pos, end)
    return kind, high, low, target, link_type, aux, aux2, pos


@kernel
def _schema_row(pos: int, end: int, strings: int, code: int, n: int, small: Any, medium: Any, wide: Any) -> int:
    """Read the rest of AddTable, EraseTable, AddColumn or EraseColumn into row ``n``."""
    kind, collection, link_type = np.int64(_NO), np.int64(0), np.int64(_NO)
    field, target, nullable = np.int64(-1), np.int64(-1), np.int64(0)
    if code == 0:
        collection, pos = read_byte(pos, end)
        if collection > 2 and pos >= 0:
            pos = BAD_CLASS_KIND
    if code >= 6 or (code == 0 and collection != 1):
        field, pos = read_string_index(pos, end, strings)
        if code != 7:
            kind, pos = read_type(pos, end)
            key_type = kind == 1 or kind == 3 or kind == 10 or kind == 11 or kind == -1
            if code == 0 and not key_type and pos >= 0:
                pos = BAD_KEY_TYPE
            nullable, pos = read_bool(pos, end)
    if code == 6:
        collection, pos = read_collection(pos, end)
        if kind == 9:
            target, pos = read_string_index(pos, end, strings)
        if collection == 2:
            link_type, pos = read_type(pos, end)
    if pos < 0:
        return pos
    small[_KEY_TYPE, n] = _NO
    small[_VALUE_TYPE, n] = kind
    small[_LINK_TYPE, n] = link_type
    medium[_FIELD, n] = field
    medium[_LINK_TABLE, n] = target
    medium[_PATH_LEN, n] = 0
    wide[_KEY_HI : _VALUE_LO + 1, n] = 0
    wide[_AUX, n] = nullable
    wide[_AUX2, n] = collection
    return pos


@kernel
def number_strings(buf: Any, start: Any, size: Any, slots: Any, number: Any, budget: int) -> int:
    """Give equal strings equal numbers, in order of appearance, by open addressing in ``slots``.

    ``slots`` has a power of two of entries, at least twice as many as there are strings, filled with -1.
    Returns how many different strings there are, or -1 when comparing took more than ``budget`` steps, as strings made
    to collide do.
    """
    mask, count = len(slots) - 1, 0
    for i in range(len(start)):
        hashed = np.uint64(14695981039346656037)
        for j in range(start[i], start[i] + size[i]):
            hashed = (hashed ^ np.uint64(buf[j])) * np.uint64(1099511628211)
        hashed ^= hashed >> np.uint64(32)
        # An entry is 31 more bits of the hash and the string: those bits spare most looks at other strings.
        tag = np.int64((hashed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33))
        slot = np.int64(hashed & np.uint64(mask))
        found = -1
        while slots[slot] >= 0 and found < 0:
            same = 0
            if slots[slot] >> 32 == tag:
                other = slots[slot] & 0xFFFFFFFF
                if size[other] == size[i]:
                    while same < size[i] and buf[start[other] + same] == buf[start[i] + same]:
                        same += 1
                    if same == size[i]:
                        found = other
            budget -= 1 + (same >> 3)
            if budget < 0:
                return -1
            slot = (slot + 1) & mask
        if found < 0:
            slots[slot] = (tag << 32) | i
            number[i] = count
            count += 1
        else:
            number[i] = number[found]
    return count
