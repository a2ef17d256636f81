"""Bytes to messages and back: one function for each message and direction, found by the first word of the head line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, Final

from realmframe.errors import LocalProtocolError, RemoteProtocolError
from realmframe.wire import messages as m
from realmframe.wire.dialect import Dialect
from realmframe.wire.reader import MAX_BODY, Entries, Head, json_object

#: Bodies above this size are compressed where that makes them smaller.
COMPRESS_ABOVE: Final = 1024
#: Fast compression: on a local network anything slower costs more time than it saves.
COMPRESSION_LEVEL: Final = 1

_Parser = Callable[[Head, Dialect], Any]


def parse_client(data: bytes, dialect: Dialect, *, max_body: int = MAX_BODY) -> Any:
    """Read a message that a client sent.

    Parameters
    ----------
    data : bytes
        One binary WebSocket message.
    dialect : Dialect
    max_body : int
        Largest body, in bytes, compressed or not.

    Raises
    ------
    RemoteProtocolError
        For any bytes that are no message, with the offset.
    """
    return _parse(data, dialect, _CLIENT, max_body)


def parse_server(data: bytes, dialect: Dialect, *, max_body: int = MAX_BODY) -> Any:
    """Read a message that a server sent; see :func:`parse_client`."""
    return _parse(data, dialect, _SERVER, max_body)


def _parse(data: bytes, dialect: Dialect, parsers: dict[str, _Parser], max_body: int) -> Any:
    head = Head(bytes(data), max_body)
    parser = parsers.get(head.kind)
    if parser is None:
        raise RemoteProtocolError("A message of an unknown kind.", offset=0)
    message = parser(head, dialect)
    head.end()
    return message


def _bind(head: Head, dialect: Dialect) -> m.Bind:
    session, path_size, token_size = head.number(1), head.size(), head.size()
    need_ident, subserver = head.flag(), head.flag()
    raw = head.body(path_size + token_size)
    try:
        path, token = raw[:path_size].decode(), raw[path_size:].decode()
    except UnicodeDecodeError:
        raise head.fail("its body is no UTF-8") from None
    body: dict[str, Any] | str = path
    if dialect.has_json_bind:
        body = json_object(head, path) if path else {}
    return m.Bind(session, body, need_ident, token, subserver)


def _client_ident(head: Head, dialect: Dialect) -> m.ClientIdent:
    session, file_ident, salt = head.number(1), head.number(1), head.signed()
    cursor = head.number(), head.number(), head.number(), head.signed()
    if not dialect.flexible:
        return m.ClientIdent(session, file_ident, salt, *cursor)
    version, size = head.number(0, (1 << 63) - 1), head.size()
    return m.ClientIdent(session, file_ident, salt, *cursor, version, _queries(head, size))


def _queries(head: Head, size: int) -> dict[str, str]:
    found = head.json(size)
    if not all(isinstance(query, str) for query in found.values()):
        raise head.fail("a query is no text")
    return found


def _query(head: Head, _dialect: Dialect) -> m.Query:
    session, version, size = head.number(1), head.number(0, (1 << 63) - 1), head.size()
    return m.Query(session, version, _queries(head, size))


def _upload(head: Head, _dialect: Dialect) -> m.Upload:
    session, compressed, size, packed = head.number(1), head.flag(), head.size(), head.size()
    progress = head.number(), head.number(), head.number()
    entries = Entries(head.compressed(compressed, size, packed))
    found = []
    while entries:
        (client, server, timestamp, file_ident, _), changeset = entries.take(5)
        found.append(m.UploadEntry(client, server, timestamp, file_ident, changeset))
    return m.Upload(session, *progress, tuple(found))


def _client_error(head: Head, _dialect: Dialect) -> m.ClientJsonError:
    code, size, session = head.signed(), head.size(), head.number()
    return m.ClientJsonError(session, code, head.json(size))


def _download(head: Head, dialect: Dialect) -> m.Download:
    session = head.number(1)
    versions = head.number(), head.number(), head.number(), head.signed(), head.number(), head.number()
    extra: dict[str, Any] = {}
    if dialect.flexible:
        extra["query_version"] = head.number(0, (1 << 63) - 1)
        extra["batch"] = m.BatchState(head.number(0, 2))
    if dialect.has_estimate:
        extra["estimate"] = head.estimate()
    else:
        extra["downloadable_bytes"] = head.number(0, (1 << 63) - 1)
    compressed, size, packed = head.flag(), head.size(), head.size()
    entries = Entries(head.compressed(compressed, size, packed))
    found = []
    while entries:
        (server, client, timestamp, file_ident, original, _), changeset = entries.take(6)
        if server == 0:
            raise head.fail("an entry has server version 0")
        found.append(m.DownloadEntry(server, client, timestamp, file_ident, original, changeset))
    return m.Download(session, *versions, **extra, entries=tuple(found))


def _json_error(head: Head, _dialect: Dialect) -> m.JsonError:
    code, size, session = head.signed(), head.size(), head.number()
    return m.JsonError(session, code, head.json(size))


def _query_error(head: Head, _dialect: Dialect) -> m.QueryError:
    code, size, session, version = head.signed(), head.size(), head.number(), head.signed()
    return m.QueryError(session, code, version, head.text(size))


def _legacy_error(head: Head, _dialect: Dialect) -> m.LegacyError:
    code, size, again, session = head.signed(), head.size(), head.flag(), head.number()
    return m.LegacyError(session, code, again, head.text(size))


def _log_message(head: Head, _dialect: Dialect) -> m.LogMessage:
    session, size = head.number(), head.size()
    return m.LogMessage(session, head.json(size))


def _test_command(head: Head, _dialect: Dialect) -> m.TestCommand:
    session, request, size = head.number(), head.number(), head.size()
    return m.TestCommand(session, request, head.text(size))


_CLIENT: Final[dict[str, _Parser]] = {
    "bind": _bind,
    "ident": _client_ident,
    "query": _query,
    "upload": _upload,
    "mark": lambda h, _d: m.Mark(h.number(1), h.number()),
    "unbind": lambda h, _d: m.Unbind(h.number(1)),
    "ping": lambda h, _d: m.Ping(h.signed(), h.signed()),
    "json_error": _client_error,
    "test_command": _test_command,
}
_SERVER: Final[dict[str, _Parser]] = {
    "ident": lambda h, _d: m.Ident(h.number(1), h.number(1), h.signed()),
    "download": _download,
    "mark": lambda h, _d: m.Mark(h.number(1), h.number()),
    "unbound": lambda h, _d: m.Unbound(h.number(1)),
    "pong": lambda h, _d: m.Pong(h.signed()),
    "json_error": _json_error,
    "query_error": _query_error,
    "error": _legacy_error,
    "log_message": _log_message,
    "test_command": _test_command,
}


def _text(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("A text of a message has a lone surrogate and cannot be sent.") from None


def _head(*words: object) -> bytes:
    return (" ".join(str(int(w)) if isinstance(w, bool) else str(w) for w in words) + "\n").encode()


def pack(body: bytes, level: int | None = None) -> tuple[int, int, int, bytes]:
    """Compress a body where it pays.

    Parameters
    ----------
    body : bytes
    level : int, optional
        zlib's level, 1 to 9; 0 never compresses. Default :data:`COMPRESSION_LEVEL`.

    Returns
    -------
    tuple
        Whether it is compressed (0 or 1), its size, its compressed size (0 if it is not), the bytes to send.
    """
    level = COMPRESSION_LEVEL if level is None else level
    if level and len(body) > COMPRESS_ABOVE:
        packed = zlib.compress(body, level)
        if len(packed) < len(body):
            return 1, len(body), len(packed), packed
    return 0, len(body), 0, body


def encode(message: m.Message, dialect: Dialect, *, level: int | None = None) -> bytes:
    """Write any message for the other side.

    Parameters
    ----------
    message : Message
    dialect : Dialect
    level : int, optional
        zlib's level for the bodies of UPLOAD and DOWNLOAD, 1 to 9; 0 never compresses; default 1.

    Raises
    ------
    LocalProtocolError
        If it is no message, or cannot be said in this dialect.
    """
    if isinstance(message, m.Upload):
        return _upload_bytes(message, level)
    if isinstance(message, m.Download):
        flag, size, packed, body = pack(download_body(message.entries), level)
        return download_head(message, dialect, flag, size, packed) + body
    return _encode(message, dialect)


@singledispatch
def _encode(message: object, _dialect: Dialect) -> bytes:
    raise LocalProtocolError(f"A {type(message).__name__} is no message.")


@_encode.register
def _(message: m.Bind, _dialect: Dialect) -> bytes:
    path, token = _text(message.body), _text(message.token)
    head = _head("bind", message.session, len(path), len(token), message.need_ident, message.is_subserver)
    return head + path + token


@_encode.register
def _(message: m.ClientIdent, dialect: Dialect) -> bytes:
    words = ["ident", message.session, message.file_ident, message.salt, message.download_server_version]
    words += [message.download_client_version, message.latest_server_version, message.latest_salt]
    if not dialect.flexible:
        return _head(*words)
    body = _text(message.query or {})
    return _head(*words, message.query_version or 0, len(body)) + body


@_encode.register
def _(message: m.Query, _dialect: Dialect) -> bytes:
    body = _text(message.query)
    return _head("query", message.session, message.version, len(body)) + body


def _upload_bytes(message: m.Upload, level: int | None) -> bytes:
    parts: list[bytes] = []
    for e in message.entries:
        line = f"{e.client_version} {e.server_version} {e.timestamp} {e.file_ident} {len(e.changeset)} "
        parts += (line.encode(), e.changeset)
    flag, size, packed, body = pack(b"".join(parts), level)
    progress = message.progress_client_version, message.progress_server_version, message.locked_server_version
    return _head("upload", message.session, flag, size, packed, *progress) + body


def download_body(entries: Sequence[m.DownloadEntry]) -> bytes:
    """Write the entries of a DOWNLOAD, uncompressed."""
    parts: list[bytes] = []
    for e in entries:
        origin = f"{e.timestamp} {e.file_ident} {e.original_size}"
        parts += (f"{e.server_version} {e.client_version} {origin} {len(e.changeset)} ".encode(), e.changeset)
    return b"".join(parts)


def download_head(message: m.Download, dialect: Dialect, flag: int, size: int, packed: int) -> bytes:
    """Write the head line of a DOWNLOAD for a body made before."""
    words: list[object] = ["download", message.session, message.download_server_version]
    words += [message.download_client_version, message.latest_server_version, message.latest_salt]
    words += [message.upload_client_version, message.upload_server_version]
    if dialect.flexible:
        words += [message.query_version, int(message.batch)]
    words.append(f"{message.estimate:.6g}" if dialect.has_estimate else message.downloadable_bytes)
    return _head(*words, flag, size, packed)


@_encode.register
def _(message: m.Mark, _dialect: Dialect) -> bytes:
    return _head("mark", message.session, message.request)


@_encode.register
def _(message: m.Unbind, _dialect: Dialect) -> bytes:
    return _head("unbind", message.session)


@_encode.register
def _(message: m.Unbound, _dialect: Dialect) -> bytes:
    return _head("unbound", message.session)


@_encode.register
def _(message: m.Ping, _dialect: Dialect) -> bytes:
    return _head("ping", message.timestamp, message.rtt)


@_encode.register
def _(message: m.Pong, _dialect: Dialect) -> bytes:
    return _head("pong", message.timestamp)


@_encode.register
def _(message: m.Ident, _dialect: Dialect) -> bytes:
    return _head("ident", message.session, message.file_ident, message.salt)


@_encode.register(m.JsonError)
@_encode.register(m.ClientJsonError)
def _(message: m.JsonError | m.ClientJsonError, _dialect: Dialect) -> bytes:
    body = _text(message.body)
    return _head("json_error", message.code, len(body), message.session) + body


@_encode.register
def _(message: m.QueryError, _dialect: Dialect) -> bytes:
    body = _text(message.message)
    return _head("query_error", message.code, len(body), message.session, message.query_version) + body


@_encode.register
def _(message: m.LegacyError, _dialect: Dialect) -> bytes:
    body = _text(message.message)
    return _head("error", message.code, len(body), message.try_again, message.session) + body


@_encode.register
def _(message: m.LogMessage, _dialect: Dialect) -> bytes:
    body = _text(message.body)
    return _head("log_message", message.session, len(body)) + body


@_encode.register
def _(message: m.TestCommand, _dialect: Dialect) -> bytes:
    body = _text(message.body)
    return _head("test_command", message.session, message.request, len(body)) + body
