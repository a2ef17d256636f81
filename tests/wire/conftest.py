"""Recorded conversations of the real client, as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from realmframe.wire import Dialect, parse_subprotocol
from tests import transcripts


@dataclass(frozen=True)
class Recorded:
    """One message as it was on the wire."""

    line: int
    from_client: bool
    connection: int
    dialect: Dialect
    data: bytes
    #: The server that was recorded wrote some of its JSON with blanks, which we never do.
    has_blanks: bool
    #: Node's own zlib, which its SDK uses, compresses otherwise than ours.
    is_deflated_otherwise: bool


def messages(name: str) -> Iterator[Recorded]:
    """Read the WebSocket messages of one recording."""
    dialects: dict[int, Dialect | None] = {}
    for number, record in enumerate(transcripts.records(name), 1):
        if record["kind"] == "ws_open":
            dialects[record["conn"]] = parse_subprotocol(str(record.get("answer", "")))
        elif record["kind"] == "ws":
            dialect = dialects[record["conn"]]
            assert dialect is not None
            data, blanks = transcripts.message(record)
            head = data.split(b" ", 3)
            deflated = name.startswith("node_") and head[0] == b"upload" and head[2] == b"1"
            yield Recorded(number, record["dir"] == "c2s", record["conn"], dialect, data, blanks, deflated)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a ``transcript`` once for each recording."""
    if "transcript" in metafunc.fixturenames:
        metafunc.parametrize("transcript", transcripts.names())


@pytest.fixture
def recorded(transcript: str) -> list[Recorded]:
    """Give the messages of one recording."""
    return list(messages(transcript))
