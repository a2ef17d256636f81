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
from realmframe.store.checkpoint import Checkpoint, read_checkpoint, schema_from_json, schema_to_json, write_checkpoint
from realmframe.store.compare import difference_changeset
from realmframe.store.files import FileSystem
from realmframe.store.pending import LocalChange
from realmframe.store.realm_store import Commit, RealmStore
from realmframe.store.recovery import Lost, Recovered, keep_schema, recover, written
from realmframe.store.reset import Reset
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import ClientFile, Entry, Owner, Progress, State
from realmframe.store.table import Table
from realmframe.store.types import arrow_type

__all__ = [
    "Applied",
    "Checkpoint",
    "ClientFile",
    "Commit",
    "Entry",
    "FileSystem",
    "LocalChange",
    "Lost",
    "Owner",
    "Progress",
    "RealmStore",
    "Recovered",
    "Reset",
    "Snapshot",
    "State",
    "Table",
    "Touched",
    "apply",
    "arrow_type",
    "coerce",
    "difference_changeset",
    "erase_changeset",
    "keep_schema",
    "objects_changeset",
    "read_checkpoint",
    "recover",
    "schema_changeset",
    "schema_from_json",
    "schema_to_json",
    "upsert_changeset",
    "value_instructions",
    "values_to_arrow",
    "write_checkpoint",
    "written",
]
