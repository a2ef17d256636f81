"""Which objects exist at each instruction of a changeset, while its classes are applied one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.model import Key, Link
from realmframe.store.index import Ids
from realmframe.store.table import Table

_COMINGS: Final = np.array([i.CreateObject.opcode, i.EraseObject.opcode])


class Presence:
    """The objects of the tables before some instructions, and what these create and erase.

    Parameters
    ----------
    tables : mapping of str to Table
        As they are before.
    changeset : Changeset
    rows : array of int64
        The instructions, in order.
    """

    def __init__(self, tables: Mapping[str, Table], changeset: Changeset, rows: Ids) -> None:
        self._tables, self._cs, self._rows = tables, changeset, rows
        self._changes: dict[tuple[str, Key], list[tuple[int, bool]]] | None = None

    def has(self, link: Link, position: int) -> bool:
        """Whether the object of a link exists just before an instruction."""
        if self._changes is None:
            self._changes = self._read()
        earlier = [there for at, there in self._changes.get((link.table, link.key), ()) if at < position]
        if earlier:
            return earlier[-1]
        table = self._tables.get(link.table)
        return table is not None and int(table.find([link.key])[0]) >= 0

    def _read(self) -> dict[tuple[str, Key], list[tuple[int, bool]]]:
        """Read all creations and erasures, which is done once and only if somebody asks."""
        found: dict[tuple[str, Key], list[tuple[int, bool]]] = {}
        rows = self._rows[np.isin(self._cs.op[self._rows], _COMINGS)]
        instructions: list[Any] = self._cs.take(rows).instructions()
        for row, one in zip(rows.tolist(), instructions, strict=True):
            found.setdefault((one.table, one.pk), []).append((row, isinstance(one, i.CreateObject)))
        return found
