"""A small source in memory over the fixture of the golden vectors."""

from __future__ import annotations

import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from realmframe.conformance.vectors import TYPES, string_from_json, value_from_json
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    ObjectId,
    ObjectSchema,
    Property,
    PropertyType,
    Schema,
    Timestamp,
)

VECTORS = Path(__file__).parents[1] / "data" / "vectors"
ARROW = {
    PropertyType.INT: pa.int64(),
    PropertyType.BOOL: pa.bool_(),
    PropertyType.STRING: pa.string(),
    PropertyType.DATA: pa.binary(),
    PropertyType.DATE: pa.timestamp("ns", "UTC"),
    PropertyType.FLOAT: pa.float32(),
    PropertyType.DOUBLE: pa.float64(),
    PropertyType.DECIMAL128: pa.binary(16),
    PropertyType.OBJECT_ID: pa.binary(12),
    PropertyType.UUID: pa.uuid(),
}


def to_arrow(values: list[Any], kind: PropertyType, chunks: int = 1) -> pa.ChunkedArray:
    """Build a column as the store keeps it."""
    target = ARROW[kind]

    def raw(value: Any) -> Any:
        if isinstance(value, Timestamp):
            return value.total_nanoseconds
        if isinstance(value, Decimal128):
            return value.to_bytes()
        if isinstance(value, ObjectId):
            return value.binary
        if isinstance(value, uuid.UUID):
            return value.bytes
        return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value

    parts = []
    size = max(1, -(-len(values) // chunks))
    for start in range(0, max(len(values), 1), size):
        part = [None if v is None else raw(v) for v in values[start : start + size]]
        if kind is PropertyType.DATE:
            parts.append(_dates(part))
        elif kind is PropertyType.STRING:
            parts.append(pa.array(part, pa.binary()).view(pa.string()))
        elif kind is PropertyType.UUID:
            parts.append(pa.ExtensionArray.from_storage(pa.uuid(), pa.array(part, pa.binary(16))))
        else:
            parts.append(pa.array(part, target))
    if kind is PropertyType.DATE and len({p.type for p in parts}) > 1:
        parts = [_dates(values and [None if v is None else raw(v) for v in values])]
    return pa.chunked_array(parts)


def _dates(totals: list[Any]) -> pa.Array:
    if all(t is None or abs(t) < 2**63 for t in totals):
        return pa.array(totals, pa.int64()).cast(pa.timestamp("ns", "UTC"))
    moments = [None if t is None else Timestamp.from_nanoseconds(t)._asdict() for t in totals]
    return pa.array(moments, pa.struct([("seconds", pa.int64()), ("nanoseconds", pa.int32())]))


class MemorySource:
    """Tables as lists of Python values, columns built on demand."""

    def __init__(self, schema: Schema, tables: dict[str, dict[str, list[Any]]], keys: dict[str, list[Any]]) -> None:
        self.schema = schema
        self.tables, self.keys = tables, keys
        self._index = {cls: {k: i for i, k in enumerate(found)} for cls, found in keys.items()}
        self._columns: dict[tuple[str, str], pa.ChunkedArray] = {}

    def num_rows(self, cls: str) -> int:
        """Count."""
        return len(self.keys.get(cls, ()))

    def column(self, cls: str, field: str) -> pa.ChunkedArray:
        """Give a column."""
        if (cls, field) not in self._columns:
            prop = self.schema[cls].properties[field]
            assert prop.collection is Collection.SINGLE
            self._columns[cls, field] = to_arrow(self.tables[cls][field], prop.type, chunks=3)
        return self._columns[cls, field]

    def values(self, cls: str, field: str, rows: Any) -> list[Any]:
        """Give values."""
        found = self.tables[cls][field]
        return list(found) if rows is None else [found[int(r)] for r in rows]

    def find(self, cls: str, keys: Any) -> Any:
        """Give rows."""
        return np.asarray([self._index[cls].get(k, -1) for k in keys], dtype=np.int64)


def schema_from_json(classes: dict[str, Any]) -> Schema:
    """Read the classes of a state."""
    out = []
    for name, form in classes.items():
        key = form["pk"]
        properties = {}
        if key:
            properties[key["name"]] = Property(key["name"], TYPES[key["type"]], key["nullable"])
        for field, p in form["columns"].items():
            kind = PropertyType.MIXED if p["type"] == "Mixed" else TYPES[p["type"]]
            collection = Collection[p["collection"].upper()]
            properties[field] = Property(field, kind, p["nullable"], collection, p.get("link_target"))
        out.append(ObjectSchema(name, properties, key and key["name"], ClassKind[form["kind"].upper()]))
    return Schema(out)


def _text(name: str) -> str:
    return gzip.decompress((VECTORS / name).read_bytes()).decode("utf-8")


def load_fixture() -> MemorySource:
    """Read the classes and objects that the golden queries were evaluated on."""
    form = json.loads(_text("rql_fixture.json.gz"))["classes"]
    schema = schema_from_json(form)
    tables: dict[str, dict[str, list[Any]]] = {}
    keys: dict[str, list[Any]] = {}
    for cls in schema.values():
        objects = form[cls.name].get("objects", [])
        keys[cls.name] = [value_from_json(o["pk"]) for o in objects]
        columns = {n: [value_from_json(o["fields"][n]) for o in objects] for n in cls.columns}
        if cls.primary_key:
            columns[cls.primary_key] = keys[cls.name]
        tables[cls.name] = columns
    return MemorySource(schema, tables, keys)


def load_lines() -> list[dict[str, Any]]:
    """Read the golden queries."""
    out = []
    for line in _text("rql.jsonl.gz").splitlines():
        form = json.loads(line)
        form["query"] = string_from_json(form["query"])
        form["args"] = [
            [value_from_json(v) for v in a] if isinstance(a, list) else value_from_json(a) for a in form["args"]
        ]
        if "pks" in form:
            form["pks"] = [value_from_json(k) for k in form["pks"]]
        out.append(form)
    return out


@pytest.fixture(scope="session")
def source() -> MemorySource:
    """Give the fixture's tables."""
    return load_fixture()


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """Give the golden queries with their arguments read."""
    return load_lines()
