"""Floor 2: snapshots in memory, files on disk."""

from realmframe.store.applied import Applied, Touched
from realmframe.store.apply import apply
from realmframe.store.arrays import model_to_arrow, one_array, values_to_arrow
from realmframe.store.builders import (
    erase_changeset,
    new_global_keys,
    objects_changeset,
    schema_changeset,
    upsert_changeset,
)
from realmframe.store.checkpoint import Checkpoint, read_checkpoint, schema_from_json, schema_to_json, write_checkpoint
from realmframe.store.coercion import (
    check_field,
    coerce,
    coerce_mixed,
    dictionary_key,
)
from realmframe.store.compare import difference_changeset
from realmframe.store.contradiction import Contradiction, contradiction
from realmframe.store.exactly import arrays_differ
from realmframe.store.files import FileSystem
from realmframe.store.nested import same_element
from realmframe.store.pending import LocalChange
from realmframe.store.realm_files import Commit
from realmframe.store.realm_store import RealmStore
from realmframe.store.recovery import Lost, Recovered, keep_schema, recover, written
from realmframe.store.reset import Reset
from realmframe.store.revise import revision_instructions
from realmframe.store.scalars import MAX_DATA_BYTES, MAX_STRING_BYTES
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import ClientFile, Entry, Owner, Progress, State
from realmframe.store.table import Table
from realmframe.store.types import MIXED, arrow_type, key_type
from realmframe.store.writer import insertion_instructions, value_instructions

__all__ = [
    "MAX_DATA_BYTES",
    "MAX_STRING_BYTES",
    "MIXED",
    "Applied",
    "Checkpoint",
    "ClientFile",
    "Commit",
    "Contradiction",
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
    "arrays_differ",
    "arrow_type",
    "check_field",
    "coerce",
    "coerce_mixed",
    "contradiction",
    "dictionary_key",
    "difference_changeset",
    "erase_changeset",
    "insertion_instructions",
    "keep_schema",
    "key_type",
    "model_to_arrow",
    "new_global_keys",
    "objects_changeset",
    "one_array",
    "read_checkpoint",
    "recover",
    "revision_instructions",
    "same_element",
    "schema_changeset",
    "schema_from_json",
    "schema_to_json",
    "upsert_changeset",
    "value_instructions",
    "values_to_arrow",
    "write_checkpoint",
    "written",
]
