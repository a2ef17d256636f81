"""A second process on a machine, with the same realms open: one of the two syncs, both read and write.

It is killed alone, or with its machine; the first one only with the machine, or it closes its realms and opens them
again. What must hold is what holds for two devices, and that each has what the other committed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from realmframe.store import Snapshot
from tests import plain
from tests.simulation.clients import Device
from tests.simulation.features import Feature

if TYPE_CHECKING:
    from tests.simulation.clients import Replica


class Second(Device):
    """The second process of a machine.

    Parameters
    ----------
    main : Device
        The first one.
    """

    def __init__(self, main: Device) -> None:
        super().__init__(main.world, f"{main.name}x", [replica.partition for replica in main.replicas])
        self.main, self.user = main, main.user
        for mine, its in zip(self.replicas, main.replicas, strict=True):
            mine.file = its.file
        main.others.append(self)

    def start(self) -> None:
        """Begin, if the machine runs."""
        if self.main.is_dead:
            self.world.loop.call_later(1.0, self.world.revive, self)
            return
        self.is_gone = False
        super().start()

    @property
    def is_one_of_several(self) -> bool:
        """It is."""
        return True

    def boot(self, rng: random.Random) -> None:
        """Share the disk."""
        self.folder = self.main.folder
        self.disk = self.main.disk.shared(rng, self._crashed)

    def _crashed(self) -> None:
        self.world.note(self.name, f"killed after {self.disk.operations} operations")
        self.is_gone = True
        self.fall()
        # Its locks are free when it is dead, not while its last operation is being unwound here.
        self.loop.call_soon(self._release, [replica for replica in self.replicas if hasattr(replica, "store")])

    @staticmethod
    def _release(replicas: list[Replica]) -> None:
        for replica in replicas:
            if not replica.store._closed:
                replica.store._let_go()
            if hasattr(replica, "session"):
                replica.session.binding.release()


class Processes(Feature):
    """One or two machines of the world have a second process."""

    name: ClassVar[str] = "processes"
    weight: ClassVar[float] = 10.0

    def devices(self, made: Sequence[Device]) -> Sequence[Device]:
        """Give the second processes."""
        return [Second(main) for main in made[: self.rng.choice([1, 1, 2])]]

    def act(self, device: Device, replica: Replica) -> None:
        """Have one process leave the sync to the other, or die."""
        what = self.rng.choice(["pause", "reopen", "kill"])
        if what == "kill" and self.world.settings.fuses:
            return  # one process dies, and at a time of its own
        if what == "kill" and isinstance(device, Second):
            device.disk.fuse = self.rng.randint(0, 12)
        elif what == "reopen":
            self.world._reopen(device, replica)
        else:
            self.world._pause(device, replica)

    def check(self, state: Snapshot, replicas: Sequence[Replica], name: str) -> None:
        """Both processes of a machine have the same."""
        for replica in replicas:
            main = getattr(replica.device, "main", None)
            for its in [] if main is None else main.replicas:
                if its.file == replica.file:
                    both = [plain.content(one.store.snapshot) for one in (replica, its)]
                    assert both[0] == both[1], f"{replica.name} and {its.name} differ"
