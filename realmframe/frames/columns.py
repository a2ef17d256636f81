"""From the store's Arrow columns to the arrays of pandas."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_YEAR_1 = -62_135_596_800
_YEAR_10000 = 253_402_300_800


def to_pandas_array(column: pa.ChunkedArray) -> Any:
    """Wrap a column as an ``ArrowDtype`` array, without copying.

    A date column with instants beyond the range of nanoseconds comes as seconds and nanoseconds; it is shown in
    microseconds where that is exact, and as those two numbers where not.
    """
    if pa.types.is_struct(column.type) and column.type.num_fields == 2 and column.type.field(0).name == "seconds":
        column = _wide_date(column)
    return pd.arrays.ArrowExtensionArray(column)


def _wide_date(column: pa.ChunkedArray) -> pa.ChunkedArray:
    seconds = pc.struct_field(column, "seconds")
    nanos = pc.struct_field(column, "nanoseconds").cast(pa.int64())
    whole = pc.equal(pc.multiply(pc.divide(nanos, 1000), 1000), nanos)
    in_range = pc.and_(pc.greater_equal(seconds, _YEAR_1), pc.less(seconds, _YEAR_10000))
    if not pc.all(pc.and_(whole, in_range), min_count=0).as_py():
        return column
    micros = pc.add(pc.multiply(seconds, 1_000_000), pc.divide(nanos, 1000))
    return micros.cast(pa.timestamp("us", "UTC"))
