"""What an administrator wants done: written into the database as an order, carried out by the server.

The server that runs on a data folder looks for orders a few times a second; where none runs, the command carries its
order out itself. Nothing is asked over the network, so whoever can write the data folder is an administrator.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from realmframe.errors import AppError, UsageError, WaitTimeoutError
from realmframe.server import database as db
from realmframe.store.lock import held, lock_file

if TYPE_CHECKING:
    from realmframe.server.engine import Engine
    from realmframe.server.sync import RealmSync

_PAUSE: Final = 0.05
_DAY_MS: Final = 86_400_000
#: Close what a user has open; :mod:`.users` orders it.
END_USER: Final = "end-user"


def carry_out(engine: Engine, database: db.Database) -> None:
    """Carry out what was ordered since the last look; in the engine's thread."""
    t = db.orders.c
    with database.transaction() as sql:
        waiting = sql.execute(sa.select(t.id, t.app, t.what, t.arguments).where(t.result.is_(None))).all()
    for number, app, what, arguments in waiting:
        try:
            if what == END_USER:
                engine.end_user(app, str(arguments["user"]))
                result: dict[str, Any] = {}
            else:
                result = _ORDERS[what](engine, _realms(engine, database, app), arguments)
        except (AppError, UsageError) as fault:
            result = {"error": str(fault)}
        except (KeyError, TypeError, ValueError) as fault:  # said once, or it would come again and hold up the others
            result = {"error": f"The order {what!r} cannot be carried out: {fault!r}."}
        with database.transaction() as sql:
            sql.execute(db.orders.update().where(t.id == number).values(result=result))


def _realms(engine: Engine, database: db.Database, app: str) -> list[RealmSync]:
    t = db.realms.c
    with database.transaction() as sql:
        names = [str(row[0]) for row in sql.execute(sa.select(t.name).where(t.app == app).order_by(t.id))]
    if not names:
        raise AppError(f"The server has no data of an app {app!r}.", hint="Check its name, and the data folder.")
    return [engine.realm(app, name) for name in names]


def _reset_client(engine: Engine, realms: list[RealmSync], arguments: dict[str, Any]) -> dict[str, Any]:
    from realmframe.server.answers import reset_ordered

    user, ident, recovery = arguments.get("user"), arguments.get("file_ident"), bool(arguments.get("recovery", True))
    count = 0
    for realm in realms:
        files = [
            f for f in realm.history.files.values() if user in (None, f.user) and (ident is None or f.ident == ident)
        ]
        realm.history.order_reset([f.ident for f in files], recovery=recovery)
        for session in [s for s in realm.sessions if s.file in files]:
            engine.end_session(realm, session, reset_ordered(session.number, recovery=recovery))
        count += len(files)
    return {"files": count}


def _trim(engine: Engine, realms: list[RealmSync], arguments: dict[str, Any]) -> dict[str, Any]:
    from realmframe.server.answers import expired, now

    cutoff = now() - int(float(arguments["older_than"]) * _DAY_MS) if arguments.get("older_than") else 1 << 62
    count = 0
    for realm in realms:
        gone, behind = realm.trim(realm.history.version_before(cutoff, int(arguments.get("keep") or 0)))
        count += gone
        for session in behind:
            engine.end_session(realm, session, expired(session.number))
    return {"entries": count}


_ORDERS: Final[dict[str, Callable[[Engine, list[RealmSync], dict[str, Any]], dict[str, Any]]]] = {
    "reset-client": _reset_client,
    "trim": _trim,
}


def order(data: Path, app: str, what: str, *, timeout: float = 60.0, **arguments: Any) -> dict[str, Any]:
    """Have something done on a server's data, whether or not the server runs.

    Parameters
    ----------
    data : Path
        The server's data folder.
    app : str
    what : str
        ``"reset-client"`` (``user``, ``file_ident``: which client files, all by default; ``recovery``: whether they may
        recover what they have not sent, yes by default) or ``"trim"`` (``keep``: the last so many changes stay;
        ``older_than``: only what was written so many days ago goes).
    timeout : float
        Seconds to wait for a running server.

    Returns
    -------
    dict
        ``files`` that were reset, or ``entries`` that are gone.

    Raises
    ------
    StorageError
        If there is no server's data in the folder.
    AppError
        If the server knows nothing of the app.
    WaitTimeoutError
        If the running server did not answer.
    """
    from realmframe.server.claim import RUNNING
    from realmframe.server.engine import Engine

    database = db.Database.existing(data)
    try:
        with database.transaction() as sql:
            made = db.orders.insert().values(app=app, what=what, arguments=arguments)
            number = int(sql.execute(made).inserted_primary_key[0])  # type: ignore[index]
        ends = time.monotonic() + timeout
        while True:
            with held(lock_file(data, RUNNING), timeout=0) as is_free:
                if is_free:
                    carry_out(Engine(database, development=False, folder=data), database)
            found = _result(database, number)
            if found is not None:
                break
            if time.monotonic() > ends:
                raise WaitTimeoutError(f"The server on {data} did not carry out {what!r} within {timeout:g} s.")
            time.sleep(_PAUSE)
    finally:
        database.close()
    if "error" in found:
        raise AppError(str(found["error"]))
    return found


def _result(database: db.Database, number: int) -> dict[str, Any] | None:
    t = db.orders.c
    with database.transaction() as sql:
        found: dict[str, Any] | None = sql.execute(sa.select(t.result).where(t.id == number)).scalar()
    return found
