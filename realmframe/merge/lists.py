"""Lists that many instructions of both sides change: every pair has to meet, so they meet in a compiled loop.

It knows insertions, erasures and updates of elements (not moves, nor what is inside elements), and only of fields on
which there is nothing else. Its rules are those of :mod:`realmframe.merge.arrays` and :mod:`realmframe.merge.rules`;
where they refuse, nothing was done, and the pairs meet one by one to say why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from realmframe.changes import instructions as i
from realmframe.changes.jit import kernel
from realmframe.merge.work import Node
from realmframe.model import Marker

#: Fewer pairs than so many meet one by one.
_MANY: Final = 4096
_U32: Final = (1 << 32) - 1
_UPDATE, _INSERT, _ERASE = 0, 1, 2
_KINDS: Final[dict[type, int]] = {i.Update: _UPDATE, i.ArrayInsert: _INSERT, i.ArrayErase: _ERASE}
#: What can end a meeting of other instructions on a list: those that are about more than one field.
_WIDE: Final = (i.AddTable, i.EraseTable, i.AddColumn, i.EraseColumn, i.EraseObject)
_MARKS: Final = {Marker.OBJECT_VALUE: 1, Marker.LIST: 2, Marker.DICTIONARY: 3}
#: Rows of one side, with one column for each of its instructions.
KIND, INDEX, SIZE, STAMP, MARK, GONE = range(6)


@kernel
def _update_and_update(a: Any, n: int, b: Any, m: int) -> bool:
    if a[INDEX, n] != b[INDEX, m]:
        return True
    if a[SIZE, n] != b[SIZE, m]:
        return False
    one, other = a[MARK, n], b[MARK, m]
    if (one == 1) != (other == 1):
        first = one == 1
    elif one == other and one >= 2:
        return True
    else:
        first = a[STAMP, n] < b[STAMP, m]
    if first:
        a[GONE, n] = 1
    else:
        b[GONE, m] = 1
    return True


@kernel
def _insert_and(a: Any, n: int, b: Any, m: int) -> bool:
    """Let an insertion meet an update, or an insertion whose side is the second one of the two."""
    if a[SIZE, n] != b[SIZE, m]:
        return False
    at, other = a[INDEX, n], b[INDEX, m]
    if b[KIND, m] == _UPDATE:
        if at > a[SIZE, n] or other >= b[SIZE, m]:
            return False
        b[SIZE, m] = (b[SIZE, m] + 1) & _U32
        if other >= at:
            b[INDEX, m] = (other + 1) & _U32
        return True
    a[SIZE, n] = (a[SIZE, n] + 1) & _U32
    b[SIZE, m] = (b[SIZE, m] + 1) & _U32
    if at > other or (at == other and not a[STAMP, n] < b[STAMP, m]):
        a[INDEX, n] = (at + 1) & _U32
    else:
        b[INDEX, m] = (other + 1) & _U32
    return True


@kernel
def _erase_and(a: Any, n: int, b: Any, m: int) -> bool:
    """Let an erasure meet an update, an insertion, or an erasure whose side is the second one of the two."""
    at, other, kind = a[INDEX, n], b[INDEX, m], b[KIND, m]
    if a[SIZE, n] != b[SIZE, m] or at >= a[SIZE, n] or other >= b[SIZE, m] + np.int64(kind == _INSERT):
        return False
    b[SIZE, m] = (b[SIZE, m] - 1) & _U32
    if kind == _UPDATE:
        if at == other:
            b[GONE, m] = 1
        elif other > at:
            b[INDEX, m] = other - 1
    elif kind == _INSERT:
        a[SIZE, n] = (a[SIZE, n] + 1) & _U32
        if other <= at:
            a[INDEX, n] = (at + 1) & _U32
        else:
            b[INDEX, m] = other - 1
    else:
        a[SIZE, n] = (a[SIZE, n] - 1) & _U32
        if at > other:
            a[INDEX, n] = at - 1
        elif at < other:
            b[INDEX, m] = other - 1
        else:
            a[GONE, n] = b[GONE, m] = 1
    return True


@kernel
def meet_all(majors: Any, minors: Any) -> bool:
    """Let every row of one side meet those of the other, in order; False if a pair cannot."""
    for n in range(majors.shape[1]):
        for m in range(minors.shape[1]):
            if minors[GONE, m] != 0:
                continue
            one, other = majors[KIND, n], minors[KIND, m]
            # The one with the greater opcode goes first.
            if one == _ERASE:
                fits = _erase_and(majors, n, minors, m)
            elif other == _ERASE:
                fits = _erase_and(minors, m, majors, n)
            elif one == _INSERT:
                fits = _insert_and(majors, n, minors, m)
            elif other == _INSERT:
                fits = _insert_and(minors, m, majors, n)
            else:
                fits = _update_and_update(majors, n, minors, m)
            if not fits:
                return False
            if majors[GONE, n] != 0:
                break
    return True


def _by_field(nodes: Sequence[Node]) -> dict[Any, list[Node]]:
    found: dict[Any, list[Node]] = defaultdict(list)
    for node in nodes:
        if not isinstance(node.one, i.CreateObject):
            one = node.one
            found[one.table, one.pk, one.field].append(node)
    return found


def is_plain(node: Node) -> bool:
    """Whether the loop knows an instruction."""
    return type(node.one) in _KINDS and len(node.one.path) == 1 and isinstance(node.one.path[0], int)


def rows_of(nodes: Sequence[Node], stamps: Sequence[int]) -> Any:
    """Put instructions into rows; ``stamps`` are numbers in the order of their stamps."""
    rows = np.zeros((6, len(nodes)), np.int64)
    rows[KIND] = [_KINDS[type(n.one)] for n in nodes]
    rows[INDEX] = [n.one.path[0] for n in nodes]
    rows[SIZE] = [n.one.prior_size for n in nodes]
    rows[STAMP] = stamps
    rows[MARK] = [_mark(n.one) for n in nodes]
    return rows


def _mark(one: Any) -> int:
    value = one.value if isinstance(one, i.Update) else None
    return _MARKS.get(value, 0) if isinstance(value, Marker) else 0


def write_back(nodes: Sequence[Node], rows: Any) -> None:
    """Let instructions be as their rows say."""
    for node, index, size, gone in zip(nodes, *rows[[INDEX, SIZE, GONE]].tolist(), strict=True):
        if index != node.one.path[0]:
            node.index = index
        if size != node.one.prior_size:
            node.set_size(size)
        if gone:
            node.discard()


def meet_on_lists(majors: Sequence[Node], minors: Sequence[Node]) -> tuple[Sequence[Node], Sequence[Node]]:
    """Let instructions meet on lists with very many of them; give those that still have to meet one by one."""
    if len(majors) * len(minors) < _MANY or any(isinstance(n.one, _WIDE) for n in (*majors, *minors)):
        return majors, minors
    sides = _by_field(majors), _by_field(minors)
    done: set[Node] = set()
    for field, mine in sides[0].items():
        its = sides[1].get(field, ())
        if len(mine) * len(its) < _MANY or not all(map(is_plain, (*mine, *its))):
            continue
        ranks = {stamp: rank for rank, stamp in enumerate(sorted({n.stamp for n in (*mine, *its)}))}
        rows = tuple(rows_of(nodes, [ranks[n.stamp] for n in nodes]) for nodes in (mine, its))
        if meet_all(*rows):
            write_back(mine, rows[0])
            write_back(its, rows[1])
            done.update(mine, its)
    if not done:
        return majors, minors
    return [n for n in majors if n not in done], [n for n in minors if n not in done]
