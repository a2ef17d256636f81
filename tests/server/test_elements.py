"""Collections put into lists, and embedded objects into dictionaries, as the SDKs write it; others do so as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import (
    AddColumn,
    AddTable,
    ArrayErase,
    ArrayInsert,
    Clear,
    CreateObject,
    Instruction,
    Update,
)
from realmframe.model import ClassKind, Collection, PropertyType
from realmframe.model.values import Marker
from realmframe.server.elements import without_clears
from realmframe.server.entries import ClientFile
from realmframe.server.history import History
from realmframe.store import Snapshot, apply
from realmframe.wire import UploadEntry

from .conftest import RawConnection
from .databases import open_database
from .stepwise import World

AT: tuple[Any, ...] = ("C", 1, "m")
LIST, DICTIONARY = (Marker.LIST, Collection.LIST), (Marker.DICTIONARY, Collection.DICTIONARY)


def insert(
    at: int, size: int, kind: tuple[Marker, Collection] = LIST, above: tuple[Any, ...] = ()
) -> list[Instruction]:
    """Insert a collection, as the Node SDK 12.15 writes it."""
    path = (*above, at)
    return [ArrayInsert(*AT, path, kind[0], size), Clear(*AT, path, kind[1])]


def put(at: int, size: int, kind: tuple[Marker, Collection] = LIST) -> list[Instruction]:
    """Set an element to a collection, as the Node SDK 12.15 writes it."""
    return [Update(*AT, (at,), kind[0], size), Clear(*AT, (at,), kind[1])]


def item(path: tuple[Any, ...], value: Any, size: int) -> Instruction:
    """Insert a value."""
    return ArrayInsert(*AT, path, value, size)


ERASE_FIRST: list[Instruction] = [ArrayErase(*AT, (0,), 3)]
INSERT_FIRST: list[Instruction] = [item((0,), "h", 3)]
#: Three elements: 1, a list of 2, and 3.
START: list[Instruction] = [
    CreateObject("C", 1),
    Update(*AT, (), Marker.LIST),
    Clear(*AT, (), Collection.LIST),
    item((0,), 1, 0),
    *insert(1, 1),
    item((1, 0), 2, 0),
    item((2,), 3, 2),
]
ROWS: dict[str, tuple[list[Instruction], list[Instruction], Any]] = {
    "appended, first erased": ([*insert(3, 3), item((3, 0), 9, 0)], ERASE_FIRST, [[2], 3, [9]]),
    "appended, one before": ([*insert(3, 3), item((3, 0), 9, 0)], INSERT_FIRST, ["h", 1, [2], 3, [9]]),
    "dictionary appended": (
        [*insert(3, 3, DICTIONARY), Update(*AT, (3, "k"), 9)],
        INSERT_FIRST,
        ["h", 1, [2], 3, {"k": 9}],
    ),
    "both appended": (
        [*insert(3, 3), item((3, 0), 9, 0)],
        [*insert(3, 3), item((3, 0), 8, 0)],
        [1, [2], 3, [9], [8]],
    ),
    "inside": ([*insert(1, 1, above=(1,)), item((1, 1, 0), 9, 0)], [item((1, 0), 0, 1)], [1, [0, 2, [9]], 3]),
    "set, first erased": ([*put(1, 3), item((1, 0), 9, 0)], ERASE_FIRST, [[9], 3]),
    "set to another kind": ([*put(1, 3, DICTIONARY), Update(*AT, (1, "k"), 9)], INSERT_FIRST, ["h", 1, {"k": 9}, 3]),
    "set, written into": ([*put(1, 3), item((1, 0), 9, 0)], [item((1, 1), 5, 1)], [1, [9], 3]),
}


class Realm:
    """A history, and two clients of it."""

    def __init__(self, folder: Path) -> None:
        self.history = History(open_database(folder), "app", "flx")
        self.mine, self.other = self.history.files.new("ann"), self.history.files.new("bob")
        self.upload(self.mine, [AddTable("C", ClassKind.TOPLEVEL, "_id", PropertyType.INT)])
        self.upload(self.mine, [AddColumn("C", "m", PropertyType.MIXED, nullable=True)])
        self.upload(self.mine, START)
        self.base = self.history.version

    def upload(self, file: ClientFile, instructions: list[Instruction], base: int | None = None) -> bytes:
        """Integrate what a client wrote; give what is logged of it."""
        data = Changeset.from_instructions(instructions).encode()
        base = self.history.version if base is None else base
        version = file.client_version + 1
        # Whoever uploads later has written earlier: what is set at one place then depends on both.
        entry = UploadEntry(version, base, 100 - self.history.version, 0, data)
        found = self.history.integrate(file, entry)
        assert found is not None
        return found.entry.data

    @property
    def value(self) -> Any:
        """What the object holds."""
        return self.history.snapshot.values("C", "m")[0]


@pytest.mark.parametrize(("mine", "theirs", "wanted"), ROWS.values(), ids=ROWS)
def test_new_collections_in_lists(tmp_path: Path, mine: Any, theirs: Any, wanted: Any) -> None:
    """They arrive whole, whatever the other side did to the list before, and nothing else is emptied."""
    realm = Realm(tmp_path)
    assert realm.value == [1, [2], 3]
    realm.upload(realm.other, theirs, realm.base)
    logged = Changeset.decode(realm.upload(realm.mine, mine, realm.base)).instructions()
    assert realm.value == wanted
    assert not [one for one in logged if isinstance(one, Clear)]


@pytest.mark.parametrize(
    "instructions",
    [
        START[:4],
        [Clear(*AT, (1,), Collection.LIST)],
        [ArrayInsert(*AT, (1,), Marker.LIST, 3), Clear(*AT, (2,), Collection.LIST)],
        [ArrayInsert(*AT, (1,), Marker.LIST, 3), Clear("C", 2, "m", (1,), Collection.LIST)],
        [Update(*AT, ("k",), Marker.LIST), Clear(*AT, ("k",), Collection.LIST)],
        [ArrayInsert(*AT, (1,), 5, 3), Clear(*AT, (1,), Collection.LIST)],
    ],
)
def test_other_clears_stay(instructions: list[Instruction]) -> None:
    """Only the Clear of an element that was just put there is left out."""
    changeset = Changeset.from_instructions(instructions)
    assert without_clears(changeset) is changeset


def test_what_is_left() -> None:
    """Everything else of the changeset is as it was."""
    text = ArrayInsert(*AT, (0,), "text", 3)
    out = without_clears(Changeset.from_instructions([text, *insert(1, 4), *put(2, 5, DICTIONARY), text]))
    assert out.instructions() == [
        text,
        ArrayInsert(*AT, (1,), Marker.LIST, 4),
        Update(*AT, (2,), None, 5),
        Update(*AT, (2,), Marker.DICTIONARY, 5),
        text,
    ]
    assert Changeset.decode(out.encode()).instructions() == out.instructions()


BOX: tuple[Any, ...] = ("B", 1, "boxes")
BOXES = [
    AddTable("B", ClassKind.TOPLEVEL, "_id", PropertyType.INT),
    AddTable("E", ClassKind.EMBEDDED),
    AddColumn("E", "tags", PropertyType.STRING, collection=Collection.LIST),
    AddColumn("E", "inner", PropertyType.OBJECT, nullable=True, link_target="E"),
    AddColumn("E", "named", PropertyType.OBJECT, nullable=True, collection=Collection.DICTIONARY, link_target="E"),
    AddColumn("B", "boxes", PropertyType.OBJECT, nullable=True, collection=Collection.DICTIONARY, link_target="E"),
    AddColumn("B", "one", PropertyType.OBJECT, nullable=True, link_target="E"),
    CreateObject("B", 1),
]


def box(key: str, *tags: str) -> list[Instruction]:
    """Put an embedded object at a key, as the Node SDK 12.15 writes it."""
    made: list[Instruction] = [Update(*BOX, (key,), Marker.OBJECT_VALUE)]
    return made + [ArrayInsert(*BOX, (key, "tags", n), tag, n) for n, tag in enumerate(tags)]


def tags_of(snapshot: Any) -> dict[str, list[str]]:
    """Give the tags at each key."""
    return {key: held["tags"] for key, held in snapshot.values("B", "boxes")[0].items()}


def test_new_objects_at_one_key(tmp_path: Path) -> None:
    """Of two, the one that comes first stays, as at its clients; what is logged removes whatever was there."""
    realm = Realm(tmp_path)
    realm.upload(realm.mine, BOXES)
    base = realm.history.version
    logged = Changeset.decode(realm.upload(realm.other, box("k", "a", "b"), base)).instructions()
    assert logged[:2] == [Update(*BOX, ("k",), None), Update(*BOX, ("k",), Marker.OBJECT_VALUE)]
    realm.upload(realm.mine, box("k", "c", "d"), base)
    assert tags_of(realm.history.snapshot) == {"k": ["a", "b"]}


def test_only_keys_of_dictionaries(tmp_path: Path) -> None:
    """An object in a field of another one is made only where there is none: it is not removed before."""
    realm = Realm(tmp_path)
    realm.upload(realm.mine, BOXES)
    one = ("B", 1, "one")
    made = [
        Update(*one, (), Marker.OBJECT_VALUE),
        Update(*one, ("inner",), Marker.OBJECT_VALUE),
        Update(*one, ("inner", "named", "k"), Marker.OBJECT_VALUE),
        Update(*one, ("inner", "named", "k", "inner"), Marker.OBJECT_VALUE),
    ]
    logged = Changeset.decode(realm.upload(realm.mine, list(made))).instructions()
    assert logged == [*made[:2], Update(*one, ("inner", "named", "k"), None), *made[2:]]


def test_sides_that_do_not_fit(client: Callable[..., RawConnection]) -> None:
    """An upload that cannot be merged with what others wrote is fitted, and its client told; it was not wrong."""
    mine, other = client().session(), client().session()
    for session in (mine, other):
        session.open()
        session.query(1, B="(TRUEPREDICATE)")
    mine.upload(1, Changeset.from_instructions([*BOXES, *box("k", "old")]).encode())
    other.mark(1)
    base = mine.rules.version
    grown = [ArrayInsert(*BOX, ("k", "tags", 1), "new", 1)]
    other.upload(1, Changeset.from_instructions(grown).encode(), base=base)
    mine.upload(2, Changeset.from_instructions(box("k", "mine")).encode(), base=base, timestamp=2000)
    mine.mark(1)
    fresh = client().session()
    fresh.open()
    fresh.query(1, B="(TRUEPREDICATE)")
    snapshot = Snapshot.empty()
    for entry in fresh.entries:
        snapshot = apply(snapshot, Changeset.decode(entry.changeset)).snapshot
    assert tags_of(snapshot) == {"k": ["mine"]}
    told = Changeset.decode(mine.entries[-1].changeset).instructions()
    assert CreateObject("B", 1) in told
    wrong = Changeset.from_instructions([ArrayInsert(*BOX, ("k", "tags", 7), "x", 7)]).encode()
    mine.upload(3, wrong, base=mine.rules.version)
    assert [type(e).__name__ for e in mine.errors] == ["JsonError"]


@pytest.mark.parametrize("is_cut", [False, True], ids=["connected", "cut"])
@pytest.mark.parametrize("flexible", [True, False], ids=["flexible", "partition"])
def test_who_puts_a_collection_holds_what_others_put(tmp_path: Path, flexible: bool, is_cut: bool) -> None:
    """Its own Clear empties what another client put in that place; it gets it back, with its next session at last."""
    world = World(tmp_path, 0, 2, flexible=flexible)
    a, b = world.clients
    for one in (a, b):
        one.subscribe("TRUEPREDICATE ")
    at: tuple[Any, ...] = ("Item", 1, "notes")
    a.commit(CreateObject("Item", 1), Update(*at, ("k",), Marker.LIST))
    world.settle()
    a.commit(ArrayInsert(*at, ("k", 0), Marker.LIST, 0), ArrayInsert(*at, ("k", 0, 0), 0.5, 0))
    b.clock += 1_000  # it writes later, so what it puts comes behind
    b.commit(
        ArrayInsert(*at, ("k", 0), Marker.DICTIONARY, 0),
        Clear(*at, ("k", 0), Collection.DICTIONARY),
        Update(*at, ("k", 0, "a"), None),
    )
    a.upload()
    assert a.deliver()
    world.node.finish()
    while b.receive():
        pass
    assert b.items()["Item"][1]["notes"] == {"k": [[], {"a": None}]}  # by the real engine's rules
    b.upload()
    assert b.deliver()
    world.node.finish()
    if is_cut:
        b.lose()
        b.connect()
    world.check()
    assert b.items()["Item"][1]["notes"] == {"k": [[0.5], {"a": None}]}
