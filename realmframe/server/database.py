"""What is on disk: SQL tables, and one place that knows how to open them.

Everything durable is in SQL: apps, users, identities, API keys, client files and the log of changesets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from realmframe.errors import StorageError

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
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
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
