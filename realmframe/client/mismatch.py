"""What is really wrong when changes of the server contradict the realm: mostly a schema that differs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.errors import ChangesetError, RealmError, SchemaMismatchError
from realmframe.model import Property, PropertyType, Schema
from realmframe.wire import DownloadEntry

_SCHEMA_OPS = (ins.AddTable.opcode, ins.AddColumn.opcode)


def explain_bad_changes(fault: RealmError, entries: Sequence[DownloadEntry], schema: Schema) -> RealmError:
    """Give a SchemaMismatchError in place of a fault, if the entries declare a class or property otherwise than here.

    Parameters
    ----------
    fault : RealmError
        What integrating the entries raised.
    entries : sequence of DownloadEntry
    schema : Schema
        The realm's.
    """
    if not isinstance(fault, ChangesetError):
        return fault
    for entry in entries:
        try:
            changeset = Changeset.decode(entry.changeset)
        except ChangesetError:
            return fault
        rows = np.flatnonzero(np.isin(changeset.op, _SCHEMA_OPS))
        for one in changeset.take(rows).instructions():
            said = _contradiction(one, schema)
            if said is not None:
                return SchemaMismatchError(said, hint="Change the schema to the server's, or use another name.")
    return fault


def _contradiction(one: object, schema: Schema) -> str | None:
    if isinstance(one, ins.AddColumn) and one.table in schema:
        here = schema[one.table].properties.get(one.field)
        optional = one.nullable or one.type in (PropertyType.MIXED,)
        there = Property(one.field, one.type, optional, one.collection, one.link_target or None)
        if here is not None and here.word != there.word:
            return f"{one.table}.{one.field}: the schema here says {here.word}, but the server has {there.word}."
    if isinstance(one, ins.AddTable) and one.table in schema:
        key = schema[one.table].primary_key
        if (one.pk_field or None) != key:
            return f"{one.table}: the primary key here is {key!r}, but the server has {one.pk_field!r}."
    return None
