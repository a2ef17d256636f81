"""Query sets that the server refuses, and what stays in force."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, CreateObject, Update
from realmframe.model import ClassKind, PropertyType
from realmframe.server.limits import MAX_QUERY
from realmframe.wire import Query, QueryError

from .conftest import RawConnection, RawSession, log_in

SCHEMA: list[Any] = [
    AddTable("Dog", ClassKind.TOPLEVEL, "_id", PropertyType.INT),
    AddColumn("Dog", "name", PropertyType.STRING),
    AddTable("Cat", ClassKind.TOPLEVEL, "_id", PropertyType.INT),
]

#: What errors say of clauses that put objects in order.
_ORDERING = ["Dog", "cannot use", "objects that were synced"]


def _encoded(*instructions: Any) -> bytes:
    return Changeset.from_instructions(list(instructions)).encode()


@pytest.fixture
def session(client) -> RawSession:
    """A session that sees some dogs."""
    found = client().session()
    found.open()
    found.upload(1, _encoded(*SCHEMA))
    found.query(1, Dog='(name == "Rex" )')
    return found


def _refused(session: RawSession, version: int, **texts: str) -> str:
    """Ask for a set; give what the server has against it."""
    session.wire.send(Query(session.number, version, texts))
    session.wire.until(lambda: bool(session.errors), may_fail=True)
    (error,) = session.errors
    session.errors.clear()
    assert isinstance(error, QueryError)
    assert (error.code, error.query_version) == (226, version)
    return error.message


def _seen(session: RawSession) -> set[Any]:
    session.mark(1)
    found = [i for e in session.entries for i in Changeset.decode(e.changeset).instructions()]
    return {i.pk for i in found if isinstance(i, CreateObject)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(n > 1 SORT(n ASC))", [*_ORDERING, "SORT"]),
        ('(name == "a" LIMIT(3)) OR (TRUEPREDICATE )', [*_ORDERING, "LIMIT"]),
        ('(name == "a" DISTINCT(name))', [*_ORDERING, "DISTINCT"]),
        ('name == "a" SORT(name ASC)', [*_ORDERING, "SORT"]),
        ('(name TEXT "a" )', ["Dog", "TEXT", "cannot use", "CONTAINS"]),
        ("(age > 1 )", ["Dog", "age"]),
        ("(name == )", ["Dog"]),
    ],
)
def test_refused_clause(session, text, words):
    """The error names the class, the clause, and what to do instead; the set before stays in force."""
    message = _refused(session, 2, Dog=text)
    assert all(word in message for word in words), message
    _check_goes_on(session)


def _check_goes_on(session: RawSession) -> None:
    session.upload(2, _encoded(CreateObject("Dog", 7), Update("Dog", 7, "name", (), "Rex")))
    session.query(3, Dog="(TRUEPREDICATE )", Cat="(TRUEPREDICATE )")
    assert not session.errors


@pytest.mark.parametrize("names", [["Dog"], ["Cat", "Dog"]])
def test_too_large(session, names):
    """What counts is the whole set, in bytes: one more than allowed is refused, and one that fits is taken."""
    texts = {name: f'(_id == 1 OR name == "{"é" * 60_000}" )' if name == "Dog" else "(_id == 1 )" for name in names}
    missing = MAX_QUERY - len(json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode())
    texts["Dog"] = f"{texts['Dog'][:-1]}OR name == {'x' * (missing - 14)!r} )"
    message = _refused(session, 2, **{**texts, "Dog": texts["Dog"] + " "})
    assert "too large" in message
    assert f"{MAX_QUERY + 1:,} bytes" in message
    session.query(3, **texts)
    assert not session.errors


def test_query_that_is_not_valid_any_more(server, session):
    """When a class turns out to lack a property, its query sees nothing; the rest of the set stays in force."""
    token = log_in(server.url)["access_token"]
    texts = {"Dog": "(TRUEPREDICATE )", "Fish": "(fins > 2 )"}
    with contextlib.closing(RawConnection(server.url, "test", token)) as wire:
        early = wire.session()
        early.open()
        early.query(1, **texts)
        assert early.ident is not None
    session.upload(2, _encoded(AddTable("Fish", ClassKind.TOPLEVEL, "_id", PropertyType.INT)))
    session.upload(3, _encoded(CreateObject("Dog", 7), Update("Dog", 7, "name", (), "Rex")))
    with contextlib.closing(RawConnection(server.url, "test", token)) as wire:
        again = wire.session()
        again.open((early.ident.file_ident, early.ident.salt, early.rules.version, 0), texts, 1)
        assert _seen(again) == {7}
        again.rules.has_written = 1
        again.upload(1, _encoded(CreateObject("Dog", 8)))
        assert not again.errors
