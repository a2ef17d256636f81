"""The connections of an app, shared by the sessions of each user."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from realmframe.client.keeper import TokenKeeper
from realmframe.client.loop import sync_loop
from realmframe.errors import AuthError
from realmframe.store.forks import loading

if TYPE_CHECKING:
    from realmframe.client.app import App
    from realmframe.client.connection import Connection
    from realmframe.client.sync import SyncSession


class SyncClient:
    """The connections of one app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._shared: dict[tuple[str, bool], Connection] = {}
        #: Without multiplexing: they go with their session.
        self._own: weakref.WeakKeyDictionary[SyncSession, Connection] = weakref.WeakKeyDictionary()
        self._sessions: weakref.WeakSet[SyncSession] = weakref.WeakSet()
        self.keeper = TokenKeeper(app, self._is_syncing)

    def add(self, session: SyncSession) -> None:
        """Know a session, to stop it with its user."""
        self._sessions.add(session)

    def connection(self, session: SyncSession) -> Connection:
        """*loop* Give the connection that a session shares, or has for itself without multiplexing."""
        with loading:
            from realmframe.client.connection import Connection  # websockets are loaded with the first session

        user, flexible = session.options.user_id, session.options.flexible
        self.keeper.watch(user)
        if self._app.multiplex_sessions:
            if (user, flexible) not in self._shared:
                self._shared[user, flexible] = Connection(self._app, user, flexible)
            return self._shared[user, flexible]
        if session not in self._own:
            self._own[session] = Connection(self._app, user, flexible)
        return self._own[session]

    def connections(self) -> list[Connection]:
        """List the connections there are, open or not."""
        return [*self._shared.values(), *self._own.values()]

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
