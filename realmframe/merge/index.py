"""The inner side of the loop, found by what its instructions are about.

Each instruction is filed under marks, and asks under marks for what it may conflict with: what is filed nowhere that
it asks cannot conflict. So the real engine's order of meeting is kept without its meetings that change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from realmframe.changes import instructions as i
from realmframe.merge.rules import value_mark
from realmframe.merge.work import Node

Mark = tuple[Any, ...]

_SETS: Final = (i.SetInsert, i.SetErase)
_COLUMNS: Final = (i.AddColumn, i.EraseColumn)
_SCHEMA: Final = (i.AddTable, i.EraseTable, *_COLUMNS)


def _head(path: i.Path) -> str | None:
    """Give the first step if it is a key: keys never change. What begins with an index meets the whole field."""
    return path[0] if path and isinstance(path[0], str) else None


def _value_marks(node: Node, field: Mark, head: str | None) -> Iterator[Mark]:
    yield ("value", *field, head, value_mark(node.one.value))
    if isinstance(node.one, i.SetErase):
        yield ("stored", *field, head, node.source.stored(node.one.value))


@dataclass(frozen=True, slots=True)
class _Presence:
    """What is there at all on the two sides: nobody files or asks for what nobody asks for or files."""

    #: AddTable, EraseTable, AddColumn or EraseColumn, on either side.
    schema: bool
    #: EraseObject on the side that asks, and on the side that is filed.
    erasing: bool
    erased: bool
    #: AddInteger on the side that asks.
    adding: bool

    @classmethod
    def of(cls, filed: Sequence[Node], asking: Sequence[Node]) -> _Presence:
        here, there = ({type(node.one) for node in nodes} for nodes in (filed, asking))
        schema = not (here | there).isdisjoint(_SCHEMA)
        return cls(schema, i.EraseObject in there, i.EraseObject in here, i.AddInteger in there)


def _filed(node: Node, there: _Presence) -> Iterator[Mark]:
    """Give the marks under which an instruction is found."""
    one = node.one
    if not there.schema:
        yield from _filed_object(node, there)
        return
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
        yield from _filed_object(node, there)


def _filed_object(node: Node, there: _Presence) -> Iterator[Mark]:
    one = node.one
    if there.erasing:
        yield "object", one.table, one.pk
    if isinstance(one, i.EraseObject):
        yield "erased", one.table, one.pk
    if isinstance(one, i.CreateObject | i.EraseObject):
        return
    field = (one.table, one.pk, one.field)
    head, is_set = _head(one.path), isinstance(one, _SETS)
    is_sum = isinstance(one, i.AddInteger) and len(one.path) == (head is not None)
    yield ("field", *field)
    if there.adding and not (is_sum and head is None):
        yield ("but sums", *field)
    yield ("head", *field, head, "set" if is_set else "sum" if is_sum and head is not None else "other")
    if there.schema and isinstance(one, i.Update):
        yield "updated", one.table, one.field
    if is_set:
        yield from _value_marks(node, field, head)


def _asked(node: Node, there: _Presence) -> Iterator[Mark]:
    """Give the marks under which an instruction looks for what it may conflict with."""
    one = node.one
    if not there.schema:
        yield from _asked_object(node, there)
        return
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
    else:
        if isinstance(one, i.Update):
            yield "column", one.table, one.field
        yield from _asked_object(node, there)


def _asked_object(node: Node, there: _Presence) -> Iterator[Mark]:
    one = node.one
    if isinstance(one, i.EraseObject):
        yield "object", one.table, one.pk
        return
    if there.erased:
        yield "erased", one.table, one.pk
    if not isinstance(one, i.CreateObject):
        yield from _asked_field(node)


def _asked_field(node: Node) -> Iterator[Mark]:
    one = node.one
    field = (one.table, one.pk, one.field)
    head = _head(one.path)
    # Two additions to one number do not conflict, so they need not meet.
    is_sum = isinstance(one, i.AddInteger) and len(one.path) == (head is not None)
    if isinstance(one, _SETS):
        # Two instructions on sets conflict over one value only.
        for at in (None, head):
            yield ("head", *field, at, "other")
            yield ("head", *field, at, "sum")
        yield from _value_marks(node, field, head)
    elif head is None:
        yield ("but sums" if is_sum else "field", *field)
    else:
        for at in (None, head):
            yield ("head", *field, at, "other")
            yield ("head", *field, at, "set")
        if not is_sum:
            yield ("head", *field, head, "sum")


class Minor:
    """The instructions of the inner side.

    Parameters
    ----------
    nodes : sequence of Node
        In order.
    majors : sequence of Node
        Those that will ask.
    """

    def __init__(self, nodes: Sequence[Node], majors: Sequence[Node]) -> None:
        self._marked: dict[Mark, list[Node]] = {}
        self._there = _Presence.of(nodes, majors)
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """File an instruction, also one that was put in front of another."""
        for mark in _filed(node, self._there):
            self._marked.setdefault(mark, []).append(node)

    def candidates(self, node: Node) -> Iterable[Node]:
        """Give what an instruction of the other side may conflict with, in order."""
        lists = [found for mark in dict.fromkeys(_asked(node, self._there)) if (found := self._marked.get(mark))]
        if not lists:
            return ()
        if len(lists) == 1 and not self._there.schema:
            # Only where the schema changes are instructions put in front of others, so this list is in order and will
            # not grow. Most askers stop early, so what was discarded is left out now and then only.
            (found,) = lists
            if found[0].discarded:
                found[:] = [n for n in found if not n.discarded]
            return found
        unique = {n.order: n for found in lists for n in found if not n.discarded}
        return [unique[order] for order in sorted(unique)]
