"""Devices: the client's own sessions, connections and stores, on a simulated machine."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddInteger, ArrayInsert, CreateObject, EraseObject, Instruction, Update
from realmframe.client.app import SyncTimeouts
from realmframe.client.connection import Connection
from realmframe.client.options import SessionOptions
from realmframe.client.reset import RECOVER, ResetOptions
from realmframe.client.subscriptions import StoredSubscriptions
from realmframe.client.sync import SyncSession
from realmframe.client.sync_client import SyncClient
from realmframe.errors import CompensatingWriteError, NetworkError, RealmError
from realmframe.store import Owner, RealmStore
from tests.simulation.disk import Disk
from tests.simulation.loop import PROCESS, Process
from tests.simulation.network import Link
from tests.simulation.writes import LEDGER, Line, change, contents, fresh, schema_missing

if TYPE_CHECKING:
    from tests.simulation.world import World


class SimulatedConnection(Connection):
    """The client's connection, with the simulated network in the place of httpx, and seeded numbers."""

    def __init__(self, app: Any, user_id: str, flexible: bool) -> None:
        super().__init__(app, user_id, flexible)
        self.machine.random = random.Random(f"{app.device.world.seed} {app.device.name} {app.device.starts}")
        self.machine._numbers = app.device.world.session_numbers

    def pump(self) -> None:
        """Act, unless the process is dead: what its cancelled tasks still say must not make it connect again."""
        if self.app.is_running:
            super().pump()

    @contextlib.asynccontextmanager
    async def _dial(self, url: str, limit: float) -> AsyncIterator[Any]:
        link: Link = await self.app.device.world.network.dial(self.app.device, url, flexible=self.flexible)
        try:
            yield link
        finally:
            link.hang_up()


class App:
    """What sync needs of an app whose user is logged in for good."""

    id, base_url, timeout, multiplex_sessions = "app", "ws://server", 60.0, True

    def __init__(self, device: Device) -> None:
        self.device = device
        self._starts = device.starts
        self.sync_timeouts = SyncTimeouts()
        self.metadata = SimpleNamespace(get=lambda _user: None, folder=device.folder / "metadata")
        self.services = SimpleNamespace(
            is_located=True, known_location=SimpleNamespace(sync_route="ws://server/sync"), location=self._location
        )
        self.sync = SyncClient(self)  # type: ignore[arg-type]

    @property
    def is_running(self) -> bool:
        """Whether the process that made it lives; the device may have started another one since."""
        return not self.device.is_dead and self.device.starts == self._starts

    async def access_token(self, _user: str, *, stale: str | None = None) -> str:
        """Give a token."""
        return "token"

    def clock(self) -> float:
        """Give the time."""
        return self.device.world.loop.time()

    async def _location(self, *, refresh: bool = False) -> None:
        """Nothing moves."""


