"""Each machine alone: what is illegal is refused on the right side, and any bytes are survived."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from realmframe.session import ClientConnection, ServerConnection
from realmframe.session import events as ev
from realmframe.session.events import FollowUp
from realmframe.session.rules import CONNECT_FAILED, after_close
from realmframe.session.server import ServerState
from realmframe.session.states import Client
from realmframe.wire import (
    Action,
    BatchState,
    Bind,
    ClientIdent,
    Download,
    DownloadEntry,
    Ident,
    JsonError,
    LegacyError,
    LogMessage,
    Mark,
    Pong,
    Query,
    QueryError,
    Unbind,
    Unbound,
    Upload,
    UploadEntry,
)

from .conftest import FLX, PBS, Pair, Realm

BIND = Bind(1, {"schemaVersion": 0, "sessionReason": 0}, need_ident=False)
IDENT = ClientIdent(1, 2, 77, 3, 5, 3, 9, 1, {"P": "(a > 1 )"})


def _server(*messages: Any) -> ServerConnection:
    machine = ServerConnection(FLX)
    for message in messages:
        machine.receive(message.encode(FLX))
    return machine


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ((), IDENT),
        ((), Mark(1, 1)),
        ((), Unbind(1)),
        ((BIND,), BIND),
        ((BIND,), Mark(1, 1)),
        ((BIND,), Upload(1, 1, 0, 0)),
        ((BIND, IDENT), IDENT),
        ((BIND, IDENT), BIND),
        ((BIND, IDENT), Query(1, 1, {})),
        ((BIND, IDENT), Upload(1, 9, 0, 0, (UploadEntry(9, 4, 0, 0, b""),))),
        ((BIND, IDENT), Upload(1, 9, 0, 0, (UploadEntry(9, 0, 0, 0, b""), UploadEntry(8, 0, 0, 0, b"")))),
        ((BIND, IDENT), Upload(1, 8, 0, 0, (UploadEntry(9, 0, 0, 0, b""),))),
        ((BIND, IDENT, Unbind(1)), Mark(1, 1)),
    ],
    ids=lambda v: "+".join(type(m).__name__ for m in v) or "nothing" if isinstance(v, tuple) else type(v).__name__,
)
def test_server_refuses(before: tuple[Any, ...], message: Any) -> None:
    """A client's message at the wrong time, or with impossible versions, is its fault."""
    machine = _server(*before)
    with pytest.raises(RemoteProtocolError):
        machine.receive(message.encode(FLX))


GOOD = Download(1, 4, 5, 4, 9, 5, 0, 1)
ENTRY = DownloadEntry(4, 5, 0, 1, 0, b"")


@pytest.mark.parametrize(
    "download",
    [
        Download(1, 5, 5, 4, 9, 5, 0, 1),
        Download(1, 2, 5, 4, 9, 5, 0, 1),
        Download(1, 4, 6, 4, 9, 5, 0, 1),
        Download(1, 4, 5, 4, 9, 5, 5, 1),
        Download(1, 4, 5, 4, 9, 5, 0, 1, BatchState.LAST_IN_BATCH),
        Download(1, 4, 5, 4, 9, 5, 0, 1, entries=(DownloadEntry(5, 5, 0, 1, 0, b""),)),
        Download(1, 4, 5, 4, 9, 5, 0, 1, entries=(DownloadEntry(4, 6, 0, 1, 0, b""),)),
        Download(1, 4, 5, 4, 9, 5, 0, 1, entries=(DownloadEntry(4, 5, 0, 2, 0, b""),)),
        Download(1, 4, 5, 4, 9, 5, 0, 1, entries=(DownloadEntry(4, 5, 0, 0, 0, b""),)),
        Download(1, 4, 5, 4, 9, 5, 0, 1, entries=(ENTRY, DownloadEntry(3, 5, 0, 1, 0, b""))),
    ],
)
def test_server_does_not_break_the_rules_itself(download: Download) -> None:
    """A DOWNLOAD that would end or hang a real client is not sent; the session is none the worse."""
    machine = _server(BIND, IDENT)
    with pytest.raises(LocalProtocolError):
        machine.send_download(download)
    assert machine.data_to_send() == []
    machine.send_download(GOOD)
    assert machine.data_to_send() == [GOOD.encode(FLX)]


