"""One realm in step with its server: events of the session carried to the store, waits, errors.

Everything marked *loop* runs in the sync thread only; the rest may be called from any thread. Integration runs in a
worker thread, one at a time per realm, so that the loop stays responsive. An exception in one session ends in that
session's error handler; the thread lives on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import logging
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import filelock

from realmframe.client.keeper import TokenKeeper
from realmframe.client.loop import sync_loop
from realmframe.client.lost import lost_values
from realmframe.client.mismatch import explain_bad_changes
from realmframe.client.pause import collection_paused
from realmframe.client.progress import TransferProgress
from realmframe.client.reset import FRESH, ClientReset, ResetOptions, ResetOutcome
from realmframe.client.subscriptions import DONE, StoredSubscriptions
from realmframe.client.waits import Waits
from realmframe.errors import (
    AuthError,
    ClientResetError,
    ClosedError,
    CompensatingWriteError,
    NetworkError,
    QueryError,
    RealmError,
    StorageError,
    SyncError,
    UsageError,
    WaitTimeoutError,
)
from realmframe.session import events as ev
from realmframe.session.client_session import ClientSession, SessionStart
from realmframe.session.progress import PendingList, Progress
from realmframe.session.subscriptions import State
from realmframe.store import Entry, RealmStore
from realmframe.store import Progress as StoredProgress
from realmframe.wire import Action

if TYPE_CHECKING:
    from realmframe.client.app import App
    from realmframe.client.connection import Connection

log: Final = logging.getLogger("realmframe.client")

#: Seconds between two looks at what other processes did with the realm.
POLL_SECONDS: Final = 0.05
#: Seconds between two tries of a follower to become the process that syncs.
ELECTION_SECONDS: Final = 0.25
#: Seconds that a session waits at most for the one before it to end.
HANDOVER_SECONDS: Final = 60.0
_DIRECTIONS: Final = ("download", "upload")
_MODES: Final = ("report_indefinitely", "for_currently_outstanding_work")
#: Runs the users' callbacks, one at a time, so that they may wait for the sync thread.
_callbacks: Final = concurrent.futures.ThreadPoolExecutor(1, "realmframe-callbacks")


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session behaves.

    Attributes
    ----------
    user_id : str
    flexible : bool
    partition : str or None
        The partition as extended JSON text.
    schema_version : int
    cancel_waits : bool
        Whether waits end with a non-fatal error once the app's time-out has passed.
    on_error : callable or None
        ``f(session, error)``, called in a thread of its own.
    client_reset : ResetOptions
    session_reason : int
        1 for a session that belongs to a client reset.
    may_upload : bool
        False for the fresh copy of a client reset.
    """

    user_id: str
    flexible: bool
    partition: str | None = None
    schema_version: int = 0
    cancel_waits: bool = False
    on_error: Callable[[Any, RealmError], object] | None = None
    client_reset: ResetOptions = ResetOptions()  # noqa: RUF009 - frozen
    session_reason: int = 0
    may_upload: bool = True


