"""When waits end with an error that is not fatal: ``cancel_waits_on_non_fatal_errors``.

A session is in trouble from the first error, or from when it has no connection, until the server gives a sign of
progress: a connection where there was no error before, else a download, an acknowledgement or the answer to a MARK. A
wait that has lasted for the App's time-out while there was trouble all along ends with the last error. So a blip in a
long download cancels nothing, and a server that takes connections only to drop them does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from realmframe.errors import NetworkError, RealmError

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession


class Patience:
    """The patience of those who wait for one session; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession
    """

    def __init__(self, session: SyncSession) -> None:
        self._session = session
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def trouble(self) -> None:
        """Note an error, or that there is no connection."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        self.arm()

    def calm(self) -> None:
        """Note that the server makes progress."""
        self._since = None
        self._stop_timer()

    def connected(self) -> None:
        """Note that there is a connection, which ends the trouble if no error came before it."""
        if self._session.last_error is None:
            self.calm()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def arm(self) -> None:
        """Set the timer to the wait that ends first; call after a wait has begun."""
        self._stop_timer()
        session = self._session
        oldest = session.waits.oldest
        if self._since is None or oldest is None or not session.options.cancel_waits:
            return
        due = max(self._since, oldest) + session.app.timeout
        self._timer = asyncio.get_running_loop().call_at(due, self._end)

    def _end(self) -> None:
        session = self._session
        self._timer = None
        if self._since is not None:
            limit = session.app.timeout
            now = asyncio.get_running_loop().time()
            if now >= self._since + limit:
                session.waits.fail(self._error(), begun_before=now - limit)
        self.arm()

    def _error(self) -> RealmError:
        session = self._session
        return session.last_error or NetworkError(
            f"The server at {session.app.base_url} could not be reached within {session.app.timeout:g} s.",
            hint="cancel_waits_on_non_fatal_errors=False waits on; sync goes on in the background.",
        )
