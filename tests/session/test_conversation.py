"""Both machines back to back: what is said in which order, and that nothing is lost, whatever happens to the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realmframe.session import events as ev
from realmframe.session.states import Client
from realmframe.session.subscriptions import State
from realmframe.wire import Action, ClientIdent, Mark, Ping, Query, Upload

from .conftest import PBS, Pair, Realm


def test_first_opening() -> None:
    """BIND, IDENT, MARK; when that is answered UPLOAD of what is older than the query set, QUERY, MARK, the rest."""
    pair = Pair()
    pair.write(b"schema")
    pair.subscribe(P="(TRUEPREDICATE )")
    pair.write(b"later")
    pair.settle()
    assert pair.kinds()[:6] == ["Bind", "ClientIdent", "Mark", "Upload", "Query", "Mark"]
    uploads = [m for m in pair.said if isinstance(m, Upload)]
    assert [e.changeset for e in uploads[0].entries] == [b"schema"]
    assert [e.changeset for u in uploads[1:] for e in u.entries] == [b"later"]
    assert pair.realm.sets[1].state is State.COMPLETE
    states = [e.state for e in pair.seen if isinstance(e, ev.QueryStateChanged) and e.version == 1]
    assert states == ["bootstrapping", "awaiting_mark", "complete"]
    assert pair.session.is_upload_complete


def test_waits_for_the_mark() -> None:
    """Without an answer to MARK neither UPLOAD nor QUERY is sent."""
    pair = Pair()
    pair.write(b"x")
    pair.subscribe(P="(TRUEPREDICATE )")
    while pair.up or len(pair.down) > 1:
        pair.deliver_up()
        if len(pair.down) > 1 or pair.session.file_ident == 0:
            pair.deliver_down()
    assert pair.kinds() == ["Bind", "ClientIdent", "Mark"]


def test_downloads_are_acknowledged(pair: Pair) -> None:
    """A DOWNLOAD that raised the server's version is answered by an empty UPLOAD that says so."""
    before = len(pair.said)
    pair.server.write(b"news")
    assert pair.machine is not None
    pair.download(1)
    pair.down.extend(pair.machine.data_to_send())
    pair.settle()
    assert pair.realm.got[-1] == b"news"
    uploads = [m for m in pair.said[before:] if isinstance(m, Upload)]
    assert [(u.entries, u.progress_server_version) for u in uploads] == [((), pair.server.version)]


@pytest.mark.parametrize(("pause", "is_fast"), [(5.0, True), (59.0, True), (300.0, False)])
def test_fast_reconnect(pair: Pair, pause: float, is_fast: bool) -> None:
    """Within a minute of the last connection uploads need not wait for a MARK; later they do."""
    machine = pair.machine
    pair.client.reconnect(pair.now)
    pair.machine = None
    lost_at, said = pair.now, len(pair.said)
    pair.client.closed(ev_lost(), pair.now)
    pair.realm.write(b"offline")
    pair.session.local_changes(pair.realm.version)
    pair.now = lost_at + pause
    pair.client.on_deadline(pair.now)
    pair.pump()
    assert pair.machine is not machine
    expected = ["Bind", "ClientIdent", "Upload"] if is_fast else ["Bind", "ClientIdent", "Mark"]
    assert [k for k in pair.kinds(said) if k != "Ping"][:3] == expected


def ev_lost() -> Any:
    """Give how a connection ends that is cut."""
    from realmframe.session.rules import LOST

    return LOST


def test_reconnect_sends_the_active_set_and_the_query_again() -> None:
    """IDENT carries the set in force; a QUERY whose bootstrap was cut is sent again, and its batches are dropped."""
    pair = Pair()
    pair.settle()
    pair.server.write(b"a")
    pair.subscribe(P="(a > 1 )")
    while not any(isinstance(e, ev.BootstrapBatch) and e.query_version == 1 for e in pair.seen):
        assert pair.deliver_up() or pair.deliver_down()
    pair.drop()
    assert any(isinstance(e, ev.BootstrapDiscarded) and e.query_version == 1 for e in pair.seen)
    said = len(pair.said)
    pair.tick(2.0)
    pair.settle()
    idents = [m for m in pair.said[said:] if isinstance(m, ClientIdent)]
    assert [(m.query_version, m.query) for m in idents] == [(0, {})]
    assert [m.version for m in pair.said[said:] if isinstance(m, Query)] == [1]
    assert pair.realm.got.count(b"a") == 1
    assert pair.realm.sets[1].state is State.COMPLETE


