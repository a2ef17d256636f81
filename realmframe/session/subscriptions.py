"""Subscription sets: immutable, versioned, with states that only move along a literal table.

A realm has one set in force (``active``), maybe newer ones on their way (``pending``), and no older ones: a set that
was overtaken is superseded and forgotten. Version 0 is the empty set that every realm begins with.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from realmframe.errors import LocalProtocolError, RemoteProtocolError, UsageError


class State(StrEnum):
    """Where a subscription set stands."""

    UNCOMMITTED = "uncommitted"
    PENDING = "pending"
    BOOTSTRAPPING = "bootstrapping"
    AWAITING_MARK = "awaiting_mark"
    COMPLETE = "complete"
    ERROR = "error"
    SUPERSEDED = "superseded"


class Step(StrEnum):
    """What happens to a subscription set."""

    COMMIT = "commit"
    FIRST_BATCH = "first batch"
    LAST_BATCH = "last batch"
    MARK = "mark"
    QUERY_ERROR = "query error"
    OVERTAKEN = "overtaken"


#: (state, step) to the next state. What is missing is a fault of the server (or of the caller, for COMMIT).
TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = {
    (State.UNCOMMITTED, Step.COMMIT): State.PENDING,
    (State.PENDING, Step.FIRST_BATCH): State.BOOTSTRAPPING,
    (State.PENDING, Step.QUERY_ERROR): State.ERROR,
    (State.PENDING, Step.OVERTAKEN): State.SUPERSEDED,
    (State.BOOTSTRAPPING, Step.FIRST_BATCH): State.BOOTSTRAPPING,
    (State.BOOTSTRAPPING, Step.LAST_BATCH): State.AWAITING_MARK,
    (State.BOOTSTRAPPING, Step.QUERY_ERROR): State.ERROR,
    (State.BOOTSTRAPPING, Step.OVERTAKEN): State.SUPERSEDED,
    (State.AWAITING_MARK, Step.MARK): State.COMPLETE,
    # a bootstrap that the server began: the data is applied, the state stays
    (State.AWAITING_MARK, Step.FIRST_BATCH): State.AWAITING_MARK,
    (State.AWAITING_MARK, Step.LAST_BATCH): State.AWAITING_MARK,
    (State.AWAITING_MARK, Step.QUERY_ERROR): State.ERROR,
    (State.AWAITING_MARK, Step.OVERTAKEN): State.SUPERSEDED,
    (State.COMPLETE, Step.FIRST_BATCH): State.COMPLETE,
    (State.COMPLETE, Step.LAST_BATCH): State.COMPLETE,
    (State.COMPLETE, Step.MARK): State.COMPLETE,
    (State.COMPLETE, Step.OVERTAKEN): State.SUPERSEDED,
    (State.ERROR, Step.QUERY_ERROR): State.ERROR,
    (State.ERROR, Step.OVERTAKEN): State.SUPERSEDED,
    (State.SUPERSEDED, Step.OVERTAKEN): State.SUPERSEDED,
}
#: The states of a set that the server already answers with.
ACTIVE_STATES: Final = frozenset({State.AWAITING_MARK, State.COMPLETE})
#: The states of a set whose QUERY has to be sent, or sent again.
PENDING_STATES: Final = frozenset({State.PENDING, State.BOOTSTRAPPING})


def next_state(state: State, step: Step, version: int) -> State:
    """Take one step.

    Raises
    ------
    RemoteProtocolError
        If the server cannot do that to a set in this state.
    """
    found = TRANSITIONS.get((state, step))
    if found is None:
        raise RemoteProtocolError(f"The server sent a {step} for query version {version}, which is {state}.")
    return found


@dataclass(frozen=True, slots=True)
class Subscription:
    """One query of a set.

    Attributes
    ----------
    id : str
        24 hexadecimal digits, given by the app.
    name : str or None
    object_class : str
    query : str
        In the normal form that is sent, such as ``age > 35 `` (with its trailing space).
    created_at, updated_at : int
        Milliseconds since 1970-01-01 UTC.
    """

    id: str
    name: str | None
    object_class: str
    query: str
    created_at: int
    updated_at: int

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "class": self.object_class,
            "query": self.query,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Subscription:
        """Read what ``to_json`` wrote."""
        times = int(body["created_at"]), int(body["updated_at"])
        return cls(str(body["id"]), body["name"], str(body["class"]), str(body["query"]), *times)


@dataclass(frozen=True, slots=True)
class SubscriptionSet:
    """All subscriptions of a realm at one version.

    Attributes
    ----------
    version : int
    state : State
    subscriptions : tuple of Subscription
        In the order in which they were added.
    snapshot_version : int
        The realm's version at which the set was committed: what is older is uploaded before its QUERY.
    error : str or None
        What the server said of it.
    """

    version: int = 0
    state: State = State.PENDING
    subscriptions: tuple[Subscription, ...] = ()
    snapshot_version: int = 0
    error: str | None = None

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self.subscriptions)

    def __len__(self) -> int:
        return len(self.subscriptions)

    def find_by_name(self, name: str) -> Subscription | None:
        """Find the subscription of a name."""
        return next((s for s in self.subscriptions if s.name == name), None)

    def find(self, object_class: str, query: str) -> Subscription | None:
        """Find the first subscription to a class with this query text."""
        return next((s for s in self.subscriptions if (s.object_class, s.query) == (object_class, query)), None)

    @property
    def classes(self) -> frozenset[str]:
        """The classes that objects may be written to."""
        return frozenset(s.object_class for s in self.subscriptions)

    def after(self, step: Step, error: str | None = None) -> SubscriptionSet:
        """Give the set after one step; see :data:`TRANSITIONS`."""
        return replace(self, state=next_state(self.state, step, self.version), error=error or self.error)

    def update(self) -> MutableSubscriptionSet:
        """Begin the next version."""
        return MutableSubscriptionSet(self)

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {
            "version": self.version,
            "state": str(self.state),
            "snapshot_version": self.snapshot_version,
            "error": self.error,
            "subscriptions": [s.to_json() for s in self.subscriptions],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> SubscriptionSet:
        """Read what ``to_json`` wrote.

        Raises
        ------
        KeyError, ValueError, TypeError
            If it is something else.
        """
        found = tuple(Subscription.from_json(s) for s in body["subscriptions"])
        return cls(int(body["version"]), State(body["state"]), found, int(body["snapshot_version"]), body.get("error"))


def query_body(subscriptions: Iterable[Subscription], join: Callable[[Sequence[str]], str]) -> dict[str, str]:
    """Write a set as QUERY and IDENT carry it: class to one query text, classes in order of their names.

    Parameters
    ----------
    subscriptions : iterable of Subscription
    join : callable
        Joins the distinct, sorted texts of one class: each in parentheses, ``OR`` between them.
    """
    texts: dict[str, set[str]] = {}
    for subscription in subscriptions:
        texts.setdefault(subscription.object_class, set()).add(subscription.query)
    return {name: join(sorted(texts[name])) for name in sorted(texts)}


def join_texts(texts: Sequence[str]) -> str:
    """Join the query texts of one class as the SDKs do."""
    return " OR ".join(f"({text})" for text in texts)


class MutableSubscriptionSet:
    """The next version of a set, being written. Not on the wire until ``commit``."""

    def __init__(self, base: SubscriptionSet) -> None:
        self._base = base
        self._found = list(base.subscriptions)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(tuple(self._found))

    def __len__(self) -> int:
        return len(self._found)

    @property
    def is_changed(self) -> bool:
        """Whether committing makes a difference."""
        return tuple(self._found) != self._base.subscriptions

    def add(
        self,
        object_class: str,
        query: str,
        *,
        new_id: str,
        now: int,
        name: str | None = None,
        throw_on_update: bool = False,
    ) -> Subscription:
        """Add a subscription, or change the query of the one with this name.

        Parameters
        ----------
        object_class : str
        query : str
            In normal form.
        new_id : str
            Used if it is a new one.
        now : int
            Milliseconds since 1970.
        name : str, optional
            Without a name, an equal unnamed query is the same subscription.
        throw_on_update : bool
            Refuse to change a named one.

        Raises
        ------
        UsageError
            If ``throw_on_update`` and the name has another query or class.
        """
        for i, old in enumerate(self._found):
            same = (old.object_class, old.query) == (object_class, query)
            if old.name != name or (name is None and not same):
                continue
            if throw_on_update and not same:
                hint = "Use another name, or leave out throw_on_update."
                raise UsageError(f"A subscription named {name!r} exists already with another query.", hint=hint)
            found = replace(old, object_class=object_class, query=query, updated_at=now)
            self._found[i] = found
            return found
        found = Subscription(new_id, name, object_class, query, now, now)
        self._found.append(found)
        return found

    def find_by_name(self, name: str) -> Subscription | None:
        """Find the subscription of a name."""
        return next((s for s in self._found if s.name == name), None)

    def find(self, object_class: str, query: str) -> Subscription | None:
        """Find the first subscription to a class with this query text."""
        return next((s for s in self._found if (s.object_class, s.query) == (object_class, query)), None)

    def remove(self, subscription: Subscription) -> bool:
        """Remove one; False if it was not there."""
        return self._keep(lambda s: s.id != subscription.id) > 0

    def remove_by_name(self, name: str) -> bool:
        """Remove the one with this name; False if there is none."""
        return self._keep(lambda s: s.name != name) > 0

    def remove_query(self, object_class: str, query: str) -> bool:
        """Remove the first one with this class and query; False if there is none."""
        found = self.find(object_class, query)
        return found is not None and self.remove(found)

    def remove_all(self, object_class: str | None = None, *, unnamed_only: bool = False) -> int:
        """Remove all, or all of a class, or all without a name; returns how many."""
        return self._keep(
            lambda s: (
                (object_class is not None and s.object_class != object_class) or (unnamed_only and s.name is not None)
            )
        )

    def _keep(self, wanted: Callable[[Subscription], bool]) -> int:
        kept = [s for s in self._found if wanted(s)]
        gone = len(self._found) - len(kept)
        self._found = kept
        return gone

    def rebased(self, latest: SubscriptionSet) -> MutableSubscriptionSet:
        """Make the same changes to a set that somebody else committed meanwhile.

        What was removed here goes, what was changed here is changed there too (or is back, if it was removed there),
        and what was added here is added.
        """
        if latest.subscriptions == self._base.subscriptions:
            return self
        before = {s.id: s for s in self._base.subscriptions}
        kept = {s.id for s in self._found}
        made = MutableSubscriptionSet(latest)
        gone = before.keys() - kept
        made._keep(lambda s: s.id not in gone)
        for one in self._found:
            if before.get(one.id) != one:
                made._put(one)
        return made

    def _put(self, one: Subscription) -> None:
        for i, old in enumerate(self._found):
            same = (old.object_class, old.query) == (one.object_class, one.query)
            if old.id == one.id or (old.name == one.name and (one.name is not None or same)):
                self._found[i] = replace(one, id=old.id, created_at=old.created_at)
                return
        self._found.append(one)

    def commit(self, version: int, snapshot_version: int) -> SubscriptionSet:
        """Make the set immutable; give it to the store, then to the session.

        Parameters
        ----------
        version : int
            Above every version before.
        snapshot_version : int
            The realm's version that it is committed at.
        """
        if version <= self._base.version:
            raise LocalProtocolError(f"Subscription version {version} is not above {self._base.version}.")
        state = TRANSITIONS[State.UNCOMMITTED, Step.COMMIT]
        return SubscriptionSet(version, state, tuple(self._found), snapshot_version)


class SubscriptionStore:
    """All subscription sets of one realm: a value, every change gives a new one.

    Parameters
    ----------
    sets : iterable of SubscriptionSet
        Default: version 0, empty and pending.
    """

    __slots__ = ("_sets",)

    def __init__(self, sets: Iterable[SubscriptionSet] = ()) -> None:
        found = sorted(sets, key=lambda s: s.version) or [SubscriptionSet()]
        if len({s.version for s in found}) != len(found):
            raise LocalProtocolError("Two subscription sets have the same version.")
        self._sets = tuple(found)

    def __iter__(self) -> Iterator[SubscriptionSet]:
        return iter(self._sets)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubscriptionStore) and self._sets == tuple(other)

    def __hash__(self) -> int:
        return hash(self._sets)

    @property
    def latest(self) -> SubscriptionSet:
        """The newest set, whatever its state."""
        return self._sets[-1]

    @property
    def active(self) -> SubscriptionSet:
        """The set that is in force; IDENT carries it."""
        return next((s for s in reversed(self._sets) if s.state in ACTIVE_STATES), SubscriptionSet())

    @property
    def pending(self) -> tuple[SubscriptionSet, ...]:
        """Sets whose QUERY has to be sent, oldest first."""
        active = self.active.version
        return tuple(s for s in self._sets if s.state in PENDING_STATES and s.version > active)

    def get(self, version: int) -> SubscriptionSet | None:
        """Find a set; one that is gone (None) was superseded, if it ever was."""
        return next((s for s in self._sets if s.version == version), None)

    def state_of(self, version: int) -> State:
        """Say where a set stands; superseded if it is gone."""
        found = self.get(version)
        return State.SUPERSEDED if found is None else found.state

    def commit(self, changes: MutableSubscriptionSet, snapshot_version: int) -> SubscriptionStore:
        """Add the next version: the newest one there is, changed as these changes say."""
        made = changes.rebased(self.latest).commit(self.latest.version + 1, snapshot_version)
        return SubscriptionStore((*self._sets, made))

    def advance(self, version: int, state: State, error: str | None = None) -> SubscriptionStore:
        """Take over a state that the session reported (``QueryStateChanged``).

        A set that gets into force makes the older ones superseded: they are dropped.
        """
        changed = [replace(s, state=state, error=error or s.error) if s.version == version else s for s in self._sets]
        if state in ACTIVE_STATES:
            changed = [s for s in changed if s.version >= version]
        return SubscriptionStore(changed)

    def to_json(self) -> list[dict[str, Any]]:
        """Write all sets as JSON, oldest first."""
        return [s.to_json() for s in self._sets]

    @classmethod
    def from_json(cls, body: Iterable[Mapping[str, Any]]) -> SubscriptionStore:
        """Read what ``to_json`` wrote; an incomplete bootstrap begins anew, as it does after a restart."""
        found = [SubscriptionSet.from_json(s) for s in body]
        return cls(replace(s, state=State.PENDING) if s.state is State.BOOTSTRAPPING else s for s in found)


def unique_ids(prefix: int) -> Iterator[str]:
    """Make subscription ids: 24 hexadecimal digits each, of a number (16 digits) given and a counter."""
    return (f"{prefix:016x}{n:08x}" for n in itertools.count(1))
