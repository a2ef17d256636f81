"""What a literal's text means, with the quirks of the engine's C library calls."""

from __future__ import annotations

import base64
import calendar
import math
import re
import uuid
from typing import Any, Final

import numpy as np

from realmframe.errors import QueryError
from realmframe.model import ObjectId, Timestamp

INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1
#: One object for every not-a-number, so that trees that hold it are equal.
NAN: Final = math.nan

_OCTAL: Final = re.compile(r"[0-7]*")
_MONTHS: Final = 12
_FIRST_YEAR: Final = 1900


def integer(text: str) -> int:
    """Read an integer as C does: 0x for hexadecimal, a leading 0 for octal, saturating at 64 bits."""
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-")
    if digits[:2] in ("0x", "0X"):
        number = int(digits, 16)
    elif digits[0] == "0":
        octal = _OCTAL.match(digits)
        number = int((octal.group() if octal else "") or "0", 8)
    else:
        # Twenty digits exceed 64 bits already; Python would refuse thousands of them.
        number = int(digits[:20]) if len(digits) <= 20 else INT_MAX + 1
    return max(INT_MIN, min(INT_MAX, sign * number))


def _decimal_int(text: str) -> int:
    number = int(text[:21]) if len(text) <= 21 else (INT_MIN if text[0] == "-" else INT_MAX)
    return _low32(max(INT_MIN, min(INT_MAX, number)))


def _low32(number: int) -> int:
    return ((number + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def wrap64(number: int) -> int:
    """Reduce to a signed 64-bit number."""
    return ((number + (1 << 63)) & 0xFFFFFFFFFFFFFFFF) - (1 << 63)


def timestamp(text: str, position: int) -> Timestamp:
    """Read ``T{seconds}:{nanoseconds}`` or ``YYYY-MM-DD@hh:mm:ss:ns``.

    Raises
    ------
    QueryError
        For parts of different sign, or a year before 1900.
    """
    if text[0] == "T":
        first, second = text[1:].split(":")
        # A leading 0 makes these octal, as in C; those of the calendar form are decimal.
        seconds, nanos = integer(first), _low32(integer(second))
    else:
        seconds, nanos = _calendar(text, position)
    if (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise QueryError("A date's seconds and nanoseconds have different signs.", position=position, kind="syntax")
    return Timestamp(seconds, nanos)


def _calendar(text: str, position: int) -> tuple[int, int]:
    numbers = [_decimal_int(n) for n in re.split(r"[-@T:]", text)]
    year, month, day, hour, minute, second = numbers[:6]
    if year < _FIRST_YEAR:
        raise QueryError(
            "A date before the year 1900 cannot be written this way.",
            position=position,
            hint="Write it as T{seconds}:{nanoseconds}.",
        )
    year, month = year + (month - 1) // _MONTHS, (month - 1) % _MONTHS + 1
    # calendar.timegm knows years of four digits only; days are counted from the calendar's own rule of 400 years.
    cycles = (year - 2000) // 400
    base = calendar.timegm((year - cycles * 400, month, 1, 0, 0, 0)) + cycles * 146_097 * 86_400
    total = base + (day - 1) * 86_400 + hour * 3600 + minute * 60 + second
    seconds = ((total + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
    nanos = numbers[6] if len(numbers) > 6 else 0
    if nanos < 0:
        raise QueryError("A date's nanoseconds cannot be negative.", position=position, kind="syntax")
    return seconds, -nanos if seconds < 0 else nanos


_BASE64: Final = {c: n for n, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def base64_bytes(text: str, position: int) -> bytes:
    """Read the content of ``B64"..."`` as the engine does.

    Padding may be missing. What is there says by itself how many bytes the last group gives, even where the number of
    digits in that group does not go with it.

    Raises
    ------
    QueryError
        For digits after padding, more than two signs of padding, or a last group of one digit.
    """
    content = text[4:-1]
    digits = content.rstrip("=")
    padding = len(content) - len(digits)
    if not padding and len(content) % 4 > 1:
        padding = 4 - len(content) % 4
    whole = len(digits) // 4 * 4
    if "=" in digits or padding > 2 or (not padding and whole != len(digits)):
        raise QueryError("The text after B64 is no base64.", position=position, kind="syntax")
    buffer = 0
    for digit in digits[whole:]:
        buffer = buffer << 6 | _BASE64[digit]
    tail = {0: b"", 1: bytes((buffer >> 10 & 0xFF, buffer >> 2 & 0xFF)), 2: bytes((buffer >> 4 & 0xFF,))}[padding]
    return base64.b64decode(digits[:whole]) + tail


def fraction(text: str) -> float | np.float32:
    """Read a number with a fraction or exponent; a final ``f`` makes it a float of 32 bits."""
    if text[-1] == "f":
        with np.errstate(over="ignore", under="ignore"):
            return np.float32(text[:-1])
    return float(text)


def literal(kind: str, text: str, position: int) -> tuple[Any, str | None]:
    """Read a literal token: its value, and the text to keep for a decimal property."""
    if kind in ("NATURAL0", "NUMBER"):
        return integer(text), None
    if kind == "FLOAT":
        value = fraction(text)
        return value, (None if text[-1] == "f" else text)
    if kind == "STRING":
        return text[1:-1], None
    if kind == "INFINITY":
        return (-math.inf if text[0] == "-" else math.inf), None
    if kind == "NAN":
        # The sign is lost but to a decimal, which knows two of them.
        return NAN, (text if text[0] == "-" else None)
    readers: dict[str, Any] = {
        "BASE64": lambda: base64_bytes(text, position).decode("utf-8", "surrogateescape"),
        "TIMESTAMP": lambda: timestamp(text, position),
        "UUID": lambda: uuid.UUID(text[5:-1]),
        "OID": lambda: ObjectId.parse(text[4:-1]),
        "TRUE": lambda: True,
        "FALSE": lambda: False,
        "NULL_VAL": lambda: None,
    }
    reader = readers.get(kind)
    if reader is None:
        raise QueryError(
            "The internal key of an object has no meaning outside the engine.",
            position=position,
            kind="invalid_argument",
            hint='Write obj("Class", key) with the primary key.',
        )
    return reader(), None
