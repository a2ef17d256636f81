"""Floor 1: who may say what and when — both ends of a sync connection as state machines without I/O.

Both machines take one binary WebSocket message at a time and give those to send by ``data_to_send()`` (call it until it
gives none). The client's also has ``events()``, which gives and forgets what happened, and ``deadline()``: when
``on_deadline(now)`` has to be called (None: never). ``now`` is in seconds of any monotonic clock. Nothing here knows a
clock, a thread or a socket; random numbers come from the ``random.Random`` passed in. After *any* call, look at
``events()`` and ``data_to_send()``.

Client
------
``ClientConnection(dialect, *, random, timeouts=Timeouts(), numbers=itertools.count(1))``
    One WebSocket at a time, again and again: it asks for one by ``OpenConnection`` whenever a session needs it, with
    the back-off of the SDKs. ``numbers`` is shared by all connections of a process.

    * ``add_session(start: SessionStart, source: UploadSource, now) -> ClientSession``
    * ``opened(now, dialect=None)`` the WebSocket is open; ``closed(ending: Ending, now)`` it could not be opened or it
      ended: ``after_close(code)``, ``after_status(http_status, is_verified)``, ``CONNECT_FAILED``, ``LOST``
    * ``reconnect(now)`` skip the back-off, or ping at once; ``state`` is disconnected, connecting or connected
    * ``data_to_send(limit=1 << 20)`` about so many bytes of messages, oldest first

``ClientSession`` (its ``number`` is in every event)
    * ``local_changes(version)`` the realm has a new newest version (also after each ``integrated``)
    * ``integrated(client_version, progress)`` a DownloadReceived or the last BootstrapBatch was committed, giving this
      newest version of the realm; exactly once for each, in order
    * ``integration_failed(message, code=212)`` it could not: tells the server, ignores all DOWNLOADs from then on
    * ``new_query_set(QuerySet(version, snapshot_version, query))`` a subscription set was committed as
      ``snapshot_version``: everything up to it is uploaded first, then the QUERY is sent
    * ``request_mark() -> int`` tell me (``MarkReached``) when everything the server has now is integrated
    * ``unbind(now)`` end it (``SessionEnded``); ``resume(now)`` bind a suspended one again, same number; ``pause(now)``
      and ``restart(now)`` end it and begin again under another number
    * ``state``, ``is_upload_complete``, ``integrated_progress``, ``upload_cursor``

    It decides by itself when BIND, IDENT, QUERY, MARK and UPLOAD go out, as the SDKs do. Version rules are checked on
    everything received; a breach is a ``ProtocolFailure`` and ends the connection.

Events: ``OpenConnection CloseConnection ConnectionStateChanged ConnectionFailed RoundTrip ServerLog SessionBound
IdentAssigned BootstrapBatch BootstrapDiscarded DownloadReceived UploadAcknowledged MarkReached QueryStateChanged
SessionError CompensatingWrites SessionResumed SessionEnded ProtocolFailure``.

Server
------
``ServerConnection(dialect)`` for one WebSocket; sessions are named by their number. ``receive(data)`` gives
:class:`~.server.Received` events (session number and wire message: Bind, ClientIdent, Query, Upload, Mark, Unbind,
ClientJsonError) and raises RemoteProtocolError when the client breaks the protocol; PING is answered and UNBIND
confirmed by itself.

    * ``send_ident``, ``send_download(Download(...))``, ``send_mark``, ``send_query_error``, ``send_log`` check the
      rules that clients enforce and queue the message; LocalProtocolError sends nothing
    * ``send_error(number, code, message, action, ...)``; number 0 is the connection. After it the session is dead:
      whatever the client still says is discarded until its UNBIND, which is not answered; then BIND may come with the
      same number
    * ``state(number)``, ``active()``, ``data_to_send()``

Subscriptions
-------------
``subscriptions.py``: immutable ``SubscriptionSet`` and ``SubscriptionStore`` (all sets of a realm: active, pending,
latest; ``commit``, ``advance``), ``MutableSubscriptionSet`` (add, remove, remove_by_name, remove_all, find), JSON both
ways, ``query_body(set, join)`` for the wire.
"""

from realmframe.session.client import ClientConnection
from realmframe.session.client_session import ClientSession
from realmframe.session.server import ServerConnection, ServerState
from realmframe.session.start import QuerySet, SessionStart

__all__ = ["ClientConnection", "ClientSession", "QuerySet", "ServerConnection", "ServerState", "SessionStart"]
