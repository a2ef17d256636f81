"""Which objects a changeset names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from realmframe.changes import Changeset
from realmframe.store.gather import key_words_of
from realmframe.store.index import new_secret

Rows = npt.NDArray[np.int64]
#: Words of keys are compared here only with each other.
_SECRET: Final = new_secret()


def rows_by_class(cs: Changeset) -> Iterator[tuple[str, Rows]]:
    """Give the rows that name objects of each class."""
    objects = np.flatnonzero(~cs.is_schema)
    for number in np.unique(cs.table[objects]).tolist():
        yield cs.string(number), objects[cs.table[objects] == number]


def keys_as_pairs(cs: Changeset, rows: Rows) -> npt.NDArray[Any]:
    """Give the keys of rows in a form that can be sorted and searched."""
    pairs = np.empty(len(rows), np.dtype([("first", np.uint64), ("second", np.uint64)]))
    pairs["first"], pairs["second"] = key_words_of(cs, rows, _SECRET)
    return pairs


def newest_rows(cs: Changeset, rows: Rows) -> Rows:
    """Give the last row of each key among rows."""
    _, last = np.unique(keys_as_pairs(cs, rows)[::-1], return_index=True)
    return np.sort(rows[::-1][last])
