"""What became of a changeset."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from realmframe.model import Key
from realmframe.store.index import Ids
from realmframe.store.snapshot import Snapshot

if TYPE_CHECKING:
    from realmframe.store.inverse import Inverse


@dataclass(frozen=True, slots=True)
class Touched:
    """What a changeset did to the objects of one class, as stable row ids.

    Attributes
    ----------
    inserted : array of int64
        In the table after.
    modified : dict of str to array of int64
        For each property; in the tables before and after.
    deleted : array of int64
        In the table before.
    """

    inserted: Ids
    modified: dict[str, Ids]
    deleted: Ids

    @property
    def modified_ids(self) -> Ids:
        """Rows that were modified in any property."""
        return np.unique(np.concatenate([*self.modified.values(), np.empty(0, np.int64)]))


@dataclass(eq=False)
class Applied:
    """The result of :func:`apply`.

    Attributes
    ----------
    before, snapshot : Snapshot
        The states before and after.
    touched : dict of str to Touched
    replaced : set of (str, str or None)
        Classes (without a second word) and properties that were erased, whether or not they were added again.
    """

    before: Snapshot
    snapshot: Snapshot
    touched: dict[str, Touched] = field(default_factory=dict)
    replaced: frozenset[tuple[str, str | None]] = frozenset()

    @cached_property
    def inverse(self) -> Inverse:
        """The changeset that restores the state before (made when asked for); see :class:`Inverse`."""
        from realmframe.store.inverse import inverse_changeset

        return inverse_changeset(self)

    def keys(self, cls: str, ids: Ids, *, before: bool = False) -> list[Key]:
        """Give the keys of touched rows."""
        table = (self.before if before else self.snapshot).tables[cls]
        return [table.key(int(p)) for p in table.positions(ids)]
