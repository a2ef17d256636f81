"""Objects of an asymmetric class: what must hold is that each is uploaded once, whole, and that no client keeps one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, ArrayInsert, CreateObject, Instruction, Update
from realmframe.model import ClassKind, Collection, Marker, PropertyType
from realmframe.store import Snapshot
from tests.simulation.features import Feature

if TYPE_CHECKING:
    from tests.simulation.clients import Device, Replica
    from tests.simulation.world import World

P = PropertyType
SCHEMA: Final[list[Instruction]] = [
    AddTable("Reading", ClassKind.ASYMMETRIC, "_id", P.STRING),
    AddColumn("Reading", "value", P.INT),
    AddColumn("Reading", "tags", P.STRING, collection=Collection.LIST),
    AddColumn("Reading", "place", P.OBJECT, True, link_target="Place"),
]


@dataclass(eq=False)
class Reading:
    """One that was written; keys may be taken again, values are not."""

    key: str
    value: int
    is_sure: bool = False


class Readings(Feature):
    """Some are written alone, some beside a change of an item."""

    name: ClassVar[str] = "readings"
    is_flexible: ClassVar[bool] = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.written: dict[str, list[Reading]] = {}
        self._made = 0

    def schema(self, device: Device) -> Sequence[Instruction]:
        """Every program has the class."""
        return SCHEMA

    def opened(self, replica: Replica) -> None:
        """What a kill left unsure is in what is still to be uploaded, or was never written.

        Of a process that died alone another one may have uploaded it: that stays unsure.
        """
        _assert_none(replica)
        uploads = Counter(_values(change.changeset for change in replica.store.pending()))
        mine = self.written.get(replica.name, [])
        for one in mine:
            one.is_sure = one.is_sure or bool(uploads[one.key, one.value])
        if not replica.device.is_one_of_several:
            mine[:] = [one for one in mine if one.is_sure]

    def act(self, device: Device, replica: Replica) -> None:
        """Write one or several."""
        device.run(self._write, replica)
        if not device.is_dead:
            _assert_none(replica)

    def _write(self, replica: Replica) -> None:
        if "Reading" not in replica.store.snapshot.tables:
            return
        instructions, mine = list[Instruction](), list[Reading]()
        for _ in range(self.rng.choice([1, 1, 3])):
            self._made += 1
            again = self.rng.random() < 0.3
            key = self.rng.choice("xyz") if again else f"{replica.name}-{self._made}"
            if key in {one.key for one in mine}:
                continue
            mine.append(Reading(key, self._made))
            instructions += [
                CreateObject("Reading", key),
                Update("Reading", key, "value", (), self._made),
                ArrayInsert("Reading", key, "tags", (0,), replica.name, 0),
                Update("Reading", key, "place", (), Marker.OBJECT_VALUE),
                Update("Reading", key, "place", ("town",), key),
            ]
        items = [row["_id"] for row in map(replica.store.snapshot.tables["Item"].row, range(self._items(replica)))]
        if items and self.rng.random() < 0.4:
            instructions.append(Update("Item", self.rng.choice(items), "name", (), f"read {self._made}"))
        self.written.setdefault(replica.name, []).extend(mine)
        replica.commit(*instructions)
        for one in mine:
            one.is_sure = True

    @staticmethod
    def _items(replica: Replica) -> int:
        return replica.store.snapshot.num_rows("Item")

    def check(self, state: Snapshot, replicas: Sequence[Replica], name: str) -> None:
        """Each was integrated exactly once, with its values; nobody has one."""
        for replica in replicas:
            _assert_none(replica)
        written = [one for replica in replicas for one in self.written.get(replica.name, ())]
        expected = Counter((one.key, one.value) for one in written if one.is_sure)
        unsure = Counter((one.key, one.value) for one in written if not one.is_sure)
        history = self.world.server.engine.realm("app", name).history
        table = state.tables["Reading"]
        rows = [table.row(n) for n in range(len(table))]
        if self.world.settings.reset_mode is None:
            counted = Counter(_values(entry.changeset for entry in history.log.load(0, 1 << 62)))
            expected += unsure & counted
            assert counted == expected, (
                f"readings lost: {sorted((expected - counted).elements())}, "
                f"twice or never written: {sorted((counted - expected).elements())}"
            )
            assert {row["_id"] for row in rows} == {key for key, _ in expected}
        else:
            self._check_after_resets(rows, replicas)
        wrong = [row for row in rows if (row["_id"], row["value"]) not in expected + unsure or not _is_whole(row)]
        assert not wrong, f"{name}: readings that nobody wrote so: {wrong}"

    def _check_after_resets(self, rows: list[dict[str, Any]], replicas: Sequence[Replica]) -> None:
        """Each is at the server, or named in the quarantine of the realm that lost it."""
        have = {row["_id"] for row in rows}
        for replica in replicas:
            kept = {str(entry.get("primary_key")) for entry in replica.store.quarantine}
            mine = [one.key for one in self.written.get(replica.name, ()) if one.is_sure]
            lost = [key for key in mine if key not in have | kept]
            assert not lost, f"{replica.name}: readings lost by a client reset: {lost}"


def _is_whole(row: dict[str, Any]) -> bool:
    return len(row["tags"]) == 1 and row["place"] is not None and row["place"]["town"] == row["_id"]


def _values(changesets: Any) -> Any:
    """Give key and value of each reading that some changesets make."""
    for data in changesets:
        changeset = data if isinstance(data, Changeset) else Changeset.decode(data)
        made: dict[Any, Any] = {}
        for one in changeset.instructions():
            if isinstance(one, CreateObject) and one.table == "Reading":
                made[one.pk] = None
            elif isinstance(one, Update) and one.table == "Reading" and one.field == "value":
                made[one.pk] = one.value
        yield from made.items()


def _assert_none(replica: Replica) -> None:
    snapshot = replica.store.snapshot
    kept = snapshot.num_rows("Reading") if "Reading" in snapshot.tables else 0
    assert not kept, f"{replica.name} keeps {kept} readings"
