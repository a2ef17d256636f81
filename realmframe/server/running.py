"""``serve``: the application behind uvicorn."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from realmframe.errors import NetworkError
from realmframe.server.application import create_app
from realmframe.server.limits import MAX_MESSAGE

#: How long a connection of HTTP stays open unused. Longer than clients and proxies keep theirs (60 s): who sends a
#: request on a connection that the server is closing at that moment is told that the network failed.
KEEP_ALIVE_SECONDS: Final = 75


class _NoTokens(logging.Filter):
    """Takes access tokens, which clients put into the URL, out of what uvicorn logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                re.sub(r"baas_at=[^&\s\"]*", "baas_at=***", a) if isinstance(a, str) else a for a in record.args
            )
        return True


class _Protocol(WebSocketsSansIOProtocol):
    """Ends connections without a word when the server ends, as a server that crashed would.

    Real clients know no close code 1012: they would tell their app that the protocol was broken. Where a connection
    just ends they connect again and tell nobody.
    """

    def shutdown(self) -> None:
        """End the connection."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self.transport.close()
        else:
            super().shutdown()


def configuration(app: Any, host: str, port: int, log_level: str) -> uvicorn.Config:
    """Make uvicorn's settings: no compression on WebSockets, since the protocol compresses for itself."""
    for name in ("uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        if not any(isinstance(f, _NoTokens) for f in logger.filters):
            logger.addFilter(_NoTokens())
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        access_log=log_level == "debug",
        ws=_Protocol,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=3,
        server_header=False,
    )


def serve(
    data: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 9090,
    development: bool = True,
    log_level: str = "info",
    **options: Any,
) -> None:
    """Run the server until it is told to stop (SIGINT, SIGTERM).

    Parameters
    ----------
    data : path, optional
        Data folder; without it nothing is kept.
    host, port
        Where to listen.
    development : bool
        See :func:`create_app`.
    log_level : str
        ``debug``, ``info``, ``warning`` or ``error``.
    **options
        Passed on to :func:`create_app`.

    Raises
    ------
    NetworkError
        If the port is taken.
    StorageError
        If the data folder cannot be opened.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise NetworkError(
                f"The server cannot listen on {host}:{port}: {error.strerror}.",
                hint="Is another server running there? Choose another --port.",
            ) from error
    logging.getLogger("realmframe.server").setLevel(log_level.upper())
    app = create_app(data, development=development, **options)
    uvicorn.Server(configuration(app, host, port, log_level)).run()
