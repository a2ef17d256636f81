"""The compiled decoder: one pass over the bytes, filling columns of a given capacity."""

from __future__ import annotations

from typing import Any

import numpy as np

from realmframe.changes.jit import kernel
from realmframe.changes.kernels import (
    BAD_COLLECTION,
    BAD_INTEGER,
    BAD_INTERN_INDEX,
    BAD_KEY_TYPE,
    BAD_OPCODE,
    BAD_TABLE_KIND,
    NO_INDEX,
    NO_ROOM,
    REPEATED_STRING,
    TOO_LONG,
    TRUNCATED,
    _byte,
    _key,
    _payload,
    _signed,
    _string_index,
    _type_code,
    _unsigned,
    _unsigned32,
)

_MAX_STRING = 16_777_199


@kernel
def _error(pos: int) -> Any:
    """Tell which error a failed reader's position stands for."""
    if pos == -1:
        return TRUNCATED
    if pos == -2:
        return BAD_INTEGER
    return -pos - 100


@kernel
def _path(buf: Any, pos: int, strings: int, used: int, path: Any, path_is_key: Any) -> Any:
    """Read a path into ``path[used:]``: length, whether it ends in an index, position."""
    length, pos = _unsigned32(buf, pos)
    if pos < 0:
        return length, False, pos
    if length > len(buf) - pos:
        return length, False, -1
    if used + length > len(path):
        return length, False, -100 - NO_ROOM
    last = False
    for i in range(length):
        element, pos = _signed(buf, pos)
        if pos < 0:
            return length, False, pos
        last = element >= 0
        if last:
            path[used + i] = element & 0xFFFFFFFF
            path_is_key[used + i] = False
        else:
            name, pos = _string_index(buf, pos, strings)
            if pos < 0:
                return length, False, pos
            path[used + i] = name
            path_is_key[used + i] = True
    return length, last, pos


@kernel
def decode_columns(
    buf: Any,
    op: Any,
    table: Any,
    field: Any,
    key_type: Any,
    key_hi: Any,
    key_lo: Any,
    value_type: Any,
    value_hi: Any,
    value_lo: Any,
    link_table: Any,
    link_type: Any,
    aux: Any,
    aux2: Any,
    path_start: Any,
    path_len: Any,
    path: Any,
    path_is_key: Any,
    string_start: Any,
    string_len: Any,
) -> Any:
    """Fill the columns; return error (0 for none), offset, rows, path steps, strings."""
    pos, n, steps, strings, end = 0, 0, 0, 0, len(buf)
    while pos < end:
        begun = pos
        code, pos = _unsigned(buf, pos)
        if pos < 0:
            return _error(pos), begun, n, steps, strings
        if code == 63:
            index, pos = _unsigned32(buf, pos)
            if pos < 0:
                return _error(pos), begun, n, steps, strings
            if index != strings:
                return BAD_INTERN_INDEX, begun, n, steps, strings
            size, pos = _unsigned(buf, pos)
            if pos < 0:
                return _error(pos), begun, n, steps, strings
            if size < 0 or size > _MAX_STRING:
                return TOO_LONG, begun, n, steps, strings
            if size > end - pos:
                return TRUNCATED, begun, n, steps, strings
            if strings >= len(string_start):
                return NO_ROOM, begun, n, steps, strings
            string_start[strings] = pos
            string_len[strings] = size
            strings += 1
            pos += size
            continue
        code &= 0xFF
        if code > 13:
            return BAD_OPCODE, begun, n, steps, strings
        if n >= len(op):
            return NO_ROOM, begun, n, steps, strings
        op[n] = code
        field[n] = -1
        key_type[n] = 127
        key_hi[n] = 0
        key_lo[n] = 0
        value_type[n] = 127
        value_hi[n] = 0
        value_lo[n] = 0
        link_table[n] = -1
        link_type[n] = 127
        aux[n] = 0
        aux2[n] = 0
        path_start[n] = steps
        path_len[n] = 0
        name, pos = _string_index(buf, pos, strings)
        if pos < 0:
            return _error(pos), begun, n, steps, strings
        table[n] = name
        if code == 0 or code == 1 or code == 6 or code == 7:
            pos = _schema_row(buf, pos, strings, code, n, field, value_type, link_table, link_type, aux, aux2)
            if pos < 0:
                return _error(pos), begun, n, steps, strings
            n += 1
            continue
        kind, high, low, pos = _key(buf, pos, strings)
        if pos < 0:
            return _error(pos), begun, n, steps, strings
        key_type[n] = kind
        key_hi[n] = high
        key_lo[n] = low
        if code == 2 or code == 3:
            n += 1
            continue
        name, pos = _string_index(buf, pos, strings)
        if pos < 0:
            return _error(pos), begun, n, steps, strings
        field[n] = name
        length, indexed, pos = _path(buf, pos, strings, steps, path, path_is_key)
        if pos < 0:
            return _error(pos), begun, n, steps, strings
        path_len[n] = length
        steps += length
        if (code == 8 or code == 9 or code == 10) and not indexed:
            return NO_INDEX, begun, n, steps, strings
        if code == 4 or code == 8 or code == 12 or code == 13:
            kind, high, low, target, target_type, pos = _payload(buf, pos, strings)
            if pos < 0:
                return _error(pos), begun, n, steps, strings
            value_type[n] = kind
            value_hi[n] = high
            value_lo[n] = low
            link_table[n] = target
            link_type[n] = target_type
        elif code == 5:
            low, pos = _signed(buf, pos)
            if pos < 0:
                return _error(pos), begun, n, steps, strings
            value_type[n] = 1
            value_lo[n] = low
        elif code == 9:
            low, pos = _unsigned32(buf, pos)
            if pos < 0:
                return _error(pos), begun, n, steps, strings
            aux2[n] = low
        if code == 8 or code == 9 or code == 10 or (code == 4 and indexed):
            low, pos = _unsigned32(buf, pos)
        elif code == 4:
            low, pos = _byte(buf, pos)
            low = np.int64(low != 0)
        elif code == 11:
            low, pos = _byte(buf, pos)
            if pos >= 0 and low > 3:
                pos = -100 - BAD_COLLECTION
        else:
            low = 0
        if pos < 0:
            return _error(pos), begun, n, steps, strings
        aux[n] = low
        n += 1
    return 0, 0, n, steps, strings


