"""New collections in lists and new objects in dictionaries, written so that they can be merged.

The SDKs put a collection into a list of Mixed values by inserting or setting it, and a Clear of it. By the real
engine's rules, which every client follows, that Clear keeps its index when the other side inserts into or erases from
the same list. It then empties another element, or names one that does not exist, and whoever is sent that cannot go on.
So such a Clear does not get into the log: what was just inserted is empty, and what is set is made anew by a null
before it. Its own writer has it yet, and empties what others have put in its place; so that one is told how its write
came out.

They make an embedded object at a key of a dictionary in place of the one that is there. By the same rules nothing that
the other side does to the old one is removed: insertions into a list of it then name sizes that the new one does not
have, and whoever is sent both cannot go on. In the log a null comes before it, which removes it all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes.columns import Array
from realmframe.changes.instructions import ArrayInsert, Clear, Update
from realmframe.model import Collection, Schema
from realmframe.model.types import PayloadType

_KINDS: Final = (PayloadType.LIST, PayloadType.DICTIONARY)
_SAME: Final = ("table", "field", "key_type", "key_hi", "key_lo", "path_len")


def without_clears(changeset: Changeset) -> Changeset:
    """Leave out what clears an element that was inserted or set just before; the very same object without such."""
    clears = np.flatnonzero((changeset.op == Clear.opcode) & (changeset.path_len > 0))
    clears = clears[clears > 0]
    if len(clears):
        clears = clears[_follows(changeset, clears)]
    if not len(clears):
        return changeset
    return _rewritten(changeset, clears, clears[changeset.op[clears - 1] == Update.opcode] - 1)


def with_nulls(changeset: Changeset, schema: Schema) -> Changeset:
    """Put a null before each new object at a key of a dictionary; the very same object without such."""
    made = (changeset.op == Update.opcode) & (changeset.value_type == PayloadType.OBJECT_VALUE)
    rows = [n for n in np.flatnonzero(made & (changeset.path_len > 0)).tolist() if _is_at_key(changeset, n, schema)]
    return _rewritten(changeset, np.empty(0, dtype=np.intp), np.array(rows, dtype=np.intp)) if rows else changeset


def _rewritten(changeset: Changeset, left_out: Array, nulls_before: Array) -> Changeset:
    times = np.ones(len(changeset), dtype=np.intp)
    times[left_out], times[nulls_before] = 0, 2
    out = changeset.take(np.repeat(np.arange(len(changeset)), times))
    kinds = out.value_type.copy()
    kinds[(np.cumsum(times) - times)[nulls_before]] = PayloadType.NULL
    return replace(out, value_type=kinds)


def _is_at_key(changeset: Changeset, row: int, schema: Schema) -> bool:
    """Tell whether a path ends with a key of a dictionary, and not with a field of an embedded object."""
    prop = schema[changeset.string(changeset.table[row])].properties[changeset.string(changeset.field[row])]
    is_element = False
    steps, are_keys = _path(changeset, row)
    for step, is_key in zip(steps.tolist(), are_keys.tolist(), strict=True):
        if is_element or prop.collection is Collection.SINGLE:
            if not is_key or prop.target is None:
                return False
            prop, is_element = schema[prop.target].properties[changeset.string(step)], False
        else:
            is_element = True
    return is_element and prop.collection is Collection.DICTIONARY


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
