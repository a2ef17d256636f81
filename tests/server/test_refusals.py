"""What a client is refused on the wire, word by word: strangers, what may only be read, and history that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, CreateObject, Update
from realmframe.model import ClassKind, PropertyType
from realmframe.server import Permissions
from realmframe.server.admin import order
from realmframe.server.limits import MAX_BODY
from realmframe.testing import Server
from realmframe.wire import Dialect, Upload, UploadEntry
from tests.waiting import WAIT

from .conftest import RawConnection, RawSession, log_in

ALL = {"Dog": "(TRUEPREDICATE )"}
SCHEMA = Changeset.from_instructions(
    [AddTable("Dog", ClassKind.TOPLEVEL, "_id", PropertyType.INT), AddColumn("Dog", "name", PropertyType.STRING)]
).encode()


def dog(key: int) -> bytes:
    """Create a dog."""
    return Changeset.from_instructions([CreateObject("Dog", key), Update("Dog", key, "name", (), "Rex")]).encode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server whose partitions may only be read by those who are named."""
    with Server(tmp_path / "data", permissions=Permissions(can_write=lambda user, _: user not in READERS)) as running:
        yield running
    READERS.clear()


READERS: set[str] = set()


def closed_with(server: Server, app: str, token: str) -> int:
    """Give the code that a websocket is closed with at once."""
    wire = RawConnection(server.url, app, token)
    with pytest.raises(ConnectionClosed) as caught:
        wire.socket.recv(timeout=WAIT)
    assert caught.value.rcvd is not None
    return int(caught.value.rcvd.code)


def test_strangers_at_the_websocket(server: Server) -> None:
    """No token, a refresh token, one of another app, and one whose log-in was ended have a client ask for a new one."""
    user, other = log_in(server.url), log_in(server.url, "other")
    tokens = ["", "x", user["refresh_token"], other["access_token"]]
    assert [closed_with(server, "test", token) for token in tokens] == [4001] * 4
    ended = log_in(server.url)
    headers = {"Authorization": f"Bearer {ended['refresh_token']}"}
    assert httpx.delete(f"{server.url}/api/client/v2.0/auth/session", headers=headers).status_code == 204
    assert closed_with(server, "test", ended["access_token"]) == 4001
    wire = RawConnection(server.url, "test", user["access_token"])
    wire.ping(1)
    wire.close()


def test_requests_that_are_too_large(server: Server) -> None:
    """More than a megabyte of a request is not read."""
    path = f"{server.url}/api/client/v2.0/app/test/auth/providers/anon-user/login"
    answers = [httpx.post(path, content=b'{"a": "' + b"x" * size + b'"}') for size in (MAX_BODY // 2, MAX_BODY)]
    assert [a.status_code for a in answers] == [200, 413]


def test_a_partition_that_may_only_be_read(server: Server) -> None:
    """The schema may come, and so may what was acknowledged before; new data is refused, without recovery."""
    user = log_in(server.url)
    first = RawConnection(server.url, "test", user["access_token"], Dialect(14, False)).session()
    first.open()
    first.upload(2, SCHEMA)
    first.upload(3, dog(1))
    assert first.ident is not None
    first.wire.close()
    READERS.add(user["user_id"])
    again = RawConnection(server.url, "test", user["access_token"], Dialect(14, False)).session()
    again.rules.version, again.rules.client, again.rules.has_written = first.rules.version, 0, 3
    again.open((first.ident.file_ident, first.ident.salt, first.rules.version, 0))
    again.wire.send(Upload(1, 3, 1, 0, (UploadEntry(3, 1, 1000, 0, dog(1)),)))  # it did not hear the acknowledgement
    again.mark(1)
    assert again.errors == []
    again.rules.has_written = 4
    base = again.rules.version
    again.wire.send(Upload(1, 4, base, 0, (UploadEntry(4, base, 1000, 0, dog(2)),)))
    again.wire.until(lambda: bool(again.errors), may_fail=True)
    (error,) = again.errors
    body: Any = error.body  # type: ignore[union-attr]
    assert (error.code, body["action"], body["isRecoveryModeDisabled"]) == (230, "ClientResetNoRecovery", True)
    again.wire.close()


def _reader(server: Server) -> RawSession:
    session = RawConnection(server.url, "test", log_in(server.url)["access_token"]).session()
    session.open(query=ALL)
    session.mark(1)
    return session


@pytest.mark.parametrize("confirms", [True, False])
def test_history_that_a_connected_client_still_needs(server: Server, confirms: bool) -> None:
    """What it has confirmed keeps the log from being trimmed further; who confirmed nothing has to begin anew."""
    writer = _reader(server)
    writer.upload(2, SCHEMA)
    writer.upload(3, dog(1))
    away = _reader(server)
    base = away.rules.version
    if confirms:
        away.rules.has_written = 1
        away.wire.send(Upload(1, 1, base, base, ()))
        away.mark(2)
    for key in range(2, 6):
        writer.upload(2 + key, dog(key))
    away.mark(3)
    writer.wire.close()
    assert order(Path(str(server.data)), "test", "trim", keep=0, older_than=None)["entries"] > 0
    away.rules.has_written = 2
    away.wire.send(Upload(1, 2, base, base, (UploadEntry(2, base, 1000, 0, dog(50)),)))
    if confirms:
        away.wire.until(lambda: away.rules.upload >= 2)
        assert away.errors == []
    else:
        away.wire.until(lambda: bool(away.errors), may_fail=True)
        (error,) = away.errors
        body: Any = error.body  # type: ignore[union-attr]
        assert (error.code, body["action"], body["isRecoveryModeDisabled"]) == (222, "ClientReset", False)
    away.wire.close()
