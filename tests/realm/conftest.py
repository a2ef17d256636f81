"""A scripted server behind a fault proxy: it keeps a log, merges nothing, and answers as tests ask it to."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import realmframe as rf
from realmframe import wire
from realmframe.client.loop import stop_sync_loop
from realmframe.testing import FaultProxy
from realmframe.wire import BatchState, Dialect

API = "/api/client/v2.0"


def token(name: str, expires_in: float = 1800.0) -> str:
    """Make a token that expires in so many seconds."""
    payload = {"exp": int(time.time() + expires_in), "iat": int(time.time()), "sub": name}
    body = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    return f"e30.{body}.sig"


def json_error(session: int, said: dict[str, Any]) -> wire.JsonError:
    """Fail a session, in these words."""
    body = {
        "message": "no",
        "logURL": "",
        "tryAgain": False,
        "shouldClientReset": False,
        "isRecoveryModeDisabled": False,
        "action": "ApplicationBug",
        **said,
    }
    return wire.JsonError(session, int(body.pop("code", 200)), body)


@dataclass
class Faults:
    """What the server answers wrongly; what the line does wrong is for the proxy."""

    close_code: int | None = None
    """The websocket is closed at once with this code."""
    bind_error: dict[str, Any] | None = None
    """BIND is answered with this json_error."""
    mark_error: dict[str, Any] | None = None
    """MARK is answered with this json_error."""
    query_error: str | None = None
    """QUERY is answered with this query_error."""
    session_status: int = 201
    """Status of a token's refresh."""
    expires_in: float = 1800.0


@dataclass
class LogEntry:
    """One changeset that a client uploaded."""

    version: int
    file_ident: int
    client_version: int
    timestamp: int
    changeset: bytes


@dataclass
class Peer:
    """One bound session."""

    number: int
    send: Callable[[Any], Any]
    file_ident: int = 0
    sent_version: int = 0
    client_version: int = 0
    query_version: int = 0
    queries: list[dict[str, str]] = field(default_factory=list)


