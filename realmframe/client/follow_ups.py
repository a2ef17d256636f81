"""What an error of a session or its connection leads to: try again, refresh, reset, stop."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from realmframe.client.loop import sync_loop
from realmframe.client.migration import Migration
from realmframe.client.reset import ClientReset
from realmframe.errors import AuthError, ClientResetError, NetworkError, RealmError, SyncError
from realmframe.session import events as ev
from realmframe.session.backoff import BackOff
from realmframe.session.rules import SCHEMA_VERSION_CHANGED
from realmframe.wire import Action

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession


class FollowUps:
    """Acts on the errors of one session; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession
    """

    def __init__(self, session: SyncSession) -> None:
        self.session = session
        self._newest: ClientReset | None = None
        self._reset_task: asyncio.Task[None] | None = None
        #: Between two refreshes that the server asks for without any progress in between.
        self._refreshes = BackOff()
        self._hurry: asyncio.Event | None = None

    def act(self, event: ev.SessionError) -> None:
        """Do what an error asks for."""
        machine = self.session.binding.machine
        if machine is not None and machine.is_suspended:
            self.session.caught_up = False
        self._FOLLOW_UPS.get(event.follow_up, FollowUps._stopped)(self, event)

    @property
    def is_current(self) -> bool:
        """Whether it is the client reset that asks."""
        return self._reset_task is not None and self._reset_task is asyncio.current_task()

    async def cancel_reset(self) -> None:
        """End a client reset that is under way, unless it is the one that asks."""
        task = self._reset_task
        if task is not None and not self.is_current:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _retried(self, event: ev.SessionError) -> None:
        session = self.session
        error = _sync_error(event)
        session.last_error = error
        if event.is_reported:
            session.report(error)
        session.patience.trouble()

    def _stopped(self, event: ev.SessionError) -> None:
        session = self.session
        error = _sync_error(event)
        if event.is_reported:
            session.fail(error)
        else:
            session.last_error = error

    def _logged_out(self, event: ev.SessionError) -> None:
        session = self.session
        session.fail(_sync_error(event))
        session.app.expel(session.options.user_id)

    def _delete_file(self, event: ev.SessionError) -> None:
        session = self.session
        session.store.set_extra(file_action={"action": "delete"})
        session.fail(_sync_error(event))

    def _reset(self, event: ev.SessionError) -> None:
        self.begin_reset(event.message or event.error, event.code, event.action, event.log_url)

    def _migrate(self, event: ev.SessionError) -> None:
        query, options = event.body.get("partitionQuery"), self.session.options
        if options.flexible or options.partition is None or not isinstance(query, str) or not query:
            self._broken(event, "asks a realm to migrate to Flexible Sync that cannot, or does not say how")
            return
        self.begin_reset(event.message, event.code, event.action, event.log_url, Migration(query, options.partition))

    def _revert(self, event: ev.SessionError) -> None:
        options = self.session.options
        if options.migrated_partition is None or options.partition is None:
            self._broken(event, "asks a realm to go back to its partition that has none")
            return
        self.begin_reset(event.message, event.code, event.action, event.log_url)

    def _schema_changed(self, event: ev.SessionError) -> None:
        """Tell of a schema that the realm cannot be turned into in place; with 236 its changes can still go up."""
        session, goes_on = self.session, event.code == SCHEMA_VERSION_CHANGED
        error = SyncError(
            f"The server has another version of the schema than this realm: {event.message or event.error}.",
            code=event.code,
            action=event.action,
            is_fatal=not goes_on,
            hint="Upload what is left, delete the realm's files, and open it anew.",
        )
        if goes_on:
            session.last_error = error
            session.report(error)
        else:
            session.fail(error)

    def _broken(self, event: ev.SessionError, what: str) -> None:
        text = f"The server {what}: {event.error}, code {event.code}."
        self.session.fail(SyncError(text, code=event.code, action=event.action, is_fatal=True))

    def begin_reset(
        self, message: str, code: int, action: str, log_url: str = "", migration: Migration | None = None
    ) -> None:
        """Begin a client reset, unless one is under way; what is asked of its result follows when it is over."""
        session = self.session
        text = f"The server asks for a client reset: {message}"
        error = ClientResetError(text, code=code, action=action, is_fatal=True, log_url=log_url)
        before = self._reset_task
        if before is not None and not before.done() and self._newest is not None and not self._newest.is_bound_again:
            return
        self._newest = ClientReset(session, error, migration)
        work = session.guarded(self._reset_after(before, self._newest))
        self._reset_task = sync_loop().spawn(work, f"realmframe-reset-{session.store.path.name}")

    @staticmethod
    async def _reset_after(before: asyncio.Task[None] | None, reset: ClientReset) -> None:
        """Let the application hear the end of the reset before, then do this one."""
        if before is not None and not before.done():
            await asyncio.gather(before, return_exceptions=True)
        await reset.run()

    def _refresh_user(self, _event: ev.SessionError) -> None:
        sync_loop().spawn(self.session.guarded(self._refresh_and_resume(ask_location=False)), "realmframe-refresh")

    def _refresh_location(self, _event: ev.SessionError) -> None:
        sync_loop().spawn(self.session.guarded(self._refresh_and_resume(ask_location=True)), "realmframe-refresh")

    async def _refresh_and_resume(self, *, ask_location: bool) -> None:
        """Get what the server asks for, however long it takes: without it, binding again would be refused again.

        The first time at once. What is asked for again has not helped, so that waits longer and longer.
        """
        session, machine = self.session, self.session.binding.machine
        user = session.app.metadata.get(session.options.user_id)
        stale = user.access_token if user else None
        while True:
            await self._wait_for_turn()
            if session.binding.machine is not machine or session.fatal_error is not None:
                return
            try:
                if ask_location:
                    await session.app.services.location(refresh=True)
                await session.app.access_token(session.options.user_id, stale=stale)
            except AuthError:
                raise
            except RealmError as fault:
                session.last_error = fault
            else:
                session.binding.resume()
                return

    async def _wait_for_turn(self) -> None:
        delay = self._refreshes.next_delay(random)  # 0 without a reason
        self._refreshes.update("refresh")
        if delay:
            hurry = self._hurry = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(hurry.wait(), delay)

    def progressed(self) -> None:
        """*loop* Hear that the server goes on with the session: what it asked for has helped."""
        self._refreshes.reset()

    def hurry(self) -> None:
        """*loop* Do not wait any longer before the next refresh."""
        if self._hurry is not None:
            self._hurry.set()

    def connection_failed(self, event: ev.ConnectionFailed, cause: RealmError | None) -> None:
        """*loop* Hear that the connection could not be opened, or ended."""
        session = self.session
        text = event.message or f"The connection failed ({event.error})."
        error: RealmError = cause or NetworkError(text)
        if event.code and event.is_fatal:  # the server's own words, such as that the app syncs in the other mode
            error = SyncError(f"{text} ({event.error}, code {event.code})", code=event.code, is_fatal=True)
        session.last_error = error
        if event.follow_up is ev.FollowUp.CLIENT_RESET:
            self.begin_reset(event.message, event.code, Action.CLIENT_RESET)
        elif event.is_fatal:
            session.fail(error)
        else:
            if event.is_reported:
                session.report(error)
            session.patience.trouble()

    def protocol_failed(self, error: RealmError) -> None:
        """*loop* Hear that the server broke the protocol."""
        session = self.session
        session.last_error = error
        session.report(error)
        session.patience.trouble()

    #: What each follow-up of an error leads to; what is missing stops the session.
    _FOLLOW_UPS: ClassVar[dict[ev.FollowUp, Callable[[FollowUps, ev.SessionError], None]]] = {
        ev.FollowUp.NOTHING: _retried,
        ev.FollowUp.RETRY: _retried,
        ev.FollowUp.STOP: _stopped,
        ev.FollowUp.DELETE_FILE: _delete_file,
        ev.FollowUp.CLIENT_RESET: _reset,
        ev.FollowUp.CLIENT_RESET_NO_RECOVERY: _reset,
        ev.FollowUp.MIGRATE_TO_FLX: _migrate,
        ev.FollowUp.REVERT_TO_PBS: _revert,
        ev.FollowUp.MIGRATE_SCHEMA: _schema_changed,
        ev.FollowUp.LOG_OUT: _logged_out,
        ev.FollowUp.REFRESH_USER: _refresh_user,
        ev.FollowUp.REFRESH_LOCATION: _refresh_location,
    }


def _sync_error(event: ev.SessionError) -> SyncError | AuthError:
    message = f"The server ended the session: {event.message or event.error} ({event.error}, code {event.code})."
    return SyncError(message, code=event.code, action=event.action, is_fatal=event.is_fatal, log_url=event.log_url)
