"""What the merge rules work on: instructions that can be changed, discarded, and preceded by others."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset, Instruction
from realmframe.changes import instructions as i
from realmframe.model import Link

#: When an instruction's changeset was made, and where: the order in which "later" is meant.
Stamp = tuple[int, int]

_TABLE_LEVEL: Final = (i.AddTable, i.EraseTable)
_SECOND_LEVEL: Final = (i.AddColumn, i.EraseColumn, i.CreateObject, i.EraseObject)


def level(one: Instruction) -> int:
    """Give how deep an instruction reaches: class, property or object, field, and what is below a field."""
    if isinstance(one, _TABLE_LEVEL):
        return 1
    if isinstance(one, _SECOND_LEVEL):
        return 2
    return 3 + len(one.path)


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

    @property
    def index(self) -> int:
        """The list index that ends the path."""
        found: int = self.one.path[-1]
        return found

    @index.setter
    def index(self, value: int) -> None:
        self.set(path=(*self.one.path[:-1], value))

    def set(self, **values: Any) -> None:
        """Change members of the instruction."""
        for name, value in values.items():
            if getattr(self.one, name) != value:
                setattr(self.one, name, value)
                self.changed = True

    def set_step(self, at: int, value: int) -> None:
        """Change one step of the path."""
        path = list(self.one.path)
        path[at] = value
        self.set(path=tuple(path))

    def discard(self) -> None:
        """Drop the instruction: it meets nothing any more."""
        self.discarded = True

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
    """Where strings lie in the storage that the real engine fills while it decodes, in order of appearance."""

    def __init__(self, changeset: Changeset) -> None:
        self.changeset = changeset
        self._starts: Any = None
        self._offsets: Any = None

    def place(self, row: int) -> tuple[int, int]:
        """Give offset and length of a row's text."""
        c = self.changeset
        if self._starts is None:
            inline = (c.value_type == 3) | (c.value_type == 4)
            starts = np.concatenate([c.string_start, c.value_hi[inline]])
            sizes = np.concatenate([c.string_len, c.value_lo[inline]])
            order = np.argsort(starts, kind="stable")
            self._starts = starts[order]
            self._offsets = np.concatenate([[0], np.cumsum(sizes[order])])
        at = int(np.searchsorted(self._starts, c.value_hi[row], "right")) - 1
        return int(self._offsets[at]), int(c.value_lo[row])


def make_nodes(changeset: Changeset, rows: Any, stamp: Stamp, first: int) -> list[Node]:
    """Make the nodes of some rows; ``first`` is the place of the changeset's first row on its side."""
    storage = Storage(changeset)
    found = changeset.take(rows).instructions()
    last = 1 << 30
    return [
        Node(copy.copy(one), stamp, (first + row, last), SourceRow(storage, row))
        for one, row in zip(found, rows.tolist(), strict=True)
    ]