def test_server_sends_nothing_to_a_failed_session() -> None:
    """After a json_error nothing goes out for the number, what comes is discarded, and UNBIND is not answered."""
    machine = _server(BIND, IDENT)
    machine.send_error(1, 206, "no", Action.APPLICATION_BUG)
    assert len(machine.data_to_send()) == 1
    for send in (
        lambda: machine.send_download(GOOD),
        lambda: machine.send_mark(1, 1),
        lambda: machine.send_query_error(1, 1, "x"),
        lambda: machine.send_error(1, 206, "again", Action.APPLICATION_BUG),
        lambda: machine.send_ident(1, 2, 3),
    ):
        with pytest.raises(LocalProtocolError):
            send()
    for message in (Upload(1, 9, 0, 0), Mark(1, 1), Query(1, 7, {}), Unbind(1)):
        assert machine.receive(message.encode(FLX)) == []
    assert machine.data_to_send() == []
    assert machine.state(1) is ServerState.CLOSED
    assert [e.message for e in machine.receive(BIND.encode(FLX))] == [BIND]


def test_server_keeps_a_session_that_it_only_warns() -> None:
    """A compensating write does not end the session; a code that ends real clients is never sent."""
    machine = _server(BIND, IDENT)
    machine.send_error(1, 231, "reverted", Action.WARNING, try_again=True)
    assert machine.state(1) is ServerState.ACTIVE
    with pytest.raises(LocalProtocolError, match="202"):
        machine.send_error(1, 202, "expired", Action.REFRESH_USER)


def test_server_answers_ping_and_unbind() -> None:
    """PING is answered with its own timestamp and UNBIND is confirmed, without the owner."""
    machine = _server(BIND, IDENT)
    machine.receive(b"ping 123 4\n")
    machine.receive(Unbind(1).encode(FLX))
    assert machine.data_to_send() == [b"pong 123\n", b"unbound 1\n"]


def _active() -> Pair:
    pair = Pair()
    pair.settle()
    return pair


def _progress(pair: Pair, **changes: Any) -> Download:
    p = pair.session.integrated_progress
    fields = {
        "download_server_version": p.download_server_version,
        "download_client_version": p.download_client_version,
        "latest_server_version": p.latest_server_version,
        "latest_salt": p.latest_salt,
        "upload_client_version": p.upload_client_version,
        "upload_server_version": p.upload_server_version,
    }
    return Download(1, **(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"latest_server_version": 0},
        {"download_server_version": 0},
        {"download_server_version": 99},
        {"download_client_version": 10**9},
        {"upload_client_version": 10**9},
        {"upload_client_version": 0, "download_client_version": 0},
        {"upload_server_version": 99},
        {"entries": (DownloadEntry(99, 0, 0, 1, 0, b""),)},
        {"entries": (DownloadEntry(1, 0, 0, 2, 0, b""),)},
        {"query_version": 5, "batch": BatchState.MORE_TO_COME},
    ],
    ids=str,
)
def test_client_refuses_downloads(changes: dict[str, Any]) -> None:
    """A DOWNLOAD that breaks a version rule ends the session for good, and the connection."""
    pair = _active()
    pair.write(b"x")
    pair.settle()
    pair.client.receive(_progress(pair, **changes).encode(FLX), pair.now)
    pair.machine = None
    events = pair.client.events()
    assert [e.session for e in events if isinstance(e, ev.ProtocolFailure)] == [1]
    assert any(isinstance(e, ev.CloseConnection) for e in events)
    error = next(e for e in events if isinstance(e, ev.SessionError))
    assert (error.is_fatal, error.follow_up) == (True, FollowUp.STOP)
    assert pair.session.is_suspended


