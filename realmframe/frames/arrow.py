"""From what users hand over — DataFrames, Arrow tables, dictionaries — to exact Arrow tables of a class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.errors import RealmError, WriteError
from realmframe.model import Collection, ObjectSchema, Property, PropertyType, Schema
from realmframe.store import arrow_type, values_to_arrow

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
        array = _convert(values, prop, schema)
    except RealmError:
        raise
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as fault:
        raise WriteError(f"{where} ({prop.word}) cannot hold these values: {fault}.") from fault
    nullable = prop.optional or prop.type is PropertyType.MIXED or prop.collection is not Collection.SINGLE
    if array.null_count and not nullable:
        row = int(np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False))[0])
        raise WriteError(f"{where} is not optional, but record {row} has no value for it.")
    return array


def _convert(values: Any, prop: Property, schema: Schema) -> Any:
    wanted = arrow_type(prop, schema)
    native = prop.type in _ARROW_NATIVE and prop.collection is Collection.SINGLE
    if isinstance(values, pd.Series):
        values = _series(values, prop)
    if isinstance(values, pa.ChunkedArray | pa.Array):
        return _from_arrow(values, wanted, native, prop, schema)
    return values_to_arrow([_plain(v) for v in values], prop, schema)


def _from_arrow(values: Any, wanted: pa.DataType, native: bool, prop: Property, schema: Schema) -> Any:
    if values.type == wanted:
        return values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode() if isinstance(values, pa.Array) else values.cast(values.type.value_type)
    if pa.types.is_null(values.type):
        return values_to_arrow([None] * len(values), prop, schema)
    if native and not _lossy(values.type, wanted):
        return _with_zone(values, wanted).cast(wanted)
    return values_to_arrow([_plain(v) for v in values.to_pylist()], prop, schema)


def _lossy(have: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Arrow's safe cast between two types would still change a value, or mean something else."""
    if pa.types.is_boolean(have) != pa.types.is_boolean(wanted):
        return True
    if pa.types.is_timestamp(wanted):
        # Coarser units may reach beyond the range of nanoseconds.
        return not pa.types.is_timestamp(have) or have.unit != "ns"
    textual = pa.types.is_string(have) or pa.types.is_large_string(have) or pa.types.is_string_view(have)
    return bool(pa.types.is_string(wanted) != textual)


def _with_zone(values: Any, wanted: pa.DataType) -> Any:
    if pa.types.is_timestamp(wanted) and values.type.tz is None:
        return values.cast(pa.timestamp(values.type.unit, "UTC"))
    return values


def _series(series: pd.Series[Any], prop: Property) -> Any:
    """Take a column of a frame apart: Arrow where pandas knows its type, else Python values."""
    kind = series.dtype
    if isinstance(kind, pd.ArrowDtype):
        return series.array.__arrow_array__()
    if isinstance(kind, pd.CategoricalDtype):
        return _series(series.astype(kind.categories.dtype), prop)
    if kind == np.dtype(object):
        return [None if _is_missing(v) else v for v in series]
    keep_nan = prop.type in (PropertyType.DOUBLE, PropertyType.FLOAT) and not prop.optional
    return pa.array(series, from_pandas=not keep_nan)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and value != value)


def _plain(value: Any) -> Any:
    """Turn scalars of numpy and pandas into Python's."""
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, pd.Timestamp):
        return value
    if isinstance(value, np.generic) and not isinstance(value, np.float32):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value
