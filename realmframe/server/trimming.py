"""A log that does not grow for ever: the state up to a version is kept in the place of its changesets.

What is based on less than that version cannot be merged any more: such a client gets an error that makes it begin anew
(client reset). New clients get the state, as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from realmframe.changes import Changeset
from realmframe.server import database as db
from realmframe.store import Snapshot, apply, objects_changeset, schema_changeset

_ROWS: Final = 20_000


def trimmed_version(sql: sa.Connection, realm: int) -> int:
    """Give the version up to which a realm's log is gone, 0 if it is whole."""
    t = db.bases.c
    return int(sql.execute(sa.select(sa.func.max(t.version)).where(t.realm == realm)).scalar() or 0)


def read_base(sql: sa.Connection, realm: int) -> Snapshot:
    """Give the state that takes the place of what is gone."""
    t = db.bases.c
    snapshot = Snapshot.empty()
    for row in sql.execute(sa.select(t.changeset).where(t.realm == realm).order_by(t.part)):
        snapshot = apply(snapshot, Changeset.decode(bytes(row[0]))).snapshot
    return snapshot


def write_base(sql: sa.Connection, realm: int, base: Snapshot, version: int) -> int:
    """Put a state in the place of the log up to its version, in the caller's transaction.

    Returns
    -------
    int
        How many entries of the log are gone.
    """
    b, t, r = db.bases.c, db.log.c, db.reciprocals.c
    sql.execute(db.bases.delete().where(b.realm == realm))
    for part, data in enumerate(_parts(base)):
        sql.execute(db.bases.insert().values(realm=realm, part=part, version=version, changeset=data))
    sql.execute(db.reciprocals.delete().where(r.realm == realm, r.version <= version))
    sql.execute(db.withdrawn.delete().where(db.withdrawn.c.realm == realm, db.withdrawn.c.version <= version))
    return int(sql.execute(db.log.delete().where(t.realm == realm, t.version <= version)).rowcount)


def _parts(base: Snapshot) -> Iterator[bytes]:
    yield schema_changeset(base.schema).encode()
    for name, table in base.tables.items():
        for start in range(0, len(table), _ROWS):
            rows = np.arange(start, min(len(table), start + _ROWS))
            yield objects_changeset(base, name, rows).encode()


def version_before(sql: sa.Connection, realm: int, timestamp: int, highest: int) -> int:
    """Give the highest version, up to one given, with nothing written at a time or later among those before it."""
    t = db.log.c
    newer = sql.execute(sa.select(sa.func.min(t.version)).where(t.realm == realm, t.timestamp >= timestamp)).scalar()
    return highest if newer is None else min(highest, int(newer) - 1)


def client_resets(sql: sa.Connection, realm: int) -> dict[int, bool]:
    """List the client files that have to begin anew, and whether they may recover what they have not sent."""
    t = db.client_resets.c
    return {int(i): bool(r) for i, r in sql.execute(sa.select(t.ident, t.recovery).where(t.realm == realm))}


def order_resets(sql: sa.Connection, realm: int, idents: Sequence[int], *, recovery: bool) -> None:
    """Note client files that have to begin anew."""
    if not idents:
        return
    t = db.client_resets.c
    sql.execute(db.client_resets.delete().where(t.realm == realm, t.ident.in_(idents)))
    rows: list[dict[str, Any]] = [{"realm": realm, "ident": i, "recovery": recovery} for i in idents]
    sql.execute(db.client_resets.insert(), rows)
