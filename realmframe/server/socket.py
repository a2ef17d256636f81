"""The WebSocket endpoint: bytes between a client and the engine, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from realmframe.server.accounts import Accounts
from realmframe.server.connection import UNAUTHORISED, Connection
from realmframe.server.engine import Engine
from realmframe.server.limits import MAX_MESSAGE
from realmframe.server.refusals import ApiError
from realmframe.wire import negotiate

#: Messages of one client that may wait for the engine.
_WAITING = 32
_FORBIDDEN, _TOO_LARGE = 4002, 1009


class SyncEndpoint:
    """``/api/client/v2.0/app/{app}/realm-sync``.

    Parameters
    ----------
    accounts : Accounts
    engine : Engine
    """

    def __init__(self, accounts: Accounts, engine: Engine) -> None:
        self.accounts, self.engine = accounts, engine

    async def serve(self, socket: WebSocket) -> None:
        """Serve one connection."""
        dialect = negotiate(_offered(socket.headers.getlist("sec-websocket-protocol")))
        if dialect is None:
            await socket.close(1002)  # before accepting: HTTP 403, since a 101 without subprotocol ends real clients
            return
        app = str(socket.path_params["app"])
        claims = self.accounts.tokens.check(socket.query_params.get("baas_at", ""), "access")
        code = None
        if claims is None or claims.app != app:
            code = UNAUTHORISED
        else:
            try:
                await run_in_threadpool(self.accounts.need_app, app)
            except ApiError:
                code = _FORBIDDEN
        await socket.accept(subprotocol=dialect.subprotocol)
        if code is not None or claims is None:
            await socket.close(code or UNAUTHORISED)
            return
        loop = asyncio.get_running_loop()
        outgoing: asyncio.Queue[tuple[list[bytes], int | None]] = asyncio.Queue()

        def deliver(messages: list[bytes], close: int | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is the client
                loop.call_soon_threadsafe(outgoing.put_nowait, (messages, close))

        connection = Connection(dialect, app, claims.user, deliver)
        # Known before it is checked: a log-in that ends meanwhile is either seen here or closes the connection.
        self.engine.opened(connection)
        if not await run_in_threadpool(self.accounts.session_is_valid, claims.login, claims.user):
            self.engine.closed(connection)
            await socket.close(UNAUTHORISED)
            return
        tasks = [
            asyncio.create_task(self._read(socket, connection, loop)),
            asyncio.create_task(self._write(socket, connection, outgoing)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.engine.closed(connection)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, socket: WebSocket, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        room = asyncio.Semaphore(_WAITING)

        def done() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(room.release)

        with contextlib.suppress(WebSocketDisconnect):
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                data = message.get("bytes")
                if data is None:
                    continue  # text frames are ignored, as clients do
                if len(data) > MAX_MESSAGE:
                    await socket.close(_TOO_LARGE)
                    return
                await room.acquire()
                self.engine.receive(connection, data, done)

    async def _write(
        self, socket: WebSocket, connection: Connection, outgoing: asyncio.Queue[tuple[list[bytes], int | None]]
    ) -> None:
        while True:
            messages, close = await outgoing.get()
            for data in messages:
                try:
                    await socket.send_bytes(data)
                except (WebSocketDisconnect, RuntimeError):
                    return
                if connection.written(len(data)):
                    self.engine.drained(connection)
            if close is not None:
                with contextlib.suppress(RuntimeError):
                    await socket.close(close)
                return


def _offered(headers: Iterable[str]) -> list[str]:
    return [name.strip() for header in headers for name in header.split(",")][:64]
