"""Whether a schema fits what is there already."""

from __future__ import annotations

from realmframe.errors import SchemaError, SchemaMismatchError, UsageError
from realmframe.model import ClassKind, ObjectSchema, Schema


def refuse_to_read(schema: Schema, class_name: str) -> None:
    """Refuse to look for objects of an asymmetric class: none is ever kept here.

    Raises
    ------
    UsageError
    """
    cls = schema.get(class_name)
    if cls is not None and cls.kind is ClassKind.ASYMMETRIC:
        raise UsageError(
            f"The class {class_name} is asymmetric: its objects are uploaded, and nothing of them is kept here.",
            hint="tx.create writes them; they can be read at the server.",
        )


def check_mode(schema: Schema, *, flexible: bool | None) -> None:
    """Refuse classes that a realm of a kind cannot have, as the SDKs do.

    Parameters
    ----------
    schema : Schema
    flexible : bool or None
        Whether it syncs flexibly or by partition; None: it is local.

    Raises
    ------
    SchemaError
        For an asymmetric class where nothing takes its objects away; for a class of a synced realm whose primary key
        is not ``_id``.
    """
    for cls in schema.values():
        if cls.kind is ClassKind.ASYMMETRIC and not flexible:
            where = "a local realm" if flexible is None else "partition-based sync"
            hint = "Its objects are uploaded and not kept: that takes Flexible Sync."
            raise SchemaError(f"The class {cls.name} is asymmetric, which {where} cannot have.", hint=hint)
        if flexible is not None and not cls.embedded and cls.primary_key != "_id":
            found = "none" if cls.primary_key is None else repr(cls.primary_key)
            raise SchemaError(
                f"The class {cls.name} of a synced realm needs a primary key named '_id', but has {found}.",
                hint="Classes without one can be in local realms, or be embedded.",
            )


def check_schema(wanted: Schema, have: Schema) -> None:
    """Check that a schema only adds to another.

    Parameters
    ----------
    wanted : Schema
        As configured.
    have : Schema
        As the file has it; what the server says otherwise is refused when it is integrated.

    Raises
    ------
    SchemaMismatchError
        Naming the class and property, and both types.
    """
    for name, cls in wanted.items():
        known = have.get(name)
        if known is not None:
            _check_class(cls, known)


def _check_class(cls: ObjectSchema, known: ObjectSchema) -> None:
    if cls.kind is not known.kind:
        raise SchemaMismatchError(
            f"{cls.name}: the schema says {cls.kind.name.lower()}, but the file has it as {known.kind.name.lower()}.",
            hint="A class keeps its kind; use another name.",
        )
    if cls.primary_key != known.primary_key:
        raise SchemaMismatchError(
            f"{cls.name}: the schema's primary key is {cls.primary_key!r}, but the file has {known.primary_key!r}.",
            hint="A class keeps its primary key; use another name.",
        )
    for name, prop in cls.properties.items():
        other = known.properties.get(name)
        if other is not None and other != prop:
            raise SchemaMismatchError(
                f"{cls.name}.{name}: the schema says {prop.word}, but the file has {other.word}.",
                hint="A property keeps its type; change the schema, or use another name.",
            )
