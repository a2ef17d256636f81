"""Floor 1: who may say what and when — the client's and the server's state machines, without I/O, clock or chance.

Server: ``ServerConnection(dialect)``. ``receive(data)`` gives :class:`Received` events (a session number and a wire
message: Bind, ClientIdent, Query, Upload, Mark, Unbind, ClientJsonError); PING is answered, UNBIND confirmed by itself.
``send_ident``, ``send_download``, ``send_mark``, ``send_query_error``, ``send_error`` check what clients enforce and
queue; ``data_to_send()`` gives the WebSocket messages to write.

Client: ``ClientConnection(flexible, random, numbers, timeouts)`` with ``open_session(source, ...)``;
``connected(dialect, now)``, ``disconnected(now)``, ``bind``, ``unbind``; ``receive(data, now)`` gives the events of
:mod:`realmframe.session.events` to act on in order; ``data_to_send()`` gives messages and events, until it gives
nothing; ``deadline()`` and ``on_deadline(now)`` are its timers. When a DOWNLOAD is on disk call
``session.integrated(message)``; when subscriptions change call ``session.set_queries(active, pending)``; local commits
need only another ``data_to_send()``.
"""

from realmframe.session.actions import CLOSE_CODES, HTTP_STATUSES, REACTIONS, Closed, Reaction, on_close, on_status
from realmframe.session.backoff import Backoff, BackoffPolicy
from realmframe.session.client import (
    ClientConnection,
    ClientSession,
    ClientState,
    QuerySet,
    SyncProgress,
    UploadSource,
)
from realmframe.session.events import (
    ClientEvent,
    CompensatingWrites,
    ConnectionProblem,
    DownloadReceived,
    IdentAssigned,
    LogReceived,
    MarkReached,
    QueryRefused,
    QuerySent,
    SessionProblem,
    SessionUnbound,
)
from realmframe.session.server import Received, ServerConnection, ServerState
from realmframe.session.subscriptions import (
    MutableSubscriptionSet,
    SetState,
    Subscription,
    SubscriptionSet,
    active_set,
    advance,
    pending_sets,
)
from realmframe.session.timers import SyncTimeouts

__all__ = [
    "CLOSE_CODES",
    "HTTP_STATUSES",
    "REACTIONS",
    "Backoff",
    "BackoffPolicy",
    "ClientConnection",
    "ClientEvent",
    "ClientSession",
    "ClientState",
    "Closed",
    "CompensatingWrites",
    "ConnectionProblem",
    "DownloadReceived",
    "IdentAssigned",
    "LogReceived",
    "MarkReached",
    "MutableSubscriptionSet",
    "QueryRefused",
    "QuerySent",
    "QuerySet",
    "Reaction",
    "Received",
    "ServerConnection",
    "ServerState",
    "SessionProblem",
    "SessionUnbound",
    "SetState",
    "Subscription",
    "SubscriptionSet",
    "SyncProgress",
    "SyncTimeouts",
    "UploadSource",
    "active_set",
    "advance",
    "on_close",
    "on_status",
    "pending_sets",
]
