"""Opening a realm: rules of both behaviours, one deadline over everything.

=================== ================= ===================================================================
type                at the time-out   the open
=================== ================= ===================================================================
open_immediately    (ignored)         returns when the files are read; sync goes on in the background
download_before_..  no time_out       returns when everything is here, or fails with what went wrong
download_before_..  throw_exception   fails with OpenTimeoutError; sync ends
download_before_..  open_local_realm  returns with what is here; sync goes on in the background
=================== ================= ===================================================================

Whether a realm is new is decided once, when the call begins. Initial subscriptions are written, once, before anything
is waited for; so they are there in each of these cases. The application is asked for them in the caller's thread: its
time counts, and nothing interrupts it.

Whoever waits does so in a thread of the caller, on a clock of its own: neither the network nor the sync thread has to
do anything for the time-out to come. Cancelling, and Ctrl-C while waiting, end the session in the background.

The time-out is for the files too: a journal that takes long to read, a lock that another process does not let go. As
nothing can be opened without them they get FILE_SECONDS at least. After that the open fails with an OpenTimeoutError in
the phase ``files``, whatever the behaviour; what has begun is brought to its end in the background.

In the last second before a time-out Python's automatic garbage collection waits: see :mod:`realmframe.client.pause`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from realmframe.client.loop import sync_loop
from realmframe.client.pause import PauseBeforeTimeOut
from realmframe.client.progress import TransferProgress
from realmframe.errors import CancelledError, OpenTimeoutError, RealmError, UsageError
from realmframe.realm.bounded import LateError, within
from realmframe.realm.configuration import Configuration, OpenRealmBehaviorConfiguration
from realmframe.realm.core import RealmCore
from realmframe.realm.deadline import Deadline
from realmframe.realm.subscriptions import MutableSubscriptionSet, canonical_query
from realmframe.store import RealmStore

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession
    from realmframe.realm.realm import Realm

#: Seconds between two looks of a waiting thread, so that Ctrl-C is heard.
_TICK: Final = 0.25
#: Seconds that the work with files may take at least, by the behaviour at the time-out.
FILE_SECONDS: Final = {"throw_exception": 1.0, "open_local_realm": 5.0}
_PHASES: Final = {
    "files": "its files were being read, or another process had them locked",
    "login": "the access token was being refreshed",
    "location": "the server was being asked where the app is",
    "connect": "the connection was being opened",
    "download": "data was being downloaded",
    "subscriptions": "the subscriptions were being synchronised",
}


class Opening:
    """A realm that is being opened; made by :meth:`Realm.begin_open`.

    Attributes
    ----------
    timed_out : bool
        Whether the realm was opened with what was there, before everything had come.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.timed_out = False
        self._wake = threading.Event()
        self._now = self._cancelled = False
        self._awaited = "download"
        self._realm: Realm | None = None
        self._error: BaseException | None = None
        self._finish_lock = threading.Lock()
        self._finished = False
        self._future: concurrent.futures.Future[None] | None = None
        self._callbacks: list[Callable[[], object]] = []
        self._core: RealmCore | None = None
        self._pause = PauseBeforeTimeOut(None)
        # The clock starts with the call; the files may say that the realm is new after all, or is not.
        began = Deadline(None)
        self._set_behavior(not RealmStore.exists(configuration.realm_path().path), began)
        limit = self._file_deadline(None if self.behavior is None else self.behavior.time_out)
        try:
            self._open_files(limit, began)
        except LateError:
            self._error = self._late_files(limit)
            self._end()
            return
        except BaseException:
            self._end()
            raise
        try:
            self._begin()
        except BaseException:
            self.abandon()
            raise

    def _set_behavior(self, is_new: bool, began: Deadline) -> None:
        sync = self.configuration.sync
        self.is_new = is_new
        self.behavior: OpenRealmBehaviorConfiguration | None = None if sync is None else sync.behavior(is_new)
        limit = None if self.behavior is None else self.behavior.time_out
        self._deadline = Deadline(None if limit is None else limit - began.elapsed)
        self._pause.end()
        self._pause = PauseBeforeTimeOut(self._deadline.remaining)

    def _end(self) -> None:
        """Note that there is nothing to wait for."""
        self._finished = True
        self._pause.end()

    def _file_deadline(self, left: float | None) -> Deadline:
        behavior = self.behavior
        if behavior is None or behavior.opens_immediately or left is None:
            return Deadline(None)
        return Deadline(max(left, FILE_SECONDS[behavior.time_out_behavior]))

    def _open_files(self, deadline: Deadline, began: Deadline) -> None:
        """Open the files and write the initial subscriptions."""
        from realmframe.realm.realm import Realm

        def acquire() -> tuple[RealmCore, bool]:
            return RealmCore.acquire(self.configuration)

        core, is_new = within(deadline, acquire, lambda found: found[0].release(abandon=True))
        if is_new != self.is_new:
            self._set_behavior(is_new, began)
        self._core, self._realm = core, Realm(core, self.configuration)
        try:
            commit = initial_subscriptions(core, self._realm)
            if commit is not None:
                # Asking the application took what it took.
                within(self._file_deadline(self._deadline.remaining), commit)
        except BaseException:
            self._realm.abandon()
            self._core = self._realm = None
            raise

    def _begin(self) -> None:
        core = self._core
        assert core is not None
        session = core.session
        if session is not None:
            session.start()
        if session is None or self.behavior is None or self.behavior.opens_immediately:
            self._end()
            if session is None and self.is_new:
                self._call_on_first_open(core)
            return
        self._future = sync_loop().submit(self._wait(session))
        self._future.add_done_callback(lambda _: self._stir())

    def _call_on_first_open(self, core: RealmCore) -> None:
        """Let the application fill a new local realm; if it fails there is none, and the next open is the first."""
        on_first_open, realm = self.configuration.on_first_open, self._realm
        if on_first_open is None or realm is None:
            return
        try:
            on_first_open(realm)
        except BaseException:
            realm.close()
            with contextlib.suppress(UsageError):  # somebody else has opened it meanwhile
                RealmStore.delete(core.path)
            raise

    async def _wait(self, session: SyncSession) -> None:
        """*In the sync thread* Wait until everything is here."""
        await session.wait_download()
        if session.options.flexible:
            self._awaited = "subscriptions"
            await session.wait_subscriptions()

    # ------------------------------------------------------------------ meanwhile

    @property
    def progress(self) -> TransferProgress:
        """Phase, bytes and estimate of what has come."""
        if self._core is None:
            return TransferProgress("files")
        session = self._core.session
        return TransferProgress("done", fraction=1.0) if session is None else session.transfer

    def on_progress(self, callback: Callable[[TransferProgress], object]) -> None:
        """Have a function called, in a thread of its own, when there is progress."""
        if self._core is not None and self._core.session is not None:
            self._core.session.progress(callback, mode="for_currently_outstanding_work")

    def done(self, timeout: float | None = 0.0) -> bool:
        """Tell whether :meth:`result` would return at once, waiting up to `timeout` seconds for it."""
        if self._is_over():
            return True
        left = self._deadline.remaining
        limits = [t for t in (timeout, left) if t is not None]
        self._wake.wait(min(limits) if limits else None)
        return self._is_over()

    def _is_over(self) -> bool:
        waited = self._future is not None and self._future.done()
        return self._finished or waited or self._now or self._cancelled or self._deadline.passed

    def open_now(self) -> None:
        """Do not wait any longer: open with what is there, syncing in the background."""
        self._now = True
        self._stir()

    def cancel(self) -> None:
        """Give up, at once and without waiting for anything: the session ends, :meth:`result` raises CancelledError.

        Nothing happens if the opening is over already.
        """
        self._cancelled = True
        self._finish()
        self._pause.end()
        self._stir()

    def abandon(self) -> None:
        """Cancel, also when the realm is open already: it is closed, in the background."""
        self.cancel()
        realm, self._realm = self._realm, None
        if realm is not None:
            realm.abandon()

    def _stir(self) -> None:
        """Have everybody look who waits (any thread)."""
        self._wake.set()
        for callback in self._callbacks:
            with contextlib.suppress(RuntimeError):  # a loop that has ended: nobody waits there
                callback()

    @property
    def time_left(self) -> float | None:
        """Seconds until the time-out; None without one."""
        return self._deadline.remaining

    def when_stirred(self, callback: Callable[[], object]) -> None:
        """Have a function called, in any thread, when :meth:`done` may have become true before the time-out."""
        self._callbacks.append(callback)

    # ------------------------------------------------------------------ the end

    def result(self) -> Realm:
        """Wait and give the realm.

        Raises
        ------
        OpenTimeoutError
            When the deadline passed and the behaviour is to throw.
        CancelledError
            When it was cancelled.
        RealmError
            Whatever went wrong before.
        """
        try:
            while not self.done(_TICK):
                pass
            self._finish()
            if self._error is not None:
                raise self._error
            assert self._realm is not None
            return self._realm
        except BaseException:  # Ctrl-C, or how it ended
            self.abandon()
            raise
        finally:
            self._pause.end()

    def _finish(self) -> None:
        with self._finish_lock:
            if self._finished:
                return
            self._finished = True
            self._error = self._outcome()
            if self._future is not None:
                self._future.cancel()
            if self._error is not None:
                realm, self._realm = self._realm, None
                if realm is not None:
                    realm.abandon()
            elif self._realm is not None:
                self._realm.refresh()

    def _outcome(self) -> BaseException | None:
        """Decide how the opening ended: None is well."""
        future = self._future
        if self._cancelled:
            return CancelledError("Opening the realm was cancelled.")
        if future is not None and future.done() and not future.cancelled():
            return future.exception()
        self.timed_out = True
        if self._now or (self.behavior is not None and self.behavior.time_out_behavior == "open_local_realm"):
            return None
        return self._late()

    def _late(self) -> OpenTimeoutError:
        core, progress = self._core, self.progress
        session = None if core is None else core.session
        cause: RealmError | None = None if session is None else session.last_error
        seconds = self.behavior.time_out if self.behavior is not None else None
        # A session that others had open already was done once; this open waits for what is newer.
        phase = self._awaited if progress.phase == "done" else progress.phase
        why = f" Last: {cause.message}" if cause is not None else ""
        error = OpenTimeoutError(
            f"The realm {self._name} did not open within {seconds:g} s: {_PHASES[phase]}, "
            f"{progress.bytes:,} bytes had come.{why}",
            phase=phase,
            progress=progress.to_dict(),
            cause=cause,
            hint='time_out_behavior="open_local_realm" opens with what is on disk and goes on in the background.',
        )
        error.__cause__ = cause
        return error

    @property
    def _name(self) -> str:
        return self.configuration.realm_path().path.name

    def _late_files(self, limit: Deadline) -> OpenTimeoutError:
        return OpenTimeoutError(
            f"The realm {self._name} did not open within {limit.seconds:g} s: {_PHASES['files']}.",
            phase="files",
            progress=self.progress.to_dict(),
            hint="Try again, since reading goes on in the background; or look for a process that hangs with it open.",
        )


