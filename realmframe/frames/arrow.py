"""From what users hand over — DataFrames, Arrow tables, dictionaries — to exact Arrow tables of a class."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.errors import WriteError
from realmframe.frames.cells import WIDE_DATE, is_missing, plain, to_python
from realmframe.model import Collection, ObjectSchema, Property, PropertyType, Schema
from realmframe.store import (
    MAX_DATA_BYTES,
    MAX_STRING_BYTES,
    MIXED,
    arrow_type,
    coerce,
    model_to_arrow,
    values_to_arrow,
)

#: What a transaction takes.
Records: TypeAlias = "pd.DataFrame | pa.Table | Mapping[str, Any] | Sequence[Mapping[str, Any]]"

_ARROW_NATIVE = frozenset(
    {
        PropertyType.INT,
        PropertyType.BOOL,
        PropertyType.STRING,
        PropertyType.DATA,
        PropertyType.FLOAT,
        PropertyType.DOUBLE,
        PropertyType.DATE,
    }
)


def records_to_arrow(records: Records, cls: ObjectSchema, schema: Schema) -> pa.Table:
    """Convert records of one class; see :func:`records_to_tables`, for records that all have the same fields.

    Raises
    ------
    WriteError
        If the records do not all have the same fields, besides what :func:`records_to_tables` raises.
    """
    tables = list(records_to_tables(records, cls, schema))
    if len(tables) != 1:
        raise WriteError(f"{cls.name}: the records do not all have the same fields.")
    return tables[0]


def records_to_tables(records: Records, cls: ObjectSchema, schema: Schema) -> Iterator[pa.Table]:
    """Convert records of one class to Arrow tables with exactly the store's types.

    Parameters
    ----------
    records : DataFrame, Arrow table, dict or sequence of dict
        One column per property; properties that are absent stay as they are. An index that is named like the primary
        key is taken for it.
    cls : ObjectSchema
    schema : Schema
        For the classes that ``cls`` embeds or links to.

    Yields
    ------
    pyarrow.Table
        One table for each run of records with the same fields (a frame or an Arrow table is one).

    Raises
    ------
    WriteError
        For an unknown property, a value that its type cannot hold exactly, a null that is not allowed, or a missing
        primary key; it names class, property and row.
    """
    if isinstance(records, pa.Table):
        yield _table(cls, schema, {name: records[name] for name in records.column_names}, records.num_rows)
    elif isinstance(records, pd.DataFrame):
        frame = records
        if cls.primary_key is not None and cls.primary_key not in frame and frame.index.name == cls.primary_key:
            frame = frame.reset_index()
        yield _table(cls, schema, {str(name): frame[name] for name in frame.columns}, len(frame))
    elif isinstance(records, Mapping):
        yield from records_to_tables([records], cls, schema)
    else:
        for run in _runs(records, cls):
            names = list(run[0])
            yield _table(cls, schema, {name: [row[name] for row in run] for name in names}, len(run))


def _runs(records: Iterable[Mapping[str, Any]], cls: ObjectSchema) -> Iterator[list[Mapping[str, Any]]]:
    run: list[Mapping[str, Any]] = []
    for row, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise WriteError(
                f"{cls.name}: record {row} is a {type(record).__name__}.",
                hint="Give a DataFrame, an Arrow table, a dict or a list of dicts.",
            )
        if run and run[0].keys() != record.keys():
            yield run
            run = []
        run.append(record)
    if run:
        yield run


def _table(cls: ObjectSchema, schema: Schema, columns: Mapping[str, Any], rows: int) -> pa.Table:
    if cls.primary_key is not None and cls.primary_key not in columns:
        raise WriteError(f"{cls.name}: the primary key {cls.primary_key!r} is missing.")
    made: dict[str, Any] = {}
    for name, values in columns.items():
        prop = cls.properties.get(name)
        if prop is None:
            near = difflib.get_close_matches(name, cls.properties, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(cls.properties)}."
            raise WriteError(f"{cls.name} has no property {name!r}.", hint=hint)
        made[name] = column_to_arrow(values, cls, prop, schema)
        if len(made[name]) != rows:
            raise WriteError(f"{cls.name}.{name} has {len(made[name])} values for {rows} records.")
    return pa.table(made)


def column_to_arrow(values: Any, cls: ObjectSchema, prop: Property, schema: Schema) -> Any:
    """Convert the values of one property to the store's Arrow type."""
    where = f"{cls.name}.{prop.name}"
    try:
        array = _convert(values, where, prop, schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as fault:
        raise WriteError(f"{where} ({prop.word}) cannot hold these values: {fault}.") from fault
    nullable = prop.optional or prop.type in (PropertyType.MIXED, PropertyType.OBJECT)
    if array.null_count and not nullable and prop.collection is Collection.SINGLE:
        row = int(np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False))[0])
        raise WriteError(f"{where} is not optional, but record {row} has no value for it.", hint=_null_hint(prop))
    return array


def _null_hint(prop: Property) -> str | None:
    if prop.type not in (PropertyType.DOUBLE, PropertyType.FLOAT):
        return None
    return "pandas takes NaN for missing; to write a not-a-number, use tx.update or tx.upsert with a dict."


