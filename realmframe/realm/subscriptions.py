"""The subscriptions of a realm: look, change, wait."""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from realmframe.client.blocking import block_on, wait_in_loop
from realmframe.errors import QueryError, UsageError
from realmframe.query import MAX_TEXT, parse, subscription_text
from realmframe.realm.schema import refuse_to_read
from realmframe.session.subscriptions import MutableSubscriptionSet as Changes
from realmframe.session.subscriptions import State
from realmframe.session.subscriptions import Subscription as Stored

if TYPE_CHECKING:
    from realmframe.realm.realm import Realm

EVERYTHING: Final = "TRUEPREDICATE"
_WAIT: Final = "The synchronisation of the subscriptions"
#: The SDK's words for the states that an app sees.
_PUBLIC: Final[dict[State, str]] = {
    State.UNCOMMITTED: "pending",
    State.PENDING: "pending",
    State.BOOTSTRAPPING: "pending",
    State.AWAITING_MARK: "pending",
    State.COMPLETE: "complete",
    State.ERROR: "error",
    State.SUPERSEDED: "superseded",
}


class Subscription:
    """One subscription.

    Attributes
    ----------
    id : str
    name : str or None
    class_name : str
    query : str
        In the normal form that servers get.
    created_at, updated_at : datetime
    """

    __slots__ = ("stored",)

    def __init__(self, stored: Stored) -> None:
        self.stored = stored

    id = property(lambda self: self.stored.id)
    name = property(lambda self: self.stored.name)
    class_name = property(lambda self: self.stored.object_class)
    query = property(lambda self: self.stored.query)
    created_at = property(lambda self: _time(self.stored.created_at))
    updated_at = property(lambda self: _time(self.stored.updated_at))

    def __repr__(self) -> str:
        name = f"{self.name}: " if self.name else ""
        return f"<Subscription {name}{self.class_name} where {self.query.strip()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subscription) and other.stored == self.stored

    def __hash__(self) -> int:
        return hash(self.stored.id)


def _time(ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC)