def initial_subscriptions(core: RealmCore, realm: Realm) -> Callable[[], object] | None:
    """Ask what ``initial_subscriptions`` adds: once in the life of a realm, or at each open if it says so.

    Returns
    -------
    callable or None
        Writes it, exactly once whoever else does; None if there is nothing to write.
    """
    sync = realm.configuration.sync
    if sync is None or sync.initial_subscriptions is None:
        return None
    stored = core.subscriptions
    is_new = stored.is_new  # others may write theirs while the application is asked
    if not is_new and not sync.rerun_on_open:
        return None
    copy = stored.sets.latest.update()
    with realm.being_asked():
        sync.initial_subscriptions(MutableSubscriptionSet(copy, lambda *query: canonical_query(realm, *query)), realm)
    if sync.rerun_on_open:
        return partial(stored.commit, copy, only_if_changed=True)
    return partial(stored.commit, copy, only_if_new=True)


def write_initial_subscriptions(core: RealmCore, realm: Realm) -> None:
    """Write what :func:`initial_subscriptions` gives."""
    commit = initial_subscriptions(core, realm)
    if commit is not None:
        commit()


async def open_async(configuration: Configuration, on_progress: Callable[[Any], object] | None = None) -> Realm:
    """Open without blocking the caller's loop; cancelling the task cancels the opening."""
    opening = await _begun(configuration)
    try:
        if on_progress is not None:
            opening.on_progress(on_progress)
        loop, stirred = asyncio.get_running_loop(), asyncio.Event()
        opening.when_stirred(lambda: loop.call_soon_threadsafe(stirred.set))
        while not opening.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stirred.wait(), opening.time_left)
            stirred.clear()
    except BaseException:
        opening.cancel()
        raise
    return opening.result()


async def _begun(configuration: Configuration) -> Opening:
    """Open the files in a thread of its own: those of a pool may all be busy, and the clock runs."""
    future: concurrent.futures.Future[Opening] = concurrent.futures.Future()

    def begin() -> None:
        try:
            opening = Opening(configuration)
        except BaseException as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return
        if future.set_running_or_notify_cancel():
            future.set_result(opening)
        else:
            opening.cancel()

    threading.Thread(target=begin, name="realmframe-open", daemon=True).start()
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        future.add_done_callback(_give_up)
        raise


def _give_up(future: concurrent.futures.Future[Opening]) -> None:
    """Cancel an opening that began when nobody waited any more."""
    if not future.cancelled() and future.exception() is None:
        future.result().cancel()
