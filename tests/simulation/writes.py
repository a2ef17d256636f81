"""What is written: properties of several kinds, random changes of items, and a ledger that never forgets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from realmframe.changes import Changeset
from realmframe.changes.instructions import (
    AddColumn,
    AddInteger,
    AddTable,
    ArrayErase,
    ArrayInsert,
    ArrayMove,
    Clear,
    CreateObject,
    Instruction,
    SetErase,
    SetInsert,
    Update,
)
from realmframe.model import ClassKind, Collection, Marker, PropertyType
from realmframe.store import Snapshot, apply, schema_changeset

P = PropertyType
SCHEMA: Final[list[Instruction]] = [
    AddTable("Place", ClassKind.EMBEDDED),
    AddTable("Item", ClassKind.TOPLEVEL, "_id", P.INT),
    AddTable("Ledger", ClassKind.TOPLEVEL, "_id", P.INT),
    AddTable("Note", ClassKind.TOPLEVEL, "_id", P.STRING),
    AddColumn("Place", "town", P.STRING),
    AddColumn("Item", "area", P.INT),
    AddColumn("Item", "name", P.STRING),
    AddColumn("Item", "count", P.INT),
    AddColumn("Item", "tags", P.STRING, collection=Collection.LIST),
    AddColumn("Item", "marks", P.INT, collection=Collection.SET),
    AddColumn("Item", "notes", P.MIXED, True, Collection.DICTIONARY, None, P.STRING),
    AddColumn("Item", "place", P.OBJECT, True, link_target="Place"),
    AddColumn("Item", "any", P.MIXED, True),
    AddColumn("Ledger", "count", P.INT),
    AddColumn("Ledger", "lines", P.STRING, collection=Collection.LIST),
    AddColumn("Note", "amount", P.INT),
]
#: What every subscription set has besides its items.
LEDGER: Final = {"Ledger": "TRUEPREDICATE ", "Note": "TRUEPREDICATE "}
VIEWS: Final = ("area < 2 ", "area == 1 ", "area >= 1 AND area < 3 ", "TRUEPREDICATE ")


@dataclass(eq=False)
class Line:
    """One entry of the ledger: written once, by one replica."""

    text: str
    amount: int
    #: Whether the commit returned, or was found after a crash.
    is_sure: bool = False


def schema_missing(snapshot: Snapshot, more: Sequence[Instruction] = ()) -> Changeset:
    """Give what a realm's schema lacks; some programs have more than the others."""
    wanted = apply(Snapshot.empty(), Changeset.from_instructions([*SCHEMA, *more])).snapshot.schema
    return schema_changeset(wanted, snapshot.schema)


def fresh(rng: random.Random, key: int) -> list[Instruction]:
    """Make an item."""
    return [CreateObject("Item", key), Update("Item", key, "area", (), rng.randrange(4))]


def change(rng: random.Random, key: int, row: dict[str, Any], name: str) -> list[Instruction]:
    """Give one change of an item that exists."""
    tags, marks, notes = row["tags"], row["marks"], row["notes"]
    word, at = f"{name}{rng.randrange(100)}", rng.randrange(len(tags)) if tags else 0
    choices: list[list[Instruction]] = [
        [Update("Item", key, "area", (), rng.randrange(4))],
        [Update("Item", key, "name", (), word)],
        [AddInteger("Item", key, "count", (), rng.randrange(5))],
        [Update("Item", key, "count", (), rng.randrange(5))],
        [ArrayInsert("Item", key, "tags", (rng.randint(0, len(tags)),), word, len(tags))],
        [ArrayInsert("Item", key, "tags", (0,), word, len(tags))],
        [SetInsert("Item", key, "marks", (), rng.randrange(5))],
        [Update("Item", key, "notes", (rng.choice("ab"),), word)],
        [Update("Item", key, "any", (), rng.choice([word, 5, None, True]))],
        [Clear("Item", key, "tags", (), Collection.LIST)],
        [Clear("Item", key, "notes", (), Collection.DICTIONARY)],
        [Update("Item", key, "place", (), Marker.OBJECT_VALUE), Update("Item", key, "place", ("town",), word)],
    ]
    if tags:
        choices.append([ArrayErase("Item", key, "tags", (at,), len(tags))])
        choices.append([Update("Item", key, "tags", (at,), word, len(tags))])
    if len(tags) > 1:
        choices.append([ArrayMove("Item", key, "tags", (at,), (at + 1) % len(tags), len(tags))])
    if marks:
        choices.append([SetErase("Item", key, "marks", (), marks[0])])
    if notes:
        choices.append([Update("Item", key, "notes", (next(iter(notes)),), Marker.ERASED)])
    if row["place"] is not None:
        choices.append([Update("Item", key, "place", (), None)])
        choices.append([Update("Item", key, "place", ("town",), word)])
    return rng.choice(choices)


def contents(
    snapshot: Snapshot, rows_of: Callable[[str], Iterable[int]] | None = None
) -> dict[str, dict[Any, dict[str, Any]]]:
    """Give the objects of the top-level classes, by class and key."""
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    for name, table in snapshot.tables.items():
        if table.cls.kind is not ClassKind.TOPLEVEL:
            continue
        rows = range(len(table)) if rows_of is None else [int(r) for r in rows_of(name)]
        found[name] = {}
        for i in rows:
            row = dict(table.row(i))
            row["marks"] = sorted(row.get("marks", ()))
            row["notes"] = dict(sorted((row.get("notes") or {}).items()))
            found[name][row["_id"]] = row
    return found
