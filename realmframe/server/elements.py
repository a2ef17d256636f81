"""New collections as elements of lists, written so that they can be merged.

The SDKs put a collection into a list of Mixed values by inserting or setting it, and a Clear of it. By the real
engine's rules, which every client follows, that Clear keeps its index when the other side inserts into or erases from
the same list. It then empties another element, or names one that does not exist, and whoever is sent that cannot go on.
So such a Clear does not get into the log: what was just inserted is empty, and what is set is made anew by a null
before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes.columns import Array
from realmframe.changes.instructions import ArrayInsert, Clear, Update
from realmframe.model.types import PayloadType

_KINDS: Final = (PayloadType.LIST, PayloadType.DICTIONARY)
_SAME: Final = ("table", "field", "key_type", "key_hi", "key_lo", "path_len")


def without_clears(changeset: Changeset) -> Changeset:
    """Leave out what clears an element that was inserted or set just before; the very same object without such."""
    clears = np.flatnonzero((changeset.op == Clear.opcode) & (changeset.path_len > 0))
    clears = clears[clears > 0]
    clears = clears[_follows(changeset, clears)]
    if not len(clears):
        return changeset
    is_set = clears[changeset.op[clears - 1] == Update.opcode] - 1
    times = np.ones(len(changeset), dtype=np.intp)
    times[clears], times[is_set] = 0, 2
    out = changeset.take(np.repeat(np.arange(len(changeset)), times))
    kinds = out.value_type.copy()
    kinds[(np.cumsum(times) - times)[is_set]] = PayloadType.NULL
    return replace(out, value_type=kinds)


def _follows(changeset: Changeset, clears: Array) -> Array:
    """Tell which of some Clears are of an element of a list that the instruction before them has put there."""
    before = clears - 1
    last = changeset.path_start[clears] + changeset.path_len[clears] - 1
    found = ~changeset.path_is_key[last].astype(bool)
    found &= np.isin(changeset.op[before], (ArrayInsert.opcode, Update.opcode))
    found &= np.isin(changeset.value_type[before], _KINDS)
    for name in _SAME:
        column = getattr(changeset, name)
        found &= column[clears] == column[before]
    for n in np.flatnonzero(found).tolist():
        found[n] = np.array_equal(_path(changeset, clears[n]), _path(changeset, before[n]))
    return np.asarray(found)


def _path(changeset: Changeset, row: int) -> Array:
    steps = slice(changeset.path_start[row], changeset.path_start[row] + changeset.path_len[row])
    return np.stack([changeset.path[steps], changeset.path_is_key[steps]])
