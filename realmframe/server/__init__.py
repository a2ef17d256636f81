"""Floor 3: the App-Services-compatible server: HTTP API, Device Sync endpoint, durable log.

``create_app(data=..., development=...)`` gives an ASGI application, ``serve(...)`` runs one.

Rooms inside: ``database`` (SQL tables), ``accounts`` ``passwords`` ``foreign`` (JWT) ``tokens`` ``api`` (App
Services over HTTP), ``users`` ``admin`` (what administrators order), ``permissions`` (who may read and write),
``history`` (merging and the durable log of one realm), ``views`` (what a query set sees), ``sync`` (sessions of one
realm), ``engine`` (the one thread that does all of it, in order), ``socket`` (WebSocket), ``application`` (everything
wired).
"""

from realmframe.server.application import create_app
from realmframe.server.foreign import JwtProvider
from realmframe.server.passwords import Mail
from realmframe.server.permissions import Permissions
from realmframe.server.running import serve

__all__ = ["JwtProvider", "Mail", "Permissions", "create_app", "serve"]
