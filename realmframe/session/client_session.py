"""One realm's session on a client: what it may say next, and what the server may say to it.

The rules
---------
* BIND, then IDENT with the query set in force. Before IDENT everything received earlier has to be integrated.
* MARK goes before everything else. After a connect nothing is uploaded and no QUERY sent until a MARK was answered and
  what came before it is integrated, except after a fast reconnect.
* UPLOAD of everything up to the commit that made the next query set, then its QUERY, then a MARK, then later changes.
* A DOWNLOAD that raised the server version is acknowledged by an UPLOAD, an empty one if need be.
* A session that the server failed answers UNBIND; it binds again with the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from realmframe.errors import LocalProtocolError, RemoteProtocolError
from realmframe.session import checks
from realmframe.session import events as ev
from realmframe.session.backoff import BackOff, delays_of
from realmframe.session.incoming import Incoming, Waiting
from realmframe.session.marks import Marks
from realmframe.session.progress import Progress, UploadSource, progress_of
from realmframe.session.query_sets import QuerySets
from realmframe.session.rules import (
    COMPENSATING_WRITE,
    SCHEMA_VERSION_CHANGED,
    SESSION_CLOSED,
    SESSION_CLOSED_DELAY,
)
from realmframe.session.start import QuerySet, SessionStart
from realmframe.session.states import CLIENT, Client, Do
from realmframe.session.subscriptions import Step
from realmframe.session.uploads import Uploads
from realmframe.wire import (
    ERROR_CODES,
    BatchState,
    Bind,
    ClientIdent,
    ClientJsonError,
    Download,
    DownloadEntry,
    Ident,
    JsonError,
    LegacyError,
    Mark,
    Message,
    Query,
    QueryError,
    TestCommand,
    Unbind,
    Unbound,
)

if TYPE_CHECKING:
    from realmframe.session.client import ClientConnection


class ClientSession:
    """One realm on one connection; made by ``ClientConnection.add_session``. See the room's docstring."""

    def __init__(self, connection: ClientConnection, number: int, start: SessionStart, source: UploadSource) -> None:
        self.number = number
        self.state = Client.OFFLINE
        self.is_suspended = False
        self.file_ident, self.salt = start.file_ident, start.salt
        self.integrated_progress = start.progress
        self.latest_version = start.latest_version
        self.retry_at: float | None = None
        self._start = start
        self._source = source
        self._connection = connection
        self._emit: Callable[[Any], None] = connection.emit
        self._sets = QuerySets(number, start.queries, connection.emit)
        self._marks = Marks()
        self._back_off = BackOff(connection.delays)
        self._delay_uploads = True
        self._incoming = Incoming(number, start.progress, connection.emit)
        self._uploads = Uploads(number, start, source)
        self._error: tuple[int, str] | None = None

    def __repr__(self) -> str:
        return f"<ClientSession {self.number} {self.state.name.lower()}>"

    # ---- what the owner may ask and say

    @property
    def is_ended(self) -> bool:
        """Whether the number is done with."""
        return self.state is Client.ENDED

    @property
    def wants_connection(self) -> bool:
        """Whether a connection would be of use."""
        return not self.is_suspended and self.state not in (
            Client.ENDED,
            Client.UNBINDING,
            Client.LEAVING,
            Client.WAIT_UNBOUND,
        )

    @property
    def upload_cursor(self) -> int:
        """The client version up to which everything was sent in this binding."""
        return self._uploads.cursor[0]

    @property
    def is_upload_complete(self) -> bool:
        """Whether the server has acknowledged every local change."""
        acknowledged = self.integrated_progress.upload_client_version
        return not self._source.changes_after(acknowledged, self.latest_version, 1)

    def local_changes(self, version: int) -> None:
        """Note that the realm has a new newest version."""
        self.latest_version = max(self.latest_version, version)

    def new_query_set(self, query_set: QuerySet) -> None:
        """Take a subscription set that was just committed; its QUERY is sent when its turn comes."""
        self._sets.add(query_set)
        self.local_changes(query_set.snapshot_version)

    def request_mark(self) -> int:
        """Ask to be told when everything that the server has now is here; gives the number in MarkReached."""
        return self._marks.ask()

    def integrated(self, client_version: int, progress: Progress | None = None) -> None:
        """Note that the oldest DOWNLOAD told and not yet integrated was committed.

        Parameters
        ----------
        client_version : int
            The realm's newest version afterwards.
        progress : Progress, optional
            That of the event.

        Raises
        ------
        LocalProtocolError
            If nothing was waiting to be integrated.
        """
        done = self._incoming.integrated()
        self._marks.download_integrated()
        before, after = self.integrated_progress, progress or done.progress
        self.integrated_progress = after
        self.local_changes(client_version)
        self._uploads.integrated(client_version, after)
        if after.upload_client_version > before.upload_client_version:
            self._emit(ev.UploadAcknowledged(self.number, after.upload_client_version))
        for event in done.compensating:
            self._emit(event)
        if done.bootstrap_of is not None:
            self._sets.step(done.bootstrap_of, Step.LAST_BATCH)
        self._back_off.reset()
        self._check_mark()

    def integration_failed(self, message: str, code: int = 212) -> None:
        """Note that the oldest DOWNLOAD told could not be integrated: the server is told, all others are ignored."""
        self._incoming.oldest()
        self._incoming.clear()
        self._error = (code, message)

    def unbind(self, now: float) -> None:
        """End the session; SessionEnded follows when the server has confirmed it."""
        self._do(Do.END)
        self.retry_at = None
        self._incoming.drop_bootstrap()
        self._connection.settle(now)

    def pause(self, now: float) -> None:
        """End the session for a while; see :meth:`restart`."""
        self.unbind(now)

    def restart(self, now: float) -> ClientSession:
        """Begin again, under another number, where this session was left.

        Raises
        ------
        LocalProtocolError
            If it was not ended, or something that it told is not integrated yet.
        """
        if self.wants_connection or self._incoming:
            raise LocalProtocolError(f"Session {self.number} has to be ended and everything integrated first.")
        start = replace(
            self._start,
            latest_version=self.latest_version,
            file_ident=self.file_ident,
            salt=self.salt,
            progress=self.integrated_progress,
            queries=self._sets.all,
        )
        return self._connection.add_session(start, self._source, now)

    def resume(self, now: float) -> None:
        """Bind a suspended session again, with the same number; nothing happens if it is not suspended."""
        if not self.is_suspended or self.is_ended:
            return
        self.is_suspended = False
        self.retry_at = None
        self._emit(ev.SessionResumed(self.number))
        if self.state is Client.SUSPENDED:
            self._do(Do.RESUME)
            self._forget_binding()
        elif self.state is Client.OFFLINE and self._connection.is_connected:
            self.connected(fast=False)
        self._connection.settle(now)

    # ---- what the connection says

    def connected(self, *, fast: bool) -> None:
        """Note that there is a connection."""
        if self.is_suspended or self.state is not Client.OFFLINE:
            return
        self._do(Do.CONNECTED)
        self._forget_binding()
        if not fast:
            self._delay_uploads = True
        if self._delay_uploads:
            self._marks.ask()

    def lost(self) -> None:
        """Note that there is none any more."""
        self._do(Do.LOST)
        self._incoming.drop_bootstrap()

    def _forget_binding(self) -> None:
        self._error = None
        self._incoming.forget_announced()
        self._marks.bound()

    def _do(self, what: Do, error: type[LocalProtocolError | RemoteProtocolError] = LocalProtocolError) -> None:
        after = CLIENT.get((self.state, what))
        if after is None:
            raise error(f"{what.name} is illegal in session {self.number}, which is {self.state.name}.")
        if after is Client.ENDED is not self.state:
            self._emit(ev.SessionEnded(self.number))
        self.state = after

    # ---- sending

    def next_message(self) -> Message | None:
        """Give the next thing to say, if there is one."""
        handler = self._SENDERS.get(self.state)
        return None if handler is None else handler(self)

    def _send_unbind(self) -> Message:
        self._do(Do.UNBIND)
        return Unbind(self.number)

    def _send_bind(self) -> Message:
        start, dialect = self._start, self._connection.dialect
        need = self.file_ident == 0
        self._do(Do.BIND_FOR_IDENT if need else Do.BIND)
        self._emit(ev.SessionBound(self.number))
        body: dict[str, Any] | str = start.partition or ""
        if dialect.flexible:
            body = {}
            if start.migrated_partition is not None:
                body["migratedPartition"] = start.migrated_partition
            if dialect.has_schema_version:
                body["schemaVersion"] = start.schema_version
            if dialect.has_session_reason:
                body["sessionReason"] = start.session_reason
        return Bind(self.number, body, need)

    def _send_ident(self) -> Message | None:
        if self._incoming:
            return None
        self._do(Do.IDENT)
        p = self._incoming.progress = self.integrated_progress
        self._uploads.bound(p)
        message = ClientIdent(
            self.number,
            self.file_ident,
            self.salt,
            p.download_server_version,
            p.download_client_version,
            p.latest_server_version,
            p.latest_salt,
        )
        if not self._connection.dialect.flexible:
            return message
        active = self._sets.active
        self._sets.sent = active.version
        return replace(message, query_version=active.version, query=dict(active.query))

    def _send_active(self) -> Message | None:
        if self._error is not None:
            code, text = self._error
            self._do(Do.CLIENT_ERROR)
            return ClientJsonError(self.number, code, {"message": text})
        request = self._marks.next_request()
        if request is not None:
            return Mark(self.number, request)
        if self._delay_uploads or 0 < self._start.sentinel <= self._sets.sent:
            return None
        pending = self._sets.next_to_send if self._connection.dialect.flexible else None
        if pending is not None and self._uploads.cursor[0] < pending.snapshot_version:
            message = self._send_upload(pending)
            if message is not None:
                return message
        if pending is not None and self._uploads.cursor[0] >= pending.snapshot_version:
            self._sets.sent = pending.version
            self._marks.ask()
            return Query(self.number, pending.version, dict(pending.query))
        return (self._send_upload(None) if pending is None else None) or self._send_first_mark()

    def _send_first_mark(self) -> Message | None:
        """Find out whether the realm is in step, where nothing else did in this binding."""
        request = self._marks.first_request()
        return None if request is None else Mark(self.number, request)

    def _send_upload(self, before: QuerySet | None) -> Message | None:
        upto = self.latest_version if before is None else min(before.snapshot_version, self.latest_version)
        locked = self.integrated_progress.download_server_version
        return self._uploads.next_message(upto, locked, acknowledges=before is None)

    # ---- receiving

    def receive(self, message: Any, now: float) -> None:
        """Take one message of this session.

        Raises
        ------
        RemoteProtocolError
            If it breaks a rule.
        """
        self._RECEIVERS[type(message)](self, message, now)

    def _on_ident(self, message: Ident, _now: float) -> None:
        was = self.state
        self._do(Do.GIVE_IDENT, RemoteProtocolError)
        if was is not Client.WAIT_IDENT:
            return
        if message.salt == 0:
            raise RemoteProtocolError("The server gave a file identifier with salt 0.")
        self.file_ident, self.salt = message.file_ident, message.salt
        zero = {"download_client_version": 0, "upload_client_version": 0}
        self.integrated_progress = self.integrated_progress.replace(**zero)
        self._emit(ev.IdentAssigned(self.number, self.file_ident, self.salt))

    def _on_download(self, message: Download, _now: float) -> None:
        self._do(Do.DOWNLOAD, RemoteProtocolError)
        if self.state is not Client.ACTIVE or self._error is not None:
            return
        flexible = self._connection.dialect.flexible
        received = self._incoming.progress
        checks.check_progress(received, message, self.latest_version)
        checks.check_entries(received, message, self.file_ident, flexible=flexible)
        progress = progress_of(message)
        if flexible and message.batch is not BatchState.STEADY_STATE:
            self._on_bootstrap(message, progress)
            return
        waiting = self._expect(progress, message.entries)
        rest = message.query_version, message.estimate, message.downloadable_bytes, waiting.compensating
        self._emit(ev.DownloadReceived(self.number, message.entries, progress, *rest))

    def _expect(self, progress: Progress, entries: tuple[DownloadEntry, ...], query: int | None = None) -> Waiting:
        self._marks.download_came()
        return self._incoming.add(progress, entries, query)

    def _on_bootstrap(self, message: Download, progress: Progress) -> None:
        version = message.query_version
        self._sets.check(version, "sent a bootstrap of")
        if self._incoming.begins(version):
            self._sets.step(version, Step.FIRST_BATCH)
        self._incoming.collect(message)
        last = message.batch is BatchState.LAST_IN_BATCH
        everything: tuple[DownloadEntry, ...] = ()
        compensating: tuple[ev.CompensatingWrites, ...] = ()
        if last:
            everything = self._incoming.complete()
            compensating = self._expect(progress, everything, version).compensating
        batch = message.entries, version, last, progress, message.estimate, everything, compensating
        self._emit(ev.BootstrapBatch(self.number, *batch))

    def _on_mark(self, message: Mark, _now: float) -> None:
        self._do(Do.MARKED, RemoteProtocolError)
        if self.state not in (Client.ACTIVE, Client.DEAF):
            return
        self._marks.answered(message.request)
        self._check_mark()

    def _check_mark(self) -> None:
        if self.state is Client.DEAF or self._error is not None:
            return
        reached = self._marks.newly_reached()
        if reached is not None:
            self._delay_uploads = False
            self._sets.mark_reached()
            self._emit(ev.MarkReached(self.number, reached))

    def _on_query_error(self, message: QueryError, _now: float) -> None:
        self._do(Do.QUERY_ERROR, RemoteProtocolError)
        if self.state not in (Client.ACTIVE, Client.DEAF):
            return
        version = message.query_version
        self._sets.check(version, "refused")
        self._sets.step(version, Step.QUERY_ERROR, message.message)

    def _on_unbound(self, _message: Unbound, _now: float) -> None:
        self._do(Do.UNBOUND, RemoteProtocolError)

    def _on_test(self, message: TestCommand, _now: float) -> None:
        self._do(Do.TEST, RemoteProtocolError)
        self._emit(ev.TestCommandReceived(self.number, message.request, message.body))

    def _on_error(self, message: JsonError | LegacyError, now: float) -> None:
        if message.code in ERROR_CODES and message.code < 200:
            raise RemoteProtocolError(f"The server sent connection error {message.code} to session {self.number}.")
        body: Mapping[str, Any] = message.body if isinstance(message, JsonError) else {"message": message.message}
        if message.code == COMPENSATING_WRITE:
            self._do(Do.SOFT_ERROR, RemoteProtocolError)
            self._incoming.announce(checks.compensating_writes(self.number, body))
        elif message.code == SCHEMA_VERSION_CHANGED:
            self._do(Do.SOFT_ERROR, RemoteProtocolError)
            self._emit(checks.session_error(self.number, message.code, body, try_again=False))
        else:
            self._fail(message, body, now)

    def _fail(self, message: JsonError | LegacyError, body: Mapping[str, Any], now: float) -> None:
        self._do(Do.JSON_ERROR, RemoteProtocolError)
        if self.state is not Client.FAILING:
            return
        again = message.try_again if isinstance(message, LegacyError) else body.get("tryAgain") is True
        self._incoming.drop_bootstrap()
        self.is_suspended = True
        event = checks.session_error(self.number, message.code, body, try_again=again)
        if event.follow_up is ev.FollowUp.RETRY and again:
            self._back_off.update(message.code, delays_of(body, self._back_off.default))
            delay = self._back_off.next_delay(self._connection.random)
            self.retry_at = now + (SESSION_CLOSED_DELAY if message.code == SESSION_CLOSED else delay)
        self._emit(event)

    def stop(self, message: str) -> None:
        """End all tries after the server broke the protocol; the connection is gone already."""
        self.is_suspended = True
        self.retry_at = None
        stop = ev.FollowUp.STOP
        name = "SyncProtocolInvariantFailed"
        self._emit(ev.SessionError(self.number, 0, name, "ProtocolViolation", message, stop, is_fatal=True))

    _SENDERS: ClassVar[Mapping[Client, Callable[[ClientSession], Message | None]]] = {
        Client.BINDING: _send_bind,
        Client.IDENTIFYING: _send_ident,
        Client.ACTIVE: _send_active,
        Client.FAILING: _send_unbind,
        Client.LEAVING: _send_unbind,
        Client.UNBINDING: _send_unbind,
    }
    _RECEIVERS: ClassVar[Mapping[type, Callable[[ClientSession, Any, float], None]]] = {
        Ident: _on_ident,
        Download: _on_download,
        Mark: _on_mark,
        QueryError: _on_query_error,
        JsonError: _on_error,
        LegacyError: _on_error,
        Unbound: _on_unbound,
        TestCommand: _on_test,
    }
