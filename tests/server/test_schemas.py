"""Clients whose schema contradicts the app's, and clients that cannot use what they are sent, are told so."""

from __future__ import annotations

from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable
from realmframe.model import ClassKind, Collection, PropertyType
from realmframe.testing import Server
from realmframe.wire import Action, ClientJsonError, Dialect, JsonError, Ping, Upload, UploadEntry

from .conftest import RawConnection, RawSession, log_in

P = PropertyType
SCHEMA: list[Any] = [AddTable("Dog", ClassKind.TOPLEVEL, "_id", P.INT), AddColumn("Dog", "name", P.STRING)]
DIALECTS = pytest.mark.parametrize("dialect", [Dialect(), Dialect(flexible=False)], ids=["flexible", "partition"])


def _encoded(*instructions: Any) -> bytes:
    return Changeset.from_instructions(list(instructions)).encode()


def _error(session: RawSession) -> JsonError:
    """Wait for the error that ends a session; nothing may come after it."""
    session.wire.until(lambda: bool(session.errors), may_fail=True)
    (error,) = session.errors
    assert isinstance(error, JsonError)
    count = len(session.downloads)
    session.wire.send(Ping(1, 0))
    session.wire.until(lambda: 1 in session.wire.pongs, may_fail=True)
    assert len(session.downloads) == count
    return error


def _send(session: RawSession, version: int, changeset: bytes) -> None:
    session.rules.has_written = version
    session.wire.send(Upload(session.number, version, 0, 0, (UploadEntry(version, 0, 1000, 0, changeset),)))


@DIALECTS
def test_client_that_found_out(client, dialect):
    """A real client that cannot merge the schema says so, and waits: it gets an error that ends its session."""
    session = client(dialect=dialect).session()
    session.open()
    session.upload(1, _encoded(*SCHEMA))
    said = "Bad changeset: Schema mismatch: Property 'name' in class 'Dog' is of type String on one side and type Int"
    session.wire.send(ClientJsonError(session.number, 212, {"message": said}))
    error = _error(session)
    assert (error.code, error.body["action"]) == (225, Action.APPLICATION_BUG)
    assert said in error.body["message"]
    assert not error.body["tryAgain"]


@DIALECTS
def test_client_that_could_not_integrate(client, dialect):
    """Any other change that a client cannot use leads to a client reset, as with App Services."""
    session = client(dialect=dialect).session()
    session.open()
    session.upload(1, _encoded(*SCHEMA))
    session.wire.send(ClientJsonError(session.number, 212, {"message": "no such row" + "!" * 100_000}))
    error = _error(session)
    assert (error.code, error.body["action"]) == (212, Action.CLIENT_RESET)
    assert "no such row" in error.body["message"]
    assert len(error.body["message"]) < 2_000


@DIALECTS
@pytest.mark.parametrize(
    ("made", "words"),
    [
        ([AddTable("Dog", ClassKind.TOPLEVEL, "_id", P.STRING)], ["Dog", "_id"]),
        ([AddTable("Dog", ClassKind.EMBEDDED)], ["Dog", "embedded"]),
        ([SCHEMA[0], AddColumn("Dog", "name", P.INT)], ["Dog", "name"]),
        ([SCHEMA[0], AddColumn("Dog", "name", P.STRING, True)], ["Dog", "name"]),
        ([SCHEMA[0], AddColumn("Dog", "name", P.STRING, collection=Collection.LIST)], ["Dog", "name"]),
    ],
)
def test_schema_that_contradicts(client, app_id, dialect, made, words):
    """An upload with another type, key, kind or collection ends the session, with what contradicts what."""
    first = client(app_id, dialect=dialect).session()
    first.open()
    first.upload(1, _encoded(*SCHEMA))
    second = client(app_id, dialect=dialect).session()
    second.open()
    _send(second, 1, _encoded(*made))
    error = _error(second)
    assert (error.code, error.body["action"]) == (225, Action.APPLICATION_BUG)
    assert all(word in error.body["message"] for word in words), error.body["message"]


def test_fixed_schema(tmp_path):
    """Where clients may not add to the schema, the error names what they wanted to add."""
    with Server(tmp_path) as server:
        first = RawConnection(server.url, "test", log_in(server.url)["access_token"]).session()
        first.open()
        first.upload(1, _encoded(*SCHEMA))
        first.wire.close()
    with Server(tmp_path, development=False) as server:
        second = RawConnection(server.url, "test", log_in(server.url)["access_token"]).session()
        second.open()
        second.upload(1, _encoded(*SCHEMA))
        _send(second, 2, _encoded(AddTable("Cat", ClassKind.TOPLEVEL, "_id", P.INT), AddColumn("Dog", "age", P.INT)))
        error = _error(second)
        second.wire.close()
    assert (error.code, error.body["action"]) == (225, Action.APPLICATION_BUG)
    assert "Cat" in error.body["message"]
    assert "Dog.age" in error.body["message"]
