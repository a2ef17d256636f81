"""What came of an upload and is not in the log: objects that it wrote to, and its merged form does not name any more.

A client that merged its write with made-up states may hold such objects otherwise than the server. If its connection
ends before it is told, they have to be remembered until it comes back.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import sqlalchemy as sa

from realmframe.changes import Changeset, concat
from realmframe.server import database as db
from realmframe.server.named import keys_as_pairs, newest_rows, rows_by_class


def withdrawn(original: Changeset, merged: Changeset) -> Changeset:
    """Give an instruction of each object that an upload named and its merged form does not."""
    named = {name: keys_as_pairs(merged, rows) for name, rows in rows_by_class(merged)}
    parts: list[Changeset] = []
    for name, rows in rows_by_class(original):
        rows = newest_rows(original, rows)
        if name in named:
            rows = rows[~np.isin(keys_as_pairs(original, rows), named[name])]
        if len(rows):
            parts.append(original.take(rows))
    return concat(parts)


def load(sql: sa.Connection, realm: int, after: int, through: int) -> dict[int, bytes]:
    """Give what is kept of the entries of a realm's log above one version and up to another."""
    t = db.withdrawn.c
    query = sa.select(t.version, t.changeset).where(t.realm == realm, t.version > after, t.version <= through)
    return {int(version): bytes(data) for version, data in sql.execute(query)}


def save(sql: sa.Connection, realm: int, made: Mapping[int, bytes]) -> None:
    """Keep what came of entries of a realm's log."""
    if made:
        rows = [{"realm": realm, "version": version, "changeset": data} for version, data in made.items()]
        sql.execute(db.withdrawn.insert(), rows)
