"""A world of one server and several devices, in which everything that happens follows from a seed."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from realmframe.changes.instructions import CreateObject, Instruction
from realmframe.client.reset import RECOVER, RECOVER_OR_DISCARD
from tests.simulation import features, oracle
from tests.simulation.clients import Device, Replica
from tests.simulation.disk import SimulatedKill
from tests.simulation.loop import Loop
from tests.simulation.network import Network, short
from tests.simulation.seams import simulated
from tests.simulation.server import Server
from tests.simulation.writes import VIEWS

#: Simulated seconds within which everybody has to come together once nothing fails any more.
PATIENCE = 5_000.0


@dataclass(frozen=True)
class Settings:
    """What kind of world it is; drawn from the seed, so that seeds differ in more than the order of events."""

    flexible: bool
    devices: int
    latency: float
    server_delay: float
    limits: str
    fuse_chance: float
    weights: tuple[tuple[str, float], ...]
    pause: float
    views: tuple[str, ...] = VIEWS
    reset_mode: str | None = None
    #: After how many operations of its disk a process dies that was started for the first time.
    fuses: tuple[tuple[str, int], ...] = ()
    phases: int = 2
    steps: int = 60
    #: Names of what there is beside items and a ledger; see :mod:`.features`.
    features: tuple[str, ...] = ()

    @classmethod
    def drawn(cls, rng: random.Random) -> Settings:
        """Draw settings."""
        faults = {"cut": 4.0, "kill": 2.0, "kill server": 1.5, "offline": 2.0, "reopen": 1.0, "pause": 1.0}
        chosen = {name: weight * rng.choice([0, 1, 1, 3]) for name, weight in faults.items()}
        usual = {"write": 30.0, "line": 12.0, "subscribe": 3.0 * rng.choice([0, 1, 3]), "checkpoint": 1.0}
        return cls(
            flexible=rng.random() < 0.65,
            devices=rng.randint(2, 4),
            latency=rng.choice([0.001, 0.05, 0.5]),
            server_delay=rng.choice([0.001, 0.05, 0.5]),
            limits=rng.choice(["tiny", "small", "usual"]),
            fuse_chance=rng.choice([0.0, 0.3, 0.8]),
            weights=tuple({**usual, **chosen}.items()),
            pause=rng.choice([0.01, 0.1, 1.0]),
        )


class SimulationFailure(AssertionError):
    """A world in which something went wrong."""


class World:
    """One simulation.

    Parameters
    ----------
    seed : int or str
    changes : mapping of str to Any
        Settings other than those that the seed gives.
    """

    def __init__(self, seed: int | str, **changes: Any) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed} world")
        mode = random.Random(f"{seed} reset").choice([None, None, None, None, RECOVER, RECOVER_OR_DISCARD])
        drawn = {"reset_mode": mode, "features": features.drawn(seed)}
        self.settings = replace(Settings.drawn(self.rng), **{**drawn, **changes})
        self.features = [
            kind(self)
            for name, kind in features.known().items()
            if name in self.settings.features and (self.settings.flexible or not kind.is_flexible)
        ]
        self.loop = Loop(random.Random(f"{seed} threads"))
        self.loop.set_exception_handler(self._on_exception)
        self.trace: list[str] = []
        self.failures: list[str] = []
        self.dead: list[tuple[Any, Any]] = []
        self.session_numbers = itertools.count(1)
        self.network = Network(self)
        #: Whether nothing fails for now.
        self.is_calm = False
        #: Whether an administrator has done something since all came together last.
        self.was_ordered = False

    @classmethod
    def with_one_kill(cls, seed: int, name: str, operations: int, **changes: Any) -> World:
        """Make a world where one process dies, after so many operations of its disk, and nothing else does."""
        weights = (("write", 30.0), ("line", 12.0), ("subscribe", 4.0), ("checkpoint", 4.0), ("cut", 1.0))
        kill = {"fuses": ((name, operations),), "fuse_chance": 0.0, "weights": weights, "reset_mode": None}
        return cls(seed, **{"devices": 2, "phases": 1, "steps": 25, "pause": 0.1, **kill, **changes})

    # ---- what happened

    def note(self, who: str, what: Any) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{self.loop.time():.6f} {who}: {short(what)}")

    @property
    def digest(self) -> str:
        """Give a hash of the trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def _on_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if not isinstance(fault, SimulatedKill):
            self.failures.append(f"{context.get('message')}: {fault!r}")

    # ---- its life

    def run(self) -> World:
        """Let it happen.

        Raises
        ------
        SimulationFailure
            With the seed and what went wrong; the trace is kept.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="realmframe-simulation-"))
        try:
            with simulated(self):
                try:
                    self.loop.run_until_complete(self._story())
                finally:
                    self._bury()
        except Exception as fault:
            raise SimulationFailure(f"seed {self.seed}: {fault!r}") from fault
        finally:
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        return self

    async def _story(self) -> None:
        self.begin()
        first, *others = self.devices
        first.start()
        await self.settle([first])
        for replica in first.replicas:
            while replica.ledger() is None:
                first.run(replica.commit, CreateObject("Ledger", 1))
                await self.settle([first])
            for feature in self.features:
                first.run(feature.founded, replica)
        self.is_calm = False
        for device in others:
            self.loop.call_later(self.rng.expovariate(0.2), self.revive, device)
        for _ in range(self.settings.phases):
            for _ in range(self.settings.steps):
                await asyncio.sleep(self.rng.expovariate(1.0 / self.settings.pause))
                self._act()
                self._look()
            await self.settle(self.devices)
            for process in (self.server, *self.devices):
                process.disk.fuse = None
            oracle.check(self)
            self.is_calm = self.was_ordered = False

    def begin(self) -> None:
        """Make the server and the devices."""
        self.server = Server(self)
        self.server.start()
        flexible = self.settings.flexible
        self.devices = [
            Device(self, "abcdef"[n], [None] if flexible else ['"p"', '"q"'][: 1 + (n == 1)])
            for n in range(self.settings.devices)
        ]
        for feature in self.features:
            self.devices += feature.devices(self.devices)

    def schema(self, device: Device) -> list[Instruction]:
        """Give what a device's program has beside the classes that all worlds have."""
        return [one for feature in self.features for one in feature.schema(device)]

    @property
    def replicas(self) -> list[Replica]:
        """List all realms of all devices."""
        return [replica for device in self.devices for replica in device.replicas]

    def revive(self, process: Device | Server) -> None:
        """Start what is down."""
        if process.is_dead:
            process.start()

    def fuse(self, process: Device | Server, most: int) -> int | None:
        """Give how many operations a process that is being started has to live; None: it is not to die."""
        fuses = dict(self.settings.fuses)
        if process.starts == 1 and process.name in fuses:
            return fuses[process.name]
        dies = not self.is_calm and self.rng.random() < self.settings.fuse_chance
        return self.rng.randint(0, most) if dies else None

    def _look(self) -> None:
        if self.failures:
            raise SimulationFailure("; ".join(self.failures))

    def _bury(self) -> None:
        """Close the files of all processes, dead or not."""
        for process in [*getattr(self, "devices", ()), self.server]:
            process.end()
        for device in getattr(self, "devices", ()):
            self.dead += [(r.store, r.session) for r in device.replicas if hasattr(r, "session")]
        self.loop.run_until_complete(asyncio.sleep(0))
        for store, session in self.dead:
            if not store._closed:
                store._let_go()
            if session is not None:
                session.binding.release()
        self.server.database.engine.dispose()

    # ---- what happens

    def _act(self) -> None:
        resets = () if self.settings.reset_mode is None else (("trim", 3.0), ("reset", 2.0))
        more = [(feature.name, feature.weight) for feature in self.features]
        names, weights = zip(*self.settings.weights, *resets, *more, strict=True)
        (what,) = self.rng.choices(names, weights)
        device = self.rng.choice(self.devices)
        replica = self.rng.choice(device.replicas)
        if (device.is_dead or device.is_reopening) and what != "kill server":
            return
        if not device.is_dead and not device.is_reopening:
            device.run(replica.refresh)
        if what in self._ACTIONS:
            self._ACTIONS[what](self, device, replica)
        else:
            next(feature for feature in self.features if feature.name == what).act(device, replica)

    def _kill(self, device: Device, _replica: Replica) -> None:
        if self.rng.random() < 0.3:
            device.kill()
        else:
            device.disk.fuse = self.rng.randint(0, 12)

    def _kill_server(self, _device: Device, _replica: Replica) -> None:
        if self.server.is_dead:
            return
        if self.rng.random() < 0.3:
            self.server.kill()
        else:
            self.server.disk.fuse = self.rng.randint(0, 40)

    def _cut(self, device: Device, _replica: Replica) -> None:
        for link in self.network.of(device):
            link.cut()

    def _offline(self, device: Device, _replica: Replica) -> None:
        device.is_offline = True
        self._cut(device, _replica)

        def online() -> None:
            device.is_offline = False
            for replica in device.replicas:
                if not device.is_dead:
                    device.run(replica.session._reconnect)

        self.loop.call_later(self.rng.expovariate(0.2), online)

    def _reopen(self, device: Device, _replica: Replica) -> None:
        if device.is_busy:
            return
        device.chores.append(device.spawn(device.reopen()))

    def _pause(self, device: Device, replica: Replica) -> None:
        if device.is_busy:
            return

        async def pause() -> None:
            await replica.session._stop()
            await asyncio.sleep(self.rng.expovariate(0.5))
            replica.session.begin()

        device.chores.append(device.spawn(pause()))

    def _write(self, device: Device, replica: Replica) -> None:
        device.run(replica.write)

    def _line(self, device: Device, replica: Replica) -> None:
        for _ in range(self.rng.choice([1, 1, 1, 5])):
            device.run(replica.write_line)

    def _subscribe(self, device: Device, replica: Replica) -> None:
        if replica.partition is None:
            device.run(replica.subscribe, self.rng.choice(self.settings.views))

    def _checkpoint(self, device: Device, replica: Replica) -> None:
        device.run(replica.store.checkpoint)

    def _trim(self, _device: Device, _replica: Replica) -> None:
        self._order("trim", keep=self.rng.choice([0, 3, 10]))

    def _reset(self, device: Device, _replica: Replica) -> None:
        recovery = self.settings.reset_mode == RECOVER or self.rng.random() < 0.5
        self._order("reset-client", user=device.user, recovery=recovery)

    def _order(self, what: str, **arguments: Any) -> None:
        """Have an administrator want something; once until all have come together, since resets in a row are errors."""
        if self.server.is_dead or self.was_ordered:
            return
        self.was_ordered = True
        self.note("admin", f"{what} {arguments}")
        self.server.run(self.server.order, what, arguments)
        self.loop.call_later(0.3, lambda: None if self.server.is_dead else self.server.idle())

    _ACTIONS: ClassVar[dict[str, Callable[[World, Device, Replica], None]]] = {
        "write": _write,
        "line": _line,
        "subscribe": _subscribe,
        "checkpoint": _checkpoint,
        "cut": _cut,
        "kill": _kill,
        "kill server": _kill_server,
        "offline": _offline,
        "reopen": _reopen,
        "pause": _pause,
        "trim": _trim,
        "reset": _reset,
    }

    # ---- coming together

    async def settle(self, devices: list[Device]) -> None:
        """Let nothing fail any more, and wait until everybody has everything."""
        self.is_calm = True
        self.note("world", "settles")
        for process in [self.server, *devices]:
            if not process.is_dead and not self.settings.fuses:
                process.disk.fuse = None
            self.loop.call_later(0.5, self.revive, process)
        await asyncio.sleep(1.0)
        for feature in self.features:
            await feature.calm()
        for device in devices:
            for done in await asyncio.gather(*device.chores, return_exceptions=True):
                if isinstance(done, Exception):
                    raise done
            device.chores.clear()
            device.is_offline = False
        ends = self.loop.time() + PATIENCE
        for what in ("wait_subscriptions", "wait_upload", "wait_download"):
            for replica in [r for d in devices for r in d.replicas]:
                if what == "wait_subscriptions" and replica.partition is not None:
                    continue
                await self._wait(replica, what, ends)
        self._look()

    async def _wait(self, replica: Replica, what: str, ends: float) -> None:
        task: asyncio.Task[None] | None = None
        while task is None or not task.done():
            if task is None and not replica.device.is_dead:
                task = replica.device.spawn(getattr(replica.session, what)())
            await asyncio.wait({task or asyncio.ensure_future(asyncio.sleep(20.0))}, timeout=20.0)
            self._look()
            if self.loop.time() > ends:
                raise SimulationFailure(f"{replica.name}: {what} never ends: {replica.session!r}")
            if task is not None and task.cancelled():
                task = None  # its process died: the next one waits anew
        task.result()
