"""One realm's history: the durable log, and how an upload is merged into it.

An upload comes as its client wrote it, based on the server version that the client had then. It is transformed against
what the log got since from others, applied, and appended. The other half of each transform (those log entries as the
client will make them when it merges) is kept per client file, because the client's next upload with the same base
builds on it.

Rows for SQL pile up in ``rows`` until :meth:`History.write`; nothing is acknowledged before their commit.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import sqlalchemy as sa

from realmframe.changes import Changeset, concat
from realmframe.errors import ApplyError, ProtocolError, SchemaMismatchError
from realmframe.server import database as db
from realmframe.server import reverted as rev
from realmframe.server import trimming
from realmframe.server import withdrawn as wd
from realmframe.server.passing import Passing
from realmframe.server.reverted import Reverted
from realmframe.server.schemas import check_fits, check_unchanged
from realmframe.store import Applied, Snapshot, apply
from realmframe.wire import UploadEntry

#: The server's own file; client files start above it.
SERVER_FILE: Final = 1
#: Version of a realm without history: entries of a bootstrap need a version above 0.
FIRST_VERSION: Final = 1
_RECENT_ENTRIES: Final = 20_000
_RECENT_BYTES: Final = 128 << 20


@dataclass(eq=False)
class Entry:
    """One changeset of the log.

    Attributes
    ----------
    version : int
    origin : int
        The client file that wrote it, or 1.
    client_version : int
        Its version at the origin.
    base : int
        Server version that it was based on.
    timestamp : int
        Milliseconds since 2015.
    original_size : int
        Bytes as uploaded.
    data : bytes
        As integrated.
    compensates : int
        The client file whose write it takes back, else 0.
    withdrawn : bytes
        A changeset that names objects which the upload named and this does not.
    """

    version: int
    origin: int
    client_version: int
    base: int
    timestamp: int
    original_size: int
    data: bytes
    compensates: int = 0
    withdrawn: bytes = b""

    @cached_property
    def changeset(self) -> Changeset:
        """The columns."""
        return Changeset.decode(self.data)


@dataclass(eq=False)
class ClientFile:
    """What the server knows of one file of a client."""

    ident: int
    salt: int
    user: str
    client_version: int = 0
    server_version: int = 0
    #: Log entries as this client will transform them, by version; only those that differ from the log.
    reciprocals: dict[int, Changeset] = field(default_factory=dict)
    #: What was taken back of its writes, by version, until it says that it has the version.
    reverted: dict[int, Reverted] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Integrated:
    """The outcome of one upload.

    Attributes
    ----------
    entry : Entry
    applied : Applied
    changed : bool
        Whether the merge changed it: part of it lost to others.
    original : Changeset
        As its client wrote it.
    """

    entry: Entry
    applied: Applied
    changed: bool
    original: Changeset


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
        self._database, self._folder = database, folder
        self.files: dict[int, ClientFile] = {}
        self.rows: list[dict[str, Any]] = []
        self._reciprocal_rows: dict[tuple[int, int], bytes] = {}
        self._withdrawn: dict[int, bytes] = {}
        self._pruned: dict[int, int] = {}
        self._dirty: set[int] = set()
        self.passing = Passing()
        self._made_reverted: dict[tuple[int, int], Reverted] = {}
        self._confirmed_reverted: dict[int, int] = {}
        self._recent: deque[Entry] = deque()
        self._recent_bytes = 0
        #: Up to which version the log has everything.
        self._logged = 1 << 62
        #: The newest entries, from a version on, are all of one origin.
        self._tail_origin = self._tail_start = 0
        with database.transaction() as sql:
            t = db.realms.c
            found = sql.execute(sa.select(t.id, t.salt).where(t.app == app, t.name == name)).first()
            if found is None:
                salt = secrets.randbits(62) + 1
                sql.execute(db.realms.insert().values(app=app, name=name, salt=salt))
                found = sql.execute(sa.select(t.id, t.salt).where(t.app == app, t.name == name)).one()
            self.realm, self.salt = int(found[0]), int(found[1])
            for row in sql.execute(sa.select(db.client_files).where(db.client_files.c.realm == self.realm)).mappings():
                file = ClientFile(row["ident"], row["salt"], row["user"], row["client_version"], row["server_version"])
                self.files[file.ident] = file
            for row in sql.execute(sa.select(db.reciprocals).where(db.reciprocals.c.realm == self.realm)).mappings():
                self.files[row["file"]].reciprocals[row["version"]] = Changeset.decode(row["changeset"])
            for ident, kept in rev.load(sql, self.realm).items():
                self.files[ident].reverted = kept
            t = db.log.c
            newest = sql.execute(sa.select(sa.func.max(t.version)).where(t.realm == self.realm)).scalar()
            #: The log up to this version is gone; 0 if it is whole.
            self.trimmed = trimming.trimmed_version(sql, self.realm)
            #: Client files that have to begin anew, and whether they may recover what they have not sent.
            self.resets = trimming.client_resets(sql, self.realm)
        self._checkpoints = db.Checkpoints(folder, app, name, self.salt) if folder is not None else None
        newest = newest or self.trimmed or FIRST_VERSION
        found_state = self._checkpoints.load(newest) if self._checkpoints is not None else None
        if found_state is None or found_state.version < self.trimmed:
            found_state = self._base()
        self.snapshot = self._replay(found_state)
        #: What is committed: a checkpoint must not be ahead of the log.
        self._durable = self.snapshot
        self._logged = self.version
        database.closing[app, name] = self.close

    @property
    def version(self) -> int:
        """The newest version."""
        return self.snapshot.version

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
            for entry in self._load(base.version, version):
                base = apply(base, entry.changeset, version=entry.version).snapshot
        with self._database.transaction() as sql:
            count = trimming.write_base(sql, self.realm, base, version)
        self.trimmed = version
        while self._recent and self._recent[0].version <= version:
            self._recent_bytes -= len(self._recent.popleft().data)
        for file in self.files.values():
            file.reciprocals = {v: c for v, c in file.reciprocals.items() if v > version}
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
        for entry in self._load(snapshot.version, 1 << 62):
            snapshot = apply(snapshot, entry.changeset, version=entry.version).snapshot
            self._remember(entry)
            if self._checkpoints is not None:
                self._checkpoints.count(len(entry.data))
        return snapshot

    def _committed(self) -> None:
        self._durable = self.snapshot
        self._logged = self.version
        self._forget_old()
        if self._checkpoints is not None and self._checkpoints.is_due():
            self._checkpoints.start(self.snapshot)

    def close(self) -> None:
        """Write a checkpoint, unless memory is ahead of the log; nothing may be integrated after."""
        if self._checkpoints is not None and self._durable is self.snapshot:
            self._checkpoints.finish(self.snapshot)

    def _load(self, after: int, through: int) -> Iterator[Entry]:
        t = db.log.c
        columns = (t.version, t.origin, t.client_version, t.base, t.timestamp, t.original_size, t.changeset)
        query = sa.select(*columns, t.compensates).where(t.realm == self.realm, t.version > after, t.version <= through)
        with self._database.transaction() as sql:
            kept = wd.load(sql, self.realm, after, through)
            for row in sql.execute(query.order_by(t.version)):
                yield Entry(*row[:6], bytes(row[6]), row[7], kept.get(row[0], b""))

    def _remember(self, entry: Entry) -> None:
        if entry.origin != self._tail_origin:
            self._tail_origin, self._tail_start = entry.origin, entry.version
        self._recent.append(entry)
        self._recent_bytes += len(entry.data)
        self._forget_old()

    def _forget_old(self) -> None:
        """Keep no more in memory than needed; what is not in the log yet is nowhere else."""
        while len(self._recent) > _RECENT_ENTRIES or (self._recent_bytes > _RECENT_BYTES and len(self._recent) > 1):
            if self._recent[0].version > self._logged:
                return
            self._recent_bytes -= len(self._recent.popleft().data)

    def since(self, version: int) -> list[Entry]:
        """Give all entries above a version, oldest first."""
        if version >= self.version:
            return []
        first = self._recent[0].version if self._recent else self.version + 1
        older = list(self._load(version, first - 1)) if version + 1 < first else []
        size = sum(len(e.data) for e in older)
        if older and len(older) + len(self._recent) <= _RECENT_ENTRIES and size + self._recent_bytes <= _RECENT_BYTES:
            # After a start from a checkpoint nothing older is in memory; uploads based on it come in rows.
            self._recent.extendleft(reversed(older))
            self._recent_bytes += size
            return list(self._recent)
        skip = max(0, version + 1 - first)
        if len(self._recent) - skip < skip:
            newer: list[Entry] = []
            for entry in reversed(self._recent):
                if entry.version <= version:
                    break
                newer.append(entry)
            return older + newer[::-1]
        return older + [e for e in self._recent if e.version > version]

    # ------------------------------------------------------------------ client files

    def new_file(self, user: str) -> ClientFile:
        """Give a client file its number; durable on return."""
        ident = max(self.files, default=SERVER_FILE) + 1
        file = ClientFile(ident, secrets.randbits(62) + 1, user)
        row = {"realm": self.realm, "ident": ident, "salt": file.salt, "user": user}
        with self._database.transaction() as sql:
            sql.execute(db.client_files.insert().values(client_version=0, server_version=0, **row))
        self.files[ident] = file
        return file

    def advance(self, file: ClientFile, client_version: int, server_version: int) -> None:
        """Note how far a client says to be; it becomes durable with the next commit."""
        if client_version > file.client_version or server_version > file.server_version:
            file.client_version = max(file.client_version, client_version)
            file.server_version = max(file.server_version, min(server_version, self.version))
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
        original = Changeset.decode(upload.changeset)
        check_fits(original, self.snapshot.schema)
        origin = upload.file_ident or file.ident
        changeset, reciprocals = self._merge(file, upload, origin, original)
        replaced = self.passing.replaced(self.snapshot, changeset)
        changeset = concat([replaced, changeset]) if len(replaced) else changeset
        changed = changeset is not original
        applied = self._apply(changeset)
        if not may_change_schema:
            check_unchanged(self.snapshot.schema, applied.snapshot.schema)
        data = changeset.encode() if changed else upload.changeset
        entry = Entry(
            self.version + 1,
            file.ident,
            upload.client_version,
            upload.server_version,
            upload.timestamp,
            len(upload.changeset),
            data,
        )
        if not changed:
            entry.__dict__["changeset"] = original
        if changed or written is not None:
            original = original if written is None else Changeset.decode(written.changeset)
            entry.withdrawn = wd.withdrawn(original, changeset).encode()
        file.reciprocals |= reciprocals
        for version, reciprocal in reciprocals.items():
            self._reciprocal_rows[file.ident, version] = reciprocal.encode()
        self._append(entry, applied)
        self.advance(file, upload.client_version, (written or upload).server_version)
        return Integrated(entry, applied, changed, original)

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

    def _merge(
        self, file: ClientFile, upload: UploadEntry, origin: int, original: Changeset
    ) -> tuple[Changeset, dict[int, Changeset]]:
        if self._tail_origin == file.ident and upload.server_version + 1 >= self._tail_start:
            return original, {}  # nothing but its own since: the usual case, and it may be a long tail
        others = [e for e in self.since(upload.server_version) if e.origin != file.ident and len(e.data)]
        if not others or not len(original):
            return original, {}
        from realmframe.merge import Timed, transform

        seen = file.reciprocals
        schema = self.snapshot.schema
        theirs = [self.passing.without(schema, seen.get(e.version, e.changeset)) for e in others]
        right = [Timed(c, e.timestamp, e.origin) for c, e in zip(theirs, others, strict=True)]
        (mine,), transformed = transform([Timed(original, upload.timestamp, origin)], right)
        pairs = zip(others, theirs, transformed, strict=True)
        return mine, {e.version: new for e, old, new in pairs if new is not old}

    def append_own(self, changeset: Changeset, timestamp: int, *, compensates: int = 0) -> Integrated:
        """Append a change that the server makes itself."""
        data = changeset.encode()
        applied = apply(self.snapshot, changeset, version=self.version + 1)
        entry = Entry(self.version + 1, SERVER_FILE, 0, self.version, timestamp, len(data), data, compensates)
        self._append(entry, applied)
        return Integrated(entry, applied, False, changeset)

    def _append(self, entry: Entry, applied: Applied) -> None:
        self.rows.append(
            {
                "realm": self.realm,
                "version": entry.version,
                "origin": entry.origin,
                "client_version": entry.client_version,
                "base": entry.base,
                "timestamp": entry.timestamp,
                "original_size": entry.original_size,
                "compensates": entry.compensates,
                "changeset": entry.data,
            }
        )
        if entry.withdrawn:
            self._withdrawn[entry.version] = entry.withdrawn
        self._remember(entry)
        if self._checkpoints is not None:
            self._checkpoints.count(len(entry.data))
        self.snapshot = applied.snapshot

    # ------------------------------------------------------------------ durability

    @property
    def is_dirty(self) -> bool:
        """Whether there is something that has to be committed before anything is sent.

        How far clients say to be counts: every DOWNLOAD announces it, and a real client ends the session when that goes
        back, as it would after a crash.
        """
        return bool(self.rows or self._dirty or self._made_reverted or self._confirmed_reverted)

    def write(self, sql: sa.Connection) -> None:
        """Write what piled up, inside a transaction of the caller."""
        sql.info["committed"].append(self._committed)
        if self.rows:
            sql.execute(db.log.insert(), self.rows)
        t = db.client_files.c
        for ident in self._dirty:
            file = self.files[ident]
            values = {"client_version": file.client_version, "server_version": file.server_version}
            sql.execute(db.client_files.update().where(t.realm == self.realm, t.ident == ident).values(values))
        r = db.reciprocals.c
        for ident, through in self._pruned.items():
            where = (r.realm == self.realm, r.file == ident, r.version <= through)
            sql.execute(db.reciprocals.delete().where(*where))
        wd.save(sql, self.realm, self._withdrawn)
        if self._reciprocal_rows:
            keys = [{"f": f, "v": v} for f, v in self._reciprocal_rows]
            where = (r.realm == self.realm, r.file == sa.bindparam("f"), r.version == sa.bindparam("v"))
            sql.execute(db.reciprocals.delete().where(*where), keys)
            rows = [
                {"realm": self.realm, "file": f, "version": v, "changeset": c}
                for (f, v), c in self._reciprocal_rows.items()
            ]
            sql.execute(db.reciprocals.insert(), rows)
        rev.save(sql, self.realm, self._made_reverted, self._confirmed_reverted)
        self.rows, self._reciprocal_rows, self._dirty, self._pruned = [], {}, set(), {}
        self._withdrawn = {}
        self._made_reverted, self._confirmed_reverted = {}, {}
