"""A realm of partition-based sync whose app moves to Flexible Sync, and back: the rules of the SDKs.

================== ============================ ====================================================================
the realm          the server says              the client does
================== ============================ ====================================================================
of a partition     MigrateToFLX (232), a query  a client reset with a flexible fresh copy, which subscribes to each
                                                class with the query; unsent changes are recovered or discarded as
                                                configured. From then on it syncs flexibly, and BIND names the
                                                partition, although the app opens it with the partition as before
migrated           RevertToPBS (234)            a client reset with a fresh copy of the partition; nothing of the
                                                migration is left
migrated           (opened flexibly)            what was not sent yet goes up as that of a migrated realm; then, with
                                                a set of subscriptions of its own, it becomes an ordinary flexible one
================== ============================ ====================================================================

That a realm is migrated is written in the same record as the reset's outcome, so there is no state in between. In mode
``manual`` unsent changes are recovered: there is nothing that the app could do by hand.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from realmframe.model import ClassKind, Schema
from realmframe.session.subscriptions import MutableSubscriptionSet, SubscriptionSet
from realmframe.store import RealmStore

if TYPE_CHECKING:
    from realmframe.client.options import SessionOptions

#: Where it is in the store's extra values.
MIGRATION: Final = "migration"
_PREFIX: Final = "flx_migrated_"


@dataclass(frozen=True, slots=True)
class Migration:
    """What is kept of a migration.

    Attributes
    ----------
    query : str
        What the server wants subscribed to of each class.
    partition : str
        The partition as extended JSON text.
    sentinel : int
        Version of the subscription set that ends it, for a realm opened flexibly; 0: none yet.
    """

    query: str
    partition: str
    sentinel: int = 0

    @classmethod
    def of(cls, store: RealmStore) -> Migration | None:
        """Read it; None for a realm that is not migrated."""
        form: Mapping[str, Any] | None = store.extra.get(MIGRATION)
        return None if form is None else cls(**form)

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON."""
        return asdict(self)


def adapted(options: SessionOptions, store: RealmStore) -> SessionOptions:
    """Say how a session syncs that the app configured in one way, and the server may have moved to the other."""
    migration = Migration.of(store)
    if migration is None:
        return replace(options, flexible=options.partition is None, migrated_partition=None)
    return replace(options, flexible=True, migrated_partition=migration.partition)


def covering(latest: SubscriptionSet, schema: Schema, query: str) -> MutableSubscriptionSet | None:
    """Subscribe to each class that has objects of its own and no subscription; None if there is none."""
    known = latest.classes
    missing = [name for name, cls in schema.items() if cls.kind is ClassKind.TOPLEVEL and name not in known]
    if not missing:
        return None
    copy, now = latest.update(), int(time.time() * 1000)
    for name in missing:
        copy.add(name, query, new_id=f"{now // 1000:08x}{secrets.token_hex(8)}", now=now, name=_PREFIX + name)
    return copy
