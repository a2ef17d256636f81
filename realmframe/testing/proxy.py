"""A TCP proxy that fails as it is told to: put it between a client and a server to see what the client does then."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from realmframe.errors import NetworkError, UsageError
from realmframe.testing.faults import Faults
from realmframe.testing.line import Line

__all__ = ["FaultProxy"]

T = TypeVar("T")
_WAIT_SECONDS: Final = 10.0


class HasUrl(Protocol):
    """A server, such as :class:`realmframe.testing.Server`."""

    @property
    def url(self) -> str:
        """Base URL."""


class FaultProxy:
    """Pass connections on to a server, with faults that can be changed at any time.

    Parameters
    ----------
    target : str or Server
        Base URL of the server, or something that has one as `url`. It need not run yet.
    seed : int
        For what is drawn: jitter, and the bit that is turned.
    port : int
        0 takes any free one.
    **faults
        What goes wrong from the start; see :class:`Faults`.

    Attributes
    ----------
    url : str
        Base URL for clients.
    faults : Faults
        What goes wrong now.
    accepted : int
        Connections taken since the start.
    connections : int
        Connections open now.

    Examples
    --------
    >>> with Server() as server, FaultProxy(server, latency=0.1) as proxy:  # doctest: +SKIP
    ...     app = realmframe.App("test", base_url=proxy.url)
    ...     proxy.fault(stall_after=10_000)  # a connection comes so far and no further
    ...     proxy.heal()
    """

    def __init__(self, target: str | HasUrl, *, seed: int = 0, port: int = 0, **faults: Any) -> None:
        parts = urlsplit(target if isinstance(target, str) else target.url)
        if not parts.hostname or not parts.port:
            raise UsageError(f"FaultProxy needs a URL with host and port, not {target!r}.")
        self._scheme, self._host, self._target_port = parts.scheme, parts.hostname, parts.port
        self.port = port
        self.faults = Faults(**faults)
        self.accepted = 0
        self.random = random.Random(seed)
        self._lines: set[Line] = set()
        self._server: asyncio.Server | None = None
        self._changed: asyncio.Event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<FaultProxy {self.url} to {self._host}:{self._target_port}: {self.faults}>"

    @property
    def url(self) -> str:
        """Base URL for clients, with the scheme of the server's: what is encrypted is passed on as it is."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._lines)

    # ------------------------------------------------------------------ begin and end

    def __enter__(self) -> FaultProxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; on return it takes connections, unless it is told to be down.

        Raises
        ------
        NetworkError
            If the port is taken.
        """
        if self._thread is not None:
            raise UsageError("The proxy runs already.")
        if self.port == 0:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = int(probe.getsockname()[1])
        loop = self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=loop.run_forever, name="realmframe-fault-proxy", daemon=True)
        self._thread.start()
        try:
            self._call(self._adapt())
        except OSError as fault:
            self.stop()
            raise NetworkError(f"The proxy cannot listen on port {self.port}: {fault.strerror}.") from fault

    def stop(self) -> None:
        """Close everything; stopping again does nothing."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._call(self._end())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_WAIT_SECONDS)
        loop.close()
        self._loop = self._thread = None

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_SECONDS)

    # ------------------------------------------------------------------ faults

    def fault(self, **changes: Any) -> None:
        """Change some faults and keep the others; in force on return, also for connections that are open."""
        self.put(replace(self.faults, **changes))

    def heal(self) -> None:
        """End all faults."""
        self.put(Faults())

    def put(self, faults: Faults) -> None:
        """Have exactly these faults from now on."""
        self.faults = faults
        if self._loop is not None:
            self._call(self._adapt())

    def cut(self) -> None:
        """Close all connections that are open now; new ones are taken."""
        if self._loop is not None:
            self._call(self._cut())

    # ------------------------------------------------------------------ in the proxy's thread

    async def _adapt(self) -> None:
        if self.faults.down:
            await self._unlisten()
            await self._cut()
        elif self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        if self.faults.half_open:
            for line in list(self._lines):
                line.lose_server()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _unlisten(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _cut(self) -> None:
        for line in list(self._lines):
            line.close()

    async def _end(self) -> None:
        await self._unlisten()
        await self._cut()
        mine = asyncio.current_task()
        tasks = [t for t in asyncio.all_tasks() if t is not mine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def changed(self) -> None:
        """Wait until the faults are changed."""
        await self._changed.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        line = Line(self, writer)
        self._lines.add(line)
        try:
            await line.carry(reader, self._host, self._target_port)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # an end is gone, or was closed on purpose: the other one follows
        finally:
            self._lines.discard(line)
            line.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
