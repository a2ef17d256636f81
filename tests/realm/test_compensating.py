"""Writes that the real server reverts land in the quarantine, once each, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?", "tags": "string[]"}, "_id")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server; each test has an app of its own."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def open_dogs(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., rf.Realm]]:
    """Open a realm that sees dogs called Rex, in a folder of its own for each name."""
    made: list[rf.Realm] = []
    app_id = f"app{abs(hash(request.node.name)) % 10**8}"

    def make(name: str, url: str = "", **sync: Any) -> rf.Realm:
        app = rf.App(app_id, base_url=url or server.url, base_file_path=tmp_path / name)
        user = app.current_user or app.log_in(rf.Credentials.anonymous())

        def subscribe(subs: Any, _realm: rf.Realm) -> None:
            subs.add("Dog", "name == 'Rex'")

        settings = {"flexible": True, "initial_subscriptions": subscribe} | sync
        made.append(rf.Realm.open(path="dogs.realm", schema=[DOG], sync=rf.SyncConfiguration(user, **settings)))
        return made[-1]

    make.app_id = app_id  # type: ignore[attr-defined]
    yield make
    for realm in made:
        realm.close()


def write(realm: rf.Realm, key: int, name: str) -> None:
    """Write a dog."""
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key, "name": name, "tags": ["a", "b"]}])


def keys(realm: rf.Realm) -> list[int]:
    """Give the keys that are here."""
    realm.refresh()
    return sorted(realm["Dog"]._id.tolist())


def lost(realm: rf.Realm) -> list[tuple[Any, ...]]:
    """Give what the quarantine says, apart from when."""
    found = []
    for row in realm.quarantine().to_dict("records"):
        values = json.loads(row["values"])
        found.append((row["class"], row["primary_key"], row["kind"], values["name"], values["tags"]))
    return found


def kept(server: Server) -> int:
    """Count what the server keeps for clients that have not heard of it yet."""
    with contextlib.closing(sqlite3.connect(Path(str(server.data)) / "server.sqlite")) as sql:
        return int(sql.execute("SELECT count(*) FROM reverted").fetchone()[0])


@pytest.mark.parametrize("checkpoint", [False, True])
def test_survives_reopening(open_dogs: Any, checkpoint: bool) -> None:
    """What was reverted goes away here, and is named with its values, also after the realm is opened again."""
    errors: list[Any] = []
    with open_dogs("a", on_error=lambda _s, e: errors.append(e)) as mine:
        write(mine, 1, "Rex")
        write(mine, 2, "Tom")
        write(mine, 3, "Rex")
        write(mine, 4, "Kit")
        assert until(lambda: keys(mine) == [1, 3])
        assert until(lambda: len(errors) == 2)
        assert [type(e) for e in errors] == [rf.CompensatingWriteError] * 2
        assert [(w["class"], w["primary_key"]) for e in errors for w in e.writes] == [("Dog", 2), ("Dog", 4)]
        if checkpoint:
            mine.core.store.checkpoint()
        first = mine.quarantine()
        wanted = [("Dog", key, "compensating write", name, ["a", "b"]) for key, name in ((2, "Tom"), (4, "Kit"))]
        assert lost(mine) == wanted
        assert "outside of the current query" in first["reason"][0]
    with open_dogs("a", on_error=lambda _s, e: errors.append(e)) as again:
        again.download_all_server_changes(WAIT)
        assert keys(again) == [1, 3]
        assert again.quarantine().equals(first)
        write(again, 5, "Max")
        assert until(lambda: len(lost(again)) == 3)
        assert lost(again)[:2] == wanted
        assert until(lambda: len(errors) == 3)
    with open_dogs("b") as other:
        other.download_all_server_changes(WAIT)
        assert keys(other) == [1, 3]


def test_told_after_a_cut_connection(server: Server, open_dogs: Any) -> None:
    """The error is lost with the connection, and comes with the next one: the client neither misses it nor keeps it."""
    with FaultProxy(server.url) as line:
        errors: list[Any] = []
        with open_dogs("a", line.url, on_error=lambda _s, e: errors.append(e)) as mine:
            before = kept(server)
            line.fault(stall_after=0)  # uploads arrive, answers do not
            write(mine, 2, "Tom")
            assert until(lambda: kept(server) == before + 1)
            assert (keys(mine), errors) == ([2], [])
            line.cut()
            line.heal()
            assert until(lambda: keys(mine) == [])
            assert until(lambda: errors)
            mine.download_all_server_changes(WAIT)
            assert len(errors) == 1
            assert lost(mine) == [("Dog", 2, "compensating write", "Tom", ["a", "b"])]


KILLED = """
import os, signal, sys
import realmframe as rf
from realmframe.store import RealmStore

step, url, base, app_id = sys.argv[1:]
real = RealmStore.integrate

def integrate(self, *a, quarantine=None, **k):
    if quarantine is None:
        return real(self, *a, **k)
    if step == "after":
        real(self, *a, quarantine=quarantine, **k)
    os.kill(os.getpid(), signal.SIGKILL)

RealmStore.integrate = integrate
app = rf.App(app_id, base_url=url, base_file_path=base)
realm = rf.Realm.open(path="dogs.realm", sync=rf.SyncConfiguration(app.current_user, flexible=True))
with realm.write() as tx:
    tx.upsert("Dog", [{"_id": 2, "name": "Tom", "tags": ["a", "b"]}])
realm.upload_all_local_changes(timeout=60.0)
realm.download_all_server_changes(timeout=60.0)
"""


@pytest.mark.parametrize("step", ["before", "after"])
def test_killed_while_it_is_reverted(server: Server, open_dogs: Any, tmp_path: Path, step: str) -> None:
    """The revert and its record in the quarantine are one: a killed process leaves both, or neither."""
    open_dogs("a").close()
    arguments = [sys.executable, "-c", KILLED, step, server.url, str(tmp_path / "a"), open_dogs.app_id]
    done = subprocess.run(arguments, timeout=60, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    with rf.Realm.open(path=tmp_path / "a" / "dogs.realm", schema=[DOG], read_only=True) as left:
        assert (keys(left), len(left.quarantine())) == (([], 1) if step == "after" else ([2], 0))
    with open_dogs("a") as again:
        assert until(lambda: keys(again) == [])
        again.download_all_server_changes(WAIT)
        assert lost(again) == [("Dog", 2, "compensating write", "Tom", ["a", "b"])]
