"""What the merge rules work on: instructions that can be changed, discarded, and preceded by others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset, Instruction
from realmframe.changes import instructions as i
from realmframe.model import Link

_U32: Final = (1 << 32) - 1

#: When an instruction's changeset was made, and where: the order in which "later" is meant.
Stamp = tuple[int, int]

_TABLE_LEVEL: Final = (i.AddTable, i.EraseTable)
_SECOND_LEVEL: Final = (i.AddColumn, i.EraseColumn, i.CreateObject, i.EraseObject)


def _level(one: Instruction) -> int:
    """Give how deep an instruction reaches: class, property or object, field, and what is below a field."""
    if isinstance(one, _TABLE_LEVEL):
        return 1
    if isinstance(one, _SECOND_LEVEL):
        return 2
    return 3 + len(one.path)


def _copied(one: Any) -> Any:
    """Copy an instruction (``copy.copy`` takes several times as long)."""
    kind = type(one)
    new = object.__new__(kind)
    for name in kind.__slots__:
        setattr(new, name, getattr(one, name))
    return new


@dataclass(slots=True, eq=False)
class Node:
    """One instruction during a merge.

    Attributes
    ----------
    one : Instruction
        Its present form, changed in place.
    stamp : tuple
        Of its changeset.
    order : tuple
        Its place among the instructions of its side.
    source : SourceRow
        Where it came from, for the few rules that look at how it was stored.
    """

    one: Any
    stamp: Stamp
    order: tuple[int, int]
    source: SourceRow
    discarded: bool = False
    changed: bool = False
    before: list[Node] = field(default_factory=list)
    #: How deep the instruction reaches. Rules change steps of a path, never their number.
    level: int = field(init=False)

    def __post_init__(self) -> None:
        self.level = _level(self.one)

    @property
    def index(self) -> int:
        """The list index that ends the path."""
        found: int = self.one.path[-1]
        return found

    @index.setter
    def index(self, value: int) -> None:
        self.set_step(-1, value)

    def set_step(self, at: int, value: int) -> None:
        """Change one step of the path."""
        path = list(self.one.path)
        path[at] = value & _U32
        self.one.path = tuple(path)
        self.changed = True

    def set_size(self, value: int) -> None:
        """Change how long the list was before."""
        self.one.prior_size = value & _U32
        self.changed = True

    def set_end(self, value: int) -> None:
        """Change where a move goes."""
        self.one.ndx_2 = value & _U32
        self.changed = True

    def set_value(self, value: Any) -> None:
        """Change the value."""
        self.one.value = value
        self.changed = True

    def discard(self) -> None:
        """Drop the instruction: it meets nothing any more."""
        self.discarded = True

    def twin(self) -> Node:
        """Give a node of the same instruction, to be changed in this one's stead."""
        return Node(_copied(self.one), self.stamp, self.order, self.source)

    def prepend(self, one: Instruction) -> None:
        """Put an instruction in front of this one."""
        order = (self.order[0], len(self.before))
        self.before.append(Node(one, self.stamp, order, self.source, changed=True))


@dataclass(slots=True, eq=False)
class SourceRow:
    """A row of a changeset as it was decoded."""

    storage: Storage
    row: int

    def stored(self, value: Any) -> object:
        """Give how the real engine tells this row's value from others when it compares two set erasures.

        Text and data are told apart by where they lie in the changeset's own string storage, links by the number of
        their class (and of a string key) in the string table; everything else by value.
        """
        if isinstance(value, str | bytes):
            return type(value), self.storage.place(self.row)
        if isinstance(value, Link):
            c = self.storage.changeset
            columns = (c.link_table, c.link_type, c.value_hi, c.value_lo)
            return Link, tuple(int(column[self.row]) for column in columns)
        return type(value), value


class Storage:
    """Where strings lie in the storage that the real engine fills while it decodes, in order of appearance.

    A heap with nothing but strings in it was not decoded: its changeset is taken as it will be encoded, the string
    table first.
    """

    def __init__(self, changeset: Changeset) -> None:
        self.renew(changeset)

    def renew(self, changeset: Changeset) -> None:
        """Take what became of the changeset."""
        self.changeset = changeset
        self._offsets: Any = None

    def place(self, row: int) -> tuple[int, int]:
        """Give offset and length of a row's text."""
        c = self.changeset
        if self._offsets is None:
            self._offsets = _inline_offsets(c)
        return int(self._offsets[row]), int(c.value_lo[row])


def _inline_offsets(c: Changeset) -> Any:
    """Give the offset of each row's text (of rows without text: nothing to rely on)."""
    offsets = np.zeros(len(c), np.int64)
    inline = np.flatnonzero(((c.value_type == 3) | (c.value_type == 4)) & (c.op > 1) & (c.op != 6))
    table = int(c.string_len.sum())
    sizes = c.value_lo[inline]
    if table + int(sizes.sum()) == len(c.heap):
        offsets[inline] = table + np.cumsum(sizes) - sizes
        return offsets
    starts = np.concatenate([c.string_start, c.value_hi[inline]])
    sizes = np.concatenate([c.string_len, sizes])
    order = np.argsort(starts, kind="stable")
    ends = np.empty(len(order), np.int64)
    ends[order] = np.cumsum(sizes[order])
    offsets[inline] = (ends - sizes)[len(c.string_start) :]
    return offsets


def make_nodes(changeset: Changeset, rows: Any, stamp: Stamp, first: int) -> list[Node]:
    """Make the nodes of some rows; ``first`` is the place of the changeset's first row on its side."""
    storage = Storage(changeset)
    found = (changeset if len(rows) == len(changeset) else changeset.take(rows)).instructions()
    last = 1 << 30
    return [
        Node(one, stamp, (first + row, last), SourceRow(storage, row))
        for one, row in zip(found, rows.tolist(), strict=True)
    ]
