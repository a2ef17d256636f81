"""The tables: states of a session, back-off, what errors and closed connections mean."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.session.backoff import BackOff, Delays, delays_of
from realmframe.session.events import FollowUp
from realmframe.session.rules import ACTION_RULES, ERROR_NAMES, after_close, after_status, error_name
from realmframe.session.server import TRANSITIONS as SERVER
from realmframe.session.server import ServerState
from realmframe.session.states import CLIENT, Client, Do
from realmframe.wire import ERROR_CODES, Action


class NoJitter:
    """A random source that always gives the lower end."""

    def uniform(self, a: float, _b: float, /) -> float:
        """Give the lower end."""
        return a


def test_delays_double_up_to_five_minutes() -> None:
    """1, 2, 4 ... 256, 300, 300 seconds; another reason or a reset begins anew; no reason, no wait."""
    back_off = BackOff()
    assert back_off.next_delay(NoJitter()) == 0.0
    back_off.update("lost")
    assert [back_off.next_delay(NoJitter()) for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    back_off.update("lost")
    assert back_off.next_delay(NoJitter()) == 300
    back_off.update("refused")
    assert back_off.next_delay(NoJitter()) == 1
    back_off.reset()
    assert back_off.reason is None
    assert back_off.next_delay(NoJitter()) == 0.0


@given(st.integers(0, 1000), st.integers(1, 30))
def test_jitter_takes_at_most_a_quarter(seed: int, attempts: int) -> None:
    """A delay is never longer than the plain one, and never shorter than three quarters of it."""
    noisy, plain = BackOff(), BackOff()
    source = random.Random(seed)
    for back_off in (noisy, plain):
        back_off.update("x")
    for _ in range(attempts):
        longest = plain.next_delay(NoJitter())
        assert 0.75 * longest <= noisy.next_delay(source) <= longest


class MostJitter:
    """A random source that always gives the upper end."""

    def uniform(self, _a: float, b: float, /) -> float:
        """Give the upper end."""
        return b


def test_jitter_takes_up_to_a_quarter() -> None:
    """What the random source gives is taken off each delay, the longest included, and the next one does not shrink."""
    back_off = BackOff()
    back_off.update("lost")
    delays = [back_off.next_delay(MostJitter()) for _ in range(10)]
    assert delays == [0.75 * d for d in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300)]


THREE = {"backoffIntervalSec": 3, "backoffMaxDelaySec": 10, "backoffMultiplier": 2}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (THREE, Delays(3.0, 10.0, 2.0)),
        ({}, None),
        ({"backoffIntervalSec": 3}, None),
        (THREE | {"backoffMultiplier": "2"}, None),
        (THREE | {"backoffMaxDelaySec": True}, None),
        (THREE | {"backoffIntervalSec": -1}, None),
        (THREE | {"backoffMaxDelaySec": 1, "backoffMultiplier": 0}, Delays(3.0, 3.0, 1.0)),
    ],
)
def test_delays_of_the_server(body: dict[str, Any], expected: Delays | None) -> None:
    """The server's numbers count if all three are there and make sense."""
    assert delays_of(body, Delays()) == expected
    if expected is not None:
        back_off = BackOff()
        back_off.update(201, expected)
        found = [back_off.next_delay(NoJitter()) for _ in range(3)]
        assert found == [min(expected.first * expected.factor**n, expected.longest) for n in range(3)]


@pytest.mark.parametrize(
    ("code", "error", "follow_up"),
    [
        (1000, "ConnectionClosed", FollowUp.RETRY),
        (1001, "SyncProtocolInvariantFailed", FollowUp.RETRY),
        (1006, "ConnectionClosed", FollowUp.RETRY),
        (1008, "SyncProtocolInvariantFailed", FollowUp.RETRY),
        (1009, "LimitExceeded", FollowUp.CLIENT_RESET),
        (1011, "ConnectionClosed", FollowUp.RETRY),
        (3000, "SyncProtocolInvariantFailed", FollowUp.RETRY),
        (4001, "AuthError", FollowUp.REFRESH_USER),
        (4002, "AuthError", FollowUp.LOG_OUT),
        (4003, "ConnectionClosed", FollowUp.REFRESH_LOCATION),
        (4004, "SyncProtocolInvariantFailed", FollowUp.RETRY),
    ],
)
def test_close_codes(code: int, error: str, follow_up: FollowUp) -> None:
    """Each close code means what it means to the SDKs."""
    ending = after_close(code, "why")
    assert (ending.error, ending.follow_up) == (error, follow_up)
    assert ending.is_fatal is (follow_up is FollowUp.LOG_OUT)
    assert "why" in ending.message


@pytest.mark.parametrize(
    ("status", "follow_up"),
    [
        (301, FollowUp.REFRESH_LOCATION),
        (302, FollowUp.RETRY),
        (308, FollowUp.REFRESH_LOCATION),
        (400, FollowUp.STOP),
        (401, FollowUp.REFRESH_USER),
        (403, FollowUp.LOG_OUT),
        (404, FollowUp.STOP),
        (500, FollowUp.RETRY),
        (503, FollowUp.RETRY),
    ],
)
def test_statuses(status: int, follow_up: FollowUp) -> None:
    """Each HTTP status means what it means to the SDKs; a wrong address is asked for anew if it was not known."""
    assert after_status(status, is_verified=True).follow_up is follow_up
    unknown = FollowUp.REFRESH_LOCATION if follow_up is FollowUp.STOP else follow_up
    assert after_status(status, is_verified=False).follow_up is unknown


def test_every_action_and_code_has_a_rule() -> None:
    """No action of the protocol is unknown, and only codes that end real clients have no name."""
    assert set(ACTION_RULES) == set(Action)
    nameless = set(ERROR_CODES) - set(ERROR_NAMES)
    assert all(ERROR_CODES[code].aborts_clients for code in nameless)
    assert error_name(999) == "UnknownError"
    silent = {action for action, rule in ACTION_RULES.items() if not rule.is_reported}
    assert {Action.TRANSIENT, Action.REFRESH_USER, Action.REFRESH_LOCATION} <= silent
    assert Action.WARNING not in silent


def test_client_table_is_closed() -> None:
    """Every state is reached, every state but the end is left, and a lost connection is survived in all of them."""
    assert {state for state, _ in CLIENT} == set(Client)
    assert set(CLIENT.values()) == set(Client)
    assert all((state, Do.LOST) in CLIENT for state in Client)
    assert {what for _, what in CLIENT} == set(Do)
    assert {after for (state, _), after in CLIENT.items() if state is Client.ENDED} == {Client.ENDED}


def test_only_the_end_of_an_error_answers_nothing() -> None:
    """What the client says to a failed session changes nothing on the server, except UNBIND and a new BIND."""
    failed = {kind.__name__: after for (state, kind), after in SERVER.items() if state is ServerState.FAILED}
    assert {name for name, after in failed.items() if after is not ServerState.FAILED} == {"Bind", "Unbind"}