class SyncSession:
    """The sync of one realm.

    Parameters
    ----------
    app : App
    store : RealmStore
    subscriptions : StoredSubscriptions
    options : SessionOptions
    commit_lock : RLock, optional
        Held by whoever commits, so that nothing is integrated within a transaction.
    after : SyncSession, optional
        One of the same realm that is ending; this one begins when that has ended.
    """

    def __init__(
        self,
        app: App,
        store: RealmStore,
        subscriptions: StoredSubscriptions,
        options: SessionOptions,
        commit_lock: threading.RLock | None = None,
        *,
        after: SyncSession | None = None,
    ) -> None:
        self.app = app
        self.store = store
        self.subscriptions = subscriptions
        self.options = options
        self.commit_lock = commit_lock or threading.RLock()
        self._after = after
        self.ended = asyncio.Event()
        self.number = 0
        self.transfer = TransferProgress()
        self.last_error: RealmError | None = None
        self.fatal_error: RealmError | None = None
        self.caught_up_at: float | None = None
        self.last_reset: ResetOutcome | None = None
        self._reset_task: asyncio.Task[None] | None = None
        self._session_reason = options.session_reason
        #: Whether a reset ever began: then a download of an older binding may not be integrated any more.
        self._is_resetting = False
        self._wanted = False
        self._closed = False
        self._caught_up = False
        self._told_query = 0
        self._machine: ClientSession | None = None
        self._connection: Connection | None = None
        self._waits = Waits(store, subscriptions)
        self._work: asyncio.Queue[ev.BootstrapBatch | ev.DownloadReceived] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[Callable[[], None]] = []
        self._leader = filelock.FileLock(store.path / "sync.lock", thread_local=False, mode=0o600)
        self._lock = threading.Lock()
        self._wake_posted = False
        app.sync.add(self)

    def __repr__(self) -> str:
        return f"<SyncSession of {self.store.path.name}: {self.state}, {self.connection_state}>"

    # ------------------------------------------------------------------ any thread

    @property
    def state(self) -> str:
        """``active`` or ``inactive``."""
        return "active" if self._wanted and self.fatal_error is None else "inactive"

    @property
    def connection_state(self) -> str:
        """``disconnected``, ``connecting`` or ``connected``."""
        connection = self._connection
        return "disconnected" if connection is None or self.state == "inactive" else connection.state

    @property
    def is_connected(self) -> bool:
        """Whether the server can be talked to now."""
        return self.connection_state == "connected"

    @property
    def is_current(self) -> bool:
        """Whether everything that the server has for this realm is here."""
        return self.is_connected and self._caught_up and self.subscriptions.latest.state is State.COMPLETE

    @property
    def as_of(self) -> dt.datetime | None:
        """When the server last confirmed that nothing newer existed."""
        return None if self.caught_up_at is None else dt.datetime.fromtimestamp(self.caught_up_at, dt.UTC)

    def start(self) -> None:
        """Begin, or go on after :meth:`pause`."""
        sync_loop().post(self._start)

    def pause(self) -> None:
        """Stop syncing until :meth:`resume`; local reads and writes go on."""
        sync_loop().call(self._stop(), 10.0, "pause")

    def resume(self) -> None:
        """Sync again."""
        self.start()

    def reconnect(self) -> None:
        """Try at once instead of waiting out the back-off."""
        sync_loop().post(self._reconnect)

    def close(self, timeout: float = 5.0) -> None:
        """End the session for good; waits fail with ClosedError."""
        if self._closed:
            return
        self._closed = True
        try:
            sync_loop().call(self._close(), timeout, "closing the session")
        except WaitTimeoutError:
            log.warning("realm %s: the session was slow to close", self.store.path.name)
        except concurrent.futures.CancelledError:
            log.info("realm %s: the sync thread ended first", self.store.path.name)

    def wake(self) -> None:
        """Look for local commits to upload."""
        with self._lock:
            if self._wake_posted or self._closed:
                return
            self._wake_posted = True
        sync_loop().post(self._on_wake)

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called in the sync thread when a state or progress changes; return what stops that."""
        self._listeners.append(callback)

        def stop() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return stop

    def progress(
        self,
        callback: Callable[[TransferProgress], object],
        *,
        direction: str = "download",
        mode: str = "report_indefinitely",
    ) -> Callable[[], None]:
        """Hear how transfers go.

        Parameters
        ----------
        callback : callable
            ``f(progress)``; called at once, and in a thread of its own whenever something changes.
        direction : str
            ``"download"`` or ``"upload"``.
        mode : str
            ``"report_indefinitely"``, or ``"for_currently_outstanding_work"``, which ends by itself when what there was
            to transfer is done.

        Returns
        -------
        callable
            Ends it.
        """
        for name, value, allowed in (("direction", direction, _DIRECTIONS), ("mode", mode, _MODES)):
            if value not in allowed:
                raise UsageError(f"{name} cannot be {value!r}.", hint=f"It is one of {', '.join(allowed)}.")
        seen: list[TransferProgress] = []

        def look() -> None:
            now = self.transfer if direction == "download" else self.upload_progress()
            if seen and seen[-1] == now:
                return
            seen[:] = [now]
            _callbacks.submit(_call, callback, now)
            if mode == _MODES[1] and now.phase == "done":
                stop()

        stop = self.listen(look)
        look()
        return stop

    def upload_progress(self) -> TransferProgress:
        """Give how much still has to go up: ``bytes`` and ``changesets`` not acknowledged yet."""
        waiting = self.store.pending()
        size = sum(len(p.changeset) for p in waiting)
        done = not waiting
        return TransferProgress("done" if done else "upload", size, 0, len(waiting), 1.0 if done else 0.0)

    async def wait_download(self) -> None:
        """*loop* Wait until everything that the server has now is here."""
        machine = self._machine
        await self._wait("download", machine.request_mark() if machine is not None else 0)

    async def wait_upload(self) -> None:
        """*loop* Wait until the server has acknowledged everything written so far."""
        await self._wait("upload", self.store.snapshot.version)

    async def wait_subscriptions(self, version: int | None = None) -> None:
        """*loop* Wait until a subscription set (the newest by default) is synchronised.

        Raises
        ------
        QueryError
            If the server refuses it.
        """
        await self._wait("subscriptions", self.subscriptions.latest.version if version is None else version)

    # ------------------------------------------------------------------ loop: begin and end

    def begin(self) -> None:
        """*loop* As :meth:`start`, at once."""
        self._start()

    async def end(self) -> None:
        """*loop* As :meth:`close`."""
        self._closed = True
        await self._close()

    def _start(self) -> None:
        if self._closed or (self._wanted and self.fatal_error is None and self._tasks):
            return
        self._wanted, self.fatal_error = True, None
        for task in self._tasks:
            task.cancel()
        self._forget()
        self._tasks = [
            sync_loop().spawn(self._guarded(self._lead()), f"realmframe-lead-{self.store.path.name}"),
            sync_loop().spawn(self._guarded(self._integrate()), f"realmframe-integrate-{self.store.path.name}"),
        ]
        self._notify()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except RealmError as fault:
            self._fail(fault)
        except Exception as fault:
            log.exception("realm %s: the session failed", self.store.path.name)
            self._fail(SyncError(f"The session of {self.store.path.name} failed: {fault!r}.", is_fatal=True))

    async def _lead(self) -> None:
        """Become the process that syncs this realm, then keep an eye on what the others commit."""
        after, self._after = self._after, None
        if after is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(after.ended.wait(), HANDOVER_SECONDS)
        while True:
            try:
                self._leader.acquire(timeout=0)
                break
            except filelock.Timeout:
                self.store.refresh()
                self._waits.settle_as_follower()
                await asyncio.sleep(ELECTION_SECONDS)
        self.store.refresh()
        shutil.rmtree(self.store.path / FRESH, ignore_errors=True)  # of a reset whose process was killed
        await self._check_token()
        self._bind()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            # While something is integrated or written the store is locked, and the loop must not wait for it.
            if not self.commit_lock.acquire(blocking=False):
                continue
            try:
                version = self.store.snapshot.version
                is_newer = self.store.refresh().version != version
            finally:
                self.commit_lock.release()
            if is_newer:
                self._on_wake()

    async def _check_token(self) -> None:
        """Refresh an access token that has ended, also where the user's connection is still open."""
        try:
            await self.app.access_token(self.options.user_id)
        except AuthError:
            raise
        except RealmError as fault:
            self.last_error = fault  # the connection tries again, with the old token if need be

    def _bind(self) -> None:
        connection = self.app.sync.connection(self)
        store, options = self.store, self.options
        file = store.file
        start = SessionStart(
            latest_version=store.snapshot.version,
            file_ident=file.ident if file else 0,
            salt=file.salt if file else 0,
            progress=_to_session(store.progress),
            queries=self.subscriptions.queries() if options.flexible else (),
            partition=options.partition,
            schema_version=options.schema_version,
            session_reason=self._session_reason,
            may_upload=options.may_upload,
        )
        self._told_query = max((q.version for q in start.queries), default=0)
        self._connection = connection
        self._machine = machine = connection.machine.add_session(start, PendingList(store.pending), time.monotonic())
        self.number = machine.number
        connection.sessions[machine.number] = self
        self._waits.renumber(machine.request_mark)
        if connection.machine.is_connected and self.transfer.phase != "done":
            self.transfer = self.transfer.after(phase="download")
        connection.pump()

    async def _stop(self) -> None:
        """End the binding; everything received so far is integrated first."""
        self._wanted = False
        if self._reset_task is not None and self._reset_task is not asyncio.current_task():
            self._reset_task.cancel()
            await asyncio.gather(self._reset_task, return_exceptions=True)
        machine, connection = self._machine, self._connection
        if machine is not None and connection is not None:
            machine.unbind(time.monotonic())
            connection.pump()
        # Tasks of a sync thread that has ended are over.
        running = [t for t in self._tasks if t.get_loop() is asyncio.get_running_loop()]
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(*running, return_exceptions=True)
        finally:
            self._tasks.clear()
            self._forget()
            if self._leader.is_locked:
                self._leader.release(force=True)
            self._notify()

    def _forget(self) -> None:
        connection, self._machine = self._connection, None
        if connection is not None:
            connection.sessions.pop(self.number, None)
        self._work = asyncio.Queue()
        self._caught_up = False

    async def _close(self) -> None:
        try:
            await self._stop()
        finally:
            self.ended.set()
            self._waits.fail(ClosedError("The realm was closed."))

    def _reconnect(self) -> None:
        if self.fatal_error is not None:
            self._start()
        if self._connection is not None:
            self._connection.machine.reconnect(time.monotonic())
            self._connection.pump()

    def stop_for(self, error: RealmError) -> None:
        """*loop* End the session with an error, as when its user was logged out."""
        if self._wanted:
            self._fail(error)

    # ------------------------------------------------------------------ loop: events

    def _on_wake(self) -> None:
        with self._lock:
            self._wake_posted = False
        machine, connection = self._machine, self._connection
        if machine is None or connection is None or machine.is_ended:
            return
        if self.options.flexible and self.subscriptions.latest.version > self._told_query:
            for found in self.subscriptions.queries():
                if found.version > self._told_query:
                    self._told_query = found.version
                    machine.new_query_set(found)
        machine.local_changes(self.store.snapshot.version)
        connection.pump()

    def handle(self, event: Any) -> None:
        """*loop* Take one event of the machine."""
        handler = self._HANDLERS.get(type(event))
        if handler is None:
            return
        try:
            handler(self, event)
        except RealmError as fault:
            self._fail(fault)
        except Exception as fault:
            log.exception("realm %s: the session failed", self.store.path.name)
            self._fail(SyncError(f"The session of {self.store.path.name} failed: {fault!r}.", is_fatal=True))

    def _on_ident(self, event: ev.IdentAssigned) -> None:
        self.store.set_file(event.file_ident, event.salt)

    def _on_batch(self, event: ev.BootstrapBatch) -> None:
        self._count(event.entries, event.estimate)
        if event.last:
            self._work.put_nowait(event)

    def _on_download(self, event: ev.DownloadReceived) -> None:
        self._count(event.entries, event.estimate)
        self._work.put_nowait(event)

    def _count(self, entries: tuple[Any, ...], estimate: float) -> None:
        now = self.transfer
        self.transfer = now.after(
            bytes=now.bytes + sum(len(e.changeset) for e in entries),
            batches=now.batches + 1,
            changesets=now.changesets + len(entries),
            fraction=min(1.0, max(0.0, estimate)),
        )
        self._notify()

    async def _integrate(self) -> None:
        """Commit what was downloaded, one at a time, in a worker thread."""
        while True:
            event = await self._work.get()
            machine = self._machine
            bootstrap = isinstance(event, ev.BootstrapBatch)
            entries = event.bootstrap if isinstance(event, ev.BootstrapBatch) else event.entries
            query_version = event.query_version if bootstrap else None
            # Shielded: a commit that has begun is told to the machine even when the session ends meanwhile.
            work = asyncio.ensure_future(
                asyncio.to_thread(self._commit, machine, entries, event.progress, query_version)
            )
            try:
                version = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})
                raise
            except RealmError as fault:
                if machine is not None and self._connection is not None and not isinstance(fault, StorageError):
                    machine.integration_failed(fault.message)
                    self._connection.pump()
                raise explain_bad_changes(fault, entries, self.store.snapshot.schema) from fault
            if machine is not None and self._machine is machine and self._connection is not None:
                machine.integrated(version, event.progress)
                self._connection.pump()
            if self._caught_up:
                self.caught_up_at = time.time()
            self._waits.settle()
            self._notify()

    def _commit(
        self, machine: ClientSession | None, entries: tuple[Any, ...], progress: Progress, query_version: int | None
    ) -> int:
        """Integrate into the store; give the realm's newest version."""
        found = [
            Entry(
                server_version=e.server_version,
                client_version=e.client_version,
                timestamp=e.timestamp,
                file_ident=e.file_ident,
                changeset=e.changeset,
            )
            for e in entries
        ]
        with self.commit_lock, collection_paused():
            if machine is not None and machine is not self._machine and self._is_resetting:
                return self.store.snapshot.version  # what the server said before it asked for a reset
            return self.store.integrate(found, _to_store(progress), query_version=query_version).version

    def _on_acknowledged(self, _event: ev.UploadAcknowledged) -> None:
        self._settle_reset()
        self._waits.settle()
        self._notify()

    def _on_mark(self, event: ev.MarkReached) -> None:
        self._caught_up = True
        self.caught_up_at = time.time()
        self.last_error = None
        self._settle_reset()
        if self.transfer.phase != "done":
            done = self.subscriptions.latest.state in DONE
            self.transfer = self.transfer.after(
                phase="done" if done else "subscriptions", fraction=1.0 if done else 0.0
            )
        self._waits.marked(event.request)
        self._waits.settle()
        self._notify()

    def _on_query_state(self, event: ev.QueryStateChanged) -> None:
        self.subscriptions.advance(event.version, State(event.state), event.message or None)
        if State(event.state) is State.ERROR:
            self._report(
                QueryError(f"The server refused the subscriptions: {event.message or 'no reason given'}.", kind="other")
            )
        self._waits.settle()
        self._notify()

    def _on_compensating(self, event: ev.CompensatingWrites) -> None:
        writes = [dict(w) for w in event.writes]
        entries = []
        for write in writes:
            lost = lost_values(self.store, str(write.get("class")), write.get("primary_key"))
            entries.append({**_jsonable(write), "values": lost, "when": time.time(), "kind": "compensating write"})
        self.store.add_quarantine(*entries)
        names = ", ".join(sorted({str(w.get("class")) for w in writes}))
        self._report(
            CompensatingWriteError(
                f"The server reverted {len(writes)} write{'s' if len(writes) != 1 else ''} to {names}: {event.message}",
                writes=writes,
            )
        )

    def _on_round_trip(self, _event: ev.RoundTrip) -> None:
        if self._caught_up:
            self.caught_up_at = time.time()

    def _on_error(self, event: ev.SessionError) -> None:
        self._FOLLOW_UPS.get(event.follow_up, SyncSession._stopped)(self, event)

    # What to do about each follow-up of a session error.

    def _retried(self, event: ev.SessionError) -> None:
        error = _sync_error(event)
        self.last_error = error
        if event.is_reported:
            self._report(error)
        self._cancel_waits_later(error)

    def _stopped(self, event: ev.SessionError) -> None:
        error = _sync_error(event)
        if event.is_reported:
            self._fail(error)
        else:
            self.last_error = error

    def _logged_out(self, event: ev.SessionError) -> None:
        self._fail(_sync_error(event))
        self.app.expel(self.options.user_id)

    def _delete_file(self, event: ev.SessionError) -> None:
        self.store.set_extra(file_action={"action": "delete"})
        self._fail(_sync_error(event))

    def _reset(self, event: ev.SessionError) -> None:
        self._begin_reset(event.message or event.error, event.code, event.action, event.log_url)

    def _begin_reset(self, message: str, code: int, action: str, log_url: str = "") -> None:
        text = f"The server asks for a client reset: {message}"
        error = ClientResetError(text, code=code, action=action, is_fatal=True, log_url=log_url)
        if self._reset_task is None or self._reset_task.done():
            work = self._guarded(ClientReset(self, error).run())
            self._reset_task = sync_loop().spawn(work, f"realmframe-reset-{self.store.path.name}")

    async def detach(self) -> None:
        """*loop* Let go of the binding and of what it has not integrated; waits go on."""
        self._is_resetting = True
        machine, connection, self._machine = self._machine, self._connection, None
        if machine is not None and connection is not None:
            connection.sessions.pop(self.number, None)
            if not machine.is_ended:
                machine.unbind(time.monotonic())
            connection.pump()
        while not self._work.empty():
            self._work.get_nowait()
        self._caught_up = False

    def rebind(self, outcome: ResetOutcome) -> None:
        """*loop* Bind again after a reset, with the fresh copy's number."""
        self.last_reset, self._session_reason = outcome, 1
        self._bind()
        self._notify()

    def give_up(self, error: ClientResetError, callback: Callable[..., object] | None) -> None:
        """*loop* End the session because the reset is left to the app."""
        self._fail(error)
        if callback is not None:
            _callbacks.submit(_call, callback, self, error.recovery_path)

    def _settle_reset(self) -> None:
        """Note that a reset was a success: the server has taken what followed it."""
        if self._caught_up and self.store.extra.get("pending_reset") and not self.store.pending():
            self.store.set_extra(pending_reset=None)

    def _refresh_user(self, _event: ev.SessionError) -> None:
        sync_loop().spawn(self._guarded(self._refresh_and_resume(ask_location=False)), "realmframe-refresh")

    def _refresh_location(self, _event: ev.SessionError) -> None:
        sync_loop().spawn(self._guarded(self._refresh_and_resume(ask_location=True)), "realmframe-refresh")

    async def _refresh_and_resume(self, *, ask_location: bool) -> None:
        user = self.app.metadata.get(self.options.user_id)
        try:
            if ask_location:
                await self.app.services.location(refresh=True)
            await self.app.access_token(self.options.user_id, stale=user.access_token if user else None)
        except NetworkError as fault:
            self.last_error = fault
        if self._machine is not None and self._connection is not None:
            self._machine.resume(time.monotonic())
            self._connection.pump()

    # ------------------------------------------------------------------ loop: the connection

    def connection_changed(self, state: str) -> None:
        """*loop* Hear that the connection's state changed."""
        if state != "connected":
            self._caught_up = False
        elif self.transfer.phase != "done":
            self.transfer = self.transfer.after(phase="download")
        self._notify()

    def phase_changed(self, phase: str) -> None:
        """*loop* Hear what the connection is at before it is open."""
        if self.transfer.phase in ("login", "location", "connect"):
            self.transfer = self.transfer.after(phase=phase)
            self._notify()

    def connection_failed(self, event: ev.ConnectionFailed, cause: RealmError | None) -> None:
        """*loop* Hear that the connection could not be opened, or ended."""
        error = cause or NetworkError(event.message or f"The connection failed ({event.error}).")
        self.last_error = error
        if event.follow_up is ev.FollowUp.CLIENT_RESET:
            self._begin_reset(event.message, event.code, Action.CLIENT_RESET)
        elif event.is_fatal:
            self._fail(error)
        else:
            if event.is_reported:
                self._report(error)
            self._cancel_waits_later(error)

    def protocol_failed(self, error: RealmError) -> None:
        """*loop* Hear that the server broke the protocol."""
        self.last_error = error
        self._report(error)
        self._cancel_waits_later(error)

    # ------------------------------------------------------------------ loop: errors and waits

    def _fail(self, error: RealmError) -> None:
        """Make the session inactive until it is opened or resumed."""
        if self.fatal_error is not None:
            return
        self.fatal_error = self.last_error = error
        self._caught_up = False
        self._report(error)
        self._waits.fail(error)
        machine, connection = self._machine, self._connection
        if machine is not None and connection is not None and not machine.is_suspended and not machine.is_ended:
            machine.unbind(time.monotonic())
            connection.pump()
        self._notify()

    def _report(self, error: RealmError) -> None:
        log.warning("realm %s: %s", self.store.path.name, error)
        handler = self.options.on_error
        if handler is not None:
            _callbacks.submit(_call, handler, self, error)

    async def _wait(self, kind: str, target: int) -> None:
        if self._closed:
            raise ClosedError("The realm was closed.")
        if self.fatal_error is not None:
            raise self.fatal_error
        wait = self._waits.add(kind, target)
        try:
            if self._connection is not None:
                self._connection.pump()
            self._waits.settle()
            if self.last_error is not None:
                self._cancel_waits_later(self.last_error)
            await wait.future
        finally:
            self._waits.remove(wait)

    def _cancel_waits_later(self, error: RealmError) -> None:
        """With cancel_waits_on_non_fatal_errors: end the waits with this error once the app's time-out has passed."""
        if self.options.cancel_waits and len(self._waits):
            self._waits.fail_later(
                self.app.timeout,
                error,
                lambda: self.last_error is not None and not (self.is_connected and self._caught_up),
            )

    def _notify(self) -> None:
        for callback in list(self._listeners):
            try:
                callback()
            except Exception:
                log.exception("realm %s: a listener failed", self.store.path.name)

    _HANDLERS: ClassVar[dict[type, Callable[[SyncSession, Any], None]]] = {
        ev.IdentAssigned: _on_ident,
        ev.BootstrapBatch: _on_batch,
        ev.DownloadReceived: _on_download,
        ev.UploadAcknowledged: _on_acknowledged,
        ev.MarkReached: _on_mark,
        ev.QueryStateChanged: _on_query_state,
        ev.CompensatingWrites: _on_compensating,
        ev.SessionError: _on_error,
        ev.RoundTrip: _on_round_trip,
    }

    #: What each follow-up of an error leads to; what is missing stops the session.
    _FOLLOW_UPS: ClassVar[dict[ev.FollowUp, Callable[[SyncSession, ev.SessionError], None]]] = {
        ev.FollowUp.NOTHING: _retried,
        ev.FollowUp.RETRY: _retried,
        ev.FollowUp.STOP: _stopped,
        ev.FollowUp.DELETE_FILE: _delete_file,
        ev.FollowUp.CLIENT_RESET: _reset,
        ev.FollowUp.CLIENT_RESET_NO_RECOVERY: _reset,
        ev.FollowUp.LOG_OUT: _logged_out,
        ev.FollowUp.REFRESH_USER: _refresh_user,
        ev.FollowUp.REFRESH_LOCATION: _refresh_location,
    }


