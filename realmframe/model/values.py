"""The values that realms hold and Python has no exact type for.

========== ==================================================================
realm      Python
========== ==================================================================
int        ``int``
bool       ``bool``
string     ``str`` (bytes that are no UTF-8 survive as ``surrogateescape``)
data       ``bytes``
date       :class:`Timestamp` (``datetime`` is accepted)
float      ``numpy.float32``
double     ``float``
decimal128 :class:`Decimal128` (``decimal.Decimal`` is accepted)
objectId   :class:`ObjectId`
uuid       ``uuid.UUID``
link       :class:`Link`
list       ``list``
set        :class:`RealmSet`
dictionary ``dict``
embedded   :class:`EmbeddedObject`
========== ==================================================================
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import re
import struct
import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from realmframe.errors import WriteError

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_BILLION: Final = 1_000_000_000


class Timestamp(NamedTuple):
    """An instant, exact to the nanosecond over the whole range of the protocol.

    Attributes
    ----------
    seconds : int
        Seconds since 1970-01-01T00:00:00Z, signed 64 bits.
    nanoseconds : int
        With the same sign as ``seconds`` (an instant before 1970 has both at or below zero).
    """

    seconds: int
    nanoseconds: int = 0

    @classmethod
    def from_datetime(cls, value: dt.datetime) -> Timestamp:
        """Convert a ``datetime`` (naive ones are taken as UTC)."""
        aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
        delta = aware - _EPOCH
        extra = int(getattr(value, "nanosecond", 0))
        total = (delta.days * 86_400 + delta.seconds) * _BILLION + delta.microseconds * 1000 + extra
        return cls.from_nanoseconds(total)

    @classmethod
    def from_nanoseconds(cls, total: int) -> Timestamp:
        """Convert nanoseconds since 1970."""
        sign = -1 if total < 0 else 1
        seconds, nanos = divmod(abs(total), _BILLION)
        return cls(sign * seconds, sign * nanos)

    @property
    def total_nanoseconds(self) -> int:
        """Nanoseconds since 1970 (may exceed 64 bits)."""
        return self.seconds * _BILLION + self.nanoseconds

    def to_datetime(self) -> dt.datetime:
        """Convert to an aware ``datetime`` in UTC, dropping what is below a microsecond.

        Raises
        ------
        OverflowError
            Outside the years 1 to 9999.
        """
        return _EPOCH + dt.timedelta(microseconds=self.total_nanoseconds // 1000)


@dataclass(frozen=True, slots=True, order=True)
class ObjectId:
    """A 12-byte object id.

    Parameters
    ----------
    binary : bytes or str
        12 bytes, or the same as 24 hexadecimal digits.
    """

    binary: bytes

    def __post_init__(self) -> None:
        given: Any = self.binary
        if isinstance(given, str):
            object.__setattr__(self, "binary", ObjectId.parse(given).binary)
        if len(self.binary) != 12:
            raise WriteError(f"An objectId has 12 bytes, not {len(self.binary)}.")

    @classmethod
    def parse(cls, text: str) -> ObjectId:
        """Read 24 hexadecimal digits."""
        if not re.fullmatch(r"[0-9a-fA-F]{24}", text):
            raise WriteError(f"{text!r} is no objectId.", hint="An objectId is written as 24 hexadecimal digits.")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.binary.hex()

    def __repr__(self) -> str:
        return f"ObjectId({self.binary.hex()!r})"


_D128_BIAS: Final = 6176
_D128_CONTEXT: Final = decimal.Context(prec=34, Emin=-6143, Emax=6144, rounding=decimal.ROUND_HALF_EVEN, clamp=1)
_D128_INFINITY: Final = 0x7800000000000000
_D128_NAN: Final = 0x7C00000000000000


@dataclass(frozen=True, slots=True)
class Decimal128:
    """An IEEE 754 decimal of 34 digits, kept as its BID pattern so that every bit survives.

    Attributes
    ----------
    high, low : int
        The two words of the pattern, unsigned 64 bits.
    """

    high: int
    low: int

    @classmethod
    def from_decimal(cls, value: decimal.Decimal | int | str) -> Decimal128:
        """Convert, rounding to 34 digits (half to even)."""
        number = _D128_CONTEXT.create_decimal(value)
        sign = 1 << 63 if number.is_signed() else 0
        if number.is_infinite():
            return cls(sign | _D128_INFINITY, 0)
        if number.is_nan():
            return cls(sign | _D128_NAN, 0)
        _, digits, exponent = number.as_tuple()
        coefficient = int("".join(map(str, digits)))
        return cls.from_parts(coefficient, int(exponent), bool(sign))

    @classmethod
    def from_parts(cls, coefficient: int, exponent: int, negative: bool) -> Decimal128:
        """Build from the coefficient (113 bits), the unbiased exponent and the sign, as the protocol sends them."""
        biased = exponent + _D128_BIAS
        if not 0 <= biased < 1 << 14 or not 0 <= coefficient < 1 << 113:
            raise WriteError("A decimal128 out of range.")
        high = (int(negative) << 63) | (biased << 49) | (coefficient >> 64)
        return cls(high, coefficient & 0xFFFFFFFFFFFFFFFF)

    @classmethod
    def from_bytes(cls, data: bytes) -> Decimal128:
        """Read 16 bytes, least significant first (the layout of BSON)."""
        low, high = struct.unpack("<QQ", data)
        return cls(high, low)

    def to_bytes(self) -> bytes:
        """Write 16 bytes, least significant first (the layout of BSON)."""
        return struct.pack("<QQ", self.low, self.high)

    @property
    def coefficient(self) -> int:
        """The low 113 bits."""
        return ((self.high & 0x1FFFFFFFFFFFF) << 64) | self.low

    @property
    def exponent(self) -> int:
        """The 14 bits above them, unbiased (9184 for infinity, 9696 for not-a-number)."""
        return ((self.high >> 49) & 0x3FFF) - _D128_BIAS

    @property
    def negative(self) -> bool:
        """The sign bit."""
        return bool(self.high >> 63)

    @property
    def is_nan(self) -> bool:
        """Whether this is not a number."""
        return self.high & _D128_NAN == _D128_NAN

    def to_decimal(self) -> decimal.Decimal:
        """Convert to ``decimal.Decimal`` (exact)."""
        if self.is_nan:
            return decimal.Decimal("NaN")
        sign = int(self.negative)
        if self.high & _D128_INFINITY == _D128_INFINITY:
            return decimal.Decimal("-Infinity" if sign else "Infinity")
        coefficient, exponent = self.coefficient, self.exponent
        if (self.high >> 61) & 3 == 3:
            # The other form of BID: the coefficient would exceed 34 digits, which the standard reads as zero.
            coefficient, exponent = 0, ((self.high >> 47) & 0x3FFF) - _D128_BIAS
        return decimal.Decimal((sign, tuple(map(int, str(coefficient))), exponent))

    def __str__(self) -> str:
        return str(self.to_decimal())


def decimal_of_float(value: float, *, single: bool = False) -> decimal.Decimal:
    """Convert a floating-point number as the real engine does where it meets a decimal.

    Parameters
    ----------
    value : float
    single : bool
        Whether it comes from 32 bits; 7 digits count then, else 15.
    """
    return decimal.Decimal(f"{value:.{6 if single else 14}e}") if math.isfinite(value) else decimal.Decimal(value)


class GlobalKey(NamedTuple):
    """The key of an object whose class has no primary key: two unsigned 64-bit numbers."""

    hi: int
    lo: int


#: The key of an object.
Key: TypeAlias = "int | str | ObjectId | uuid.UUID | GlobalKey | None"


class Link(NamedTuple):
    """A link to an object, which need not exist."""

    table: str
    key: Key


class RealmSet(list[Any]):
    """The content of a set property: a list without doubles, in no particular order."""


class EmbeddedObject(dict[str, Any]):
    """The fields of an embedded object."""


class Marker(Enum):
    """Values of instructions that carry no data of their own."""

    OBJECT_VALUE = "ObjectValue"
    LIST = "List"
    DICTIONARY = "Dictionary"
    SET = "Set"
    ERASED = "Erased"


#: What an instruction may carry.
Payload: TypeAlias = (
    bool | int | str | bytes | Timestamp | np.float32 | float | Decimal128 | ObjectId | uuid.UUID | Link | Marker | None
)