@pytest.mark.parametrize(
    "message",
    [
        Ident(1, 5, 5),
        Mark(1, 99),
        Mark(1, 1),  # which was answered already
        Unbound(1),
        Unbound(99),
        Pong(5),
        QueryError(1, 226, 9, "x"),
        JsonError(1, 101, {"message": "of a connection"}),
        JsonError(0, 201, {"message": "of a session"}),
        JsonError(1, 231, {"message": "nothing rejected"}),
        JsonError(1, 231, {"rejectedUpdates": [{"table": "P", "pk": "", "reason": "r"}]}),
    ],
    ids=repr,
)
def test_client_refuses(message: Any) -> None:
    """What the server may not say now is a protocol failure, never an exception."""
    pair = _active()
    pair.client.receive(message.encode(FLX), pair.now)
    assert any(isinstance(e, ev.ProtocolFailure) for e in pair.client.events())
    assert not pair.client.is_connected


def test_a_file_number_without_salt() -> None:
    """A number that anybody could claim is refused, and not kept."""
    client = ClientConnection(FLX, random=random.Random(1))
    session = client.add_session(Realm().start(), Realm(), 0.0)
    client.opened(0.0)
    client.data_to_send()
    client.events()
    client.receive(Ident(session.number, 5, 0).encode(FLX), 0.0)
    events = client.events()
    assert any(isinstance(e, ev.ProtocolFailure) for e in events)
    assert not any(isinstance(e, ev.IdentAssigned) for e in events)
    assert session.file_ident == 0


@pytest.mark.parametrize(("file", "taken"), [(1, True), (2, False), (0, False)])
def test_whose_entries_a_client_takes(file: int, taken: bool) -> None:
    """Those of other files; its own never come back, and there is no file 0."""
    pair = _active()
    p = pair.session.integrated_progress
    versions = {"download_server_version": 9, "latest_server_version": 9}
    entry = DownloadEntry(9, p.download_client_version, 5, file, 0, b"")
    pair.client.receive(_progress(pair, **versions, entries=(entry,)).encode(FLX), pair.now)
    assert any(isinstance(e, ev.DownloadReceived) for e in pair.client.events()) is taken
    assert pair.client.is_connected is taken


SIX = {"message": "m", "logURL": "u", "tryAgain": True, "shouldClientReset": False, "isRecoveryModeDisabled": False}


@pytest.mark.parametrize(
    ("action", "again", "follow_up", "retries"),
    [
        ("Transient", True, FollowUp.RETRY, True),
        ("Transient", False, FollowUp.STOP, False),
        ("Warning", True, FollowUp.RETRY, True),
        ("ApplicationBug", True, FollowUp.STOP, False),
        ("ProtocolViolation", False, FollowUp.STOP, False),
        ("SomethingNew", True, FollowUp.STOP, False),
        ("DeleteRealm", False, FollowUp.DELETE_FILE, False),
        ("ClientReset", False, FollowUp.CLIENT_RESET, False),
        ("ClientResetNoRecovery", False, FollowUp.CLIENT_RESET_NO_RECOVERY, False),
        ("LogOutUser", False, FollowUp.LOG_OUT, False),
        ("RefreshUser", True, FollowUp.REFRESH_USER, False),
        ("RefreshLocation", True, FollowUp.REFRESH_LOCATION, False),
        ("MigrateToFLX", False, FollowUp.MIGRATE_TO_FLX, False),
    ],
)
def test_actions(action: str, again: bool, follow_up: FollowUp, retries: bool) -> None:
    """Every action suspends the session and leads to what the SDKs do."""
    pair = _active()
    said = len(pair.said)
    body = SIX | {"tryAgain": again, "action": action}
    pair.client.receive(JsonError(1, 201, body).encode(FLX), pair.now)
    pair.pump()
    event = next(e for e in pair.seen if isinstance(e, ev.SessionError))
    assert (event.follow_up, event.error, event.body) == (follow_up, "RuntimeError", body)
    assert pair.kinds(said) == ["Unbind"]
    assert (pair.session.retry_at is not None) is retries
    assert pair.session.state is Client.SUSPENDED


def test_session_closed_is_retried_after_one_second() -> None:
    """Code 200 always means one second, however often it comes."""
    pair = _active()
    for _ in range(3):
        pair.client.receive(JsonError(1, 200, SIX | {"action": "Transient"}).encode(FLX), pair.now)
        pair.pump()
        assert pair.session.retry_at == pair.now + 1.0
        pair.up.clear()
        pair.now += 1.0
        pair.client.on_deadline(pair.now)
        pair.pump()
        assert pair.session.state is Client.ACTIVE


