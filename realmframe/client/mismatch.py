"""What is really wrong when changes of the server contradict the realm: mostly a schema that differs."""

from __future__ import annotations

from collections.abc import Sequence

from realmframe.changes import Changeset
from realmframe.errors import ChangesetError, RealmError, SchemaMismatchError
from realmframe.model import Schema
from realmframe.store import contradiction
from realmframe.wire import DownloadEntry


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
        found = contradiction(changeset, schema)
        if found is not None:
            said = f"{found.name}: the schema here says {found.have}, but the server has {found.said}."
            return SchemaMismatchError(said, hint="Change the schema to the server's, or use another name.")
    return fault
