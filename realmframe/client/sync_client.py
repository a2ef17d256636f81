"""The connections of an app, shared by the sessions of each user."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from realmframe.client.keeper import TokenKeeper
from realmframe.client.loop import sync_loop
from realmframe.errors import AuthError

if TYPE_CHECKING:
    from realmframe.client.app import App
    from realmframe.client.connection import Connection
    from realmframe.client.sync import SyncSession


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
