"""What changed between two snapshots of a realm.

Snapshots share the chunks and columns that did not change, so the cost grows with the chunks that did, not with all
rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.errors import UsageError
from realmframe.frames import snapshot_frame
from realmframe.store import Snapshot, Table

Ids = np.ndarray[Any, Any]


class ClassChange:
    """What changed in one class.

    Attributes
    ----------
    inserted, modified, deleted : DataFrame
        The keys of those objects, one column named like the primary key.
    """

    def __init__(self, class_name: str, before: Snapshot, after: Snapshot, rows: tuple[Ids, Ids, Ids]) -> None:
        self.class_name = class_name
        self._before, self._after = before, after
        self._inserted, self._modified, self._deleted = rows

    @cached_property
    def inserted(self) -> Any:
        """Keys of new objects."""
        return self._keys(self._after, self._inserted)

    @cached_property
    def modified(self) -> Any:
        """Keys of objects that changed."""
        return self._keys(self._after, self._modified)

    @cached_property
    def deleted(self) -> Any:
        """Keys of objects that are gone."""
        return self._keys(self._before, self._deleted)

    def _keys(self, snapshot: Snapshot, rows: Ids) -> Any:
        key = self._after.schema[self.class_name].primary_key
        frame = snapshot_frame(snapshot, self.class_name, rows)
        return frame if key is None else frame[[key]]

    def __bool__(self) -> bool:
        return bool(len(self._inserted) + len(self._modified) + len(self._deleted))

    def __repr__(self) -> str:
        counts = f"{len(self._inserted)} inserted, {len(self._modified)} modified, {len(self._deleted)} deleted"
        return f"<{self.class_name}: {counts}>"


class RealmChange(Mapping[str, ClassChange]):
    """What changed in a realm: a mapping from class names, in which every class of the realm can be asked for.

    Attributes
    ----------
    version : int
        The version that the change led to.
    """

    def __init__(self, before: Snapshot, after: Snapshot, changed: Mapping[str, ClassChange]) -> None:
        self.version = after.version
        self._before, self._after = before, after
        self._changed = dict(changed)

    def __getitem__(self, class_name: str) -> ClassChange:
        found = self._changed.get(class_name)
        if found is None:
            if class_name not in self._after.tables:
                raise UsageError(f"The realm has no class {class_name!r}.")
            none = np.empty(0, np.int64)
            found = ClassChange(class_name, self._after, self._after, (none, none, none))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._changed)

    def __len__(self) -> int:
        return len(self._changed)

    def __repr__(self) -> str:
        return f"<change to version {self.version}: {list(self._changed.values())}>"


def difference(before: Snapshot, after: Snapshot) -> RealmChange:
    """Find what changed from one snapshot to a later one of the same realm."""
    changed = {}
    for name, table in after.tables.items():
        rows = table_difference(before.tables.get(name), table)
        if rows is not None:
            made = ClassChange(name, before, after, rows)
            if made:
                changed[name] = made
    return RealmChange(before, after, changed)


def table_difference(old: Table | None, new: Table) -> tuple[Ids, Ids, Ids] | None:
    """Find positions of rows inserted and modified (in the new table) and deleted (in the old); None if the same."""
    none = np.empty(0, np.int64)
    if old is new:
        return None
    if old is None:
        return np.arange(len(new), dtype=np.int64), none, none
    shared = {id(c) for c in old.chunks} & {id(c) for c in new.chunks}
    left = [c for c in old.chunks if id(c) not in shared]
    right = [c for c in new.chunks if id(c) not in shared]
    if not left and not right:
        return None
    before, after = _ids(left), _ids(right)
    inserted = after[~np.isin(after, before, assume_unique=True)]
    deleted = before[~np.isin(before, after, assume_unique=True)]
    common = np.intersect1d(before, after, assume_unique=True)
    modified = common[_modified(left, right, np.searchsorted(before, common), np.searchsorted(after, common))]
    return new.positions(inserted), new.positions(modified), old.positions(deleted)


def _ids(chunks: list[Any]) -> Ids:
    return np.concatenate([c.ids for c in chunks]) if chunks else np.empty(0, np.int64)


def _modified(left: list[Any], right: list[Any], left_rows: Ids, right_rows: Ids) -> Ids:
    """Tell for rows of both sides whether any column differs."""
    out = np.zeros(len(left_rows), bool)
    if not len(left_rows):
        return out
    names = [n for n in right[0].columns if n in left[0].columns]
    for name in names:
        old, new = [c.columns[name] for c in left], [c.columns[name] for c in right]
        if len(old) == len(new) and all(a is b for a, b in zip(old, new, strict=True)):
            continue
        out |= differs(_column(old), left_rows, _column(new), right_rows)
    return out


def _column(cells: list[Any]) -> Any:
    arrays = [c.array for c in cells]
    return arrays[0] if len(arrays) == 1 else pa.chunked_array(arrays).combine_chunks()


def differs(old: Any, old_rows: Ids, new: Any, new_rows: Ids) -> Ids:
    """Compare rows of two columns; null equals null, NaN equals NaN."""
    left, right = old.take(pa.array(old_rows)), new.take(pa.array(new_rows))
    if isinstance(left.type, pa.BaseExtensionType):
        left = left.storage
    if isinstance(right.type, pa.BaseExtensionType):
        right = right.storage
    if left.equals(right):
        return np.zeros(len(left), bool)
    if pa.types.is_nested(left.type) or left.type != right.type:
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return np.fromiter((a != b for a, b in pairs), bool, len(left))
    unequal = pc.fill_null(pc.not_equal(left, right), False)
    nulls = pc.xor(pc.is_null(left), pc.is_null(right))
    found = np.array(pc.or_(unequal, nulls), bool)
    if pa.types.is_floating(left.type):
        both = pc.and_(pc.fill_null(pc.is_nan(left), False), pc.fill_null(pc.is_nan(right), False))
        found &= ~np.array(both, bool)
    return found