def test_identifies_only_when_everything_is_integrated(pair: Pair) -> None:
    """A download still being committed when the connection is lost holds up the next IDENT: it never comes twice."""
    pair.is_slow = True
    pair.server.write(b"slow")
    assert pair.machine is not None
    pair.download(1)
    pair.down.extend(pair.machine.data_to_send())
    pair.deliver_down()
    said = len(pair.said)
    pair.drop()
    pair.client.reconnect(pair.now)
    pair.pump()
    assert pair.kinds(said) == ["Bind"]
    pair.integrate()
    pair.is_slow = False
    pair.settle()
    ident = next(m for m in pair.said[said:] if isinstance(m, ClientIdent))
    assert ident.download_server_version == pair.server.version
    assert pair.realm.got.count(b"slow") == 1


def test_mark_waits_for_the_commit(pair: Pair) -> None:
    """MarkReached comes when what was received before the MARK is on disk, not before."""
    pair.is_slow = True
    pair.server.write(b"x")
    request = pair.session.request_mark()
    pair.settle()
    assert not any(isinstance(e, ev.MarkReached) and e.request >= request for e in pair.seen)
    while pair.late:
        pair.integrate()
    pair.settle()
    assert any(isinstance(e, ev.MarkReached) and e.request >= request for e in pair.seen)


def test_big_uploads_come_in_pieces(pair: Pair) -> None:
    """An UPLOAD takes no more once it has 128 KB; more follow, nothing is missing or sent twice."""
    changes = [bytes([n]) * 50_000 for n in range(20)]
    for change in changes:
        pair.realm.write(change)
    said = len(pair.said)
    pair.session.local_changes(pair.realm.version)
    pair.settle()
    uploads = [m for m in pair.said[said:] if isinstance(m, Upload) and m.entries]
    assert {len(u.entries) for u in uploads} == {2, 3}
    assert [e.changeset for u in uploads for e in u.entries] == changes
    assert [c for origin, c in pair.server.log if origin == 2] == changes
    assert pair.session.is_upload_complete


def test_failed_session_answers_unbind_and_binds_again(pair: Pair) -> None:
    """After a json_error comes UNBIND, no answer to it, and after the server's own delay BIND with the same number."""
    assert pair.machine is not None
    said = len(pair.said)
    backoff = {"backoffIntervalSec": 4, "backoffMaxDelaySec": 9, "backoffMultiplier": 2}
    pair.machine.send_error(1, 201, "try later", Action.TRANSIENT, try_again=True, **backoff)
    pair.down.extend(pair.machine.data_to_send())
    pair.settle()
    assert pair.kinds(said) == ["Unbind"]
    error = next(e for e in pair.seen if isinstance(e, ev.SessionError))
    assert (error.code, error.follow_up, error.is_reported) == (201, ev.FollowUp.RETRY, False)
    assert pair.session.state is Client.SUSPENDED
    assert 3.0 <= (pair.session.retry_at or 0.0) - pair.now <= 4.0
    pair.tick(4.0)
    assert [m.session for m in pair.said[said + 1 :] if isinstance(m, ClientIdent)] == [1]
    assert pair.session.state is Client.ACTIVE


@pytest.mark.parametrize("crossing", [False, True])
def test_unbind(pair: Pair, crossing: bool) -> None:
    """UNBIND is confirmed, also if an error crosses it on the wire; then the number is done with."""
    assert pair.machine is not None
    if crossing:
        pair.machine.send_error(1, 201, "crossing", Action.TRANSIENT, try_again=True)
        pair.down.extend(pair.machine.data_to_send())
    pair.session.unbind(pair.now)
    pair.settle()
    assert pair.session.is_ended
    assert [e.session for e in pair.seen if isinstance(e, ev.SessionEnded)] == [1]
    assert not any(isinstance(e, ev.ProtocolFailure) for e in pair.seen)
    second = pair.session.restart(pair.now)
    pair.session = second
    pair.settle()
    assert (second.number, second.state) == (2, Client.ACTIVE)


def test_integration_failure(pair: Pair) -> None:
    """A download that cannot be used is reported to the server; from then on the session is deaf and mute."""
    assert pair.machine is not None
    pair.is_slow = True
    pair.server.write(b"bad")
    pair.download(1)
    pair.down.extend(pair.machine.data_to_send())
    pair.deliver_down()
    pair.late.clear()
    said = len(pair.said)
    pair.session.integration_failed("unknown class")
    pair.write(b"never sent")
    pair.settle()
    assert pair.kinds(said) == ["ClientJsonError"]
    assert pair.session.state is Client.DEAF
    pair.server.write(b"more")
    pair.download(1)
    pair.down.extend(pair.machine.data_to_send())
    pair.settle()
    assert pair.late == type(pair.late)()


