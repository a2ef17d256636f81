"""A network that delays, loses and cuts; within one connection everything that arrives, arrives in order."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import httpx
import httpx_ws

from realmframe.wire import MAX_VERSION, Dialect

if TYPE_CHECKING:
    from tests.simulation.clients import Device
    from tests.simulation.server import Server
    from tests.simulation.world import World


#: No client opens so many connections within so many seconds: it backs off.
_DIALS: Final = 40
_DIALS_SECONDS: Final = 10.0


class Channel:
    """One direction of a connection."""

    def __init__(self, world: World, rng: random.Random, arrive: Callable[[Any], None]) -> None:
        self._world, self._rng, self._arrive = world, rng, arrive
        self._at = 0.0
        self.is_cut = False

    def send(self, item: Any) -> float:
        """Put something on its way; tell when it will be there."""
        loop = self._world.loop
        self._at = max(self._at, loop.time()) + self._rng.expovariate(1.0 / self._world.settings.latency)
        if not self.is_cut:
            loop.call_at(self._at, self._deliver, item)
        return self._at

    def _deliver(self, item: Any) -> None:
        if not self.is_cut:
            self._arrive(item)


class Link:
    """One WebSocket between a device and the server."""

    def __init__(self, world: World, number: int, device: Device, server: Server, *, flexible: bool) -> None:
        self.world, self.number, self.device, self.server = world, number, device, server
        self.rng = random.Random(f"{world.seed} link {number}")
        dialect = Dialect(MAX_VERSION, flexible)
        self.subprotocol = dialect.subprotocol
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._client_lost = False
        self.up = Channel(world, self.rng, self._at_server)
        self.down = Channel(world, self.rng, self._at_client)
        self.connection = server.accept(self, dialect)

    # ---- the client's end: what of a websocket the client uses

    async def send_bytes(self, data: bytes) -> None:
        """Send a message."""
        if self._client_lost:
            raise httpx_ws.WebSocketNetworkError
        self.up.send(data)

    async def receive_bytes(self) -> bytes:
        """Wait for a message."""
        item = await self._inbox.get()
        if isinstance(item, Exception):
            self._client_lost = True
            raise item
        return bytes(item)

    def _at_client(self, item: Any) -> None:
        self.world.note(f"link {self.number} down", item)
        self._inbox.put_nowait(item)

    def hang_up(self) -> None:
        """End it from the client's side; what was sent before may still arrive."""
        self.down.is_cut = self._client_lost = True
        self.up.send(None)

    # ---- the server's end

    def _at_server(self, item: Any) -> None:
        self.world.note(f"link {self.number} up", item)
        if item is None:
            self.server_hears()
        else:
            self.server.receive(self.connection, item)

    def deliver(self, messages: list[bytes], close: int | None) -> None:
        """Send what the engine hands over."""
        for data in messages:
            at = self.down.send(data)
            self.world.loop.call_at(at, self.server.written, self.connection, len(data))
        if close is not None:
            self.down.send(httpx_ws.WebSocketDisconnect(close, "closed"))
            self.server_hears()

    # ---- faults

    def cut(self) -> None:
        """Break it now; both ends hear of it some time, or notice that nothing comes."""
        self.world.note(f"link {self.number}", "cut")
        self.up.is_cut = self.down.is_cut = True
        loop, rng = self.world.loop, self.rng
        loop.call_later(rng.choice([0.01, 1.0, 20.0, 400.0]) * rng.random(), self.client_hears)
        loop.call_later(rng.choice([0.01, 1.0, 20.0, 400.0]) * rng.random(), self.server_hears)

    def client_hears(self) -> None:
        """Tell the client that the connection is lost."""
        self.down.is_cut = True
        self._inbox.put_nowait(httpx_ws.WebSocketNetworkError())

    def server_hears(self) -> None:
        """Tell the server that the connection is lost."""
        self.up.is_cut = True
        self.world.network.links.pop(self.number, None)
        self.server.closed(self.connection)


class Network:
    """All connections there are."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.links: dict[int, Link] = {}
        self._made = 0
        self._dialled: dict[str, deque[float]] = {}

    async def dial(self, device: Device, url: str, *, flexible: bool) -> Link:
        """Open a connection, or fail."""
        world = self.world
        self._count(device)
        await asyncio.sleep(world.settings.latency)
        if device.is_offline or world.server.is_dead:
            raise httpx.ConnectError("refused")
        self._made += 1
        link = self.links[self._made] = Link(world, self._made, device, world.server, flexible=flexible)
        world.note(f"link {link.number}", f"opened by {device.name}")
        for feature in world.features:
            feature.dialled(link, url)
        return link

    def _count(self, device: Device) -> None:
        """See that a client which is refused or cut off waits before it tries again."""
        times = self._dialled.setdefault(device.name, deque(maxlen=_DIALS))
        now = self.world.loop.time()
        if len(times) == _DIALS and now - times[0] < _DIALS_SECONDS:
            self.world.failures.append(f"{device.name} dialled {_DIALS} times in {now - times[0]:.3f} s")
        times.append(now)

    def of(self, device: Device) -> list[Link]:
        """List a device's connections."""
        return [link for link in self.links.values() if link.device is device]


def short(item: Any) -> str:
    """Say what a message is, in a line of the trace."""
    if isinstance(item, bytes):
        head = item.split(b"\n", 1)[0][:100].decode("ascii", "replace")
        return f"{head} #{zlib.crc32(item):08x}"
    return type(item).__name__ if isinstance(item, Exception) else str(item)
