"""Databases of servers that go step by step: their connections are closed when the test ends."""

from __future__ import annotations

from pathlib import Path

from realmframe.server.database import Database

_opened: list[Database] = []


def open_database(folder: Path) -> Database:
    """Open a database for the rest of a test."""
    _opened.append(Database(folder))
    return _opened[-1]


def close_databases() -> None:
    """Close the connections, and do nothing that an end in order would do as well."""
    while _opened:
        _opened.pop().engine.dispose()
