"""The query sets of one client session: which is in force, which is sent next, and how they move on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from realmframe.errors import LocalProtocolError, RemoteProtocolError
from realmframe.session import events as ev
from realmframe.session.start import QuerySet
from realmframe.session.subscriptions import ACTIVE_STATES, PENDING_STATES, State, Step, next_state


class QuerySets:
    """The set in force and all newer ones, by version.

    Parameters
    ----------
    number : int
        The session's.
    sets : iterable of QuerySet
        Version 0 is added if none of them is in force.
    emit : callable
        Is told of every change of a state.

    Attributes
    ----------
    sent : int
        Version of the newest one that was said to the server in this binding; -1: none.
    """

    def __init__(self, number: int, sets: tuple[QuerySet, ...], emit: Callable[[Any], None]) -> None:
        self._number, self._emit = number, emit
        self._sets = {s.version: s for s in sets}
        if not any(s.state in ACTIVE_STATES for s in self._sets.values()):
            self._sets.setdefault(0, QuerySet())
        self.sent = -1

    @property
    def all(self) -> tuple[QuerySet, ...]:
        """All of them."""
        return tuple(self._sets.values())

    @property
    def active(self) -> QuerySet:
        """The newest one in force."""
        in_force = [s for s in self._sets.values() if s.state in ACTIVE_STATES]
        return max(in_force, key=lambda s: s.version, default=QuerySet())

    @property
    def next_to_send(self) -> QuerySet | None:
        """The oldest one whose QUERY has to be sent."""
        found = [s for s in self._sets.values() if s.version > self.sent and s.state in PENDING_STATES]
        return min(found, key=lambda s: s.version, default=None)

    def add(self, query_set: QuerySet) -> None:
        """Take one that was just committed.

        Raises
        ------
        LocalProtocolError
            If it is not newer than all others.
        """
        if query_set.version <= max(self._sets):
            raise LocalProtocolError(f"Query version {query_set.version} is not above {max(self._sets)}.")
        self._sets[query_set.version] = query_set

    def check(self, version: int, what: str) -> None:
        """Raise a RemoteProtocolError if the server speaks of a version that does not exist."""
        if version not in self._sets:
            raise RemoteProtocolError(f"The server {what} query version {version}, which does not exist.")

    def step(self, version: int, step: Step, message: str = "") -> None:
        """Move one on; the last batch of a bootstrap supersedes all older ones."""
        old = self._sets.get(version)
        if old is None:  # superseded while its bootstrap was being integrated
            return
        state = next_state(old.state, step, version)
        self._sets[version] = replace(old, state=state)
        if state is not old.state:
            self._emit(ev.QueryStateChanged(self._number, version, str(state), message))
        if step is Step.LAST_BATCH:
            for overtaken in [v for v in self._sets if v < version]:
                del self._sets[overtaken]
                self._emit(ev.QueryStateChanged(self._number, overtaken, str(State.SUPERSEDED)))

    def mark_reached(self) -> None:
        """Note that everything of the one in force is here."""
        active = self.active
        if active.state is State.AWAITING_MARK:
            self.step(active.version, Step.MARK)
