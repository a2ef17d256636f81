"""The fault proxy: each fault does what it says to a plain TCP connection, and ends when it is lifted."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from realmframe.errors import UsageError
from realmframe.testing import FaultProxy, Faults
from realmframe.testing.websocket import MessageCounter
from tests.waiting import WAIT

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Send back what comes."""
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture(scope="module")
def echo() -> Iterator[_Server]:
    """Run a server that sends back what it gets."""
    with _Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(WAIT)


@pytest.fixture
def proxy(echo: _Server) -> Iterator[FaultProxy]:
    """Put a proxy before it."""
    with FaultProxy(echo, seed=1) as made:
        yield made


class Client:
    """A plain connection."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def get(self, size: int, seconds: float = WAIT) -> bytes:
        """Read so many bytes, or what comes until the end or the time is over."""
        found, ends = b"", time.monotonic() + seconds
        while len(found) < size and (left := ends - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(size - len(found))
            except (TimeoutError, ConnectionError):
                break
            if not piece:
                break
            found += piece
        return found

    def is_ended(self) -> bool:
        """Wait for the end of the connection."""
        self.socket.settimeout(WAIT)
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


def test_without_faults(proxy: FaultProxy) -> None:
    """A megabyte comes back as it was sent, and both ends close together."""
    data = random.Random(0).randbytes(1 << 20)
    with Client(proxy) as client:
        threading.Thread(target=client.socket.sendall, args=(data,), daemon=True).start()
        assert client.get(len(data)) == data
        assert proxy.connections == 1
    _until(lambda: proxy.connections == 0)


def _until(holds: Any) -> None:
    ends = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_latency_and_jitter_keep_the_order(proxy: FaultProxy) -> None:
    """There and back takes twice the latency; pieces do not overtake each other."""
    proxy.put(Faults(latency=0.05, jitter=0.03))
    with Client(proxy) as client:
        begun = time.monotonic()
        for i in range(20):
            client.socket.sendall(bytes([i]))
            time.sleep(0.002)
        assert client.get(20) == bytes(range(20))
        assert time.monotonic() - begun >= 0.1


def test_bandwidth(proxy: FaultProxy) -> None:
    """Bytes take the time that the line gives them, each way."""
    proxy.fault(bandwidth=50_000)
    with Client(proxy) as client:
        begun = time.monotonic()
        client.socket.sendall(b"x" * 10_000)
        assert client.get(10_000) == b"x" * 10_000
        assert time.monotonic() - begun >= 0.19


def test_stall_and_go_on(proxy: FaultProxy) -> None:
    """Exactly so many bytes come, then none; when the fault is lifted the rest comes."""
    proxy.fault(stall_after=7)
    with Client(proxy) as client:
        client.socket.sendall(b"0123456789")
        assert client.get(10, 0.1) == b"0123456"
        proxy.heal()
        assert client.get(3) == b"789"


def test_stalled_connection_ends_with_its_client(proxy: FaultProxy) -> None:
    """A client that leaves a stalled connection leaves nothing behind."""
    proxy.fault(stall_after=0)
    with Client(proxy) as client:
        client.socket.sendall(b"hello")
        assert client.get(1, 0.05) == b""
    _until(lambda: proxy.connections == 0)


@pytest.mark.parametrize("direction", ["down", "up", "both"])
def test_cut_after_bytes(proxy: FaultProxy, direction: str) -> None:
    """The connection ends after exactly so many bytes; another one can be made."""
    proxy.fault(cut_after=4, direction=direction)
    for _ in range(2):
        with Client(proxy) as client:
            client.socket.sendall(b"0123456789")
            found = client.get(10)
            assert found == b"0123" if direction == "down" else b"0123".startswith(found)
            assert client.is_ended()


def test_cut_every_messages(proxy: FaultProxy) -> None:
    """The connection ends after the second whole message, not before and not after."""
    proxy.fault(cut_every=2)
    with Client(proxy) as client:
        frames = [bytes([0x82, 3]) + b"abc", bytes([0x02, 1]) + b"d", bytes([0x80, 1]) + b"e", bytes([0x82, 1]) + b"f"]
        client.socket.sendall(UPGRADE + b"".join(frames))
        assert client.get(1000) == UPGRADE + b"".join(frames[:3])
        assert client.is_ended()


def test_half_open(proxy: FaultProxy) -> None:
    """The client is not told that the server is gone: it may send, hears nothing, and is not disconnected."""
    with Client(proxy) as client:
        client.socket.sendall(b"before")
        assert client.get(6) == b"before"
        proxy.fault(half_open=True)
        client.socket.sendall(b"after")
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        proxy.heal()
        client.socket.sendall(b"still nothing")
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
    with Client(proxy) as client:
        client.socket.sendall(b"new")
        assert client.get(3) == b"new"


def test_corrupt(echo: _Server) -> None:
    """One bit of the byte at the offset is turned, the same one for the same seed."""
    found = []
    for seed in (1, 1, 2, 3, 4):
        with FaultProxy(echo, seed=seed, corrupt_at=5) as proxy, Client(proxy) as client:
            for piece in (b"01234", b"56789"):
                client.socket.sendall(piece)
                time.sleep(0.01)
            data = client.get(10)
            assert data[:5] + data[6:] == b"012346789"
            assert (data[5] ^ ord("5")).bit_count() == 1
            found.append(data)
    assert found[0] == found[1]
    assert len(set(found)) > 1


def test_status(proxy: FaultProxy) -> None:
    """Requests are answered by the proxy."""
    proxy.fault(status=503)
    with Client(proxy) as client:
        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.get(1000).startswith(b"HTTP/1.1 503 ")


def test_down_and_back(proxy: FaultProxy) -> None:
    """Down: open connections end and new ones are refused, at once; back: the same port takes them again."""
    with Client(proxy) as client:
        client.socket.sendall(b"a")
        assert client.get(1) == b"a"
        proxy.fault(down=True)
        assert client.is_ended()
        with pytest.raises(ConnectionError):
            Client(proxy)
        proxy.fault(down=False)
    with Client(proxy) as client:
        client.socket.sendall(b"b")
        assert client.get(1) == b"b"


def test_server_that_is_not_there() -> None:
    """Without a server behind it, a connection ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with FaultProxy(url) as proxy, Client(proxy) as client:
        assert client.is_ended()


