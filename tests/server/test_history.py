"""What is not in the database yet counts as much as what is."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, ArrayInsert, CreateObject, EraseObject, Instruction
from realmframe.model import ClassKind, Collection, PropertyType
from realmframe.server import log, withdrawn
from realmframe.server.entries import ClientFile
from realmframe.server.history import History
from realmframe.wire import UploadEntry

from .databases import open_database

SCHEMA = AddTable("C", ClassKind.TOPLEVEL, "_id", PropertyType.INT)
#: Of a class whose objects no client keeps.
ASYMMETRIC = [
    AddTable("R", ClassKind.ASYMMETRIC, "_id", PropertyType.INT),
    AddColumn("R", "tags", PropertyType.STRING, collection=Collection.LIST),
]


class Realm:
    """A history with a client file, and what it uploads."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(folder)
        self.history = History(self.database, "app", "flx")
        self.file = self.history.files.new("ann")
        self.version = 0

    def upload(self, *instructions: Instruction, file: ClientFile | None = None, base: int | None = None) -> None:
        """Integrate one changeset."""
        self.version += 1
        data = Changeset.from_instructions(list(instructions)).encode()
        base = self.history.version if base is None else base
        assert self.history.integrate(file or self.file, UploadEntry(self.version, base, self.version + 9, 0, data))

    def commit(self) -> None:
        """Write what has piled up."""
        with self.database.transaction() as sql:
            self.history.write(sql)

    def keys(self) -> list[int]:
        """List the objects after a start."""
        return list(History(self.database, "app", "flx").snapshot.values("C", "_id"))


def test_entries_that_are_not_logged_yet(tmp_path, monkeypatch):
    """However many uploads come between two commits, each is there for what is merged next."""
    monkeypatch.setattr(log, "_RECENT_ENTRIES", 2)
    realm = Realm(tmp_path)
    realm.upload(SCHEMA)
    for key in range(5):
        realm.upload(CreateObject("C", key))
    assert [e.client_version for e in realm.history.since(1)] == [1, 2, 3, 4, 5, 6]
    realm.commit()
    assert [e.client_version for e in realm.history.since(1)] == [1, 2, 3, 4, 5, 6]
    assert len(realm.history.log.recent) == 2


@pytest.mark.parametrize("keep", [0, 2])
def test_trimming_of_what_is_not_logged_yet(tmp_path, keep):
    """A trimmed log loses no upload that was integrated and not yet written."""
    realm = Realm(tmp_path)
    realm.upload(SCHEMA)
    realm.commit()
    for key in range(5):
        realm.upload(CreateObject("C", key))
    assert realm.history.trim(realm.history.version - keep) == 6 - keep
    assert realm.keys() == [0, 1, 2, 3, 4]


def test_objects_of_uploads_that_came_to_nothing(tmp_path):
    """An entry remembers which objects its upload named, also after a start, until it is trimmed."""
    realm = Realm(tmp_path)
    other = realm.history.files.new("bob")
    realm.upload(SCHEMA)
    base = realm.history.version
    realm.upload(CreateObject("C", 1))
    realm.upload(EraseObject("C", 1))
    realm.upload(CreateObject("C", 1), CreateObject("C", 2), file=other, base=base)
    realm.commit()
    for history in (realm.history, History(realm.database, "app", "flx")):
        *others, last = history.since(base)
        assert [one.pk for one in last.changeset.instructions()] == [2]
        assert [one.pk for one in Changeset.decode(last.withdrawn).instructions()] == [1]
        assert [e.withdrawn for e in others] == [b"", b""]
    realm.history.trim(realm.history.version)
    with realm.database.transaction() as sql:
        assert not withdrawn.load(sql, realm.history.realm, 0, 1 << 40)


def test_uploads_that_are_fitted(tmp_path):
    """What a client has integrated is what it says, not the version that its upload was fitted to."""
    realm = Realm(tmp_path)
    for instruction in (SCHEMA, CreateObject("C", 1), CreateObject("C", 2)):
        realm.upload(instruction)
    data = Changeset.from_instructions([CreateObject("C", 3)]).encode()
    other = realm.history.files.new("bob")
    entry = UploadEntry(1, realm.history.version, 1000, 0, data)
    said = UploadEntry(1, 2, 1000, 0, Changeset.from_instructions([CreateObject("C", 4)]).encode())
    found = realm.history.integrate(other, entry, written=said)
    assert found is not None
    assert (other.client_version, other.server_version) == (1, 2)
    assert [one.pk for one in found.original.instructions()] == [4]


def _reading(tag: str) -> list[Instruction]:
    return [CreateObject("R", 1), ArrayInsert("R", 1, "tags", (0,), tag, 0)]


def test_two_clients_make_an_asymmetric_object_of_one_key(tmp_path):
    """Neither can know of the other's, so they are not merged: the later one replaces the earlier one."""
    realm = Realm(tmp_path)
    realm.upload(*ASYMMETRIC)
    base, other = realm.history.version, realm.history.files.new("bob")
    realm.upload(*_reading("a"), base=base)
    realm.upload(*_reading("b"), file=other, base=base)
    realm.upload(*_reading("c"), base=base)
    assert realm.history.snapshot.values("R", "tags") == [["c"]]
    made = [
        one
        for entry in realm.history.since(base)
        for one in entry.changeset.instructions()
        if isinstance(one, CreateObject)
    ]
    assert len(made) == 3
    assert not realm.file.reciprocals
    assert not other.reciprocals


def test_schema_of_an_asymmetric_class_comes_again(tmp_path):
    """A changeset that names the class and makes no object of it is taken as it is."""
    realm = Realm(tmp_path)
    realm.upload(*ASYMMETRIC, *_reading("a"))
    realm.upload(*ASYMMETRIC, file=realm.history.files.new("bob"))
    assert realm.history.snapshot.values("R", "tags") == [["a"]]