def _call(callback: Callable[..., object], *arguments: Any) -> None:
    try:
        callback(*arguments)
    except Exception:
        log.exception("a callback failed")


def _jsonable(write: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, str | int | float | bool | None) else str(v) for k, v in write.items()}


def _sync_error(event: ev.SessionError) -> SyncError | AuthError:
    message = f"The server ended the session: {event.message or event.error} ({event.error}, code {event.code})."
    return SyncError(message, code=event.code, action=event.action, is_fatal=event.is_fatal, log_url=event.log_url)


def _to_session(progress: StoredProgress) -> Progress:
    return Progress(*(getattr(progress, name) for name in Progress.__slots__))


def _to_store(progress: Progress) -> StoredProgress:
    return StoredProgress(**{name: getattr(progress, name) for name in Progress.__slots__})


class SyncClient:
    """The connections of one app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._connections: dict[tuple[str, bool, int], Connection] = {}
        self._sessions: weakref.WeakSet[SyncSession] = weakref.WeakSet()
        self.keeper = TokenKeeper(app, self._is_syncing)

    def add(self, session: SyncSession) -> None:
        """Know a session, to stop it with its user."""
        self._sessions.add(session)

    def connection(self, session: SyncSession) -> Connection:
        """*loop* Give the connection that a session shares, or has for itself without multiplexing."""
        options = session.options
        self.keeper.watch(options.user_id)
        key = (options.user_id, options.flexible, 0 if self._app.multiplex_sessions else id(session))
        found = self._connections.get(key)
        if found is None:
            from realmframe.client.connection import Connection  # websockets are loaded with the first session

            found = self._connections[key] = Connection(self._app, options.user_id, options.flexible)
        return found

    def _is_syncing(self, user_id: str) -> bool:
        return any(s.options.user_id == user_id and s.state == "active" for s in list(self._sessions))

    def stop_user(self, user_id: str) -> None:
        """End all sessions of a user who was logged out (any thread)."""
        sync_loop().post(self._stop_user, user_id)

    def _stop_user(self, user_id: str) -> None:
        error = AuthError(f"The user {user_id} was logged out.", hint="Log in again; local data is kept.")
        for session in list(self._sessions):
            if session.options.user_id == user_id:
                session.stop_for(error)
