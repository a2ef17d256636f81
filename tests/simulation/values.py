"""Properties of every type: nested collections, sets, dictionaries, embedded objects, links to objects that go away.

What must hold is what holds for items: everybody has the server's state, value for value and bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from realmframe.changes.instructions import Instruction
from realmframe.model import Schema
from realmframe.store import Snapshot, objects_changeset, schema_changeset
from tests import writer
from tests.plain import PlainRealm
from tests.simulation.features import Feature

if TYPE_CHECKING:
    from tests.simulation.clients import Device, Replica
    from tests.simulation.world import World

#: Classes without a primary key, and those that nobody keeps, cannot be subscribed to.
SCHEMA: Final[list[Instruction]] = [one for one in writer.SCHEMA if one.table not in ("G", "Y")]
CLASSES: Final = ("T", "U")
VIEWS: Final = ("TRUEPREDICATE ", "n >= 1 ", "n < 2 ")


class Values(Feature):
    """Writes with the generator of random transactions that the rooms below are tested with."""

    name: ClassVar[str] = "values"
    weight: ClassVar[float] = 16.0

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._views: dict[str, str] = {}

    def schema(self, device: Device) -> Sequence[Instruction]:
        """Every program has the classes."""
        return SCHEMA

    def subscriptions(self, replica: Replica) -> dict[str, str]:
        """Each replica sees its own part, the first one all."""
        text = self._views.setdefault(replica.name, self.rng.choice(VIEWS) if self._views else VIEWS[0])
        return {"T": text, "U": "TRUEPREDICATE "}

    def founded(self, replica: Replica) -> None:
        """Make objects to begin with."""
        replica.commit(*[one for one in writer.OBJECTS if one.table in CLASSES])

    def act(self, device: Device, replica: Replica) -> None:
        """Write a random transaction."""
        device.run(self._write, replica)

    def _write(self, replica: Replica) -> None:
        realm = _plain(replica.store.snapshot)
        if not set(CLASSES) <= set(realm.tables):
            return
        made = writer.Writer(realm, self.rng.randrange, schema=False)
        for _ in range(self.rng.randint(1, 4)):
            made.step()
        if made.made:
            replica.commit(*made.made)


def _plain(snapshot: Snapshot) -> PlainRealm:
    """Give the objects of these classes as plain dictionaries."""
    names = {one.table for one in SCHEMA}
    realm = PlainRealm(
        one for one in schema_changeset(snapshot.schema, Schema([])).instructions() if one.table in names
    )
    for name in CLASSES:
        if name in snapshot.tables:
            rows = np.arange(snapshot.num_rows(name))
            for one in objects_changeset(snapshot, name, rows).instructions():
                realm.apply(one)
    return realm
