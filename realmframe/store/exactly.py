"""Which values of two arrays differ, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.model import Property, Schema
from realmframe.store import types as t
from realmframe.store.arrays import arrow_to_model
from realmframe.store.mixed import exact


def arrays_differ(old: Any, new: Any, prop: Property, schema: Schema) -> Any:
    """Tell which rows of two arrays of a property hold different values.

    A null differs from everything but a null, 0.0 from -0.0, and a not-a-number only from other bits; the order of a
    dictionary's entries and of a set's elements does not count.

    Parameters
    ----------
    old, new : pyarrow.Array
        Of the same length.
    prop : Property
    schema : Schema

    Returns
    -------
    array of bool
    """
    if len(old) == 0:
        return np.zeros(0, np.bool_)
    if old.type != new.type or not t.is_scalar(prop, schema):
        return _values_differ(old, new, prop, schema)
    if isinstance(old, pa.ExtensionArray):
        old, new = old.storage, new.storage
    if pa.types.is_struct(old.type):
        return _wide_differ(old, new)
    if pa.types.is_floating(old.type):
        # Compared as bits, so that a not-a-number equals itself.
        kind = pa.int64() if old.type == pa.float64() else pa.int32()
        old, new = old.view(kind), new.view(kind)
    unequal = pc.fill_null(pc.not_equal(old, new), False)
    return pc.or_(unequal, pc.xor(pc.is_null(old), pc.is_null(new))).to_numpy(zero_copy_only=False)


def _wide_differ(old: Any, new: Any) -> Any:
    """Compare dates in the wide form, for whose struct Arrow has no kernel."""
    nulls = pc.xor(pc.is_null(old), pc.is_null(new))
    for name in ("seconds", "nanoseconds"):
        unequal = pc.fill_null(pc.not_equal(pc.struct_field(old, name), pc.struct_field(new, name)), False)
        nulls = pc.or_(nulls, unequal)
    return nulls.to_numpy(zero_copy_only=False)


def _values_differ(old: Any, new: Any, prop: Property, schema: Schema) -> Any:
    """Compare nested values; runs that are equal cost one comparison by Arrow, and only the others are decoded."""
    out = np.zeros(len(old), np.bool_)
    same_type, plain_old, plain_new = old.type == new.type, _bits(old), _bits(new)
    spans = [(0, len(old))]
    doubtful: list[int] = []
    while spans:
        start, stop = spans.pop()
        size = stop - start
        if not size or (same_type and plain_old.slice(start, size).equals(plain_new.slice(start, size))):
            continue
        if size <= 8:
            doubtful += range(start, stop)
            continue
        middle = (start + stop) // 2
        spans += [(start, middle), (middle, stop)]
    rows = pa.array(doubtful, pa.int64())
    left, right = (arrow_to_model(a.take(rows), prop, schema) for a in (old, new))
    for row, before, after in zip(doubtful, left, right, strict=True):
        out[row] = exact(before) != exact(after)
    return out


def _bits(array: Any) -> Any:
    """Give an array with integers for the bits of floating numbers, which Arrow compares as they should be."""
    kind = array.type
    if pa.types.is_floating(kind):
        return array.view(pa.int64() if kind == pa.float64() else pa.int32())
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(array.offsets, _bits(array.values))
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(array.offsets, array.keys, _bits(array.items))
    if pa.types.is_struct(kind):
        columns = [_bits(array.field(n)) for n in range(kind.num_fields)]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(columns, [f.name for f in kind], mask=mask)
    return array
