"""What users write for one scalar type, turned into the value that the type holds exactly, or refused."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import numpy as np

from realmframe.errors import WriteError
from realmframe.model import Decimal128, ObjectId, PropertyType, Timestamp

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_BILLION: Final = 1_000_000_000
#: The longest string and the longest data that the SDKs store, in bytes.
MAX_STRING_BYTES: Final = 0xFFFFF8 - 9
MAX_DATA_BYTES: Final = 0xFFFFF8 - 8


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"


def reject(value: Any, word: str, hint: str | None = None) -> NoReturn:
    """Raise for a value that is not of a type."""
    raise WriteError(f"{_shown(value)} is no {word}.", hint=hint)


def _int(value: Any) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        if not (isinstance(value, float) and value.is_integer()):
            reject(value, "int", "Write a whole number.")
        value = int(value)
    if not _INT_MIN <= value <= _INT_MAX:
        raise WriteError(f"{value} does not fit an int of 64 bits.")
    return int(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        reject(value, "bool", "Write True or False.")
    return bool(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        reject(value, "string", "Write a str.")
    if len(value) > MAX_STRING_BYTES // 4 or not value.isascii():
        try:
            size = len(value.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as fault:
            raise WriteError(
                f"{_shown(value)} is no text: half a surrogate pair stands at {fault.start}.",
                hint="Join the pair to one character, or drop it.",
            ) from None
        check_size(size, MAX_STRING_BYTES, "string")
    return value


def _data(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        reject(value, "data", "Write bytes.")
    check_size(memoryview(value).nbytes, MAX_DATA_BYTES, "data")
    return bytes(value)


def check_size(size: int, limit: int, word: str) -> None:
    """Refuse text or data that the SDKs cannot store.

    Raises
    ------
    WriteError
    """
    if size > limit:
        raise WriteError(
            f"A {word} of {size:,} bytes is too long: the SDKs store {limit:,} at most.",
            hint="Cut it up, or keep it in a file of its own.",
        )


def _date(value: Any) -> Timestamp:
    if isinstance(value, Mapping) and value.keys() == {"seconds", "nanoseconds"}:
        value = Timestamp(value["seconds"], value["nanoseconds"])
    if isinstance(value, Timestamp):
        seconds, nanos = value
        if not (_INT_MIN <= seconds <= _INT_MAX and -_BILLION < nanos < _BILLION and seconds * nanos >= 0):
            reject(value, "date", "Nanoseconds have the sign of the seconds and stay below 10**9.")
        return value
    if isinstance(value, dt.datetime):
        return Timestamp.from_datetime(value)
    if isinstance(value, np.datetime64):
        return _numpy_date(value)
    return reject(value, "date", "Write a datetime, a pandas.Timestamp or a realmframe.Timestamp.")


def _numpy_date(value: np.datetime64) -> Timestamp:
    """Convert exactly, whatever the unit: numpy itself would wrap around at the ends of nanoseconds."""
    unit = np.datetime_data(value.dtype)[0]
    fraction = {"ms": 10**6, "us": 10**3, "ns": 1}.get(unit)
    if np.isnat(value) or unit in ("ps", "fs", "as", "generic"):
        reject(value, "date", "Write it in nanoseconds or coarser.")
    if fraction is not None:
        return Timestamp.from_nanoseconds(int(value.astype(f"datetime64[{unit}]").astype(np.int64)) * fraction)
    return Timestamp(int(value.astype("datetime64[s]").astype(np.int64)), 0)


def _float(value: Any) -> np.float32:
    if isinstance(value, np.float32):
        return value
    wide = _double(value)
    try:
        return np.float32(struct.unpack("<f", struct.pack("<f", wide))[0])
    except OverflowError:
        raise WriteError(f"{wide!r} does not fit a float of 32 bits.", hint="Make the property a double.") from None


def _double(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, float | int | np.floating | np.integer):
        reject(value, "number")
    if isinstance(value, int | np.integer) and abs(int(value)) > 1 << 53 and int(float(value)) != int(value):
        raise WriteError(f"{value} has more digits than a double holds.", hint="Write float(...) to round it.")
    return float(value)


def _decimal(value: Any) -> Decimal128:
    if isinstance(value, Decimal128):
        return value
    if isinstance(value, decimal.Decimal | int | str | np.integer) and not isinstance(value, bool):
        try:
            return Decimal128.from_decimal(int(value) if isinstance(value, np.integer) else value)
        except decimal.Overflow:
            raise WriteError(f"{_shown(value)} is too large for a decimal128 (9.99...E+6144).") from None
        except decimal.DecimalException:
            pass
    return reject(value, "decimal128", "Write a decimal.Decimal, an int, or digits as a str.")


def _object_id(value: Any) -> ObjectId:
    if isinstance(value, ObjectId):
        return value
    if isinstance(value, str):
        return ObjectId.parse(value)
    if isinstance(value, bytes):
        return ObjectId(value)
    binary = getattr(value, "binary", None)
    if isinstance(binary, bytes):
        return ObjectId(binary)  # bson's own class
    return reject(value, "objectId", "Write a realmframe.ObjectId or 24 hexadecimal digits.")


def _uuid(value: Any) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    try:
        if isinstance(value, str):
            return uuid.UUID(value)
        if isinstance(value, bytes):
            return uuid.UUID(bytes=value)
    except ValueError:
        pass
    return reject(value, "uuid", "Write a uuid.UUID or its text.")


#: Takes what users write for a type and gives the model value.
COERCE: Final[dict[PropertyType, Callable[[Any], Any]]] = {
    PropertyType.INT: _int,
    PropertyType.BOOL: _bool,
    PropertyType.STRING: _string,
    PropertyType.DATA: _data,
    PropertyType.DATE: _date,
    PropertyType.FLOAT: _float,
    PropertyType.DOUBLE: _double,
    PropertyType.DECIMAL128: _decimal,
    PropertyType.OBJECT_ID: _object_id,
    PropertyType.UUID: _uuid,
}
