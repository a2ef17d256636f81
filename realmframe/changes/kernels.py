"""Compiled readers of the protocol's numbers, keys and values.

A reader gets the address to read at and the address where the bytes end, and gives what it read and the address after
it. In place of an address a negative number stands for an error, which every reader passes on: a chain of reads
is checked once, at its end, and nothing is raised in compiled code.

The integers: base 128, least significant group first, sign in bit 6 of the last byte, magnitude complemented when
negative, as many bytes as the target's width allows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from realmframe.changes.jit import byte_at, kernel, reversed_word_at, word_at

# What can be wrong, in place of an address; the codec has the words.
TRUNCATED: Final = -1
BAD_INTEGER: Final = -2
BAD_STRING_INDEX: Final = -3
BAD_INTERN_INDEX: Final = -4
BAD_TYPE: Final = -5
BAD_OPCODE: Final = -6
NO_INDEX: Final = -7
TOO_LONG: Final = -8
BAD_TIMESTAMP: Final = -9
BAD_KEY_TYPE: Final = -10
BAD_COLLECTION: Final = -11
BAD_CLASS_KIND: Final = -12
REPEATED_STRING: Final = -13
NO_ROOM: Final = -14

#: Longest string that the protocol takes, in bytes.
MAX_STRING: Final = 16_777_199
_NONE: Final = -1
_NO: Final = 127


@kernel
def read_varint(pos: int, end: int, max_bytes: int, last_max: int) -> Any:
    """Read a magnitude and its sign; in the last of ``max_bytes`` no more than ``last_max`` fits."""
    value = np.uint64(0)
    if pos < 0:
        return value, False, pos
    for i in range(max_bytes):
        if pos >= end:
            return value, False, TRUNCATED
        part = np.uint64(byte_at(pos))
        pos += 1
        if part < np.uint64(0x80):
            low = part & np.uint64(0x3F)
            if i == max_bytes - 1 and low > np.uint64(last_max):
                return value, False, BAD_INTEGER
            return value | (low << np.uint64(7 * i)), (part & np.uint64(0x40)) != np.uint64(0), pos
        value |= (part & np.uint64(0x7F)) << np.uint64(7 * i)
    return value, False, BAD_INTEGER


@kernel
def read_signed(pos: int, end: int) -> Any:
    """Read a signed 64-bit integer."""
    if 0 <= pos < end:
        first = np.int64(byte_at(pos))
        if first < 0x40:
            return first, pos + 1
    value, negative, pos = read_varint(pos, end, 10, 0)
    number = np.int64(value)
    return (-number - 1 if negative else number), pos


@kernel
def read_signed32(pos: int, end: int) -> Any:
    """Read a signed 32-bit integer."""
    value, negative, pos = read_varint(pos, end, 5, 7)
    number = np.int64(value)
    return (-number - 1 if negative else number), pos


@kernel
def read_unsigned(pos: int, end: int) -> Any:
    """Read an unsigned 64-bit integer as its two's complement; a negative one wraps, but -1 is refused."""
    if 0 <= pos < end:
        first = np.int64(byte_at(pos))
        if first < 0x40:
            return first, pos + 1
    value, negative, pos = read_varint(pos, end, 10, 1)
    number = np.int64(value)
    if negative:
        if number == 0:
            return number, BAD_INTEGER
        number = -number - 1
    return number, pos


@kernel
def read_unsigned32(pos: int, end: int) -> Any:
    """Read an unsigned 32-bit integer; a negative one wraps, but -1 is refused."""
    if 0 <= pos < end:
        first = np.int64(byte_at(pos))
        if first < 0x40:
            return first, pos + 1
    value, negative, pos = read_varint(pos, end, 5, 15)
    number = np.int64(value)
    if negative:
        if number == 0:
            return number, BAD_INTEGER
        number = (-number - 1) & 0xFFFFFFFF
    return number, pos


@kernel
def read_byte(pos: int, end: int) -> Any:
    """Read an unsigned 8-bit integer; a negative one wraps, but -1 is refused."""
    if 0 <= pos < end:
        first = np.int64(byte_at(pos))
        if first < 0x40:
            return first, pos + 1
    value, negative, pos = read_varint(pos, end, 2, 1)
    number = np.int64(value)
    if negative:
        if number == 0:
            return number, BAD_INTEGER
        number = (-number - 1) & 0xFF
    return number, pos


@kernel
def read_bool(pos: int, end: int) -> Any:
    """Read a boolean as 0 or 1."""
    value, pos = read_byte(pos, end)
    return np.int64(value != 0), pos


@kernel
def read_type(pos: int, end: int) -> Any:
    """Read a type code: a signed integer of which the low eight bits count."""
    value, pos = read_signed(pos, end)
    code = value & 0xFF
    if code > 127:
        code -= 256
    if pos >= 0 and not -6 <= code <= 11:
        pos = BAD_TYPE
    return code, pos


