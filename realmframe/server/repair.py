"""Uploads that were written on a state which the server had made up, fitted to the state that there is.

A client that merged its own writes with a full state holds, until the server's correction comes, something else than
the server. What it writes meanwhile may name lists by sizes that they do not have here. Such a changeset is fitted
instead of refused: insertions are kept, at the nearest place; what names an element that does not exist is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from realmframe.changes import Changeset
from realmframe.changes.instructions import (
    ArrayErase,
    ArrayInsert,
    ArrayMove,
    Clear,
    CreateObject,
    EraseObject,
    Instruction,
    Path,
    Update,
)
from realmframe.errors import ApplyError
from realmframe.model import Key
from realmframe.store import Snapshot, apply

_INDEXED: Final = ArrayInsert | ArrayErase | ArrayMove


def repair(snapshot: Snapshot, changeset: Changeset) -> Changeset:
    """Fit a changeset to a state.

    Parameters
    ----------
    snapshot : Snapshot
        What it will be applied to.
    changeset : Changeset
        As its client wrote it.

    Returns
    -------
    Changeset
        One that can be applied, unless its schema contradicts the state's.
    """
    kept: list[Instruction] = []
    for instruction in changeset.instructions():
        fitted = _fit(snapshot, instruction)
        if fitted is None:
            continue
        try:
            snapshot = apply(snapshot, Changeset.from_instructions([fitted])).snapshot
        except ApplyError:
            # Nothing of the schema is left out: then the whole is refused, as always.
            if not isinstance(fitted, Update | _INDEXED | Clear) and not hasattr(fitted, "value"):
                raise
            continue
        kept.append(fitted)
    return Changeset.from_instructions(kept)


def _fit(snapshot: Snapshot, one: Instruction) -> Instruction | None:
    if isinstance(one, CreateObject | EraseObject) or not isinstance(one, _INDEXED | Update):
        return one
    if not one.path or not isinstance(one.path[-1], int):
        return one
    found = value_at(snapshot, one.table, one.pk, one.field, one.path[:-1])
    if not isinstance(found, list):
        return None
    size, index = len(found), one.path[-1]
    if isinstance(one, ArrayInsert):
        return replace(one, path=(*one.path[:-1], min(index, size)), prior_size=size)
    if index >= size:
        return None
    if isinstance(one, ArrayMove):
        return replace(one, ndx_2=min(one.ndx_2, size - 1), prior_size=size)
    return replace(one, prior_size=size)


def value_at(snapshot: Snapshot, table: str, key: Key, field: str, path: Path) -> Any:
    """Give the value that a path leads to, or None."""
    if table not in snapshot.tables:
        return None
    position = int(snapshot.find(table, [key])[0])
    if position < 0 or field not in snapshot.schema[table].properties:
        return None
    value: Any = snapshot.values(table, field, [position])[0]  # type: ignore[arg-type]
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
