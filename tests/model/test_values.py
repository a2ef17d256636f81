"""Values are exact: every bit that the protocol carries comes back."""

from __future__ import annotations

import datetime as dt
import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.errors import WriteError
from realmframe.model import Decimal128, ObjectId, Timestamp


@given(st.integers(-(2**63) * 10**9, 2**63 * 10**9 - 1))
def test_timestamp_keeps_every_nanosecond(total: int) -> None:
    """Both parts have one sign, and give the total back."""
    found = Timestamp.from_nanoseconds(total)
    assert found.total_nanoseconds == total
    assert found.seconds * found.nanoseconds >= 0
    assert abs(found.nanoseconds) < 10**9


@given(st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-7))])))
def test_timestamp_of_a_datetime(value: dt.datetime) -> None:
    """A datetime survives, whatever its zone."""
    assert Timestamp.from_datetime(value).to_datetime() == value


@given(st.binary(min_size=12, max_size=12))
def test_object_id(data: bytes) -> None:
    """An objectId is its 24 digits."""
    assert ObjectId.parse(str(ObjectId(data)).upper()) == ObjectId(data)
    assert ObjectId(data.hex()) == ObjectId(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "0" * 23, "0" * 25, "g" * 24, "0" * 24 + "\n"])
def test_no_object_ids(text: str) -> None:
    """What has not exactly 24 hexadecimal digits is refused."""
    with pytest.raises(WriteError, match="objectId"):
        ObjectId.parse(text)
    with pytest.raises(WriteError, match="objectId"):
        ObjectId(text)  # type: ignore[arg-type]


@given(st.binary(min_size=16, max_size=16))
def test_decimal_pattern(data: bytes) -> None:
    """Any 16 bytes survive, and their parts make the same number again."""
    found = Decimal128.from_bytes(data)
    assert found.to_bytes() == data
    assert Decimal128.from_parts(found.coefficient, found.exponent, found.negative) == found


@given(st.integers(-(10**34) + 1, 10**34 - 1), st.integers(-6176, 6111))
def test_decimal_is_exact(coefficient: int, exponent: int) -> None:
    """34 digits at any exponent, trailing zeros included."""
    value = decimal.Decimal((int(coefficient < 0), tuple(map(int, str(abs(coefficient)))), exponent))
    assert Decimal128.from_decimal(value).to_decimal().as_tuple() == value.as_tuple()


@pytest.mark.parametrize(
    ("text", "hexadecimal"),
    [
        ("0", "00000000000000000000000000004030"),
        ("-0", "000000000000000000000000000040b0"),
        ("1.5", "0f000000000000000000000000003e30"),
        ("Infinity", "00000000000000000000000000000078"),
        ("-Infinity", "000000000000000000000000000000f8"),
        ("NaN", "0000000000000000000000000000007c"),
    ],
)
def test_decimal_bytes(text: str, hexadecimal: str) -> None:
    """The bytes of the standard's binary encoding."""
    assert Decimal128.from_decimal(text).to_bytes().hex() == hexadecimal
    assert str(Decimal128.from_bytes(bytes.fromhex(hexadecimal))) == text
