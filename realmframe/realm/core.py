"""What all realm objects of one path share in a process: the store, its subscriptions, its session."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime as dt
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from realmframe.changes import Changeset
from realmframe.client.migration import Migration, adapted
from realmframe.client.options import SessionOptions
from realmframe.client.paths import RealmPath, check_links
from realmframe.client.reset import ResetOptions, carry_out_file_action
from realmframe.client.subscriptions import StoredSubscriptions
from realmframe.client.sync import SyncSession
from realmframe.errors import AuthError, RealmError, StorageError, UsageError, WaitTimeoutError, WrongUserError
from realmframe.model import ejson
from realmframe.realm.configuration import ClientResetConfiguration, Configuration, SyncConfiguration
from realmframe.realm.schema import check_schema
from realmframe.realm.transaction import timestamp_now
from realmframe.store import Commit, Owner, RealmStore, Snapshot, schema_changeset

if TYPE_CHECKING:
    from realmframe.realm.realm import Realm

_CLOSING_SECONDS: Final = 60.0
#: Seconds that closing waits at most for the last upload, with the stop policy after_upload; it goes on after that.
_LAST_UPLOAD_SECONDS: Final = 2.0
#: Seconds between two looks of a session that lingers.
_LOOK_SECONDS: Final = 0.25
_lock = threading.Lock()
_open: Final[dict[Path, RealmCore]] = {}
#: Files that are being opened, outside of the lock: others of the same path wait, and nobody else has to.
_being_opened: Final[dict[Path, threading.Event]] = {}


class Times:
    """When each version that this process saw came to be."""

    def __init__(self, version: int) -> None:
        self._seen: list[tuple[float, int]] = [(time.time(), version)]

    def note(self, version: int) -> None:
        """Note that a version is there now."""
        if version != self._seen[-1][1]:
            self._seen.append((time.time(), version))

    def version_at(self, when: dt.datetime) -> int:
        """Give the version that was the newest at a time.

        Raises
        ------
        UsageError
            For a time before this process opened the realm.
        """
        moment = when.timestamp()
        if moment < self._seen[0][0]:
            first = dt.datetime.fromtimestamp(self._seen[0][0], dt.UTC)
            raise UsageError(f"This process knows the realm only since {first:%Y-%m-%d %H:%M:%S} UTC.")
        return next(version for seen, version in reversed(self._seen) if seen <= moment)


class RealmCore:
    """One open realm of this process; made by :meth:`acquire`, counted, closed with the last user.

    Parameters
    ----------
    place : RealmPath
    configuration : Configuration
    """

    def __init__(self, place: RealmPath, configuration: Configuration) -> None:
        self.place = place
        self.path = place.path
        self.key = _key(place.path)
        self.users = 0
        self._process = os.getpid()
        #: The realm objects that use it, for :meth:`Realm.shutdown`.
        self.realms: weakref.WeakSet[Realm] = weakref.WeakSet()
        self.closed = threading.Event()
        #: Nobody uses it and its session is being ended; until its files are, it can be opened again.
        self.closing = self._files_closing = False
        self._ending_sessions = 0
        sync = configuration.sync
        self.owner = None if sync is None else owner_of(sync)
        self.store = RealmStore.open(
            self.path, create=not configuration.read_only, read_only=configuration.read_only, owner=self.owner
        )
        self.subscriptions = StoredSubscriptions(self.store)
        self.write_lock = threading.RLock()
        self.session = None if sync is None else self._make_session(sync, configuration)
        self.stop_policy = "immediately" if sync is None else sync.session_stop_policy
        self.times = Times(self.store.snapshot.version)
        self._stop_listening: Callable[[], None] = self.store.listen(self._on_commit)

    @property
    def is_inherited(self) -> bool:
        """Whether it was opened by a process that this one was forked off."""
        return self._process != os.getpid()

    def _make_session(
        self, sync: SyncConfiguration, configuration: Configuration, after: SyncSession | None = None
    ) -> SyncSession:
        partition = None if sync.flexible else _wire_partition(sync.partition_value)
        options = SessionOptions(
            user_id=sync.user.id,
            flexible=sync.flexible,
            partition=partition,
            schema_version=configuration.schema_version,
            cancel_waits=sync.cancel_waits_on_non_fatal_errors,
            on_error=sync.on_error,
            client_reset=self._reset_options(sync.client_reset, configuration),
        )
        options = adapted(options, self.store)
        return SyncSession(sync.user.app, self.store, self.subscriptions, options, self.write_lock, after=after)

    def _reset_options(self, form: ClientResetConfiguration, configuration: Configuration) -> ResetOptions:
        """Wrap the app's callbacks: they see realms, not snapshots."""
        from realmframe.realm.history import PastRealm

        def before(snapshot: Snapshot) -> object:
            return form.on_before(PastRealm(snapshot)) if form.on_before is not None else None

        def after(old: Snapshot) -> None:
            from realmframe.realm.realm import Realm

            if form.on_after is None:
                return
            with _lock:
                self.users += 1
            realm = Realm(self, configuration)
            try:
                form.on_after(PastRealm(old), realm)
            finally:
                realm.abandon()

        return ResetOptions(form.mode, before, after, form.on_fallback, form.on_manual)

    def _on_commit(self, news: Commit) -> None:
        self.times.note(news.snapshot.version)
        if self.session is not None:
            self.session.wake()

    # ------------------------------------------------------------------ opened and closed

    @classmethod
    def acquire(cls, configuration: Configuration) -> tuple[RealmCore, bool]:
        """Open a realm's files, or join those who have; tell whether it is new.

        Raises
        ------
        AuthError
            For a user who is not logged in.
        WrongUserError, StorageError, SchemaMismatchError
        """
        sync = configuration.sync
        if sync is not None and not sync.user.is_logged_in:
            raise AuthError(f"The user {sync.user.id} is not logged in.", hint="Log in again; local data is kept.")
        place = configuration.realm_path()
        check_links(place)
        core = cls._join(place, configuration)
        is_new = core is None
        if core is None:
            core, is_new = cls._open_files(place, configuration)
        if sync is not None and place.base is not None:
            sync.user.app.track(sync.user.id, place.path)
        return core, is_new

    @classmethod
    def _join(cls, place: RealmPath, configuration: Configuration) -> RealmCore | None:
        """Join those who have it open; None if nobody has: then it is the caller's to open."""
        key, ends = _key(place.path), time.monotonic() + _CLOSING_SECONDS
        while True:
            with _lock:
                known, opening = _open.get(key), _being_opened.get(key)
                if opening is None and known is None:
                    _being_opened[key] = threading.Event()
                    return None
                if opening is None and known is not None and known.takes(configuration):
                    known.users += 1
                    break
                awaited, what = (
                    (known.closed, "closed") if opening is None and known is not None else (opening, "opened")
                )
            if awaited is not None and not awaited.wait(max(0.0, ends - time.monotonic())):
                raise StorageError(f"The realm {place.path} is still being {what}.", path=str(place.path))
        try:
            known.apply_schema(configuration)
        except BaseException:
            known.release(abandon=True)
            raise
        return known

    def takes(self, configuration: Configuration) -> bool:
        """Tell whether it can be joined now, and see that it is not being closed then."""
        if self.closing and not self.can_be_revived(configuration):
            return False
        self.check_mode()
        self.check_same(configuration)
        if self.closing:
            self.revive(configuration)
        return True

    @classmethod
    def _open_files(cls, place: RealmPath, configuration: Configuration) -> tuple[RealmCore, bool]:
        """Open a realm's files; it takes as long as it takes."""
        try:
            is_new = not RealmStore.exists(place.path)
            _refuse_nested(place.path)
            core = cls(place, configuration)
            if core.store.extra.get("file_action") and not core.store.read_only:
                # What a client reset or the server wanted done with the files could not be done when they were closed.
                action = core.store.extra["file_action"]
                core.store.close()
                is_new = carry_out_file_action(place.path, action)
                core = cls(place, configuration)
            try:
                core.check_mode()
                core.apply_schema(configuration)
            except BaseException:
                core.store.close()
                raise
            with _lock:
                core.users += 1
                _open[core.key] = core
        finally:
            with _lock:
                _being_opened.pop(_key(place.path)).set()
        return core, is_new

    def can_be_revived(self, configuration: Configuration) -> bool:
        """Tell whether its last session may go on ending while another one of the same owner begins."""
        sync = configuration.sync
        return not self._files_closing and self.owner == (None if sync is None else owner_of(sync))

    def revive(self, configuration: Configuration) -> None:
        """Open again before the files were closed: an open need not wait for what ends in the background."""
        self.closing = False
        if configuration.sync is not None:
            self.session = self._make_session(configuration.sync, configuration, after=self.session)
            self.stop_policy = configuration.sync.session_stop_policy

    def check_mode(self) -> None:
        """Refuse to sync a file that was made for something else."""
        recorded, wanted = self.store.owner, self.owner
        if wanted is None or recorded == wanted:
            return
        if recorded is not None and replace(recorded, partition=None) == wanted and Migration.of(self.store):
            return  # the app has followed its server to Flexible Sync
        hint = "Give another path; realm.write_copy_to copies what is there."
        if recorded is None:
            raise UsageError(f"The realm {self.path} was made without sync and cannot be synced.", hint=hint)
        raise UsageError(
            f"The realm {self.path} was made {_describe(recorded)}, and cannot be opened {_describe(wanted)}.",
            hint=hint,
        )

    def check_same(self, configuration: Configuration) -> None:
        """Refuse to open as somebody else what is open already."""
        sync = configuration.sync
        owner = None if sync is None else owner_of(sync)
        if owner != self.owner:
            raise WrongUserError(
                f"The realm {self.path} is open already {_describe(self.owner)}, and cannot be opened "
                f"{_describe(owner)} at the same time.",
                hint="Close it first, or give another path.",
            )

    def apply_schema(self, configuration: Configuration) -> None:
        """Commit what the file's schema lacks."""
        wanted = configuration.schema
        if wanted is None:
            return
        have = self.store.snapshot.schema
        check_schema(wanted, have)
        if len(schema_changeset(wanted, have)) == 0:
            return  # without looking for newer commits, which would have to wait for what is being integrated
        have = self.store.refresh().schema
        check_schema(wanted, have)
        changeset = schema_changeset(wanted, have)
        if len(changeset) == 0:
            return
        if configuration.read_only:
            raise UsageError("The realm is read_only, and its file lacks classes or properties of the schema.")
        self.commit(changeset)
        if self.session is not None:
            self.session.cover_classes()

    def newest(self) -> Snapshot:
        """Give the newest snapshot, with what other processes committed unless that would have to be waited for."""
        if not self.write_lock.acquire(blocking=False):
            return self.store.snapshot
        try:
            return self.store.refresh()
        finally:
            self.write_lock.release()

    def commit(self, changeset: Changeset) -> Snapshot:
        """Write locally, durably."""
        with self.write_lock:
            return self.store.commit(changeset, timestamp=timestamp_now(time.time))

    def release(self, *, abandon: bool = False) -> None:
        """Say that one user is done; the last one closes.

        Parameters
        ----------
        abandon : bool
            Close in the background, without waiting for anything.
        """
        if not abandon:
            self._try_last_upload()
        with _lock:
            self.users -= 1
            if self.users > 0:
                return
            lingers = not abandon and self._lingers()
            if not lingers:
                self._begin_closing()
            session = self.session
        if lingers and self.stop_policy == "never":
            return
        if lingers or abandon:
            work = self._linger if lingers else self._close
            name = f"realmframe-close-{self.path.name}"
            threading.Thread(target=work, args=(session,), name=name, daemon=True).start()
        else:
            self._close(session)

    # ------------------------------------------------------------------ stop policies

    def _try_last_upload(self) -> None:
        """With after_upload, give what is not uploaded yet a short time while somebody waits."""
        session = self.session
        if session is None or self.users != 1 or self.stop_policy != "after_upload" or not session.is_connected:
            return
        with contextlib.suppress(RealmError):
            session.upload_all_local_changes(_LAST_UPLOAD_SECONDS)

    def _lingers(self) -> bool:
        """Tell whether the session goes on although nobody uses the realm any more."""
        session = self.session
        if session is None or session.state != "active" or self.stop_policy == "immediately":
            return False
        return self.stop_policy == "never" or (session.is_connected and bool(self.store.pending()))

    def _linger(self, session: SyncSession) -> None:
        """Upload until everything is at the server, the connection is gone, or somebody uses the realm again."""
        while self.users == 0 and not self.closing and session.is_connected and session.state == "active":
            try:
                session.upload_all_local_changes(_LOOK_SECONDS)
                break
            except WaitTimeoutError:
                continue
            except (RealmError, concurrent.futures.CancelledError):  # or the sync thread has ended
                break
        self.end_lingering()

    def end_lingering(self) -> None:
        """End a session that goes on although nobody uses the realm; nothing happens if somebody does."""
        with _lock:
            if self.users > 0 or self.closing:
                return
            self._begin_closing()
        self._close(self.session)

    def _begin_closing(self) -> None:
        self.closing = True
        self._ending_sessions += 1

    def _close(self, session: SyncSession | None) -> None:
        """End a session, then the files, unless somebody has opened the realm again meanwhile."""
        try:
            if session is not None:
                session.close()
        finally:
            with _lock:
                self._ending_sessions -= 1
                self._files_closing = is_last = self.users == 0 and self._ending_sessions == 0
            if is_last:
                self._close_files()

    def _close_files(self) -> None:
        try:
            self._stop_listening()
            action = self.store.extra.get("file_action")
            self.store.close()
            if action and not self.store.read_only:
                carry_out_file_action(self.path, action)
        finally:
            with _lock:
                _open.pop(self.key, None)
            self.closed.set()


