"""Each message beside its bytes: encoded, decoded, cut off at every byte, and followed by one byte too many."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from realmframe.errors import LocalProtocolError, RemoteProtocolError
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
    pack,
    parse_client,
    parse_server,
)

FLX, PBS = Dialect(14, flexible=True), Dialect(14, flexible=False)
FLX11, FLX7 = Dialect(11, flexible=True), Dialect(7, flexible=True)
SALT = 834552813311623864
ENTRY = DownloadEntry(2, 6, 375445893564, 1, 4, b"\x3f\x00\n ")

CLIENT: list[tuple[Dialect, Any, bytes]] = [
    (
        FLX,
        Bind(1, {"schemaVersion": 0, "sessionReason": 0}, need_ident=True),
        b'bind 1 37 0 1 0\n{"schemaVersion":0,"sessionReason":0}',
    ),
    (PBS, Bind(3, '"part-1"', need_ident=False, token="t"), b'bind 3 8 1 0 0\n"part-1"t'),
    (FLX7, Bind(3, "/path", need_ident=False), b"bind 3 5 0 0 0\n/path"),
    (
        FLX,
        ClientIdent(1, 2, SALT, 3, 12, 3, -5, 1, {"P": "(age > 1 )"}),
        b'ident 1 2 834552813311623864 3 12 3 -5 1 18\n{"P":"(age > 1 )"}',
    ),
    (PBS, ClientIdent(3, 2, SALT, 0, 0, 0, 0), b"ident 3 2 834552813311623864 0 0 0 0\n"),
    (FLX, Query(1, 8, {}), b"query 1 8 2\n{}"),
    (FLX, Query(1, 9, {"Ä": '(n == "ü" )'}), 'query 1 9 23\n{"Ä":"(n == \\"ü\\" )"}'.encode()),
    (FLX, Upload(1, 12, 2, 2), b"upload 1 0 0 0 12 2 2\n"),
    (
        FLX,
        Upload(1, 6, 0, 1, (UploadEntry(6, 0, 375445893556, 0, b"?\n\x00"),)),
        b"upload 1 0 24 0 6 0 1\n6 0 375445893556 0 3 ?\n\x00",
    ),
    (FLX, Mark(1, 2), b"mark 1 2\n"),
    (FLX, Unbind(1), b"unbind 1\n"),
    (FLX, Ping(1234, 5), b"ping 1234 5\n"),
    (FLX, ClientJsonError(1, 212, {"message": "no"}), b'json_error 212 16 1\n{"message":"no"}'),
    (FLX, TestCommand(1, 2, "x y"), b"test_command 1 2 3\nx y"),
]
SERVER: list[tuple[Dialect, Any, bytes]] = [
    (FLX, Ident(1, 2, SALT), b"ident 1 2 834552813311623864\n"),
    (
        FLX,
        Download(1, 2, 6, 2, 7, 6, 0, 1, BatchState.LAST_IN_BATCH, 1.0, entries=(ENTRY,)),
        b"download 1 2 6 2 7 6 0 1 1 1 0 27 0\n2 6 375445893564 1 4 4 \x3f\x00\n ",
    ),
    (
        FLX,
        Download(1, 3, 6, 3, 7, 6, 0, 1, BatchState.MORE_TO_COME, 0.333333),
        b"download 1 3 6 3 7 6 0 1 0 0.333333 0 0 0\n",
    ),
    (
        FLX11,
        Download(1, 3, 6, 3, 7, 6, 0, 1, BatchState.STEADY_STATE, downloadable_bytes=99),
        b"download 1 3 6 3 7 6 0 1 2 99 0 0 0\n",
    ),
    (PBS, Download(3, 1, 0, 1, 7, 0, 0, downloadable_bytes=5), b"download 3 1 0 1 7 0 0 5 0 0 0\n"),
    (FLX, Mark(1, 2), b"mark 1 2\n"),
    (FLX, Unbound(1), b"unbound 1\n"),
    (FLX, Pong(-1), b"pong -1\n"),
    (FLX, JsonError(0, 101, {"message": "é"}), 'json_error 101 16 0\n{"message":"é"}'.encode()),
    (FLX, QueryError(1, 226, 3, "bad query"), b"query_error 226 9 1 3\nbad query"),
    (FLX, LegacyError(1, 201, True, "old form"), b"error 201 8 1 1\nold form"),
    (FLX, LogMessage(0, {"level": "info"}), b'log_message 0 16\n{"level":"info"}'),
    (FLX, TestCommand(1, 2, ""), b"test_command 1 2 0\n"),
]
ROWS = [(parse_client, *row) for row in CLIENT] + [(parse_server, *row) for row in SERVER]


@pytest.mark.parametrize(("parse", "dialect", "message", "data"), ROWS, ids=lambda v: type(v).__name__)
def test_row(parse: Any, dialect: Dialect, message: Any, data: bytes) -> None:
    """A message has exactly these bytes, and only these bytes give it."""
    assert encode(message, dialect) == data
    assert parse(data, dialect) == message
    assert parse(memoryview(data), dialect) == message
    for end in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            parse(data[:end], dialect)
    with pytest.raises(RemoteProtocolError):
        parse(data + b"\x00", dialect)


BAD = [
    (parse_client, b"", "no head line"),
    (parse_client, b"x" * 5000 + b"\n", "no head line"),
    (parse_client, b"hello 1\n", "unknown kind"),
    (parse_client, b"download 1 2 6 2 7 6 0 1 1 1 0 0 0\n", "unknown kind"),
    (parse_client, b"mark  1 2\n", "number was expected"),
    (parse_client, b"mark 1 2 \n", "too long"),
    (parse_client, b"mark 0 2\n", "out of range"),
    (parse_client, b"mark 1 +2\n", "number was expected"),
    (parse_client, b"mark 1 99999999999999999999\n", "out of range"),
    (parse_client, b"query 1 2 99999999999\n", "out of range"),
    (parse_client, b"query 1 2 2\n[]", "no JSON object"),
    (parse_client, b'query 1 2 9\n{"P": 12}', "no text"),
    (parse_client, b"query 1 2 2\n\xff\xff", "UTF-8"),
    (parse_client, b'query 1 2 14\n{"P":"\\ud800"} ', "no JSON"),
    (parse_client, b"upload 1 0 3 0 1 1 1\n1 1", "malformed head"),
    (parse_client, b"upload 1 0 10 0 1 1 1\n1 1 1 1 9 ", "longer than"),
    (parse_client, b"upload 1 1 10 3 1 1 1\nabc", "decompressed"),
    (parse_server, b"ident 1 0 5\n", "out of range"),
    (parse_server, b"download 1 2 6 2 7 6 0 1 3 1 0 0 0\n", "out of range"),
    (parse_server, b"download 1 2 6 2 7 6 0 1 1 1.5 0 0 0\n", "between 0 and 1"),
    (parse_server, b"download 1 2 6 2 7 6 0 1 1 nan 0 0 0\n", "decimal"),
    (parse_server, b"download 1 2 6 2 7 6 0 1 1 1 0 12 0\n0 0 0 1 0 0 ", "version 0"),
]


@pytest.mark.parametrize(("parse", "data", "what"), BAD)
def test_bad_message(parse: Any, data: bytes, what: str) -> None:
    """What is no message is refused with its place and the reason."""
    with pytest.raises(RemoteProtocolError, match=what) as caught:
        parse(data, FLX)
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= max(1, len(data))


def test_decompression_makes_no_more_than_it_declares() -> None:
    """A bomb of 50 MB in 50 KB that declares 2000 bytes is refused, and so is one that declares less than it holds."""
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    for declared in (2_000, 49_999_999):
        head = f"upload 1 1 {declared} {len(bomb)} 1 1 1\n".encode()
        with pytest.raises(RemoteProtocolError, match="decompress"):
            parse_client(head + bomb, FLX)
    with pytest.raises(RemoteProtocolError, match="out of range"):
        parse_client(b"upload 1 1 50000000 9 1 1 1\n" + bomb[:9], FLX, max_body=1_000_000)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_compression_where_it_pays(level: int) -> None:
    """Bodies over 1024 bytes are compressed if that makes them smaller, at the level asked for."""
    entry = UploadEntry(1, 0, 5, 0, b"abcd" * 1000)
    data = encode(Upload(1, 1, 0, 0, (entry,)), FLX, level=level)
    assert (len(data) < 1000) is (level > 0)
    assert parse_client(data, FLX).entries == (entry,)
    assert pack(b"a" * 1024)[0] == 0
    assert pack(b"a" * 1025)[0] == 1


def test_what_cannot_be_said() -> None:
    """What is no message, and text that is no Unicode, is refused before it is sent."""
    with pytest.raises(LocalProtocolError, match="is no message"):
        encode("mark 1 2\n", FLX)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="surrogate"):
        encode(QueryError(1, 226, 1, "\ud800"), FLX)