def test_fresh_copy_never_uploads() -> None:
    """The second file of a client reset sends no UPLOAD, not even an empty one, and says that it is one."""
    pair = Pair(may_upload=False, session_reason=1)
    pair.write(b"schema")
    pair.subscribe(P="(TRUEPREDICATE )")
    pair.settle()
    assert "Upload" not in pair.kinds()
    assert pair.said[0].body == {"schemaVersion": 0, "sessionReason": 1}
    assert pair.realm.sets[1].state is State.COMPLETE


def test_query_error_keeps_the_set_in_force(pair: Pair) -> None:
    """A refused set is in error, the one before stays in force, the session goes on."""
    assert pair.machine is not None
    machine = pair.machine
    original = pair.bootstrap

    def refuse(number: int, version: int) -> None:
        machine.send_query_error(number, version, "no such class")

    pair.bootstrap = refuse  # type: ignore[method-assign]
    pair.subscribe(X="(a > 1 )")
    pair.settle()
    assert pair.realm.sets[1].state is State.ERROR
    pair.bootstrap = original  # type: ignore[method-assign]
    pair.subscribe(P="(a > 1 )")
    pair.settle()
    assert pair.realm.sets[2].state is State.COMPLETE
    assert pair.realm.sets[1].state is State.SUPERSEDED


def test_partitions() -> None:
    """Partition-based sync is the same without queries."""
    pair = Pair(PBS)
    pair.write(b"schema")
    pair.server.write(b"a")
    pair.settle()
    assert pair.said[0].body == '"p"'
    assert pair.realm.got == [b"schema", b"a"]
    assert pair.session.is_upload_complete
    assert "Query" not in pair.kinds()


def test_pings_keep_it_alive(pair: Pair) -> None:
    """About one PING a minute goes out, and its PONG is told with the time it took."""
    said = len(pair.said)
    pair.tick(600.0)
    assert 9 <= sum(isinstance(m, Ping) for m in pair.said[said:]) <= 12
    assert any(isinstance(e, ev.RoundTrip) for e in pair.seen)


def test_no_pong(pair: Pair) -> None:
    """Without a PONG for two minutes the connection is dropped, and a new one asked for."""
    opened = sum(isinstance(e, ev.OpenConnection) for e in pair.seen)
    for _ in range(20):
        due = pair.client.deadline()
        assert due is not None
        pair.now = max(pair.now, due)
        pair.client.on_deadline(pair.now)
        pair.up.clear()
        pair.pump()
        pair.up.clear()
        if sum(isinstance(e, ev.OpenConnection) for e in pair.seen) > opened:
            break
    assert any(isinstance(e, ev.CloseConnection) and "PONG" in e.reason for e in pair.seen)
    assert sum(isinstance(e, ev.OpenConnection) for e in pair.seen) == opened + 1


def test_lingers_then_closes(pair: Pair) -> None:
    """Half a minute after its last session the connection is closed; a session before that uses it."""
    pair.session.unbind(pair.now)
    pair.settle()
    pair.now += 20.0
    pair.client.on_deadline(pair.now)
    assert pair.client.is_connected
    pair.now += 11.0
    pair.client.on_deadline(pair.now)
    assert not pair.client.is_connected
    pair.pump()
    assert sum(isinstance(e, ev.OpenConnection) for e in pair.seen) == 1


OPS = st.lists(
    st.sampled_from(
        ["write", "server", "subscribe", "up", "down", "up", "down", "drop", "tick", "slow", "fail", "mark"]
    ),
    max_size=40,
)


