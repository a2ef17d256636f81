"""What takes a while the first time in a process, done when the facade is imported.

Compiled kernels are loaded from their cache (or compiled, once per machine), and the query grammar is built. Otherwise
the first open of a process would do it after its clock has started, and keep no short time-out.
"""

from __future__ import annotations

from realmframe.changes import Changeset
from realmframe.model import ObjectSchema, Schema
from realmframe.query import parse
from realmframe.store import Snapshot, apply, schema_changeset


def prepare() -> None:
    """Encode, decode and apply a changeset, and parse a query."""
    schema = Schema([ObjectSchema("Prepared", {"_id": "int"}, "_id")])
    data = schema_changeset(schema, Schema([])).encode()
    apply(Snapshot.empty(), Changeset.decode(data))
    parse("TRUEPREDICATE")
