"""The realm files of a user who is gone: whose are deleted, and which have to wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from realmframe.client.files import delete_realms
from realmframe.errors import StorageError
from realmframe.store import Owner, RealmStore


def make(path: Path, app: str | None, user: str = "") -> str:
    """Make a realm, of an app's user or a local one."""
    owner = None if app is None else Owner(app_id=app, user_id=user, partition=None)
    RealmStore.open(path, owner=owner).close()
    return str(path)


def test_only_their_own(tmp_path: Path) -> None:
    """The same user of another app, another user and a local realm keep theirs; what is not there harms nobody."""
    theirs = make(tmp_path / "theirs", "app", "ann")
    others = [make(tmp_path / "a", "other", "ann"), make(tmp_path / "b", "app", "bob"), make(tmp_path / "c", None)]
    assert delete_realms("app", "ann", [theirs, *others, str(tmp_path / "nothing")]) == []
    assert not RealmStore.exists(theirs)
    assert all(map(RealmStore.exists, others))


def test_a_damaged_one_goes_too(tmp_path: Path) -> None:
    """It was tracked as theirs, and nobody can read it."""
    path = make(tmp_path / "dogs.realm", "app", "ann")
    for journal in Path(path).glob("journal*"):
        journal.write_bytes(b"not a journal, and long enough to be looked at as one" * 10)
    assert delete_realms("app", "ann", [path]) == []
    assert not Path(path).exists()


def test_what_cannot_be_deleted_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is open, or that the system does not let go, is named, and the others are deleted."""
    used, kept, free = (make(tmp_path / name, "app", "ann") for name in ("used", "kept", "free"))
    delete = RealmStore.delete

    def refuse(path: Any) -> None:
        if path == kept:
            raise StorageError("no", path=path)
        delete(path)

    monkeypatch.setattr(RealmStore, "delete", staticmethod(refuse))
    store = RealmStore.open(used)
    try:
        assert delete_realms("app", "ann", [used, kept, free]) == [used, kept]
    finally:
        store.close()
    assert [RealmStore.exists(p) for p in (used, kept, free)] == [True, True, False]
