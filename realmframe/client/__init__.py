"""Floor 3: apps, users, and the sync thread that keeps stores in step with a server.

``App`` speaks the App Services HTTP API (:mod:`.transport`) and caches its users on disk (:mod:`.metadata`, sealed by
:mod:`.vault`; :mod:`.keeper` refreshes their tokens, :mod:`.files` deletes what a removed user leaves). One daemon
thread per process runs one asyncio loop (:mod:`.loop`). There, :class:`~.sync_client.SyncClient` drives one websocket
per user (:mod:`.connection`), and on it one session per realm (:mod:`.sync`): the rules of the protocol are those of
:mod:`realmframe.session`; this room adds sockets, the clock, and the store. Of a session, :mod:`.binding` holds its
place on the connection, :mod:`.news` takes what its machine tells, :mod:`.integration` commits what was downloaded,
:mod:`.follow_ups` acts on errors, :mod:`.waits` knows who waits. :mod:`.paths` says where a realm lies.
"""

from realmframe.client.app import App, SyncTimeouts
from realmframe.client.auth import ApiKey, ApiKeyAuth, EmailPasswordAuth
from realmframe.client.credentials import Credentials
from realmframe.client.loop import stop_sync_loop, sync_loop
from realmframe.client.paths import RealmPath, SyncPlace, path_for
from realmframe.client.user import User, UserIdentity
from realmframe.client.vault import MetadataConfiguration

__all__ = [
    "ApiKey",
    "ApiKeyAuth",
    "App",
    "Credentials",
    "EmailPasswordAuth",
    "MetadataConfiguration",
    "RealmPath",
    "SyncPlace",
    "SyncTimeouts",
    "User",
    "UserIdentity",
    "path_for",
    "stop_sync_loop",
    "sync_loop",
]