@pytest.mark.parametrize(
    "wrong", [{"latency": -1}, {"stall_after": -1}, {"bandwidth": 0}, {"cut_every": 0}, {"direction": "left"}]
)
def test_wrong_faults(wrong: dict[str, Any]) -> None:
    """Numbers and words that mean nothing are refused."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Faults(**wrong)


def test_drawn_faults_are_those_of_the_seed() -> None:
    """Equal seeds give equal faults, and all kinds come up."""
    drawn = [Faults.drawn(random.Random(seed)) for seed in range(200)]
    assert drawn == [Faults.drawn(random.Random(seed)) for seed in range(200)]
    for name in ("latency", "bandwidth", "stall_after", "cut_after", "cut_every", "corrupt_at", "status", "down"):
        assert any(getattr(f, name) not in (None, 0.0, False) for f in drawn), name


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_message_counter_in_pieces(size: int) -> None:
    """Ends of messages are found however the bytes are cut: masked, long, in parts, with pings between."""
    mask = b"\1\2\3\4"
    messages = [
        bytes([0x82, 0x80 | 5]) + mask + b"hello",
        bytes([0x02, 2]) + b"ab" + bytes([0x89, 1]) + b"!" + bytes([0x80, 0]),
        bytes([0x82, 126]) + (300).to_bytes(2, "big") + b"x" * 300,
        bytes([0x82, 127]) + (70_000).to_bytes(8, "big") + b"y" * 70_000,
    ]
    data, wanted = UPGRADE, []
    for message in messages:
        data += message
        wanted.append(len(data))
    counter, found = MessageCounter(), []
    for at in range(0, len(data), size):
        found += [at + end for end in counter.feed(data[at : at + size])]
    assert found == wanted


def test_message_counter_of_plain_http() -> None:
    """A connection that is no WebSocket has no messages."""
    counter = MessageCounter()
    assert counter.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x82\x01ab\x82\x01") == []
    assert counter.feed(b"\x82\x01a" * 10) == []
