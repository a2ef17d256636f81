"""The log of one realm: on disk all of it that was not trimmed, in memory the newest entries.

Rows for SQL pile up in ``rows`` until :meth:`Log.write`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from realmframe.server import database as db
from realmframe.server import withdrawn as wd
from realmframe.server.entries import Entry

_RECENT_ENTRIES: Final = 20_000
_RECENT_BYTES: Final = 128 << 20
#: Above every version.
ALL: Final = 1 << 62


class Log:
    """The entries of one realm, oldest first; used by one thread.

    Parameters
    ----------
    database : Database
    realm : int
        Its number in the database.
    """

    def __init__(self, database: db.Database, realm: int) -> None:
        self._database, self._realm = database, realm
        self.rows: list[dict[str, Any]] = []
        self._withdrawn: dict[int, bytes] = {}
        #: The newest entries.
        self.recent: deque[Entry] = deque()
        self._recent_bytes = 0
        #: Up to which version the disk has everything.
        self._written = ALL
        #: The newest entries, from a version on, are all of one origin.
        self._tail_origin = self._tail_start = 0

    def newest(self) -> int:
        """Give the newest version on disk; 0 without any."""
        t = db.log.c
        with self._database.transaction() as sql:
            return sql.execute(sa.select(sa.func.max(t.version)).where(t.realm == self._realm)).scalar() or 0

    def load(self, after: int, through: int) -> Iterator[Entry]:
        """Read entries from disk, above one version and up to another."""
        t = db.log.c
        columns = (t.version, t.origin, t.client_version, t.base, t.timestamp, t.original_size, t.changeset)
        wanted = (t.realm == self._realm, t.version > after, t.version <= through)
        query = sa.select(*columns, t.compensates).where(*wanted)
        with self._database.transaction() as sql:
            kept = wd.load(sql, self._realm, after, through)
            for row in sql.execute(query.order_by(t.version)):
                yield Entry(*row[:6], bytes(row[6]), row[7], kept.get(row[0], b""))

    def append(self, entry: Entry) -> None:
        """Append an entry, to be written with the next commit."""
        self.rows.append(
            {
                "realm": self._realm,
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
        self.remember(entry)

    def remember(self, entry: Entry) -> None:
        """Keep an entry in memory."""
        if entry.origin != self._tail_origin:
            self._tail_origin, self._tail_start = entry.origin, entry.version
        self.recent.append(entry)
        self._recent_bytes += len(entry.data)
        self._forget_old()

    def _forget_old(self) -> None:
        """Keep no more in memory than needed; what is not in the log yet is nowhere else."""
        while len(self.recent) > _RECENT_ENTRIES or (self._recent_bytes > _RECENT_BYTES and len(self.recent) > 1):
            if self.recent[0].version > self._written:
                return
            self._recent_bytes -= len(self.recent.popleft().data)

    def forget_through(self, version: int) -> None:
        """Forget entries that were trimmed."""
        while self.recent and self.recent[0].version <= version:
            self._recent_bytes -= len(self.recent.popleft().data)

    def is_all_of(self, origin: int, after: int) -> bool:
        """Whether all entries above a version are of one origin, as far as that is known at once."""
        return self._tail_origin == origin and after + 1 >= self._tail_start

    def since(self, version: int) -> list[Entry]:
        """Give all entries above a version, oldest first."""
        first = self.recent[0].version if self.recent else ALL
        older = list(self.load(version, first - 1)) if version + 1 < first else []
        size = sum(len(e.data) for e in older)
        if older and len(older) + len(self.recent) <= _RECENT_ENTRIES and size + self._recent_bytes <= _RECENT_BYTES:
            # After a start from a checkpoint nothing older is in memory; uploads based on it come in rows.
            self.recent.extendleft(reversed(older))
            self._recent_bytes += size
            return list(self.recent)
        skip = max(0, version + 1 - first)
        if len(self.recent) - skip < skip:
            newer: list[Entry] = []
            for entry in reversed(self.recent):
                if entry.version <= version:
                    break
                newer.append(entry)
            return older + newer[::-1]
        return older + [e for e in self.recent if e.version > version]

    def write(self, sql: sa.Connection) -> None:
        """Write what piled up, inside a transaction of the caller."""
        if self.rows:
            sql.execute(db.log.insert(), self.rows)
        wd.save(sql, self._realm, self._withdrawn)
        self.rows, self._withdrawn = [], {}

    def committed(self, version: int) -> None:
        """Hear that the disk has everything up to a version."""
        self._written = version
        self._forget_old()
