"""The recorded messages of the real client, replayed against the server: it would be satisfied."""

from __future__ import annotations

from typing import Any

import pytest

from realmframe.wire import (
    Bind,
    ClientIdent,
    ClientJsonError,
    Dialect,
    Mark,
    Ping,
    Query,
    Unbind,
    Upload,
    parse_client,
    parse_subprotocol,
)
from tests import transcripts

from .conftest import RawConnection, log_in

#: Not those in which the recorded server made objects of its own: our server does not know them.
NAMES = (
    "flx_first_open_anonymous",
    "flx_first_open_async",
    "flx_subscriptions",
    "flx_steady_state_changes",
    "flx_two_clients_relay",
    "flx_bootstrap_one_batch",
    "flx_bootstrap_many_batches",
    "flx_upload_every_type",
    "flx_reopen_schema_added",
    "flx_schema_version",
    "flx_no_bootstrap_for_version_zero",
    "flx_big_upload",
    "session_multiplexing",
    "session_no_multiplexing",
    "session_unbind_and_rebind",
    "ws_ping_pong",
    "pbs_open",
    "pbs_open_async",
    "flx_merge_on_client",
    "flx_bootstrap_interrupted",
    "pbs_two_clients",
    "pbs_partition_types",
)


class Replay:
    """Sends what the real client sent, with this server's numbers in place of the recorded server's."""

    def __init__(self, url: str, app: str) -> None:
        self.url, self.app = url, app
        self.tokens: dict[str, str] = {}
        self.connections: dict[int, RawConnection] = {}
        self.files: dict[tuple[int, int], tuple[int, int]] = {}
        self.progress: dict[tuple[int, int], tuple[int, int]] = {}
        self.written: dict[tuple[int, int], int] = {}
        self.salts: dict[tuple[int, int], int] = {}
        self.recorded: dict[tuple[int, int], tuple[int, int]] = {}

    def open(self, record: dict[str, Any]) -> None:
        """Open a recorded WebSocket."""
        dialect = parse_subprotocol(record["answer"]) or Dialect(14, "query" in record["offered"][0])
        # The recorded server let one app sync in both modes; this one, like the service, does not.
        app = self.app if dialect.flexible else f"{self.app}-partitions"
        user = app + record["query"]
        if user not in self.tokens:
            self.tokens[user] = log_in(self.url, app)["access_token"]
        self.connections[record["conn"]] = RawConnection(self.url, app, self.tokens[user], dialect)

    def step(self, record: dict[str, Any], file_of: dict[tuple[int, int], tuple[int, int]]) -> None:
        """Send one recorded message, and wait for what the client needs in return."""
        wire = self.connections[record["conn"]]
        message = parse_client(transcripts.message(record)[0], wire.dialect)
        if isinstance(message, Ping):
            wire.ping(message.timestamp)
            return
        number = message.session
        if isinstance(message, Bind):
            wire.session(number)
            wire.send(message)
            if message.need_ident:
                wire.until(lambda: wire.sessions[number].ident is not None)
            return
        session = wire.sessions[number]
        if isinstance(message, ClientIdent):
            self._ident(wire, message)
        elif isinstance(message, Mark):
            session.mark(message.request)
        elif isinstance(message, Query):
            wire.send(message)
            wire.until(lambda: message.version in session.rules.complete)
        elif isinstance(message, Upload):
            self._upload(wire, message)
        elif isinstance(message, Unbind):
            wire.unbind(number)
        else:
            assert isinstance(message, ClientJsonError)

    def _ident(self, wire: RawConnection, m: ClientIdent) -> None:
        session = wire.sessions[m.session]
        key = (m.file_ident, m.salt)
        if session.ident is not None:
            self.files[key] = (session.ident.file_ident, session.ident.salt)
        file, salt = self.files[key]
        version, client = self.progress.get((file, salt), (0, 0))
        session.rules.file_ident = file
        session.file = (file, salt)
        session.rules.has_written = self.written.get((file, salt), 0)
        latest = self.salts.get((file, salt), 0)
        wire.send(ClientIdent(m.session, file, salt, version, client, version, latest, m.query_version, m.query))

    def _upload(self, wire: RawConnection, m: Upload) -> None:
        session = wire.sessions[m.session]
        version = session.rules.version
        entries = tuple(type(e)(e.client_version, version, e.timestamp, e.file_ident, e.changeset) for e in m.entries)
        session.rules.has_written = max(session.rules.has_written, m.progress_client_version)
        wire.send(Upload(m.session, m.progress_client_version, version, version, entries))
        if entries:
            last = entries[-1].client_version
            wire.until(lambda: session.rules.upload >= last)
        self.written[session.file] = session.rules.has_written
        self.progress[session.file] = (session.rules.version, session.rules.client)
        self.salts[session.file] = session.downloads[-1].latest_salt

    def close(self) -> None:
        """Close what is open."""
        for wire in self.connections.values():
            wire.close()


@pytest.mark.parametrize("name", NAMES)
def test_recorded_client_is_satisfied(name, shared_server, app_id):
    """Every message of the recorded client gets the answers that it needs, and none that would harm it."""
    records = transcripts.records(name)
    replay = Replay(shared_server.url, app_id)
    sent = 0
    try:
        for record in records:
            if record["kind"] == "ws_open" and record.get("answer"):
                replay.open(record)
            elif record["kind"] == "ws" and record["dir"] == "c2s" and record["conn"] in replay.connections:
                replay.step(record, replay.files)
                sent += 1
            elif record["kind"] == "ws_close" and record["conn"] in replay.connections:
                replay.connections[record["conn"]].close()
        errors = [e for w in replay.connections.values() for s in w.sessions.values() for e in s.errors]
        assert sent > 3
        assert not errors
    finally:
        replay.close()
