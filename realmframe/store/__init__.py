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
from realmframe.store.files import FileSystem
from realmframe.store.pending import LocalChange
from realmframe.store.realm_store import Commit, RealmStore
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import ClientFile, Entry, Owner, Progress
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
    "Owner",
    "Progress",
    "RealmStore",
    "Snapshot",
    "Table",
    "Touched",
    "apply",
    "arrow_type",
    "coerce",
    "erase_changeset",
    "objects_changeset",
    "read_checkpoint",
    "schema_changeset",
    "schema_from_json",
    "schema_to_json",
    "upsert_changeset",
    "value_instructions",
    "values_to_arrow",
    "write_checkpoint",
]
