"""Opening a realm: rules of both behaviours, one deadline over everything.

=================== ================= ===================================================================
type                at the time-out   the open
=================== ================= ===================================================================
open_immediately    (ignored)         returns at once; sync goes on in the background
download_before_..  no time_out       returns when everything is here, or fails with what went wrong
download_before_..  throw_exception   fails with OpenTimeoutError; sync ends
download_before_..  open_local_realm  returns with what is here; sync goes on in the background
=================== ================= ===================================================================

Whether a realm is new is decided once, when the call begins. Initial subscriptions are written, once, before anything
is waited for; so they are there in each of these cases.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from realmframe.client.loop import sync_loop
from realmframe.client.progress import TransferProgress
from realmframe.errors import CancelledError, OpenTimeoutError, RealmError
from realmframe.realm.configuration import Configuration, OpenRealmBehaviorConfiguration
from realmframe.realm.core import RealmCore
from realmframe.realm.deadline import Deadline
from realmframe.realm.schema import check_schema
from realmframe.realm.subscriptions import MutableSubscriptionSet, canonical_query
from realmframe.session.subscriptions import Subscription

if TYPE_CHECKING:
    from realmframe.realm.realm import Realm

#: Seconds between two looks of a waiting thread, so that Ctrl-C is heard.
_TICK: Final = 0.25
_PHASES: Final = {
    "login": "the access token was being refreshed",
    "location": "the server was being asked where the app is",
    "connect": "the connection was being opened",
    "download": "data was being downloaded",
    "subscriptions": "the subscriptions were being synchronised",
    "done": "the last data was being stored",
}


class Opening:
    """A realm that is being opened; made by :meth:`Realm.begin_open`.

    Attributes
    ----------
    timed_out : bool
        Whether the realm was opened with what was there, before everything had come.
    """

    def __init__(self, configuration: Configuration) -> None:
        sync = configuration.sync
        self.configuration = configuration
        self.timed_out = False
        self._wake = threading.Event()
        self._now = self._cancelled = False
        self._realm: Realm | None = None
        self._error: BaseException | None = None
        self._finish_lock = threading.Lock()
        self._finished = False
        self._future: concurrent.futures.Future[None] | None = None
        # The clock starts with the call; which behaviour's limit counts is known when the files were looked at.
        began = Deadline(None)
        self._core, self.is_new = RealmCore.acquire(configuration)
        self.behavior: OpenRealmBehaviorConfiguration | None = None if sync is None else sync.behavior(self.is_new)
        limit = None if self.behavior is None else self.behavior.time_out
        self._deadline = Deadline(None if limit is None else limit - began.elapsed)
        try:
            self._begin()
        except BaseException:
            self._core.release(abandon=True)
            raise

    def _begin(self) -> None:
        from realmframe.realm.realm import Realm

        session = self._core.session
        self._realm = Realm(self._core, self.configuration)
        self._initial_subscriptions(self._realm)
        if session is not None:
            session.start()
        if session is None or self.behavior is None or self.behavior.opens_immediately:
            self._finished = True
            on_first_open = self.configuration.on_first_open
            if session is None and self.is_new and on_first_open is not None:
                on_first_open(self._realm)
            return
        self._future = sync_loop().submit(self._wait())
        self._future.add_done_callback(lambda _: self._wake.set())

    def _initial_subscriptions(self, realm: Realm) -> None:
        sync = self.configuration.sync
        if sync is None or sync.initial_subscriptions is None:
            return
        stored = self._core.subscriptions
        if not stored.is_new and not sync.rerun_on_open:
            return
        copy = stored.sets.latest.update()
        sync.initial_subscriptions(MutableSubscriptionSet(copy, lambda *query: canonical_query(realm, *query)), realm)
        if stored.is_new:
            stored.commit(copy, only_if_new=not sync.rerun_on_open)
        elif _content(copy) != _content(stored.sets.latest):
            stored.commit(copy)

    async def _wait(self) -> None:
        """*In the sync thread* Wait until everything is here."""
        session = self._core.session
        assert session is not None
        await session.wait_download()
        if session.options.flexible:
            await session.wait_subscriptions()
            # What the new subscriptions brought is here; ask once more for what came meanwhile.
        if self.configuration.schema is not None:
            check_schema(self.configuration.schema, self._core.store.snapshot.schema, side="The server")

    # ------------------------------------------------------------------ meanwhile

    @property
    def progress(self) -> TransferProgress:
        """Phase, bytes and estimate of what has come."""
        session = self._core.session
        return TransferProgress("done", fraction=1.0) if session is None else session.transfer

    def on_progress(self, callback: Callable[[TransferProgress], object]) -> None:
        """Have a function called, in a thread of its own, when there is progress."""
        if self._core.session is not None:
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
        self._wake.set()

    def cancel(self) -> None:
        """Give up; :meth:`result` raises CancelledError."""
        self._cancelled = True
        self._wake.set()

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
        except KeyboardInterrupt:
            self.cancel()
            self._finish()
            raise
        self._finish()
        if self._error is not None:
            raise self._error
        assert self._realm is not None
        return self._realm

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
        progress, session = self.progress, self._core.session
        cause: RealmError | None = None if session is None else session.last_error
        seconds = self.behavior.time_out if self.behavior is not None else None
        why = f" Last: {cause.message}" if cause is not None else ""
        error = OpenTimeoutError(
            f"The realm {self._core.path.name} did not open within {seconds:g} s: {_PHASES[progress.phase]}, "
            f"{progress.bytes:,} bytes had come.{why}",
            phase=progress.phase,
            progress=progress.to_dict(),
            cause=cause,
            hint='time_out_behavior="open_local_realm" opens with what is on disk and goes on in the background.',
        )
        error.__cause__ = cause
        return error


def _content(subscriptions: Iterable[Subscription]) -> set[tuple[str | None, str, str]]:
    """Give what a set asks for, whenever it was asked."""
    return {(s.name, s.object_class, s.query) for s in subscriptions}


async def open_async(configuration: Configuration, on_progress: Callable[[Any], object] | None = None) -> Realm:
    """Open without blocking the caller's loop; cancelling the task cancels the opening."""
    opening = await asyncio.to_thread(Opening, configuration)
    if on_progress is not None:
        opening.on_progress(on_progress)
    try:
        return await asyncio.to_thread(opening.result)
    except asyncio.CancelledError:
        opening.cancel()
        raise
