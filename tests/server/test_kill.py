"""A server that is killed between taking an upload and acknowledging it: nothing is lost, nothing is applied twice."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddInteger, AddTable, CreateObject, Update
from realmframe.model import ClassKind, PropertyType
from realmframe.server import database as db
from realmframe.server.history import History
from realmframe.testing import Server
from realmframe.wire import Upload, UploadEntry
from tests.waiting import WAIT

from .conftest import RawConnection, log_in

KILLS = 4
SECONDS = 2 * WAIT
BURST = 40
BATCH = 5
QUERY = {"Counter": "(TRUEPREDICATE )"}


def _schema() -> bytes:
    made = [
        AddTable("Counter", ClassKind.TOPLEVEL, "_id", PropertyType.INT),
        AddColumn("Counter", "n", PropertyType.INT),
    ]
    return Changeset.from_instructions(made).encode()


def _counter() -> bytes:
    made = [CreateObject("Counter", 0), Update("Counter", 0, "n", (), 0)]
    return Changeset.from_instructions(made).encode()


def _step(version: int) -> bytes:
    """Count up once, and leave an object that tells which upload it was."""
    made = [AddInteger("Counter", 0, "n", (), 1), CreateObject("Counter", version)]
    return Changeset.from_instructions(made).encode()


class _Writer:
    """A client that keeps what it wrote until it is acknowledged, as real ones do."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token = log_in(url)["access_token"]
        wire = RawConnection(url, "test", self.token)
        session = wire.session()
        session.open()
        session.upload(2, _schema())
        session.query(1, **QUERY)  # a client may only write what it has subscribed to
        session.upload(3, _counter())
        assert session.ident is not None
        self.file = (session.ident.file_ident, session.ident.salt)
        self.written = self.acknowledged = 3
        self.downloaded, self.client = session.rules.version, session.rules.client
        self.pending: list[UploadEntry] = []
        self.resent = 0
        self.session = session

    def connect(self) -> None:
        """Connect again, and send everything that is not acknowledged."""
        wire = RawConnection(self.url, "test", self.token)
        self.session = wire.session()
        self.session.rules.has_written = self.written
        self.session.open((*self.file, self.downloaded, self.client), QUERY, 1)
        self.resent += len(self.pending)
        for first in range(0, len(self.pending), BATCH):
            self.send(self.pending[first : first + BATCH])

    def send(self, entries: list[UploadEntry]) -> None:
        """Upload."""
        last = entries[-1]
        self.session.wire.send(Upload(1, last.client_version, last.server_version, 0, tuple(entries)))

    def burst(self, count: int) -> None:
        """Write and send without waiting for anything."""
        for _ in range(count // BATCH):
            entries = []
            for _ in range(BATCH):
                self.written += 1
                entries.append(UploadEntry(self.written, self.downloaded, 1000, 0, _step(self.written)))
            self.pending += entries
            self.session.rules.has_written = self.written
            self.send(entries)

    def read(self, done: Any, seconds: float) -> None:
        """Take what the server sends."""
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            self.session.wire.until(done, seconds, may_fail=True)
        rules = self.session.rules
        assert not self.session.errors
        self.acknowledged = max(self.acknowledged, rules.upload)
        self.downloaded = max(self.downloaded, rules.version)
        self.client = max(self.client, rules.client)
        self.pending = [e for e in self.pending if e.client_version > self.acknowledged]

    def close(self) -> None:
        """Drop the connection."""
        self.session.wire.close()


def _durable(data: Path) -> int:
    """Read from the log up to where the client is integrated."""
    with contextlib.closing(sqlite3.connect(data / "server.sqlite")) as database:
        return int(database.execute("select max(client_version) from log").fetchone()[0])


@pytest.mark.process
def test_killed_while_uploads_come_in(tmp_path):
    """Whenever it is killed, all that a client wrote is there once, and all that was acknowledged stayed."""
    data = tmp_path / "data"
    server = Server(data, process=True)
    server.start()
    chance, ends = random.Random(7), time.monotonic() + SECONDS
    try:
        writer = _Writer(server.url)
        unanswered = repeated = 0
        for n in range(KILLS):
            assert time.monotonic() < ends
            writer.burst(BURST)
            writer.read(lambda: False, chance.uniform(0.0, 0.03))
            try:
                writer.burst(BURST)  # some of it is on its way, or half done
            except ConnectionClosed:
                pytest.fail("The server closed the connection by itself.")
            while n % 2 and _durable(data) <= writer.acknowledged and time.monotonic() < ends:
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.02))
            server.kill()
            if n % 2 == 0:  # else the client never hears of what was committed, and sends it again
                writer.read(lambda: False, 0.5)
            unanswered += len(writer.pending)
            writer.close()
            assert _durable(data) >= writer.acknowledged
            repeated += _durable(data) - writer.acknowledged
            server.start()
            writer.connect()
        writer.read(lambda: not writer.session.rules.upload < writer.written, WAIT)
        assert writer.acknowledged == writer.written == 3 + 2 * BURST * KILLS
        assert writer.resent >= unanswered > 0
        assert repeated > 0  # some uploads were in the log already when they came again
        writer.close()
    finally:
        server.stop()
    database = db.Database(data)
    history = History(database, "test", "flx", data)
    keys = history.snapshot.column("Counter", "_id").to_pylist()
    counts = history.snapshot.column("Counter", "n").to_pylist()
    versions = [e.client_version for e in history.since(1) if e.client_version]
    database.engine.dispose()
    assert counts[keys.index(0)] == writer.written - 3
    assert sorted(keys) == [0, *range(4, writer.written + 1)]
    assert versions == sorted(set(versions))
