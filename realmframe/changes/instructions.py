"""The fourteen instructions, one slotted dataclass each, for what is handled one at a time.

Hot paths never make these: they work on the columns of :class:`~realmframe.changes.columns.Changeset`.
Field names are those of the golden vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from realmframe.model import ClassKind, Collection, Key, Payload, PropertyType

#: Steps below a field: a list index, or a dictionary key or embedded field.
Path: TypeAlias = "tuple[int | str, ...]"


@dataclass(slots=True)
class AddTable:
    """Create a class. ``pk_type`` is None for a class without primary key (its keys are GlobalKeys)."""

    opcode: ClassVar[int] = 0
    table: str
    kind: ClassKind = ClassKind.TOPLEVEL
    pk_field: str = ""
    pk_type: PropertyType | None = None
    pk_nullable: bool = False


@dataclass(slots=True)
class EraseTable:
    """Delete a class with all its objects."""

    opcode: ClassVar[int] = 1
    table: str


@dataclass(slots=True)
class CreateObject:
    """Create an object (one that exists is kept)."""

    opcode: ClassVar[int] = 2
    table: str
    pk: Key


@dataclass(slots=True)
class EraseObject:
    """Delete an object (one that does not exist is ignored)."""

    opcode: ClassVar[int] = 3
    table: str
    pk: Key


@dataclass(slots=True)
class Update:
    """Set a value. ``prior_size`` counts when the path ends with an index, ``is_default`` otherwise."""

    opcode: ClassVar[int] = 4
    table: str
    pk: Key
    field: str
    path: Path
    value: Payload
    prior_size: int = 0
    is_default: bool = False


@dataclass(slots=True)
class AddInteger:
    """Add to an integer, wrapping at 64 bits."""

    opcode: ClassVar[int] = 5
    table: str
    pk: Key
    field: str
    path: Path
    value: int


@dataclass(slots=True)
class AddColumn:
    """Create a property. ``type`` MIXED travels as Null."""

    opcode: ClassVar[int] = 6
    table: str
    field: str
    type: PropertyType
    nullable: bool = False
    collection: Collection = Collection.SINGLE
    link_target: str | None = None
    key_type: PropertyType | None = None


@dataclass(slots=True)
class EraseColumn:
    """Delete a property."""

    opcode: ClassVar[int] = 7
    table: str
    field: str


@dataclass(slots=True)
class ArrayInsert:
    """Insert into a list at the index that ends the path."""

    opcode: ClassVar[int] = 8
    table: str
    pk: Key
    field: str
    path: Path
    value: Payload
    prior_size: int


@dataclass(slots=True)
class ArrayMove:
    """Move the element at the index that ends the path to ``ndx_2``."""

    opcode: ClassVar[int] = 9
    table: str
    pk: Key
    field: str
    path: Path
    ndx_2: int
    prior_size: int


@dataclass(slots=True)
class ArrayErase:
    """Remove the element at the index that ends the path."""

    opcode: ClassVar[int] = 10
    table: str
    pk: Key
    field: str
    path: Path
    prior_size: int


@dataclass(slots=True)
class Clear:
    """Empty a collection."""

    opcode: ClassVar[int] = 11
    table: str
    pk: Key
    field: str
    path: Path
    collection: Collection


@dataclass(slots=True)
class SetInsert:
    """Add to a set."""

    opcode: ClassVar[int] = 12
    table: str
    pk: Key
    field: str
    path: Path
    value: Payload


@dataclass(slots=True)
class SetErase:
    """Remove from a set."""

    opcode: ClassVar[int] = 13
    table: str
    pk: Key
    field: str
    path: Path
    value: Payload


Instruction: TypeAlias = (
    AddTable
    | EraseTable
    | CreateObject
    | EraseObject
    | Update
    | AddInteger
    | AddColumn
    | EraseColumn
    | ArrayInsert
    | ArrayMove
    | ArrayErase
    | Clear
    | SetInsert
    | SetErase
)

__all__ = [
    "AddColumn",
    "AddInteger",
    "AddTable",
    "ArrayErase",
    "ArrayInsert",
    "ArrayMove",
    "Clear",
    "CreateObject",
    "EraseColumn",
    "EraseObject",
    "EraseTable",
    "Instruction",
    "Path",
    "SetErase",
    "SetInsert",
    "Update",
    "replace",
]
