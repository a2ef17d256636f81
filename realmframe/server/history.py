"""One realm's history: the state, and how an upload is merged into it.

An upload comes as its client wrote it, based on the server version that the client had then. It is transformed against
what the log got since from others, applied, and appended. The other half of each transform (those log entries as the
client will make them when it merges) is kept per client file, because the client's next upload with the same base
builds on it (``windows.py``).

What is made piles up in memory until :meth:`History.write`; nothing is acknowledged before its commit.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sqlalchemy as sa

from realmframe.changes import Changeset, concat
from realmframe.errors import ApplyError, ProtocolError, SchemaMismatchError
from realmframe.server import database as db
from realmframe.server import trimming
from realmframe.server.checkpoints import Checkpoints
from realmframe.server.client_files import ClientFiles
from realmframe.server.elements import with_nulls, without_clears
from realmframe.server.entries import FIRST_VERSION, SERVER_FILE, ClientFile, Entry, Integrated
from realmframe.server.log import ALL, Log
from realmframe.server.passing import Passing
from realmframe.server.schemas import check_fits, check_unchanged
from realmframe.server.windows import Windows
from realmframe.server.withdrawn import withdrawn
from realmframe.store import Applied, Snapshot, apply
from realmframe.wire import UploadEntry

if TYPE_CHECKING:
    from realmframe.merge import Meeting


class History:
    """The log and state of one realm; used by one thread.

    Parameters
    ----------
    database : Database
    app, name : str
        ``name`` is ``flx`` or the partition's text.
    folder : Path, optional
        Where checkpoints of the state lie.
    """

    def __init__(self, database: db.Database, app: str, name: str, folder: Path | None = None) -> None:
        self._database = database
        self.passing = Passing()
        self.realm, self.salt = _identity(database, app, name)
        self.files, self.log = ClientFiles(database, self.realm), Log(database, self.realm)
        self._windows = Windows(self.since, self.files.note_reciprocals, self.passing)
        with database.transaction() as sql:
            #: The log up to this version is gone; 0 if it is whole.
            self.trimmed = trimming.trimmed_version(sql, self.realm)
            #: Client files that have to begin anew, and whether they may recover what they have not sent.
            self.resets = trimming.client_resets(sql, self.realm)
        self._checkpoints = Checkpoints(folder, app, name, self.salt) if folder is not None else None
        newest = self.log.newest() or self.trimmed or FIRST_VERSION
        found_state = self._checkpoints.load(newest) if self._checkpoints is not None else None
        if found_state is None or found_state.version < self.trimmed:
            found_state = self._base()
        self.snapshot = self._replay(found_state)
        #: What is committed: a checkpoint must not be ahead of the log.
        self._durable = self.snapshot
        self.log.committed(self.version)
        database.closing[app, name] = self.close

    @property
    def version(self) -> int:
        """The newest version."""
        return self.snapshot.version

    def since(self, version: int) -> list[Entry]:
        """Give all entries above a version, oldest first."""
        return self.log.since(version) if version < self.version else []

    def advance(self, file: ClientFile, client_version: int, server_version: int) -> None:
        """Note how far a client says to be; it becomes durable with the next commit."""
        self.files.advance(file, client_version, min(server_version, self.version))

    def is_gone(self, file: ClientFile, version: int) -> bool:
        """Whether a client cannot go on from a version: the log after it is gone.

        A client that is just being sent the state in place of the log has such versions, and goes on from them.
        """
        return 0 < version < self.trimmed and file.began < self.trimmed

    # ------------------------------------------------------------------ state on disk

    def _base(self) -> Snapshot:
        """Give the state that the log begins with."""
        if not self.trimmed:
            return Snapshot.empty().at_version(FIRST_VERSION)
        with self._database.transaction() as sql:
            return trimming.read_base(sql, self.realm).at_version(self.trimmed)

    def trim(self, version: int) -> int:
        """Forget the log up to a version; its state is kept. Durable on return, with whatever is not written yet.

        Clients that have not seen so much have to begin anew.

        Returns
        -------
        int
            How many entries are gone.
        """
        version = min(version, self.version)
        if version <= max(self.trimmed, FIRST_VERSION):
            return 0
        with self._database.transaction() as sql:
            self.write(sql)
        base = self.snapshot
        if version < self.version:
            base = self._base()
            for entry in self.log.load(base.version, version):
                base = apply(base, entry.changeset, version=entry.version).snapshot
        with self._database.transaction() as sql:
            count = trimming.write_base(sql, self.realm, base, version)
        self.trimmed = version
        self.log.forget_through(version)
        self.files.forget_through(version)
        self._windows.forget_through(version)
        return count

    def version_before(self, timestamp: int, keep: int) -> int:
        """Give the version up to which all entries are older than a time, and not among the last ``keep``."""
        with self._database.transaction() as sql:
            return trimming.version_before(sql, self.realm, timestamp, self.version - keep)

    def order_reset(self, idents: Sequence[int], *, recovery: bool) -> None:
        """Have client files begin anew; durable on return."""
        with self._database.transaction() as sql:
            trimming.order_resets(sql, self.realm, idents, recovery=recovery)
        self.resets |= dict.fromkeys(idents, recovery)

    def _replay(self, snapshot: Snapshot) -> Snapshot:
        for entry in self.log.load(snapshot.version, ALL):
            snapshot = apply(snapshot, entry.changeset, version=entry.version).snapshot
            self.log.remember(entry)
            if self._checkpoints is not None:
                self._checkpoints.count(len(entry.data))
        return snapshot

    def _committed(self) -> None:
        self._durable = self.snapshot
        self.log.committed(self.version)
        if self._checkpoints is not None and self._checkpoints.is_due():
            self._checkpoints.start(self.snapshot)

    def close(self) -> None:
        """Write a checkpoint, unless memory is ahead of the log; nothing may be integrated after."""
        if self._checkpoints is not None and self._durable is self.snapshot:
            self._checkpoints.finish(self.snapshot)

    @property
    def is_dirty(self) -> bool:
        """Whether there is something that has to be committed before anything is sent."""
        return bool(self.log.rows) or self.files.is_dirty

    def write(self, sql: sa.Connection) -> None:
        """Write what piled up, inside a transaction of the caller."""
        sql.info["committed"].append(self._committed)
        self.log.write(sql)
        self._windows.settle()
        self.files.write(sql)

    # ------------------------------------------------------------------ integrating

    def integrate(
        self,
        file: ClientFile,
        upload: UploadEntry,
        *,
        may_change_schema: bool = True,
        written: UploadEntry | None = None,
    ) -> Integrated | None:
        """Merge one changeset of a client; None if it is integrated already.

        Parameters
        ----------
        file : ClientFile
        upload : UploadEntry
        may_change_schema : bool
        written : UploadEntry, optional
            What the client uploaded, if that is not what it is taken to have.

        Raises
        ------
        SchemaMismatchError
            If it contradicts the schema, or changes it and may not.
        ProtocolError
            If it cannot be decoded, merged or applied; nothing of it was.
        """
        if upload.client_version <= file.client_version:
            return None
        if upload.server_version > self.version:
            raise ProtocolError("The client uploaded a changeset that is based on a version the server never had.")
        decoded = Changeset.decode(upload.changeset)
        original = without_clears(decoded)
        cleared = original is not decoded
        check_fits(original, self.snapshot.schema)
        origin = upload.file_ident or file.ident
        meeting = self._merge(file, upload, origin, original)
        changeset = original if meeting is None else meeting.outputs[0]
        replaced = self.passing.replaced(self.snapshot, changeset)
        changeset = concat([replaced, changeset]) if len(replaced) else changeset
        changed = changeset is not original
        applied = self._apply(changeset)
        if not may_change_schema:
            check_unchanged(self.snapshot.schema, applied.snapshot.schema)
        changeset = with_nulls(changeset, applied.snapshot.schema)
        data = upload.changeset if changeset is decoded else changeset.encode()
        entry = Entry(
            self.version + 1,
            file.ident,
            upload.client_version,
            upload.server_version,
            upload.timestamp,
            len(upload.changeset),
            data,
        )
        if changeset is decoded:
            entry.__dict__["changeset"] = decoded
        if changed or written is not None:
            original = original if written is None else Changeset.decode(written.changeset)
            entry.withdrawn = withdrawn(original, changeset).encode()
        if meeting is not None:
            self._windows.accept(file, meeting)
        self._append(entry, applied)
        self.advance(file, upload.client_version, (written or upload).server_version)
        return Integrated(entry, applied, changed, original, cleared)

    def has_met(self, file: ClientFile, upload: UploadEntry) -> bool:
        """Whether others wrote something after what an upload is based on."""
        return any(e.origin != file.ident and len(e.data) for e in self.since(upload.server_version))

    def _apply(self, changeset: Changeset) -> Applied:
        try:
            return apply(self.snapshot, changeset, version=self.version + 1)
        except ApplyError as error:
            schema = changeset.take(np.flatnonzero(changeset.is_schema))
            try:
                apply(self.snapshot, schema)
            except ApplyError as reason:
                raise SchemaMismatchError(f"The client's schema contradicts the app's: {reason}") from error
            raise

    def _merge(self, file: ClientFile, upload: UploadEntry, origin: int, original: Changeset) -> Meeting | None:
        if self.log.is_all_of(file.ident, upload.server_version):
            return None  # nothing but its own since: the usual case, and it may be a long tail
        if upload.server_version == self.version or not len(original):
            return None
        from realmframe.merge import Timed

        timed = Timed(original, upload.timestamp, origin)
        return self._windows.merge(file, upload.server_version, timed, self.snapshot.schema)

    def append_own(self, changeset: Changeset, timestamp: int, *, compensates: int = 0) -> Integrated:
        """Append a change that the server makes itself."""
        data = changeset.encode()
        applied = apply(self.snapshot, changeset, version=self.version + 1)
        entry = Entry(self.version + 1, SERVER_FILE, 0, self.version, timestamp, len(data), data, compensates)
        self._append(entry, applied)
        return Integrated(entry, applied, False, changeset)

    def _append(self, entry: Entry, applied: Applied) -> None:
        self.log.append(entry)
        if self._checkpoints is not None:
            self._checkpoints.count(len(entry.data))
        self.snapshot = applied.snapshot


def _identity(database: db.Database, app: str, name: str) -> tuple[int, int]:
    """Give a realm's number and salt; it is made at its first use."""
    t = db.realms.c
    query = sa.select(t.id, t.salt).where(t.app == app, t.name == name)
    with database.transaction() as sql:
        found = sql.execute(query).first()
        if found is None:
            sql.execute(db.realms.insert().values(app=app, name=name, salt=secrets.randbits(62) + 1))
            found = sql.execute(query).one()
    return int(found[0]), int(found[1])
