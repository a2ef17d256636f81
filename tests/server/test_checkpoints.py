"""Checkpoints of the server: a start with one, without one, or with a damaged one gives the same state."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddInteger, AddTable, CreateObject, EraseObject, Update
from realmframe.model import ClassKind, PropertyType
from realmframe.server import checkpoints
from realmframe.server import database as db
from realmframe.server.history import History
from realmframe.wire import UploadEntry

NAME = "../partition \u2028 with / and a very long text" * 20


def _schema() -> Changeset:
    return Changeset.from_instructions(
        [
            AddTable("C", ClassKind.TOPLEVEL, "_id", PropertyType.INT),
            AddColumn("C", "n", PropertyType.INT),
            AddColumn("C", "text", PropertyType.STRING),
        ]
    )


def _write(history: History, database: db.Database, first: int, count: int) -> None:
    """Upload objects as a client does, some of which are erased or counted up again."""
    file = history.files[max(history.files)] if history.files else history.files.new("u")
    changes = [_schema()] if history.version == 1 else []
    for n in range(first, first + count):
        made = [CreateObject("C", n), Update("C", n, "n", (), n), Update("C", n, "text", (), f"t{n}")]
        if n % 3 == 1:
            made.append(AddInteger("C", n - 1, "n", (), 5))
        if n % 7 == 6:
            made.append(EraseObject("C", n - 2))
        changes.append(Changeset.from_instructions(made))
    for change in changes:
        upload = UploadEntry(file.client_version + 1, history.version, 1000, 0, change.encode())
        assert history.integrate(file, upload) is not None
        with database.transaction() as sql:
            history.write(sql)


def _state(history: History) -> Any:
    snapshot = history.snapshot
    columns = {f: snapshot.column("C", f).to_pylist() for f in ("_id", "n", "text")}
    files = {i: (f.salt, f.client_version, f.server_version) for i, f in history.files.items()}
    keys = columns["_id"]
    return snapshot.version, snapshot.schema, columns, files, snapshot.find("C", keys).tolist()


def _reopen(folder: Path) -> Any:
    database = db.Database(folder)
    history = History(database, "app", NAME, folder)
    found = _state(history), len(history.log.recent)
    database.engine.dispose()
    return found


def _truncate(folder: Path) -> None:
    for path in (folder / "data").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:-100])


def _remove_index(folder: Path) -> None:
    for path in (folder / "data").glob("*.npy"):
        path.unlink()


def _garble(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def _set(name: str, value: int, *, in_extra: bool) -> Any:
    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        if name == "version":
            manifest["version"] = value
        (manifest["extra"] if in_extra else manifest)[name] = value
        path.write_text(json.dumps(manifest))

    return damage


DAMAGES = {
    "truncated": _truncate,
    "no index": _remove_index,
    "no manifest": _garble,
    "newer than the log": _set("version", 10**6, in_extra=True),
    "versions differ": _set("version", 3, in_extra=False),
    "other history": _set("salt", 5, in_extra=True),
}


@pytest.fixture
def closed(tmp_path):
    """A folder with a realm that was closed cleanly, and its state."""
    folder = tmp_path / "data"
    database = db.Database(folder)
    history = History(database, "app", NAME, folder)
    _write(history, database, 0, 60)
    state = _state(history)
    database.close()
    return folder, state


def _only(folder: Path) -> Path:
    (found,) = (folder / "checkpoints").iterdir()
    return found


def test_start_from_a_checkpoint(closed):
    """After a clean end nothing is replayed, and going on from there gives the state that the whole log gives."""
    folder, state = closed
    assert _reopen(folder) == (state, 0)
    database = db.Database(folder)
    history = History(database, "app", NAME, folder)
    _write(history, database, 60, 30)
    state = _state(history)
    assert [e.version for e in history.since(40)] == list(range(41, history.version + 1))
    assert [e.version for e in history.since(10)] == list(range(11, history.version + 1))
    assert [e.version for e in history.since(80)] == list(range(81, history.version + 1))
    database.engine.dispose()  # as a killed process leaves it
    assert _reopen(folder) == (state, 30)
    shutil.rmtree(folder / "checkpoints")
    assert _reopen(folder) == (state, state[0] - 1)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint(closed, damage, caplog):
    """A checkpoint that cannot be used is said to be so, and written anew at the end."""
    folder, state = closed
    DAMAGES[damage](_only(folder))
    with caplog.at_level(logging.WARNING, "realmframe.server"):
        assert _reopen(folder) == (state, state[0] - 1)
    assert "checkpoint" in caplog.text
    database = db.Database(folder)
    History(database, "app", NAME, folder)
    database.close()
    assert _reopen(folder) == (state, 0)


def test_checkpoints_while_writing(tmp_path, monkeypatch):
    """Checkpoints that are written while uploads go on are as good."""
    monkeypatch.setattr(checkpoints, "CHECKPOINT_ENTRIES", 20)
    monkeypatch.setattr(checkpoints, "_PAUSE", 0.0)
    folder = tmp_path / "data"
    database = db.Database(folder)
    history = History(database, "app", NAME, folder)
    _write(history, database, 0, 400)
    assert history._checkpoints._thread is not None
    history._checkpoints._thread.join(20)
    state = _state(history)
    assert 1 < history._checkpoints.version <= history.version
    database.engine.dispose()
    found, replayed = _reopen(folder)
    assert found == state
    assert replayed == history.version - history._checkpoints.version


def test_not_ahead_of_the_log(closed):
    """A realm whose last commit failed leaves no checkpoint of what was not committed."""
    folder, state = closed
    database = db.Database(folder)
    history = History(database, "app", NAME, folder)
    file = history.files[max(history.files)]
    change = Changeset.from_instructions([CreateObject("C", 10_000)]).encode()
    history.integrate(file, UploadEntry(file.client_version + 1, history.version, 1000, 0, change))
    with contextlib.suppress(RuntimeError), database.transaction() as sql:
        history.write(sql)
        raise RuntimeError
    database.close()
    assert _reopen(folder) == (state, 0)


def test_progress_is_durable_before_it_is_announced(tmp_path):
    """How far a client says to be has to be committed too: every DOWNLOAD announces it, and it may never go back."""
    database = db.Database(tmp_path / "server.db")
    history = History(database, "app", NAME)
    _write(history, database, 0, 2)
    assert not history.is_dirty
    file = history.files[max(history.files)]
    history.advance(file, file.client_version + 7, history.version)
    assert history.is_dirty
    with database.transaction() as sql:
        history.write(sql)
    assert not history.is_dirty
    again = History(database, "app", NAME)
    assert again.files[file.ident].client_version == file.client_version
    database.close()
