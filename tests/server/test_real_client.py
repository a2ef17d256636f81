"""What the client of realm-core 14.14 said to this server, said again: the server ends with the state that client had.

The recordings ``core_*`` were made with the real engine's own client (its object store, with App log-in) against this
server. Its messages are given to the server's core, without a socket, in the order in which they were handled then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from realmframe.conformance.checks import comparable
from realmframe.conformance.vectors import state_to_json, value_to_json
from realmframe.server import history
from realmframe.server.connection import Connection
from realmframe.server.database import Database
from realmframe.server.engine import Engine
from realmframe.server.views import View
from realmframe.wire import Bind, ClientIdent, Download, Upload, parse_client, parse_server, parse_subprotocol
from tests import transcripts

from .conftest import Rules

#: Answers that have to come as they came, in this order; what else there is goes by rules and by the outcome.
ANSWERS = ("ident", "mark", "unbound", "json_error", "query_error")


class Replay:
    """The clients of one recording and the engine they talk to, driven without its thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connections: dict[int, Connection] = {}
        self.rules: dict[tuple[int, int], Rules] = {}
        self.written: dict[int, int] = {}
        self.answers: dict[int, list[list[str]]] = {}

    def step(self, record: dict[str, Any]) -> None:
        """Do what a line of the recording says; where it has an answer, the engine commits and answers."""
        number, kind = record.get("conn", 0), record["kind"]
        if record["dir"] != "c2s":
            self.engine._finish()
        elif kind == "ws_open":
            dialect = parse_subprotocol(record["answer"])
            assert dialect is not None
            self.answers[number] = []
            self.connections[number] = Connection(dialect, "app", record["user"], self._deliver(number))
        elif kind == "ws":
            data = transcripts.message(record)[0]
            self._note(number, parse_client(data, self.connections[number].machine.dialect))
            self.engine._receive(self.connections[number], data)
        else:
            self.engine.forget(self.connections[number])

    def _note(self, number: int, message: Any) -> None:
        if isinstance(message, Bind):
            self.rules[number, message.session] = Rules(0)
        elif isinstance(message, ClientIdent):
            rules = self.rules[number, message.session]
            rules.file_ident, rules.version = message.file_ident, message.download_server_version
            rules.has_written = self.written.get(message.file_ident, 0)
        elif isinstance(message, Upload):
            rules = self.rules[number, message.session]
            rules.has_written = max(rules.has_written, message.progress_client_version)
            self.written[rules.file_ident] = rules.has_written

    def _deliver(self, number: int) -> Callable[[list[bytes], int | None], None]:
        def deliver(messages: list[bytes], close: int | None) -> None:
            assert close is None
            connection = self.connections[number]
            for data in messages:
                words = data.partition(b"\n")[0].decode().split()
                if words[0] == "download":
                    message = parse_server(data, connection.machine.dialect)
                    assert isinstance(message, Download)
                    self.rules[number, message.session].check(message)
                elif words[0] in ANSWERS:
                    self.answers[number].append(_answer(words))
                assert not connection.written(len(data))

        return deliver


def _answer(words: list[str]) -> list[str]:
    """Leave out the size of a text."""
    return words if words[0] not in ("json_error", "query_error") else [*words[:2], *words[3:]]


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


@pytest.mark.parametrize("name", transcripts.names("core_"))
def test_server_ends_where_the_real_client_did(name, tmp_path, monkeypatch):
    """Each message of the real client gets its answers, and states are equal wherever the client's was recorded."""
    records = transcripts.records(name)
    salts = _salts(records)
    monkeypatch.setattr(history.secrets, "randbits", lambda _bits: next(salts) - 1)
    database = Database(tmp_path)
    engine = Engine(database, development=True)
    replay, compared = Replay(engine), 0
    try:
        for record in records:
            replay.step(record)
            if record["kind"] == "result":
                (realm,) = engine._realms.values()
                held = _in_view(realm.history.snapshot, record.get("query"))
                assert _objects(held) == _objects(record["result"])
                compared += 1
    finally:
        database.close()
    for number, answers in replay.answers.items():
        lines = [r for r in records if r["dir"] == "s2c" and r["kind"] == "ws" and r["conn"] == number]
        recorded = [_answer(words) for r in lines if (words := r["header"].split())[0] in ANSWERS]
        assert answers == recorded
    assert compared