class Replica:
    """One realm on a device.

    Parameters
    ----------
    device : Device
    name : str
        Unique in the world.
    partition : str or None
        None for Flexible Sync.
    """

    def __init__(self, device: Device, name: str, partition: str | None) -> None:
        self.device, self.name, self.partition, self.world = device, name, partition, device.world
        #: Name of its folder.
        self.file = name
        self.rng = random.Random(f"{device.world.seed} {name}")
        self.lines: list[Line] = []
        self._made = 0
        self._skew = device.world.rng.choice([0, 0, 5_000, -5_000, 86_400_000])

    def start(self) -> None:
        """Open the files, and check that everything which was committed is there."""
        device, flexible = self.device, self.partition is None
        owner = Owner("app", device.user, self.partition)
        self.store = RealmStore.open(device.folder / f"{self.file}.realm", owner=owner)
        self.check_lines()
        for feature in self.world.features:
            feature.opened(self)
        self.subscriptions = StoredSubscriptions(self.store)
        options = SessionOptions(
            device.user,
            flexible,
            self.partition,
            on_error=self._on_error,
            client_reset=ResetOptions(self.world.settings.reset_mode or RECOVER),
        )
        self.session = SyncSession(device.app, self.store, self.subscriptions, options)  # type: ignore[arg-type]
        self.store.listen(lambda _news: self.session.wake())
        self.bring_schema()
        if flexible and self.subscriptions.is_new:
            self.subscribe(self.world.rng.choice(self.world.settings.views))
        self.bring_subscriptions()
        self.session.begin()

    def bring_schema(self) -> None:
        """Add what the schema lacks of the program's."""
        missing = schema_missing(self.store.snapshot, self.world.schema(self.device))
        if len(missing):
            self._commit(missing)

    def bring_subscriptions(self) -> None:
        """Subscribe to the classes that the program has come to know."""
        if self.partition is None and not all(map(self.has_subscribed, self._besides())):
            items = next(s.query for s in self.subscriptions.sets.latest if s.name == "Item")
            self.subscribe(items)

    def _besides(self) -> dict[str, str]:
        """Give what is subscribed to besides items."""
        more = {k: v for feature in self.world.features for k, v in feature.subscriptions(self).items()}
        return {**LEDGER, **more}

    def has_subscribed(self, name: str) -> bool:
        """Whether objects of a class may be written."""
        return self.partition is not None or any(s.name == name for s in self.subscriptions.sets.latest)

    def _on_error(self, _session: Any, error: RealmError) -> None:
        expected = (kind for feature in self.world.features for kind in feature.expected)
        if isinstance(error, (CompensatingWriteError, NetworkError, *expected)):
            return
        self.world.note(self.name, f"error {error}")
        self.world.failures.append(f"{self.name}: {error!r}")

    @property
    def is_idle(self) -> bool:
        """Whether it has uploaded and downloaded everything, as far as it knows."""
        done = self.partition is not None or self.session.is_current
        return done and not self.store.pending() and self.session.integration._work.empty()

    def refresh(self) -> None:
        """Begin as a transaction does: with what other processes have committed."""
        if self.device.is_one_of_several:
            self.store.refresh()

    # ---- writing

    def _commit(self, changeset: Changeset) -> int:
        timestamp = max(2, int(self.world.loop.time() * 1000) + self._skew)
        return self.store.commit(changeset, timestamp=timestamp).version

    def commit(self, *instructions: Instruction) -> int:
        """Commit a transaction; the process may die of it."""
        version = self._commit(Changeset.from_instructions(list(instructions)))
        self.world.note(self.name, f"commit {version}: {instructions}")
        return version

    def subscribe(self, text: str) -> None:
        """Want other items from now on."""
        update = self.subscriptions.sets.latest.update()
        now = int(self.world.loop.time() * 1000)
        for name, query in {**self._besides(), "Item": text}.items():
            update.add(name, query, new_id=f"{self._number():024x}", now=now, name=name)
        self.subscriptions.commit(update)
        self.world.note(self.name, f"subscribe {text}")
        self.session.wake()

    def _number(self) -> int:
        self._made += 1
        return self._made

    def write(self) -> None:
        """Change items at random."""
        for _ in range(self.rng.randint(1, 3)):
            snapshot = self.store.snapshot
            if "Item" not in snapshot.tables:
                return
            items = contents(snapshot)["Item"]
            key = self.rng.choice(range(4))
            if key not in items:
                self.commit(*fresh(self.rng, key))
            elif self.rng.random() < 0.1:
                self.commit(EraseObject("Item", key))
            else:
                self.commit(*change(self.rng, key, items[key], self.name))

    def write_line(self) -> None:
        """Write what nothing may undo or repeat: a sum, a line in a list, an object of its own."""
        lines = self.ledger()
        if lines is None:
            return
        line = Line(f"{self.name}-{self._number()}", self.rng.randint(1, 9))
        self.lines.append(line)
        instructions: list[Instruction] = [
            AddInteger("Ledger", 1, "count", (), line.amount),
            ArrayInsert("Ledger", 1, "lines", (self.rng.randint(0, len(lines)),), line.text, len(lines)),
            CreateObject("Note", line.text),
            Update("Note", line.text, "amount", (), line.amount),
        ]
        self.commit(*instructions)
        line.is_sure = True

    def ledger(self) -> list[str] | None:
        """Give the lines that are here; None without a ledger."""
        snapshot = self.store.snapshot
        if "Ledger" not in snapshot.tables or not len(snapshot.tables["Ledger"]):
            return None
        return list(snapshot.values("Ledger", "lines")[0])

    def check_lines(self) -> None:
        """After a start: what was committed is there, and whole; what was being committed is or is not."""
        # Not the list: a state that the server made up may lack what was not uploaded then, until it is corrected.
        snapshot = self.store.snapshot
        here = set(snapshot.values("Note", "_id")) if "Note" in snapshot.tables else set()
        if self.world.settings.reset_mode is None:
            lost = [line.text for line in self.lines if line.is_sure and line.text not in here]
            assert not lost, f"{self.name} lost what it had committed: {lost}"
        self.lines = [line for line in self.lines if line.is_sure or line.text in here]
        for line in self.lines:
            line.is_sure = True


