"""Bad input and faults against a real server and a real disk: one clear error of a named type each, nothing lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe import errors
from realmframe.client.loop import stop_sync_loop
from realmframe.testing import Server
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?", "age": "int?"}, "_id")
OTHER = rf.ObjectSchema("Dog", {"_id": "int", "age": "string?"}, "_id")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server that has one dog."""
    folder = tmp_path_factory.mktemp("faults")
    with Server(folder / "server") as made:
        user = _app(made.url, folder).log_in(rf.Credentials.anonymous())
        with _open(user, [DOG]) as realm:
            with realm.write() as tx:
                tx.upsert("Dog", {"_id": 1, "age": 3})
            realm.upload_all_local_changes(timeout=WAIT)
        yield made
        stop_sync_loop()


def _app(url: str, folder: Path) -> rf.App:
    return rf.App("faults", base_url=url, base_file_path=folder, timeout=WAIT)


def _open(user: rf.User, schema: Any, query: str = "TRUEPREDICATE") -> rf.Realm:
    behaviour = rf.OpenRealmBehaviorConfiguration(
        type="download_before_open", time_out=20.0, time_out_behavior="throw_exception"
    )
    sync = rf.SyncConfiguration(
        user,
        flexible=True,
        initial_subscriptions=lambda subs, _realm: subs.add("Dog", query),
        new_realm_file_behavior=behaviour,
    )
    return rf.Realm.open(path="dogs.realm", schema=schema, sync=sync)


def _logged_in(url: str, folder: Path) -> rf.User:
    return _app(url, folder).log_in(rf.Credentials.anonymous())


Act = Callable[[str, Path], Any]
ROWS: list[tuple[str, Act, type[Exception], str]] = [
    (
        "no server there",
        lambda _url, folder: _logged_in("http://127.0.0.1:9", folder),
        errors.NetworkError,
        r"127\.0\.0\.1:9 cannot be reached",
    ),
    (
        "wrong password",
        lambda url, folder: _app(url, folder).log_in(rf.Credentials.email_password("ann@example.com", "wrong-one")),
        errors.AuthError,
        "InvalidPassword",
    ),
    (
        "a query that does not parse",
        lambda url, folder: _open(_logged_in(url, folder), [DOG], "age >"),
        errors.QueryError,
        "ends too early",
    ),
    (
        "a query on a property that is not there",
        lambda url, folder: _open(_logged_in(url, folder), [DOG], "wings > 1"),
        errors.QueryError,
        "no property 'wings'",
    ),
    (
        "a schema that contradicts the server's",
        lambda url, folder: _open(_logged_in(url, folder), [OTHER]),
        errors.SchemaMismatchError,
        "the server has int",
    ),
    (
        "a place that nobody can write",
        lambda url, _folder: _logged_in(url, Path("/proc/nobody")),
        errors.StorageError,
        "cannot be written",
    ),
]


@pytest.mark.parametrize(("act", "kind", "text"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_one_clear_error(backend: Server, tmp_path: Path, act: Act, kind: type[Exception], text: str) -> None:
    """The error has its type, and says what was wrong."""
    with pytest.raises(kind, match=text):
        act(backend.url, tmp_path)


def test_unknown_app(tmp_path: Path) -> None:
    """Without development mode, only apps that exist are served."""
    with (
        Server(tmp_path / "server", development=False) as server,
        pytest.raises(errors.AppError, match="cannot find app"),
    ):
        _logged_in(server.url, tmp_path)


def test_class_that_the_server_does_not_know(backend: Server, tmp_path: Path) -> None:
    """A class may come later, from another device; until then its frame is refused by name."""
    user = _logged_in(backend.url, tmp_path)
    with _open(user, None) as realm:
        with realm.subscriptions.update() as subscriptions:
            subscriptions.add("Cat")
        assert len(realm["Dog"]) == 1
        with pytest.raises(errors.RealmError, match="'Cat'"):
            realm["Cat"]


def _file(path: Path) -> None:
    path.write_bytes(b"something else")


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "letter.txt").write_text("hello")


def _overwritten(path: Path) -> None:
    with rf.Realm.open(path=str(path), schema=[DOG]) as realm, realm.write() as tx:
        tx.upsert("Dog", {"_id": 1})
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"\xff" * file.stat().st_size)


@pytest.mark.parametrize(
    ("spoil", "text"), [(_file, "is a file"), (_folder, "letter.txt"), (_overwritten, "no journal of a realm")]
)
def test_foreign_and_damaged_files(tmp_path: Path, spoil: Callable[[Path], None], text: str) -> None:
    """What is no realm is named and left as it is."""
    path = tmp_path / "dogs.realm"
    spoil(path)
    before = {p: p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file() and p.stat().st_size}
    with pytest.raises(errors.CorruptFileError, match=text):
        rf.Realm.open(path=str(path), schema=[DOG])
    assert {p: p.read_bytes() for p in before} == before


_FILL = """
import resource, signal, sys
import realmframe as rf
realm = rf.Realm.open(path=sys.argv[1], schema=[rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
kept = 0
try:
    for key in range(100):
        with realm.write() as tx:
            tx.upsert("Dog", {"_id": key, "name": "y" * 5000})
        kept += 1
except rf.errors.StorageError as error:
    print(error)
print(kept, len(realm["Dog"]))
realm.close()
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_full_disk(tmp_path: Path) -> None:
    """A write that does not fit is refused whole; what was committed is there, and writing goes on with space."""
    path = tmp_path / "dogs.realm"
    done = subprocess.run([sys.executable, "-c", _FILL, str(path)], capture_output=True, text=True, timeout=120)
    message, numbers = done.stdout.strip().splitlines()
    kept, shown = map(int, numbers.split())
    assert "disk is full" in message
    assert 0 < kept == shown < 100
    with rf.Realm.open(path=str(path)) as realm:
        assert len(realm["Dog"]) == kept
        with realm.write() as tx:
            tx.upsert("Dog", {"_id": 1000, "name": "more"})
        assert len(realm["Dog"]) == kept + 1
