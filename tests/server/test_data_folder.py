"""The server's data folder: one server at a time, and names of partitions that an older version wrote."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import realmframe as rf
from realmframe.errors import StorageError
from realmframe.server import claim, create_app
from realmframe.server import database as db
from realmframe.server.checkpoints import checkpoint_folder
from realmframe.server.history import History
from realmframe.server.partitions import PREFIX, partition_of, respell
from realmframe.testing import Server
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
#: What older clients wrote, and what the SDKs do.
SPELLINGS = [
    ('{"$numberLong":"5"}', 5),
    ('{"$uuid":"00000000-0000-0000-0000-000000000005"}', uuid.UUID(int=5)),
    ('{"$oid":"303132333435363738396162"}', rf.ObjectId(b"0123456789ab")),
]


def _rename(folder: Path, old: str, new: str) -> None:
    """Give a realm another name, as if it had been made with it."""
    database = db.Database(folder)
    with database.transaction() as sql:
        t = db.realms
        done = sql.execute(sa.update(t).where(t.c.name == PREFIX + old).values(name=PREFIX + new))
    assert done.rowcount == 1
    database.engine.dispose()
    where = [checkpoint_folder(folder, "app", PREFIX + name) for name in (old, new)]
    assert where[0].exists()
    where[0].rename(where[1])


def _open(server: Server, folder: Path, value: Any) -> rf.Realm:
    app = rf.App("app", base_url=server.url, base_file_path=folder)
    user = app.current_user or app.log_in(rf.Credentials.anonymous())
    return rf.Realm.open(schema=[DOG], sync=rf.SyncConfiguration(user, partition_value=value))


@pytest.mark.parametrize(("old", "value"), SPELLINGS)
def test_an_old_spelling_is_found(tmp_path: Path, old: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A realm named as a client once wrote its partition has its data, its clients and its checkpoint after a start."""
    data = tmp_path / "data"
    with Server(data) as server, _open(server, tmp_path / "a", value) as realm:
        with realm.write() as tx:
            tx.upsert("Dog", [{"_id": 1, "name": "Rex"}])
        realm.upload_all_local_changes(WAIT)
    assert partition_of(old)[1] != old
    _rename(data, partition_of(old)[1], old)
    with caplog.at_level(logging.WARNING, "realmframe.server"), Server(data) as server:
        with _open(server, tmp_path / "a", value) as realm:
            with realm.write() as tx:
                tx.upsert("Dog", [{"_id": 2, "name": "Max"}])
            realm.upload_all_local_changes(WAIT)
            assert realm.sync_session.last_reset is None
        with _open(server, tmp_path / "b", value) as realm:
            assert realm["Dog"].name.tolist() == ["Rex", "Max"]
    assert not caplog.records
    assert not checkpoint_folder(data, "app", PREFIX + old).exists()


def test_two_spellings_of_one_partition(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The right name wins, else the oldest; the other realm keeps its data, and the log tells of it."""
    database = db.Database(tmp_path)
    made: dict[str, int] = {}
    for name in ('{"$numberLong": "5"}', '{"$numberLong":"5"}', '{"$numberLong":"6"}', "6", "nonsense", '"a"'):
        made[name] = History(database, "app", PREFIX + name, tmp_path).realm
    made["other app"] = History(database, "other", PREFIX + '{"$numberLong":"5"}', tmp_path).realm
    made["flx"] = History(database, "app", "flx", tmp_path).realm
    with caplog.at_level(logging.WARNING, "realmframe.server"):
        respell(database, tmp_path)
    with database.transaction() as sql:
        found = {row.id: (row.app, row.name) for row in sql.execute(sa.select(db.realms))}
    assert {name: found[number] for name, number in made.items()} == {
        '{"$numberLong": "5"}': ("app", PREFIX + '{"$numberLong": "5"}'),
        '{"$numberLong":"5"}': ("app", PREFIX + '{"$numberLong":"5"}'),
        '{"$numberLong":"6"}': ("app", PREFIX + '{"$numberLong": "6"}'),
        "6": ("app", PREFIX + "6"),
        "nonsense": ("app", PREFIX + "nonsense"),
        '"a"': ("app", PREFIX + '"a"'),
        "other app": ("other", PREFIX + '{"$numberLong": "5"}'),
        "flx": ("app", "flx"),
    }
    assert sum("second realm" in r.message for r in caplog.records) == 2
    database.close()


CHILD = """
import sys
from realmframe.server import claim, create_app
claim.CLAIM_SECONDS = 0.1
create_app(sys.argv[1])
"""


def test_a_second_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one folder would write over each other: the second is told so, also in another process."""
    monkeypatch.setattr(claim, "CLAIM_SECONDS", 0.1)
    with Server(tmp_path) as server:
        with pytest.raises(StorageError, match="Another server runs on the data folder") as told:
            create_app(tmp_path)
        assert told.value.path == str(tmp_path)
        assert "--data" in str(told.value)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert b"StorageError: Another server runs" in done.stderr
        # The first one is none the worse for it, and its folder can be had when it has ended.
        app = rf.App("app", base_url=server.url, base_file_path=tmp_path / "client")
        assert app.log_in(rf.Credentials.anonymous()).is_logged_in
    with Server(tmp_path):
        pass


LOOK = """
import sqlite3, sys
try:
    print(sqlite3.connect(sys.argv[1], timeout=0).execute("PRAGMA journal_mode=DELETE").fetchone()[0])
except sqlite3.OperationalError as fault:
    print(fault)
"""


def test_opening_the_database_again_leaves_its_locks(tmp_path: Path) -> None:
    """A file opened and closed once more in a process loses the locks of the process: others would take it for free."""
    with Server(tmp_path):
        db.Database(tmp_path).close()
        arguments = [sys.executable, "-c", LOOK, str(tmp_path / "server.sqlite")]
        done = subprocess.run(arguments, capture_output=True, timeout=60, check=True, text=True)
        assert done.stdout == "database is locked\n"


def test_a_killed_server_leaves_its_folder_free(tmp_path: Path) -> None:
    """The lock dies with its process."""
    server = Server(tmp_path, process=True)
    server.start()
    server.kill()
    with Server(tmp_path):
        pass


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """The folder and everything in it, while the server runs and when it has stopped, is for its owner alone."""
    data = tmp_path / "data"

    def modes() -> set[tuple[bool, int]]:
        return {(p.is_dir(), stat.S_IMODE(p.stat().st_mode)) for p in (data, *data.rglob("*"))}

    with Server(data) as server, _open(server, tmp_path / "a", "p") as realm:
        with realm.write() as tx:
            tx.upsert("Dog", [{"_id": 1, "name": "Rex"}])
        realm.upload_all_local_changes(WAIT)
        assert modes() == {(True, 0o700), (False, 0o600)}
    assert modes() == {(True, 0o700), (False, 0o600)}
