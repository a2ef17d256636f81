"""realmframe: synced realms as live pandas DataFrames, and the server that feeds them.

Everything here is loaded when it is first used; importing the package alone is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realmframe.client import App, Credentials, MetadataConfiguration, SyncTimeouts, User
    from realmframe.errors import (
        AppError,
        ApplyError,
        AuthError,
        BadChangesetError,
        CancelledError,
        ChangesetError,
        ClientResetError,
        ClosedError,
        CompensatingWriteError,
        CorruptFileError,
        LocalProtocolError,
        MergeError,
        NetworkError,
        NoSubscriptionForWriteError,
        OpenTimeoutError,
        ProtocolError,
        QueryError,
        ReadOnlyError,
        RealmError,
        RemoteProtocolError,
        SchemaError,
        SchemaMismatchError,
        StorageError,
        SyncError,
        UsageError,
        WaitTimeoutError,
        WriteError,
        WrongUserError,
    )
    from realmframe.frames import changes_for
    from realmframe.model import Decimal128, Link, ObjectId, ObjectSchema, Property, RealmSet, Schema, Timestamp
    from realmframe.realm import (
        ClientResetConfiguration,
        Configuration,
        MutableSubscriptionSet,
        OpenRealmBehaviorConfiguration,
        Realm,
        SubscriptionSet,
        SyncConfiguration,
        SyncSession,
        Transaction,
        run,
    )

__version__ = "0.1.0"

_ERRORS = (
    "AppError ApplyError AuthError BadChangesetError CancelledError ChangesetError ClientResetError ClosedError "
    "CompensatingWriteError CorruptFileError LocalProtocolError MergeError NetworkError NoSubscriptionForWriteError "
    "OpenTimeoutError ProtocolError QueryError ReadOnlyError RealmError RemoteProtocolError SchemaError "
    "SchemaMismatchError StorageError SyncError UsageError WaitTimeoutError WriteError WrongUserError"
)
_ROOMS = {
    "client": "App Credentials MetadataConfiguration SyncTimeouts User",
    "errors": _ERRORS,
    "frames": "changes_for",
    "model": "Decimal128 Link ObjectId ObjectSchema Property RealmSet Schema Timestamp",
    "realm": "ClientResetConfiguration Configuration MutableSubscriptionSet OpenRealmBehaviorConfiguration Realm "
    "SubscriptionSet SyncConfiguration SyncSession Transaction run",
}
#: Where each public name lives.
_HOMES = {name: f"realmframe.{room}" for room, names in _ROOMS.items() for name in names.split()}

__all__ = [
    "App",
    "AppError",
    "ApplyError",
    "AuthError",
    "BadChangesetError",
    "CancelledError",
    "ChangesetError",
    "ClientResetConfiguration",
    "ClientResetError",
    "ClosedError",
    "CompensatingWriteError",
    "Configuration",
    "CorruptFileError",
    "Credentials",
    "Decimal128",
    "Link",
    "LocalProtocolError",
    "MergeError",
    "MetadataConfiguration",
    "MutableSubscriptionSet",
    "NetworkError",
    "NoSubscriptionForWriteError",
    "ObjectId",
    "ObjectSchema",
    "OpenRealmBehaviorConfiguration",
    "OpenTimeoutError",
    "Property",
    "ProtocolError",
    "QueryError",
    "ReadOnlyError",
    "Realm",
    "RealmError",
    "RealmSet",
    "RemoteProtocolError",
    "Schema",
    "SchemaError",
    "SchemaMismatchError",
    "StorageError",
    "SubscriptionSet",
    "SyncConfiguration",
    "SyncError",
    "SyncSession",
    "SyncTimeouts",
    "Timestamp",
    "Transaction",
    "UsageError",
    "User",
    "WaitTimeoutError",
    "WriteError",
    "WrongUserError",
    "changes_for",
    "run",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """Load the magics: ``%load_ext realmframe``."""
    from realmframe.jupyter import load_ipython_extension as load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Unload them."""
    from realmframe.jupyter import unload_ipython_extension as unload

    unload(shell)
