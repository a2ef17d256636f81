"""Versions, codes, keys: the tables of the protocol."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.errors import LocalProtocolError
from realmframe.model import ObjectId
from realmframe.wire import (
    ERROR_CODES,
    Action,
    Dialect,
    check_sendable,
    json_error_body,
    negotiate,
    parse_subprotocol,
    primary_key_from_text,
    primary_key_text,
    rejected_updates,
    subprotocols,
)

FLX, PBS = "com.mongodb.realm-query-sync#", "com.mongodb.realm-sync#"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([f"{FLX}{n}" for n in range(14, 1, -1)], Dialect(14, flexible=True)),
        ([f"{PBS}{n}" for n in range(14, 1, -1)], Dialect(14, flexible=False)),
        ([f"{FLX}99", f" {FLX}9 ", f"{FLX}8"], Dialect(9, flexible=True)),
        ([f"{FLX}7"], None),
        ([f"{FLX}15", f"{FLX}", f"{FLX}-9", f"{FLX}٩", f"{FLX}0x9", "chat", ""], None),
        ([], None),
    ],
)
def test_negotiation(offered: list[str], chosen: Dialect | None) -> None:
    """The highest version that both ends speak is chosen."""
    assert negotiate(offered) == chosen


def test_subprotocols_are_what_is_parsed() -> None:
    """A client offers 14 down to 8, and each name reads back as its dialect."""
    for flexible in (True, False):
        names = subprotocols(flexible)
        assert [parse_subprotocol(n) for n in names] == [Dialect(v, flexible) for v in range(14, 7, -1)]


def test_versions_differ() -> None:
    """Each version has what it introduced; unknown ones do not exist."""
    what = [("has_json_bind", 8), ("has_session_reason", 10), ("has_schema_version", 11), ("has_estimate", 12)]
    for name, first in [*what, ("has_server_bootstraps", 14)]:
        assert [v for v in range(2, 15) if getattr(Dialect(v), name)] == list(range(first, 15)), name
    for version in (1, 15):
        with pytest.raises(LocalProtocolError, match="no protocol version"):
            Dialect(version)


def test_codes() -> None:
    """Codes below 200 are of the connection; those that end real clients are never sent."""
    assert all(code.is_connection_level is (number < 200) for number, code in ERROR_CODES.items())
    aborting = {104, 202, 203, 205, 207, 214, 215, 218, 219, 220, 221, 224}
    for number in [*range(100, 115), *range(200, 213), *range(214, 237), 99, 213, 300]:
        if number in aborting or number not in ERROR_CODES:
            with pytest.raises(LocalProtocolError, match="must not be sent"):
                check_sendable(number)
        else:
            check_sendable(number)


@pytest.mark.parametrize("action", list(Action))
def test_json_error_has_all_six_keys(action: Action) -> None:
    """Clients need six keys; the back-off comes with all of its three."""
    body = json_error_body("m", action=action, try_again=True, backoff=(1, 5, 2), rejectedClientVersion=3)
    six = {"message", "logURL", "tryAgain", "shouldClientReset", "isRecoveryModeDisabled", "action"}
    assert six <= set(body)
    assert type(body["action"]) is str
    assert body["backoffIntervalSec"], body["backoffMaxDelaySec"] == (1, 5)
    assert (body["backoffMultiplier"], body["rejectedClientVersion"]) == (2, 3)


KEYS: list[tuple[Any, str]] = [(100, "AeQA"), ("abc", "AwNhYmM="), (None, "AA==")]


@pytest.mark.parametrize(("key", "text"), KEYS)
def test_known_keys(key: Any, text: str) -> None:
    """Keys of compensating writes look as the real client reads them."""
    assert primary_key_text(key) == text
    assert rejected_updates([("P", key, "why")]) == [{"table": "P", "pk": text, "reason": "why"}]


@given(
    st.none()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=200)
    | st.uuids()
    | st.binary(min_size=12, max_size=12).map(ObjectId)
)
def test_keys_survive(key: Any) -> None:
    """Every key reads back as itself, with its type."""
    found = primary_key_from_text(primary_key_text(key))
    assert found == key
    assert type(found) is type(key) or isinstance(key, uuid.UUID)


@given(st.binary(max_size=30))
def test_damaged_keys(raw: bytes) -> None:
    """Any text gives a key or ValueError."""
    import base64

    try:
        primary_key_from_text(base64.b64encode(raw).decode())
    except ValueError:
        return
