"""What is on disk: SQL tables, one place that knows how to open them, and checkpoints of realms.

Everything durable is in SQL: apps, users, identities, API keys, client files and the log of changesets. A checkpoint
only saves replaying the log; it can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event

from realmframe.errors import RealmError, StorageError
from realmframe.store import Checkpoint, Snapshot, read_checkpoint, write_checkpoint
from realmframe.store.checkpoint import FrozenIndex, freeze_index

logger = logging.getLogger("realmframe.server")

META = sa.MetaData()

settings = sa.Table(
    "settings", META, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.LargeBinary, nullable=False)
)
apps = sa.Table("apps", META, sa.Column("id", sa.String, primary_key=True), sa.Column("created", sa.Integer))
users = sa.Table(
    "users",
    META,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("app", sa.String, nullable=False, index=True),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False, default=0),
)
identities = sa.Table(
    "identities",
    META,
    sa.Column("app", sa.String, primary_key=True),
    sa.Column("provider", sa.String, primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("id", sa.String, nullable=False),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("secret", sa.String),
)
api_keys = sa.Table(
    "api_keys",
    META,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("app", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("digest", sa.String, nullable=False, index=True),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
)
logins = sa.Table(
    "logins",
    META,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("device", sa.String, nullable=False),
)
#: Addresses that were registered and not confirmed yet.
unconfirmed = sa.Table(
    "unconfirmed",
    META,
    sa.Column("app", sa.String, primary_key=True),
    sa.Column("email", sa.String, primary_key=True),
    sa.Column("created", sa.Integer, nullable=False),
)
#: Tokens that were mailed and not used yet: their ids only, the tokens are signatures of them.
mails = sa.Table(
    "mails",
    META,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("app", sa.String, nullable=False, index=True),
    sa.Column("email", sa.String, nullable=False),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("expires", sa.Integer, nullable=False),
)
#: What the app's owner keeps about a user; it comes with each access token.
custom_data = sa.Table(
    "custom_data",
    META,
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("data", sa.JSON, nullable=False),
)
realms = sa.Table(
    "realms",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("app", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("salt", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("app", "name"),
)
client_files = sa.Table(
    "client_files",
    META,
    sa.Column("realm", sa.Integer, primary_key=True),
    sa.Column("ident", sa.Integer, primary_key=True),
    sa.Column("salt", sa.BigInteger, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("client_version", sa.BigInteger, nullable=False),
    sa.Column("server_version", sa.BigInteger, nullable=False),
)
#: ``compensates`` names the client file whose write this entry of the server takes back, else 0.
log = sa.Table(
    "log",
    META,
    sa.Column("realm", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("origin", sa.Integer, nullable=False),
    sa.Column("client_version", sa.BigInteger, nullable=False),
    sa.Column("base", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("original_size", sa.Integer, nullable=False),
    sa.Column("compensates", sa.Integer, nullable=False, default=0),
    sa.Column("changeset", sa.LargeBinary, nullable=False),
)
#: Objects that the upload of a log entry named and the entry does not.
withdrawn = sa.Table(
    "withdrawn",
    META,
    sa.Column("realm", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("changeset", sa.LargeBinary, nullable=False),
)
#: Log entries as one client file sees them: transformed against its uploads that came in after them.
reciprocals = sa.Table(
    "reciprocals",
    META,
    sa.Column("realm", sa.Integer, primary_key=True),
    sa.Column("file", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("changeset", sa.LargeBinary, nullable=False),
)
#: The state of a realm up to a version whose log is gone: changesets that make it, in order of ``part``.
bases = sa.Table(
    "bases",
    META,
    sa.Column("realm", sa.Integer, primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("changeset", sa.LargeBinary, nullable=False),
)
#: Client files that have to begin anew, and whether they may recover what they have not sent.
client_resets = sa.Table(
    "client_resets",
    META,
    sa.Column("realm", sa.Integer, primary_key=True),
    sa.Column("ident", sa.Integer, primary_key=True),
    sa.Column("recovery", sa.Boolean, nullable=False),
)
#: What the server took back of a client file's writes, and the client has not confirmed yet.
reverted = sa.Table(
    "reverted",
    META,
    sa.Column("realm", sa.Integer, primary_key=True),
    sa.Column("file", sa.Integer, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("client_version", sa.BigInteger, nullable=False),
    sa.Column("objects", sa.JSON, nullable=False),
)
#: What an administrator wants done; ``result`` is null until it is.
orders = sa.Table(
    "orders",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("app", sa.String, nullable=False),
    sa.Column("what", sa.String, nullable=False),
    sa.Column("arguments", sa.JSON, nullable=False),
    sa.Column("result", sa.JSON(none_as_null=True)),
)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class Database:
    """The database of a server.

    Parameters
    ----------
    url : str, optional
        SQLAlchemy URL; by default SQLite in ``folder``.
    folder : Path
        Data folder; made if it does not exist, readable by its owner only.

    Raises
    ------
    StorageError
        If it cannot be opened.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        #: What is to be done before the connections are closed, one for each realm.
        self.closing: dict[tuple[str, str], Callable[[], None]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "server.sqlite"
            if url is None and not path.exists():
                # Only then: closing a file ends all locks that the process has on it, SQLite's included.
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self.engine = sa.create_engine(url or f"sqlite:///{path}", pool_pre_ping=bool(url))
            if self.engine.dialect.name == "sqlite":
                event.listen(self.engine, "connect", _configure_sqlite)
            META.create_all(self.engine)
        except (OSError, sa.exc.SQLAlchemyError) as error:
            raise StorageError(
                f"The server's database in {folder} cannot be opened: {error}.",
                path=str(folder),
                hint="Check that the folder can be written and that the file is a database of this server.",
            ) from error

    @classmethod
    def existing(cls, folder: Path) -> Database:
        """Open what a server left in its folder; nothing is made.

        Raises
        ------
        StorageError
            If there is no server's data in the folder.
        """
        if not (folder / "server.sqlite").exists():
            hint = "Give --data its folder."
            raise StorageError(f"There is no data of a server in {folder}.", path=str(folder), hint=hint)
        return cls(folder)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction: committed at the end, rolled back by an exception.

        Callables that were put into ``connection.info["committed"]`` are called after the commit.
        """
        hooks: list[Callable[[], None]] = []
        with self.engine.begin() as connection:
            connection.info["committed"] = hooks
            yield connection
        for hook in hooks:
            hook()

    def secret(self, name: str, size: int = 32) -> bytes:
        """Give a random secret, made and kept at the first call."""
        with self.transaction() as sql:
            found = sql.execute(sa.select(settings.c.value).where(settings.c.name == name)).scalar()
            if found is None:
                found = os.urandom(size)
                sql.execute(settings.insert().values(name=name, value=found))
            return bytes(found)

    def close(self) -> None:
        """Write what saves time at the next start, and close all connections."""
        for close in self.closing.values():
            close()
        self.closing.clear()
        self.engine.dispose()


#: A checkpoint is due after this many entries or bytes of log, but takes no more than a tenth of the time.
CHECKPOINT_ENTRIES: Final = 5_000
CHECKPOINT_BYTES: Final = 16 << 20
_PAUSE: Final = 9.0


def checkpoint_folder(folder: Path, app: str, name: str) -> Path:
    """Say where in the data folder the checkpoints of a realm lie."""
    # Apps and partitions are named by clients: hashed, no name can leave the folder or be too long for it.
    digest = hashlib.sha256(f"{len(app)} {app} {name}".encode("utf-8", "surrogatepass")).hexdigest()
    return folder / "checkpoints" / digest[:40]


class Checkpoints:
    """The checkpoints of one realm; written by a thread of their own, or at once at the end.

    Parameters
    ----------
    folder : Path
        The server's data folder.
    app, name : str
        The realm's.
    salt : int
        The history's: a checkpoint of another history is not used.
    """

    def __init__(self, folder: Path, app: str, name: str, salt: int) -> None:
        self.folder = checkpoint_folder(folder, app, name)
        self._extra = {"app": app, "name": name, "salt": salt}
        self._current: Checkpoint | None = None
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        #: Version of the newest one, and the entries and bytes of log since.
        self.version = self.entries = self.size = 0

    def load(self, newest: int) -> Snapshot | None:
        """Give the state of the newest one; None if there is none that fits a log which ends at a version."""
        try:
            found = read_checkpoint(self.folder)
        except (RealmError, OSError) as error:
            logger.warning("A checkpoint cannot be used, the log is replayed instead: %s", error)
            return None
        if found is None:
            return None
        extra = found.extra
        if extra.get("salt") != self._extra["salt"] or extra.get("version") != found.snapshot.version:
            logger.warning("The checkpoint in %s is of another history; the log is replayed instead", self.folder)
            return None
        if found.snapshot.version > newest:
            logger.warning(
                "The checkpoint in %s is of version %d, newer than the log, which ends at %d; the log is replayed",
                self.folder,
                found.snapshot.version,
                newest,
            )
            return None
        self._current, self.version = found, found.snapshot.version
        return found.snapshot

    def count(self, size: int) -> None:
        """Note an entry of the log."""
        self.entries += 1
        self.size += size

    def is_due(self) -> bool:
        """Whether enough log has come since the newest one."""
        if self.entries < CHECKPOINT_ENTRIES and self.size < CHECKPOINT_BYTES:
            return False
        return time.monotonic() >= self._not_before and (self._thread is None or not self._thread.is_alive())

    def start(self, snapshot: Snapshot) -> None:
        """Write one in a thread; the snapshot is the newest, and durable in the log."""
        indexes = {name: freeze_index(table) for name, table in snapshot.tables.items()}
        self.entries = self.size = 0
        self._thread = threading.Thread(
            target=self._write, args=(snapshot, indexes), name="realmframe-server-checkpoint", daemon=True
        )
        self._thread.start()

    def finish(self, snapshot: Snapshot) -> None:
        """Wait for the thread, and write the last one if there is anything new; nobody writes to the realm now."""
        if self._thread is not None:
            self._thread.join(60)
            if self._thread.is_alive():
                return
        if snapshot.version > self.version and snapshot.tables:
            self._write(snapshot, {name: freeze_index(table) for name, table in snapshot.tables.items()})

    def _write(self, snapshot: Snapshot, indexes: dict[str, FrozenIndex]) -> None:
        begun = time.monotonic()
        try:
            extra = {**self._extra, "version": snapshot.version}
            self._current = write_checkpoint(self.folder, snapshot, extra, previous=self._current, indexes=indexes)
            self.version = snapshot.version
        except (RealmError, OSError):
            logger.exception("A checkpoint could not be written; the next start takes longer")
        now = time.monotonic()
        self._not_before = now + _PAUSE * (now - begun)
