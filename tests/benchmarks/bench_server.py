"""Benchmark of the server: durable uploads of one object each beside SQLite inserts, and a bootstrap over loopback.

Run it as ``python tests/benchmarks/bench_server.py [OBJECTS] [ROUNDS]`` (100,000 and 3 by default).
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.model import PropertyType
from realmframe.testing import Server
from realmframe.wire import (
    BatchState,
    Bind,
    ClientIdent,
    Dialect,
    Download,
    Ident,
    JsonError,
    Query,
    QueryError,
    Upload,
    UploadEntry,
    encode,
    parse_server,
)

UPLOADS = 4_000
PER_MESSAGE = 50
BATCH = 5_000
WAIT = 60.0
FIELDS = "abcde"
QUERY = {"C": "(TRUEPREDICATE )"}


def _schema() -> bytes:
    columns = [ins.AddColumn("C", name, PropertyType.INT) for name in FIELDS]
    return Changeset.from_instructions([ins.AddTable("C", pk_field="_id", pk_type=PropertyType.INT), *columns]).encode()


def _objects(first: int, count: int) -> bytes:
    rows: list[ins.Instruction] = []
    for key in range(first, first + count):
        rows.append(ins.CreateObject("C", key))
        rows += [ins.Update("C", key, name, (), key) for name in FIELDS]
    return Changeset.from_instructions(rows).encode()


class _Client:
    """A client that does no more than the protocol asks."""

    def __init__(self, url: str) -> None:
        address = f"{url}/api/client/v2.0/app/bench/auth/providers/anon-user/login"
        token = httpx.post(address, json={"provider": "anon-user"}, timeout=WAIT).json()["access_token"]
        self.dialect = Dialect()
        kind: Any = self.dialect.subprotocol
        address = f"{url.replace('http', 'ws', 1)}/api/client/v2.0/app/bench/realm-sync?baas_at={token}"
        self.socket = connect(address, subprotocols=[kind], compression=None, max_size=None, legacy=True)
        self.received = self.version = self.client = 0
        self._send(Bind(1, {"schemaVersion": 0, "sessionReason": 0}, True))
        message = self.read()
        while not isinstance(message, Ident):
            message = self.read()
        self._send(ClientIdent(1, message.file_ident, message.salt, 0, 0, 0, 0, 0, {}))

    def _send(self, message: Any) -> None:
        self.socket.send(encode(message, self.dialect))

    def read(self) -> Any:
        """Read a message."""
        data = self.socket.recv(timeout=WAIT)
        self.received += len(data)
        message = parse_server(data, self.dialect)
        if isinstance(message, JsonError | QueryError):
            raise SystemExit(f"The server refused: {message}")
        return message

    def subscribe(self) -> tuple[int, int]:
        """Subscribe to everything; give the entries' bytes and the bytes on the wire."""
        self.received = size = 0
        self._send(Query(1, 1, QUERY))
        while True:
            message = self.read()
            if isinstance(message, Download):
                size += sum(len(e.changeset) for e in message.entries)
                self.version = message.download_server_version
                if message.query_version == 1 and message.batch is BatchState.LAST_IN_BATCH:
                    return size, self.received

    def upload(self, changesets: list[bytes], per_message: int) -> None:
        """Upload changesets without waiting, then wait for the last to be acknowledged."""
        for first in range(0, len(changesets), per_message):
            part = changesets[first : first + per_message]
            entries = tuple(UploadEntry(self.client + 1 + i, self.version, 1, 0, c) for i, c in enumerate(part))
            self.client += len(part)
            self._send(Upload(1, self.client, self.version, 0, entries))
        acknowledged = 0
        while acknowledged < self.client:
            message = self.read()
            if isinstance(message, Download):
                acknowledged, self.version = message.upload_client_version, message.download_server_version

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()


def _uploads(folder: Path, per_message: int) -> float:
    with Server(folder, process=True) as server:
        client = _Client(server.url)
        client.upload([_schema()], 1)
        client.subscribe()
        client.upload([_objects(n, 1) for n in range(-200, 0)], per_message)
        changesets = [_objects(n, 1) for n in range(UPLOADS)]
        start = time.perf_counter()
        client.upload(changesets, per_message)
        rate = UPLOADS / (time.perf_counter() - start)
        client.close()
    return rate


def _inserts(folder: Path) -> float:
    folder.mkdir()
    database = sqlite3.connect(folder / "plain.sqlite", isolation_level=None)
    database.executescript(
        "pragma journal_mode=wal; pragma synchronous=full; create table C (id integer primary key, a, b, c, d, e)"
    )
    start = time.perf_counter()
    for n in range(UPLOADS):
        database.execute("insert into C values (?, ?, ?, ?, ?, ?)", (n, n, n, n, n, n))
    rate = UPLOADS / (time.perf_counter() - start)
    database.close()
    return rate


def _bootstrap(folder: Path, objects: int, rounds: int) -> None:
    with Server(folder, process=True) as server:
        client = _Client(server.url)
        client.upload([_schema()], 1)
        client.subscribe()
        client.upload([_objects(n, min(BATCH, objects - n)) for n in range(0, objects, BATCH)], 1)
        client.close()
        rates = []
        for _ in range(rounds):
            client = _Client(server.url)
            start = time.perf_counter()
            size, wire = client.subscribe()
            rates.append(objects / (time.perf_counter() - start))
            client.close()
    print(
        f"bootstrap of {objects:,} objects over loopback: median {statistics.median(rates):,.0f} objects/s; "
        f"{size:,} changeset bytes, {wire:,} on the wire: {wire / size:.3f} a byte"
    )


def main() -> None:
    """Run everything."""
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, single, plain = [], [], []
        for n in range(rounds):
            many.append(_uploads(folder / f"many{n}", PER_MESSAGE))
            single.append(_uploads(folder / f"single{n}", 1))
            plain.append(_inserts(folder / f"plain{n}"))
        base = statistics.median(plain)
        print(f"SQLite, WAL, synchronous=FULL, one insert a commit: median {base:,.0f}/s")
        for what, rates in ((f"{PER_MESSAGE} to a message", many), ("one to a message", single)):
            rate = statistics.median(rates)
            print(f"durable uploads of one object, {what}: median {rate:,.0f}/s, ratio {rate / base:.2f}")
        _bootstrap(folder / "bootstrap", objects, rounds)


if __name__ == "__main__":
    main()
