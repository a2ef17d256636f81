"""How the engine compares and computes values, whatever their types."""

from __future__ import annotations

import decimal
import re
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from realmframe.model import Decimal128, EmbeddedObject, Link, ObjectId, PropertyType, Timestamp, decimal_of_float
from realmframe.query.literals import INT_MAX, INT_MIN, wrap64

_CONTEXT: Final = decimal.Context(prec=34, Emin=-6143, Emax=6144, rounding=decimal.ROUND_HALF_EVEN, clamp=1, traps=[])


class Row(NamedTuple):
    """An object, by class and row."""

    table: str
    row: int


class TypeTag(NamedTuple):
    """What ``@type`` gives: a set of types as bits."""

    bits: int


_TAG_BITS: Final[dict[str, int]] = {
    "null": 1, "int": 2, "double": 4, "float": 8, "bool": 16, "timestamp": 32, "string": 64, "binary": 128,
    "uuid": 256, "objectid": 512, "decimal": 1024, "objectlink": 2048, "object": 4096, "array": 8192,
}  # fmt: skip
_TAG_WORDS: Final[dict[str, str]] = {
    "integer": "int", "int16": "int", "int32": "int", "int64": "int", "short": "int", "long": "int", "byte": "int",
    "char": "int", "boolean": "bool", "data": "binary", "bytearray": "binary", "byte[]": "binary",
    "bindata": "binary", "date": "timestamp", "datetimeoffset": "timestamp", "decimal128": "decimal",
    "link": "objectlink", "guid": "uuid", "dictionary": "object", "list": "array",
}  # fmt: skip


def type_tag(word: str) -> TypeTag | None:
    """Read the word for a type; None for one that the language does not know."""
    word = word.lower()
    if word == "numeric":
        return TypeTag(2 | 4 | 8 | 1024)
    if word == "collection":
        return TypeTag(4096 | 8192)
    bits = _TAG_BITS.get(_TAG_WORDS.get(word, word))
    return None if bits is None else TypeTag(bits)


_PROPERTY_TAGS: Final[dict[PropertyType, str]] = {
    PropertyType.INT: "int",
    PropertyType.BOOL: "bool",
    PropertyType.STRING: "string",
    PropertyType.DATA: "binary",
    PropertyType.DATE: "timestamp",
    PropertyType.FLOAT: "float",
    PropertyType.DOUBLE: "double",
    PropertyType.DECIMAL128: "decimal",
    PropertyType.OBJECT: "objectlink",
    PropertyType.OBJECT_ID: "objectid",
    PropertyType.UUID: "uuid",
}


def tag_of_type(kind: PropertyType) -> TypeTag:
    """Return the tag of a property's type."""
    return TypeTag(_TAG_BITS[_PROPERTY_TAGS[kind]])


def tag_of_value(value: Any) -> TypeTag:
    """Return the tag of a value."""
    if value is None:
        return TypeTag(1)
    if isinstance(value, dict):
        return TypeTag(4096)
    if isinstance(value, list):
        return TypeTag(8192)
    return tag_of_type(value_type(value))


_TYPES: Final[dict[type, PropertyType]] = {
    bool: PropertyType.BOOL,
    int: PropertyType.INT,
    float: PropertyType.DOUBLE,
    np.float32: PropertyType.FLOAT,
    str: PropertyType.STRING,
    bytes: PropertyType.DATA,
    Timestamp: PropertyType.DATE,
    Decimal128: PropertyType.DECIMAL128,
    ObjectId: PropertyType.OBJECT_ID,
    uuid.UUID: PropertyType.UUID,
    Link: PropertyType.OBJECT,
    Row: PropertyType.OBJECT,
    EmbeddedObject: PropertyType.OBJECT,
}


def value_type(value: Any) -> PropertyType:
    """Return the type of a value that is not null."""
    return _TYPES.get(type(value), PropertyType.MIXED)


#: Rank of each type where values of several are put in one order.
_RANK: Final[dict[type, int]] = {
    bool: 0, int: 1, float: 1, np.float32: 1, Decimal128: 1, str: 2, bytes: 3, Timestamp: 4, ObjectId: 5,
    uuid.UUID: 6, Link: 7, Row: 8, TypeTag: 8, EmbeddedObject: 8, list: 9, dict: 11,
}  # fmt: skip


def rank(value: Any) -> int:
    """Rank of a value's type; null comes before everything."""
    return -1 if value is None else _RANK.get(type(value), 9)


def comparable(a: Any, b: Any) -> bool:
    """Whether two values can be equal or ordered; null is comparable with nothing."""
    return a is not None and b is not None and (type(a) is type(b) or rank(a) == rank(b))


