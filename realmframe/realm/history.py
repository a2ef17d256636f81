"""A realm's past, and its present for other engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from realmframe.errors import UsageError
from realmframe.frames import snapshot_frame
from realmframe.store import RealmStore, Snapshot, Table


class PastRealm(Mapping[str, Any]):
    """A realm as it was: ordinary frames by class.

    Attributes
    ----------
    version : int
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.version = snapshot.version

    def __getitem__(self, class_name: str) -> Any:
        return snapshot_frame(self.snapshot, class_name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.snapshot.tables)

    def __len__(self) -> int:
        return len(self.snapshot.tables)

    def __repr__(self) -> str:
        return f"<the realm at version {self.version}: {', '.join(self)}>"


def as_of(store: RealmStore, version: int) -> PastRealm:
    """Show a realm at an earlier version.

    Raises
    ------
    UsageError
        For a version that is no longer kept; it names those that are.
    """
    return PastRealm(store.as_of(version))


def history(store: RealmStore, class_name: str) -> Any:
    """List the commits that this process still knows, with how many objects of a class each touched."""
    rows = []
    for commit in store.past():
        touched = commit.touched.get(class_name)
        counts = (0, 0, 0)
        if touched is not None:
            counts = (len(touched.inserted), len(touched.modified_ids), len(touched.deleted))
        if any(counts):
            rows.append((commit.snapshot.version, *counts))
    names = ("version", "inserted", "modified", "deleted")
    columns = {name: pa.array([row[i] for row in rows], pa.int64()) for i, name in enumerate(names)}
    return pa.table(columns).to_pandas()


#: What the quarantine says of each lost write.
QUARANTINE: Final = ("class", "primary_key", "reason", "values", "when", "kind", "copy")


def quarantine(records: Iterable[Mapping[str, Any]]) -> Any:
    """Make a frame of the quarantine: always the same columns, ``values`` as extended JSON, ``when`` in UTC."""
    rows = list(records)
    columns = {name: _array([row.get(name) for row in rows]) for name in QUARANTINE}
    seconds = columns["when"].cast(pa.float64())
    columns["when"] = pc.multiply(seconds, 1e6).cast(pa.int64(), safe=False).cast(pa.timestamp("us", "UTC"))
    return pa.table(columns).to_pandas()


def _array(values: list[Any]) -> Any:
    """Make a column; values of several types are shown as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else str(v) for v in values])


def storage_table(table: Table) -> pa.Table:
    """Give a class as an Arrow table of plain types, which every engine reads."""
    columns = {}
    for name in table.cls.properties:
        column = table.column(name)
        columns[name] = (
            column.cast(column.type.storage_type) if isinstance(column.type, pa.BaseExtensionType) else column
        )
    return pa.table(columns)


def dataset(snapshot: Snapshot, class_name: str) -> Any:
    """Give a class as a ``pyarrow.dataset``."""
    return ds.dataset(storage_table(snapshot.table(class_name)))


def sql(snapshot: Snapshot, text: str) -> Any:
    """Run SQL over a snapshot with DuckDB.

    Raises
    ------
    UsageError
        If DuckDB is not installed, or refuses the text.
    """
    try:
        import duckdb
    except ImportError as missing:
        raise UsageError("realm.sql needs DuckDB.", hint='`pip install "realmframe[sql]"` has it.') from missing
    with duckdb.connect() as connection:
        for name, table in snapshot.tables.items():
            connection.register(name, storage_table(table))
        try:
            return connection.execute(text).df()
        except duckdb.Error as fault:
            raise UsageError(f"The SQL cannot be run: {fault}") from fault
