"""Each timer of a client, on a clock that only moves when told to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from realmframe.errors import RemoteProtocolError
from realmframe.session import ClientConnection, ServerConnection
from realmframe.session import events as ev
from realmframe.session.backoff import Delays
from realmframe.session.rules import CONNECT_FAILED, LOST, after_close
from realmframe.session.subscriptions import State
from realmframe.session.timeouts import Timeouts
from realmframe.wire import (
    Action,
    Bind,
    ClientIdent,
    Download,
    Ident,
    JsonError,
    Ping,
    Pong,
    Query,
    Upload,
    UploadEntry,
    json_error_body,
    parse_client,
)

from .conftest import FLX, PBS, Pair, Realm


def connected(seed: int = 1, **settings: Any) -> ClientConnection:
    """Give a connection of one session that was just opened, at second 0."""
    client = ClientConnection(PBS, random=random.Random(seed), **settings)
    client.add_session(Realm().start(partition='"p"'), Realm(), 0.0)
    client.events()
    client.opened(0.0)
    return client


def opens(client: ClientConnection) -> bool:
    """Tell whether a connection was asked for."""
    return any(isinstance(e, ev.OpenConnection) for e in client.events())


def pings(client: ClientConnection) -> list[Ping]:
    """Take what is to be sent; give the PINGs."""
    return [m for m in (parse_client(d, PBS) for d in client.data_to_send()) if isinstance(m, Ping)]


@pytest.mark.parametrize("period", [0.5, 60.0, 600.0])
def test_ping_keep_alive_period(period: float) -> None:
    """The first PING comes anywhere within the period, each further one up to a tenth of it early."""
    firsts, laters = [], []
    for seed in range(30):
        client = connected(seed, timeouts=Timeouts(ping_keep_alive_period=period))
        first = client.deadline()
        assert first is not None
        client.on_deadline(first)
        (ping,) = pings(client)
        client.receive(Pong(ping.timestamp).encode(PBS), first)
        later = client.deadline()
        assert later is not None
        firsts.append(first / period)
        laters.append((later - first) / period)
    assert 0.0 <= min(firsts) < 0.2
    assert 0.8 < max(firsts) <= 1.0
    assert 0.9 <= min(laters) < 0.93
    assert 0.97 < max(laters) <= 1.0


@pytest.mark.parametrize("limit", [0.5, 120.0])
def test_pong_keep_alive_timeout(limit: float) -> None:
    """A connection whose PING is not answered in time is dropped then and not before, and opened again."""
    client = connected(timeouts=Timeouts(pong_keep_alive_timeout=limit))
    sent = client.deadline()
    assert sent is not None
    client.on_deadline(sent)
    assert len(pings(client)) == 1
    assert client.deadline() == pytest.approx(sent + limit)
    client.on_deadline(sent + limit * 0.99)
    assert client.is_connected
    client.on_deadline(sent + limit)
    assert not client.is_connected
    events = client.events()
    assert [e.reason for e in events if isinstance(e, ev.CloseConnection)] == ["no PONG came"]
    (failed,) = (e for e in events if isinstance(e, ev.ConnectionFailed))
    assert (failed.error, failed.is_fatal, failed.is_reported) == ("ConnectionClosed", False, False)
    assert not any(isinstance(e, ev.OpenConnection) for e in events)  # the back-off goes first
    due = client.deadline()
    assert due is not None
    assert 0.75 <= due - (sent + limit) <= 1.0
    client.on_deadline(due)
    assert opens(client)


def test_a_new_connection_begins_empty() -> None:
    """What was to be said on the one before is not said on the next."""
    client = connected()
    client.reconnect(0.0)
    client.on_deadline(0.0)  # a PING waits to be sent
    client.closed(LOST, 0.5)
    client.on_deadline(2.0)
    client.opened(2.0)
    first, *rest = (parse_client(d, PBS) for d in client.data_to_send())
    assert isinstance(first, Bind)
    assert not any(isinstance(m, Ping) for m in rest)


def test_the_round_trip_is_told() -> None:
    """A PING says how long the one before took, and the owner hears it."""
    client = connected()
    for wait in (0.25, 0.5):
        now = client.deadline() or 0.0
        client.on_deadline(now)
        (ping,) = pings(client)
        client.receive(Pong(ping.timestamp).encode(PBS), now + wait)
        assert client.events()[-1] == ev.RoundTrip(pytest.approx(wait))
    client.on_deadline(client.deadline() or 0.0)
    assert pings(client)[0].rtt == 500


@pytest.mark.parametrize("linger", [0.0, 1.0, 30.0])
def test_connection_linger(linger: float) -> None:
    """Without sessions a connection stays so long; with none to come it closes, and nothing opens it again."""
    client = connected(timeouts=Timeouts(connection_linger=linger))
    session = next(iter(client.sessions.values()))
    client.data_to_send()
    session.unbind(5.0)
    client.on_deadline(5.0 + linger * 0.9)
    assert client.is_connected is (linger > 0.0)
    client.on_deadline(5.0 + linger)
    assert not client.is_connected
    assert not opens(client)
    assert client.deadline() is None


def test_a_session_within_the_linger_keeps_the_connection() -> None:
    """The time begins anew with the last session that ends."""
    client = connected(timeouts=Timeouts(connection_linger=10.0))
    next(iter(client.sessions.values())).unbind(0.0)
    second = client.add_session(Realm().start(partition='"q"'), Realm(), 9.0)
    client.on_deadline(15.0)
    assert client.is_connected
    second.unbind(15.0)
    client.on_deadline(24.0)
    assert client.is_connected
    client.on_deadline(25.0)
    assert not client.is_connected


@pytest.mark.parametrize("limit", [0.0, 2.0, 60.0])
@pytest.mark.parametrize("part", [0.9, 1.0])
def test_fast_reconnect_limit(limit: float, part: float) -> None:
    """Reconnected in less than the limit, a client uploads without waiting for a MARK."""
    pair = Pair(PBS)
    pair.client.timeouts = Timeouts(fast_reconnect_limit=limit)
    pair.settle()
    pair.client.closed(LOST, pair.now)
    pair.client.events()
    pair.realm.write(b"offline")
    pair.session.local_changes(pair.realm.version)
    pair.now += limit * part
    said = len(pair.said)
    pair.client.reconnect(pair.now)
    pair.pump()
    first = "Upload" if part < 1.0 and limit else "Mark"
    assert [k for k in pair.kinds(said) if k != "Ping"][:3] == ["Bind", "ClientIdent", first]


@pytest.mark.parametrize(
    ("delays", "waits"),
    [
        (Delays(jitter=0.0), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
        (Delays(0.1, 0.5, 3.0, 0.0), [0.1, 0.3, 0.5, 0.5]),
    ],
)
def test_back_off_grows(delays: Delays, waits: list[float]) -> None:
    """A server that cannot be reached is tried later and later."""
    client = ClientConnection(PBS, random=random.Random(1), delays=delays)
    client.add_session(Realm().start(partition='"p"'), Realm(), 0.0)
    now = 0.0
    for wait in waits:
        assert opens(client)
        client.closed(CONNECT_FAILED, now)
        assert client.deadline() == pytest.approx(now + wait)
        client.on_deadline(now + wait * 0.99)
        assert not opens(client)
        now += wait
        client.on_deadline(now)


def _fail(client: ClientConnection, now: float, times: int) -> float:
    """Fail to connect again and again; give the last wait."""
    wait = 0.0
    for _ in range(times):
        client.closed(CONNECT_FAILED, now)
        due = client.deadline()
        assert due is not None
        wait, now = due - now, due
        client.on_deadline(now)
    return wait


def test_back_off_begins_anew() -> None:
    """Another reason, a download, or "reconnect" make the next wait the first one again; opening alone does not."""
    client = ClientConnection(PBS, random=random.Random(1), delays=Delays(jitter=0.0))
    session = client.add_session(Realm().start(partition='"p"'), Realm(), 0.0)
    assert _fail(client, 0.0, 4) == 8.0
    client.opened(100.0)
    client.closed(after_close(1011), 100.0)
    assert client.deadline() == 101.0  # another reason
    client.on_deadline(101.0)
    client.opened(101.0)
    client.closed(after_close(1011), 101.0)
    assert client.deadline() == 103.0  # the same one: opening proves nothing
    client.on_deadline(103.0)
    client.opened(103.0)
    client.data_to_send()
    client.receive(Ident(session.number, 2, 77).encode(PBS), 103.0)
    client.data_to_send()
    client.receive(Download(session.number, 1, 0, 1, 9, 0, 0).encode(PBS), 103.0)
    client.closed(after_close(1011), 103.0)
    assert client.deadline() == 104.0  # a download did
    client.on_deadline(104.0)
    assert _fail(client, 104.0, 4) == 8.0
    client.closed(CONNECT_FAILED, 200.0)
    client.events()
    client.reconnect(200.0)
    assert opens(client)
    client.closed(CONNECT_FAILED, 200.0)
    assert client.deadline() == 201.0  # "reconnect" did


def test_back_off_of_a_session_begins_anew_after_a_download(pair: Pair) -> None:
    """A session that failed waits longer each time, until it has integrated something."""
    body = json_error_body("busy", action=Action.TRANSIENT, try_again=True)
    waits = []
    for downloads in (False, False, True, False):
        if downloads:
            assert pair.machine is not None
            pair.server.write(b"news")
            pair.download(1)
            pair.down.extend(pair.machine.data_to_send())
            pair.settle()
        assert pair.machine is not None
        pair.machine.send_error(1, 201, body["message"], Action.TRANSIENT, try_again=True)
        data = pair.machine.data_to_send()
        for one in data:
            pair.client.receive(one, pair.now)
        assert pair.session.retry_at is not None
        waits.append(pair.session.retry_at - pair.now)
        pair.now = pair.session.retry_at
        pair.pump()
        while pair.up:
            pair.machine.receive(pair.up.popleft())
        pair.machine.data_to_send()
        pair.client.on_deadline(pair.now)
        pair.pump()
        pair.is_slow = False
        while pair.up:
            pair.machine.receive(pair.up.popleft())
    first = [0.75 <= w <= 1.0 for w in waits]
    assert first == [True, False, True, False]
    assert 1.5 <= waits[1] <= 2.0
    assert 1.5 <= waits[3] <= 2.0


@pytest.mark.parametrize("answered", [True, False])
def test_reconnect_while_connected(answered: bool) -> None:
    """It asks for a sign of life at once; if none comes before the connection ends, the next wait is skipped."""
    client = connected(delays=Delays(jitter=0.0))
    client.reconnect(0.0)
    assert client.deadline() == 0.0
    client.on_deadline(0.0)
    (ping,) = pings(client)
    if answered:
        client.receive(Pong(ping.timestamp).encode(PBS), 0.1)
    client.events()
    client.closed(LOST, 1.0)
    assert opens(client) is not answered
    assert (client.deadline() == 2.0) is answered


@pytest.mark.parametrize("late", [1, -1])
def test_an_answer_to_another_ping(late: int) -> None:
    """A PONG has to name the PING that it answers."""
    client = connected()
    client.reconnect(0.0)
    client.on_deadline(0.0)
    (ping,) = pings(client)
    client.receive(Pong(ping.timestamp + late).encode(PBS), 0.1)
    assert any(isinstance(e, ev.ProtocolFailure) for e in client.events())
    assert not client.is_connected


def _compensating(version: int) -> JsonError:
    body = json_error_body("reverted", action=Action.WARNING, try_again=True)
    rejected = {"rejectedUpdates": [], "rejectedClientVersion": 3, "compensatingWriteServerVersion": version}
    return JsonError(1, 231, body | rejected)


@pytest.mark.parametrize("is_cut", [True, False])
def test_pending_compensating_writes_end_with_the_binding(pair: Pair, is_cut: bool) -> None:
    """What was announced before a reconnect is told by the server again, so it is forgotten: nothing is told twice."""
    version = pair.server.version + 1
    pair.client.receive(_compensating(version).encode(FLX), pair.now)
    pair.pump()
    if is_cut:
        pair.client.closed(LOST, pair.now)
        pair.client.events()
        pair.client.reconnect(pair.now)
        pair.pump()
        pair.settle()
        pair.client.receive(_compensating(version).encode(FLX), pair.now)
    pair.server.write(b"revert")
    assert pair.machine is not None
    pair.download(1)
    pair.down.extend(pair.machine.data_to_send())
    pair.settle()
    told = [e for e in pair.seen if isinstance(e, ev.CompensatingWrites)]
    assert [e.server_version for e in told] == [version]


def _upload(client: int, server: int, locked: int = 3, *entries: tuple[int, int]) -> Upload:
    return Upload(1, client, server, locked, tuple(UploadEntry(c, s, 0, 0, b"") for c, s in entries))


@pytest.mark.parametrize(
    ("uploads", "is_right"),
    [
        ([_upload(5, 3), _upload(6, 3)], True),
        ([_upload(5, 2), _upload(6, 3)], True),
        ([_upload(5, 3), _upload(5, 3)], True),
        ([_upload(5, 3), _upload(6, 3, 3, (6, 3))], True),
        ([_upload(5, 3), _upload(4, 3)], False),
        ([_upload(5, 3), _upload(6, 2)], False),
        ([_upload(5, 2), _upload(5, 3)], False),
        ([_upload(5, 4)], False),
        ([_upload(5, 3, 4)], False),
        ([_upload(5, 3, 3), _upload(6, 3, 2)], False),
        ([_upload(5, 3), _upload(6, 3, 3, (5, 3))], False),
        ([_upload(5, 3), _upload(7, 3, 3, (6, 2))], False),
        ([_upload(7, 3, 3, (6, 3), (7, 2))], False),
        ([_upload(7, 2, 3, (6, 3))], False),
        ([_upload(0, 1)], False),
    ],
)
def test_the_server_checks_upload_progress(uploads: list[Upload], is_right: bool) -> None:
    """A client's place in its own history only moves forward, and names no server version that it was not sent."""
    machine = ServerConnection(FLX)
    machine.receive(Bind(1, {"schemaVersion": 0, "sessionReason": 0}, need_ident=False).encode(FLX))
    machine.receive(ClientIdent(1, 2, 77, 3, 0, 3, 9, 1, {}).encode(FLX))
    take: Callable[[], Any] = lambda: [machine.receive(u.encode(FLX)) for u in uploads]  # noqa: E731
    if is_right:
        assert [r[0].message for r in take()] == uploads
    else:
        with pytest.raises(RemoteProtocolError):
            take()