class ScriptedServer:
    """Runs in a thread of its own on 127.0.0.1."""

    token = staticmethod(token)

    def __init__(self) -> None:
        self.faults = Faults()
        self.log: list[LogEntry] = []
        self.peers: list[Peer] = []
        self.idents = 0
        self.requests: list[str] = []
        self.messages: list[Any] = []
        self.opened = 0
        self._users = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.line = FaultProxy(f"http://127.0.0.1:{self.port}")
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Its base URL, through the proxy."""
        return self.line.url

    def start(self) -> None:
        """Start, or come back."""
        routes = [
            Route(API + "/app/{app}/location", self._location),
            Route(API + "/app/{app}/auth/providers/{provider}/login", self._login, methods=["POST"]),
            Route(API + "/auth/profile", self._profile),
            Route(API + "/auth/session", self._session, methods=["POST", "DELETE"]),
            WebSocketRoute(API + "/app/{app}/realm-sync", self._sync),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            host="127.0.0.1",
            port=self.port,
            log_level="critical",
            ws="websockets-sansio",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="scripted-server", daemon=True)
        self._thread.start()
        ends = time.monotonic() + 10
        while not self._server.started and time.monotonic() < ends:
            time.sleep(0.01)
        assert self._server.started
        self.line.fault(down=False)

    def stop(self) -> None:
        """Go down."""
        self.line.fault(down=True)
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)
            self._server = self._thread = None
        self.peers.clear()

    async def _location(self, request: Request) -> Response:
        self.requests.append(request.url.path)
        return JSONResponse({"hostname": self.url, "ws_hostname": self.url.replace("http", "ws")})

    async def _login(self, request: Request) -> Response:
        self.requests.append(request.url.path)
        self._users += 1
        name = f"user{self._users}"
        body = {
            "access_token": token(name, self.faults.expires_in),
            "refresh_token": token(name, 1e7),
            "user_id": name,
            "device_id": "d",
        }
        return JSONResponse(body)

    async def _profile(self, _request: Request) -> Response:
        return JSONResponse({"identities": [{"id": "i", "provider_type": "anon-user"}], "data": {}})

    async def _session(self, request: Request) -> Response:
        self.requests.append(f"{request.method} session")
        if request.method == "DELETE":
            return Response(status_code=204)
        if self.faults.session_status >= 400:
            body = {"error": "invalid session", "error_code": "InvalidSession", "link": ""}
            return JSONResponse(body, self.faults.session_status)
        return JSONResponse({"access_token": token("again")}, 201)

    async def _sync(self, socket: WebSocket) -> None:
        faults = self.faults
        name = socket.scope["subprotocols"][0]
        dialect = wire.parse_subprotocol(name)
        assert dialect is not None
        await socket.accept(subprotocol=name)
        self.opened += 1
        if faults.close_code is not None:
            await socket.close(faults.close_code)
            return
        mine: dict[int, Peer] = {}
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._converse(socket, dialect, mine)
        self.peers = [p for p in self.peers if p not in mine.values()]

    async def _converse(self, socket: WebSocket, dialect: Dialect, mine: dict[int, Peer]) -> None:
        async def send(message: Any) -> None:
            await socket.send_bytes(wire.encode(message, dialect))

        while True:
            message = wire.parse_client(await socket.receive_bytes(), dialect)
            self.messages.append(message)
            await self._answer(message, send, mine)

    async def _answer(self, message: Any, send: Callable[[Any], Any], mine: dict[int, Peer]) -> None:
        if isinstance(message, wire.Ping):
            await send(wire.Pong(message.timestamp))
        elif not isinstance(message, wire.Bind) and message.session not in mine:
            return  # it was on its way when the session was failed
        elif isinstance(message, wire.Bind):
            if self.faults.bind_error is not None:
                await send(json_error(message.session, self.faults.bind_error))
                return
            peer = mine[message.session] = Peer(message.session, send)
            if message.need_ident:
                self.idents += 1
                peer.file_ident = self.idents
                await send(wire.Ident(message.session, self.idents, 42))
        elif isinstance(message, wire.ClientIdent):
            peer = mine[message.session]
            peer.file_ident, peer.sent_version = message.file_ident, message.download_server_version
            peer.client_version, peer.query_version = message.download_client_version, message.query_version or 0
            self.peers.append(peer)
            if peer.query_version == 0:
                await self._download(peer, BatchState.LAST_IN_BATCH, everything=False)
            else:
                await self._download(peer, BatchState.STEADY_STATE)
        elif isinstance(message, wire.Mark) and self.faults.mark_error is not None:
            mine.pop(message.session)
            await send(json_error(message.session, self.faults.mark_error))
        elif isinstance(message, wire.Mark):
            await send(wire.Mark(message.session, message.request))
        elif isinstance(message, wire.Query):
            peer = mine[message.session]
            if self.faults.query_error is not None:
                await send(wire.QueryError(message.session, 226, message.version, self.faults.query_error))
                return
            peer.query_version = message.version
            peer.queries.append(message.query)
            await self._download(peer, BatchState.LAST_IN_BATCH)
        elif isinstance(message, wire.Upload):
            await self._upload(mine[message.session], message)
        elif isinstance(message, wire.Unbind):
            peer = mine.pop(message.session, None)
            if peer is not None:
                self.peers = [p for p in self.peers if p is not peer]
                await send(wire.Unbound(message.session))

    async def _upload(self, peer: Peer, message: wire.Upload) -> None:
        known = max((e.client_version for e in self.log if e.file_ident == peer.file_ident), default=0)
        for entry in message.entries:
            if entry.client_version <= known:
                continue  # sent again by a client that did not hear the acknowledgement
            version = len(self.log) + 1
            self.log.append(LogEntry(version, peer.file_ident, entry.client_version, entry.timestamp, entry.changeset))
        peer.client_version = max(peer.client_version, message.progress_client_version)
        if message.entries:
            for other in list(self.peers):
                if other is peer or other.query_version:
                    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                        await self._download(other, BatchState.STEADY_STATE, everything=other.query_version > 0)

    async def _download(self, peer: Peer, batch: BatchState, *, everything: bool = True) -> None:
        version = len(self.log)
        shown = max(version, 1)
        steady = batch is BatchState.STEADY_STATE
        entries = [
            wire.DownloadEntry(
                e.version if steady else shown,
                peer.client_version,
                e.timestamp,
                e.file_ident,
                len(e.changeset),
                e.changeset,
            )
            for e in self.log
            if e.version > peer.sent_version and e.file_ident != peer.file_ident and everything
        ]
        if not steady and not entries:
            entries = [wire.DownloadEntry(max(version, 1), peer.client_version, 1, peer.file_ident + 1000, 0, b"")]
        if everything:
            peer.sent_version = shown
        await peer.send(
            wire.Download(
                peer.number,
                shown,
                peer.client_version,
                shown,
                7,
                peer.client_version,
                0,
                query_version=peer.query_version,
                batch=batch,
                estimate=1.0,
                entries=tuple(entries),
            )
        )


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Run a server that works until told otherwise."""
    made = ScriptedServer()
    with made.line:
        made.start()
        yield made
        stop_sync_loop()
        made.stop()


@pytest.fixture
def login(tmp_path: Path, server: ScriptedServer) -> Callable[..., rf.User]:
    """Log in under a folder of its own per name."""

    def make(name: str = "a", **options: Any) -> rf.User:
        app = rf.App("app-1", base_url=server.url, base_file_path=tmp_path / name, **options)
        return app.current_user or app.log_in(rf.Credentials.anonymous())

    return make