def _convert(values: Any, where: str, prop: Property, schema: Schema) -> Any:
    if isinstance(values, pd.Series):
        values = _series(values, prop)
    if not isinstance(values, pa.ChunkedArray | pa.Array):
        return _one_by_one(values, where, prop, schema)
    wanted = arrow_type(prop, schema)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode() if isinstance(values, pa.Array) else values.cast(values.type.value_type)
    if pa.types.is_null(values.type):
        return values_to_arrow([None] * len(values), prop, schema)
    if values.type == wanted and not any(_is_doubtful(c, prop, schema) for c in _chunks(values)):
        return values
    native = prop.type in _ARROW_NATIVE and prop.collection is Collection.SINGLE
    if native and prop.type is PropertyType.DATE and pa.types.is_timestamp(values.type):
        return _dates(values)
    if native and not _lossy(values.type, wanted):
        with contextlib.suppress(pa.ArrowInvalid):  # then the record at fault is to be found
            made = values.cast(wanted)
            if not any(_is_doubtful(c, prop, schema) for c in _chunks(made)) and not _overflows(values, made):
                return made
    return _one_by_one(to_python(values), where, prop, schema)


def _chunks(values: Any) -> list[Any]:
    return list(values.chunks) if isinstance(values, pa.ChunkedArray) else [values]


def _one_by_one(values: Iterable[Any], where: str, prop: Property, schema: Schema) -> Any:
    """Convert values of any sort; a refusal names class, property and record."""
    made: list[Any] = []
    single = prop.collection is Collection.SINGLE
    for row, value in enumerate(values):
        value = plain(value)
        if value is None and single:
            made.append(None)
            continue
        try:
            made.append(coerce(value, prop, schema))
        except WriteError as fault:
            raise WriteError(f"{where} ({prop.word}), record {row}: {fault.message}", hint=fault.hint) from None
    return model_to_arrow(made, prop, schema)


def _is_doubtful(array: Any, prop: Property, schema: Schema) -> bool:
    """Whether an array of just the right type may still hold what its property cannot."""
    if prop.collection is Collection.DICTIONARY:
        keys = array.keys
        odd = pc.or_(pc.match_substring(keys, "."), pc.starts_with(keys, "$"))
        if pc.any(odd, min_count=0).as_py() or _is_long(keys, MAX_STRING_BYTES):
            return True
    inner = array
    if prop.collection is not Collection.SINGLE:
        inner = array.items if prop.collection is Collection.DICTIONARY else array.values
        if array.null_count or (inner.null_count and not (prop.optional or prop.type is PropertyType.MIXED)):
            return True
    if prop.type in (PropertyType.STRING, PropertyType.DATA):
        return _is_long(inner, MAX_STRING_BYTES if prop.type is PropertyType.STRING else MAX_DATA_BYTES)
    if prop.type is not PropertyType.OBJECT:
        return False
    if isinstance(inner.type, pa.BaseExtensionType) and inner.type == MIXED:
        return True  # links and embedded objects that Arrow cannot say: only Python values tell what they are
    target = schema[prop.target or ""]
    return target.embedded and any(_field_is_doubtful(inner, p, schema) for p in target.properties.values())


def _field_is_doubtful(array: Any, prop: Property, schema: Schema) -> bool:
    held = array.field(prop.name)
    nullable = prop.optional or prop.type in (PropertyType.MIXED, PropertyType.OBJECT)
    if prop.collection is Collection.SINGLE and held.null_count and not nullable:
        missing = pc.and_(pc.is_valid(array), pc.is_null(held))
        if pc.any(missing, min_count=0).as_py():
            return True
    return _is_doubtful(held, prop, schema)


def _is_long(array: Any, limit: int) -> bool:
    longest = pc.max(pc.binary_length(array)).as_py()
    return longest is not None and longest > limit


def _overflows(old: Any, new: Any) -> bool:
    """Whether a float of 32 bits became infinite on the way."""
    if new.type != pa.float32() or not pa.types.is_floating(old.type):
        return False
    return bool(pc.any(pc.and_(pc.is_inf(new), pc.invert(pc.is_inf(old))), min_count=0).as_py())


def _lossy(have: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Arrow's safe cast between two types would still change a value, or mean something else."""
    if pa.types.is_boolean(have) != pa.types.is_boolean(wanted) or pa.types.is_timestamp(wanted):
        return True
    textual = pa.types.is_string(have) or pa.types.is_large_string(have) or pa.types.is_string_view(have)
    return bool(pa.types.is_string(wanted) != textual)


def _dates(values: Any) -> Any:
    """Convert timestamps of any unit (without a zone: UTC) to the store's form, wide where nanoseconds do not reach."""
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[values.type.unit]
    kind = pa.timestamp("ns", "UTC")
    if per == 10**9:
        return values.cast(kind)
    total = values.cast(pa.timestamp(values.type.unit)).cast(pa.int64())
    ends = pc.min_max(total)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    step = 10**9 // per
    if low is None or (low * step >= -(1 << 63) and high * step < 1 << 63):
        return pc.multiply(total, step).cast(kind)
    if isinstance(total, pa.ChunkedArray):
        total = total.combine_chunks()
    seconds = pc.divide(total, per)
    nanos = pc.multiply(pc.subtract(total, pc.multiply(seconds, per)), step).cast(pa.int32())
    mask = total.is_null() if total.null_count else None
    return pa.StructArray.from_arrays([seconds, nanos], fields=list(WIDE_DATE), mask=mask)


def _series(series: pd.Series[Any], prop: Property) -> Any:
    """Take a column of a frame apart: Arrow where pandas knows its type, else Python values."""
    kind = series.dtype
    if isinstance(kind, pd.ArrowDtype):
        return series.array.__arrow_array__()
    if isinstance(kind, pd.CategoricalDtype):
        return _series(series.astype(kind.categories.dtype), prop)
    keep_nan = prop.type in (PropertyType.DOUBLE, PropertyType.FLOAT) and not prop.optional
    if kind == np.dtype(object):
        return [None if is_missing(v) or (_is_nan(v) and not keep_nan) else v for v in series]
    return pa.array(series, from_pandas=not keep_nan)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