class Device(Process):
    """A machine with one process, which can be killed and started again."""

    def __init__(self, world: World, name: str, partitions: list[str | None]) -> None:
        super().__init__(name, world.loop)
        self.world, self.user = world, f"user-{name}"
        self.is_offline = False
        #: What it is about to do with its sessions.
        self.chores: list[asyncio.Task[None]] = []
        self.starts = 0
        self._image: dict[str, bytes] = {}
        #: Other processes of the machine, which share its disk and die with it.
        self.others: list[Device] = []
        self.replicas = [Replica(self, f"{name}{n}", partition) for n, partition in enumerate(partitions)]
        self.is_dead = True

    def start(self) -> None:
        """Boot, from what the disk kept."""
        self.starts += 1
        self.boot(random.Random(f"{self.world.seed} {self.name} disk {self.starts}"))
        self.is_dead = self.is_reopening = False
        self.app = self._make_app()
        self.world.note(self.name, f"start {self.starts}")
        if self.name in dict(self.world.settings.fuses):
            self.disk.fuse = self.world.fuse(self, 0)
        for replica in self.replicas:
            self.run(replica.start)
        if not self.world.settings.fuses:
            self.disk.fuse = self.world.fuse(self, 60)

    def boot(self, rng: random.Random) -> None:
        """Take the disk."""
        self.folder = Path(self.world.folder / f"{self.name}-{self.starts}")
        self.folder.mkdir()
        self.disk = Disk(self.folder, self._image, rng, self._crashed)

    def _make_app(self) -> App:
        found = (feature.app(self) for feature in self.world.features)
        return next((app for app in found if app is not None), None) or App(self)

    def kill(self) -> None:
        """End the process now."""
        if not self.is_dead:
            self.disk.crash()

    def _crashed(self) -> None:
        """Carry on as the world of a machine that just died."""
        self.world.note(self.name, f"killed after {self.disk.operations} operations")
        self._image = self.disk.image
        self.fall()
        for other in self.others:
            if not other.is_dead:
                other.disk.is_dead = True
                other.fall()

    def fall(self) -> None:
        """Let nothing of it run any more; its connections end, and it is started again some time."""
        world = self.world
        self.end()
        for connection in self.app.sync.connections():
            connection._generation += 1
            if connection._timer is not None:
                connection._timer.cancel()
        for link in world.network.of(self):
            link.hang_up()
        world.loop.call_later(world.rng.expovariate(0.5), world.revive, self)
        for replica in self.replicas:
            if hasattr(replica, "store"):
                world.dead.append((replica.store, replica.session if hasattr(replica, "session") else None))

    async def reopen(self) -> None:
        """End the sessions and close the files, as a program does, then open them again."""
        self.world.note(self.name, "close")
        self.is_reopening = True
        for replica in self.replicas:
            await replica.session.end()
            replica.store.close()
        for connection in self.app.sync.connections():
            await connection.close()
        self.app = self._make_app()
        for replica in self.replicas:
            replica.start()
        self.is_reopening = False

    @property
    def is_one_of_several(self) -> bool:
        """Whether other processes have the same files open."""
        return bool(self.others)

    @property
    def is_busy(self) -> bool:
        """Whether it is about to do something with its sessions already."""
        return any(not chore.done() for chore in self.chores)


__all__ = ["PROCESS", "App", "Device", "Replica", "SimulatedConnection"]
