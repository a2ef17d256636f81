"""Columns that pandas alone cannot use: identifiers, decimals, Mixed, lists, dictionaries, embedded objects.

``ArrowDtype`` shows such columns, but cells print as raw bytes, cannot be assigned, and sorting, grouping and merging
raise. :class:`RealmArray` is an ``ArrowExtensionArray`` with that mended: inside, an extension type is kept as its
storage, so pandas uses Arrow's kernels for plain bytes; at the border, cells are Python values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api.extensions import ExtensionArray, register_extension_dtype, take
from pandas.api.indexers import check_array_indexer
from pandas.arrays import ArrowExtensionArray

from realmframe.errors import WriteError
from realmframe.frames.cells import (
    WIDE_DATE,
    extension_of,
    from_python,
    identity,
    is_missing,
    plain,
    sort_rank,
    to_python,
)
from realmframe.frames.names import type_of_name
from realmframe.model import PropertyType, Timestamp

#: Kept as bytes that compare as the values do.
_BYTEWISE: Final = frozenset({PropertyType.OBJECT_ID, PropertyType.UUID})
_KERNELS: Final[dict[str, Any]] = {
    "eq": pc.equal,
    "ne": pc.not_equal,
    "lt": pc.less,
    "le": pc.less_equal,
    "gt": pc.greater,
    "ge": pc.greater_equal,
}
_NO_ORDER: Final = "lists, dictionaries and embedded objects have no order"


@register_extension_dtype
class RealmDtype(pd.ArrowDtype):
    """An ``ArrowDtype`` whose cells are Python values; equal to the plain one over the same Arrow type."""

    def construct_array_type(self) -> Any:
        """Give the class of arrays."""
        return RealmArray

    def __eq__(self, other: object) -> bool:
        if isinstance(other, pd.ArrowDtype):
            return bool(self.pyarrow_dtype == other.pyarrow_dtype)
        return bool(super().__eq__(other))

    __hash__ = pd.ArrowDtype.__hash__

    @property
    def type(self) -> Any:  # type: ignore[override]
        """The type of a cell."""
        if isinstance(self.pyarrow_dtype, pa.BaseExtensionType) or pa.types.is_map(self.pyarrow_dtype):
            return object
        return super().type

    @property
    def name(self) -> str:  # type: ignore[override]
        """Its name; pandas refuses to read one of its own that has brackets in it, as dates in lists have."""
        text = str(self.pyarrow_dtype)
        return f"{text}[{'realm' if set(text) & set('[(') else 'pyarrow'}]"

    @classmethod
    def construct_from_string(cls, string: str) -> Any:
        """Read the name of one of these types, as files that pandas wrote have it.

        Raises
        ------
        TypeError
            For any other name.
        """
        kind = (
            type_of_name(string.removesuffix("[pyarrow]").removesuffix("[realm]")) if isinstance(string, str) else None
        )
        if kind is None:
            raise TypeError(f"{string!r} names no type of a realm's columns.")
        return cls(kind)

    def __from_arrow__(self, array: Any) -> Any:
        return RealmArray(array)


def needs_realm_array(kind: pa.DataType) -> bool:
    """Whether pandas alone does not do justice to an Arrow type."""
    return isinstance(kind, pa.BaseExtensionType) or pa.types.is_nested(kind)


def to_pandas(column: Any) -> Any:
    """Wrap an Arrow column, without copying, in the class of arrays that suits its type."""
    return RealmArray(column) if needs_realm_array(column.type) else ArrowExtensionArray(column)


def _stored(column: Any) -> Any:
    """Give a column of an extension type as its storage."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([c.storage for c in column.chunks], column.type.storage_type)
    return column.storage


