"""Objects of asymmetric classes at the server: they come in uploads, and no client has them or hears of them.

So an upload that names them is merged with nothing of the kind, and one that creates an object of a key that exists
here replaces it: its client could not know.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from realmframe.changes import Changeset, concat
from realmframe.model import Schema
from realmframe.store import Snapshot, erase_changeset
from realmframe.store.gather import key_words_of
from realmframe.store.passing import is_passing

_CREATE = 2


class Passing:
    """Answers for one realm; the classes of its schema are looked for once."""

    def __init__(self) -> None:
        self._schema: Schema | None = None
        self._names: set[str] = set()

    def without(self, schema: Schema, changeset: Changeset) -> Changeset:
        """Leave out the objects of asymmetric classes; the changeset itself if there are none."""
        numbers = self._numbers(schema, changeset)
        if not numbers:
            return changeset
        out = np.isin(changeset.table, list(numbers)) & ~changeset.is_schema
        return changeset.take(np.flatnonzero(~out)) if out.any() else changeset

    def replaced(self, snapshot: Snapshot, changeset: Changeset) -> Changeset:
        """Give the erasure of the asymmetric objects here that a changeset creates anew; empty for none."""
        gone: list[Changeset] = []
        for number, name in self._numbers(snapshot.schema, changeset).items():
            rows = np.flatnonzero((changeset.table == number) & (changeset.op == _CREATE))
            if not len(rows):
                continue
            table = snapshot.tables[name]
            ids: npt.NDArray[np.int64] = table.find_ids(*key_words_of(changeset, rows, table.index.secret))
            if (ids >= 0).any():
                gone.append(erase_changeset(snapshot, name, table.positions(np.unique(ids[ids >= 0]))))
        return concat(gone)

    def _numbers(self, schema: Schema, changeset: Changeset) -> dict[int, str]:
        """Give the numbers of the asymmetric classes in a changeset, with their names."""
        names = self.names(schema)
        if not names:
            return {}
        named = {n: changeset.string(n) for n in np.unique(changeset.table).tolist()}
        return {n: name for n, name in named.items() if name in names}

    def names(self, schema: Schema) -> set[str]:
        """Give the asymmetric classes."""
        if self._schema is not schema:
            self._schema, self._names = schema, {name for name in schema if is_passing(schema, name)}
        return self._names
