"""Snapshots: all tables of a realm at one version; immutable, read by any thread without a lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from realmframe.errors import UsageError
from realmframe.model import Key, Schema
from realmframe.store.index import Ids
from realmframe.store.table import Table


class Snapshot:
    """The state of a realm at one version.

    Attributes
    ----------
    version : int
    schema : Schema
    tables : mapping
        Class name to table; embedded classes have none.
    """

    __slots__ = ("schema", "tables", "version")

    def __init__(self, version: int, schema: Schema, tables: Mapping[str, Table]) -> None:
        self.version, self.schema = version, schema
        self.tables: Mapping[str, Table] = MappingProxyType(dict(tables))

    @classmethod
    def empty(cls) -> Snapshot:
        """Give the state that every realm begins with."""
        return cls(0, Schema(), {})

    def __repr__(self) -> str:
        return f"<Snapshot of version {self.version}: {', '.join(map(repr, self.tables.values()))}>"

    def at_version(self, version: int) -> Snapshot:
        """Give the same state under another version."""
        return Snapshot(version, self.schema, self.tables)

    def table(self, cls: str) -> Table:
        """Give a class's table.

        Raises
        ------
        UsageError
            If the class does not exist or is embedded.
        """
        found = self.tables.get(cls)
        if found is None:
            raise UsageError(f"The realm has no objects of a class {cls!r}.")
        return found

    def object(self, cls: str, key: Key) -> dict[str, Any] | None:
        """Give one object, property to model value; None if there is none, or no such class."""
        table = self.tables.get(cls)
        position = -1 if table is None else int(table.find([key])[0])
        return None if table is None or position < 0 else table.row(position)

    # What queries read.

    def num_rows(self, cls: str) -> int:
        """Count the objects of a class."""
        return len(self.table(cls))

    def column(self, cls: str, field: str) -> pa.ChunkedArray:
        """Give a column."""
        return self.table(cls).column(field)

    def values(self, cls: str, field: str, rows: Ids | None = None) -> list[Any]:
        """Give model values of a column."""
        return self.table(cls).values(field, rows)

    def find(self, cls: str, keys: Sequence[Key]) -> Ids:
        """Give the positions of keys, -1 where there is no such object."""
        return self.table(cls).find(keys)
