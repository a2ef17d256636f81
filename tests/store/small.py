"""Random transactions on a small base: what the oracle of recovery knows the rules of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from realmframe.changes import Instruction
from realmframe.changes import instructions as i
from realmframe.model import ClassKind, Collection, Marker, PropertyType

KEYS = (1, 2)
SIZE = 4
WORDS = ("a", "b")
CHANGES = ("integer", "list", "list", "embedded", "set", "dictionary", "mixed") * 2

BASE: list[Instruction] = [
    i.AddTable("E", ClassKind.EMBEDDED),
    i.AddTable("T", pk_field="_id", pk_type=PropertyType.INT),
    i.AddColumn("E", "x", PropertyType.INT, nullable=True),
    i.AddColumn("T", "n", PropertyType.INT),
    i.AddColumn("T", "l", PropertyType.INT, collection=Collection.LIST),
    i.AddColumn("T", "e", PropertyType.OBJECT, collection=Collection.LIST, link_target="E"),
    i.AddColumn("T", "s", PropertyType.INT, collection=Collection.SET),
    i.AddColumn("T", "d", PropertyType.INT, collection=Collection.DICTIONARY, key_type=PropertyType.STRING),
    i.AddColumn("T", "m", PropertyType.MIXED, nullable=True),
]
for _key in KEYS:
    BASE.append(i.CreateObject("T", _key))
    BASE += [i.ArrayInsert("T", _key, "l", (k,), 10 * k, k) for k in range(SIZE)]
    BASE += [i.ArrayInsert("T", _key, "e", (k,), Marker.OBJECT_VALUE, k) for k in range(SIZE)]
    BASE += [i.SetInsert("T", _key, "s", (), k) for k in range(3)]
    BASE += [i.Update("T", _key, "d", (word,), 7) for word in WORDS]


class Writer:
    """Draws instructions that hold in the state that it keeps track of."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.alive = set(KEYS)
        self.sizes = {(key, name): SIZE for key in KEYS for name in ("l", "e")}
        self.made: list[Instruction] = []

    def number(self, end: int) -> int:
        """Draw from 0 to below ``end``."""
        return int(self.draw(st.integers(0, end - 1)))

    def step(self) -> None:
        """Draw one change to one object."""
        key = self.draw(st.sampled_from(KEYS))
        if key not in self.alive:
            self.made.append(i.CreateObject("T", key))
            self.alive.add(key)
            return
        kinds = (*CHANGES, "erase")
        getattr(self, self.draw(st.sampled_from(kinds)))(key)

    def integer(self, key: int) -> None:
        """Set the counter, or add to it."""
        value = self.number(100)
        added = i.AddInteger("T", key, "n", (), value)
        self.made.append(added if self.number(2) else i.Update("T", key, "n", (), value))

    def list(self, key: int) -> None:
        """Insert, move, set, erase, clear."""
        self.made.append(self.change_of_list(key, "l", self.number(9), self.number(100)))

    def embedded(self, key: int) -> None:
        """Change a list of embedded objects, or one of them. Moves are left out: see the test."""
        size = self.sizes[key, "e"]
        if size and self.number(2):
            self.made.append(i.Update("T", key, "e", (self.number(size), "x"), self.number(100)))
            return
        self.made.append(self.change_of_list(key, "e", (0, 1, 6, 8)[self.number(4)], Marker.OBJECT_VALUE))

    def change_of_list(self, key: int, name: str, kind: int, value: Any) -> Instruction:
        """Make one change to a list."""
        size = self.sizes[key, name]
        if kind < 3 or not size:
            self.sizes[key, name] += 1
            return i.ArrayInsert("T", key, name, (self.number(size + 1),), value, size)
        at, to = self.number(size), self.number(size)
        if kind < 5 and at != to:
            return i.ArrayMove("T", key, name, (at,), to, size)
        if kind < 6:
            return i.Update("T", key, name, (at,), value, prior_size=size)
        if kind < 8:
            self.sizes[key, name] -= 1
            return i.ArrayErase("T", key, name, (at,), size)
        self.sizes[key, name] = 0
        return i.Clear("T", key, name, (), Collection.LIST)

    def set(self, key: int) -> None:
        """Insert or erase a member, or clear."""
        kind, value = self.number(5), self.number(5)
        made: Instruction = i.Clear("T", key, "s", (), Collection.SET)
        if kind < 4:
            made = (i.SetInsert if kind < 2 else i.SetErase)("T", key, "s", (), value)
        self.made.append(made)

    def dictionary(self, key: int) -> None:
        """Set or erase an entry, or clear."""
        kind, word = self.number(5), self.draw(st.sampled_from(WORDS))
        made: Instruction = i.Clear("T", key, "d", (), Collection.DICTIONARY)
        if kind < 4:
            made = i.Update("T", key, "d", (word,), self.number(100) if kind < 3 else Marker.ERASED)
        self.made.append(made)

    def mixed(self, key: int) -> None:
        """Set a Mixed value."""
        self.made.append(i.Update("T", key, "m", (), self.draw(st.sampled_from([None, 1, "one", b"1", True, 1.5]))))

    def erase(self, key: int) -> None:
        """Delete the object."""
        self.alive.discard(key)
        self.sizes[key, "l"] = self.sizes[key, "e"] = 0
        self.made.append(i.EraseObject("T", key))


@st.composite
def transactions(draw: Any, most: int = 6) -> list[Instruction]:
    """Draw what one side does to the base."""
    writer = Writer(draw)
    for _ in range(draw(st.integers(0, most))):
        writer.step()
    return writer.made


@st.composite
def sides(draw: Any) -> list[list[Instruction]]:
    """Draw what one side does to the base, in one or two transactions."""
    made = draw(transactions(8))
    middle = draw(st.integers(0, len(made)))
    return [made[:middle], made[middle:]] if 0 < middle < len(made) else [made]