def _refuse_nested(path: Path) -> None:
    """Refuse a realm in the folder of another one, with which it would be moved and deleted."""
    outer = RealmStore.enclosing(path)
    if outer is not None:
        raise UsageError(
            f"The path {path} lies in the folder of another realm, {outer}.", hint="Give a path outside of it."
        )


def _key(path: Path) -> Path:
    return Path(os.path.realpath(path))


def owner_of(sync: SyncConfiguration) -> Owner:
    """Say whom a synced realm belongs to."""
    partition = None if sync.flexible else _partition_text(sync.partition_value)
    return Owner(app_id=sync.user.app.id, user_id=sync.user.id, partition=partition)


def _partition_text(value: object) -> str:
    import json

    return json.dumps(ejson.encode(value), separators=(",", ":"))


def _wire_partition(value: object) -> str:
    """Write a partition to the letter as the SDKs do: a server may take the text for a name."""
    import json

    return json.dumps(ejson.encode(value))


def _describe(owner: Owner | None) -> str:
    if owner is None:
        return "as a local realm"
    mode = "with Flexible Sync" if owner.partition is None else f"with the partition {owner.partition}"
    return f"by user {owner.user_id} of app {owner.app_id} {mode}"


def is_open(path: Path) -> bool:
    """Tell whether this process has a realm open, if only for a session that lingers, or is opening it."""
    with _lock:
        return _key(path) in _open or _key(path) in _being_opened


def let_go(path: Path) -> None:
    """End a session of a realm that nobody uses any more, and wait until its files are closed."""
    with _lock:
        core = _open.get(_key(path))
    if core is not None:
        core.end_lingering()
        if core.users == 0:
            core.closed.wait(_CLOSING_SECONDS)


def open_cores() -> list[RealmCore]:
    """List what this process has open, sessions that linger included."""
    with _lock:
        return list(_open.values())


def open_realms() -> list[Realm]:
    """Give every realm that this process has open itself."""
    return [realm for core in open_cores() for realm in list(core.realms) if not realm.is_closed]


#: What was open when this process was forked off: kept, since its tasks and threads, which are not here, cannot end.
_inherited: Final[list[RealmCore]] = []


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _inherited.extend(_open.values())
    _open.clear()
    _being_opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
