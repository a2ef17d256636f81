"""What a changeset declares otherwise than a schema has it, be it the client's or the server's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, EraseColumn, EraseTable
from realmframe.model import ClassKind, ObjectSchema, Schema
from realmframe.store.schema_changes import class_of, property_of

_KINDS: Final = {
    ClassKind.TOPLEVEL: "a class",
    ClassKind.EMBEDDED: "an embedded class",
    ClassKind.ASYMMETRIC: "an asymmetric class",
}


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One class or property that is two things.

    Attributes
    ----------
    name : str
        The class, or class and property.
    have : str
        What the schema has.
    said : str
        What the changeset says.
    """

    name: str
    have: str
    said: str


def contradiction(changeset: Changeset, schema: Schema) -> Contradiction | None:
    """Give the first class or property that a changeset declares otherwise than a schema has it, to the last bit.

    Applying looks at less, as the real engine does; but it merges no two declarations that differ.
    """
    rows = np.flatnonzero(changeset.is_schema)
    if not len(rows):
        return None
    for one in changeset.take(rows).instructions():
        if isinstance(one, EraseTable | EraseColumn):
            return None  # what follows is about another schema
        found = None
        if isinstance(one, AddTable) and one.table in schema:
            found = _of_class(class_of(one), schema[one.table])
        elif isinstance(one, AddColumn) and one.table in schema:
            old, new = schema[one.table].properties.get(one.field), property_of(one)
            if old is not None and old.word != new.word:
                found = Contradiction(f"{one.table}.{one.field}", old.word, new.word)
        if found is not None:
            return found
    return None


def _of_class(new: ObjectSchema, old: ObjectSchema) -> Contradiction | None:
    if new.key_property is None and not new.embedded:
        return None  # without a key it stands for whatever class there is
    have, said = _described(old), _described(new)
    return None if have == said else Contradiction(new.name, have, said)


def _described(cls: ObjectSchema) -> str:
    key = cls.key_property
    return f"{_KINDS[cls.kind]} {'without a key' if key is None else f'with the key {key.name} ({key.word})'}"