class RealmArray(ArrowExtensionArray):
    """An array of a realm's column; see the module.

    Parameters
    ----------
    values : pyarrow.Array or ChunkedArray
    """

    _pa_array: Any
    _dtype: Any
    _cache: Any
    _readonly: Any

    def __init__(self, values: Any) -> None:
        super().__init__(_stored(values))
        self._dtype = RealmDtype(values.type)

    def _from_pyarrow_array(self, pa_array: Any) -> Any:
        """Wrap a result of pandas': of this column's type, or of any other."""
        if pa_array.type in (self._pa_array.type, self._dtype.pyarrow_dtype):
            made = RealmArray.__new__(RealmArray)
            stored = _stored(pa_array)
            made._pa_array = stored if isinstance(stored, pa.ChunkedArray) else pa.chunked_array([stored])
            made._dtype, made._cache = self._dtype, {}
            return made
        return to_pandas(pa_array)

    @classmethod
    def _box_pa_array(cls, value: Any, pa_type: Any = None, copy: bool = False) -> Any:
        if isinstance(value, pd.Series | pd.Index):
            value = value.array
        if hasattr(value, "__arrow_array__"):
            value = value.__arrow_array__()
        if isinstance(value, pa.Array | pa.ChunkedArray) and pa_type in (None, value.type):
            return value
        if isinstance(value, pa.Array | pa.ChunkedArray):
            value = to_python(value)
        return from_python(value, pa_type) if pa_type is not None else pa.array(value)

    def _cast_pointwise_result(self, values: Any) -> Any:
        """Keep the type for values that it can hold: a dict would be taken for an embedded object otherwise."""
        if len(values):
            try:
                return to_pandas(from_python(values, self._dtype.pyarrow_dtype))
            except WriteError:
                pass
        return super()._cast_pointwise_result(values)  # type: ignore[misc]

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[Any]) -> Any:
        first = to_concat[0]
        chunks = [c for one in to_concat for c in one._pa_array.iterchunks()]
        return first._from_pyarrow_array(pa.chunked_array(chunks, first._pa_array.type))

    # ------------------------------------------------------------------ Arrow and Python

    @property
    def column(self) -> pa.ChunkedArray:
        """The column with its own type."""
        kind = self._dtype.pyarrow_dtype
        if self._pa_array.type == kind:
            return self._pa_array
        chunks = [pa.ExtensionArray.from_storage(kind, c) for c in self._pa_array.chunks]
        return pa.chunked_array(chunks, kind)

    def __arrow_array__(self, type: Any = None) -> Any:  # noqa: A002 - pyarrow's name
        return self.column

    @property
    def _python(self) -> list[Any]:
        return to_python(self.column)

    def __iter__(self) -> Iterator[Any]:
        missing = self._dtype.na_value
        return (missing if v is None else v for v in self._python)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, int | np.integer):
            size = len(self)
            if not -size <= item < size:
                raise IndexError(f"index {item} is out of bounds for size {size}")
            return next(iter(self._from_pyarrow_array(self._pa_array.slice(int(item) % size, 1))))
        return super().__getitem__(item)

    def to_numpy(self, dtype: Any = None, copy: bool = False, na_value: Any = pd.api.extensions.no_default) -> Any:
        """Give an array of Python values."""
        missing = self._dtype.na_value if na_value is pd.api.extensions.no_default else na_value
        out = np.empty(len(self), object)
        for n, value in enumerate(self._python):
            out[n] = missing if value is None else value
        return out if dtype is None or np.dtype(dtype) == object else out.astype(dtype)

    def _values_for_json(self) -> Any:
        return self.to_numpy()

    def _formatter(self, boxed: bool = False) -> Callable[[Any], str]:
        return _text

    # ------------------------------------------------------------------ assigning

    def _validate_setitem_value(self, value: Any) -> Any:
        """Bring what is assigned to this type: one cell as a list of one value, many as an Arrow array."""
        kind = self._dtype.pyarrow_dtype
        if self._is_cell(value):
            return from_python([value], kind)
        return self._box_pa_array(value, kind)

    def _is_cell(self, value: Any) -> bool:
        """Whether a value belongs into each cell whole, not one element into each."""
        if isinstance(value, pa.Array | pa.ChunkedArray | pd.Series | pd.Index | ExtensionArray):
            return False
        if isinstance(value, str | bytes) or not isinstance(value, Iterable) or hasattr(value, "_fields"):
            return True
        if pa.types.is_list(self._dtype.pyarrow_dtype):
            return not all(is_missing(v) or (isinstance(v, Iterable) and not isinstance(v, str | bytes)) for v in value)
        return isinstance(value, dict)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set cells; one cell takes the value whole, be it a list or a dict."""
        if self._readonly:
            raise ValueError("Cannot modify read-only array")
        if isinstance(key, tuple) and len(key) == 1:
            key = key[0]
        key = check_array_indexer(self, key)
        single = isinstance(key, int | np.integer)
        where = np.atleast_1d(np.arange(len(self))[key])
        new = from_python([value], self._dtype.pyarrow_dtype) if single else self._validate_setitem_value(value)
        if len(new) not in (1, len(where)):
            raise ValueError("Length of indexer and values mismatch")
        chunks = _stored(new).chunks if isinstance(new, pa.ChunkedArray) else [_stored(new)]
        gather = np.arange(len(self))
        gather[where] = len(self) + (np.zeros(len(where), int) if len(new) == 1 else np.arange(len(where)))
        both = pa.chunked_array([*self._pa_array.chunks, *chunks], self._pa_array.type)
        self._pa_array = pa.chunked_array([both.combine_chunks().take(pa.array(gather))], self._pa_array.type)
        self._cache.clear()

    def fillna(self, value: Any, limit: int | None = None, copy: bool = True) -> Any:
        """Fill missing cells with one value, or with those of an array at the same places."""
        made = self.copy()
        missing = np.flatnonzero(self.isna())[:limit]
        if len(missing):
            several = isinstance(value, ExtensionArray | np.ndarray) and len(value) == len(self)
            made[missing] = value[missing] if several else value
        return made

    # ------------------------------------------------------------------ comparing, sorting, grouping

    @property
    def _holds(self) -> PropertyType | None:
        return extension_of(self._dtype.pyarrow_dtype)

    def _identities(self) -> Any:
        """Give what tells cells apart, for hashing."""
        if self._holds in _BYTEWISE:
            return ArrowExtensionArray(self._pa_array)
        out = np.empty(len(self), object)
        for n, value in enumerate(self._python):
            out[n] = None if value is None else _amount(value) if self._holds is not None else identity(value)
        return out

    def factorize(self, use_na_sentinel: bool = True) -> tuple[Any, Any]:
        """Give the number of each cell's value, and the values, in order of appearance."""
        codes, _ = pd.factorize(self._identities(), use_na_sentinel=use_na_sentinel)
        known = np.flatnonzero(codes >= 0)
        _, first = np.unique(codes[known], return_index=True)
        return codes, self.take(known[first])

    def unique(self) -> Any:
        """Give each value once, in order of appearance."""
        return self.factorize(use_na_sentinel=False)[1]

    def value_counts(self, dropna: bool = True) -> Any:
        """Count each value."""
        codes, values = self.factorize(use_na_sentinel=dropna)
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        return pd.Series(
            ArrowExtensionArray(pa.array(counts, pa.int64())), index=pd.Index(values, copy=False), name="count"
        )

    def isin(self, values: Any) -> Any:
        """Tell which cells are among values; identifiers may be given as text."""
        wanted = [plain(v) for v in values]
        if self._holds in _BYTEWISE:
            return pc.is_in(self._pa_array, value_set=self._bytes_of(wanted).drop_null()).to_numpy()
        known = {_amount(v) if self._holds is not None else identity(v) for v in wanted if v is not None}
        return np.fromiter((v is not None and v in known for v in self._identities()), bool, len(self))

    def _bytes_of(self, values: Sequence[Any]) -> Any:
        """Give identifiers as they are stored, null for what is none."""
        made = []
        for value in values:
            try:
                made.append(from_python([value], self._dtype.pyarrow_dtype).storage)
            except WriteError:
                made.append(pa.nulls(1, self._pa_array.type))
        return pa.concat_arrays(made) if made else pa.nulls(0, self._pa_array.type)

    def argsort(
        self, *, ascending: bool = True, kind: Any = "quicksort", na_position: str = "last", **kwargs: Any
    ) -> Any:
        """Order cells: bytes, amounts, and in a Mixed column types first."""
        if self._holds in _BYTEWISE:
            return super().argsort(ascending=ascending, kind=kind, na_position=na_position, **kwargs)
        values, missing = self._python, self.isna()
        order = sorted(
            np.flatnonzero(~missing).tolist(), key=lambda n: self._sort_key(values[n]), reverse=not ascending
        )
        gone = np.flatnonzero(missing).tolist()
        return np.array([*order, *gone] if na_position == "last" else [*gone, *order], np.intp)

    def _sort_key(self, value: Any) -> Any:
        if self._holds is PropertyType.DECIMAL128:
            return (1, 0) if value.is_nan() else (0, value)
        if self._holds is None and self._dtype.pyarrow_dtype != WIDE_DATE:
            raise TypeError(f"Cannot sort by this column: {_NO_ORDER}.")
        if isinstance(value, pd.Timestamp):
            return 4, Timestamp.from_datetime(value)
        return sort_rank(value)

    def _cmp_method(self, other: Any, op: Any) -> Any:
        if not self._is_cell(other) and len(other) != len(self):
            raise ValueError("Lengths must match to compare")
        if self._holds in _BYTEWISE:
            return ArrowExtensionArray(self._compare_bytes(other, op))
        others = [plain(other)] * len(self) if self._is_cell(other) else [plain(v) for v in other]
        pairs = zip(self._python, others, strict=True)
        result = [None if a is None or b is None else _compare(a, b, op) for a, b in pairs]
        return ArrowExtensionArray(pa.array(result, pa.bool_()))

    def _compare_bytes(self, other: Any, op: Any) -> Any:
        """Compare identifiers; what is none is equal to none of them."""
        if isinstance(other, RealmArray) and other._dtype == self._dtype:
            right = other._pa_array
        elif self._is_cell(other):
            right = self._bytes_of([other])[0]
        else:
            right = self._bytes_of([plain(v) for v in other])
        result = _KERNELS[op.__name__](self._pa_array, right)
        if self._is_cell(other) and not is_missing(other) and not right.is_valid:
            result = pc.if_else(pc.is_valid(self._pa_array), op is operator.ne, None)
        return result

    def _reduce(self, name: str, *, skipna: bool = True, keepdims: bool = False, **kwargs: Any) -> Any:
        """Reduce decimals exactly; smallest and largest of what has an order."""
        values = [v for v in self._python if v is not None]
        result: Any = self._dtype.na_value
        if name in ("min", "max") and (skipna or len(values) == len(self)):
            keep = min if name == "min" else max
            result = keep(values, key=self._sort_key) if values else result
        elif self._holds is PropertyType.DECIMAL128 and name in ("sum", "mean"):
            total = sum(values, Decimal(0))
            if skipna or len(values) == len(self):
                result = total if name == "sum" else total / len(values) if values else result
        elif name not in ("min", "max"):
            raise TypeError(f"Cannot perform the reduction {name!r} on {self._dtype}.")
        return self._from_pyarrow_array(from_python([result], self._dtype.pyarrow_dtype)) if keepdims else result

    def _explode(self) -> Any:
        """Give the elements of lists one by one, and how many each cell had (an empty one counts as one null)."""
        if not pa.types.is_list(self._dtype.pyarrow_dtype):
            return super()._explode()  # type: ignore[misc]
        lists = self._pa_array.combine_chunks()
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
        shown = np.maximum(counts, 1)
        place = np.cumsum(shown) - shown
        gather = np.full(int(shown.sum()), -1, np.int64)
        full = np.repeat(place[counts > 0], counts[counts > 0])
        step = np.arange(int(counts.sum())) - np.repeat((np.cumsum(counts) - counts)[counts > 0], counts[counts > 0])
        gather[full + step] = np.arange(int(counts.sum()))
        return take(to_pandas(pc.list_flatten(lists)), gather, allow_fill=True), shown


