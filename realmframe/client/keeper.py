"""Access tokens are refreshed before they end, for as long as their user syncs.

A websocket keeps the token it was opened with, so nothing would notice that a token has ended, or that the server no
longer knows the user. The keeper asks for a new one when nine tenths of a token's life are over: a reconnection then
needs no request, and a user who was revoked is logged out here within the life of a token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from realmframe.client.loop import sync_loop
from realmframe.client.tokens import read_token
from realmframe.errors import RealmError

if TYPE_CHECKING:
    from realmframe.client.app import App

log: Final = logging.getLogger("realmframe.client")

#: Seconds between two looks at most: a machine that slept, or whose clock was set, is noticed.
LOOK_SECONDS: Final = 15.0
#: Seconds until the next try after one that failed.
RETRY_SECONDS: Final = 30.0


class TokenKeeper:
    """Refreshes the tokens of an app's users; lives in the sync thread.

    Parameters
    ----------
    app : App
    is_syncing : callable
        Whether a user has a session that wants to sync.
    """

    def __init__(self, app: App, is_syncing: Callable[[str], bool]) -> None:
        self._app, self._is_syncing = app, is_syncing
        self._users: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, user_id: str) -> None:
        """Keep a user's token good for as long as they sync."""
        self._users.setdefault(user_id, 0.0)
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._task = sync_loop().spawn(self._run(), f"realmframe-tokens-{self._app.id}")

    async def _run(self) -> None:
        wait = 0.0
        while self._users:
            await asyncio.sleep(wait)
            wait = await self.look()

    async def look(self) -> float:
        """Refresh what is due by the app's clock; give the seconds until the next look."""
        wait = LOOK_SECONDS
        for user_id, not_before in list(self._users.items()):
            now = self._app.clock()
            record = self._app.metadata.get(user_id)
            if record is None or not record.is_valid or not self._is_syncing(user_id):
                del self._users[user_id]
                continue
            token = record.access_token or ""
            due = read_token(token).refresh_at
            if due is None:
                continue
            if max(due, not_before) <= now:
                await self._refresh(user_id, token, now)
                record = self._app.metadata.get(user_id)
                due = read_token(record.access_token).refresh_at if record and record.access_token else None
            if due is not None:
                wait = min(wait, max(due, self._users[user_id]) - now)
        return wait

    async def _refresh(self, user_id: str, token: str, now: float) -> None:
        try:
            fresh = read_token(await self._app.access_token(user_id, stale=token))
            # By a clock that is ahead of the server's, the new one has ended already.
            self._users[user_id] = now + max(RETRY_SECONDS, fresh.life * 0.9) if fresh.is_due(now) else 0.0
        except RealmError as fault:  # who was refused is logged out by now
            log.info("app %s: the token of user %s could not be refreshed: %s", self._app.id, user_id, fault.message)
            self._users[user_id] = now + RETRY_SECONDS
