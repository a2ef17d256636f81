"""One connection through the proxy: two directions, each reading at once and writing late, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from realmframe.testing.faults import Faults
from realmframe.testing.websocket import MessageCounter

if TYPE_CHECKING:
    from realmframe.testing.proxy import FaultProxy

_CHUNK: Final = 1 << 16
#: Bytes written at a time over a slow line.
_SLOW_CHUNK: Final = 2048
#: Pieces that may be under way in one direction; then the sender has to wait, as with TCP's own window.
_WINDOW: Final = 64


class Line:
    """One connection: the client's end and the server's."""

    def __init__(self, proxy: FaultProxy, client: asyncio.StreamWriter) -> None:
        self.proxy, self.client = proxy, client
        self.server: asyncio.StreamWriter | None = None
        self.is_half_open = False
        self.client_left = asyncio.Event()
        #: WebSocket messages passed, by direction.
        self.messages = {"up": 0, "down": 0}
        self._task = asyncio.current_task()

    def close(self) -> None:
        """Close both ends; what was written already still arrives."""
        for end in (self.client, self.server):
            if end is not None:
                end.close()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def lose_server(self) -> None:
        """Close the server's end only, and tell the client nothing."""
        self.is_half_open = True
        if self.server is not None:
            self.server.close()

    def counted(self, direction: str) -> int:
        """Count the messages passed in a direction."""
        return sum(self.messages.values()) if direction == "both" else self.messages[direction]

    async def carry(self, client: asyncio.StreamReader, host: str, port: int) -> None:
        """Carry bytes both ways until an end closes or a fault ends it."""
        faults = self.proxy.faults
        if faults.status is not None:
            await self._answer(client, faults.status)
            return
        self.is_half_open = faults.half_open
        if self.is_half_open:
            while await client.read(_CHUNK):
                pass
            return
        server, self.server = await asyncio.open_connection(host, port)
        up, down = _Way(self, "up", client, self.server), _Way(self, "down", server, self.client)
        givers = [asyncio.ensure_future(way.give()) for way in (up, down)]
        tasks = [*givers, *(asyncio.ensure_future(way.take()) for way in (up, down))]
        try:
            await asyncio.wait(givers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, client: asyncio.StreamReader, status: int) -> None:
        await client.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        self.client.write(head.encode())
        await self.client.drain()


class _Way:
    """One direction of a connection: :meth:`take` reads, :meth:`give` writes, later and with faults."""

    def __init__(self, line: Line, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._line, self._name = line, name
        self._reader, self._writer = reader, writer
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WINDOW)
        self._counter = MessageCounter()
        self._passed = 0

    def _faults(self) -> Faults:
        """Give the faults of this direction."""
        faults = self._line.proxy.faults
        if faults.direction in (self._name, "both"):
            return faults
        return replace(faults, stall_after=None, cut_after=None, cut_every=None, corrupt_at=None)

    async def take(self) -> None:
        """Read until the end, noting when each piece is due at the other end."""
        proxy, clock = self._line.proxy, asyncio.get_running_loop().time
        due = 0.0
        while True:
            try:
                data = await self._reader.read(_CHUNK)
            except OSError:
                data = b""
            faults = proxy.faults
            due = max(due, clock() + faults.latency + faults.jitter * proxy.random.random())
            if not data:
                if self._name == "up":
                    self._line.client_left.set()
                elif self._line.is_half_open:
                    return  # the end of the server's end is not told
            await self._under_way.put((due, data))
            if not data:
                return

    async def give(self) -> None:
        """Write what is due; return when the connection has to end."""
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await self._under_way.get()
            await asyncio.sleep(due - clock())
            if not data:
                return
            ends = self._counter.feed(data)
            if not await self._pass(data, ends):
                return

    async def _pass(self, data: bytes, ends: list[int]) -> bool:
        """Write one piece as far as the faults let it; False if the connection ends here."""
        at = 0
        while at < len(data):
            faults = self._faults()
            if faults.stall_after is not None and self._passed >= faults.stall_after:
                if not await self._unstalled():
                    return False
                continue
            upto, is_cut = len(data), False
            if faults.bandwidth is not None:
                upto = min(upto, at + _SLOW_CHUNK, at + max(1, int(faults.bandwidth / 20)))
            if faults.stall_after is not None:
                upto = min(upto, at + faults.stall_after - self._passed)
            if faults.cut_after is not None and self._passed + upto - at >= faults.cut_after:
                upto, is_cut = at + max(0, faults.cut_after - self._passed), True
            nearest = next((end for end in ends if at < end <= upto), None)
            if nearest is not None and faults.cut_every is not None:
                upto = nearest
                is_cut = self._line.counted(faults.direction) + 1 >= faults.cut_every
            self._line.messages[self._name] += sum(at < end <= upto for end in ends)
            if faults.bandwidth is not None:
                await asyncio.sleep((upto - at) / faults.bandwidth)
            await self._write(self._spoiled(data[at:upto], faults))
            if is_cut:
                return False
            self._passed += upto - at
            at = upto
        return True

    def _spoiled(self, data: bytes, faults: Faults) -> bytes:
        """Turn a bit of the byte at the offset, if it is in this piece."""
        place = -1 if faults.corrupt_at is None else faults.corrupt_at - self._passed
        if not 0 <= place < len(data):
            return data
        made = bytearray(data)
        made[place] ^= 1 << self._line.proxy.random.randrange(8)
        return bytes(made)

    async def _write(self, data: bytes) -> None:
        if self._line.is_half_open:
            return  # swallowed
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            if not self._line.is_half_open:
                raise

    async def _unstalled(self) -> bool:
        """Wait until the faults change; False if the client left meanwhile."""
        line = self._line
        waits = [asyncio.ensure_future(work) for work in (line.proxy.changed(), line.client_left.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not line.client_left.is_set()
