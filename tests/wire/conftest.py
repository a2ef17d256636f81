"""Recorded conversations of the real client, as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from realmframe.wire import Dialect, parse_subprotocol

TRANSCRIPTS = Path(__file__).parents[2].parent / "shared" / "transcripts"
#: Which word of the head line is the size of a JSON or text body; the last one in the others.
_SIZE = {"bind": 2, "json_error": 2, "error": 2, "query_error": 2, "log_message": 2}
FILES = sorted(TRANSCRIPTS.glob("*.jsonl"))


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


def _bytes(record: dict[str, Any]) -> tuple[bytes, bool]:
    head = record["header"].encode() + b"\n"
    token = record.get("token", "").encode()
    if "body_hex" in record:
        return head + bytes.fromhex(record["body_hex"]) + token, False
    body = record.get("body", "")
    words = record["header"].split()
    size = 0 if len(words) < 3 else int(words[_SIZE.get(words[0], -1)])
    if isinstance(body, str) and (not body or len(body.encode()) == size):
        return head + body.encode() + token, False
    compact = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    if len(compact) == size:
        return head + compact + token, False
    return head + json.dumps(body).encode() + token, True


def messages(path: Path) -> Iterator[Recorded]:
    """Read the WebSocket messages of one file."""
    dialects: dict[int, Dialect | None] = {}
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            record = json.loads(line)
            if record["kind"] == "ws_open":
                dialects[record["conn"]] = parse_subprotocol(str(record.get("answer", "")))
            elif record["kind"] == "ws":
                dialect = dialects[record["conn"]]
                assert dialect is not None
                data, blanks = _bytes(record)
                yield Recorded(number, record["dir"] == "c2s", record["conn"], dialect, data, blanks)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a ``transcript`` once for each file."""
    if "transcript" in metafunc.fixturenames:
        skip = pytest.param(None, marks=pytest.mark.skip(reason="the recorded conversations are not here"))
        metafunc.parametrize("transcript", FILES or [skip], ids=lambda p: p.stem if p else "none")


@pytest.fixture
def recorded(transcript: Path) -> list[Recorded]:
    """Give the messages of one file."""
    return list(messages(transcript))
