"""Compiled kernels: the protocol's bytes to columns and back.

Every reader takes a buffer and a position and returns the position after what it read, so that nothing is raised in
compiled code: -1 means that the bytes end too early, -2 that an integer does not fit, -100 minus an error the others.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from realmframe.changes.jit import kernel

# What can be wrong; the codec has the words.
TRUNCATED: Final = 1
BAD_INTEGER: Final = 2
BAD_STRING_INDEX: Final = 3
BAD_INTERN_INDEX: Final = 4
BAD_TYPE: Final = 5
BAD_OPCODE: Final = 6
NO_INDEX: Final = 7
TOO_LONG: Final = 8
BAD_TIMESTAMP: Final = 9
BAD_KEY_TYPE: Final = 10
BAD_COLLECTION: Final = 11
BAD_TABLE_KIND: Final = 12
REPEATED_STRING: Final = 13
NO_ROOM: Final = 14

_MAX_STRING: Final = 16_777_199
_NONE: Final = -1
_NO: Final = 127


@kernel
def _varint(buf: Any, pos: int, max_bytes: int, last_max: int) -> Any:
    """Read magnitude and sign; position -1 when truncated, -2 when it does not fit."""
    end = len(buf)
    value = np.uint64(0)
    for i in range(max_bytes):
        if pos >= end:
            return value, False, -1
        part = buf[pos]
        pos += 1
        if part & 0x80 == 0:
            low = np.uint64(part & 0x3F)
            if i == max_bytes - 1 and low > np.uint64(last_max):
                return value, False, -2
            value |= low << np.uint64(7 * i)
            return value, (part & 0x40) != 0, pos
        if i == max_bytes - 1:
            return value, False, -2
        value |= np.uint64(part & 0x7F) << np.uint64(7 * i)
    return value, False, -2


@kernel
def _signed(buf: Any, pos: int) -> Any:
    """Read a signed 64-bit integer."""
    if pos < len(buf):
        first = buf[pos]
        if first < 0x40:
            return np.int64(first), pos + 1
    value, negative, pos = _varint(buf, pos, 10, 0)
    number = np.int64(value)
    if negative:
        number = -number - 1
    return number, pos


@kernel
def _signed32(buf: Any, pos: int) -> Any:
    """Read a signed 32-bit integer."""
    value, negative, pos = _varint(buf, pos, 5, 7)
    number = np.int64(value)
    if negative:
        number = -number - 1
    return number, pos


@kernel
def _unsigned(buf: Any, pos: int) -> Any:
    """Read an unsigned 64-bit integer as its two's complement; a negative other than -1 wraps."""
    value, negative, pos = _varint(buf, pos, 10, 1)
    number = np.int64(value)
    if negative:
        if value == 0:
            return number, -2
        number = -number - 1
    return number, pos


@kernel
def _unsigned32(buf: Any, pos: int) -> Any:
    """Read an unsigned 32-bit integer."""
    if pos < len(buf):
        first = buf[pos]
        if first < 0x40:
            return np.int64(first), pos + 1
    value, negative, pos = _varint(buf, pos, 5, 15)
    number = np.int64(value)
    if negative:
        if number == 0:
            return number, -2
        number = (-number - 1) & 0xFFFFFFFF
    return number, pos


@kernel
def _byte(buf: Any, pos: int) -> Any:
    """Read an unsigned 8-bit integer."""
    value, negative, pos = _varint(buf, pos, 2, 1)
    number = np.int64(value)
    if negative:
        if number == 0:
            return number, -2
        number = (-number - 1) & 0xFF
    return number, pos


@kernel
def _type_code(buf: Any, pos: int) -> Any:
    """Read a type code: a signed integer of which the low eight bits count."""
    value, pos = _signed(buf, pos)
    code = value & 0xFF
    if code > 127:
        code -= 256
    if pos >= 0 and not -6 <= code <= 11:
        return code, -100 - BAD_TYPE
    return code, pos


@kernel
def _string_index(buf: Any, pos: int, strings: int) -> Any:
    value, pos = _unsigned32(buf, pos)
    if pos >= 0 and value >= strings:
        return value, -100 - BAD_STRING_INDEX
    return value, pos


@kernel
def _big_endian(buf: Any, pos: int, size: int) -> Any:
    value = np.uint64(0)
    for i in range(size):
        value = (value << np.uint64(8)) | np.uint64(buf[pos + i])
    return np.int64(value)


