"""A column against a constant: whole columns at a time by Arrow and numpy, or one value by Python for few rows."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Callable
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.model import Decimal128, ObjectId, PropertyType
from realmframe.query.values import (
    RELATIONAL,
    STRING_OPERATORS,
    TESTS,
    compare,
    fold,
    to_decimal,
)

Mask = npt.NDArray[np.bool_]
#: For so few rows, reading values into Python is quicker than calling kernels.
FEW_ROWS: Final = 32
_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARROW: Final[dict[str, str]] = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
_FLOATS: Final = frozenset({PropertyType.FLOAT, PropertyType.DOUBLE})
_BYTES: Final = frozenset({PropertyType.OBJECT_ID, PropertyType.UUID})
_INT64: Final = np.iinfo(np.int64)


class _Columns(Protocol):
    def column(self, cls: str, field: str) -> pa.ChunkedArray: ...

    def values(self, cls: str, field: str, rows: Any) -> list[Any]: ...


class Scalar:
    """A test of one property against a constant.

    Parameters
    ----------
    kind : PropertyType
        Type of the property, and of the constant unless that is null.
    op : str
        An operator (``==``, ``<``, ``CONTAINS[c]``...), ``IN`` or ``BETWEEN``.
    constant : object
        The value; for ``IN`` a list of them, for ``BETWEEN`` a pair.
    nullable : bool
        Whether the property may be null (``IN`` ignores a null in the list otherwise).
    """

    def __init__(self, kind: PropertyType, op: str, constant: Any, *, nullable: bool = True) -> None:
        self.kind, self.op, self.constant, self.nullable = kind, op, constant, nullable
        self.test: Callable[[Any], bool] = self._python()

    # One value -------------------------------------------------------------------------------------------------

    def _python(self) -> Callable[[Any], bool]:
        constant, op, kind = self.constant, self.op, self.kind
        if op == "IN":
            tests = [Scalar(kind, "==", c).test for c in constant]
            return lambda v: any(t(v) for t in tests)
        if op == "BETWEEN":
            low, high = constant
            return lambda v: v is not None and compare(v, low) >= 0 and compare(v, high) <= 0
        if kind is PropertyType.INT and self.unbounded:
            return lambda v: True
        if op.removesuffix("[c]") in STRING_OPERATORS:
            if constant is None and kind is not PropertyType.MIXED and not op.startswith("LIKE"):
                if kind is PropertyType.DATA and op == "CONTAINS[c]":
                    return lambda v: v is not None
                return lambda v: True
            test = TESTS[op]
            return lambda v: test(constant, v)
        if kind is PropertyType.STRING and op in RELATIONAL:
            # Null strings come before all others here.
            order = _OPERATORS[op]
            return lambda v: bool(order(compare(v, constant), 0))
        if kind in _FLOATS and constant is not None:
            return self._ieee()
        test = TESTS[op]
        return lambda v: test(v, constant)

    def _ieee(self) -> Callable[[Any], bool]:
        order, constant, different = _OPERATORS[self.op.removesuffix("[c]")], self.constant, self.op == "!="
        return lambda v: different if v is None else bool(order(v, constant))

    @property
    def unbounded(self) -> bool:
        """Whether the bound is the last integer there is: the engine then asks nothing, not even for a value."""
        return (self.op == ">=" and self.constant == _INT64.min) or (self.op == "<=" and self.constant == _INT64.max)

    # A column --------------------------------------------------------------------------------------------------

    def mask(self, source: _Columns, cls: str, field: str, rows: npt.NDArray[np.int64]) -> Mask:
        """Test some rows.

        Parameters
        ----------
        rows : array
            Increasing; as many as the class has objects means all.
        """
        if len(rows) <= FEW_ROWS:
            test = self.test
            return np.fromiter((test(v) for v in source.values(cls, field, rows)), dtype=bool, count=len(rows))
        column = source.column(cls, field)
        if len(rows) != len(column):
            column = _storage(column).take(pa.array(rows))
        column = _storage(column)
        parts = [self._chunk(chunk) for chunk in column.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, dtype=bool)

    def _chunk(self, array: pa.Array) -> Mask:
        valid = _validity(array)
        if self.op == "IN":
            return self._among(array, valid)
        if self.op == "BETWEEN":
            low, high = (Scalar(self.kind, op, c) for op, c in zip((">=", "<="), self.constant, strict=True))
            both = low.compare(array) & high.compare(array)
            return both if valid is None else both & valid
        if self.constant is None:
            return self._against_null(array, valid)
        if self.kind is PropertyType.INT and self.unbounded:
            return np.ones(len(array), dtype=bool)
        result = self.compare(array)
        if valid is None:
            return result
        null_matches = self.test(None)
        return np.where(valid, result, null_matches)

    def _against_null(self, array: pa.Array, valid: Mask | None) -> Mask:
        present = np.ones(len(array), dtype=bool) if valid is None else valid
        samples: dict[PropertyType, Any] = {PropertyType.STRING: "x", PropertyType.DATA: b"x"}
        matches = self.test(samples.get(self.kind, 0))
        return np.where(present, matches, self.test(None))

    def _among(self, array: pa.Array, valid: Mask | None) -> Mask:
        wanted = [c for c in self.constant if c is not None]
        if self.kind in _BYTES or (self.kind in (PropertyType.INT, PropertyType.STRING) and _encodable(wanted)):
            raw = [_raw(c) for c in wanted]
            found = _to_numpy(pc.is_in(array, value_set=pa.array(raw, type=array.type)))
        else:
            found = np.zeros(len(array), dtype=bool)
            for constant in wanted:
                found |= Scalar(self.kind, "==", constant).compare(array)
        if valid is None:
            return found
        return np.where(valid, found, None in self.constant)

    def compare(self, array: pa.Array) -> Mask:
        """Test what is not null (the result for nulls means nothing)."""
        kind = self.kind
        if kind in (PropertyType.INT, PropertyType.FLOAT, PropertyType.DOUBLE):
            return np.asarray(_OPERATORS[self.op.removesuffix("[c]")](_numbers(array), self.constant))
        if kind is PropertyType.BOOL:
            values = _to_numpy(array.fill_null(False) if array.null_count else array)
            return np.asarray(_OPERATORS[self.op](values, self.constant))
        if kind is PropertyType.DATE:
            return self._dates(array)
        if kind is PropertyType.DECIMAL128:
            return self._decimals(array)
        if kind in _BYTES:
            result = pc.call_function(_ARROW[self.op], [array, pa.scalar(_raw(self.constant), type=array.type)])
            return _to_numpy(result.fill_null(False))
        return self._texts(array)

    def _dates(self, array: pa.Array) -> Mask:
        order, moment = _OPERATORS[self.op], self.constant
        if pa.types.is_struct(array.type):
            seconds, nanos = (_numbers(f) for f in array.flatten())
            above = (seconds > moment.seconds) | ((seconds == moment.seconds) & (nanos > moment.nanoseconds))
            same = (seconds == moment.seconds) & (nanos == moment.nanoseconds)
            return np.asarray(order(above.astype(np.int8) * 2 + same, 1))
        total = moment.total_nanoseconds
        values = _numbers(array.view(pa.int64()))
        if not _INT64.min <= total <= _INT64.max:
            # No instant of the column is that far away: all lie on one side.
            return np.full(len(values), bool(order(0, total)))
        return np.asarray(order(values, np.int64(total)))

    def _decimals(self, array: pa.Array) -> Mask:
        """Compare as doubles, and exactly where those are too close to tell."""
        data = np.frombuffer(array.buffers()[1], dtype="<u8")[array.offset * 2 : (array.offset + len(array)) * 2]
        low, high = data[0::2], data[1::2]
        special = (high >> np.uint64(61)) & np.uint64(3) == 3
        exponent = ((high >> np.uint64(49)) & np.uint64(0x3FFF)).astype(np.float64) - 6176.0
        coefficient = (high & np.uint64(0x1FFFFFFFFFFFF)).astype(np.float64) * 2.0**64 + low.astype(np.float64)
        with np.errstate(all="ignore"):
            value = coefficient * np.power(10.0, np.where(special, 0.0, exponent))
        value = np.where(high >> np.uint64(63) == 1, -value, value)
        target = float(to_decimal(self.constant))
        with np.errstate(all="ignore"):
            near = np.abs(value - target) <= np.maximum(np.abs(value), abs(target)) * 1e-12
            result = np.asarray(_OPERATORS[self.op](value, target))
            doubtful = near | special | ~np.isfinite(value) | (np.abs(value) < 1e-290) | ~np.isfinite(target)
        raw = array.buffers()[1]
        for i in np.flatnonzero(doubtful):
            at = (array.offset + int(i)) * 16
            result[i] = self.test(Decimal128.from_bytes(raw[at : at + 16].to_pybytes()))
        return result

    def _texts(self, array: pa.Array) -> Mask:
        if not _encodable([self.constant]) or (self.kind is PropertyType.DATA and "[c]" in self.op):
            return np.fromiter((self.test(v) for v in _python_values(array)), dtype=bool, count=len(array))
        result = _text_kernel(array, self.op, self.constant)
        if result is None:
            return np.fromiter((self.test(v) for v in _python_values(array)), dtype=bool, count=len(array))
        return _to_numpy(result.fill_null(False) if result.null_count else result)


def _text_kernel(array: pa.Array, op: str, constant: Any) -> pa.Array | None:
    """Call the kernel for an operator on strings or binary; None where there is none."""
    if op in _ARROW:
        return pc.call_function(_ARROW[op], [array, pa.scalar(constant, type=array.type)])
    if op == "BEGINSWITH":
        return pc.starts_with(array, pattern=constant)
    if op == "ENDSWITH":
        return pc.ends_with(array, pattern=constant)
    if op == "CONTAINS":
        return pc.match_substring(array, pattern=constant)
    if not isinstance(constant, str):
        return None
    anchors = {"==[c]": (r"\A", r"\z"), "!=[c]": (r"\A", r"\z"), "BEGINSWITH[c]": (r"\A", ""),
               "ENDSWITH[c]": ("", r"\z"), "CONTAINS[c]": ("", "")}  # fmt: skip
    if op in anchors:
        before, after = anchors[op]
        found = pc.match_substring_regex(array, pattern=before + _folded_pattern(constant) + after)
        return pc.invert(found) if op == "!=[c]" else found
    pattern = "".join(_wildcard(c, folded=op == "LIKE[c]") for c in constant)
    return pc.match_substring_regex(array, pattern=rf"(?s)\A{pattern}\z")


def _wildcard(character: str, *, folded: bool) -> str:
    if character in "*?":
        return {"*": ".*", "?": "."}[character]
    return _folded_pattern(character) if folded else _quoted(character)


def _quoted(character: str) -> str:
    """Quote for RE2, which reads every escape of punctuation as itself."""
    if character == "\0":
        return r"\x00"
    return character if character.isalnum() or ord(character) > 127 else rf"\x{{{ord(character):x}}}"


def _folded_pattern(text: str) -> str:
    parts = []
    for character in fold(text):
        other = character.upper() if len(character.upper()) == 1 and fold(character.upper()) == character else character
        parts.append(_quoted(character) if other == character else f"[{character}{other}]")
    return "".join(parts)


def _encodable(values: list[Any]) -> bool:
    for value in values:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                return False
    return True


def _raw(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.bytes
    return value.binary if isinstance(value, ObjectId) else value


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take the storage of an extension type."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([c.storage for c in column.chunks], type=column.type.storage_type)


def _validity(array: pa.Array) -> Mask | None:
    return None if not array.null_count else _to_numpy(array.is_valid())


def _to_numpy(array: Any) -> Mask:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def _numbers(array: pa.Array) -> Any:
    """View the numbers without a copy (nulls hold whatever lies there)."""
    if len(array) == 0:
        return np.zeros(0, dtype=array.type.to_pandas_dtype())
    width = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], dtype=width)[array.offset : array.offset + len(array)]


def _python_values(array: pa.Array) -> list[Any]:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        binary = pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary()
        raw = array.view(binary).to_pylist()
        return [None if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
    return list(array.to_pylist())


__all__ = ["FEW_ROWS", "Scalar"]
