"""``serve``: the application behind uvicorn."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from realmframe.errors import NetworkError, UsageError
from realmframe.server.application import create_app
from realmframe.server.limits import MAX_MESSAGE

#: How long a connection of HTTP stays open unused. Longer than clients and proxies keep theirs (60 s): who sends a
#: request on a connection that the server is closing at that moment is told that the network failed.
KEEP_ALIVE_SECONDS: Final = 75
#: How long a server that ends lets requests go on.
END_SECONDS: Final = 3
#: How long an encrypted connection has for taking leave.
TLS_LEAVE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate with which a server answers ``https`` and ``wss`` itself, with no proxy in front of it.

    Attributes
    ----------
    certificate : path
        PEM file: the server's certificate, then those between it and the one that clients trust.
    key : path, optional
        PEM file of the private key, without a password; None where it is in the first file.
    """

    certificate: Path | str
    key: Path | str | None = None

    def check(self) -> None:
        """Raise a UsageError if no server could use them."""
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                self.certificate,
                self.key,
                password=lambda: b"",  # asking at the terminal would stop the server's start
            )
        except (OSError, ValueError) as error:
            files = " and ".join(str(file) for file in (self.certificate, self.key) if file is not None)
            raise UsageError(
                f"TLS is not possible with {files}: {error}.",
                hint="They are PEM files, a certificate and its private key without a password.",
            ) from error


class _NoTokens(logging.Filter):
    """Takes access tokens, which clients put into the URL, out of what uvicorn logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                re.sub(r"baas_at=[^&\s\"]*", "baas_at=***", a) if isinstance(a, str) else a for a in record.args
            )
        return True


def _cut_soon(transport: asyncio.Transport) -> None:
    """Do not wait until the other side takes its leave of TLS: who does not read just then never does."""
    if transport.get_extra_info("ssl_object") is not None:
        seconds = TLS_LEAVE_SECONDS if transport.is_closing() else END_SECONDS - TLS_LEAVE_SECONDS
        asyncio.get_running_loop().call_later(seconds, transport.abort)


class _HttpProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Ends connections of TLS within the time that the server has for ending."""

    def shutdown(self) -> None:
        """End the connection, after what it is just doing."""
        super().shutdown()
        _cut_soon(self.transport)


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
        _cut_soon(self.transport)


def configuration(app: Any, host: str, port: int, log_level: str, tls: Tls | None = None) -> uvicorn.Config:
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
        http=_HttpProtocol,
        ws=_Protocol,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=END_SECONDS,
        server_header=False,
        # uvloop reports connections that a stop cuts off in the middle of TLS as faults.
        loop="auto" if tls is None else "asyncio",
        ssl_certfile=None if tls is None else str(tls.certificate),
        ssl_keyfile=None if tls is None or tls.key is None else str(tls.key),
    )


def serve(
    data: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 9090,
    development: bool = True,
    log_level: str = "info",
    tls: Tls | None = None,
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
    tls : Tls, optional
        Serve ``https`` and ``wss``; without it ``http`` and ``ws``, also behind a proxy that says in
        ``X-Forwarded-Proto`` what the client used.
    **options
        Passed on to :func:`create_app`.

    Raises
    ------
    NetworkError
        If the port is taken.
    StorageError
        If the data folder cannot be opened.
    UsageError
        If the certificate cannot be used.
    """
    if tls is not None:
        tls.check()
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
    uvicorn.Server(configuration(app, host, port, log_level, tls)).run()
