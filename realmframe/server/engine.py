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

from realmframe.errors import LocalProtocolError, RealmError, RemoteProtocolError
from realmframe.server import admin
from realmframe.server import database as db
from realmframe.server.admission import Admission
from realmframe.server.answers import failure, unusable
from realmframe.server.claim import RUNNING, claim
from realmframe.server.connection import UNAUTHORISED, Connection
from realmframe.server.history import History
from realmframe.server.partitions import respell
from realmframe.server.permissions import Permissions
from realmframe.server.session import Session
from realmframe.server.sync import RealmSync
from realmframe.store.lock import Lock, lock_file
from realmframe.wire import (
    Action,
    Bind,
    ClientIdent,
    ClientJsonError,
    JsonError,
    Mark,
    Query,
    Unbind,
    Upload,
)

log = logging.getLogger("realmframe.server")
#: Messages handled between two commits.
_BATCH: Final = 256
#: Seconds between two looks at what administrators want.
ORDER_SECONDS: Final = 0.25
#: Characters of what a client says that are repeated.
_REASON: Final = 1_000


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
        self.admission = Admission(self, database)
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
                self.forget(connection)
                self.close(connection, UNAUTHORISED)

        self._tasks.put(task)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        connection.is_closed = True
        self._tasks.put(lambda: self.forget(connection))

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
            self.close(session.outlet, 1011)
        realm.sessions.clear()

    def close(self, connection: Connection, code: int) -> None:
        """Close a connection, after what waits for it."""
        self._closing[connection] = code
        self._out[connection] = None

    def forget(self, connection: Connection) -> None:
        """Forget a connection and its sessions."""
        for realm, session in connection.sessions.values():
            realm.remove(session)
        connection.sessions.clear()
        connection.binding.clear()
        self._out.pop(connection, None)
        self._connections.discard(connection)

    def touch(self, realm: RealmSync) -> None:
        """Note that something happened to a realm."""
        self._touched[realm] = None

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
            self.forget(connection)
            self.close(connection, 1008)
            return
        for event in events:
            self._handle(connection, event.session, event.message)

    def _handle(self, connection: Connection, number: int, message: Any) -> None:
        if isinstance(message, Bind):
            self.admission.bind(connection, number, message)
        elif isinstance(message, ClientIdent):
            self.admission.identify(connection, number, message)
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
