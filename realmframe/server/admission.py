"""How a session begins: which realm it is for (BIND), and whether its client file can go on (IDENT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from realmframe.errors import ProtocolError
from realmframe.server import database as db
from realmframe.server.answers import expired, failure, reset_ordered
from realmframe.server.connection import Connection
from realmframe.server.history import History
from realmframe.server.partitions import PREFIX, partition_of
from realmframe.server.session import Session
from realmframe.wire import Action, Bind, ClientIdent, JsonError

if TYPE_CHECKING:
    from realmframe.server.engine import Engine

#: Name of an app's one realm of Flexible Sync.
_FLEXIBLE: Final = "flx"


class Admission:
    """Lets sessions in; in the engine's thread.

    Parameters
    ----------
    engine : Engine
    database : Database
    """

    def __init__(self, engine: Engine, database: db.Database) -> None:
        self._engine, self._database = engine, database
        self._modes: dict[str, bool] = {}

    def bind(self, connection: Connection, number: int, message: Bind) -> None:
        """Take a session's BIND: for a realm that there is in the app's mode, and that the user may read."""
        old = connection.sessions.pop(number, None)
        if old is not None:
            old[0].remove(old[1])
        name, partition = _FLEXIBLE, None
        if not connection.flexible:
            try:
                partition, text = partition_of(str(message.body or ""))
            except ProtocolError as error:
                connection.send(failure(number, 204, error.message, Action.PROTOCOL_VIOLATION))
                return
            name = PREFIX + text
        if len(name) > 1_024:
            connection.send(failure(number, 204, "The partition value is too long.", Action.PROTOCOL_VIOLATION))
            return
        if self._flexible(connection.app, flexible=connection.flexible) != connection.flexible:
            self._refuse_mode(connection)
            return
        user, permissions = connection.user, self._engine.permissions
        if not connection.flexible and not permissions.may_read(user, partition):
            connection.send(failure(number, 206, "The user may not read this partition.", Action.APPLICATION_BUG))
            return
        realm = self._engine.realm(connection.app, name)
        connection.binding[number] = realm, connection.flexible or permissions.may_write(user, partition)
        if message.need_ident:
            file = realm.history.files.new(connection.user)
            connection.machine.send_ident(number, file.ident, file.salt)

    def _flexible(self, app: str, *, flexible: bool) -> bool:
        """Say whether an app syncs flexibly; its first use decides."""
        found = self._modes.get(app)
        if found is None:
            t = db.realms.c
            with self._database.transaction() as sql:
                name = sql.execute(sa.select(t.name).where(t.app == app).limit(1)).scalar()
            found = self._modes[app] = flexible if name is None else name == _FLEXIBLE
        return found

    def _refuse_mode(self, connection: Connection) -> None:
        """End a connection in the mode that the app does not have; the error is the whole connection's."""
        code = 114 if connection.flexible else 113
        have, asked = ("partitions", "flexible") if connection.flexible else ("Flexible Sync", "partition-based")
        text = f"The app syncs with {have}, but the client asked for {asked} sync: change the client's configuration."
        self._engine.forget(connection)
        connection.machine.send_error(0, code, text, Action.APPLICATION_BUG)
        self._engine.close(connection, 1000)

    def identify(self, connection: Connection, number: int, message: ClientIdent) -> None:
        """Take a session's IDENT, and begin it; what the client file had open elsewhere ends."""
        bound = connection.binding.pop(number, None)
        if bound is None:
            return
        realm, may_write = bound
        refused = _refusal(connection, number, realm.history, message)
        if refused is not None:
            connection.send(refused)
            return
        file = realm.history.files[message.file_ident]
        for other, session in [s for s in connection.sessions.values() if s[1].file is file]:
            other.remove(session)
        for session in [s for s in realm.sessions if s.file is file]:
            # What comes late on an older connection is sent again on this one: only so it is answered here.
            text = "The client file is used by a newer connection."
            error = failure(session.number, 200, text, Action.TRANSIENT, try_again=True)
            self._engine.end_session(realm, session, error)
        session = Session(number, connection, file, flexible=connection.flexible, may_write=may_write)
        connection.sessions[number] = (realm, session)
        realm.identify(session, message)
        self._engine.touch(realm)


def _refusal(connection: Connection, number: int, history: History, m: ClientIdent) -> JsonError | None:
    """Say why a client file cannot go on, if it cannot."""
    file, reset = history.files.get(m.file_ident), Action.CLIENT_RESET
    if file is None or file.salt != m.salt:
        return failure(number, 208, "The server does not know this client file.", reset)
    if file.user != connection.user:
        return failure(number, 223, "The client file belongs to another user.", Action.APPLICATION_BUG)
    if m.file_ident in history.resets:
        return reset_ordered(number, recovery=history.resets[m.file_ident])
    if m.download_server_version > history.version or m.latest_salt not in (0, history.salt):
        return failure(number, 211, "Bad server version: the client has a history that the server has not.", reset)
    if m.download_client_version > file.client_version:
        return failure(number, 210, "The client sent changes that the server has not any more.", reset)
    if history.is_gone(file, m.download_server_version):
        return expired(number)
    return None
