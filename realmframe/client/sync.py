"""One realm in step with its server: its session as an app sees it, and how it begins and ends.

Everything marked *loop* runs in the sync thread only; the rest may be called from any thread. Integration runs in a
worker thread, one at a time per realm, so that the loop stays responsive. An exception in one session ends in that
session's error handler; the thread lives on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from realmframe.client.binding import Binding
from realmframe.client.blocking import block_on, wait_in_loop
from realmframe.client.callbacks import deliver
from realmframe.client.follow_ups import FollowUps
from realmframe.client.integration import Integration
from realmframe.client.keywords import snake
from realmframe.client.loop import sync_loop
from realmframe.client.migration import MIGRATION, Migration, covering
from realmframe.client.news import News
from realmframe.client.observers import CONNECTION, STATE, Observers, in_sdk_form
from realmframe.client.options import SessionOptions
from realmframe.client.patience import Patience
from realmframe.client.progress import TransferProgress
from realmframe.client.reset import ResetOutcome
from realmframe.client.standing import Standing, seen_last
from realmframe.client.subscriptions import StoredSubscriptions
from realmframe.client.waits import Waits
from realmframe.errors import (
    ClientResetError,
    ClosedError,
    RealmError,
    SyncError,
    UsageError,
    WaitTimeoutError,
)
from realmframe.session.subscriptions import State
from realmframe.store import RealmStore

if TYPE_CHECKING:
    from realmframe.client.app import App

log: Final = logging.getLogger("realmframe.client")


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
        self.ended = asyncio.Event()
        self.transfer = TransferProgress()
        self.last_error: RealmError | None = None
        self.fatal_error: RealmError | None = None
        self.caught_up_at: float | None = seen_last(store.path)
        self.last_reset: ResetOutcome | None = None
        self._wanted = self._was_started = False
        self._closed = False
        self.caught_up = False
        self.binding = Binding(self, after)
        self.waits = Waits(store, subscriptions)
        self.integration = Integration(self)
        self.news = News(self)
        self.follow_ups = FollowUps(self)
        self.observers = Observers(self)
        self.patience = Patience(self)
        #: The subscription set whose bootstrap came last.
        self.bootstrap_version = 0
        self._tasks: list[asyncio.Task[None]] = []
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
        """``disconnected``, also where another process syncs the realm, ``connecting`` or ``connected``."""
        connection = self.binding.connection
        return "disconnected" if connection is None or self.state == "inactive" else connection.state

    @property
    def is_connected(self) -> bool:
        """Whether the server can be talked to now."""
        return self.connection_state == "connected"

    @property
    def is_current(self) -> bool:
        """Whether everything that the server has for this realm is here, whichever process syncs it."""
        followed = self.followed
        is_in_step = self.is_connected and self.caught_up if followed is None else followed.is_in_step_at(time.time())
        return is_in_step and self.state == "active" and self.subscriptions.latest.state is State.COMPLETE

    @property
    def followed(self) -> Standing | None:
        """Where the process stands that syncs the realm, if that is another one."""
        following = self.binding.following
        return None if following is None else following.standing

    @property
    def as_of(self) -> dt.datetime | None:
        """When the server last confirmed that nothing newer existed, to whichever process."""
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
        sync_loop().post(self._look)

    # ------------------------------------------------------------------ listening

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called in the sync thread when a state or progress changes; return what stops that."""
        return self.observers.listen(callback)

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
            ``f(progress)`` of a :class:`TransferProgress`; called at once, and in a thread of its own whenever
            something changes. ``bytes`` and ``objects`` never go down; ``estimate`` only when another subscription set
            is being downloaded.
        direction : str
            ``"download"`` or ``"upload"``.
        mode : str
            ``"report_indefinitely"``, or ``"for_currently_outstanding_work"``, which ends by itself when what there was
            to transfer is done; its last progress has the phase ``done`` and the estimate 1.

        Returns
        -------
        callable
            Ends it.

        Raises
        ------
        UsageError
            For another direction or mode.
        """
        return self.observers.progress(callback, snake(direction), snake(mode))

    def add_progress_notification(
        self, direction: str, mode: str, callback: Callable[..., object]
    ) -> Callable[[], None]:
        """Hear how transfers go, in the SDK's form.

        Parameters
        ----------
        direction, mode : str
            As in :meth:`progress`.
        callback : callable
            ``f(transferred, transferable)`` in bytes, or ``f(estimate)``: by the number of its arguments.

        Returns
        -------
        callable
            Ends it, as :meth:`remove_progress_notification` does.

        Raises
        ------
        UsageError
        """
        return self.observers.remember(callback, self.progress(in_sdk_form(callback), direction=direction, mode=mode))

    def remove_progress_notification(self, callback: Callable[..., object]) -> None:
        """End the progress notifications of a function."""
        self.observers.remove(callback)

    def add_connection_notification(self, callback: Callable[[str, str], object]) -> Callable[[], None]:
        """Have ``callback(new, old)`` called, in a thread of its own, when :attr:`connection_state` changes.

        Returns
        -------
        callable
            Ends it, as :meth:`remove_connection_notification` does.
        """
        return self.observers.on_change(CONNECTION, callback)

    def remove_connection_notification(self, callback: Callable[[str, str], object]) -> None:
        """End the connection notifications of a function."""
        self.observers.remove(callback)

    def add_state_notification(self, callback: Callable[[str, str], object]) -> Callable[[], None]:
        """Have ``callback(new, old)`` called, in a thread of its own, when :attr:`state` changes."""
        return self.observers.on_change(STATE, callback)

    def remove_state_notification(self, callback: Callable[[str, str], object]) -> None:
        """End the state notifications of a function."""
        self.observers.remove(callback)

    # ------------------------------------------------------------------ waiting

    def download_all_server_changes(self, timeout: float | None = None) -> None:
        """Wait until everything that the server has now is here.

        Parameters
        ----------
        timeout : float, optional
            Seconds; for ever by default. 0 only looks: what is not known to be done already is late.

        Raises
        ------
        WaitTimeoutError
            When the time has passed; the download goes on.
        RealmError
            When the session failed, or was closed.
        """
        block_on(self, self.wait_download(), timeout, "The download")

    def upload_all_local_changes(self, timeout: float | None = None) -> None:
        """Wait until the server has everything written so far; as :meth:`download_all_server_changes`."""
        block_on(self, self.wait_upload(), timeout, "The upload")

    async def download_all_server_changes_async(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as in the blocking form
        """Wait without blocking the caller's loop; as :meth:`download_all_server_changes`."""
        await wait_in_loop(self, self.wait_download(), timeout, "The download")

    async def upload_all_local_changes_async(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as in the blocking form
        """Wait without blocking the caller's loop; as :meth:`upload_all_local_changes`."""
        await wait_in_loop(self, self.wait_upload(), timeout, "The upload")

    async def wait_download(self) -> None:
        """*loop* Wait until everything that the server has now is here."""
        machine = self.binding.machine
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
        self._wanted = self._was_started = True
        self.fatal_error = None
        for task in self._tasks:
            task.cancel()
        self._forget()
        self._tasks = [
            sync_loop().spawn(self.guarded(self.binding.lead()), f"realmframe-lead-{self.store.path.name}"),
            sync_loop().spawn(self.guarded(self.integration.run()), f"realmframe-integrate-{self.store.path.name}"),
        ]
        self.notify()

    async def guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """*loop* Run something; what it raises ends the session."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except RealmError as fault:
            self.fail(fault)
        except Exception as fault:
            log.exception("realm %s: the session failed", self.store.path.name)
            self.fail(SyncError(f"The session of {self.store.path.name} failed: {fault!r}.", is_fatal=True))

    async def _stop(self) -> None:
        """End the binding; everything received so far is integrated first."""
        self._wanted = False
        self.patience.calm()
        await self.follow_ups.cancel_reset()
        self.binding.unbind()
        # Tasks of a sync thread that has ended are over.
        running = [t for t in self._tasks if t.get_loop() is asyncio.get_running_loop()]
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(*running, return_exceptions=True)
        finally:
            self._tasks.clear()
            self._forget()
            self.binding.release()
            self.notify()

    def _forget(self) -> None:
        self.binding.forget()
        self.integration.renew()
        self.caught_up = False

    def _reconnect(self) -> None:
        if self.fatal_error is not None:
            self._start()
        self.follow_ups.hurry()
        self.binding.reconnect()

    def _look(self) -> None:
        with self._lock:
            self._wake_posted = False
        self.binding.look()

    async def _close(self) -> None:
        try:
            await self._stop()
        finally:
            self.integration.close()
            self.ended.set()
            self.waits.fail(ClosedError("The realm was closed."))

    def stop_for(self, error: RealmError) -> None:
        """*loop* End the session with an error, as when its user was logged out."""
        if self._wanted:
            self.fail(error)

    # ------------------------------------------------------------------ loop: client reset

    async def detach(self) -> None:
        """*loop* Let go of the binding and of what it has not integrated; waits go on."""
        self.binding.detach()
        self.integration.clear()
        self.caught_up = False

    def cover_classes(self) -> None:
        """Subscribe to what is new in the schema of a migrated realm (any thread)."""
        migration = Migration.of(self.store)
        if migration is None or self.options.partition is None or not self.options.flexible:
            return
        copy = covering(self.subscriptions.latest, self.store.snapshot.schema, migration.query)
        if copy is not None:
            self.subscriptions.commit(copy)
            self.wake()

    def end_migration(self, version: int) -> None:
        """*loop* Hear that a set is complete; the sentinel of a migrated realm opened flexibly ends the migration."""
        migration = Migration.of(self.store)
        if migration is None or self.options.partition is not None or version != migration.sentinel:
            return
        self.store.leave_partition(**{MIGRATION: None})
        sync_loop().spawn(self.guarded(self._bind_natively()), f"realmframe-native-{self.store.path.name}")

    async def _bind_natively(self) -> None:
        await self.detach()
        self.binding.rebind(reason=0)

    def rebind(self, outcome: ResetOutcome) -> None:
        """*loop* Bind again after a reset, with the fresh copy's number."""
        self.last_reset = outcome
        self.binding.rebind()
        self.notify()

    def give_up(self, error: ClientResetError, callback: Callable[..., object] | None) -> None:
        """*loop* End the session because the reset is left to the app."""
        self.fail(error)
        if callback is not None:
            deliver(callback, self, error.recovery_path)

    def settle_reset(self) -> None:
        """Note that a reset was a success: the server has taken what followed it."""
        if self.caught_up and self.store.extra.get("pending_reset") and not self.store.pending():
            self.store.set_extra(pending_reset=None)

    # ------------------------------------------------------------------ loop: the connection

    def connection_changed(self, state: str) -> None:
        """*loop* Hear that the connection's state changed."""
        if state != "connected":
            self.caught_up = False
            self.patience.trouble()
        else:
            self.patience.connected()
            if self.transfer.phase != "done":
                self.transfer = self.transfer.after(phase="download")
        if self.state == "active":
            self.observers.changed(CONNECTION, state)
        self.notify()

    def phase_changed(self, phase: str) -> None:
        """*loop* Hear what the connection is at before it is open."""
        if self.transfer.phase in ("login", "location", "connect"):
            self.transfer = self.transfer.after(phase=phase)
            self.notify()

    # ------------------------------------------------------------------ loop: errors and waits

    def fail(self, error: RealmError) -> None:
        """Make the session inactive until it is opened or resumed."""
        if self.fatal_error is not None:
            return
        self.fatal_error = self.last_error = error
        self.caught_up = False
        self.report(error)
        self.waits.fail(error)
        machine = self.binding.machine
        if machine is not None and not machine.is_suspended and not machine.is_ended:
            self.binding.unbind()
        work = self._retire(error, list(self._tasks), cancels_reset=not self.follow_ups.is_current)
        sync_loop().spawn(work, f"realmframe-retire-{self.store.path.name}")
        self.notify()

    async def _retire(self, error: RealmError, running: list[asyncio.Task[None]], *, cancels_reset: bool) -> None:
        """Let another process that has the realm open sync it: it may do better, or tell its own app."""
        if cancels_reset:
            await self.follow_ups.cancel_reset()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self.fatal_error is error:  # not resumed meanwhile
            self.binding.release()

    def report(self, error: RealmError) -> None:
        """Tell the app of an error."""
        log.warning("realm %s: %s", self.store.path.name, error)
        handler = self.options.on_error
        if handler is not None:
            deliver(handler, self, error)

    async def _wait(self, kind: str, target: int) -> None:
        if self._closed:
            raise ClosedError("The realm was closed.")
        if self.fatal_error is not None:
            raise self.fatal_error
        if not self._was_started:
            raise UsageError(
                "The realm is still being opened, and sync begins afterwards: nothing can be waited for yet.",
                hint="Do it when Realm.open has returned.",
            )
        wait = self.waits.add(kind, target)
        try:
            self.binding.pump()
            self.binding.hurry()
            self.waits.settle()
            self.patience.arm()
            await wait.future
        finally:
            self.waits.remove(wait)

    def notify(self) -> None:
        """*loop* Have those look who listen."""
        self.observers.notify()
