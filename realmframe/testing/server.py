"""A realmframe server on a free port, in a thread or in a process of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from realmframe.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from realmframe.server.running import Tls

__all__ = ["Server"]

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0


class Server:
    """Run a realmframe server on loopback for as long as the ``with`` block lasts.

    Parameters
    ----------
    data : path, optional
        Data folder; without it nothing is kept.
    port : int
        0 takes any free one.
    process : bool
        Whether it runs in a process of its own (then it can be killed) or in a thread of this one.
    log_level : str
    tls : realmframe.server.Tls, optional
        Serve ``https`` and ``wss``; not in a process of its own.
    **options
        Passed on to :func:`realmframe.server.create_app`; in a process only ``development``.

    Attributes
    ----------
    url : str
        Base URL for clients.

    Examples
    --------
    >>> with Server() as server:  # doctest: +SKIP
    ...     app = realmframe.App("test", base_url=server.url)
    """

    def __init__(
        self,
        data: Path | str | None = None,
        *,
        port: int = 0,
        process: bool = False,
        log_level: str = "warning",
        tls: Tls | None = None,
        **options: Any,
    ) -> None:
        if process and (tls is not None or set(options) - {"development"}):
            raise UsageError("A server in a process of its own takes no options but development.")
        self.data, self.port, self.process, self.log_level, self.options = data, port, process, log_level, options
        self.tls = tls
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; on return it takes connections.

        Raises
        ------
        NetworkError
            If it does not start.
        """
        if self.process:
            self._start_process()
        else:
            self._start_thread()

    def _start_thread(self) -> None:
        import uvicorn

        from realmframe.server import create_app
        from realmframe.server.running import configuration

        if self.tls is not None:
            self.tls.check()
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            self.port = int(listener.getsockname()[1])
            app = create_app(self.data, **self.options)
            settings = configuration(app, "127.0.0.1", self.port, self.log_level, self.tls)
            undo.pop_all()
        server = self._server = uvicorn.Server(settings)

        def run() -> None:
            with contextlib.closing(listener):
                server.run(sockets=[listener])

        self._thread = threading.Thread(target=run, name="realmframe-test-server", daemon=True)
        self._thread.start()
        ends = time.monotonic() + _START_SECONDS
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > ends:
                raise NetworkError("The server did not start.")
            time.sleep(0.005)

    def _start_process(self) -> None:
        if self.port == 0:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = int(probe.getsockname()[1])
        code = (
            "import sys; from realmframe.server import serve;"
            "serve(sys.argv[1] or None, port=int(sys.argv[2]), development=sys.argv[3] == '1', log_level=sys.argv[4])"
        )
        development = "1" if self.options.get("development", True) else "0"
        arguments = [str(self.data or ""), str(self.port), development, self.log_level]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", code, *arguments], stdin=subprocess.DEVNULL
        )
        ends = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > ends:
                self.kill()
                raise NetworkError("The server's process did not start.")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in order."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_SECONDS)
            self._server = self._thread = None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End its process at once, as ``kill -9`` does."""
        if self._process is None:
            raise UsageError("Only a server in a process of its own can be killed.")
        self._process.kill()
        self._process.wait(_STOP_SECONDS)
        self._process = None
