"""The server: its own engine, histories and database, without its thread and its sockets."""

from __future__ import annotations

import queue
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from realmframe.server.connection import Connection
from realmframe.server.database import Database, orders
from realmframe.server.engine import Engine
from realmframe.wire import Dialect
from tests.simulation.disk import Disk, SimulatedKill
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.network import Link
    from tests.simulation.world import World


class Server(Process):
    """A server process that can be killed and started again on the same database.

    SQLite's own files are trusted to be atomic and durable; before each statement, each commit and each message that is
    handed over the process may die. Checkpoints lie on a simulated disk.
    """

    def __init__(self, world: World) -> None:
        super().__init__("server", world.loop)
        self.world = world
        self.starts = 0
        self._image: dict[str, bytes] = {}
        self._data = Path(world.folder / "data")
        self.is_dead = True

    def start(self) -> None:
        """Begin, from what is on disk."""
        self.starts += 1
        folder = Path(self.world.folder / f"server-{self.starts}")
        folder.mkdir()
        self.rng = random.Random(f"{self.world.seed} server {self.starts}")
        self.disk = Disk(folder, self._image, self.rng, self._crashed)
        self.is_dead, self._is_awake = False, False
        self.database = Database(self._data)
        self.database.engine.dispose()
        sa.event.listen(self.database.engine, "connect", _trust_the_disk)
        sa.event.listen(self.database.engine, "before_cursor_execute", self._operate)
        sa.event.listen(self.database.engine, "commit", self._operate)
        self.engine = Engine(self.database, development=True, folder=folder)
        self.world.note("server", f"start {self.starts}")
        self.disk.fuse = self.world.fuse(self, 200)

    def _operate(self, *_arguments: Any) -> None:
        self.disk.step("sql")

    # ---- work

    def wake(self) -> None:
        """Have the engine look at its tasks soon."""
        if not self._is_awake and not self.is_dead:
            self._is_awake = True
            self.loop.call_later(self.rng.expovariate(1.0 / self.world.settings.server_delay), self._work, self.engine)

    def _work(self, engine: Engine) -> None:
        if engine is self.engine and not self.is_dead:
            self._is_awake = False
            self.run(self._batch)
            if not self.is_dead and not self.engine._tasks.empty():
                self.wake()

    def _batch(self) -> None:
        try:
            task = self.engine._tasks.get_nowait()
        except queue.Empty:
            return
        self.engine._batch(task)

    def idle(self) -> None:
        """Do what the engine does when nothing has come for a while."""

        def look() -> None:
            self.engine._look_for_orders()
            self.engine._finish()

        self.run(look)

    def order(self, what: str, arguments: dict[str, Any]) -> None:
        """Write down what an administrator wants."""
        with self.database.transaction() as sql:
            sql.execute(orders.insert().values(app="app", what=what, arguments=arguments))

    # ---- the connections

    def accept(self, link: Link, dialect: Dialect) -> Connection:
        """Take a connection."""
        connection = Connection(
            dialect, "app", link.device.user, lambda messages, close: self._deliver(link, messages, close)
        )
        self.engine.opened(connection)
        self.wake()
        return connection

    def _deliver(self, link: Link, messages: list[bytes], close: int | None) -> None:
        for data in messages:
            self.disk.step("deliver")
            link.deliver([data], None)
        if close is not None:
            link.deliver([], close)

    def receive(self, connection: Connection, data: bytes) -> None:
        """Take a message."""
        if not self.is_dead:
            self.engine.receive(connection, data, lambda: None)
            self.wake()

    def written(self, connection: Connection, size: int) -> None:
        """Hear that a message has left."""
        if not self.is_dead and connection.written(size):
            self.engine.drained(connection)
            self.wake()

    def closed(self, connection: Connection) -> None:
        """Hear that a connection ended."""
        if not self.is_dead:
            self.engine.closed(connection)
            self.wake()

    # ---- the end

    def kill(self) -> None:
        """End the process now."""
        if not self.is_dead:
            self.disk.crash()

    def _crashed(self) -> None:
        world = self.world
        world.note("server", f"killed after {self.disk.operations} operations")
        self._image = self.disk.image
        self.end()
        for link in list(world.network.links.values()):
            link.up.is_cut = True
            world.loop.call_later(link.rng.expovariate(2.0), link.client_hears)
        world.network.links.clear()
        database = self.database
        world.loop.call_soon(database.engine.dispose)
        world.loop.call_later(world.rng.expovariate(1.0), world.revive, self)


def _trust_the_disk(connection: Any, _record: Any) -> None:
    """Leave syncing out: the machine under the test does not fail."""
    connection.execute("PRAGMA synchronous=OFF")


__all__ = ["Server", "SimulatedKill"]
