"""The one thread that does all of sync: messages of all connections, in the order in which they came.

It takes what has piled up, handles it, commits once, and only then lets anything out: so nothing is acknowledged, or
seen by anybody, before it is durable, and many small uploads share one commit.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from realmframe.errors import LocalProtocolError, ProtocolError, RealmError, RemoteProtocolError, StorageError
from realmframe.server import admin
from realmframe.server import database as db
from realmframe.server.answers import expired, failure, reset_ordered, unusable
from realmframe.server.history import History
from realmframe.server.partitions import PREFIX, partition_of, respell
from realmframe.server.permissions import Permissions
from realmframe.server.session import Session
from realmframe.server.sync import RealmSync
from realmframe.session.server import ServerConnection, ServerState
from realmframe.store.lock import Lock, lock_file, try_lock
from realmframe.wire import (
    Action,
    Bind,
    ClientIdent,
    ClientJsonError,
    Dialect,
    Download,
    JsonError,
    Mark,
    Query,
    QueryError,
    Unbind,
    Upload,
)

log = logging.getLogger("realmframe.server")
#: Messages handled between two commits.
_BATCH: Final = 256
#: Bytes that may wait for a slow client before nothing more is prepared for it.
ROOM: Final = 8 << 20
#: Seconds between two looks at what administrators want.
ORDER_SECONDS: Final = 0.25
#: Name of the lock that a running server holds on its data folder.
RUNNING: Final = "server.lock"
#: Seconds that a server waits for it: an administrator's command, or a server that is just ending, may have it.
CLAIM_SECONDS: Final = 2.0
#: Code of a closed WebSocket that has a client ask for a new token.
UNAUTHORISED: Final = 4001
#: Name of an app's one realm of Flexible Sync.
_FLEXIBLE: Final = "flx"
#: Characters of what a client says that are repeated.
_REASON: Final = 1_000
Deliver = Callable[["list[bytes]", "int | None"], None]


class Connection:
    """One WebSocket, as the engine sees it: an outlet of its sessions.

    Parameters
    ----------
    dialect : Dialect
    app, user : str
        Whose it is.
    deliver : callable
        Takes messages to write and the close code, or None; called in the engine's thread.
    """

    def __init__(self, dialect: Dialect, app: str, user: str, deliver: Deliver) -> None:
        self.machine = ServerConnection(dialect)
        self.flexible = dialect.flexible
        self.app, self.user, self._deliver = app, user, deliver
        self.sessions: dict[int, tuple[RealmSync, Session]] = {}
        #: Realms of sessions that have not sent IDENT yet, and whether they may write.
        self.binding: dict[int, tuple[RealmSync, bool]] = {}
        #: Bytes handed over and not yet written; the socket counts down.
        self.unsent = 0
        self._prepared = 0
        self.is_closed = False
        #: Whether something waits for room. What is prepared counts uncompressed, so `unsent` alone would not tell.
        self._is_starved = False
        self._lock = threading.Lock()

    def has_room(self) -> bool:
        """Whether more may be queued; if not, :meth:`written` tells when to ask again."""
        if not self.is_closed and self.unsent + self._prepared < ROOM:
            return True
        self._is_starved = True
        return False

    def send(self, message: Any) -> None:
        """Queue a message in the state machine."""
        machine = self.machine
        number = message.session
        if machine.state(number) is not ServerState.ACTIVE and not isinstance(message, JsonError):
            return
        if isinstance(message, Download):
            self._prepared += sum(len(e.changeset) for e in message.entries) + 128
            machine.send_download(message)
        elif isinstance(message, Mark):
            machine.send_mark(number, message.request)
        elif isinstance(message, QueryError):
            machine.send_query_error(number, message.query_version, message.message, message.code)
        elif isinstance(message, JsonError) and machine.state(number) in (ServerState.ACTIVE, ServerState.WAIT_IDENT):
            body = dict(message.body)
            text, action, again = body.pop("message"), Action(body.pop("action")), bool(body.pop("tryAgain"))
            body["recovery_disabled"] = body.pop("isRecoveryModeDisabled")
            for known in ("logURL", "shouldClientReset"):
                body.pop(known)
            machine.send_error(number, message.code, text, action, try_again=again, **body)

    def flush(self, close: int | None = None) -> None:
        """Hand over what the state machine has to send."""
        messages = self.machine.data_to_send()
        self._prepared = 0
        with self._lock:
            self.unsent += sum(map(len, messages))
        if messages or close is not None:
            self._deliver(messages, close)

    def written(self, size: int) -> bool:
        """Note that bytes have been written (any thread); tell whether what waits for room may go on."""
        with self._lock:
            self.unsent -= size
            goes_on = self._is_starved and self.unsent < ROOM // 2
            if goes_on:
                self._is_starved = False
            return goes_on


def claim(folder: Path, lock: Lock | None = None) -> Lock:
    """Become the one server of a data folder; :meth:`Engine.stop` lets it go.

    Raises
    ------
    StorageError
        If another server has it.
    """
    running = lock or lock_file(folder, RUNNING)
    if not try_lock(running, CLAIM_SECONDS):
        raise StorageError(
            f"Another server runs on the data folder {folder}.",
            path=str(folder),
            hint="Stop it first, or give this one a folder of its own with --data.",
        )
    return running


class Engine:
    """Runs sync.

    Parameters
    ----------
    database : Database
    development : bool
    folder : Path, optional
        Where checkpoints lie.
    permissions : Permissions, optional
    running : Lock, optional
        What :func:`claim` gave.
    """

    def __init__(
        self,
        database: db.Database,
        *,
        development: bool,
        folder: Path | None = None,
        permissions: Permissions | None = None,
        running: Lock | None = None,
    ) -> None:
        self.permissions = permissions or Permissions()
        self._database, self._development, self._folder = database, development, folder
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._realms: dict[tuple[str, str], RealmSync] = {}
        self._modes: dict[str, bool] = {}
        #: Realms and connections that something happened to, in the order in which it did.
        self._touched: dict[RealmSync, None] = {}
        self._out: dict[Connection, None] = {}
        self._connections: set[Connection] = set()
        self._closing: dict[Connection, int] = {}
        self._look_at = 0.0
        #: Says to ``realmframe admin`` that somebody carries out orders.
        self._running = running or (lock_file(folder, RUNNING) if folder is not None else None)
        self._thread = threading.Thread(target=self._run, name="realmframe-server-engine", daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises
        ------
        StorageError
            If another server runs on the data folder.
        """
        if self._running is not None and self._folder is not None:
            claim(self._folder, self._running)
        respell(self._database, self._folder)
        self._thread.start()

    def stop(self) -> None:
        """Handle what has come in, then end the thread."""
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join(30)
        if self._running is not None:
            self._running.release()

    # ------------------------------------------------------------------ from other threads

    def receive(self, connection: Connection, data: bytes, done: Callable[[], None]) -> None:
        """Handle one message of a client; ``done`` is called when more may come."""

        def task() -> None:
            try:
                self._receive(connection, data)
            finally:
                done()

        self._tasks.put(task)

    def drained(self, connection: Connection) -> None:
        """Go on with a client that has room again."""

        def task() -> None:
            for realm, session in connection.sessions.values():
                self._pump(realm, session)

        self._tasks.put(task)

    def opened(self, connection: Connection) -> None:
        """Know a connection, to close it when its user may no longer sync."""
        self._tasks.put(lambda: self._connections.add(connection))

    def end_user(self, app: str, user: str) -> None:
        """Close what a user has open; their clients ask for a new token, and learn there what is the matter."""

        def task() -> None:
            for connection in [c for c in self._connections if (c.app, c.user) == (app, user)]:
                self._forget(connection)
                self._close(connection, UNAUTHORISED)

        self._tasks.put(task)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        connection.is_closed = True
        self._tasks.put(lambda: self._forget(connection))

    def call(self, function: Callable[[Engine], Any]) -> Future[Any]:
        """Run a function in the engine's thread."""
        future: Future[Any] = Future()

        def task() -> None:
            try:
                future.set_result(function(self))
            except BaseException as error:
                future.set_exception(error)

        self._tasks.put(task)
        return future

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        running = True
        while running:
            try:
                task = self._tasks.get(timeout=ORDER_SECONDS)
            except queue.Empty:
                self._look_for_orders()
                self._finish()
                continue
            running = self._batch(task)

    def _batch(self, task: Callable[[], None] | None) -> bool:
        """Do a task and those that wait behind it, then commit and send; tell whether to go on."""
        running = True
        for count in range(1, _BATCH + 1):
            if task is None:
                running = False
                break
            try:
                task()
            except Exception:
                log.exception("The server failed at a task of sync")
            if count == _BATCH or self._tasks.empty():
                break  # and nothing is taken that is not done
            task = self._tasks.get()
        if time.monotonic() >= self._look_at:
            self._look_for_orders()
        self._finish()
        return running

    def _finish(self) -> None:
        """Commit, then send."""
        dirty = [r for r in self._realms.values() if r.history.is_dirty]
        if dirty:
            try:
                with self._database.transaction() as sql:
                    for realm in dirty:
                        realm.history.write(sql)
            except Exception:
                log.exception("The server's log could not be written; clients will try again")
                for realm in dirty:
                    self._drop(realm)
        for realm in self._touched:
            for session in realm.sessions:
                self._pump(realm, session)
        self._touched.clear()
        for connection in self._out:
            connection.flush(self._closing.pop(connection, None))
        self._out.clear()

    def _pump(self, realm: RealmSync, session: Session) -> None:
        connection = session.outlet
        assert isinstance(connection, Connection)
        try:
            realm.pump(session)
        except (RealmError, LocalProtocolError):
            log.exception("The server would have broken the protocol; the session is ended")
            connection.send(failure(session.number, 201, "internal error", Action.TRANSIENT, try_again=True))
        self._out[connection] = None

    def _drop(self, realm: RealmSync) -> None:
        """Forget a realm whose memory is ahead of its log; its clients connect again."""
        self._realms = {k: r for k, r in self._realms.items() if r is not realm}
        self._touched.pop(realm, None)
        for session in list(realm.sessions):
            assert isinstance(session.outlet, Connection)
            session.outlet.sessions.clear()
            self._close(session.outlet, 1011)
        realm.sessions.clear()

    def _close(self, connection: Connection, code: int) -> None:
        self._closing[connection] = code
        self._out[connection] = None

    def _forget(self, connection: Connection) -> None:
        for realm, session in connection.sessions.values():
            realm.remove(session)
        connection.sessions.clear()
        connection.binding.clear()
        self._out.pop(connection, None)
        self._connections.discard(connection)

    def realm(self, app: str, name: str) -> RealmSync:
        """Give a realm, loaded at its first use."""
        found = self._realms.get((app, name))
        if found is None:
            history = History(self._database, app, name, self._folder)
            found = self._realms[app, name] = RealmSync(
                history, development=self._development, permissions=self.permissions
            )
        return found

    # ------------------------------------------------------------------ messages

    def _receive(self, connection: Connection, data: bytes) -> None:
        if connection.is_closed or connection in self._closing:
            return
        self._out[connection] = None
        try:
            events = connection.machine.receive(data)
        except RemoteProtocolError as error:
            log.info("A client of app %s broke the protocol: %s", connection.app, error)
            self._forget(connection)
            self._close(connection, 1008)
            return
        for event in events:
            self._handle(connection, event.session, event.message)

    def _handle(self, connection: Connection, number: int, message: Any) -> None:
        if isinstance(message, Bind):
            self._bind(connection, number, message)
        elif isinstance(message, ClientIdent):
            self._ident(connection, number, message)
        elif isinstance(message, Unbind):
            connection.binding.pop(number, None)
            found = connection.sessions.pop(number, None)
            if found is not None:
                found[0].remove(found[1])
        elif number in connection.sessions:
            realm, session = connection.sessions[number]
            self._touched[realm] = None
            self._act(connection, realm, session, message)

    def _act(self, connection: Connection, realm: RealmSync, session: Session, message: Any) -> None:
        error: JsonError | None = None
        if isinstance(message, Upload):
            error = realm.upload(session, message)
        elif isinstance(message, Query):
            realm.query(session, message)
        elif isinstance(message, Mark):
            realm.mark(session, message)
        elif isinstance(message, ClientJsonError):
            reason = str(message.body.get("message"))[:_REASON]
            log.warning("A client of app %s could not use a DOWNLOAD: %s", connection.app, reason)
            error = unusable(session.number, reason)
        if error is not None:
            self.end_session(realm, session, error)

    def _bind(self, connection: Connection, number: int, message: Bind) -> None:
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
        if self._mode(connection.app, flexible=connection.flexible) != connection.flexible:
            self._refuse_mode(connection)
            return
        user, permissions = connection.user, self.permissions
        if not connection.flexible and not permissions.may_read(user, partition):
            connection.send(failure(number, 206, "The user may not read this partition.", Action.APPLICATION_BUG))
            return
        realm = self.realm(connection.app, name)
        connection.binding[number] = realm, connection.flexible or permissions.may_write(user, partition)
        if message.need_ident:
            file = realm.history.files.new(connection.user)
            connection.machine.send_ident(number, file.ident, file.salt)

    def _mode(self, app: str, *, flexible: bool) -> bool:
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
        self._forget(connection)
        self._out[connection] = None
        connection.machine.send_error(0, code, text, Action.APPLICATION_BUG)
        self._close(connection, 1000)

    def _ident(self, connection: Connection, number: int, message: ClientIdent) -> None:
        bound = connection.binding.pop(number, None)
        if bound is None:
            return
        realm, may_write = bound
        refused = self._refusal(connection, number, realm.history, message)
        if refused is not None:
            connection.send(refused)
            return
        file = realm.history.files[message.file_ident]
        for other, session in [s for s in connection.sessions.values() if s[1].file is file]:
            other.remove(session)
        for session in [s for s in realm.sessions if s.file is file]:
            # What comes late on an older connection is sent again on this one: only so it is answered here.
            text = "The client file is used by a newer connection."
            self.end_session(realm, session, failure(session.number, 200, text, Action.TRANSIENT, try_again=True))
        session = Session(number, connection, file, flexible=connection.flexible, may_write=may_write)
        connection.sessions[number] = (realm, session)
        realm.identify(session, message)
        self._touched[realm] = None

    def _refusal(self, connection: Connection, number: int, history: History, m: ClientIdent) -> JsonError | None:
        """Say why a client file cannot go on, if it cannot."""
        file, reset = history.files.get(m.file_ident), Action.CLIENT_RESET
        if file is None or file.salt != m.salt:
            return failure(number, 208, "The server does not know this client file.", reset)
        if file.user != connection.user:
            return failure(number, 223, "The client file belongs to another user.", Action.APPLICATION_BUG)
        if m.file_ident in history.resets:
            return reset_ordered(number, recovery=history.resets[m.file_ident])
        if m.download_server_version > history.version or m.latest_salt not in (0, history.salt):
            return failure(number, 211, "The client has a history that the server has not.", reset)
        if m.download_client_version > file.client_version:
            return failure(number, 210, "The client sent changes that the server has not any more.", reset)
        if 0 < m.download_server_version < history.trimmed:
            return expired(number)
        return None

    # ------------------------------------------------------------------ what administrators want

    def end_session(self, realm: RealmSync, session: Session, error: JsonError) -> None:
        """End a session with an error."""
        connection = session.outlet
        assert isinstance(connection, Connection)
        connection.sessions.pop(session.number, None)
        realm.remove(session)
        connection.send(error)
        self._out[connection] = None

    def _look_for_orders(self) -> None:
        self._look_at = time.monotonic() + ORDER_SECONDS
        try:
            admin.carry_out(self, self._database)
        except Exception:
            log.exception("The orders of administrators could not be carried out")
