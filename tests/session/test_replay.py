"""The recorded real client against our server's machine, and the recorded server against our client's."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from realmframe.session import ClientConnection, QuerySet, ServerConnection, SessionStart
from realmframe.session import events as ev
from realmframe.session.progress import Progress
from realmframe.session.server import ServerState
from realmframe.session.subscriptions import State
from realmframe.wire import (
    ERROR_CODES,
    Action,
    Bind,
    ClientIdent,
    Dialect,
    Download,
    Ident,
    JsonError,
    LegacyError,
    LogMessage,
    Mark,
    Ping,
    Query,
    QueryError,
    Unbind,
)

from .conftest import recorded


def _mirror(machine: ServerConnection, message: Any) -> None:
    """Make our server say what the recorded one said."""
    if isinstance(message, Ident):
        machine.send_ident(message.session, message.file_ident, message.salt)
    elif isinstance(message, Download):
        machine.send_download(message)
    elif isinstance(message, Mark):
        machine.send_mark(message.session, message.request)
    elif isinstance(message, QueryError):
        machine.send_query_error(message.session, message.query_version, message.message, message.code)
    elif isinstance(message, JsonError) and message.code in ERROR_CODES and message.body["action"] in list(Action):
        body = message.body
        again = body["tryAgain"]
        machine.send_error(message.session, message.code, body["message"], Action(body["action"]), try_again=again)


def test_real_client_is_understood(transcript: str) -> None:
    """Everything that the real client says is legal for our server's machine, which may say all that was answered."""
    machines: dict[int, ServerConnection] = {}
    over: set[int] = set()
    heard = 0
    for connection, dialect, from_client, message in recorded(transcript):
        machine = machines.setdefault(connection, ServerConnection(dialect))
        if connection in over:
            continue
        if from_client:
            state = machine.state(getattr(message, "session", 0))
            events = machine.receive(message.encode(dialect))
            discards = isinstance(message, Ping) or state is ServerState.FAILED
            assert [e.message for e in events] == ([] if discards else [message])
            heard += len(events)
        elif isinstance(message, LegacyError) or (isinstance(message, JsonError) and message.session == 0):
            over.add(connection)
        elif isinstance(message, JsonError) and (
            message.code not in ERROR_CODES or message.body["action"] not in list(Action)
        ):
            over.add(connection)  # codes and actions that we never send
        else:
            _mirror(machine, message)
    assert heard


class _Nothing:
    """A realm without changes of its own."""

    def changes_after(self, _version: int, _upto: int, _max_bytes: int) -> list[Any]:
        """List none."""
        return []


def _bindings(name: str) -> Iterator[tuple[Dialect, list[tuple[bool, Any]]]]:
    """Split a conversation: from each BIND to the end of it, the messages of its session."""
    open_now: dict[tuple[int, int], list[tuple[bool, Any]]] = {}
    dialects: dict[int, Dialect] = {}
    done: dict[int, list[list[tuple[bool, Any]]]] = defaultdict(list)
    for connection, dialect, from_client, message in recorded(name):
        dialects[connection] = dialect
        number = getattr(message, "session", 0)
        if isinstance(message, Bind):
            open_now[connection, number] = []
            done[connection].append(open_now[connection, number])
        if (connection, number) in open_now:
            open_now[connection, number].append((from_client, message))
    for connection, bindings in done.items():
        yield from ((dialects[connection], found) for found in bindings)


def _start(dialect: Dialect, messages: list[tuple[bool, Any]]) -> SessionStart:
    """Guess from what the client said where its realm was."""
    said = [m for from_client, m in messages if from_client]
    bind = said[0]
    ident = next((m for m in said if isinstance(m, ClientIdent)), None)
    queries = [QuerySet(m.version, 1, m.query) for m in said if isinstance(m, Query)]
    start: dict[str, Any] = {"latest_version": 1 << 40}
    if ident is not None and not bind.need_ident:
        versions = ident.download_server_version, ident.download_client_version
        latest = ident.latest_server_version, ident.latest_salt
        progress = Progress(*versions, *latest, ident.download_client_version)
        start |= {"file_ident": ident.file_ident, "salt": ident.salt, "progress": progress}
    if dialect.flexible:
        version = 0 if ident is None else ident.query_version
        state = State.COMPLETE if version else State.PENDING
        start["queries"] = (QuerySet(version, 0, {}, state), *queries)
    else:
        start["partition"] = bind.body
    return SessionStart(**start)


def test_recorded_server_is_understood(transcript: str) -> None:
    """Everything that the recorded server says to a session gives its event, and none a protocol failure."""
    for dialect, messages in _bindings(transcript):
        number = messages[0][1].session
        client = ClientConnection(dialect, random=random.Random(1), numbers=itertools.count(number))
        session = client.add_session(_start(dialect, messages), _Nothing(), 0.0)
        client.opened(0.0, dialect)
        client.data_to_send()
        seen: list[Any] = []
        for from_client, message in messages:
            if from_client:
                if isinstance(message, Mark):
                    while session.request_mark() < message.request:
                        pass
                elif isinstance(message, Unbind) and session.wants_connection:
                    session.unbind(1.0)
                client.data_to_send()
                continue
            client.receive(message.encode(dialect), 1.0)
            for event in client.events():
                seen.append(event)
                batch = isinstance(event, ev.BootstrapBatch) and event.last
                if batch or isinstance(event, ev.DownloadReceived):
                    session.integrated(session.latest_version + 1, event.progress)
            client.data_to_send()
        seen += client.events()
        failures = [e.error for e in seen if isinstance(e, ev.ProtocolFailure)]
        assert not failures, failures
        heard = [m for from_client, m in messages if not from_client]
        downloads = sum(isinstance(m, Download) for m in heard)
        assert sum(isinstance(e, ev.DownloadReceived | ev.BootstrapBatch) for e in seen) == downloads
        hard = [m for m in heard if isinstance(m, JsonError | LegacyError) and m.code != 231]
        assert sum(isinstance(e, ev.SessionError) for e in seen) == len(hard)
        assert sum(isinstance(e, ev.ServerLog) for e in seen) == sum(isinstance(m, LogMessage) for m in heard)
