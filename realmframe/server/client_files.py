"""The client files of one realm: how far each is, and what has to be remembered for it."""

from __future__ import annotations

import secrets
from collections import UserDict
from collections.abc import Mapping
from dataclasses import replace

import sqlalchemy as sa

from realmframe.changes import Changeset
from realmframe.server import database as db
from realmframe.server import reverted as rev
from realmframe.server.entries import SERVER_FILE, ClientFile
from realmframe.server.reverted import Reverted


class ClientFiles(UserDict[int, ClientFile]):
    """Client files by number; used by one thread.

    Parameters
    ----------
    database : Database
    realm : int
        The realm's number in the database.
    """

    def __init__(self, database: db.Database, realm: int) -> None:
        super().__init__()
        self._database, self._realm = database, realm
        self._reciprocal_rows: dict[tuple[int, int], bytes] = {}
        self._pruned: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._made_reverted: dict[tuple[int, int], Reverted] = {}
        self._confirmed_reverted: dict[int, int] = {}
        with database.transaction() as sql:
            for row in sql.execute(sa.select(db.client_files).where(db.client_files.c.realm == self._realm)).mappings():
                file = ClientFile(row["ident"], row["salt"], row["user"], row["client_version"], row["server_version"])
                self[file.ident] = file
            for row in sql.execute(sa.select(db.reciprocals).where(db.reciprocals.c.realm == self._realm)).mappings():
                self[row["file"]].reciprocals[row["version"]] = Changeset.decode(row["changeset"])
            for ident, kept in rev.load(sql, self._realm).items():
                self[ident].reverted = kept

    def new(self, user: str) -> ClientFile:
        """Give a client file its number; durable on return."""
        ident = max(self, default=SERVER_FILE) + 1
        file = ClientFile(ident, secrets.randbits(62) + 1, user)
        row = {"realm": self._realm, "ident": ident, "salt": file.salt, "user": user}
        with self._database.transaction() as sql:
            sql.execute(db.client_files.insert().values(client_version=0, server_version=0, **row))
        self[ident] = file
        return file

    def advance(self, file: ClientFile, client_version: int, server_version: int) -> None:
        """Note how far a client says to be; it becomes durable with the next commit."""
        if client_version > file.client_version or server_version > file.server_version:
            file.client_version = max(file.client_version, client_version)
            file.server_version = max(file.server_version, server_version)
            self._dirty.add(file.ident)
        done = [v for v in file.reciprocals if v <= file.server_version]
        if done:
            self._pruned[file.ident] = file.server_version
            for version in done:
                del file.reciprocals[version]
                self._reciprocal_rows.pop((file.ident, version), None)
        heard = [v for v in file.reverted if v <= file.server_version]
        if heard:
            self._confirmed_reverted[file.ident] = file.server_version
            for version in heard:
                del file.reverted[version]
                self._made_reverted.pop((file.ident, version), None)

    def note_reverted(self, file: ClientFile, one: Reverted) -> None:
        """Keep what was taken back until the client has it."""
        before = file.reverted.get(one.version)
        if before is not None:
            one = replace(one, objects=before.objects + one.objects)
        file.reverted[one.version] = self._made_reverted[file.ident, one.version] = one

    def note_reciprocals(self, file: ClientFile, made: Mapping[int, Changeset]) -> None:
        """Keep log entries as a client will transform them, until it is past them."""
        file.reciprocals |= made
        for version, reciprocal in made.items():
            self._reciprocal_rows[file.ident, version] = reciprocal.encode()

    def forget_through(self, version: int) -> None:
        """Forget what belongs to entries that were trimmed."""
        for file in self.values():
            file.reciprocals = {v: c for v, c in file.reciprocals.items() if v > version}

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to be written.

        How far clients say to be counts: every DOWNLOAD announces it, and a real client ends the session when that goes
        back, as it would after a crash.
        """
        return bool(self._dirty or self._made_reverted or self._confirmed_reverted)

    def write(self, sql: sa.Connection) -> None:
        """Write what piled up, inside a transaction of the caller."""
        t = db.client_files.c
        for ident in self._dirty:
            file = self[ident]
            values = {"client_version": file.client_version, "server_version": file.server_version}
            sql.execute(db.client_files.update().where(t.realm == self._realm, t.ident == ident).values(values))
        r = db.reciprocals.c
        for ident, through in self._pruned.items():
            where = (r.realm == self._realm, r.file == ident, r.version <= through)
            sql.execute(db.reciprocals.delete().where(*where))
        if self._reciprocal_rows:
            keys = [{"f": f, "v": v} for f, v in self._reciprocal_rows]
            where = (r.realm == self._realm, r.file == sa.bindparam("f"), r.version == sa.bindparam("v"))
            sql.execute(db.reciprocals.delete().where(*where), keys)
            rows = [
                {"realm": self._realm, "file": f, "version": v, "changeset": c}
                for (f, v), c in self._reciprocal_rows.items()
            ]
            sql.execute(db.reciprocals.insert(), rows)
        rev.save(sql, self._realm, self._made_reverted, self._confirmed_reverted)
        self._reciprocal_rows, self._dirty, self._pruned = {}, set(), {}
        self._made_reverted, self._confirmed_reverted = {}, {}