def _amount(value: Any) -> Any:
    """Tell values of one scalar type apart: decimals by amount, Mixed by type and value."""
    if isinstance(value, Decimal):
        return "nan" if value.is_nan() else value
    return identity(value)


def _compare(left: Any, right: Any, op: Any) -> bool:
    """Compare two cells; values of different types are unequal, and have no order."""
    if isinstance(left, bool) is not isinstance(right, bool):
        same = False
    elif isinstance(left, int | float | Decimal) and isinstance(right, int | float | Decimal):
        return bool(op(left, right))
    else:
        same = isinstance(left, type(right)) or isinstance(right, type(left))
    if same:
        return bool(op(left, right))
    if op in (operator.eq, operator.ne):
        return bool(op is operator.ne)
    raise TypeError(f"{type(left).__name__} and {type(right).__name__} cannot be ordered.")


def _text(value: Any) -> str:
    """Show a cell."""
    if is_missing(value):
        return "<NA>"
    if isinstance(value, list):
        return f"[{', '.join(_inner(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {_inner(v)}' for k, v in value.items())}}}"
    return str(value) if not isinstance(value, bytes | tuple) else repr(value)


def _inner(value: Any) -> str:
    """Show a value inside a list or dictionary."""
    if value is None:
        return "None"
    if isinstance(value, list | dict):
        return _text(value)
    return str(value) if isinstance(value, pd.Timestamp | Decimal) else repr(value)