def to_decimal(value: Any) -> decimal.Decimal:
    """Convert a number as the engine does (15 digits of a double, 7 of a float)."""
    if isinstance(value, Decimal128):
        return value.to_decimal()
    if isinstance(value, int):
        return decimal.Decimal(value)
    return decimal_of_float(float(value), single=isinstance(value, np.float32))


def _order(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)


def _bits(number: Any) -> tuple[int, int]:
    number = number if isinstance(number, Decimal128) else Decimal128.from_decimal("NaN")
    return number.high, number.low


def _compare_numbers(a: Any, b: Any) -> int:
    if isinstance(a, Decimal128) or isinstance(b, Decimal128):
        x, y = to_decimal(a), to_decimal(b)
        x_nan, y_nan = x.is_nan(), y.is_nan()
        if x_nan and y_nan:
            # Only the same bits are equal: a negative not-a-number is not the positive one.
            return _order(_bits(a), _bits(b))
        if x_nan or y_nan:
            return y_nan - x_nan
        return _order(x, y)
    if isinstance(a, int) and isinstance(b, int):
        return _order(a, b)
    x_nan, y_nan = a != a, b != b
    if x_nan or y_nan:
        return int(y_nan) - int(x_nan)
    # Python compares int with float exactly, as the engine does.
    return _order(a if isinstance(a, int) else float(a), b if isinstance(b, int) else float(b))


def utf8(text: str) -> bytes:
    """Encode, letting bytes that were no UTF-8 through."""
    return text.encode("utf-8", "surrogateescape")


def is_utf8(text: str | bytes) -> bool:
    """Whether a text, or binary, is UTF-8."""
    try:
        text.decode() if isinstance(text, bytes) else text.encode()
    except UnicodeError:
        return False
    return True


def compare(a: Any, b: Any) -> int:
    """Compare any two values: negative, zero or positive."""
    ra, rb = rank(a), rank(b)
    if ra != rb:
        return -1 if ra < rb else 1
    if ra == -1:
        return 0
    if ra == 1:
        return _compare_numbers(a, b)
    if isinstance(a, TypeTag) and isinstance(b, TypeTag):
        return 0 if a.bits & b.bits else _order(a.bits, b.bits)
    if isinstance(a, str):
        return _order(utf8(a), utf8(b))
    if isinstance(a, uuid.UUID):
        return _order(a.bytes, b.bytes)
    if isinstance(a, Link):
        return 0 if a == b else _order((a.table, str(a.key)), (b.table, str(b.key))) or 1
    if ra >= 9:
        return 0
    if isinstance(a, EmbeddedObject) or isinstance(b, EmbeddedObject):
        return 0 if a is b else 1
    return _order(a, b)


_FOLDED: Final = {c: c + 32 for c in [*range(0x41, 0x5B), *range(0xC0, 0xDF)] if c != 0xD7}


def fold(text: str) -> str:
    """Put ASCII and Latin-1 letters in lower case: all that ``[c]`` does."""
    return text.translate(_FOLDED)


