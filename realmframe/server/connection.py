"""One WebSocket, as the engine sees it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from realmframe.session.server import ServerConnection, ServerState
from realmframe.wire import Action, Dialect, Download, JsonError, Mark, QueryError

if TYPE_CHECKING:
    from realmframe.server.session import Session
    from realmframe.server.sync import RealmSync

#: Bytes that may wait for a slow client before nothing more is prepared for it.
ROOM: Final = 8 << 20
#: Code of a closed WebSocket that has a client ask for a new token.
UNAUTHORISED: Final = 4001
Deliver = Callable[["list[bytes]", "int | None"], None]


class Connection:
    """The outlet of the sessions that a client has on one WebSocket.

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
