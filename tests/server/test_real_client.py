"""What the client of realm-core 14.14 said to this server, said again: the server ends with the state that client had.

The recordings ``core_*`` were made with the real engine's own client (its object store, with App log-in), and
``node_sync_*`` with the Node SDK 12.15 that is built on it, against this server. Their messages are given to the
server's core, without a socket, in the order in which they were handled then. What it sends is merged with what the
client wrote, as the client did; so the recorded state is compared with both ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from realmframe.conformance.checks import comparable
from realmframe.conformance.vectors import state_to_json, value_to_json
from realmframe.server import Permissions, history
from realmframe.server.admin import carry_out
from realmframe.server.connection import Connection
from realmframe.server.database import Database, orders
from realmframe.server.engine import Engine
from realmframe.server.views import View
from realmframe.wire import (
    BatchState,
    Bind,
    ClientIdent,
    Dialect,
    Download,
    Upload,
    parse_client,
    parse_server,
    parse_subprotocol,
)
from tests import transcripts

from .conftest import Rules
from .held import Held, as_apps_see


class Replay:
    """The clients of one recording and the engine they talk to, driven without its thread."""

    def __init__(self, database: Database, records: list[dict[str, Any]]) -> None:
        self.database = database
        #: Classes that a user may not write to.
        self.forbidden: dict[str, list[str]] = {}
        guarded = any(record["kind"] == "may_not_write" for record in records)
        permissions = Permissions(can_write_class=lambda user, name: name not in self.forbidden.get(user, ()))
        self.engine = Engine(database, development=True, permissions=permissions if guarded else None)
        self.connections: dict[int, Connection] = {}
        self.rules: dict[tuple[int, int], Rules] = {}
        self.written: dict[int, int] = {}
        self.sent: dict[int, list[bytes]] = {}
        self.held = _held(records)

    def step(self, record: dict[str, Any]) -> None:
        """Do what a line of the recording says; where it has an answer, the engine commits and answers."""
        number, kind = record.get("conn", 0), record["kind"]
        if kind == "order":
            self._order(record)
        elif kind == "may_not_write":
            self.forbidden[record["user"]] = record["classes"]
        elif record["dir"] != "c2s":
            self.engine._finish()
        elif kind == "ws_open":
            dialect = parse_subprotocol(record["answer"])
            assert dialect is not None
            self.sent[number] = []
            self.connections[number] = Connection(dialect, "app", record["user"], self._deliver(number))
        elif kind == "ws":
            data = transcripts.message(record)[0]
            self._note(number, parse_client(data, self.connections[number].machine.dialect))
            self.engine._receive(self.connections[number], data)
        else:
            self.engine.forget(self.connections[number])

    def _order(self, record: dict[str, Any]) -> None:
        """Have the engine do what an administrator ordered then."""
        with self.database.transaction() as sql:
            sql.execute(orders.insert().values(app="app", what=record["what"], arguments=record["arguments"]))
        carry_out(self.engine, self.database)

    def _note(self, number: int, message: Any) -> None:
        if isinstance(message, Bind):
            self.rules[number, message.session] = Rules(0)
        elif isinstance(message, ClientIdent):
            rules = self.rules[number, message.session]
            rules.file_ident, rules.version = message.file_ident, message.download_server_version
            rules.has_written = self.written.get(message.file_ident, 0)
            self.held[message.file_ident].connect(message.download_server_version)
        elif isinstance(message, Upload):
            rules = self.rules[number, message.session]
            rules.has_written = max(rules.has_written, message.progress_client_version)
            self.written[rules.file_ident] = rules.has_written
            self.held[rules.file_ident].wrote(message.progress_client_version)

    def _deliver(self, number: int) -> Callable[[list[bytes], int | None], None]:
        def deliver(messages: list[bytes], close: int | None) -> None:
            assert close is None
            connection = self.connections[number]
            self.sent[number] += messages
            for data in messages:
                if data.startswith(b"download "):
                    message = parse_server(data, connection.machine.dialect)
                    assert isinstance(message, Download)
                    rules = self.rules[number, message.session]
                    rules.check(message)
                    self.held[rules.file_ident].receive(message)
                assert not connection.written(len(data))

        return deliver


def _held(records: list[dict[str, Any]]) -> dict[int, Held]:
    """Give what each client file holds at the beginning, which knows what its client is going to write."""
    dialects: dict[int, Dialect] = {}
    idents: dict[tuple[int, int], int] = {}
    found: dict[int, Held] = {}
    for record in records:
        if record["kind"] == "ws_open":
            dialect = parse_subprotocol(record["answer"])
            assert dialect is not None
            dialects[record["conn"]] = dialect
        elif record["kind"] == "ws" and record["dir"] == "c2s":
            message = parse_client(transcripts.message(record)[0], dialects[record["conn"]])
            if isinstance(message, ClientIdent):
                ident = idents[record["conn"], message.session] = message.file_ident
                found.setdefault(ident, Held(ident))
            elif isinstance(message, Upload):
                found[idents[record["conn"], message.session]].will_write(message.entries)
    return found


def _answers(sent: list[bytes], dialect: Dialect, *, in_words: bool) -> list[Any]:
    """Give what has to be as it was, in its order: answers, and where a client was when a wait of its ended.

    That is, the version that it had with each MARK and with the last message of each bootstrap. The size of a text
    says nothing; why a write was taken back is said in words, which the older recordings have otherwise.
    """
    versions: dict[int, int] = {}
    found: list[Any] = []
    for data in sent:
        head, _, text = data.partition(b"\n")
        words = head.decode().split()
        if words[0] == "download":
            message = parse_server(data, dialect)
            assert isinstance(message, Download)
            versions[message.session] = message.download_server_version
            if message.batch is BatchState.LAST_IN_BATCH:
                found.append(("bootstrap", message.session, message.query_version, message.download_server_version))
        elif words[0] == "mark":
            found.append((*words, versions.get(int(words[1]))))
        elif words[0] == "json_error":
            body = json.loads(text)
            for one in () if in_words else body.get("rejectedUpdates", ()):
                del one["reason"]
            found.append((*words[:2], *words[3:], body))
        elif words[0] == "query_error":
            found.append((*words[:2], *words[3:], text))
        elif words[0] in ("ident", "unbound"):
            found.append(words)
    return found


def _salts(records: list[dict[str, Any]]) -> Iterator[int]:
    """Give the random numbers that the recorded server drew: of the realm, then of each client file."""
    heads = [r["header"].split() for r in records if r["dir"] == "s2c" and r["kind"] == "ws"]
    yield next(int(words[5]) for words in heads if words[0] == "download")
    for words in heads:
        if words[0] == "ident":
            yield int(words[3])


def _in_view(snapshot: Any, query: dict[str, str] | None) -> dict[str, Any]:
    """Give the state of what a client with this query set holds."""
    state = state_to_json(snapshot)
    if query is None:
        return state
    view = View(query)
    for name, form in state.items():
        if "objects" in form:
            table = snapshot.table(name)
            keys = [value_to_json(table.key(int(row))) for row in view.rows(snapshot, name)]
            form["objects"] = [one for one in form["objects"] if one["pk"] in keys]
    return state


def _without_marks(form: Any) -> Any:
    if isinstance(form, list):
        return [_without_marks(one) for one in form]
    if isinstance(form, dict):
        return {k: _without_marks(v) for k, v in form.items() if not (k == "dangling" and form.get("t") == "Link")}
    return form


def _objects(state: dict[str, Any]) -> dict[str, Any]:
    # Whether a linked object is there depends on the view.
    plain = comparable(_without_marks(state))
    return {name: _without_marks(form["objects"]) for name, form in plain.items() if form.get("objects")}


@pytest.mark.parametrize("name", transcripts.names("core_", "node_sync_"))
def test_server_ends_where_the_real_client_did(name, tmp_path, monkeypatch):
    """Each message of the real client gets its answers, and states are equal wherever the client's was recorded."""
    records = transcripts.records(name)
    salts = _salts(records)
    monkeypatch.setattr(history.secrets, "randbits", lambda _bits: next(salts) - 1)
    database = Database(tmp_path)
    replay, compared = Replay(database, records), 0
    try:
        for record in records:
            replay.step(record)
            if record["kind"] == "result":
                (realm,) = replay.engine._realms.values()
                mine = replay.held[record.get("file") or "abc".index(record["client"]) + 2]
                for held in (_in_view(realm.history.snapshot, record.get("query")), state_to_json(mine.snapshot)):
                    shown = held if name.startswith("core_") else as_apps_see(held)
                    assert _objects(shown) == _objects(record["result"])
                compared += 1
    finally:
        database.close()
    for number, sent in replay.sent.items():
        lines = [r for r in records if r["dir"] == "s2c" and r["kind"] == "ws" and r["conn"] == number]
        recorded = [transcripts.message(r)[0] for r in lines]
        dialect, in_words = replay.connections[number].machine.dialect, not name.startswith("core_")
        assert _answers(sent, dialect, in_words=in_words) == _answers(recorded, dialect, in_words=in_words)
    assert compared
