"""What one cell of a frame is in Python, and the way back into Arrow."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from realmframe.errors import WriteError
from realmframe.model import (
    Collection,
    Decimal128,
    GlobalKey,
    Link,
    ObjectId,
    Property,
    PropertyType,
    RealmSet,
    Schema,
    Timestamp,
)
from realmframe.store import arrow_type, coerce, coerce_mixed, model_to_arrow, values_to_arrow

_ANY: Final = Schema()
#: What is kept in an extension type, by the type's name; reading is the array's own business.
_EXTENSIONS: Final[dict[str, PropertyType]] = {
    "realmframe.mixed": PropertyType.MIXED,
    "pymongoarrow.objectid": PropertyType.OBJECT_ID,
    "pymongoarrow.decimal128": PropertyType.DECIMAL128,
    "arrow.uuid": PropertyType.UUID,
}
_DATE: Final = Property("date", PropertyType.DATE, True)
WIDE_DATE: Final = arrow_type(Property("dates", PropertyType.DATE, True, Collection.LIST), _ANY).value_type


def extension_of(kind: pa.DataType) -> PropertyType | None:
    """Give the type of property that an extension type holds, None for any other Arrow type."""
    return _EXTENSIONS.get(kind.extension_name) if isinstance(kind, pa.BaseExtensionType) else None


def is_missing(value: Any) -> bool:
    """Whether pandas takes a scalar for missing; not-a-number is not meant."""
    return value is None or value is pd.NaT or value is pd.NA


def plain(value: Any) -> Any:
    """Turn what pandas and numpy wrap into Python's own values, inside lists and dictionaries too."""
    if is_missing(value):
        return None
    if isinstance(value, np.generic) and not isinstance(value, np.float32 | np.datetime64):
        return value.item()
    if isinstance(value, np.ndarray | pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return [plain(v) for v in value]
    if isinstance(value, list | tuple) and not isinstance(value, RealmSet) and not _is_named(value):
        return [plain(v) for v in value]
    if type(value) is dict:
        return {k: plain(v) for k, v in value.items()}
    return value


def _is_named(value: Any) -> bool:
    """Whether a tuple is one of the model's own (Link, Timestamp, GlobalKey)."""
    return hasattr(value, "_fields")


def to_python(array: Any) -> list[Any]:
    """Read an Arrow array as the values that cells show.

    A map becomes a dict, a date a ``pandas.Timestamp`` (beyond its reach a ``realmframe.Timestamp``), nulls None.
    """
    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        return [v for chunk in array.chunks for v in to_python(chunk)]
    if kind == WIDE_DATE:
        return [None if v is None else _date(v["seconds"], v["nanoseconds"]) for v in array.to_pylist()]
    if pa.types.is_timestamp(kind):
        return [None if v is None else _stamp(v, kind.unit) for v in array.to_pylist()]
    if pa.types.is_map(kind):
        return _spans(array, list(zip(_texts(array.keys), to_python(array.items), strict=True)), dict)
    if pa.types.is_list(kind):
        return _spans(array, to_python(array.values), list)
    if pa.types.is_struct(kind):
        columns = [to_python(array.field(n)) for n in range(kind.num_fields)]
        names = [f.name for f in kind]
        valid = array.is_valid().to_pylist()
        rows = zip(*columns, strict=True) if columns else itertools.repeat((), len(array))
        return [dict(zip(names, row, strict=True)) if ok else None for row, ok in zip(rows, valid, strict=True)]
    if pa.types.is_string(kind):
        return _texts(array)
    if extension_of(kind) is PropertyType.MIXED:
        return [cell_value(v) for v in array.to_pylist()]
    return list(array.to_pylist())


def cell_value(value: Any) -> Any:
    """Show a model value as a cell of a frame does; a link in a Mixed value stays a link."""
    if isinstance(value, list):
        return [cell_value(v) for v in value]
    if isinstance(value, dict):
        return {k: cell_value(v) for k, v in value.items()}
    if isinstance(value, Decimal128):
        return value.to_decimal()
    return _date(*value) if isinstance(value, Timestamp) else value


def _spans(array: Any, items: list[Any], make: Callable[[Any], Any]) -> list[Any]:
    valid = array.is_valid().to_pylist()
    spans = zip(itertools.pairwise(array.offsets.to_pylist()), valid, strict=True)
    return [make(items[a:b]) if ok else None for (a, b), ok in spans]


def _texts(array: Any) -> list[Any]:
    """Read text; bytes that are no UTF-8 show as replacement characters."""
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        raw = pa.Array.from_buffers(pa.binary(), len(array), array.buffers(), array.null_count, array.offset)
        return [None if v is None else v.decode("utf-8", "surrogateescape") for v in raw.to_pylist()]


def _stamp(value: Any, unit: Any) -> Any:
    return pd.Timestamp(value).as_unit(unit)


def _date(seconds: int, nanoseconds: int) -> Any:
    moment = Timestamp(seconds, nanoseconds)
    total = moment.total_nanoseconds
    if -(1 << 63) < total < 1 << 63:
        return pd.Timestamp(total, unit="ns", tz="UTC")
    try:
        exact = moment.to_datetime()
    except OverflowError:
        return moment
    return pd.Timestamp(exact).as_unit("us") if total % 1000 == 0 else moment


def coerce_cell(value: Any, prop: Property, schema: Schema) -> Any:
    """Take what a user writes, wrapped by pandas or numpy or not, and give the model value; see ``store.coerce``."""
    return coerce(plain(value), prop, schema)


def from_python(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """Build an Arrow array of a frame's column out of what a user puts into cells.

    Parameters
    ----------
    values : iterable
    kind : pyarrow.DataType
        As :func:`realmframe.store.arrow_type` gives it, or narrowed for display.

    Raises
    ------
    WriteError
        For a value that the type cannot hold.
    """
    made = [plain(v) for v in values]
    held = extension_of(kind)
    if held is PropertyType.MIXED:
        return model_to_arrow([coerce_mixed(v) for v in made], Property("cell", held, True), _ANY)
    # In a column of links a cell is the key.
    made = [v.key if isinstance(v, Link) else v for v in made]
    if held is not None:
        return values_to_arrow(made, Property("cell", held, True), _ANY)
    if isinstance(kind, pa.BaseExtensionType):
        return _global_keys(made, kind)
    if kind == WIDE_DATE:
        dates = [None if v is None else coerce(v, _DATE, _ANY) for v in made]
        forms = [None if d is None else {"seconds": d.seconds, "nanoseconds": d.nanoseconds} for d in dates]
        return pa.array(forms, kind)
    if pa.types.is_timestamp(kind):
        return _stamps(made, kind)
    if pa.types.is_map(kind):
        return _maps(made, kind)
    if pa.types.is_list(kind):
        return _lists(made, kind)
    if pa.types.is_struct(kind):
        return _structs(made, kind)
    try:
        return pa.array(made, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as fault:
        raise WriteError(f"A cell of type {kind} cannot hold this: {fault}.") from fault


def _stamps(values: Sequence[Any], kind: Any) -> pa.Array:
    """Build dates in the unit of a column, which has to hold them exactly."""
    step = {"ns": 1, "us": 1000}[kind.unit]
    totals: list[int | None] = []
    for value in values:
        total = None if value is None else coerce(value, _DATE, _ANY).total_nanoseconds
        if total is not None and (total % step or not -(1 << 63) <= total // step < 1 << 63):
            raise WriteError(
                f"{value!r} does not fit a column whose dates are in {kind.unit}.",
                hint="Assign the whole column: edit[name] = pandas.Series([...], dtype=object).",
            )
        totals.append(None if total is None else total // step)
    return pa.array(totals, pa.int64()).cast(kind)


def _global_keys(values: Sequence[Any], kind: Any) -> pa.Array:
    for value in values:
        if value is not None and not isinstance(value, GlobalKey):
            raise WriteError(f"{value!r} is no key of an object without primary key.")
    raw = [None if v is None else v.hi.to_bytes(8, "big") + v.lo.to_bytes(8, "big") for v in values]
    return pa.ExtensionArray.from_storage(kind, pa.array(raw, kind.storage_type))


def _offsets(values: Sequence[Any]) -> tuple[Any, Any]:
    sizes = [0 if v is None else len(v) for v in values]
    offsets = pa.array(np.cumsum([0, *sizes], dtype=np.int32))
    missing = [v is None for v in values]
    return offsets, pa.array(missing, pa.bool_()) if any(missing) else None


def _maps(values: Sequence[Any], kind: Any) -> pa.Array:
    form = Property("cell", PropertyType.MIXED, True, Collection.DICTIONARY)
    pairs: list[Mapping[str, Any] | None] = []
    for value in values:
        if value is not None and not isinstance(value, Mapping):
            coerce(value, form, _ANY)  # a list of pairs is as good, anything else is refused
            value = dict(value)
        pairs.append(value)
    offsets, mask = _offsets(pairs)
    keys = pa.array([k for p in pairs for k in (p or ())], pa.string())
    items = from_python([v for p in pairs for v in (p or {}).values()], kind.item_type)
    return pa.MapArray.from_arrays(offsets, keys, items, mask=mask)


def _lists(values: Sequence[Any], kind: Any) -> pa.Array:
    for value in values:
        if value is not None and (isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable)):
            raise WriteError(f"{value!r} is no list.", hint="Put a list of elements into the cell.")
    offsets, mask = _offsets(values)
    items = from_python(itertools.chain.from_iterable(v or () for v in values), kind.value_type)
    return pa.ListArray.from_arrays(offsets, items, mask=mask)


def _structs(values: Sequence[Any], kind: Any) -> pa.Array:
    names = {f.name for f in kind}
    for value in values:
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise WriteError(f"{value!r} is no embedded object.", hint="Put a dict of its fields into the cell.")
        if value.keys() - names:
            unknown = sorted(map(str, value.keys() - names))[0]
            raise WriteError(f"The embedded object has no property {unknown!r}.", hint=f"It has {', '.join(names)}.")
    columns = [from_python([(v or {}).get(f.name) for v in values], f.type) for f in kind]
    mask = pa.array([v is None for v in values], pa.bool_())
    return pa.StructArray.from_arrays(columns, fields=list(kind), mask=mask)


def identity(value: Any) -> Any:
    """Give something that can be hashed, and is equal for values that are equal and of one type."""
    if isinstance(value, Mapping):
        return "dict", frozenset((k, identity(v)) for k, v in value.items())
    if isinstance(value, list):
        return "list", tuple(identity(v) for v in value)
    if isinstance(value, float | np.float32) and value != value:
        return type(value).__name__, "nan"
    return type(value).__name__, value


#: The order of types in a Mixed column that is sorted; numbers of all sorts are one.
_RANKS: Final[tuple[tuple[Any, int], ...]] = (
    (bool, 0),
    (int | float | np.float32, 1),
    (str, 2),
    (bytes, 3),
    (dt.datetime, 4),
    (Timestamp, 4),
    (ObjectId, 5),
    (uuid.UUID, 6),
)


def sort_rank(value: Any) -> tuple[int, Any]:
    """Give what a value of a Mixed column is sorted by: its type, then its amount."""
    for kinds, rank in _RANKS:
        if isinstance(value, kinds):
            return rank, value
    return 7, repr(value)
