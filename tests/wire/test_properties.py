"""Properties: every message survives the wire, and any bytes give a message or RemoteProtocolError."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from realmframe.errors import RemoteProtocolError
from realmframe.wire import (
    BatchState,
    Bind,
    ClientIdent,
    ClientJsonError,
    Dialect,
    Download,
    DownloadEntry,
    Ident,
    JsonError,
    LegacyError,
    LogMessage,
    Mark,
    Ping,
    Pong,
    Query,
    QueryError,
    TestCommand,
    Unbind,
    Unbound,
    Upload,
    UploadEntry,
    encode,
    parse_client,
    parse_server,
)

u64, i64 = st.integers(0, (1 << 64) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
i63, session = st.integers(0, (1 << 63) - 1), st.integers(1, (1 << 64) - 1)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
blob = st.one_of(st.binary(max_size=50), st.binary(min_size=1, max_size=8).map(lambda b: b * 300))
queries = st.dictionaries(text, text, max_size=3)
json_object = st.dictionaries(text, st.none() | st.booleans() | i64 | text | st.lists(i64, max_size=3), max_size=4)
dialects = st.builds(Dialect, st.integers(2, 14), st.booleans())
uploads = st.lists(st.builds(UploadEntry, u64, u64, u64, u64, blob), max_size=4).map(tuple)
downloads = st.lists(st.builds(DownloadEntry, session, u64, u64, u64, u64, blob), max_size=4).map(tuple)
estimates = st.integers(0, 1000).map(lambda n: n / 1000)


@st.composite
def from_client(draw: st.DrawFn) -> tuple[Dialect, Any]:
    """Draw a message of a client, and the dialect."""
    dialect = draw(dialects)
    body = json_object if dialect.has_json_bind else text
    flexible = (st.integers(0, 99), queries) if dialect.flexible else ()
    kinds = [
        st.builds(Bind, session, body, st.booleans(), text, st.booleans()),
        st.builds(ClientIdent, session, session, i64, u64, u64, u64, i64, *flexible),
        st.builds(Query, session, i63, queries),
        st.builds(Upload, session, u64, u64, u64, uploads),
        st.builds(Mark, session, u64),
        st.builds(Unbind, session),
        st.builds(Ping, i64, i64),
        st.builds(ClientJsonError, u64, i64, json_object),
        st.builds(TestCommand, u64, u64, text),
    ]
    return dialect, draw(st.one_of(kinds))


@st.composite
def from_server(draw: st.DrawFn) -> tuple[Dialect, Any]:
    """Draw a message of a server, and the dialect."""
    dialect = draw(dialects)
    extra: dict[str, Any] = {"entries": downloads}
    if dialect.flexible:
        extra |= {"query_version": i63, "batch": st.sampled_from(BatchState)}
    extra |= {"estimate": estimates} if dialect.has_estimate else {"downloadable_bytes": i63}
    kinds = [
        st.builds(Ident, session, session, i64),
        st.builds(Download, session, u64, u64, u64, i64, u64, u64, **extra),
        st.builds(Mark, session, u64),
        st.builds(Unbound, session),
        st.builds(Pong, i64),
        st.builds(JsonError, u64, i64, json_object),
        st.builds(QueryError, u64, i64, i64, text),
        st.builds(LegacyError, u64, i64, st.booleans(), text),
        st.builds(LogMessage, u64, json_object),
        st.builds(TestCommand, u64, u64, text),
    ]
    return dialect, draw(st.one_of(kinds))


@settings(max_examples=400)
@given(from_client())
def test_client_messages_survive(drawn: tuple[Dialect, Any]) -> None:
    """What a client encodes is what a server reads."""
    dialect, message = drawn
    assert parse_client(encode(message, dialect), dialect) == message


@settings(max_examples=400)
@given(from_server())
def test_server_messages_survive(drawn: tuple[Dialect, Any]) -> None:
    """What a server encodes is what a client reads."""
    dialect, message = drawn
    assert parse_server(encode(message, dialect), dialect) == message


def _only_protocol_errors(data: bytes, dialect: Dialect) -> None:
    for parse in (parse_client, parse_server):
        with contextlib.suppress(RemoteProtocolError):
            encode(parse(data, dialect), dialect)


@settings(max_examples=500)
@given(st.binary(max_size=200), dialects)
@example(b"json_error 1 4 0\n1e99", Dialect())
@example(b"query_error 1 0 0 -9223372036854775808\n", Dialect())
def test_any_bytes(data: bytes, dialect: Dialect) -> None:
    """Any bytes give a message, which can be written again, or RemoteProtocolError."""
    _only_protocol_errors(data, dialect)


@settings(max_examples=600)
@given(st.one_of(from_client(), from_server()), st.data())
def test_damaged_messages(drawn: tuple[Dialect, Any], data: st.DataObject) -> None:
    """A message with bytes changed, lost or added gives a message or RemoteProtocolError."""
    dialect, message = drawn
    raw = bytearray(encode(message, dialect))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    _only_protocol_errors(bytes(raw), dialect)
