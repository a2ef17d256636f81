"""Objects that pass through a client: those of asymmetric classes are uploaded, and nothing of them is kept here.

The real engine empties the tables of asymmetric classes at the end of each commit (``DB::do_commit``), and writes no
erasure for it; so an upload has the objects, and the state never does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from realmframe.changes import Changeset
from realmframe.model import ClassKind, Schema
from realmframe.store.applied import Applied
from realmframe.store.apply import apply
from realmframe.store.snapshot import Snapshot


def is_passing(schema: Schema, cls: str) -> bool:
    """Tell whether nothing of a class is kept on a client."""
    found = schema.get(cls)
    return found is not None and found.kind is ClassKind.ASYMMETRIC


def without_passing(snapshot: Snapshot, applied: Applied, changeset: Callable[[], Changeset], version: int) -> Applied:
    """Leave out of what was applied the objects that are not kept.

    Parameters
    ----------
    snapshot : Snapshot
        The state before.
    applied : Applied
        The changeset as a whole, so it fits.
    changeset : callable
        Gives it.
    version : int
    """
    schema = applied.snapshot.schema
    if not any(is_passing(schema, name) for name in applied.touched):
        return applied
    cs = changeset()
    numbers = [n for n in np.unique(cs.table).tolist() if is_passing(schema, cs.string(n))]
    rows = cs.is_schema | ~np.isin(cs.table, numbers)
    return apply(snapshot, cs.take(np.flatnonzero(rows)), version=version)
