"""The inner side of the loop, found by what its instructions are about.

Each instruction is filed under marks, and asks under marks for what it may conflict with: what is filed nowhere that
it asks cannot conflict. So the real engine's order of meeting is kept without its meetings that change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from realmframe.changes import instructions as i
from realmframe.merge.rules import value_mark
from realmframe.merge.work import Node

Mark = tuple[Any, ...]

_SETS: Final = (i.SetInsert, i.SetErase)
_COLUMNS: Final = (i.AddColumn, i.EraseColumn)


def _head(path: i.Path) -> str | None:
    """Give the first step if it is a key: keys never change. What begins with an index meets the whole field."""
    return path[0] if path and isinstance(path[0], str) else None


def _value_marks(node: Node, field: Mark, head: str | None) -> Iterator[Mark]:
    yield ("value", *field, head, value_mark(node.one.value))
    if isinstance(node.one, i.SetErase):
        yield ("stored", *field, head, node.source.stored(node.one.value))


def _filed(node: Node) -> Iterator[Mark]:
    """Give the marks under which an instruction is found."""
    one = node.one
    yield "class", one.table
    if isinstance(one, i.AddTable):
        yield "table", one.table
    elif isinstance(one, i.EraseTable):
        yield "gone", one.table
    elif isinstance(one, _COLUMNS):
        yield "column", one.table, one.field
        if isinstance(one, i.AddColumn) and one.link_target is not None:
            yield "target", one.link_target
    else:
        yield from _filed_object(node)


def _filed_object(node: Node) -> Iterator[Mark]:
    one = node.one
    yield "object", one.table, one.pk
    if isinstance(one, i.EraseObject):
        yield "erased", one.table, one.pk
    if isinstance(one, i.CreateObject | i.EraseObject):
        return
    field = (one.table, one.pk, one.field)
    head, is_set = _head(one.path), isinstance(one, _SETS)
    yield ("field", *field)
    yield ("head", *field, head, is_set)
    if isinstance(one, i.Update):
        yield "updated", one.table, one.field
    if is_set:
        yield from _value_marks(node, field, head)


def _asked(node: Node) -> Iterator[Mark]:
    """Give the marks under which an instruction looks for what it may conflict with."""
    one = node.one
    if isinstance(one, i.EraseTable):
        yield "class", one.table
        yield "target", one.table
        return
    yield "gone", one.table
    if isinstance(one, i.AddTable):
        yield "table", one.table
    elif isinstance(one, _COLUMNS):
        yield "column", one.table, one.field
        if isinstance(one, i.EraseColumn):
            yield "updated", one.table, one.field
        elif one.link_target is not None:
            yield "gone", one.link_target
    elif isinstance(one, i.EraseObject):
        yield "object", one.table, one.pk
    else:
        yield "erased", one.table, one.pk
        if not isinstance(one, i.CreateObject):
            yield from _asked_field(node)


def _asked_field(node: Node) -> Iterator[Mark]:
    one = node.one
    field = (one.table, one.pk, one.field)
    head = _head(one.path)
    if isinstance(one, i.Update):
        yield "column", one.table, one.field
    if isinstance(one, _SETS):
        # Two instructions on sets conflict over one value only.
        yield ("head", *field, None, False)
        yield ("head", *field, head, False)
        yield from _value_marks(node, field, head)
    elif head is None:
        yield ("field", *field)
    else:
        for at in (None, head):
            yield ("head", *field, at, False)
            yield ("head", *field, at, True)


class Minor:
    """The instructions of the inner side."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._marked: dict[Mark, list[Node]] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """File an instruction, also one that was put in front of another."""
        for mark in _filed(node):
            self._marked.setdefault(mark, []).append(node)

    def candidates(self, node: Node) -> list[Node]:
        """List what an instruction of the other side may conflict with, in order."""
        lists = [found for mark in dict.fromkeys(_asked(node)) if (found := self._marked.get(mark))]
        if not lists:
            return []
        unique = {n.order: n for found in lists for n in found if not n.discarded}
        return [unique[order] for order in sorted(unique)]
