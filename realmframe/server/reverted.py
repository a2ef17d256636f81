"""Writes of a client that the server took back, kept until the client has heard of it.

The client is told by error 231, and gets the objects as they are here. Both may be lost with a connection, or with the
server; so they are kept with the client file until it says that it has the version, and come again with its next
session. Without that a client would keep a write that nobody else has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from realmframe.changes import Changeset
from realmframe.changes.instructions import EraseObject
from realmframe.model import Key
from realmframe.server import database as db
from realmframe.wire import Action, JsonError, json_error_body, primary_key_from_text, rejected_updates

#: Objects that one error names at most.
_NAMED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Reverted:
    """What was taken back of one upload.

    Attributes
    ----------
    version : int
        The server version that takes it back.
    client_version : int
        That of the upload.
    objects : tuple
        Class, key and reason of each object.
    """

    version: int
    client_version: int
    objects: tuple[tuple[str, Key, str], ...]

    def warning(self, session: int) -> JsonError:
        """Make the error that tells a session of it."""
        body = json_error_body(
            "Client attempted a write that is not allowed; it has been reverted",
            action=Action.WARNING,
            try_again=True,
            rejectedUpdates=rejected_updates(self.objects[:_NAMED]),
            rejectedClientVersion=self.client_version,
            compensatingWriteServerVersion=self.version,
        )
        return JsonError(session, 231, body)

    def erasures(self) -> Changeset:
        """Name the objects in a changeset."""
        return Changeset.from_instructions([EraseObject(table, key) for table, key, _ in self.objects])

    def row(self, realm: int, file: int) -> dict[str, Any]:
        """Give the row of the table."""
        objects = rejected_updates(self.objects)
        names = {"realm": realm, "file": file, "version": self.version, "client_version": self.client_version}
        return names | {"objects": objects}


def load(sql: sa.Connection, realm: int) -> dict[int, dict[int, Reverted]]:
    """Give what is kept for the files of a realm, by file and version."""
    found: dict[int, dict[int, Reverted]] = {}
    for row in sql.execute(sa.select(db.reverted).where(db.reverted.c.realm == realm)).mappings():
        objects = tuple((str(o["table"]), primary_key_from_text(o["pk"]), str(o["reason"])) for o in row["objects"])
        one = Reverted(row["version"], row["client_version"], objects)
        found.setdefault(row["file"], {})[one.version] = one
    return found


def save(
    sql: sa.Connection, realm: int, made: Mapping[tuple[int, int], Reverted], confirmed: Mapping[int, int]
) -> None:
    """Keep what was made, and forget what files have confirmed, each up to a version."""
    t = db.reverted.c
    if made:
        sql.execute(db.reverted.insert(), [one.row(realm, file) for (file, _), one in made.items()])
    for file, version in confirmed.items():
        sql.execute(db.reverted.delete().where(t.realm == realm, t.file == file, t.version <= version))