def test_old_error_and_schema_change() -> None:
    """The old form of an error stops the session; code 236 asks for a migration and leaves it running."""
    pair = _active()
    body = SIX | {"action": "MigrateSchema", "previousSchemaVersion": 1}
    pair.client.receive(JsonError(1, 236, body).encode(FLX), pair.now)
    pair.client.receive(LegacyError(1, 206, False, "old").encode(FLX), pair.now)
    pair.pump()
    errors = [e for e in pair.seen if isinstance(e, ev.SessionError)]
    assert [e.follow_up for e in errors] == [FollowUp.MIGRATE_SCHEMA, FollowUp.STOP]


def test_compensating_writes_are_told_with_the_change_that_reverts() -> None:
    """The error alone tells nothing; the DOWNLOAD with the server version named does, once."""
    pair = _active()
    body = SIX | {
        "action": "Warning",
        "rejectedUpdates": [{"table": "P", "pk": "AeQA", "reason": "not allowed"}],
        "rejectedClientVersion": 3,
        "compensatingWriteServerVersion": pair.server.version + 2,
    }
    pair.client.receive(JsonError(1, 231, body).encode(FLX), pair.now)
    pair.pump()
    assert not any(isinstance(e, ev.CompensatingWrites) for e in pair.seen)
    told = []
    for change in (b"other", b"revert", b"and more"):
        pair.server.write(change)
        assert pair.machine is not None
        pair.download(1)
        pair.down.extend(pair.machine.data_to_send())
        pair.settle()
        told.append(sum(isinstance(e, ev.CompensatingWrites) for e in pair.seen))
    assert told == [0, 1, 1]
    event = next(e for e in pair.seen if isinstance(e, ev.CompensatingWrites))
    assert event.writes == ({"class": "P", "primary_key": 100, "reason": "not allowed"},)
    assert (event.rejected_client_version, event.message) == (3, "m")
    assert pair.session.state is Client.ACTIVE


@pytest.mark.parametrize("again", [True, False])
def test_error_of_the_connection(again: bool) -> None:
    """An error of session 0 ends the connection; it is opened again only if the server says so."""
    pair = _active()
    body = SIX | {"tryAgain": again, "action": "Transient", "backoffIntervalSec": 8, "backoffMaxDelaySec": 9}
    pair.client.receive(JsonError(0, 101, body | {"backoffMultiplier": 1}).encode(FLX), pair.now)
    pair.machine = None
    events = pair.client.events()
    failed = next(e for e in events if isinstance(e, ev.ConnectionFailed))
    assert (failed.code, failed.is_fatal) == (101, not again)
    assert not any(isinstance(e, ev.OpenConnection) for e in events)
    due = pair.client.deadline()
    assert (due is not None) is again
    assert due is None or 6.0 <= due - pair.now <= 8.0


def test_log_message() -> None:
    """What the server says for the log is told, for a session or the connection."""
    pair = _active()
    for number in (0, 1, 99):
        pair.client.receive(LogMessage(number, {"level": "warn", "msg": "hi", "co_id": "c"}).encode(FLX), pair.now)
    assert pair.client.events() == [ev.ServerLog(n, "warn", "hi", "c") for n in (0, 1, 99)]


def test_back_off_of_the_connection() -> None:
    """Failures to connect are tried again later and later; "reconnect" skips the wait; a refused user ends it."""
    client = ClientConnection(FLX, random=random.Random(3))
    client.add_session(Realm().start(), Realm(), 0.0)
    now, waits = 0.0, []
    for _ in range(5):
        assert any(isinstance(e, ev.OpenConnection) for e in client.events())
        client.closed(CONNECT_FAILED, now)
        due = client.deadline()
        assert due is not None
        waits.append(due - now)
        now = due
        client.on_deadline(now)
    assert all(0.75 * 2**n <= wait <= 2**n for n, wait in enumerate(waits))
    client.closed(CONNECT_FAILED, now)
    client.events()
    client.reconnect(now)
    assert any(isinstance(e, ev.OpenConnection) for e in client.events())
    client.closed(after_close(4002), now)
    events = client.events()
    failed = next(e for e in events if isinstance(e, ev.ConnectionFailed))
    assert (failed.follow_up, failed.is_fatal, client.deadline()) == (FollowUp.LOG_OUT, True, None)
    assert not any(isinstance(e, ev.OpenConnection) for e in events)


