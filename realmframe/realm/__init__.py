"""Floor 4: the facade.

``Realm.open`` (:mod:`.opening`) takes a :class:`Configuration`, opens or joins the process's
:class:`~.core.RealmCore` of that path (store, session, subscriptions), and gives a :class:`Realm`: live frames over one
pinned snapshot, transactions
(:mod:`.transaction`), subscriptions (:mod:`.subscriptions`), changes (:mod:`.changes`), the past and other engines
(:mod:`.history`). ``run`` blocks on an awaitable in a notebook.
"""

from realmframe.client.sync import SyncSession
from realmframe.realm.blocking import run
from realmframe.realm.changes import ClassChange, RealmChange
from realmframe.realm.configuration import (
    ClientResetConfiguration,
    Configuration,
    OpenRealmBehaviorConfiguration,
    SyncConfiguration,
)
from realmframe.realm.opening import Opening
from realmframe.realm.realm import Realm
from realmframe.realm.subscriptions import MutableSubscriptionSet, Subscription, SubscriptionSet
from realmframe.realm.transaction import Transaction

__all__ = [
    "ClassChange",
    "ClientResetConfiguration",
    "Configuration",
    "MutableSubscriptionSet",
    "OpenRealmBehaviorConfiguration",
    "Opening",
    "Realm",
    "RealmChange",
    "Subscription",
    "SubscriptionSet",
    "SyncConfiguration",
    "SyncSession",
    "Transaction",
    "run",
]