@pytest.mark.parametrize("dialect", [FLX, PBS])
def test_a_version_is_never_said_to_hold_two_server_versions(dialect: Any) -> None:
    """Progress without changes makes no local version; the client then tells it by its locked version alone."""
    pair = Pair(dialect)
    pair.write(b"first")
    pair.settle()
    for _ in range(3):
        pair.server.log.append((2, b"its own"))  # the server moves on, with nothing in it for this client
        assert pair.machine is not None
        pair.download(1)
        pair.down.extend(pair.machine.data_to_send())
        pair.settle()
        uploads = [m for m in pair.said if isinstance(m, Upload)]
        assert uploads[-1].locked_server_version == pair.server.version
    versions: dict[int, set[int]] = {}
    for upload in (m for m in pair.said if isinstance(m, Upload)):
        versions.setdefault(upload.progress_client_version, set()).add(upload.progress_server_version)
        for entry in upload.entries:
            versions.setdefault(entry.client_version, set()).add(entry.server_version)
    assert all(len(v) == 1 for v in versions.values())


def test_nothing_is_uploaded_after_the_sentinel() -> None:
    """A migrated realm that becomes an ordinary flexible one sends what is older than the sentinel, nothing newer."""
    realm = Realm()
    realm.write(b"older")
    sentinel = realm.subscribe({"P": "TRUEPREDICATE "})
    pair = Pair(FLX, realm, sentinel=sentinel.version, migrated_partition='"p"')
    pair.settle()
    pair.write(b"newer")
    pair.server.write(b"theirs")
    pair.settle()
    sent = [e.changeset for m in pair.said if isinstance(m, Upload) for e in m.entries]
    assert sent == [b"older"]
    assert [m.body["migratedPartition"] for m in pair.said if isinstance(m, Bind)] == ['"p"']
    said = [type(m) for m in pair.said if isinstance(m, Upload | Query)]
    assert said[-1] is Query
    assert realm.sets[sentinel.version].state is State.COMPLETE