@kernel
def read_collection(pos: int, end: int) -> Any:
    """Read a collection kind."""
    value, pos = read_byte(pos, end)
    if pos >= 0 and value > 3:
        pos = BAD_COLLECTION
    return value, pos


@kernel
def read_string_index(pos: int, end: int, strings: int) -> Any:
    """Read the index of a string of which ``strings`` are known."""
    value, pos = read_unsigned32(pos, end)
    if pos >= 0 and value >= strings:
        pos = BAD_STRING_INDEX
    return value, pos


@kernel
def skip(pos: int, end: int, size: int) -> int:
    """Give the address after ``size`` bytes."""
    if pos < 0:
        return pos
    if size < 0 or size > end - pos:
        return TRUNCATED
    return pos + size


@kernel
def read_key(pos: int, end: int, strings: int) -> Any:
    """Read an object key: type, high word, low word."""
    kind, pos = read_type(pos, end)
    high, low = np.int64(0), np.int64(0)
    if kind == 1:
        low, pos = read_signed(pos, end)
    elif kind == 3:
        low, pos = read_string_index(pos, end, strings)
    elif kind == 10 or kind == 11:
        high, low, pos = read_words(pos, end, kind)
    elif kind == -1:
        high, pos = read_unsigned(pos, end)
        low, pos = read_unsigned(pos, end)
    elif kind != 0 and pos >= 0:
        pos = BAD_KEY_TYPE
    return kind, high, low, pos


@kernel
def read_words(pos: int, end: int, kind: int) -> Any:
    """Read the two words of an ObjectId (type 10: 8 and 4 bytes) or a UUID (8 and 8)."""
    after = skip(pos, end, 12 if kind == 10 else 16)
    if after < 0:
        return np.int64(0), np.int64(0), after
    low = reversed_word_at(after - 8)
    if kind == 10:
        low &= 0xFFFFFFFF
    return reversed_word_at(pos), low, after


@kernel
def read_decimal(pos: int, end: int) -> Any:
    """Read coefficient, exponent and sign into the two words of the pattern."""
    low, high, i = np.uint64(0), np.uint64(0), 0
    while pos >= 0:
        if pos >= end:
            pos = TRUNCATED
        elif i >= 17:
            pos = BAD_INTEGER
        else:
            part = np.uint64(byte_at(pos))
            group = part & np.uint64(0x7F)
            pos += 1
            if i <= 9:
                low |= group << np.uint64(7 * i)
            if i == 9:
                high |= group >> np.uint64(1)
            elif i > 9:
                high |= group << np.uint64(7 * i - 64)
            i += 1
            if part < np.uint64(0x80):
                break
    exponent, pos = read_signed32(pos, end)
    sign, pos = read_signed32(pos, end)
    high |= np.uint64(exponent + 6176) << np.uint64(49)
    if sign != 0:
        high |= np.uint64(1) << np.uint64(63)
    return np.int64(high), np.int64(low), pos


@kernel
def read_value(pos: int, end: int, base: int, strings: int) -> Any:
    """Read a value: type, high word, low word, link table, link key type; inline bytes as offset from ``base``."""
    kind, pos = read_type(pos, end)
    high, low, table, key_type = np.int64(0), np.int64(0), np.int64(_NONE), np.int64(_NO)
    if pos < 0:
        return kind, high, low, table, key_type, pos
    if kind == 1:
        low, pos = read_signed(pos, end)
    elif kind == 3 or kind == 4:
        low, pos = read_unsigned(pos, end)
        high = np.int64(pos - base)
        if kind == 3 and pos >= 0 and (low < 0 or low > MAX_STRING):
            pos = TOO_LONG
        pos = skip(pos, end, low)
    elif kind == 7:
        after = skip(pos, end, 8)
        low, pos = (word_at(pos) if after >= 0 else np.int64(0)), after
    elif kind == 5:
        high, pos = read_signed(pos, end)
        low, pos = read_signed(pos, end)
        if low > 0x7FFFFFFF and pos >= 0:
            pos = BAD_TIMESTAMP
        low = np.int64(np.int32(low))
    elif kind == 2:
        low, pos = read_bool(pos, end)
    elif kind == 6:
        after = skip(pos, end, 4)
        if after >= 0:
            for i in range(4):
                low |= np.int64(byte_at(pos + i)) << (8 * i)
        pos = after
    elif kind == 8:
        high, low, pos = read_decimal(pos, end)
    elif kind == 9:
        table, pos = read_string_index(pos, end, strings)
        key_type, high, low, pos = read_key(pos, end, strings)
    elif kind == 10 or kind == 11:
        high, low, pos = read_words(pos, end, kind)
    elif kind == -1:
        pos = BAD_TYPE
    return kind, high, low, table, key_type, pos
