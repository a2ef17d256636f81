"""Which rows of two sides can conflict at all, found in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes.jit import kernel


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
def _object_hashes(table: Any, kind: Any, high: Any, low: Any, strings: Any, out: Any) -> None:
    for r in range(len(table)):
        key = np.uint64(low[r])
        if kind[r] == 3:
            key = strings[low[r]]
        key = _mix(key, np.uint64(high[r]))
        out[r] = _mix(strings[table[r]], key + np.uint64(np.int64(kind[r]) + 8))


def _hashes(changeset: Changeset) -> Any:
    """Hash the object of each row: equal objects have equal hashes."""
    strings = np.empty(len(changeset.string_start), np.uint64)
    _string_hashes(changeset.heap, changeset.string_start, changeset.string_len, strings)
    out = np.empty(len(changeset), np.uint64)
    c = changeset
    _object_hashes(c.table, c.key_type, c.key_hi, c.key_lo, strings, out)
    return out


def _schema_rows(changeset: Changeset) -> Any:
    op = changeset.op
    return (op == 0) | (op == 1) | (op == 6) | (op == 7)


def common_rows(left: Sequence[Changeset], right: Sequence[Changeset]) -> tuple[list[Any], list[Any]] | None:
    """Give the rows of each changeset that may conflict with the other side; None if there are none.

    With an EraseTable or EraseColumn on either side that is every row; else the rows on objects that both sides touch,
    and all AddTable and AddColumn.
    """
    sides = (left, right)
    if not any(len(c) for c in left) or not any(len(c) for c in right):
        return None
    schema = [[_schema_rows(c) for c in side] for side in sides]
    if any(((c.op == 1) | (c.op == 7)).any() for side in sides for c in side):
        found = [[np.arange(len(c)) for c in side] for side in sides]
        return found[0], found[1]
    hashes = [[_hashes(c) for c in side] for side in sides]
    touched = [
        np.unique(np.concatenate([h[~s] for h, s in zip(side, marks, strict=True)]))
        for side, marks in zip(hashes, schema, strict=True)
    ]
    both = np.intersect1d(touched[0], touched[1], assume_unique=True)
    with_schema = all(any(s.any() for s in marks) for marks in schema)
    rows = [
        [np.flatnonzero((s & with_schema) | (~s & np.isin(h, both))) for h, s in zip(side, marks, strict=True)]
        for side, marks in zip(hashes, schema, strict=True)
    ]
    if not any(len(r) for r in rows[0]) or not any(len(r) for r in rows[1]):
        return None
    return rows[0], rows[1]
