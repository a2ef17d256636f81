"""The rules of lists: indexes shift, sizes follow."""

from __future__ import annotations

from typing import Final

from realmframe.changes import instructions as i
from realmframe.errors import MergeError
from realmframe.merge.rules import RANGE, SIZES, Rule, container_is_above, has_path, is_above, need, same_container
from realmframe.merge.work import Node


def _indexed_update(right: Node) -> None:
    if not isinstance(right.one.path[-1], int):
        raise MergeError(f"{right.one.table}.{right.one.field}: a key and an index meet in one collection.")


def _insert_and_update(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    _indexed_update(right)
    need(a.prior_size == b.prior_size, left, SIZES)
    need(left.index <= a.prior_size, left, RANGE)
    need(right.index < b.prior_size, right, RANGE)
    right.set_size(b.prior_size + 1)
    if right.index >= left.index:
        right.index += 1


def _get_past_move(index: int, start: int, end: int) -> int:
    """Give where an element is after another one was moved."""
    if index == start:
        return end
    if index > start:
        index -= 1
    if index >= end:
        index += 1
    return index


def _move_and_update(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    _indexed_update(right)
    need(left.index < a.prior_size, left, RANGE)
    need(right.index < b.prior_size, right, RANGE)
    right.index = _get_past_move(right.index, left.index, a.ndx_2)


def _erase_and_update(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    _indexed_update(right)
    need(a.prior_size == b.prior_size, left, SIZES)
    need(left.index < a.prior_size, left, RANGE)
    need(right.index < b.prior_size, right, RANGE)
    right.set_size(b.prior_size - 1)
    if left.index == right.index:
        right.discard()
    elif right.index > left.index:
        right.index -= 1


def _inserts(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    need(a.prior_size == b.prior_size, right, SIZES)
    left.set_size(a.prior_size + 1)
    right.set_size(b.prior_size + 1)
    if left.index > right.index or (left.index == right.index and not left.stamp < right.stamp):
        left.index += 1
    else:
        right.index += 1


def _move_and_insert(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    left.set_size(a.prior_size + 1)
    if right.index > left.index:
        right.index -= 1
    else:
        left.index += 1
    if right.index < a.ndx_2 or (right.index == a.ndx_2 and left.stamp < right.stamp):
        left.set_end(a.ndx_2 + 1)
    else:
        right.index += 1


def _erase_and_insert(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    need(a.prior_size == b.prior_size, left, SIZES)
    need(left.index < a.prior_size, left, RANGE)
    need(right.index <= b.prior_size, left, RANGE)
    left.set_size(a.prior_size + 1)
    right.set_size(b.prior_size - 1)
    if right.index <= left.index:
        left.index += 1
    else:
        right.index -= 1


def _moves(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    need(a.prior_size == b.prior_size, left, SIZES)
    for node in (left, right):
        need(node.index < node.one.prior_size and node.one.ndx_2 < node.one.prior_size, node, RANGE)
    if left.index == right.index:
        _moves_of_one(left, right)
        return
    if left.index < right.index:
        right.index -= 1
    else:
        left.index -= 1
    # One side's insertion against the other's removal.
    if a.ndx_2 > right.index:
        left.set_end(a.ndx_2 - 1)
    else:
        right.index += 1
    if left.index < b.ndx_2:
        right.set_end(b.ndx_2 - 1)
    else:
        left.index += 1
    # Insertion against insertion: in order of time.
    if a.ndx_2 < b.ndx_2 or (a.ndx_2 == b.ndx_2 and left.stamp < right.stamp):
        right.set_end(b.ndx_2 + 1)
    else:
        left.set_end(a.ndx_2 + 1)
    for node in (left, right):
        if node.index == node.one.ndx_2:
            node.discard()


def _moves_of_one(left: Node, right: Node) -> None:
    """Two moves of one element: the later wins, and begins where the earlier one ended."""
    early, late = (left, right) if left.stamp < right.stamp else (right, left)
    late.index = early.one.ndx_2
    early.discard()
    if late.index == late.one.ndx_2:
        late.discard()


def _erase_and_move(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    need(a.prior_size == b.prior_size, left, SIZES)
    need(left.index < a.prior_size, left, RANGE)
    need(right.index < b.prior_size, right, RANGE)
    right.set_size(b.prior_size - 1)
    if left.index == right.index:
        left.index = b.ndx_2
        right.discard()
        return
    if left.index > right.index:
        left.index -= 1
    else:
        right.index -= 1
    if left.index >= b.ndx_2:
        left.index += 1
    else:
        right.set_end(b.ndx_2 - 1)
    if right.index == b.ndx_2:
        right.discard()


def _array_erases(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_container(a, b):
        return
    need(a.prior_size == b.prior_size, left, SIZES)
    need(left.index < a.prior_size, left, RANGE)
    need(right.index < b.prior_size, right, RANGE)
    left.set_size(a.prior_size - 1)
    right.set_size(b.prior_size - 1)
    if left.index > right.index:
        left.index -= 1
    elif left.index < right.index:
        right.index -= 1
    else:
        left.discard()
        right.discard()


# ---------------------------------------------------------------------------------------------- nested


def _step_below(outer: Node, inner: Node) -> tuple[int, int]:
    """Give where in the inner path the outer's index is, and what is there."""
    at = len(outer.one.path) - 1
    step = inner.one.path[at]
    if not isinstance(step, int):
        raise MergeError(f"{inner.one.table}.{inner.one.field}: a key and an index meet in one collection.")
    return at, step


def _below_insert(outer: Node, inner: Node) -> None:
    if has_path(inner.one) and container_is_above(outer.one, inner.one):
        at, step = _step_below(outer, inner)
        if step >= outer.index:
            inner.set_step(at, step + 1)


def _below_move(outer: Node, inner: Node) -> None:
    if has_path(inner.one) and container_is_above(outer.one, inner.one):
        # The real engine shifts the move itself here, not the deeper path; both ends of a session must agree.
        _, step = _step_below(outer, inner)
        outer.index = _get_past_move(outer.index, step, outer.one.ndx_2)


def _below_erase(outer: Node, inner: Node) -> None:
    if not has_path(inner.one):
        return
    if is_above(outer.one, inner.one):
        inner.discard()
    elif container_is_above(outer.one, inner.one):
        at, step = _step_below(outer, inner)
        if outer.index < step:
            inner.set_step(at, step - 1)


ARRAY_RULES: Final[dict[tuple[type, type], Rule]] = {
    (i.ArrayInsert, i.Update): _insert_and_update,
    (i.ArrayMove, i.Update): _move_and_update,
    (i.ArrayErase, i.Update): _erase_and_update,
    (i.ArrayInsert, i.ArrayInsert): _inserts,
    (i.ArrayMove, i.ArrayInsert): _move_and_insert,
    (i.ArrayErase, i.ArrayInsert): _erase_and_insert,
    (i.ArrayMove, i.ArrayMove): _moves,
    (i.ArrayErase, i.ArrayMove): _erase_and_move,
    (i.ArrayErase, i.ArrayErase): _array_erases,
}
ARRAY_NESTED: Final[dict[type, Rule]] = {
    i.ArrayInsert: _below_insert,
    i.ArrayMove: _below_move,
    i.ArrayErase: _below_erase,
}
