"""The subscription sets of a realm, kept in its store and shared by all threads that use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from realmframe.session.start import QuerySet
from realmframe.session.subscriptions import (
    PENDING_STATES,
    MutableSubscriptionSet,
    State,
    Subscription,
    SubscriptionSet,
    SubscriptionStore,
    join_texts,
    query_body,
)

if TYPE_CHECKING:
    from realmframe.store import RealmStore

#: States of a set at which a wait for it ends well.
DONE: Final = frozenset({State.COMPLETE, State.SUPERSEDED})


class StoredSubscriptions:
    """Reads and changes the sets of one store, one change at a time.

    Parameters
    ----------
    store : RealmStore
    """

    def __init__(self, store: RealmStore) -> None:
        self._store = store
        self._bootstrapping: int | None = None
        #: What was read last, and what it says: swapped in one step, so that reading takes no lock.
        self._known: tuple[object, SubscriptionStore] = (None, SubscriptionStore())

    @property
    def sets(self) -> SubscriptionStore:
        """All sets as they are now."""
        stored, known = self._store.subscriptions, self._known
        if stored is not known[0]:
            known = self._known = (stored, _read(stored))
        return known[1]

    @property
    def latest(self) -> SubscriptionSet:
        """The newest set, which is what the app sees; version 0 counts as complete."""
        latest = self.sets.latest
        if latest.version == 0:
            return replace(latest, state=State.COMPLETE)
        if latest.version == self._bootstrapping and latest.state is State.PENDING:
            return replace(latest, state=State.BOOTSTRAPPING)
        return latest

    @property
    def is_new(self) -> bool:
        """Whether no set was ever committed."""
        return self.sets.latest.version == 0

    def state_of(self, version: int) -> State:
        """Say where a set stands."""
        return State.COMPLETE if version == 0 else self.sets.state_of(version)

    def error_of(self, version: int) -> str | None:
        """Say what the server said of a set."""
        found = self.sets.get(version)
        return None if found is None else found.error

    def commit(
        self, changes: MutableSubscriptionSet, *, only_if_new: bool = False, only_if_changed: bool = False
    ) -> bool:
        """Make changes to the newest set, durably: what others committed meanwhile stays.

        Parameters
        ----------
        changes : MutableSubscriptionSet
        only_if_new : bool
            Do nothing if any set was ever committed.
        only_if_changed : bool
            Do nothing if the newest set asks for the same already.

        Returns
        -------
        bool
            Whether something was done.
        """
        done = list[bool]()

        def change(stored: Any) -> Any:
            sets = _read(stored)
            latest = sets.latest
            unwanted = only_if_new or (only_if_changed and _content(changes.rebased(latest)) == _content(latest))
            done.append(not (latest.version and unwanted))
            return sets.commit(changes, self._store.snapshot.version).to_json() if done[0] else stored

        self._store.set_subscriptions(change)
        return done[0]

    def advance(self, version: int, state: State, error: str | None = None) -> None:
        """Take over what the session reported."""
        if state is State.BOOTSTRAPPING:
            # Not worth a commit: after a restart the bootstrap begins anew.
            self._bootstrapping = version
            return
        if self._bootstrapping == version:
            self._bootstrapping = None

        def change(stored: Any) -> Any:
            sets = _read(stored)
            if sets.get(version) is None:
                return stored
            after = sets.advance(version, state, error)
            return stored if after == sets else after.to_json()

        if self.sets.get(version) is not None:
            self._store.set_subscriptions(change)

    def bootstrapped(self, version: int) -> Callable[[Any], Any]:
        """Give what :meth:`.RealmStore.integrate` stores with the data of a bootstrap: its set is in force."""

        def change(stored: Any) -> Any:
            sets = _read(stored)
            found = sets.get(version)
            is_first = found is not None and found.state in PENDING_STATES
            return sets.advance(version, State.AWAITING_MARK).to_json() if is_first else stored

        return change

    def queries(self) -> tuple[QuerySet, ...]:
        """Give what a session has to know when it begins."""
        return tuple(query_set(s) for s in self.sets)


def _content(subscriptions: Iterable[Subscription]) -> set[tuple[str | None, str, str]]:
    """Give what a set asks for, whenever it was asked."""
    return {(s.name, s.object_class, s.query) for s in subscriptions}


def _read(stored: Any) -> SubscriptionStore:
    return SubscriptionStore() if stored is None else SubscriptionStore.from_json(stored)


def query_set(found: SubscriptionSet) -> QuerySet:
    """Give a set in the session's form."""
    return QuerySet(found.version, found.snapshot_version, query_body(found, join_texts), found.state)
