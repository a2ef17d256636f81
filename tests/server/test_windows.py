"""Backlogs meet windows of the log: uploads, log and reciprocals are to the byte what merging everything anew gives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from realmframe.changes import Changeset, Instruction
from realmframe.errors import ProtocolError
from realmframe.merge import lanes
from realmframe.server import database as db
from realmframe.server.entries import ClientFile
from realmframe.server.history import History
from realmframe.server.windows import Windows
from realmframe.wire import UploadEntry
from tests.plain import PlainRealm
from tests.server.anew import Anew
from tests.writer import OBJECTS, SCHEMA, Writer

from .databases import open_database

#: Properties that all clients change: few, so that they meet.
FIELDS = ("li", "le", "lm", "n", "si", "ss", "dm", "e", "to")


class Server:
    """A history that can begin again."""

    def __init__(self, folder: Path, kind: type[Windows], most: int) -> None:
        self.database, self.kind, self.most = open_database(folder), kind, most
        self.start()

    def start(self) -> None:
        """Begin, from what is on disk."""
        self.history = History(self.database, "app", "flx")
        history = self.history
        history._windows = self.kind(history.since, history.files.note_reciprocals, history.passing, self.most)

    def upload(self, ident: int, entry: UploadEntry) -> str:
        """Integrate; give the error, if there is one."""
        try:
            self.history.integrate(self.history.files[ident], entry)
        except ProtocolError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def commit(self) -> list[Any]:
        """Write; give all that is in the log and beside it, and what is in memory of it."""
        with self.database.transaction() as sql:
            self.history.write(sql)
            rows = [list(sql.execute(sa.select(t).order_by(*t.primary_key))) for t in (db.log, db.reciprocals)]
        files = self.history.files.values()
        return [*rows, [{v: c.encode() for v, c in sorted(f.reciprocals.items())} for f in files]]


class Client:
    """Writes for a while on one state, then uploads bit by bit, then begins again where the server is."""

    def __init__(self, file: ClientFile, rng: random.Random) -> None:
        self.ident, self.rng = file.ident, rng
        self.version = self.base = 0
        self.waiting: list[list[Instruction]] = []

    def write(self, base: int, realm: PlainRealm, focus: list[str]) -> None:
        """Make a backlog on a state of the server."""
        self.base = base
        for _ in range(self.rng.randrange(1, 12)):
            writer = Writer(realm, self.rng.randrange, focus=focus, schema=self.rng.randrange(6) == 0)
            for _ in range(self.rng.randrange(1, 4)):
                writer.step()
            self.waiting.append(writer.made)

    def uploads(self, count: int) -> Iterator[UploadEntry]:
        """Upload some of it; the base of one in a while is behind."""
        for made in self.waiting[:count]:
            self.version += 1
            base = self.base if self.rng.randrange(12) else max(1, self.base - self.rng.randrange(3))
            data = Changeset.from_instructions(made).encode()
            yield UploadEntry(self.version, base, self.rng.randrange(1, 9), 0, data)
        del self.waiting[:count]


class World:
    """Two servers that get the same."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        most = self.rng.choice([0, 40_000, 64 << 20])
        self.servers = [Server(folder / "windows", Windows, most), Server(folder / "anew", Anew, most)]
        self.focus = self.rng.sample(FIELDS, 2)
        files = [[s.history.files.new("u") for _ in range(3)] for s in self.servers]
        self.clients = [Client(file, self.rng) for file in files[0]]
        self.refused = self.kept = 0
        first = self.clients[0]
        first.waiting = [[*SCHEMA, *OBJECTS]]
        self.upload(first, 1)

    @property
    def version(self) -> int:
        """Where the servers are."""
        return self.servers[0].history.version

    def state(self) -> PlainRealm:
        """Give the state that the log makes."""
        realm = PlainRealm()
        for entry in self.servers[0].history.since(1):
            for one in entry.changeset.instructions():
                realm.apply(one)
        return realm

    def upload(self, client: Client, count: int) -> None:
        """Upload to both; one that refuses does so with the same words as the other."""
        for entry in client.uploads(count):
            errors = [s.upload(client.ident, entry) for s in self.servers]
            assert errors[0] == errors[1]
            if errors[0]:
                self.refused += 1
                client.waiting.clear()
                return

    def step(self) -> None:
        """Do something."""
        rng, client = self.rng, self.rng.choice(self.clients)
        if client.waiting:
            self.upload(client, rng.randrange(1, 5))
        else:
            client.write(self.version, self.state(), self.focus)
        if rng.randrange(6) == 0:
            version = client.base - rng.randrange(2)
            for server in self.servers:
                server.history.advance(server.history.files[client.ident], 0, version)
        if rng.randrange(8) == 0:
            self.compare()
        if rng.randrange(20) == 0:
            self.compare()
            for server in self.servers:
                server.start()

    def compare(self) -> None:
        """Commit, and compare all there is."""
        one, other = (s.commit() for s in self.servers)
        assert one == other
        self.kept += len(one[1])


@pytest.mark.parametrize("seed", range(12))
def test_backlogs_come_out_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Clients upload what they wrote offline, in any order, across commits and starts, with windows of any size."""
    monkeypatch.setattr(lanes, "FEW", 1 + seed % 4)
    world = World(tmp_path, seed)
    for _ in range(60):
        world.step()
    world.compare()
    assert world.version > 40
    assert world.kept


def test_a_trimmed_log(tmp_path: Path) -> None:
    """What is trimmed is met no more; what is not, as before."""
    world = World(tmp_path, 98)
    for _ in range(25):
        world.step()
    for client in world.clients:
        client.waiting.clear()
        client.write(world.version, world.state(), world.focus)
    for _ in range(2):
        for client in world.clients:
            world.upload(client, 2)
        for server in world.servers:
            server.history.trim(world.clients[0].base + 2)
        world.compare()
    assert world.kept > 5
