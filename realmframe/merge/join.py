"""Which rows of two sides can conflict at all, found in columns.

Everything is compared by 64-bit hashes of content, so that the string tables of the changesets need not agree. Two
things with one hash only cost time: the rules compare the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes.columns import IS_SCHEMA
from realmframe.changes.jit import kernel
from realmframe.model import PayloadType

_ERASE_TABLE, ERASE_OBJECT, _ADD_COLUMN = 1, 3, 6
_IS_DESTRUCTIVE = np.isin(np.arange(256), (1, 7))
HAS_PATH = np.isin(np.arange(256), (4, 5, 8, 9, 10, 11, 12, 13))
_LINK = int(PayloadType.LINK)


@kernel
def _mix(a: Any, b: Any) -> Any:
    h = (a ^ (b * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(32)
    return h


@kernel
def _string_hashes(heap: Any, start: Any, size: Any, out: Any) -> None:
    for s in range(len(start)):
        h = np.uint64(0xCBF29CE484222325) ^ np.uint64(size[s])
        for j in range(start[s], start[s] + size[s]):
            h = (h ^ np.uint64(heap[j])) * np.uint64(0x100000001B3)
        out[s] = _mix(h, np.uint64(size[s]))


@kernel
def _row_hashes(
    table: Any, name: Any, kind: Any, high: Any, low: Any, strings: Any, of_object: Any, of_field: Any
) -> None:
    for r in range(len(table)):
        key = np.uint64(low[r])
        if kind[r] == 3:
            key = strings[low[r]]
        key = _mix(key, np.uint64(high[r]))
        h = _mix(strings[table[r]], key + np.uint64(np.int64(kind[r]) + 8))
        of_object[r] = h
        of_field[r] = _mix(h, strings[name[r]]) if name[r] >= 0 else h


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one side, its changesets end to end, as what they are about."""

    op: Any
    of_class: Any
    of_object: Any
    of_field: Any
    #: The class that an AddColumn links to; 0 elsewhere.
    of_target: Any

    @classmethod
    def of(cls, side: Sequence[Changeset]) -> Rows:
        """Hash what each row of some changesets is about."""
        parts = [_hashes(c) for c in side]
        return parts[0] if len(parts) == 1 else cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def __iter__(self) -> Any:
        return iter((self.op, self.of_class, self.of_object, self.of_field, self.of_target))


def _hashes(c: Changeset) -> Rows:
    strings = np.empty(len(c.string_start), np.uint64)
    _string_hashes(c.heap, c.string_start, c.string_len, strings)
    of_object, of_field = np.empty(len(c), np.uint64), np.empty(len(c), np.uint64)
    _row_hashes(c.table, c.field, c.key_type, c.key_hi, c.key_lo, strings, of_object, of_field)
    of_target = np.zeros(len(c), np.uint64)
    linking = np.flatnonzero((c.op == _ADD_COLUMN) & (c.value_type == _LINK))
    of_target[linking] = strings[c.link_table[linking]]
    of_class = strings[c.table] if len(c) else np.empty(0, np.uint64)
    return Rows(c.op, of_class, of_object, of_field, of_target)


def _shared(one: Any, other: Any) -> tuple[Any, Any]:
    """Give the places in each of two arrays of hashes whose value the other array has too.

    A bitmap of the low bits leaves few of those that are in one array only; sorting is for the rest.
    """
    nothing = np.empty(0, np.int64)
    if not len(one) or not len(other):
        return nothing, nothing
    mask = np.uint64((1 << (8 * max(len(one), len(other))).bit_length()) - 1)
    low = one & mask, other & mask
    places = []
    for mine, its in (low, low[::-1]):
        seen = np.zeros(int(mask) + 1, np.bool_)
        seen[its] = True
        places.append(np.flatnonzero(seen[mine]))
    if not len(places[0]) or not len(places[1]):
        return nothing, nothing
    left, right = one[places[0]], other[places[1]]
    return places[0][np.isin(left, right)], places[1][np.isin(right, left)]


def _join_objects(left: Rows, right: Rows, mark: Callable[[int, Any], None]) -> None:
    """Mark what meets on a field, and erased objects with everything that the other side does to them."""
    fields = [np.flatnonzero(HAS_PATH[side.op]) for side in (left, right)]
    found = _shared(left.of_field[fields[0]], right.of_field[fields[1]])
    for side in (0, 1):
        mark(side, fields[side][found[side]])
    for side, (mine, its) in enumerate(((left, right), (right, left))):
        erases = np.flatnonzero(mine.op == ERASE_OBJECT)
        if len(erases):
            theirs = np.flatnonzero(~IS_SCHEMA[its.op])
            ours, hit = _shared(mine.of_object[erases], its.of_object[theirs])
            mark(side, erases[ours])
            mark(1 - side, theirs[hit])


def _join_schema(left: Rows, right: Rows, mark: Callable[[int, Any], None]) -> None:
    """Mark the schema, and what the other side does to classes that are erased or lose a property."""
    rows = [np.flatnonzero(IS_SCHEMA[side.op]) for side in (left, right)]
    for side, (mine, its) in enumerate(((left, right), (right, left))):
        if not len(rows[side]):
            continue
        if len(rows[1 - side]):
            mark(side, rows[side])
        breaking = rows[side][_IS_DESTRUCTIVE[mine.op[rows[side]]]]
        if not len(breaking):
            continue
        mark(side, breaking)
        classes = mine.of_class[breaking]
        erased = mine.of_class[breaking[mine.op[breaking] == _ERASE_TABLE]]
        # A property that links to an erased class is erased with it: its class is concerned too.
        linking = np.flatnonzero((its.of_target != 0) & np.isin(its.of_target, erased))
        mark(1 - side, np.flatnonzero(np.isin(its.of_class, np.concatenate([classes, its.of_class[linking]]))))


def joined(left: Rows, right: Rows) -> tuple[Any, Any] | None:
    """Mark the rows of each side that may conflict with the other side; None if there are none.

    Those are: instructions on one field of one object; EraseObject, and what the other side does to the object; the
    schema, if both sides change it; EraseTable and EraseColumn, and what the other side does to the class.
    """
    marks = np.zeros(len(left.op), np.bool_), np.zeros(len(right.op), np.bool_)

    def mark(side: int, rows: Any) -> None:
        marks[side][rows] = True

    _join_objects(left, right, mark)
    _join_schema(left, right, mark)
    return marks if marks[0].any() and marks[1].any() else None


def common_rows(left: Sequence[Changeset], right: Sequence[Changeset]) -> tuple[list[Any], list[Any]] | None:
    """Give the rows of each changeset that may conflict with the other side; None if there are none."""
    if not any(len(c) for c in left) or not any(len(c) for c in right):
        return None
    marks = joined(Rows.of(left), Rows.of(right))
    if marks is None:
        return None
    return split_rows(marks[0], left), split_rows(marks[1], right)


def split_rows(marked: Any, side: Sequence[Changeset]) -> list[Any]:
    """Give the marked rows of each changeset of a side."""
    ends = np.cumsum([len(c) for c in side])
    rows = np.flatnonzero(marked)
    places = [0, *np.searchsorted(rows, ends).tolist()]
    return [rows[a:b] - (end - len(c)) for a, b, end, c in zip(places, places[1:], ends.tolist(), side, strict=False)]
