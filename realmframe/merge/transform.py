"""Operational transformation of two sides that start from one state.

First the objects that both sides touch are joined, in columns; only their instructions (and all schema instructions)
become objects and meet pairwise. What does not conflict is never looked at one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as i
from realmframe.merge.arrays import ARRAY_NESTED, ARRAY_RULES
from realmframe.merge.join import common_rows
from realmframe.merge.rules import NESTED, RULES, Rule
from realmframe.merge.work import Node, level, make_nodes

_RULES: Final[dict[tuple[type, type], Rule]] = {**RULES, **ARRAY_RULES}
_NESTED: Final[dict[type, Rule]] = {**NESTED, **ARRAY_NESTED}
_SCHEMA: Final = (i.AddTable, i.EraseTable, i.AddColumn, i.EraseColumn)
#: A changeset with more rows is put together from its untouched parts, in columns.
_SPLICE: Final = 256


@dataclass(frozen=True, slots=True)
class Timed:
    """A changeset with when and where it was made.

    Attributes
    ----------
    changeset : Changeset
    timestamp : int
        Milliseconds since 2015-01-01T00:00:00Z.
    file_ident : int
    """

    changeset: Changeset
    timestamp: int
    file_ident: int


def transform(left: Sequence[Timed], right: Sequence[Timed]) -> tuple[list[Changeset], list[Changeset]]:
    """Merge two sides: what each has to become to be applied after the other.

    Parameters
    ----------
    left, right : sequence of Timed
        Each side's changesets in order, both based on one state.

    Returns
    -------
    left_out, right_out : list of Changeset
        To be applied after the other side's originals. A changeset that does not change is the very same object.

    Raises
    ------
    MergeError
        If the two sides contradict each other.
    """
    rows = common_rows([t.changeset for t in left], [t.changeset for t in right])
    if rows is None:
        return [t.changeset for t in left], [t.changeset for t in right]
    left_nodes, right_nodes = _side(left, rows[0]), _side(right, rows[1])
    _meet([n for nodes in left_nodes for n in nodes], [n for nodes in right_nodes for n in nodes])
    return _rebuilt(left, left_nodes), _rebuilt(right, right_nodes)


def _side(side: Sequence[Timed], rows: Sequence[Any]) -> list[list[Node]]:
    nodes, first = [], 0
    for timed, wanted in zip(side, rows, strict=True):
        nodes.append(make_nodes(timed.changeset, wanted, (timed.timestamp, timed.file_ident), first))
        first += len(timed.changeset)
    return nodes


# ---------------------------------------------------------------------------------------------- meeting


class _Minor:
    """The inner side of the loop, found by what its instructions are about."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.everything = list(nodes)
        self.schema = [n for n in nodes if isinstance(n.one, _SCHEMA)]
        self.objects: dict[tuple[Any, ...], list[Node]] = {}
        for node in nodes:
            if not isinstance(node.one, _SCHEMA):
                self.objects.setdefault(_object_of(node), []).append(node)

    def candidates(self, node: Node) -> list[Node]:
        """List what a node of the other side may conflict with, in order."""
        if isinstance(node.one, _SCHEMA):
            found = self.everything if isinstance(node.one, i.EraseTable | i.EraseColumn) else self.schema
        else:
            found = self.objects.get(_object_of(node), [])
            if self.schema:
                found = sorted([*found, *self.schema], key=lambda n: n.order)
        return [n for n in found if not n.discarded]

    def add(self, node: Node) -> None:
        """Take in an instruction that was put in front of another."""
        for nodes in (self.everything, self.schema):
            nodes.append(node)
            nodes.sort(key=lambda n: n.order)


def _object_of(node: Node) -> tuple[Any, ...]:
    return node.one.table, type(node.one.pk), node.one.pk


def _meet(majors: Sequence[Node], minors: Sequence[Node]) -> None:
    """Let every instruction of one side meet those of the other."""
    minor = _Minor(minors)
    for major in majors:
        _meet_one(major, minor, minor.candidates(major))


def _meet_one(major: Node, minor: _Minor, candidates: Sequence[Node]) -> None:
    for place, other in enumerate(candidates):
        if other.discarded:
            continue
        known = len(major.before), len(other.before)
        _merge(major, other)
        for new in other.before[known[1] :]:
            minor.add(new)
        for new in major.before[known[0] :]:
            # It stands in front of the major instruction, so it still has to meet what comes after `other`.
            _meet_one(new, minor, candidates[place + 1 :])
        if major.discarded:
            return


def _merge(major: Node, minor: Node) -> None:
    upper, lower = level(major.one), level(minor.one)
    if upper != lower:
        outer, inner = (major, minor) if upper < lower else (minor, major)
        nested = _NESTED.get(type(outer.one))
        if nested is not None:
            nested(outer, inner)
        if inner.discarded:
            return
    left, right = (major, minor) if major.one.opcode >= minor.one.opcode else (minor, major)
    rule = _RULES.get((type(left.one), type(right.one)))
    if rule is not None:
        rule(left, right)


# ---------------------------------------------------------------------------------------------- results


def _rebuilt(side: Sequence[Timed], nodes: Sequence[Sequence[Node]]) -> list[Changeset]:
    return [_one_rebuilt(timed.changeset, found) for timed, found in zip(side, nodes, strict=True)]


def _one_rebuilt(changeset: Changeset, nodes: Sequence[Node]) -> Changeset:
    touched = [n for n in nodes if n.discarded or n.changed or n.before]
    if not touched:
        return changeset
    if len(changeset) <= _SPLICE:
        by_row = {n.source.row: n for n in touched}
        made: list[Any] = []
        for row, one in enumerate(changeset.instructions()):
            made += _forms(by_row[row]) if row in by_row else [one]
        return Changeset.from_instructions(made, changeset.strings)
    parts: list[Changeset] = []
    at = 0
    pending: list[Any] = []
    for node in sorted(touched, key=lambda n: n.source.row):
        row = node.source.row
        if row > at:
            parts += [Changeset.from_instructions(pending)] if pending else []
            parts.append(changeset.take(np.arange(at, row)))
            pending = []
        pending += _forms(node)
        at = row + 1
    parts += [Changeset.from_instructions(pending)] if pending else []
    if at < len(changeset):
        parts.append(changeset.take(np.arange(at, len(changeset))))
    return concat(parts)


def _forms(node: Node) -> list[Any]:
    """Give what stands in the place of an instruction now."""
    kept = [] if node.discarded else [node.one]
    return [*(b.one for b in node.before if not b.discarded), *kept]