@kernel
def _schema_row(
    buf: Any,
    pos: int,
    strings: int,
    code: int,
    n: int,
    field: Any,
    value_type: Any,
    link_table: Any,
    link_type: Any,
    aux: Any,
    aux2: Any,
) -> Any:
    """Read the rest of AddTable, AddColumn or EraseColumn into row ``n``; return the position."""
    if code == 1:
        return pos
    if code == 0:
        kind, pos = _byte(buf, pos)
        if pos < 0:
            return pos
        if kind > 2:
            return -100 - BAD_TABLE_KIND
        aux2[n] = kind
        if kind == 1:
            return pos
    name, pos = _string_index(buf, pos, strings)
    if pos < 0 or code == 7:
        field[n] = name
        return pos
    field[n] = name
    kind, pos = _type_code(buf, pos)
    if pos < 0:
        return pos
    if code == 0 and not (kind == 1 or kind == 3 or kind == 10 or kind == 11 or kind == -1):
        return -100 - BAD_KEY_TYPE
    value_type[n] = kind
    flag, pos = _byte(buf, pos)
    if pos < 0:
        return pos
    aux[n] = np.int64(flag != 0)
    if code == 0:
        return pos
    collection, pos = _byte(buf, pos)
    if pos < 0:
        return pos
    if collection > 3:
        return -100 - BAD_COLLECTION
    aux2[n] = collection
    if kind == 9:
        name, pos = _string_index(buf, pos, strings)
        if pos < 0:
            return pos
        link_table[n] = name
    if collection == 2:
        kind, pos = _type_code(buf, pos)
        if pos < 0:
            return pos
        link_type[n] = kind
    return pos


@kernel
def first_repeated(buf: Any, start: Any, size: Any, slots: Any) -> Any:
    """Find a string that stands twice, by an open-addressing table of ``slots`` (a power of two, filled with -1)."""
    mask = len(slots) - 1
    for i in range(len(start)):
        hashed = np.uint64(14695981039346656037)
        for j in range(start[i], start[i] + size[i]):
            hashed = (hashed ^ np.uint64(buf[j])) * np.uint64(1099511628211)
        hashed ^= hashed >> np.uint64(32)
        slot = np.int64(hashed) & mask
        while slots[slot] >= 0:
            other = slots[slot]
            if size[other] == size[i]:
                same = True
                for j in range(size[i]):
                    if buf[start[other] + j] != buf[start[i] + j]:
                        same = False
                        break
                if same:
                    return i
            slot = (slot + 1) & mask
        slots[slot] = i
    return -1


__all__ = ["REPEATED_STRING", "decode_columns", "first_repeated"]
