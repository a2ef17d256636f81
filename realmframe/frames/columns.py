"""From the store's Arrow columns to the arrays of pandas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.frames.array import to_pandas
from realmframe.frames.cells import WIDE_DATE

_YEAR_1: Final = -62_135_596_800
_YEAR_10000: Final = 253_402_300_800
#: Seconds that nanoseconds in 64 bits surely reach.
_NS_SECONDS: Final = 9_223_372_035


def to_pandas_array(column: pa.ChunkedArray) -> Any:
    """Wrap a column as an array of an ``ArrowDtype``, without copying.

    Dates that come as seconds and nanoseconds, alone or inside lists, dictionaries and embedded objects, are shown as
    timestamps: in nanoseconds if all of the column can be, else in microseconds where that is exact for all.
    """
    unit = _unit(column) if _has_dates(column.type) else None
    if unit is not None:
        kind = pa.timestamp(unit, "UTC")
        chunks = [_narrowed(c, kind) for c in column.chunks]
        column = pa.chunked_array(chunks, _narrowed(pa.nulls(0, column.type), kind).type)
    return to_pandas(column)


def _has_dates(kind: pa.DataType) -> bool:
    if kind == WIDE_DATE:
        return True
    if pa.types.is_map(kind):
        return _has_dates(kind.item_type)
    if pa.types.is_list(kind):
        return _has_dates(kind.value_type)
    return pa.types.is_struct(kind) and any(_has_dates(f.type) for f in kind)


def _dates(array: Any) -> Iterator[Any]:
    """Find the arrays of dates anywhere in an array."""
    kind = array.type
    if kind == WIDE_DATE:
        yield array
    elif pa.types.is_map(kind):
        yield from _dates(array.items)
    elif pa.types.is_list(kind):
        yield from _dates(array.values)
    elif pa.types.is_struct(kind):
        for n in range(kind.num_fields):
            yield from _dates(array.field(n))


def _unit(column: pa.ChunkedArray) -> str | None:
    """Give the unit in which all dates of a column are exact, None if there is none."""
    unit = "ns"
    for chunk in column.chunks:
        for dates in _dates(chunk):
            valid = dates.drop_null()
            seconds = valid.field("seconds").to_numpy(zero_copy_only=False)
            nanos = valid.field("nanoseconds").to_numpy(zero_copy_only=False)
            if not len(seconds) or (np.abs(seconds) <= _NS_SECONDS).all():
                continue
            in_range = (seconds >= _YEAR_1) & (seconds < _YEAR_10000)
            if not (in_range.all() and (nanos % 1000 == 0).all()):
                return None
            unit = "us"
    if unit == "us":
        every = (d.drop_null().field("nanoseconds") for c in column.chunks for d in _dates(c))
        if any((n.to_numpy(zero_copy_only=False) % 1000 != 0).any() for n in every):
            return None
    return unit


def _narrowed(array: Any, kind: pa.DataType) -> Any:
    """Rebuild an array with its dates as timestamps."""
    form = array.type
    if form == WIDE_DATE:
        per = 1_000_000_000 if kind.unit == "ns" else 1_000_000
        seconds = pc.fill_null(array.field("seconds"), 0)
        nanos = pc.fill_null(array.field("nanoseconds"), 0).cast(pa.int64())
        seconds = pc.if_else(array.is_valid(), seconds, 0)
        nanos = pc.if_else(array.is_valid(), nanos, 0)
        total = pc.add(pc.multiply(seconds, per), pc.divide(nanos, 1_000_000_000 // per))
        return pc.if_else(array.is_valid(), total, None).cast(kind)
    mask = array.is_null() if array.null_count else None
    if pa.types.is_map(form):
        return pa.MapArray.from_arrays(array.offsets, array.keys, _narrowed(array.items, kind), mask=mask)
    if pa.types.is_list(form):
        return pa.ListArray.from_arrays(array.offsets, _narrowed(array.values, kind), mask=mask)
    if pa.types.is_struct(form):
        columns = [_narrowed(array.field(n), kind) for n in range(form.num_fields)]
        return pa.StructArray.from_arrays(columns, [f.name for f in form], mask=mask)
    return array
