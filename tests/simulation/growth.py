"""Programs of several ages: newer ones have classes and properties that the others do not know.

What must hold: all come together whatever was added where, offline or not, in any order; every side has every class
and property that any has; and no value of a new property is lost, also where a program runs that does not know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from realmframe.changes.instructions import (
    AddColumn,
    AddInteger,
    AddTable,
    ArrayInsert,
    CreateObject,
    Instruction,
    Update,
)
from realmframe.model import ClassKind, Collection, Link, PropertyType
from realmframe.store import Snapshot
from tests.simulation.features import Feature
from tests.simulation.writes import Line, contents, schema_missing

if TYPE_CHECKING:
    from tests.simulation.clients import Device, Replica
    from tests.simulation.world import World

P = PropertyType
#: What newer programs have; each device may have any of them.
STEPS: Final[tuple[tuple[Instruction, ...], ...]] = (
    (AddColumn("Item", "size", P.INT),),
    (AddColumn("Item", "colour", P.STRING, True),),
    (
        AddTable("Shelf", ClassKind.TOPLEVEL, "_id", P.STRING),
        AddColumn("Shelf", "width", P.INT),
        AddColumn("Item", "shelf", P.OBJECT, True, link_target="Shelf"),
    ),
    (AddColumn("Place", "code", P.MIXED, True),),
    (AddColumn("Item", "extras", P.INT, collection=Collection.LIST),),
    (AddColumn("Note", "worth", P.INT),),
    (AddTable("Stamp", ClassKind.TOPLEVEL, "_id", P.STRING), AddColumn("Stamp", "amount", P.INT)),
)
_SHELF, _WORTH, _STAMP = 2, 5, 6


class Growth(Feature):
    """Upgrades of programs, and what the newer ones write."""

    name: ClassVar[str] = "growth"
    weight: ClassVar[float] = 40.0

    def __init__(self, world: World) -> None:
        super().__init__(world)
        #: Which steps a device's program has.
        self.ages: dict[str, set[int]] = {}
        self.stamps: dict[str, list[Line]] = {}
        #: What a replica wrote of its own notes' new property: last value, and the one before if that is not sure.
        self.worths: dict[str, dict[str, list[int]]] = {}

    def _age(self, device: Device) -> set[int]:
        if device.name not in self.ages:
            new = self.rng.sample(range(len(STEPS)), 3)
            self.ages[device.name] = set(new if self.rng.random() < 0.5 else ())
        return self.ages[device.name]

    def schema(self, device: Device) -> Sequence[Instruction]:
        """Give what the device's program has more."""
        return [one for step in sorted(self._age(device)) for one in STEPS[step]]

    def subscriptions(self, replica: Replica) -> dict[str, str]:
        """Subscribe to all of the new classes that the program knows."""
        age = self._age(replica.device)
        wanted = {"Shelf": _SHELF, "Stamp": _STAMP}
        return {name: "TRUEPREDICATE " for name, step in wanted.items() if step in age}

    def opened(self, replica: Replica) -> None:
        """After a crash: what was written is there; what was being written is or is not."""
        lines, snapshot = self.stamps.get(replica.name, []), replica.store.snapshot
        here = set(snapshot.values("Stamp", "_id")) if "Stamp" in snapshot.tables else set()
        if self.world.settings.reset_mode is None:
            lost = [line.text for line in lines if line.is_sure and line.text not in here]
            assert not lost, f"{replica.name} lost new objects that it had committed: {lost}"
        lines[:] = [line for line in lines if line.is_sure or line.text in here]
        for line in lines:
            line.is_sure = True
        has = "Note" in snapshot.tables and "worth" in snapshot.schema["Note"].columns
        have = dict(zip(snapshot.values("Note", "_id"), snapshot.values("Note", "worth"), strict=True)) if has else {}
        for text, values in self.worths.get(replica.name, {}).items():
            if self.world.settings.reset_mode is None:
                assert have.get(text, 0) in values, f"{replica.name}: {text} is worth {have.get(text)}, not {values}"
                values[:] = [have.get(text, 0)]

    # ---- what happens

    def act(self, device: Device, replica: Replica) -> None:
        """Install a newer program, or write with the one there is."""
        age = self._age(device)
        if not age or self.rng.random() < 0.15:
            self._upgrade(device, replica)
        elif _STAMP in age and self.rng.random() < 0.4:
            device.run(self._stamp, replica)
        elif _WORTH in age and self.rng.random() < 0.4:
            device.run(self._value, replica)
        else:
            device.run(self._write, replica)

    def _upgrade(self, device: Device, replica: Replica) -> None:
        """Give the device a newer program: it opens its realms anew, or has one of them open already and adds to it."""
        new = self.rng.sample(range(len(STEPS)), self.rng.randint(1, 4))
        if device.is_busy:
            return
        self._age(device).update(new)
        self.world.note(device.name, f"upgrade {sorted(self._age(device))}")
        if self.rng.random() < 0.5:
            device.chores.append(device.spawn(device.reopen()))
            return
        for one in device.replicas:
            device.run(one.bring_schema)
            device.run(one.bring_subscriptions)

    def _stamp(self, replica: Replica) -> None:
        if "Stamp" not in replica.store.snapshot.tables or not replica.has_subscribed("Stamp"):
            return
        lines = self.stamps.setdefault(replica.name, [])
        line = Line(f"{replica.name}-stamp-{len(lines)}-{self.rng.randrange(1 << 20)}", self.rng.randint(1, 9))
        lines.append(line)
        replica.commit(CreateObject("Stamp", line.text), Update("Stamp", line.text, "amount", (), line.amount))
        line.is_sure = True

    def _value(self, replica: Replica) -> None:
        """Write the new property of a note of this replica's own."""
        snapshot = replica.store.snapshot
        here = set(snapshot.values("Note", "_id")) if "worth" in snapshot.schema["Note"].columns else set()
        mine = [line for line in replica.lines if line.is_sure and line.text in here]
        if not mine:
            return
        line, value = self.rng.choice(mine), self.rng.randint(1, 9)
        values = self.worths.setdefault(replica.name, {}).setdefault(line.text, [0])
        values.append(value)
        replica.commit(Update("Note", line.text, "worth", (), value))
        values[:] = [value]

    def _write(self, replica: Replica) -> None:
        """Change new properties of an item."""
        snapshot, rng, age = replica.store.snapshot, self.rng, self._age(replica.device)
        items = contents(snapshot)["Item"] if "Item" in snapshot.tables else {}
        if not items or len(schema_missing(snapshot, self.schema(replica.device))):
            return
        key = rng.choice(sorted(items))
        row, made = items[key], list[Instruction]()
        for step in sorted(age):
            if rng.random() < 0.5:
                made += self._change(step, key, row, snapshot, replica)
        if made:
            replica.commit(*made)

    def _change(self, step: int, key: int, row: dict[str, Any], snapshot: Snapshot, replica: Replica) -> list[Any]:
        rng = self.rng
        if step == 0:
            if rng.random() < 0.5:
                return [AddInteger("Item", key, "size", (), rng.randrange(9))]
            return [Update("Item", key, "size", (), rng.randrange(9))]
        if step == 1:
            return [Update("Item", key, "colour", (), rng.choice(["red", "blue", None]))]
        if step == _SHELF and replica.has_subscribed("Shelf"):
            return self._put(key, snapshot)
        if step == 3 and row["place"] is not None:
            return [Update("Item", key, "place", ("code",), rng.choice(["x", 1, None, 1.5]))]
        if step == 4:
            size = len(row["extras"])
            return [ArrayInsert("Item", key, "extras", (rng.randint(0, size),), rng.randrange(9), size)]
        return []

    def _put(self, key: int, snapshot: Snapshot) -> list[Any]:
        """Put an item on a shelf, which may have to be made."""
        shelf = self.rng.choice("st")
        known = set(snapshot.values("Shelf", "_id"))
        made: list[Any] = [] if shelf in known else [CreateObject("Shelf", shelf)]
        made.append(Update("Shelf", shelf, "width", (), self.rng.randrange(9)))
        return [*made, Update("Item", key, "shelf", (), Link("Shelf", shelf))]

    # ---- at rest

    def check(self, state: Snapshot, replicas: Sequence[Replica], name: str) -> None:
        """Every side has every class and property, and no value of a new one is lost."""
        wanted = _columns(state)
        for replica in replicas:
            found = _columns(replica.store.snapshot)
            assert found == wanted, f"{replica.name}: the schema differs from the server's: {found ^ wanted}"
            missing = schema_missing(state, self.schema(replica.device))
            assert not len(missing), f"{name}: the server lacks {list(missing.instructions())} of {replica.name}"
        if self.world.settings.reset_mode is not None:
            return
        have = contents(state)
        stamps = {key: row["amount"] for key, row in have.get("Stamp", {}).items()}
        written = {line.text: line.amount for r in replicas for line in self.stamps.get(r.name, ())}
        assert stamps == written, f"{name}: stamps {stamps}, not {written}"
        for replica in replicas:
            for text, values in self.worths.get(replica.name, {}).items():
                value = have["Note"][text]["worth"]
                assert value in values, f"{replica.name}: {text} is worth {value} at the server, not {values}"


def _columns(snapshot: Snapshot) -> set[tuple[str, ...]]:
    return {
        (cls.name, str(cls.kind), p.name, str(p.type), str(p.collection), str(p.target))
        for cls in snapshot.schema.values()
        for p in cls.columns.values()
    }
