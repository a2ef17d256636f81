"""Writes that the server takes back: the client hears of them once, whatever is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, CreateObject, EraseObject, Update
from realmframe.model import ClassKind, PropertyType
from realmframe.server import Permissions
from realmframe.server import database as db
from realmframe.testing import Server
from realmframe.wire import JsonError, Mark, Ping, Upload, UploadEntry, primary_key_from_text

from .conftest import RawConnection, RawSession, log_in

#: The user who may not write cats.
BARRED: set[str] = set()
QUERY = {"Cat": "(TRUEPREDICATE )", "Dog": '(name == "Rex" )'}


def _schema() -> bytes:
    made: list[Any] = []
    for name in ("Cat", "Dog"):
        made.append(AddTable(name, ClassKind.TOPLEVEL, "_id", PropertyType.INT))
        made.append(AddColumn(name, "name", PropertyType.STRING))
    return Changeset.from_instructions(made).encode()


def _named(cls: str, key: int, name: str) -> bytes:
    return Changeset.from_instructions([CreateObject(cls, key), Update(cls, key, "name", (), name)]).encode()


def _server(folder: Path) -> Server:
    return Server(folder, permissions=Permissions(can_write_class=lambda user, cls: cls == "Dog" or user not in BARRED))


class _Client:
    """One client file, with what it has to know when it connects again."""

    def __init__(self, server: Server) -> None:
        answer = log_in(server.url)
        self.token, self.user = answer["access_token"], answer["user_id"]
        wire = RawConnection(server.url, "test", self.token)
        self.session = wire.session()
        self.session.open()
        self.session.upload(2, _schema())
        self.session.query(1, **QUERY)
        assert self.session.ident is not None
        self.file = (self.session.ident.file_ident, self.session.ident.salt)
        self.written = 2

    def connect(self, server: Server) -> RawSession:
        """Connect again, from what was integrated last."""
        self.version, self.client = self.session.rules.version, self.session.rules.client
        wire = RawConnection(server.url, "test", self.token)
        self.session = session = wire.session()
        session.rules.has_written = self.written
        session.rules.version, session.rules.client = self.version, self.client
        session.open((*self.file, self.version, self.client), QUERY, 1)
        return session

    def send(self, *changesets: bytes) -> None:
        """Upload without waiting for anything."""
        base, first = self.session.rules.version, self.written + 1
        entries = tuple(UploadEntry(first + i, base, 1000, 0, c) for i, c in enumerate(changesets))
        self.written += len(entries)
        self.session.rules.has_written = self.written
        self.session.wire.send(Upload(1, self.written, base, 0, entries))


def _told(session: RawSession) -> list[tuple[str, Any]]:
    """Give what the errors of a session name."""
    found = []
    for error in session.errors:
        assert isinstance(error, JsonError)
        assert error.code == 231
        assert error.body["compensatingWriteServerVersion"] <= session.rules.version
        found += [(w["table"], primary_key_from_text(w["pk"])) for w in error.body["rejectedUpdates"]]
    return sorted(found)


def _erased(session: RawSession) -> set[tuple[str, Any]]:
    instructions = [i for e in session.entries for i in Changeset.decode(e.changeset).instructions()]
    return {(i.table, i.pk) for i in instructions if isinstance(i, EraseObject)}


def _mark(session: RawSession, request: int = 1) -> None:
    """Wait for everything; errors are looked at afterwards."""
    session.wire.send(Mark(session.number, request))
    session.wire.until(lambda: request in session.marks, may_fail=True)


@pytest.mark.parametrize("restarts", [False, True], ids=["same server", "restarted server"])
@pytest.mark.parametrize("kind", ["outside the query", "class", "both in one transaction"])
def test_told_again_after_a_lost_connection(tmp_path: Path, kind: str, restarts: bool) -> None:
    """What was lost with a connection, or with the server, comes with the next session: the error and the objects."""
    writes = {
        "outside the query": ([_named("Dog", 7, "Tom")], [("Dog", 7)]),
        "class": ([_named("Cat", 8, "Kit")], [("Cat", 8)]),
        "both in one transaction": (
            [
                Changeset.from_instructions(
                    [CreateObject("Dog", 7), Update("Dog", 7, "name", (), "Tom"), CreateObject("Cat", 8)]
                ).encode()
            ],
            [("Cat", 8), ("Dog", 7)],
        ),
    }
    changesets, wanted = writes[kind]
    with _server(tmp_path) as server:
        client = _Client(server)
        BARRED.add(client.user)
        try:
            client.send(*changesets)
            wire = client.session.wire
            wire.send(Ping(1, 0))
            wire.until(
                lambda: 1 in wire.pongs, may_fail=True
            )  # handled; what it led to may have come, and is thrown away
            first = client.session.downloads[0]
            client.session.rules.version = first.download_server_version
            client.session.rules.client = first.download_client_version
            client.session.wire.close()
            if not restarts:
                _check_told_once(client, server, wanted)
        finally:
            BARRED.clear()
    if restarts:
        with _server(tmp_path) as server:
            _check_told_once(client, server, wanted)
    database = db.Database(tmp_path)
    with database.transaction() as sql:
        assert sql.execute(sa.select(sa.func.count()).select_from(db.reverted)).scalar() == 0
    database.engine.dispose()


def test_what_is_told_again_comes_whole(tmp_path: Path) -> None:
    """Writes told again come in one message: a client that dies between two of one version would miss the rest."""
    wanted = {("Dog", 7), ("Dog", 8), ("Dog", 9)}
    with _server(tmp_path) as server:
        client = _Client(server)
        before = client.session.rules.version, client.session.rules.client
        client.send(*(_named("Dog", key, "Tom") for _, key in sorted(wanted)))
        wire = client.session.wire
        wire.send(Ping(1, 0))
        wire.until(lambda: 1 in wire.pongs, may_fail=True)
        client.session.rules.version, client.session.rules.client = before
        client.session.wire.close()
        session = client.connect(server)
        _mark(session)
        assert _told(session) == sorted(wanted)
        first = next(d for d in session.downloads if d.download_server_version > before[0])
        instructions = [i for e in first.entries for i in Changeset.decode(e.changeset).instructions()]
        assert {(i.table, i.pk) for i in instructions if isinstance(i, EraseObject)} == wanted


def _check_told_once(client: _Client, server: Server, wanted: list[tuple[str, Any]]) -> None:
    for _ in range(2):  # as long as the client has not got it
        session = client.connect(server)
        _mark(session)
        assert _told(session) == wanted
        assert _erased(session) >= set(wanted)
        session.wire.close()
        session.rules.version, session.rules.client = client.version, client.client
    session = client.connect(server)
    _mark(session)
    # It has the version now: not told again, and forgotten once it says so.
    again = client.connect(server)
    _mark(again)
    assert _told(again) == []
    client.send(_named("Dog", 9, "Rex"))
    again.wire.until(lambda: again.rules.upload >= client.written, may_fail=True)
    assert _told(again) == []
    again.wire.close()


def test_both_kinds_in_one_upload_keep_the_order_of_versions(tmp_path: Path) -> None:
    """A transaction with a class that may not be written and an object outside the query reverts both, in order."""
    with _server(tmp_path) as server:
        client = _Client(server)
        BARRED.add(client.user)
        try:
            both = [CreateObject("Dog", 7), Update("Dog", 7, "name", (), "Tom"), CreateObject("Cat", 8)]
            client.send(Changeset.from_instructions(both).encode())
            _mark(client.session)  # RawSession checks each DOWNLOAD by the rules of a real client
            assert _told(client.session) == [("Cat", 8), ("Dog", 7)]
            assert _erased(client.session) == {("Cat", 8), ("Dog", 7)}
        finally:
            BARRED.clear()
