"""Whether the schema of a client fits the app's."""

from __future__ import annotations

from typing import Final

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable
from realmframe.errors import SchemaMismatchError
from realmframe.model import Schema
from realmframe.store import contradiction, schema_changeset

#: Classes and properties that an error names at most.
_NAMED: Final = 5


def check_fits(changeset: Changeset, schema: Schema) -> None:
    """Check that a client declares no class or property otherwise than the app has it.

    Raises
    ------
    SchemaMismatchError
        Naming the first that it does.
    """
    found = contradiction(changeset, schema)
    if found is not None:
        raise SchemaMismatchError(
            f"The client's schema contradicts the app's: {found.name} is {found.said} there, and {found.have} here.",
            hint="Change the client's schema, or use another name.",
        )


def check_unchanged(before: Schema, after: Schema) -> None:
    """Check that a client did not change the schema of an app where it may not.

    Raises
    ------
    SchemaMismatchError
        Naming what it added.
    """
    if before is after:
        return
    added = schema_changeset(after, before).instructions()
    names = [one.table for one in added if isinstance(one, AddTable)]
    names += [f"{one.table}.{one.field}" for one in added if isinstance(one, AddColumn) and one.table in before]
    what = f"clients may not add {', '.join(names[:_NAMED])}" if names else "clients may not take from it"
    raise SchemaMismatchError(
        f"The schema of this app is fixed: {what}.", hint="A server in development mode takes what clients add."
    )
