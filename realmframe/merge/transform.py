"""Operational transformation of two sides that start from one state.

First what both sides touch is joined, in columns (``join.py``); only those instructions become objects and meet
pairwise (``index.py``, ``rules.py``); then what changed goes back into columns (``splice.py``). What does not conflict
is never looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from realmframe.changes import Changeset
from realmframe.merge.arrays import ARRAY_NESTED, ARRAY_RULES
from realmframe.merge.index import Minor
from realmframe.merge.join import common_rows
from realmframe.merge.lists import meet_on_lists
from realmframe.merge.rules import NESTED, RULES, Rule
from realmframe.merge.splice import spliced
from realmframe.merge.work import Node, make_nodes

_RULES: Final[dict[tuple[type, type], Rule]] = {**RULES, **ARRAY_RULES}
_NESTED: Final[dict[type, Rule]] = {**NESTED, **ARRAY_NESTED}


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
    left_nodes, right_nodes = nodes_of(left, rows[0]), nodes_of(right, rows[1])
    meet([n for nodes in left_nodes for n in nodes], [n for nodes in right_nodes for n in nodes])
    return outputs(left, left_nodes), outputs(right, right_nodes)


def outputs(side: Sequence[Timed], nodes: Sequence[Sequence[Node]]) -> list[Changeset]:
    """Give what the changesets of a side have become."""
    return [
        spliced(timed.changeset, found) if found else timed.changeset for timed, found in zip(side, nodes, strict=True)
    ]


def nodes_of(side: Sequence[Timed], rows: Sequence[Any]) -> list[list[Node]]:
    """Make the nodes of some rows of each changeset of a side."""
    nodes, first = [], 0
    for timed, wanted in zip(side, rows, strict=True):
        stamp = (timed.timestamp, timed.file_ident)
        nodes.append(make_nodes(timed.changeset, wanted, stamp, first) if len(wanted) else [])
        first += len(timed.changeset)
    return nodes


# ---------------------------------------------------------------------------------------------- meeting


def meet(majors: Sequence[Node], minors: Sequence[Node]) -> None:
    """Let every instruction of one side meet those of the other."""
    majors, minors = meet_on_lists(majors, minors)
    minor = Minor(minors, majors)
    for major in majors:
        _meet_one(major, minor, minor.candidates(major))


def _meet_one(major: Node, minor: Minor, candidates: Iterable[Node]) -> None:
    for other in candidates:
        if other.discarded:
            continue
        known = len(major.before), len(other.before)
        _merge(major, other)
        for new in other.before[known[1] :]:
            minor.add(new)
        for new in major.before[known[0] :]:
            # It stands in front of the major instruction, so it still has to meet what comes after `other`.
            _meet_one(new, minor, [n for n in minor.candidates(new) if n.order > other.order])
        if major.discarded:
            return


def _merge(major: Node, minor: Node) -> None:
    if major.level != minor.level:
        outer, inner = (major, minor) if major.level < minor.level else (minor, major)
        nested = _NESTED.get(type(outer.one))
        if nested is not None:
            nested(outer, inner)
        if inner.discarded:
            return
    left, right = (major, minor) if major.one.opcode >= minor.one.opcode else (minor, major)
    rule = _RULES.get((type(left.one), type(right.one)))
    if rule is not None:
        rule(left, right)
