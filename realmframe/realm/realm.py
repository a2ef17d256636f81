"""A realm: live frames to read, transactions to write, subscriptions and sync to keep it in step."""

from __future__ import annotations

import datetime as dt
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from realmframe.client.loop import in_sync_thread
from realmframe.client.paths import RealmPath, check_links
from realmframe.client.sync import SyncSession
from realmframe.errors import (
    ClosedError,
    NoSubscriptionForWriteError,
    ReadOnlyError,
    StorageError,
    UsageError,
)
from realmframe.frames import FrameStatus, LiveFrame, LiveFrames
from realmframe.model import ClassKind, Schema
from realmframe.realm import history as past
from realmframe.realm.changes import RealmChange, difference
from realmframe.realm.configuration import Configuration
from realmframe.realm.copying import write_copy
from realmframe.realm.core import RealmCore, is_open, let_go, open_cores
from realmframe.realm.opening import Opening, open_async
from realmframe.realm.prepare import prepare
from realmframe.realm.schema import refuse_to_read
from realmframe.realm.subscriptions import SubscriptionSet
from realmframe.realm.transaction import Transaction
from realmframe.store import RealmStore, Snapshot

T = TypeVar("T")

prepare()


class Realm:
    """An open realm; made by :meth:`open`.

    ``realm["Flight"]`` is a live ``pandas.DataFrame``. All frames of a realm show one version; they move on together at
    :meth:`refresh`, :meth:`wait_for_changes`, :meth:`changes` and after this realm's own writes.
    """

    def __init__(self, core: RealmCore, configuration: Configuration) -> None:
        self.core = core
        self.configuration = configuration
        self._snapshot = core.newest()
        self._frames = LiveFrames(self)
        self._subscriptions = SubscriptionSet(self)
        self._closed = self._being_asked = False
        self._writing = threading.local()
        self._stops: list[Callable[[], None]] = []
        core.realms.add(self)

    # ------------------------------------------------------------------ opening

    @classmethod
    def open(
        cls, configuration: Any = None, /, *, on_progress: Callable[[Any], object] | None = None, **kw: Any
    ) -> Realm:
        """Open a realm.

        Parameters
        ----------
        configuration : Configuration or mapping, optional
            Or its fields as keywords: ``path``, ``schema``, ``sync``...
        on_progress : callable, optional
            ``f(progress)`` with ``phase``, ``bytes`` and ``fraction``, called while it goes on.

        Raises
        ------
        OpenTimeoutError
            When the time-out passed and the behaviour is to throw; see :class:`SyncConfiguration`.
        RealmError
            Whatever else went wrong.
        """
        opening = cls.begin_open(configuration, **kw)
        try:
            if on_progress is not None:
                opening.on_progress(on_progress)
            return opening.result()
        except BaseException:
            opening.abandon()
            raise

    @classmethod
    async def open_async(
        cls, configuration: Any = None, /, *, on_progress: Callable[[Any], object] | None = None, **kw: Any
    ) -> Realm:
        """Open a realm without blocking the caller's loop; as :meth:`open`."""
        return await open_async(Configuration.of(configuration, **kw), on_progress)

    @classmethod
    def begin_open(cls, configuration: Any = None, /, **keywords: Any) -> Opening:
        """Begin to open a realm; the object given says how far it is and can be told to open at once, or cancelled."""
        return Opening(Configuration.of(configuration, **keywords))

    @staticmethod
    def path_for(configuration: Any = None, /, **keywords: Any) -> RealmPath:
        """Say where a realm is and which rule says so; touches nothing."""
        return Configuration.of(configuration, **keywords).realm_path()

    @staticmethod
    def exists(configuration: Any = None, /, **keywords: Any) -> bool:
        """Tell whether a realm is there; touches nothing."""
        return bool(RealmStore.exists(Configuration.of(configuration, **keywords).realm_path().path))

    @staticmethod
    def delete_files(configuration: Any = None, /, **keywords: Any) -> None:
        """Delete a realm with all its files.

        Raises
        ------
        StorageError
            If it is open, in this process or another.
        UsageError
            If a symbolic link leads its path out of base_file_path.
        """
        place = Configuration.of(configuration, **keywords).realm_path()
        path = place.path
        check_links(place)
        let_go(path)
        if is_open(path):
            raise StorageError(f"The realm {path} is open.", path=str(path), hint="Close it first.")
        try:
            RealmStore.delete(path)
        except UsageError as fault:
            raise StorageError(
                f"The realm {path} is open in another process.", path=str(path), hint="Close it there first."
            ) from fault

    @staticmethod
    def shutdown() -> None:
        """Close every realm of this process and end every session, also those that the stop policy lets go on."""
        for core in open_cores():
            for realm in list(core.realms):
                realm.close()
            core.end_lingering()

    # ------------------------------------------------------------------ what it is

    @property
    def path(self) -> Path:
        """The realm's directory."""
        return self.core.path

    @property
    def path_rule(self) -> str:
        """The rule that placed it there."""
        return self.core.place.rule

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def snapshot(self) -> Snapshot:
        """The version that the frames show."""
        return self._snapshot

    @property
    def schema(self) -> Schema:
        """The classes at the version shown."""
        return self._snapshot.schema

    @property
    def frames(self) -> LiveFrames:
        """The live frames by class; iterating gives the names."""
        self.need_open()
        return self._frames

    def __getitem__(self, class_name: str) -> LiveFrame:
        self.need_open()
        refuse_to_read(self._snapshot.schema, class_name)
        return self._frames[class_name]

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.status().label
        return f"<Realm {self.path.name}: {state}>"

    def status(self) -> FrameStatus:
        """Say how fresh the frames are."""
        session, store = self.core.session, self.core.store
        if session is None:
            return FrameStatus(self._snapshot.version, synced=False)
        pending = 0 if self._closed else len(store.pending())
        # Commits that the next refresh shows make nothing stale: only sync that is off or behind does.
        # In a process that was forked off nothing comes any more, whatever was known before.
        is_stale = self.core.is_inherited or not session.is_current
        return FrameStatus(self._snapshot.version, session.as_of, is_stale, pending)

    def need_open(self) -> None:
        """Raise ClosedError if the realm was closed."""
        if self._closed:
            raise ClosedError(f"The realm {self.path.name} was closed.", hint="Open it again with Realm.open.")

    def need_own(self) -> None:
        """As :meth:`need_open`, and raise UsageError in a process that was forked off since: reading goes on there."""
        self.need_open()
        if self.core.is_inherited:
            raise UsageError(
                f"The realm {self.path.name} was opened before this process was forked off.",
                hint="Open it again here; what was read so far can be used.",
            )

    @contextmanager
    def being_asked(self) -> Iterator[None]:
        """Mark the time in which the application says what its initial subscriptions are."""
        self._being_asked = True
        try:
            yield
        finally:
            self._being_asked = False

    def check_changeable(self) -> None:
        """Refuse to change subscriptions while the application is asked for the initial ones, which would be lost."""
        if self._being_asked:
            raise UsageError(
                "initial_subscriptions changes the set that it is given, not realm.subscriptions.",
                hint="Call subs.add(...) on its first argument.",
            )

    def need_session(self) -> SyncSession:
        """Give the session.

        Raises
        ------
        UsageError
            For a local realm.
        """
        self.need_own()
        if self.core.session is None:
            raise UsageError(
                f"The realm {self.path.name} does not sync.", hint="Open it with sync=SyncConfiguration(...)."
            )
        return self.core.session

    # ------------------------------------------------------------------ moving on

    def refresh(self) -> bool:
        """Move all frames to the newest version; tell whether there was a newer one."""
        self.need_own()
        newest = self.core.newest()
        if newest.version == self._snapshot.version and newest.schema is self._snapshot.schema:
            return False
        self._snapshot = newest
        self._frames.advance()
        return True

    def wait_for_changes(self, timeout: float | None = None) -> bool:
        """Wait until there is a newer version, then move the frames to it; False if `timeout` seconds passed first."""
        self.need_own()
        with self._watching() as news:
            if self.refresh():
                return True
            waiting = _Waiting(timeout)
            while (left := waiting.step()) is not None:
                _take(news, left)
                self.need_open()
                if self.refresh():
                    return True
        return False

    def changes(self, timeout: float | None = None) -> Iterator[RealmChange]:
        """Give change after change, each moving the frames to the version that it made.

        Parameters
        ----------
        timeout : float, optional
            Ends when nothing has changed for so many seconds; for ever by default.

        Yields
        ------
        RealmChange
            ``change.version``, and ``change["Flight"].inserted``, ``.modified``, ``.deleted``: frames of keys.
        """
        while not self._closed:
            before = self._snapshot
            if not self.wait_for_changes(timeout):
                return
            yield difference(before, self._snapshot)

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called, in any thread, when there is a newer version or sync's state changes.

        Returns
        -------
        callable
            Ends it.
        """
        self.need_own()
        stops = [self.core.store.listen(lambda *_: callback())]
        if self.core.session is not None:
            stops.append(self.core.session.listen(callback))

        def stop() -> None:
            while stops:
                stops.pop()()
            if stop in self._stops:
                self._stops.remove(stop)

        self._stops.append(stop)
        return stop

    @contextmanager
    def _watching(self) -> Iterator[queue.SimpleQueue[None]]:
        news: queue.SimpleQueue[None] = queue.SimpleQueue()
        stop = self.core.store.listen(lambda *_: news.put(None))
        try:
            yield news
        finally:
            stop()

    # ------------------------------------------------------------------ writing

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Write: ``with realm.write() as tx:``; durable when the block ends, an exception drops all of it."""
        self.need_own()
        if self.configuration.read_only:
            raise ReadOnlyError(f"The realm {self.path.name} was opened read_only.", path=str(self.path))
        if getattr(self._writing, "now", False):
            raise UsageError("A transaction of this realm is open in this thread already.", hint="Use that one.")
        with self.core.write_lock:
            self._writing.now = True
            tx = Transaction(self.core.store.refresh(), self._snapshot, self.check_writable)
            try:
                yield tx
                changeset = tx.finish()
                if changeset is not None:
                    self.core.commit(changeset)
            finally:
                tx.abandon()
                self._writing.now = False
        if not self._closed:  # a listener may have closed it: what was written is written
            self.refresh()

    def check_writable(self, class_name: str) -> None:
        """Raise NoSubscriptionForWriteError for a class that no subscription is on (Flexible Sync)."""
        session = self.core.session
        if session is None or not session.options.flexible:
            return
        cls = self.core.store.snapshot.schema[class_name]
        if cls.kind is ClassKind.ASYMMETRIC or class_name in self.core.subscriptions.latest.classes:
            return
        raise NoSubscriptionForWriteError(
            f"Cannot write to class {class_name!r}: no subscription is on it.",
            hint=f"Add one: `with realm.subscriptions.update() as subs: subs.add({class_name!r})`.",
        )

    # ------------------------------------------------------------------ sync

    @property
    def subscriptions(self) -> SubscriptionSet:
        """The subscriptions (Flexible Sync)."""
        self.need_own()
        return self._subscriptions

    @property
    def sync_session(self) -> SyncSession:
        """The session: state, pause, resume, reconnect, progress."""
        return self.need_session()

    def upload_all_local_changes(self, timeout: float | None = None) -> None:
        """Wait until the server has everything written so far.

        Parameters
        ----------
        timeout : float, optional
            Seconds; for ever by default. 0 only looks whether it is done.

        Raises
        ------
        WaitTimeoutError
            When the time has passed; the upload goes on.
        RealmError
            When the session failed, or was closed.
        """
        self.need_session().upload_all_local_changes(timeout)

    def download_all_server_changes(self, timeout: float | None = None) -> None:
        """Wait until everything that the server has now is here, and move the frames to it.

        Parameters
        ----------
        timeout : float, optional
            Seconds; for ever by default.

        Raises
        ------
        WaitTimeoutError
            When the time has passed; the download goes on.
        RealmError
            When the session failed, or was closed.
        """
        self.need_session().download_all_server_changes(timeout)
        self.refresh()

    async def upload_all_local_changes_async(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as in the blocking form
        """Wait without blocking the caller's loop; as :meth:`upload_all_local_changes`."""
        await self.need_session().upload_all_local_changes_async(timeout)

    async def download_all_server_changes_async(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as in the blocking form
        """Wait without blocking the caller's loop; as :meth:`download_all_server_changes`."""
        await self.need_session().download_all_server_changes_async(timeout)
        self.refresh()

    # ------------------------------------------------------------------ the past, and other engines

    def as_of(self, when: int | dt.datetime) -> past.PastRealm:
        """Show the realm as it was at a version or a time: ``realm.as_of(7)["Flight"]`` is an ordinary frame.

        Raises
        ------
        UsageError
            For a version or time before what this process still knows.
        """
        self.need_open()
        return past.as_of(self.core.store, self.core.times.version_at(when) if isinstance(when, dt.datetime) else when)

    def history(self, class_name: str) -> Any:
        """List what happened to a class: a frame with versions and how many objects each touched."""
        self.need_open()
        return past.history(self.core.store, class_name)

    def quarantine(self) -> Any:
        """List writes that the server reverted or a reset lost: a frame with class, primary_key, reason, values..."""
        self.need_open()
        return past.quarantine(self.core.store.quarantine)

    def dataset(self, class_name: str) -> Any:
        """Give a class as a ``pyarrow.dataset`` of the version shown."""
        self.need_open()
        return past.dataset(self._snapshot, class_name)

    def sql(self, text: str) -> Any:
        """Run SQL over the version shown (needs the extra ``sql``); the result is a frame."""
        self.need_open()
        return past.sql(self._snapshot, text)

    def write_copy_to(self, configuration: Any = None, /, **keywords: Any) -> None:
        """Write a copy of what is here as another realm, synced or local.

        A copy that does not sync has everything. One that syncs with the same app and partition (or Flexible Sync) goes
        on from where this realm is, as a file of whoever opens it first: ship it with an application, and nothing has
        to be downloaded again. Any other copy that syncs holds the objects as its own writes, which it uploads.

        Parameters
        ----------
        configuration : path, Configuration or mapping
            Where, and whether it syncs. It must not exist. For Flexible Sync, where it uploads the objects, its
            ``initial_subscriptions`` are written first, and have to cover every class that has objects; what no query
            matches the server takes back.

        Raises
        ------
        UsageError
            If there is a realm already, or both sync and something was not uploaded yet.
        NoSubscriptionForWriteError
            If a class with objects has no subscription; nothing is left behind.
        """
        self.need_own()
        if isinstance(configuration, str | os.PathLike):
            configuration = {"path": configuration}
        write_copy(self.core, Configuration.of(configuration, **keywords))

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Close the realm. Closing again does nothing.

        What was not uploaded yet is on disk, and goes up at the next open at the latest. What the session does until
        then its ``session_stop_policy`` says: ``"after_upload"`` waits up to two seconds for the upload, and goes on
        with it in the background for as long as the server is connected; ``"immediately"`` ends at once; ``"never"``
        syncs on until :meth:`shutdown`, :meth:`delete_files` or the end of the process.

        In a callback of the sync thread (:meth:`listen`) it closes in the background, waiting for nothing.
        """
        self._end(abandon=in_sync_thread())

    def abandon(self) -> None:
        """Close in the background, waiting for nothing."""
        self._end(abandon=True)

    def _end(self, *, abandon: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if self.core.is_inherited:
            return
        for stop in list(self._stops):
            stop()
        self.core.release(abandon=abandon)

    def __enter__(self) -> Realm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Waiting:
    """Steps of a wait that is bounded as a whole, each short enough that Ctrl-C and other processes are noticed."""

    def __init__(self, timeout: float | None) -> None:
        from realmframe.realm.deadline import Deadline

        self._deadline = Deadline(timeout)

    def step(self, tick: float = 0.05) -> float | None:
        left = self._deadline.remaining
        if left is None:
            return tick
        return min(tick, left) if left > 0 else None


def _take(news: queue.SimpleQueue[None], seconds: float) -> None:
    try:
        news.get(timeout=seconds)
    except queue.Empty:
        return
