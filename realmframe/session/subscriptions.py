"""Subscription sets: immutable, versioned, each in one state.

::

    uncommitted -> pending -> bootstrapping -> awaiting mark -> complete -> superseded
                      |             |               |               |
                      +-------------+------> error -+---------------+

A set is made by copying the newest one, changing the copy and committing it. When a set completes, older ones are
superseded. Version 0 is the empty set that every file begins with; it is complete.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from realmframe.errors import LocalProtocolError, UsageError

#: Joins the query texts of one class into what goes on the wire.
JoinTexts = Callable[[Sequence[str]], str]


class SetState(StrEnum):
    """State of a subscription set."""

    UNCOMMITTED = "uncommitted"
    PENDING = "pending"
    BOOTSTRAPPING = "bootstrapping"
    AWAITING_MARK = "awaiting mark"
    COMPLETE = "complete"
    ERROR = "error"
    SUPERSEDED = "superseded"

    @property
    def public(self) -> str:
        """The SDK's word for it: pending, complete, error or superseded."""
        return str(self) if self in (SetState.COMPLETE, SetState.ERROR, SetState.SUPERSEDED) else "pending"


_T = SetState
#: Which state may follow which.
TRANSITIONS: Final[dict[SetState, frozenset[SetState]]] = {
    _T.UNCOMMITTED: frozenset({_T.PENDING}),
    _T.PENDING: frozenset({_T.BOOTSTRAPPING, _T.AWAITING_MARK, _T.COMPLETE, _T.ERROR, _T.SUPERSEDED}),
    _T.BOOTSTRAPPING: frozenset({_T.AWAITING_MARK, _T.PENDING, _T.COMPLETE, _T.ERROR, _T.SUPERSEDED}),
    _T.AWAITING_MARK: frozenset({_T.COMPLETE, _T.ERROR, _T.SUPERSEDED}),
    _T.COMPLETE: frozenset({_T.SUPERSEDED}),
    _T.ERROR: frozenset({_T.SUPERSEDED, _T.PENDING}),
    _T.SUPERSEDED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """One query on one class.

    Attributes
    ----------
    id : str
    class_name : str
    query : str
        Canonical text of the query.
    name : str or None
    created_at, updated_at : datetime
        UTC.
    """

    id: str
    class_name: str
    query: str
    name: str | None
    created_at: dt.datetime
    updated_at: dt.datetime

    def to_json(self) -> dict[str, Any]:
        """Write for the store."""
        return {
            "id": self.id,
            "class": self.class_name,
            "query": self.query,
            "name": self.name,
            "created": self.created_at.isoformat(),
            "updated": self.updated_at.isoformat(),
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> Subscription:
        """Read what :meth:`to_json` wrote."""
        created, updated = dt.datetime.fromisoformat(form["created"]), dt.datetime.fromisoformat(form["updated"])
        return cls(form["id"], form["class"], form["query"], form["name"], created, updated)


@dataclass(frozen=True, slots=True)
class SubscriptionSet:
    """All subscriptions of a realm at one version.

    Attributes
    ----------
    version : int
    state : SetState
    subscriptions : tuple of Subscription
    error : str or None
        Why the server refused it.
    snapshot_version : int
        The realm's version when it was committed: what was written before goes to the server before it.
    """

    version: int = 0
    state: SetState = SetState.COMPLETE
    subscriptions: tuple[Subscription, ...] = ()
    error: str | None = None
    snapshot_version: int = 0

    def __len__(self) -> int:
        return len(self.subscriptions)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self.subscriptions)

    def moved(self, state: SetState, error: str | None = None) -> SubscriptionSet:
        """Return this set in another state.

        Raises
        ------
        LocalProtocolError
            If the table does not know the move.
        """
        if state is self.state:
            return self
        if state not in TRANSITIONS[self.state]:
            raise LocalProtocolError(f"A subscription set cannot go from {self.state} to {state}.")
        return replace(self, state=state, error=error)

    def find(self, name: str) -> Subscription | None:
        """Find by name."""
        return next((s for s in self.subscriptions if s.name == name), None)

    def covers(self, class_name: str) -> bool:
        """Whether any subscription is on a class, so that it may be written to."""
        return any(s.class_name == class_name for s in self.subscriptions)

    def query_body(self, join: JoinTexts) -> dict[str, str]:
        """Give what goes on the wire: class to joined query text."""
        texts: dict[str, list[str]] = {}
        for one in self.subscriptions:
            texts.setdefault(one.class_name, []).append(one.query)
        return {name: join(queries) for name, queries in sorted(texts.items())}

    def to_json(self) -> dict[str, Any]:
        """Write for the store."""
        return {
            "version": self.version,
            "state": str(self.state),
            "error": self.error,
            "snapshot": self.snapshot_version,
            "subscriptions": [s.to_json() for s in self.subscriptions],
        }

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> SubscriptionSet:
        """Read what :meth:`to_json` wrote."""
        listed = tuple(Subscription.from_json(s) for s in form["subscriptions"])
        return cls(form["version"], SetState(form["state"]), listed, form["error"], form["snapshot"])


@dataclass(slots=True)
class MutableSubscriptionSet:
    """A copy of a set that is being changed.

    Parameters
    ----------
    base : SubscriptionSet
    now : datetime
        UTC; becomes ``created_at`` and ``updated_at``.
    new_id : callable
        Gives an id for a new subscription.
    canonical : callable
        Checks a query on a class and gives its canonical text (QueryError if it cannot be used).
    """

    base: SubscriptionSet
    now: dt.datetime
    new_id: Callable[[], str]
    canonical: Callable[..., str]
    _items: list[Subscription] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._items = list(self.base.subscriptions)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._items))

    def add(
        self,
        class_name: str,
        query: str = "TRUEPREDICATE",
        *args: Any,
        name: str | None = None,
        throw_on_update: bool = False,
    ) -> Subscription:
        """Add a subscription, or change the query of the one with this name.

        Parameters
        ----------
        class_name : str
        query : str
            Realm Query Language; everything by default.
        *args
            Values for ``$0``, ``$1``...
        name : str, optional
            Without a name, a query that is there already is not added again.
        throw_on_update : bool
            Refuse to change the query of an existing name.
        """
        text = self.canonical(class_name, query, *args)
        for i, old in enumerate(self._items):
            if name is not None and old.name == name:
                return self._change(i, class_name, text, throw_on_update)
            if name is None and old.name is None and (old.class_name, old.query) == (class_name, text):
                return old
        new = Subscription(self.new_id(), class_name, text, name, self.now, self.now)
        self._items.append(new)
        return new

    def _change(self, i: int, class_name: str, text: str, throw_on_update: bool) -> Subscription:
        old = self._items[i]
        if (old.class_name, old.query) == (class_name, text):
            return old
        if throw_on_update:
            raise UsageError(f"A subscription named {old.name!r} exists with another query.")
        self._items[i] = replace(old, class_name=class_name, query=text, updated_at=self.now)
        return self._items[i]

    def _keep(self, keep: Callable[[Subscription], bool]) -> int:
        before = len(self._items)
        self._items = [s for s in self._items if keep(s)]
        return before - len(self._items)

    def remove(self, name: str) -> bool:
        """Remove by name; tell whether there was one."""
        return self._keep(lambda s: s.name != name) > 0

    def remove_query(self, class_name: str, query: str, *args: Any) -> bool:
        """Remove by class and query; tell whether there was one."""
        text = self.canonical(class_name, query, *args)
        return self._keep(lambda s: (s.class_name, s.query) != (class_name, text)) > 0

    def remove_subscription(self, subscription: Subscription) -> bool:
        """Remove one; tell whether it was there."""
        return self._keep(lambda s: s.id != subscription.id) > 0

    def remove_all(self, class_name: str | None = None) -> int:
        """Remove all, or all of a class; tell how many."""
        return self._keep(lambda s: class_name is not None and s.class_name != class_name)

    def remove_unnamed(self) -> int:
        """Remove those without a name; tell how many."""
        return self._keep(lambda s: s.name is not None)

    @property
    def changed(self) -> bool:
        """Whether anything differs from the set that it was copied from."""
        return tuple(self._items) != self.base.subscriptions

    def commit(self, snapshot_version: int) -> SubscriptionSet:
        """Give the new set, pending."""
        return SubscriptionSet(self.base.version + 1, _T.PENDING, tuple(self._items), None, snapshot_version)


def active_set(sets: Sequence[SubscriptionSet]) -> SubscriptionSet:
    """Find the newest set that is in force: complete, or waiting only for its MARK."""
    in_force = [s for s in sets if s.state in (_T.COMPLETE, _T.AWAITING_MARK)]
    return max(in_force, key=lambda s: s.version, default=SubscriptionSet())


def pending_sets(sets: Sequence[SubscriptionSet]) -> list[SubscriptionSet]:
    """List the sets that still have to be sent, oldest first."""
    waiting = [s for s in sets if s.state in (_T.PENDING, _T.BOOTSTRAPPING)]
    return sorted(waiting, key=lambda s: s.version)


def advance(
    sets: Sequence[SubscriptionSet], version: int, state: SetState, error: str | None = None
) -> list[SubscriptionSet]:
    """Move one set of several; a set that completes supersedes the older ones, which are then dropped."""
    moved = [s.moved(state, error) if s.version == version else s for s in sets]
    if state is _T.COMPLETE:
        moved = [s for s in moved if s.version >= version]
    return moved
