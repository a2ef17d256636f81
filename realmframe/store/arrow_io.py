"""Tables as record batches and back: what checkpoints write, and open memory-mapped without copying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from realmframe.errors import CorruptFileError
from realmframe.model import ObjectSchema, Schema
from realmframe.store import types as t
from realmframe.store.index import KeyIndex
from realmframe.store.table import Cells, Chunk, Table, build_index, widen

ROW_ID: Final = "__row_id__"
KEY: Final = "__key__"


def chunk_to_batch(table: Table, chunk: Chunk, schema: pa.Schema) -> pa.RecordBatch:
    """Write one chunk."""
    arrays = [pa.array(chunk.ids), chunk.keys]
    for field in list(schema)[2:]:
        array = chunk.columns[field.name].array
        arrays.append(_fitted(array, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _fitted(array: Any, kind: pa.DataType) -> Any:
    if array.type == kind:
        return array
    if kind == t.WIDE_DATE and array.type == t.DATE:
        return widen(array)
    return array.cast(kind)


def batch_schema(table: Table) -> pa.Schema:
    """Give the Arrow schema of a table's batches; a date column is wide if any of its chunks is."""
    fields = [pa.field(ROW_ID, pa.int64()), pa.field(KEY, t.key_type(table.cls.key_property))]
    for name, prop in table.cls.columns.items():
        kinds = [c.columns[name].array.type for c in table.chunks]
        kind = t.arrow_type(prop, table.schema)
        if any(k == t.WIDE_DATE for k in kinds) and kind == t.DATE:
            kind = t.WIDE_DATE
        elif kinds:
            kind = kinds[0] if kind != t.DATE else kind
        metadata = {"target": prop.target} if prop.target else None
        fields.append(pa.field(name, kind, metadata=metadata))
    return pa.schema(fields)


def table_from_batches(
    cls: ObjectSchema,
    schema: Schema,
    batches: Sequence[pa.RecordBatch],
    *,
    next_id: int | None = None,
    index: Mapping[str, Any] | None = None,
) -> Table:
    """Read batches that :func:`chunk_to_batch` wrote; nothing is copied.

    Parameters
    ----------
    next_id : int, optional
        The id of the next row; one more than the highest by default.
    index : mapping, optional
        ``first``, ``second`` and ``rows``, memory-mapped or not, and the ``secret``; built anew without it.

    Raises
    ------
    CorruptFileError
        If a column is missing.
    """
    chunks = []
    for batch in batches:
        if not batch.num_rows:
            continue
        names = batch.schema.names
        missing = [n for n in (ROW_ID, KEY, *cls.columns) if n not in names]
        if missing:
            raise CorruptFileError(f"The file of class {cls.name} has no column {missing[0]!r}.")
        columns = {}
        for name, prop in cls.columns.items():
            columns[name] = Cells(prop, schema, _current(batch.column(name), t.arrow_type(prop, schema)))
        # Not to_numpy: that imports pandas, which takes longer than all the rest.
        stored = batch.column(ROW_ID)
        ids = np.frombuffer(stored.buffers()[1], np.int64)[stored.offset : stored.offset + len(stored)]
        chunks.append(Chunk(ids, batch.column(KEY), columns))
    after = int(chunks[-1].ids[-1]) + 1 if chunks else 0
    limit = after if next_id is None else max(next_id, after)
    if index is None:
        keys = build_index(cls, chunks)
    else:
        rows = index["rows"]
        keys = KeyIndex(index["first"], index["second"], rows, _used(rows), limit, index["secret"])
    keys.end = limit
    return Table(cls, schema, tuple(chunks), keys, limit)


def _current(array: Any, kind: pa.DataType) -> Any:
    """Bring an array of an earlier version to today's type: dates in embedded objects were not wide."""
    if array.type == kind or not pa.types.is_nested(kind) or isinstance(array, pa.ExtensionArray):
        return array
    if kind == t.WIDE_DATE:
        return _fitted(array, kind)
    if pa.types.is_struct(kind):
        columns = [_current(array.field(f.name), f.type) for f in kind]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(columns, fields=list(kind), mask=mask)
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(array.offsets, array.keys, _current(array.items, kind.item_type))
    return pa.ListArray.from_arrays(array.offsets, _current(array.values, kind.value_type))


def _used(rows: Any) -> int:
    # An upper bound is enough, and costs nothing: tables are filled to a half at most.
    return len(rows) // 2
