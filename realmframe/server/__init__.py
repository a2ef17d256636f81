"""Floor 3: the App-Services-compatible server: HTTP API, Device Sync endpoint, durable log.

``create_app(data=..., development=...)`` gives an ASGI application, ``serve(...)`` runs one.

From the outside in, with what each file is about:

* wiring: ``application`` (everything), ``running`` (uvicorn), ``claim`` (one server on one folder), ``limits``
* App Services over HTTP: ``api``, ``refusals``, ``accounts``, ``passwords``, ``foreign`` (JWT), ``tokens``
* what administrators order: ``admin``, ``users``; who may read and write: ``permissions``
* connections: ``socket`` (WebSocket), ``connection`` (the engine's end of it), ``engine`` (the one thread that does all
  of sync, in order), ``admission`` (BIND and IDENT), ``partitions`` (their names), ``answers`` (errors for clients)
* one realm's clients: ``sync`` (their messages), ``session`` (what waits for one), ``catching_up``, ``bootstrap`` (what
  it has missed), ``sharing`` and ``views`` (what it sees of others' changes), ``query_sets``, ``corrections`` and
  ``repair`` (its writes on states that were made up), ``compensating`` (its writes that are taken back), ``named``
* one realm's history: ``history`` (merging), ``windows`` (the log as a backlog meets it), ``entries``, ``log``,
  ``client_files``, ``reverted``, ``withdrawn`` (what clients have to hear yet), ``schemas``, ``passing`` (asymmetric
  objects), ``elements`` (what is new inside collections), ``trimming``
* on disk: ``database`` (SQL), ``checkpoints``
"""

from realmframe.server.application import create_app
from realmframe.server.foreign import JwtProvider
from realmframe.server.passwords import Mail
from realmframe.server.permissions import Permissions
from realmframe.server.running import Tls, serve

__all__ = ["JwtProvider", "Mail", "Permissions", "Tls", "create_app", "serve"]
