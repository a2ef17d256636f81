"""Who waits for a session, and when each wait ends. Everything here runs in the sync thread.

============== ======================================= ==============================
waits for      ends well when                          ends badly when
============== ======================================= ==============================
download       its MARK is answered and integrated,    the session fails or closes
               here or by the process that syncs
upload         no older local change is unacknowledged the session fails or closes
subscriptions  the set is complete or superseded       so, or the server refuses the set
============== ======================================= ==============================

With cancel_waits_on_non_fatal_errors a wait also ends with a non-fatal error, once the app's time-out has passed: see
:mod:`.patience`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from realmframe.client.following import Ask
from realmframe.client.subscriptions import DONE, StoredSubscriptions
from realmframe.errors import QueryError, RealmError
from realmframe.session.subscriptions import State

if TYPE_CHECKING:
    from realmframe.store import RealmStore


@dataclass(slots=True, eq=False)
class Wait:
    """Somebody who waits.

    Attributes
    ----------
    kind : str
        ``download``, ``upload`` or ``subscriptions``.
    target : int
        Number of a MARK (0: none asked for yet), a client version, or a query version.
    begun : float
        When, by the loop's clock.
    ask : Ask or None
        For a download: the question to the process that syncs, if that is another one.
    """

    kind: str
    target: int
    future: asyncio.Future[None]
    begun: float
    ask: Ask | None = None

    def succeed(self) -> None:
        """End it well."""
        if not self.future.done():
            self.future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        if not self.future.done():
            self.future.set_exception(error)


class Waits:
    """All waits of one session.

    Parameters
    ----------
    store : RealmStore
    subscriptions : StoredSubscriptions
    """

    def __init__(self, store: RealmStore, subscriptions: StoredSubscriptions) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._found: list[Wait] = []

    def add(self, kind: str, target: int) -> Wait:
        """Begin to wait."""
        loop = asyncio.get_running_loop()
        wait = Wait(kind, target, loop.create_future(), loop.time())
        self._found.append(wait)
        return wait

    def remove(self, wait: Wait) -> None:
        """Forget a wait."""
        if wait in self._found:
            self._found.remove(wait)
        _withdraw(wait)

    def renumber(self, request_mark: Callable[[], int]) -> None:
        """Ask a new binding for the MARKs that are waited for."""
        for wait in self._found:
            if wait.kind == "download":
                wait.target = request_mark()

    def marked(self, number: int) -> None:
        """Note that all MARKs up to this number are answered and integrated."""
        for wait in self._found:
            if wait.kind == "download" and 0 < wait.target <= number:
                wait.succeed()

    def settle(self) -> None:
        """End the waits whose condition holds."""
        pending: list[int] | None = None
        for wait in self._found:
            if wait.future.done():
                continue
            if wait.kind == "upload":
                if pending is None:
                    pending = [p.version for p in self._store.pending()]
                if not any(version <= wait.target for version in pending):
                    wait.succeed()
            elif wait.kind == "subscriptions":
                self._settle_subscriptions(wait)

    def _settle_subscriptions(self, wait: Wait) -> None:
        state = self._subscriptions.state_of(wait.target)
        if state in DONE:
            wait.succeed()
        elif state is State.ERROR:
            said = self._subscriptions.error_of(wait.target)
            wait.fail(QueryError(f"The server refused the subscriptions: {said}.", kind="other"))

    def answered(self) -> list[Wait]:
        """List the downloads of which the process that syncs has said that they are done."""
        return [w for w in self._found if w.ask is not None and w.ask.is_answered]

    def settle_as_follower(self, answered: Iterable[Wait], realm: Path) -> None:
        """End waits of a process that does not sync itself, and put the questions of new ones."""
        self.settle()
        for wait in answered:
            wait.succeed()
        for wait in self._found:
            if wait.kind == "download" and wait.ask is None:
                wait.ask = Ask.put(realm)

    def withdraw(self) -> None:
        """Take back all questions: this process syncs now."""
        for wait in self._found:
            _withdraw(wait)

    @property
    def oldest(self) -> float | None:
        """When the oldest wait that goes on began; None if there is none."""
        return min((wait.begun for wait in self._found if not wait.future.done()), default=None)

    def fail(self, error: RealmError, *, begun_before: float = float("inf")) -> None:
        """End all waits that began before a time with an error; all by default."""
        for wait in self._found:
            if wait.begun <= begun_before:
                wait.fail(error)


def _withdraw(wait: Wait) -> None:
    if wait.ask is not None:
        wait.ask.withdraw()
        wait.ask = None