@settings(max_examples=250)
@given(OPS, st.integers(0, 3), st.booleans())
def test_nothing_is_lost(ops: list[str], seed: int, flexible: bool) -> None:
    """However writes, queries, errors and cuts are mixed: in the end both have everything, once, and in order."""
    pair = Pair(realm=Realm(), seed=seed) if flexible else Pair(PBS, realm=Realm(), seed=seed)
    mine: list[bytes] = []
    theirs = [b"schema"]
    for n, op in enumerate(ops):
        if op == "write":
            mine.append(b"c%d" % n)
            pair.write(mine[-1])
        elif op == "server":
            theirs.append(b"s%d" % n)
            pair.server.write(theirs[-1])
        elif op == "subscribe" and flexible:
            pair.subscribe(P=f"(n == {n} )")
        elif op == "up":
            pair.deliver_up()
        elif op == "down":
            pair.deliver_down()
        elif op == "drop" and pair.client.is_connected:
            pair.drop()
        elif op == "tick":
            pair.tick(3.0)
        elif op == "slow":
            pair.is_slow = not pair.is_slow
            while pair.late and not pair.is_slow:
                pair.integrate()
        elif op == "fail" and pair.machine is not None and pair.machine.active():
            pair.machine.send_error(1, 201, "fault", Action.TRANSIENT, try_again=True)
            pair.down.extend(pair.machine.data_to_send())
        elif op == "mark":
            pair.session.request_mark()
        pair.pump()
    pair.is_slow = False
    while pair.late:
        pair.integrate()
    pair.settle()
    for _ in range(3):
        pair.client.reconnect(pair.now)
        pair.session.resume(pair.now)
        pair.settle()
        pair.tick(400.0)
    request = pair.session.request_mark()
    pair.settle()
    assert not [e for e in pair.seen if isinstance(e, ev.ProtocolFailure)]
    assert any(isinstance(e, ev.MarkReached) and e.request >= request for e in pair.seen)
    assert [c for origin, c in pair.server.log if origin == 2] == mine
    assert pair.realm.got == theirs
    assert pair.session.is_upload_complete
    latest = pair.realm.sets[max(pair.realm.sets)]
    assert not flexible or latest.state is State.COMPLETE
    assert isinstance(pair.said[-1], Mark | Upload | Ping | Query)


@pytest.mark.parametrize("heard", [False, True])
def test_what_was_on_its_way_is_sent_again(pair: Pair, heard: bool) -> None:
    """An UPLOAD that was lost with the connection, or whose acknowledgement was, goes again, and counts once."""
    pair.write(b"one")
    pair.write(b"two")
    if heard:
        assert pair.deliver_up()
    since = len(pair.said)
    pair.drop()
    pair.client.reconnect(pair.now)
    pair.settle()
    sent = [e.changeset for m in pair.said[since:] if isinstance(m, Upload) for e in m.entries]
    assert sent == [b"one", b"two"]
    assert [c for origin, c in pair.server.log if origin == 2] == [b"one", b"two"]
    assert pair.session.is_upload_complete


def test_mark_is_asked_again_after_a_fast_reconnect(pair: Pair) -> None:
    """A MARK whose answer was lost with the connection is sent again, also where uploads need no MARK."""
    request = pair.session.request_mark()
    pair.pump()
    pair.drop()
    said = len(pair.said)
    pair.client.reconnect(pair.now)
    pair.settle()
    assert [m.request for m in pair.said[said:] if isinstance(m, Mark)] == [request]
    assert any(isinstance(e, ev.MarkReached) and e.request == request for e in pair.seen)


@pytest.mark.parametrize("way", ["fast reconnect", "resumed"])
@pytest.mark.parametrize("writes", [False, True])
def test_every_binding_finds_out_whether_it_is_in_step(pair: Pair, way: str, writes: bool) -> None:
    """Also one whose uploads need no MARK: it is asked when there is nothing else to say, and once."""
    said, seen = len(pair.said), len(pair.seen)
    if way == "resumed":
        assert pair.machine is not None
        pair.machine.send_error(1, 201, "try later", Action.TRANSIENT, try_again=True)
        pair.down.extend(pair.machine.data_to_send())
        pair.settle()
    else:
        pair.drop()
    if writes:
        pair.write(b"offline")
    pair.tick(10.0)
    wanted = [*(["Unbind"] if way == "resumed" else []), "Bind", "ClientIdent", *(["Upload"] if writes else []), "Mark"]
    told = [m for m in pair.said[said:] if not isinstance(m, Ping) and not (isinstance(m, Upload) and not m.entries)]
    assert [type(m).__name__ for m in told] == wanted
    assert sum(isinstance(e, ev.MarkReached) for e in pair.seen[seen:]) == 1


def test_uploads_do_not_claim_what_came_later() -> None:
    """An UPLOAD that stops at a query set's commit says which server version the realm had then, not the newest."""
    pair = Pair()
    pair.write(b"schema")
    pair.subscribe(P="(TRUEPREDICATE )")
    pair.settle()
    uploads = [m for m in pair.said if isinstance(m, Upload)]
    first = uploads[0]
    assert first.entries[0].server_version == first.progress_server_version == 0
    assert first.locked_server_version == 1
    assert uploads[-1].locked_server_version == pair.server.version
