"""A changeset with what the rules changed, in columns: untouched rows are never looked at one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.changes.columns import COLUMNS
from realmframe.merge.work import Node

_SET_ERASE: Final = 13
_ARRAYS: Final = [f.name for f in dataclasses.fields(Changeset) if f.init and f.name != "_strings"]
_PLACES: Final = {name: place for place, name in enumerate(_ARRAYS)}
_ALL: Final = attrgetter(*_ARRAYS)
_FIRST: Final = np.zeros(1, COLUMNS["path_start"])
#: The columns that rules change.
_WRITTEN: Final = ("path_start", "aux", "aux2", "value_lo")
_SIZED: Final = (i.ArrayInsert, i.ArrayMove, i.ArrayErase)


def spliced(changeset: Changeset, nodes: Sequence[Node]) -> Changeset:
    """Give the changeset after a merge: the very same object if nothing became of it.

    The string table stays as it was, whether or not its strings are still used, as the real engine leaves it.
    """
    if len(nodes) == 1 and len(changeset) == 1 and not nodes[0].discarded and not nodes[0].before:
        return _single(changeset, nodes[0])
    changed = [n for n in nodes if n.changed and not n.discarded and _differs(changeset, n)]
    dropped = [n.source.row for n in nodes if n.discarded]
    prepended = [(n.source.row, b.one) for n in nodes for b in n.before if not b.discarded]
    result = _with_changes(changeset, changed) if changed else changeset
    if not dropped and not prepended:
        return result
    rows = np.delete(np.arange(len(changeset)), dropped)
    if prepended:
        result, rows = _with_prepended(result, rows, prepended)
    result = result.take(rows)
    return _as_decoded(result)


def _fields(one: Any) -> dict[str, int]:
    """Give what the rules may have changed in a row's columns, as it is now."""
    fields = dict[str, int]()
    if isinstance(one, _SIZED) or (isinstance(one, i.Update) and one.path and isinstance(one.path[-1], int)):
        fields["aux"] = one.prior_size
    if isinstance(one, i.ArrayMove):
        fields["aux2"] = one.ndx_2
    if isinstance(one, i.Update) and isinstance(one.value, int) and not isinstance(one.value, bool):
        fields["value_lo"] = one.value
    return fields


def same_fields(one: Any, other: Any) -> bool:
    """Whether an instruction and what the rules made of it are the same after all."""
    return bool(one.path == other.path) and _fields(one) == _fields(other)


def _steps(changeset: Changeset, node: Node) -> tuple[Any, Any, list[int]]:
    """Give the steps of a row's path as they were, which of them are keys, and as they are now."""
    start, size = int(changeset.path_start[node.source.row]), int(changeset.path_len[node.source.row])
    old, keys = changeset.path[start : start + size].tolist(), changeset.path_is_key[start : start + size].tolist()
    # Keys stay as they are.
    return old, keys, [o if key else step for o, key, step in zip(old, keys, node.one.path, strict=True)]


def _differs(changeset: Changeset, node: Node) -> bool:
    """Whether the changes to an instruction have not undone each other."""
    old, _, new = _steps(changeset, node)
    row = node.source.row
    return old != new or any(getattr(changeset, k)[row] != v for k, v in _fields(node.one).items())


def _single(changeset: Changeset, node: Node) -> Changeset:
    """Give a changeset of one instruction after a merge that kept it: a log has many of these."""
    if not node.changed:
        return changeset
    old, keys, new = _steps(changeset, node)
    fields = {k: v for k, v in _fields(node.one).items() if getattr(changeset, k)[0] != v}
    if old == new and not fields:
        return changeset
    # By position: names would take twice the time.
    arrays = list(_ALL(changeset))
    for name, value in fields.items():
        arrays[_PLACES[name]] = np.array([value], arrays[_PLACES[name]].dtype)
    arrays[_PLACES["path_start"]] = _FIRST
    arrays[_PLACES["path"]], arrays[_PLACES["path_is_key"]] = np.array(new, np.int64), np.array(keys, np.bool_)
    return Changeset(*arrays)


def _with_changes(changeset: Changeset, nodes: Sequence[Node]) -> Changeset:
    """Write paths, sizes, ends of moves and integers of changed instructions back."""
    columns: dict[str, Any] = {name: getattr(changeset, name).copy() for name in _WRITTEN}
    steps: list[int] = []
    is_key: list[bool] = []
    for node in nodes:
        _, keys, new = _steps(changeset, node)
        # Paths of several rows may lie in one place, so a new one goes to the end.
        columns["path_start"][node.source.row] = len(changeset.path) + len(steps)
        steps += new
        is_key += keys
        for name, value in _fields(node.one).items():
            columns[name][node.source.row] = value
    return dataclasses.replace(
        changeset,
        **columns,
        path=np.concatenate([changeset.path, np.array(steps, np.int64)]),
        path_is_key=np.concatenate([changeset.path_is_key, np.array(is_key, np.bool_)]),
        _strings=[],
    )


def _with_prepended(
    changeset: Changeset, rows: Any, prepended: Sequence[tuple[int, i.EraseColumn]]
) -> tuple[Changeset, Any]:
    """Append rows for instructions put in front of others; give the order that puts them there."""
    known = {text: index for index, text in enumerate(changeset.strings)}
    start, size = changeset.string_start.tolist(), changeset.string_len.tolist()
    heap = bytearray(changeset.heap.tobytes())

    def intern(text: str) -> int:
        if text not in known:
            known[text] = len(known)
            data = text.encode("utf-8", "surrogateescape")
            start.append(len(heap))
            size.append(len(data))
            heap.extend(data)
        return known[text]

    made = Changeset.from_instructions([one for _, one in prepended])
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(changeset, name), getattr(made, name)]) for name in COLUMNS
    }
    new = np.arange(len(changeset), len(changeset) + len(prepended))
    columns["table"][new] = [intern(one.table) for _, one in prepended]
    columns["field"][new] = [intern(one.field) for _, one in prepended]
    columns["path_start"][new] = 0
    grown = dataclasses.replace(
        changeset,
        **columns,
        string_start=np.array(start, np.int64),
        string_len=np.array(size, np.int64),
        heap=np.frombuffer(bytes(heap), np.uint8),
        _strings=[],
    )
    places = np.searchsorted(rows, [row for row, _ in prepended], "left")
    return grown, np.insert(rows, places, new)


def _as_decoded(changeset: Changeset) -> Changeset:
    """Encode and decode a changeset where the storage of strings has a meaning, so that it is what others will see."""
    erases = changeset.op == _SET_ERASE
    if not bool((erases & ((changeset.value_type == 3) | (changeset.value_type == 4))).any()):
        return changeset
    return Changeset.decode(changeset.encode())
