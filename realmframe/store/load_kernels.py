"""Compiled loading: the instructions that create objects and fill their plain properties, straight into columns."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from realmframe.changes.jit import byte_at, kernel
from realmframe.store.index import hash_piece, opened, place_of

# Why :func:`load_rows` stopped before the end.
DONE: Final = 0
#: At an instruction that loading does not know: the general way has to be gone.
UNFIT: Final = 1
#: At a row of another class.
OTHER_CLASS: Final = 2
#: At a property, or a link's target, whose name was not looked up yet.
NEW_FIELD: Final = 3
NEW_TARGET: Final = 4
#: At an object whose slab is not the one at hand; at an object for which the index is too small.
OTHER_SLAB: Final = 5
NO_ROOM: Final = 6
#: At an element of a collection for which there is no room.
MORE_ELEMENTS: Final = 7

# Columns of a layout: type code on the wire, type code of what is kept (a link is its key), first word, null allowed,
# kind of collection. Of a list, the word counts the elements.
WIRE, KEPT, WORD, NULLABLE, COLLECTION = range(5)
# What is kept between calls: the last object, how many there are, what the status is about, and how many elements.
CURRENT, COUNT, SUBJECT, ELEMENTS = range(4)
# Rows of the elements of collections: object, property, whether it is no null, value, key (address and size).
E_ROW, E_COLUMN, E_VALID, E_WORD, _, E_KEY, E_SIZE = range(7)
ELEMENT_ROWS: Final = 7
_LIST, _DICTIONARY, _SET = 1, 2, 3
#: A property that was not looked up, and one that cannot be loaded.
UNKNOWN: Final = -2
_MAGNITUDE: Final = 0x7FFFFFFFFFFFFFFF
_DECIMAL_ZERO: Final = 0x3040000000000000
_NS: Final = 1_000_000_000
_MAX_SECONDS: Final = 9_223_372_035


@kernel
def _slot(first: Any, second: Any, slots1: Any, slots2: Any, rows: Any, secret: Any) -> Any:
    """Find where a key is, or would be."""
    mask = np.uint64(len(rows) - 1)
    slot = place_of(first, second, secret) & mask
    while rows[slot] >= 0 and (slots1[slot] != first or slots2[slot] != second):
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def _was_there(first: Any, second: Any, slots1: Any, slots2: Any, rows: Any, limit: int, secret: Any) -> bool:
    """Tell whether a key has an id below a limit, which it keeps when its object is erased."""
    mask = np.uint64(len(rows) - 1)
    slot = place_of(first, second, secret) & mask
    while rows[slot] >= 0:
        if slots1[slot] == first and slots2[slot] == second and rows[slot] < limit:
            return True
        slot = (slot + np.uint64(1)) & mask
    return False


@kernel
def rehash(slots1: Any, slots2: Any, rows: Any, new1: Any, new2: Any, new_rows: Any, secret: Any) -> None:
    """Enter the keys of one index into a larger one of the same secret."""
    words_of_secret = opened(secret)
    for i in range(len(rows)):
        if rows[i] >= 0:
            slot = _slot(slots1[i], slots2[i], new1, new2, new_rows, words_of_secret)
            new1[slot], new2[slot], new_rows[slot] = slots1[i], slots2[i], rows[i]


@kernel
def _key(kind: int, high: int, low: int, base: int, string_start: Any, string_len: Any) -> Any:
    """Give the two words as which a key is kept: of a string, address and size."""
    if kind == 3:
        return base + string_start[low], string_len[low]
    if kind == 1:
        return low, np.int64(0)
    return high, low


@kernel
def _is_one_word(kind: int) -> bool:
    return 5 <= kind <= 7 or kind == 1 or kind == 2


@kernel
def _put(words: Any, at: int, word: int, kind: int, high: int, low: int, base: int, null: bool, nullable: bool) -> bool:
    """Write a value that is no link; tell whether loading can."""
    if kind == 3 or kind == 4:
        words[word, at], words[word + 1, at] = base + high, low
    elif kind == 5:
        fits = -_NS < low < _NS and -_MAX_SECONDS <= high <= _MAX_SECONDS
        if not fits or (high > 0 and low < 0) or (high < 0 and low > 0):
            return False
        words[word, at] = high * _NS + low
    elif kind == 6 or kind == 7:
        magnitude = 0x7FFFFFFF if kind == 6 else _MAGNITUDE
        # A number that equals what is there is not written: a zero of the other sign.
        if null or low & magnitude != 0 or words[word, at] & magnitude != 0:
            words[word, at] = low
    elif kind == 8:
        if not nullable and low == 0 and high < 0 and high & _MAGNITUDE == _DECIMAL_ZERO:
            return False
        words[word, at], words[word + 1, at] = low, high
    elif kind == 2:
        words[word, at] = np.int64(low != 0)
    elif kind == 1:
        words[word, at] = low
    else:
        words[word, at], words[word + 1, at] = high, low
    return True


@kernel
def _is_key(address: int, size: int) -> bool:
    """Tell whether text can be the key of a dictionary."""
    fits = size == 0 or byte_at(address) != 36  # a dollar sign
    for at in range(address, address + size):
        fits = fits and byte_at(at) != 46  # a dot
    return fits


@kernel
def _put_element(elements: Any, n: int, kind: int, high: int, low: int, base: int, collection: int) -> bool:
    """Write an element that is neither null nor a link; tell whether loading can."""
    if kind == 5:
        if low < -0x80000000 or low > 0x7FFFFFFF:
            return False
        elements[E_WORD, n], elements[E_WORD + 1, n] = high, low
        return True
    # Of a decimal, only the form that everybody writes; a negative zero depends on what else a list holds.
    if kind == 8 and (high >> 61) & 3 == 3:
        return False
    return bool(_put(elements, n, E_WORD, kind, high, low, base, True, collection == _DICTIONARY))


@kernel
def load_rows(
    start: int,
    stop: int,
    class_number: int,
    key_kind: int,
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
    path_start: Any,
    path_len: Any,
    path: Any,
    path_is_key: Any,
    string_start: Any,
    string_len: Any,
    base: int,
    column_of: Any,
    layout: Any,
    targets: Any,
    state: Any,
    slots1: Any,
    slots2: Any,
    rows: Any,
    base1: Any,
    base2: Any,
    base_rows: Any,
    base_limit: int,
    secret: Any,
    first_row: int,
    words: Any,
    valid: Any,
    elements: Any,
) -> Any:
    """Load rows of one class from ``start`` on; give the row at which it stopped, and why.

    ``base`` is the address of the heap. ``words`` and ``valid`` are the slab with the objects from ``first_row`` on;
    its first two words are the key. ``slots1, slots2, rows`` index the objects loaded, ``base...`` those that were
    there: with ids below ``base_limit``. All have one ``secret``. ``elements`` takes what is put into collections.
    """
    words_of_secret = opened(secret)
    room = words.shape[1]
    current, count, filled = state[CURRENT], state[COUNT], state[ELEMENTS]
    status, n = DONE, start
    while n < stop:
        code = op[n]
        if table[n] != class_number:
            status = OTHER_CLASS
            break
        if (code != 2 and code != 4 and code != 8 and code != 12) or key_type[n] != key_kind:
            status = UNFIT
            break
        high, low = key_hi[n], key_lo[n]
        one, two = _key(key_kind, high, low, base, string_start, string_len)
        at = current - first_row
        known = False
        # An update is mostly of the object of the last instruction, or of the one after it.
        if code != 2:
            known = 0 <= at < room and words[0, at] == one and words[1, at] == two
            if not known and -1 <= at < room - 1 and current + 1 < count:
                at += 1
                known = words[0, at] == one and words[1, at] == two
        if not known:
            if key_kind == 3:
                first, second = hash_piece(one, two, words_of_secret)
            elif key_kind == 1:
                first, second = np.uint64(low), np.uint64(1)
            else:
                first, second = np.uint64(high), np.uint64(low)
            slot = _slot(first, second, slots1, slots2, rows, words_of_secret)
            row = rows[slot]
            fresh = row < 0
            if fresh:
                if code != 2 or _was_there(first, second, base1, base2, base_rows, base_limit, words_of_secret):
                    status = UNFIT
                    break
                if 2 * (count + 1) > len(rows):
                    status = NO_ROOM
                    break
                row = count
            at = row - first_row
            if at < 0 or at >= room:
                state[SUBJECT] = row
                status = OTHER_SLAB
                break
            if fresh:
                slots1[slot], slots2[slot], rows[slot] = first, second, row
                words[0, at], words[1, at] = one, two
                count += 1
        current = first_row + at
        if code == 2:
            n += 1
            continue
        column = column_of[field[n]]
        if column < 0:
            state[SUBJECT] = field[n]
            status = NEW_FIELD if column == UNKNOWN else UNFIT
            break
        kind, word, nullable = value_type[n], layout[column, WORD], layout[column, NULLABLE] != 0
        high, low = value_hi[n], value_lo[n]
        collection = layout[column, COLLECTION]
        if collection != 0:
            if filled == elements.shape[1]:
                status = MORE_ELEMENTS
                break
            step = path_start[n]
            if collection == _LIST:
                size = words[word, at]
                fits = code == 8 and path_len[n] == 1 and not path_is_key[step] and path[step] == size == aux[n]
            elif collection == _SET:
                fits = code == 12 and path_len[n] == 0
            else:
                fits = code == 4 and path_len[n] == 1 and path_is_key[step]
                if fits:
                    address, size = base + string_start[path[step]], string_len[path[step]]
                    fits = _is_key(address, size)
                    elements[E_KEY, filled], elements[E_SIZE, filled] = address, size
            if not fits or kind != (layout[column, WIRE] if kind != 0 or not nullable else 0):
                status = UNFIT
                break
            elements[E_ROW, filled], elements[E_COLUMN, filled] = current, column
            elements[E_VALID, filled] = np.int64(kind != 0)
            if kind == 0:
                elements[E_WORD, filled] = elements[E_WORD + 1, filled] = 0
            elif kind == 9:
                if link_table[n] != targets[column] or link_type[n] != layout[column, KEPT]:
                    state[SUBJECT] = column
                    status = NEW_TARGET if targets[column] == UNKNOWN else UNFIT
                    break
                one, two = _key(link_type[n], high, low, base, string_start, string_len)
                elements[E_WORD, filled], elements[E_WORD + 1, filled] = one, two
            elif not _put_element(elements, filled, kind, high, low, base, collection):
                status = UNFIT
                break
            if collection == _LIST:
                words[word, at] += 1
            filled += 1
            n += 1
            continue
        if code != 4 or path_len[n] != 0:
            status = UNFIT
            break
        if kind == 0:
            if not nullable:
                status = UNFIT
                break
            words[word, at] = 0
            if not _is_one_word(layout[column, KEPT]):
                words[word + 1, at] = 0
            valid[column, at] = 0
            n += 1
            continue
        if kind != layout[column, WIRE]:
            status = UNFIT
            break
        if kind == 9:
            if link_table[n] != targets[column] or link_type[n] != layout[column, KEPT]:
                state[SUBJECT] = column
                status = NEW_TARGET if targets[column] == UNKNOWN else UNFIT
                break
            one, two = _key(link_type[n], high, low, base, string_start, string_len)
            words[word, at] = one
            if not _is_one_word(link_type[n]):
                words[word + 1, at] = two
        elif not _put(words, at, word, kind, high, low, base, nullable and valid[column, at] == 0, nullable):
            status = UNFIT
            break
        valid[column, at] = 1
        n += 1
    state[CURRENT], state[COUNT], state[ELEMENTS] = current, count, filled
    return n, status


@kernel
def _identity(elements: Any, n: int, collection: int, kept: int, secret: Any) -> Any:
    """Give two words that are equal for elements that are one."""
    one, two = elements[E_WORD, n], elements[E_WORD + 1, n]
    if collection == _DICTIONARY:
        return hash_piece(elements[E_KEY, n], elements[E_SIZE, n], secret)
    if elements[E_VALID, n] == 0:
        return np.uint64(0), np.uint64(0)
    if kept == 3 or kept == 4:
        return hash_piece(one, two, secret)
    if kept == 1 or kept == 2:
        return np.uint64(one), np.uint64(0)
    return np.uint64(one), np.uint64(two)


@kernel
def join_equal(elements: Any, layout: Any, slots: Any, secret: Any, kept: Any) -> bool:
    """Make elements that are one into one, and tell which are kept; False if it takes more than that.

    Of equal elements of a set the first is kept; of a dictionary's entries under one key too, with the last value.
    ``slots`` is a power of two, at least twice as many as elements, filled with -1.
    """
    words_of_secret = opened(secret)
    count = elements.shape[1]
    first, second = np.empty(count, np.uint64), np.empty(count, np.uint64)
    mask = np.uint64(len(slots) - 1)
    for n in range(count):
        row, column = elements[E_ROW, n], elements[E_COLUMN, n]
        collection = layout[column, COLLECTION]
        if collection == _LIST:
            continue
        first[n], second[n] = _identity(elements, n, collection, layout[column, KEPT], words_of_secret)
        at = place_of(first[n] ^ (np.uint64(row) * np.uint64(0x9E3779B97F4A7C15)), second[n], words_of_secret)
        slot = (at + np.uint64(column)) & mask
        while True:
            other = slots[slot]
            if other < 0:
                slots[slot] = n
                break
            same = elements[E_ROW, other] == row and elements[E_COLUMN, other] == column
            same = same and first[other] == first[n] and second[other] == second[n]
            if same and (collection == _DICTIONARY or elements[E_VALID, other] == elements[E_VALID, n]):
                # An entry is not written if its number equals the one that is there.
                wire = layout[column, WIRE]
                if collection == _DICTIONARY and 6 <= wire <= 8:
                    return False
                if collection == _DICTIONARY:
                    elements[E_VALID, other] = elements[E_VALID, n]
                    elements[E_WORD, other], elements[E_WORD + 1, other] = elements[E_WORD, n], elements[E_WORD + 1, n]
                kept[n] = False
                break
            slot = (slot + np.uint64(1)) & mask
    return True
