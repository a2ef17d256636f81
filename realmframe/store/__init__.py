"""Floor 2: snapshots in memory, files on disk."""

from realmframe.store.apply import Applied, Touched, apply
from realmframe.store.arrays import coerce, values_to_arrow
from realmframe.store.builders import (
    erase_changeset,
    objects_changeset,
    schema_changeset,
    upsert_changeset,
    value_instructions,
)
from realmframe.store.snapshot import Snapshot
from realmframe.store.table import Table
from realmframe.store.types import arrow_type

__all__ = [
    "Applied",
    "Snapshot",
    "Table",
    "Touched",
    "apply",
    "arrow_type",
    "coerce",
    "erase_changeset",
    "objects_changeset",
    "schema_changeset",
    "upsert_changeset",
    "value_instructions",
    "values_to_arrow",
]