@kernel
def _key(buf: Any, pos: int, strings: int) -> Any:
    """Read an object key: type, high word, low word, position."""
    kind, pos = _type_code(buf, pos)
    if pos < 0:
        return kind, 0, 0, pos
    if kind == 1:
        value, pos = _signed(buf, pos)
        return kind, 0, value, pos
    if kind == 3:
        value, pos = _string_index(buf, pos, strings)
        return kind, 0, value, pos
    if kind == 10:
        if pos + 12 > len(buf):
            return kind, 0, 0, -1
        return kind, _big_endian(buf, pos, 8), _big_endian(buf, pos + 8, 4), pos + 12
    if kind == 11:
        if pos + 16 > len(buf):
            return kind, 0, 0, -1
        return kind, _big_endian(buf, pos, 8), _big_endian(buf, pos + 8, 8), pos + 16
    if kind == 0:
        return kind, 0, 0, pos
    if kind == -1:
        high, pos = _unsigned(buf, pos)
        if pos < 0:
            return kind, 0, 0, pos
        low, pos = _unsigned(buf, pos)
        return kind, high, low, pos
    return kind, 0, 0, -100 - BAD_KEY_TYPE


@kernel
def _decimal(buf: Any, pos: int) -> Any:
    """Read coefficient, exponent and sign into the two words of the pattern."""
    low, high, end = np.uint64(0), np.uint64(0), len(buf)
    i = 0
    while True:
        if pos >= end:
            return np.int64(0), np.int64(0), -1
        if i >= 17:
            return np.int64(0), np.int64(0), -2
        byte = buf[pos]
        part = np.uint64(byte & 0x7F)
        pos += 1
        if i < 9:
            low |= part << np.uint64(7 * i)
        elif i == 9:
            low |= part << np.uint64(63)
            high |= part >> np.uint64(1)
        else:
            high |= part << np.uint64(7 * i - 64)
        i += 1
        if byte & 0x80 == 0:
            break
    exponent, pos = _signed32(buf, pos)
    if pos < 0:
        return np.int64(0), np.int64(0), pos
    sign, pos = _signed32(buf, pos)
    if pos < 0:
        return np.int64(0), np.int64(0), pos
    high |= np.uint64(exponent + 6176) << np.uint64(49)
    if sign != 0:
        high |= np.uint64(1) << np.uint64(63)
    return np.int64(high), np.int64(low), pos


@kernel
def _payload(buf: Any, pos: int, strings: int) -> Any:
    """Read a value: type, high, low, link table, link key type, position."""
    kind, pos = _type_code(buf, pos)
    if pos < 0:
        return kind, 0, 0, _NONE, _NO, pos
    if kind == 1:
        value, pos = _signed(buf, pos)
        return kind, 0, value, _NONE, _NO, pos
    if kind == 3 or kind == 4:
        size, pos = _unsigned(buf, pos)
        if pos < 0:
            return kind, 0, 0, _NONE, _NO, pos
        if kind == 3 and (size < 0 or size > _MAX_STRING):
            return kind, 0, 0, _NONE, _NO, -100 - TOO_LONG
        if size < 0 or size > len(buf) - pos:
            return kind, 0, 0, _NONE, _NO, -1
        return kind, pos, size, _NONE, _NO, pos + size
    if kind == 7:
        if pos + 8 > len(buf):
            return kind, 0, 0, _NONE, _NO, -1
        bits = np.uint64(0)
        for i in range(8):
            bits |= np.uint64(buf[pos + i]) << np.uint64(8 * i)
        return kind, 0, np.int64(bits), _NONE, _NO, pos + 8
    if kind == 5:
        seconds, pos = _signed(buf, pos)
        if pos < 0:
            return kind, 0, 0, _NONE, _NO, pos
        nanos, pos = _signed(buf, pos)
        if pos >= 0 and nanos > 0x7FFFFFFF:
            return kind, 0, 0, _NONE, _NO, -100 - BAD_TIMESTAMP
        return kind, seconds, np.int64(np.int32(nanos)), _NONE, _NO, pos
    if kind == 2:
        value, pos = _byte(buf, pos)
        return kind, 0, np.int64(value != 0), _NONE, _NO, pos
    if kind == 6:
        if pos + 4 > len(buf):
            return kind, 0, 0, _NONE, _NO, -1
        bits = np.uint64(0)
        for i in range(4):
            bits |= np.uint64(buf[pos + i]) << np.uint64(8 * i)
        return kind, 0, np.int64(bits), _NONE, _NO, pos + 4
    if kind == 8:
        high, low, pos = _decimal(buf, pos)
        return kind, high, low, _NONE, _NO, pos
    if kind == 9:
        table, pos = _string_index(buf, pos, strings)
        if pos < 0:
            return kind, 0, 0, _NONE, _NO, pos
        key_type, high, low, pos = _key(buf, pos, strings)
        return kind, high, low, table, key_type, pos
    if kind == 10:
        if pos + 12 > len(buf):
            return kind, 0, 0, _NONE, _NO, -1
        return kind, _big_endian(buf, pos, 8), _big_endian(buf, pos + 8, 4), _NONE, _NO, pos + 12
    if kind == 11:
        if pos + 16 > len(buf):
            return kind, 0, 0, _NONE, _NO, -1
        return kind, _big_endian(buf, pos, 8), _big_endian(buf, pos + 8, 8), _NONE, _NO, pos + 16
    if kind == -1:
        return kind, 0, 0, _NONE, _NO, -100 - BAD_TYPE
    return kind, 0, 0, _NONE, _NO, pos
