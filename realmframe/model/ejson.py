"""MongoDB extended JSON, as far as functions, custom data and partition values need it."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
import numbers
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from realmframe.errors import UsageError
from realmframe.model.values import Decimal128, ObjectId, Timestamp

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> Any:
    """Turn a Python value into JSON-able extended JSON.

    Raises
    ------
    UsageError
        For a type that extended JSON cannot carry.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return {"$numberLong": str(int(value))}
    if isinstance(value, numbers.Real):
        return {"$numberDouble": _double(float(value))}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, bytes):
        return {"$binary": {"base64": base64.b64encode(value).decode(), "subType": "00"}}
    if isinstance(value, Sequence) and not isinstance(value, Timestamp):
        return [encode(v) for v in value]
    return _encode_special(value)


def _encode_special(value: Any) -> Any:
    if isinstance(value, ObjectId):
        return {"$oid": value.binary.hex()}
    if isinstance(value, uuid.UUID):
        return {"$binary": {"base64": base64.b64encode(value.bytes).decode(), "subType": "04"}}
    if isinstance(value, dt.datetime):
        value = Timestamp.from_datetime(value)
    if isinstance(value, Timestamp):
        return {"$date": {"$numberLong": str(value.seconds * 1000 + value.nanoseconds // 1_000_000)}}
    if isinstance(value, Decimal128 | decimal.Decimal):
        return {"$numberDecimal": str(value)}
    raise UsageError(f"A {type(value).__name__} cannot be sent as extended JSON.")


def _double(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def decode(value: Any) -> Any:
    """Turn parsed extended JSON into Python values."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name, inner), *_ = value.items()
        reader = _READERS.get(name)
        if reader is not None:
            return reader(inner)
    return {k: decode(v) for k, v in value.items()}


def _binary(inner: Any) -> Any:
    data = base64.b64decode(inner["base64"])
    return uuid.UUID(bytes=data) if inner.get("subType") == "04" and len(data) == 16 else data


def _date(inner: Any) -> dt.datetime:
    if isinstance(inner, str):
        return dt.datetime.fromisoformat(inner)
    ms = int(inner["$numberLong"]) if isinstance(inner, dict) else int(inner)
    return _EPOCH + dt.timedelta(milliseconds=ms)


_READERS: Final[dict[str, Any]] = {
    "$numberInt": int,
    "$numberLong": int,
    "$numberDouble": lambda text: _SPECIAL[text] if text in _SPECIAL else float(text),
    "$numberDecimal": decimal.Decimal,
    "$oid": lambda text: ObjectId(bytes.fromhex(text)),
    "$uuid": uuid.UUID,
    "$binary": _binary,
    "$date": _date,
}
