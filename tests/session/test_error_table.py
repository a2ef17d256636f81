"""Every code of the protocol with every action: what the client's machine does, in one table."""

from __future__ import annotations

from typing import Any

import pytest

from realmframe.session import events as ev
from realmframe.session.events import FollowUp as F
from realmframe.session.states import Client
from realmframe.wire import ERROR_CODES, Action, JsonError
from tests.session.conftest import FLX, Pair

#: Action and tryAgain to: what is to be done, whether it is fatal, whether the app is told.
WANTED: dict[tuple[str, bool], tuple[F, bool, bool]] = {
    ("Transient", True): (F.RETRY, False, False),
    ("Transient", False): (F.STOP, True, False),
    ("Warning", True): (F.RETRY, False, True),
    ("Warning", False): (F.STOP, True, True),
    **dict.fromkeys([("ApplicationBug", True), ("ApplicationBug", False)], (F.STOP, True, True)),
    **dict.fromkeys([("ProtocolViolation", True), ("ProtocolViolation", False)], (F.STOP, True, True)),
    **dict.fromkeys([("DeleteRealm", True), ("DeleteRealm", False)], (F.DELETE_FILE, True, True)),
    **dict.fromkeys([("ClientReset", True), ("ClientReset", False)], (F.CLIENT_RESET, True, True)),
    **dict.fromkeys(
        [("ClientResetNoRecovery", True), ("ClientResetNoRecovery", False)], (F.CLIENT_RESET_NO_RECOVERY, True, True)
    ),
    **dict.fromkeys([("LogOutUser", True), ("LogOutUser", False)], (F.LOG_OUT, True, True)),
    **dict.fromkeys([("RefreshUser", True), ("RefreshUser", False)], (F.REFRESH_USER, False, False)),
    **dict.fromkeys([("RefreshLocation", True), ("RefreshLocation", False)], (F.REFRESH_LOCATION, False, False)),
    **dict.fromkeys([("MigrateToFLX", True), ("MigrateToFLX", False)], (F.MIGRATE_TO_FLX, True, False)),
    **dict.fromkeys([("RevertToPBS", True), ("RevertToPBS", False)], (F.REVERT_TO_PBS, True, False)),
    **dict.fromkeys([("MigrateSchema", True), ("MigrateSchema", False)], (F.MIGRATE_SCHEMA, True, False)),
    **dict.fromkeys([("SomethingNew", True), ("SomethingNew", False)], (F.STOP, True, True)),
}
SESSION_CODES = [c for c, e in ERROR_CODES.items() if not e.is_connection_level and c not in (231, 236)]
CONNECTION_CODES = [c for c, e in ERROR_CODES.items() if e.is_connection_level]
#: What the SDKs call the errors that ask for a reset.
RESETS = {208, 209, 210, 211, 217, 222}


def _active() -> Pair:
    pair = Pair()
    pair.settle()
    pair.seen.clear()
    return pair


def _body(action: str, again: bool) -> dict[str, Any]:
    texts = {"message": "m", "logURL": "u"}
    return texts | {
        "tryAgain": again,
        "shouldClientReset": False,
        "isRecoveryModeDisabled": False,
        "action": action,
    }


def test_the_table_is_whole() -> None:
    """Each action of the protocol is in it, with and without tryAgain."""
    assert {a for a, _ in WANTED} == {str(a) for a in Action} | {"SomethingNew"}
    assert len(WANTED) == 2 * (len(Action) + 1)


@pytest.mark.parametrize("code", [*SESSION_CODES, 213, 299])
def test_session_errors(code: int) -> None:
    """The action decides, whatever the code: what follows, retries, suspension, and what the app hears."""
    for (action, again), (follow_up, is_fatal, is_reported) in WANTED.items():
        pair = _active()
        said = len(pair.said)
        pair.client.receive(JsonError(1, code, _body(action, again)).encode(FLX), pair.now)
        pair.pump()
        (event,) = [e for e in pair.seen if isinstance(e, ev.SessionError)]
        where = f"{code} {action} {again}"
        assert (event.follow_up, event.is_fatal, event.is_reported) == (follow_up, is_fatal, is_reported), where
        assert (event.code, event.action, event.message, event.log_url) == (code, action, "m", "u")
        assert (event.error == "SyncClientResetRequired") is (code in RESETS)
        assert pair.kinds(said) == ["Unbind"]
        assert pair.session.state is Client.SUSPENDED
        assert (pair.session.retry_at is not None) is (follow_up is F.RETRY), where
        if code == 200 and follow_up is F.RETRY:
            assert pair.session.retry_at == pair.now + 1.0
        assert pair.client.is_connected


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("code", CONNECTION_CODES)
def test_connection_errors(code: int, again: bool) -> None:
    """A code of the connection ends it; tryAgain alone says whether it is opened again."""
    pair = _active()
    pair.client.receive(JsonError(0, code, _body("Transient", again)).encode(FLX), pair.now)
    (failed,) = [e for e in pair.client.events() if isinstance(e, ev.ConnectionFailed)]
    assert (failed.code, failed.is_fatal, failed.is_reported) == (code, not again, True)
    assert not pair.client.is_connected
    assert (pair.client.deadline() is not None) is again


@pytest.mark.parametrize("code", CONNECTION_CODES)
def test_connection_codes_for_a_session(code: int) -> None:
    """A code of the connection that is sent to a session breaks the protocol."""
    pair = _active()
    pair.client.receive(JsonError(1, code, _body("Transient", True)).encode(FLX), pair.now)
    assert any(isinstance(e, ev.ProtocolFailure) for e in pair.client.events())
