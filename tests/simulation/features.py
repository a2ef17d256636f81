"""What a world may have beside items and a ledger: each feature has random numbers of its own.

So a world without a feature is the same as before there was such a feature, and seeds that are written down keep their
meaning. Seeds from :data:`NEW` on draw features; for any seed they can be asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from realmframe.changes.instructions import Instruction

if TYPE_CHECKING:
    from realmframe.errors import RealmError
    from realmframe.store import Snapshot
    from tests.simulation.clients import App, Device, Replica
    from tests.simulation.network import Link
    from tests.simulation.world import World

#: The first seed that draws features.
NEW: Final = 100_000


class Feature:
    """One of them; what is here is that nothing more happens.

    Parameters
    ----------
    world : World
    """

    name: ClassVar[str]
    #: How often it acts, beside the weights of :class:`.Settings`.
    weight: ClassVar[float] = 8.0
    #: Whether it needs Flexible Sync.
    is_flexible: ClassVar[bool] = False
    #: Errors of sessions that are part of it.
    expected: ClassVar[tuple[type[RealmError], ...]] = ()

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(f"{world.seed} {self.name}")

    def schema(self, device: Device) -> Sequence[Instruction]:
        """Give what a device's program adds to the schema."""
        return ()

    def subscriptions(self, replica: Replica) -> dict[str, str]:
        """Give what every subscription set of a replica has besides; the same until :meth:`act` changes it."""
        return {}

    def devices(self, made: Sequence[Device]) -> Sequence[Device]:
        """Give what there is beside the usual devices."""
        return ()

    def app(self, device: Device) -> App | None:
        """Give an app in the place of the usual one, if it is another."""
        return None

    def dialled(self, link: Link, url: str) -> None:
        """Hear of a connection that was opened."""

    def founded(self, replica: Replica) -> None:
        """Hear that the first device has a realm which is empty so far."""

    def opened(self, replica: Replica) -> None:
        """Hear that a replica's files are open, after a start or a crash; its session has not begun."""

    def act(self, device: Device, replica: Replica) -> None:
        """Do something on a device that runs."""

    async def calm(self) -> None:
        """Let nothing fail any more; all processes are about to live."""

    def check(self, state: Snapshot, replicas: Sequence[Replica], name: str) -> None:
        """Say what has to be true of one realm at rest.

        Parameters
        ----------
        state : Snapshot
            The server's.
        replicas : sequence of Replica
        name : str
            The server's name of the realm.

        Raises
        ------
        AssertionError
        """


def known() -> dict[str, type[Feature]]:
    """Give all features by name."""
    from tests.simulation.growth import Growth
    from tests.simulation.processes import Processes
    from tests.simulation.readings import Readings
    from tests.simulation.tokens import Tokens
    from tests.simulation.values import Values

    found: tuple[type[Feature], ...] = (Growth, Readings, Values, Tokens, Processes)
    return {one.name: one for one in found}


def drawn(seed: int | str) -> tuple[str, ...]:
    """Draw the names of a world's features."""
    if not isinstance(seed, int) or seed < NEW:
        return ()
    rng = random.Random(f"{seed} features")
    return tuple(name for name in known() if rng.random() < 0.5)
