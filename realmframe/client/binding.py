"""Which process syncs a realm, and the place of its session on a connection.

Of the processes that have a realm open one leads: the one that holds ``sync.lock``. The others look what it brings, and
one of them takes over when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from realmframe.client.following import Answers, Following, Pace
from realmframe.client.integration import to_session
from realmframe.client.migration import MIGRATION, Migration, adapted
from realmframe.client.reset import FRESH
from realmframe.client.standing import Teller
from realmframe.errors import AuthError, RealmError
from realmframe.session.client_session import ClientSession
from realmframe.session.progress import PendingList
from realmframe.session.start import SessionStart
from realmframe.store.lock import SYNC, lock_file, try_lock

if TYPE_CHECKING:
    from realmframe.client.connection import Connection
    from realmframe.client.sync import SyncSession

#: Seconds between two looks at what other processes did with the realm, while nothing happens.
POLL_SECONDS: Final = 0.05
#: Seconds between two tries of a follower to become the process that syncs.
ELECTION_SECONDS: Final = 0.25
#: Seconds that a session waits at most for the one before it to end.
HANDOVER_SECONDS: Final = 60.0


class Binding:
    """A session's machine and the connection it is on, if any; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession
    after : SyncSession, optional
        One of the same realm that is ending; this one begins when that has ended.

    Attributes
    ----------
    machine : ClientSession or None
    connection : Connection or None
        The one it is on, or was on last.
    is_resetting : bool
        Whether a client reset ever began: then a download of an older machine may not be integrated any more.
    following : Following or None
        While another process syncs the realm.
    """

    def __init__(self, session: SyncSession, after: SyncSession | None) -> None:
        self.session = session
        self.machine: ClientSession | None = None
        self.connection: Connection | None = None
        self.is_resetting = False
        self.following: Following | None = None
        self._pace = Pace(POLL_SECONDS)
        self._after = after
        self._number = 0
        self._told_query = 0
        self._reason = session.options.session_reason
        self._leader = lock_file(session.store.path, SYNC)

    async def lead(self) -> None:
        """Become the process that syncs this realm, then keep an eye on what the others commit."""
        session = self.session
        after, self._after = self._after, None
        if after is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(after.ended.wait(), HANDOVER_SECONDS)
        self._pace = Pace(POLL_SECONDS)
        await self._follow()
        teller = Teller(session)
        answers = Answers(session, teller.look)
        try:
            teller.look()  # before anything that takes long: a process that was killed may have said more
            session.store.refresh()
            self._adapt()
            shutil.rmtree(session.store.path / FRESH, ignore_errors=True)  # of a reset whose process was killed
            session.patience.trouble()  # there is no connection yet
            await self._check_token()
            self._bind()
            while True:
                await self._pace.rest()
                if answers.look():
                    self._pace.hurry()
                if self._has_news():
                    self._pace.hurry()
                    self.look()
                teller.look()
        finally:
            answers.end()
            teller.end()

    async def _follow(self) -> None:
        """Follow the process that syncs, until this one can take its place."""
        loop, due = asyncio.get_running_loop(), 0.0
        try:
            while True:
                is_led = self.following is not None and self.following.standing.is_leading
                if not is_led or loop.time() >= due:
                    if try_lock(self._leader):
                        return
                    due = loop.time() + ELECTION_SECONDS
                if self.following is None:
                    self.following = Following(self.session)
                if self.following.look():
                    self._pace.hurry()
                await self._pace.rest()
        finally:
            if self.following is not None:
                self.following.end()
                self.following = None

    def hurry(self) -> None:
        """Look at the disk very soon: somebody waits for what another process does."""
        self._pace.hurry()

    def _has_news(self) -> bool:
        """Look whether another process has written anything, or changed the subscriptions."""
        session = self.session
        # While something is integrated or written the store is locked, and the loop must not wait for it.
        if not session.commit_lock.acquire(blocking=False):
            return False
        try:
            version = session.store.snapshot.version
            is_newer = session.store.refresh().version != version
        finally:
            session.commit_lock.release()
        return is_newer or (session.options.flexible and session.subscriptions.latest.version > self._told_query)

    def _adapt(self) -> None:
        """Sync as the realm has come to be synced, by whichever process."""
        session, store = self.session, self.session.store
        if not session.options.may_upload:
            return  # the fresh copy of a client reset, which is told how
        session.options = adapted(session.options, store)
        migration = Migration.of(store)
        if migration is not None and session.options.partition is None and not migration.sentinel:
            session.subscriptions.commit(session.subscriptions.sets.latest.update())
            version = session.subscriptions.latest.version
            store.set_extra(**{MIGRATION: replace(migration, sentinel=version).to_json()})

    async def _check_token(self) -> None:
        """Refresh an access token that has ended, also where the user's connection is still open."""
        session = self.session
        try:
            await session.app.access_token(session.options.user_id)
        except AuthError:
            raise
        except RealmError as fault:
            session.last_error = fault  # the connection tries again, with the old token if need be

    def _bind(self) -> None:
        session = self.session
        store, options = session.store, session.options
        connection = session.app.sync.connection(session)
        file, migration = store.file, Migration.of(store)
        start = SessionStart(
            latest_version=store.snapshot.version,
            file_ident=file.ident if file else 0,
            salt=file.salt if file else 0,
            progress=to_session(store.progress),
            queries=session.subscriptions.queries() if options.flexible else (),
            partition=options.partition,
            schema_version=options.schema_version,
            session_reason=self._reason,
            migrated_partition=options.migrated_partition,
            sentinel=migration.sentinel if migration is not None and options.partition is None else 0,
            may_upload=options.may_upload,
        )
        self._told_query = max((q.version for q in start.queries), default=0)
        self.connection = connection
        self.machine = machine = connection.machine.add_session(start, PendingList(store.pending), time.monotonic())
        self._number = machine.number
        connection.sessions[machine.number] = session
        session.waits.renumber(machine.request_mark)
        if connection.machine.is_connected:
            session.patience.connected()
            if session.transfer.phase != "done":
                session.transfer = session.transfer.after(phase="download")
        elif connection.is_opening:
            session.phase_changed(connection.phase)
        connection.pump()

    def look(self) -> None:
        """Tell the machine of local commits and new subscription sets."""
        session, machine, connection = self.session, self.machine, self.connection
        if machine is None or connection is None or machine.is_ended:
            return
        if session.options.flexible and session.subscriptions.latest.version > self._told_query:
            for found in session.subscriptions.queries():
                if found.version > self._told_query:
                    self._told_query = found.version
                    machine.new_query_set(found)
        machine.local_changes(session.store.snapshot.version)
        connection.pump()

    def pump(self) -> None:
        """Carry out what the machine wants after a call into it."""
        if self.connection is not None:
            self.connection.pump()

    def unbind(self) -> None:
        """Have the machine say goodbye."""
        if self.machine is not None:
            self.machine.unbind(time.monotonic())
            self.pump()

    def resume(self) -> None:
        """Bind a suspended machine again."""
        if self.machine is not None:
            self.machine.resume(time.monotonic())
            self.pump()

    def reconnect(self) -> None:
        """Skip the back-off, of the connection and of a session that waits to bind again, in whichever process."""
        if self.following is not None:
            self.following.reconnect()
        if self.machine is not None and self.machine.retry_at is not None:
            self.machine.resume(time.monotonic())
        if self.connection is not None:
            self.connection.machine.reconnect(time.monotonic())
            self.connection.pump()

    def forget(self) -> None:
        """Let go of the machine."""
        connection, self.machine = self.connection, None
        if connection is not None:
            connection.sessions.pop(self._number, None)

    def release(self) -> None:
        """Let another process lead."""
        if self._leader.is_locked:
            self._leader.release(force=True)

    def detach(self) -> None:
        """Let go of the machine for a client reset; see :meth:`SyncSession.detach`."""
        self.is_resetting = True
        machine, connection = self.machine, self.connection
        self.forget()
        if machine is not None and connection is not None:
            if not machine.is_ended:
                machine.unbind(time.monotonic())
            connection.pump()

    def rebind(self, reason: int = 1) -> None:
        """Bind again, by default after a client reset, with the fresh copy's number."""
        self._adapt()
        self._reason = reason
        self._bind()
