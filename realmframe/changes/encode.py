"""The compiled encoder: columns to the protocol's bytes, strings first."""

from __future__ import annotations

from typing import Any

import numpy as np

from realmframe.changes.jit import kernel


@kernel
def _put(out: Any, pos: int, number: int) -> Any:
    """Write a signed integer in its shortest form."""
    if number >= 0:
        value, sign = np.uint64(number), 0
    else:
        value, sign = np.uint64(-(number + 1)), 0x40
    while value >= np.uint64(0x40):
        out[pos] = np.uint8(np.uint64(0x80) | (value & np.uint64(0x7F)))
        pos += 1
        value >>= np.uint64(7)
    out[pos] = np.uint8(value | np.uint64(sign))
    return pos + 1


@kernel
def _put_unsigned(out: Any, pos: int, bits: int) -> Any:
    """Write an unsigned 64-bit integer given as its two's complement."""
    value = np.uint64(bits)
    while value >= np.uint64(0x40):
        out[pos] = np.uint8(np.uint64(0x80) | (value & np.uint64(0x7F)))
        pos += 1
        value >>= np.uint64(7)
    out[pos] = np.uint8(value)
    return pos + 1


@kernel
def _put_words(out: Any, pos: int, high: int, low: int, low_bytes: int) -> Any:
    for i in range(8):
        out[pos + i] = np.uint8((np.uint64(high) >> np.uint64(56 - 8 * i)) & np.uint64(0xFF))
    for i in range(low_bytes):
        out[pos + 8 + i] = np.uint8((np.uint64(low) >> np.uint64(8 * (low_bytes - 1 - i))) & np.uint64(0xFF))
    return pos + 8 + low_bytes


@kernel
def _put_key(out: Any, pos: int, kind: int, high: int, low: int) -> Any:
    pos = _put(out, pos, kind)
    if kind == 1 or kind == 3:
        return _put(out, pos, low)
    if kind == 10:
        return _put_words(out, pos, high, low, 4)
    if kind == 11:
        return _put_words(out, pos, high, low, 8)
    if kind == -1:
        return _put_unsigned(out, _put_unsigned(out, pos, high), low)
    return pos


@kernel
def _put_decimal(out: Any, pos: int, high: int, low: int) -> Any:
    w0 = np.uint64(low)
    w1 = np.uint64(high) & np.uint64(0x1FFFFFFFFFFFF)
    while w0 >= np.uint64(0x40) or w1 != np.uint64(0):
        out[pos] = np.uint8(np.uint64(0x80) | (w0 & np.uint64(0x7F)))
        pos += 1
        w0 = (w0 >> np.uint64(7)) | ((w1 & np.uint64(0x7F)) << np.uint64(57))
        w1 >>= np.uint64(7)
    out[pos] = np.uint8(w0)
    exponent = np.int64((np.uint64(high) >> np.uint64(49)) & np.uint64(0x3FFF)) - 6176
    pos = _put(out, pos + 1, exponent)
    return _put(out, pos, 1 if high < 0 else 0)


@kernel
def _put_payload(out: Any, pos: int, kind: int, high: int, low: int, link_table: int, link_type: int, heap: Any) -> Any:
    pos = _put(out, pos, kind)
    if kind == 1 or kind == 2:
        return _put(out, pos, low)
    if kind == 3 or kind == 4:
        pos = _put(out, pos, low)
        for i in range(low):
            out[pos + i] = heap[high + i]
        return pos + low
    if kind == 5:
        return _put(out, _put(out, pos, high), low)
    if kind == 6 or kind == 7:
        size = 4 if kind == 6 else 8
        for i in range(size):
            out[pos + i] = np.uint8((np.uint64(low) >> np.uint64(8 * i)) & np.uint64(0xFF))
        return pos + size
    if kind == 8:
        return _put_decimal(out, pos, high, low)
    if kind == 9:
        return _put_key(out, _put(out, pos, link_table), link_type, high, low)
    if kind == 10:
        return _put_words(out, pos, high, low, 4)
    if kind == 11:
        return _put_words(out, pos, high, low, 8)
    return pos


@kernel
def room_for(value_type: Any, value_lo: Any, path_len: Any, string_len: Any) -> int:
    """Give bytes that are enough for a changeset."""
    room = 100 * len(value_type) + 16 * len(string_len)
    for i in range(len(value_type)):
        room += 12 * path_len[i]
        if value_type[i] == 3 or value_type[i] == 4:  # schema rows have a length of 0
            room += value_lo[i]
    for i in range(len(string_len)):
        room += string_len[i]
    return room


@kernel
def encode_columns(
    out: Any,
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
    heap: Any,
) -> Any:
    """Write everything into ``out``, which is large enough; return the size."""
    pos = 0
    for i in range(len(string_start)):
        out[pos] = 0x3F
        pos = _put(out, _put(out, pos + 1, i), string_len[i])
        for j in range(string_len[i]):
            out[pos + j] = heap[string_start[i] + j]
        pos += string_len[i]
    for n in range(len(op)):
        code = op[n]
        out[pos] = code
        pos = _put(out, pos + 1, table[n])
        if code == 0 or code == 1 or code == 6 or code == 7:
            pos = _put_schema_row(out, pos, code, field[n], value_type[n], link_table[n], link_type[n], aux[n], aux2[n])
            continue
        pos = _put_key(out, pos, key_type[n], key_hi[n], key_lo[n])
        if code == 2 or code == 3:
            continue
        pos = _put(out, pos, field[n])
        pos = _put(out, pos, path_len[n])
        indexed = False
        for i in range(path_start[n], path_start[n] + path_len[n]):
            indexed = not path_is_key[i]
            if path_is_key[i]:
                out[pos] = 0x40
                pos += 1
            pos = _put(out, pos, path[i])
        if code == 4 or code == 8 or code == 12 or code == 13:
            pos = _put_payload(out, pos, value_type[n], value_hi[n], value_lo[n], link_table[n], link_type[n], heap)
        elif code == 5:
            pos = _put(out, pos, value_lo[n])
        elif code == 9:
            pos = _put(out, pos, aux2[n])
        if code != 5 and code != 12 and code != 13:
            pos = _put(out, pos, aux[n] if code != 4 or indexed else np.int64(aux[n] != 0))
    return pos


@kernel
def _put_schema_row(
    out: Any,
    pos: int,
    code: int,
    field: int,
    value_type: int,
    link_table: int,
    link_type: int,
    aux: int,
    aux2: int,
) -> Any:
    if code == 1:
        return pos
    if code == 0:
        pos = _put(out, pos, aux2)
        if aux2 == 1:
            return pos
    pos = _put(out, pos, field)
    if code == 7:
        return pos
    pos = _put(out, pos, value_type)
    pos = _put(out, pos, aux)
    if code == 0:
        return pos
    pos = _put(out, pos, aux2)
    if value_type == 9:
        pos = _put(out, pos, link_table)
    if aux2 == 2:
        pos = _put(out, pos, link_type)
    return pos