def _fold_any(value: Any) -> Any:
    if isinstance(value, bytes):
        return fold(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return fold(value)


def like_pattern(pattern: str) -> str:
    """Translate the wildcards of LIKE into a regular expression (to be matched in full)."""
    return "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(c) or re.escape(c) for c in re.sub(r"\*+", "*", pattern))


@lru_cache(maxsize=256)
def _like(pattern: str) -> re.Pattern[str]:
    return re.compile(like_pattern(pattern))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def equal(a: Any, b: Any) -> bool:
    """Whether two values are equal; null equals null."""
    return (a is None and b is None) or (comparable(a, b) and compare(a, b) == 0)


def equal_folded(a: Any, b: Any) -> bool:
    """Compare for equality, strings and binary without regard to case."""
    if type(a) is type(b) and isinstance(a, str | bytes):
        return bool(_fold_any(a) == _fold_any(b))
    return equal(a, b)


def _both_text(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, str | bytes)


def _at_least(a: Any, b: Any) -> bool:
    return (a is None and b is None) or (comparable(a, b) and compare(a, b) >= 0)


def _at_most(a: Any, b: Any) -> bool:
    return (a is None and b is None) or (comparable(a, b) and compare(a, b) <= 0)


def _contains(needle: Any, hay: Any) -> bool:
    if needle is None:
        return hay is not None
    return _both_text(needle, hay) and needle in hay


def _like_match(needle: Any, hay: Any) -> bool:
    if needle is None and hay is None:
        return True
    return _both_text(needle, hay) and _like(_as_text(needle)).fullmatch(_as_text(hay)) is not None


def _begins(needle: Any, hay: Any) -> bool:
    return _both_text(needle, hay) and hay.startswith(needle)


def _ends(needle: Any, hay: Any) -> bool:
    return _both_text(needle, hay) and hay.endswith(needle)


def _folding(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def folded(needle: Any, hay: Any) -> bool:
        if _both_text(needle, hay):
            return test(_fold_any(needle), _fold_any(hay))
        return test(needle, hay)

    return folded


#: Test of (left, right) by operator; for the string operators of (needle, haystack).
TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": equal,
    "!=": lambda a, b: not equal(a, b),
    "<": lambda a, b: comparable(a, b) and compare(a, b) < 0,
    ">": lambda a, b: comparable(a, b) and compare(a, b) > 0,
    "<=": _at_most,
    ">=": _at_least,
    "==[c]": equal_folded,
    "!=[c]": lambda a, b: not equal_folded(a, b),
    "CONTAINS": _contains,
    "BEGINSWITH": _begins,
    "ENDSWITH": _ends,
    "LIKE": _like_match,
    "CONTAINS[c]": _folding(_contains),
    "BEGINSWITH[c]": _folding(_begins),
    "ENDSWITH[c]": _folding(_ends),
    "LIKE[c]": _folding(_like_match),
}
STRING_OPERATORS: Final = frozenset({"CONTAINS", "BEGINSWITH", "ENDSWITH", "LIKE"})
RELATIONAL: Final = frozenset({"<", "<=", ">", ">="})

_WIDTH: Final[dict[type, int]] = {int: 0, np.float32: 1, float: 2, Decimal128: 3}


def _divide(a: int, b: int) -> int:
    if b == 0:
        return INT_MIN if a < 0 else INT_MAX
    quotient = abs(a) // abs(b)
    return wrap64(quotient if (a < 0) == (b < 0) else -quotient)


def _float_divide(a: Any, b: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.float64(a) / np.float64(b)


_INTEGER: Final[dict[str, Callable[[int, int], int]]] = {
    "+": lambda a, b: wrap64(a + b),
    "-": lambda a, b: wrap64(a - b),
    "*": lambda a, b: wrap64(a * b),
    "/": _divide,
}
_REAL: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _float_divide,
}
_DECIMAL: Final[dict[str, Callable[[decimal.Decimal, decimal.Decimal], decimal.Decimal]]] = {
    "+": _CONTEXT.add,
    "-": _CONTEXT.subtract,
    "*": _CONTEXT.multiply,
    "/": _CONTEXT.divide,
}


def arithmetic(op: str, a: Any, b: Any) -> Any:
    """Compute in the wider type of the two; null for anything that is no number."""
    wa, wb = _WIDTH.get(type(a)), _WIDTH.get(type(b))
    if wa is None or wb is None:
        return None
    width = max(wa, wb)
    if width == 0:
        return _INTEGER[op](a, b)
    if width == 3:
        return Decimal128.from_decimal(_DECIMAL[op](to_decimal(a), to_decimal(b)))
    with np.errstate(all="ignore"):
        if width == 1:
            x, y = np.float32(a), np.float32(b)
            return np.float32(x / y) if op == "/" else np.float32(_REAL[op](x, y))
        return float(_REAL[op](float(a), float(b)))


def _present(values: list[Any]) -> list[Any]:
    return [
        v
        for v in values
        if v is not None
        and not (isinstance(v, float | np.float32) and v != v)
        and not (isinstance(v, Decimal128) and v.is_nan)
    ]


def aggregate(op: str, values: list[Any], kind: PropertyType) -> Any:
    """Compute ``@min``, ``@max``, ``@sum`` or ``@avg`` over the values that are neither null nor not-a-number."""
    present = _present(values)
    if op in ("@min", "@max"):
        best = None
        for value in present:
            if best is None or ((compare(value, best) < 0) == (op == "@min") and compare(value, best) != 0):
                best = value
        return best
    numbers = [v for v in present if type(v) in _WIDTH]
    if not numbers and op == "@avg":
        return None
    if kind is PropertyType.INT:
        total: Any = wrap64(sum(numbers))
        return total if op == "@sum" else float(total) / len(numbers)
    if kind in (PropertyType.FLOAT, PropertyType.DOUBLE):
        total = float(sum(float(v) for v in numbers))
        return total if op == "@sum" else total / len(numbers)
    acc = decimal.Decimal(0)
    for value in numbers:
        acc = _CONTEXT.add(acc, to_decimal(value))
    return Decimal128.from_decimal(acc if op == "@sum" else _CONTEXT.divide(acc, decimal.Decimal(len(numbers))))