class MutableSubscriptionSet:
    """The subscriptions while they are being changed.

    Parameters
    ----------
    changes : session.MutableSubscriptionSet
    canonical : callable
        Checks a query on a class and gives its normal form.
    """

    def __init__(self, changes: Changes, canonical: Callable[..., str]) -> None:
        self._changes = changes
        self._canonical = canonical

    def __len__(self) -> int:
        return len(self._changes)

    def __iter__(self) -> Iterator[Subscription]:
        return (Subscription(s) for s in self._changes)

    def add(
        self,
        class_name: str,
        query: str = EVERYTHING,
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
            Without a name, an equal query that is there already is not added again.
        throw_on_update : bool
            Refuse to change a name that has another query.

        Raises
        ------
        QueryError
            For a query that cannot be parsed, or names what the class does not have.
        """
        stored = self._changes.add(
            class_name,
            self._canonical(class_name, query, *args),
            new_id=_new_id(),
            now=int(time.time() * 1000),
            name=name,
            throw_on_update=throw_on_update,
        )
        return Subscription(stored)

    def find_by_name(self, name: str) -> Subscription | None:
        """Find by name."""
        return _wrap(self._changes.find_by_name(name))

    def find_by_query(self, class_name: str, query: str = EVERYTHING, *args: Any) -> Subscription | None:
        """Find by class and query."""
        return _wrap(self._changes.find(class_name, self._canonical(class_name, query, *args)))

    def remove(self, which: str | Subscription) -> bool:
        """Remove by name, or one that was found; tell whether there was one."""
        if isinstance(which, Subscription):
            return self._changes.remove(which.stored)
        return self._changes.remove_by_name(which)

    remove_by_name = remove

    def remove_query(self, class_name: str, query: str = EVERYTHING, *args: Any) -> bool:
        """Remove by class and query; tell whether there was one."""
        text = self._canonical(class_name, query, *args) if query not in {s.query for s in self} else query
        return self._changes.remove_query(class_name, text)

    def remove_all(self, class_name: str | None = None) -> int:
        """Remove all, or all of a class; tell how many."""
        return self._changes.remove_all(class_name)

    def remove_unnamed(self) -> int:
        """Remove those without a name; tell how many."""
        return self._changes.remove_all(unnamed_only=True)


def _wrap(stored: Stored | None) -> Subscription | None:
    return None if stored is None else Subscription(stored)


def _new_id() -> str:
    return f"{int(time.time()):08x}{secrets.token_hex(8)}"


class SubscriptionSet:
    """The subscriptions of a realm, always as they are now."""

    def __init__(self, realm: Realm) -> None:
        self._realm = realm

    @property
    def _latest(self) -> Any:
        return self._realm.core.subscriptions.latest

    def __len__(self) -> int:
        return len(self._latest)

    def __iter__(self) -> Iterator[Subscription]:
        return (Subscription(s) for s in self._latest)

    def __repr__(self) -> str:
        return f"<{len(self)} subscription{'s' * (len(self) != 1)}, version {self.version}: {self.state}>"

    @property
    def version(self) -> int:
        """Version of the newest set."""
        return int(self._latest.version)

    @property
    def state(self) -> str:
        """``pending``, ``complete``, ``error`` or ``superseded``."""
        return _PUBLIC[self._latest.state]

    @property
    def error(self) -> str | None:
        """What the server said of a set in state error."""
        said = self._latest.error
        return None if said is None else str(said)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return len(self) == 0

    def find_by_name(self, name: str) -> Subscription | None:
        """Find by name."""
        return _wrap(self._latest.find_by_name(name))

    def find_by_query(self, class_name: str, query: str = EVERYTHING, *args: Any) -> Subscription | None:
        """Find by class and query."""
        return _wrap(self._latest.find(class_name, canonical_query(self._realm, class_name, query, *args)))

    @contextmanager
    def update(self, *, wait: bool = True, timeout: float | None = None) -> Iterator[MutableSubscriptionSet]:
        """Change the subscriptions: ``with realm.subscriptions.update() as subs:``.

        Parameters
        ----------
        wait : bool
            Leave only when the server has confirmed the set and its data is here; False leaves at once.
        timeout : float, optional
            Seconds to wait; for ever by default.

        Raises
        ------
        QueryError
            For a bad query, also one that the server refuses.
        WaitTimeoutError
            When the time has passed; synchronisation goes on.
        """
        realm = self._realm
        realm.need_open()
        if realm.core.session is None or not realm.core.session.options.flexible:
            raise UsageError("Only realms with Flexible Sync have subscriptions.")
        realm.check_changeable()
        stored = realm.core.subscriptions
        copy = stored.sets.latest.update()
        yield MutableSubscriptionSet(copy, lambda *query: canonical_query(realm, *query))
        if copy.is_changed or stored.is_new:
            stored.commit(copy)
            realm.core.session.wake()
        if wait:
            self.wait_for_synchronization(timeout)
            realm.refresh()

    def wait_for_synchronization(self, timeout: float | None = None) -> None:
        """Wait until the newest set is confirmed and its data is here.

        Raises
        ------
        QueryError
            If the server refuses it.
        WaitTimeoutError
            When `timeout` seconds have passed; synchronisation goes on.
        """
        session = self._realm.need_session()
        block_on(session, session.wait_subscriptions(), timeout, _WAIT)

    async def wait_for_synchronization_async(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as in the blocking form
        """Wait without blocking the caller's loop; as :meth:`wait_for_synchronization`."""
        session = self._realm.need_session()
        await wait_in_loop(session, session.wait_subscriptions(), timeout, _WAIT)


def canonical_query(realm: Realm, class_name: str, query: str = EVERYTHING, *args: Any) -> str:
    """Check a query on a class and give the normal form that servers get.

    A class that the realm does not know yet (its schema may still come from the server) is checked for syntax only.
    """
    parsed = parse(query, *args)
    schema = realm.core.store.snapshot.schema
    if class_name in schema:
        refuse_to_read(schema, class_name)
        parsed.bind(schema, class_name).check_flexible()
    elif realm.configuration.schema is not None:
        raise UsageError(
            f"The realm has no class {class_name!r} to subscribe to.", hint=f"It has {', '.join(schema) or 'none'}."
        )
    # What goes on the wire is each text in parentheses: those are put around it when the set is sent.
    text = str(subscription_text([parsed])[1:-1])
    if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT:
        raise QueryError(
            f"The query of a subscription to {class_name!r} is longer than {MAX_TEXT >> 10} kB.",
            hint="Ask by fewer values, or for a property that says the same.",
        )
    return text