def test_many_sessions_share_fairly() -> None:
    """Sessions have numbers of their own and take turns: a big upload of one does not hold up another's MARK."""
    client = ClientConnection(PBS, random=random.Random(1), numbers=itertools.count(7))
    big = Realm(file_ident=2, salt=3)
    for _ in range(30):
        big.write(b"x" * 100_000)
    first = client.add_session(big.start(partition='"a"'), big, 0.0)
    second = client.add_session(Realm(file_ident=4, salt=3).start(partition='"b"'), Realm(), 0.0)
    client.opened(0.0, PBS)
    assert (first.number, second.number) == (7, 8)
    client.data_to_send()
    client.receive(Mark(7, 1).encode(PBS), 0.0)
    second.request_mark()
    out = client.data_to_send(limit=200_000)
    kinds = [data.split(b" ", 2)[:2] for data in out]
    assert [b"mark", b"8"] in kinds[:2]
    assert sum(map(len, out)) < 1_000_000


def test_intents_at_the_wrong_time() -> None:
    """What the owner may not do now is its own fault, and changes nothing."""
    pair = _active()
    for wrong in (
        lambda: pair.session.integrated(5),
        lambda: pair.session.integration_failed("x"),
        lambda: pair.session.restart(pair.now),
        lambda: pair.session.new_query_set(pair.realm.sets[0]),
    ):
        with pytest.raises(LocalProtocolError):
            wrong()
    pair.write(b"still works")
    pair.settle()
    assert pair.session.is_upload_complete


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans())
def test_any_bytes(blobs: list[bytes], is_client: bool) -> None:
    """Any bytes give events, or a protocol error of the other side, on either end."""
    if is_client:
        pair = _active()
        for blob in blobs:
            pair.client.receive(blob, pair.now)
        assert pair.client.is_connected is not any(isinstance(e, ev.ProtocolFailure) for e in pair.client.events())
        return
    machine = _server(BIND, IDENT)
    for blob in blobs:
        with contextlib.suppress(RemoteProtocolError):
            machine.receive(blob)


MESSAGES = st.sampled_from(
    [
        BIND,
        IDENT,
        Bind(1, {}, need_ident=True),
        Query(1, 2, {}),
        Upload(1, 9, 0, 0),
        Mark(1, 1),
        Unbind(1),
        Ident(1, 2, 3),
        GOOD,
        Download(1, 4, 5, 4, 9, 5, 0, 1, BatchState.LAST_IN_BATCH, entries=(ENTRY,)),
        QueryError(1, 226, 1, "x"),
        JsonError(1, 201, SIX | {"action": "Transient"}),
        JsonError(1, 231, SIX),
        JsonError(0, 101, SIX),
        Unbound(1),
        Pong(1),
    ]
)


@settings(max_examples=300)
@given(st.lists(MESSAGES, max_size=12))
def test_any_order_of_messages(messages: list[Any]) -> None:
    """Messages in any order never raise anything but protocol errors, nor leave a machine in a state of no table."""
    machine = ServerConnection(FLX)
    client = ClientConnection(FLX, random=random.Random(1))
    session = client.add_session(Realm().start(), Realm(), 0.0)
    client.opened(0.0, FLX)
    for message in messages:
        with contextlib.suppress(ProtocolError):
            machine.receive(message.encode(FLX))
        client.receive(message.encode(FLX), 0.0)
        for event in client.events():
            if isinstance(event, ev.DownloadReceived) or (isinstance(event, ev.BootstrapBatch) and event.last):
                session.integrated(session.latest_version + 1)
        client.data_to_send()
    assert session.state in Client
    assert machine.state(1) in ServerState
