"""One client file on two connections: the newer one has it, and what arrives late on the older one counts no more."""

from __future__ import annotations

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, CreateObject, Update
from realmframe.model import ClassKind, PropertyType
from realmframe.wire import Upload, UploadEntry

from .conftest import log_in

SCHEMA = Changeset.from_instructions(
    [AddTable("Cat", ClassKind.TOPLEVEL, "_id", PropertyType.INT), AddColumn("Cat", "name", PropertyType.STRING)]
).encode()
CAT = Changeset.from_instructions([CreateObject("Cat", 1), Update("Cat", 1, "name", (), "Tom")]).encode()


def test_an_upload_that_arrives_late(server, client):
    """What the older connection still brings is left out, so that the newer one sends it, and hears what came of it."""
    token = log_in(server.url)["access_token"]
    old = client(token=token).session()
    old.open()
    old.upload(2, SCHEMA)
    old.query(1, Cat="(TRUEPREDICATE )")
    assert old.ident is not None

    new = client(token=token).session()
    new.rules.has_written = 3
    file = (old.ident.file_ident, old.ident.salt, old.rules.version, old.rules.client)
    new.open(file, {"Cat": "(TRUEPREDICATE )"}, 1)
    new.mark(1)
    old.wire.send(Upload(1, 3, old.rules.version, 0, (UploadEntry(3, old.rules.version, 1000, 0, CAT),)))
    old.wire.until(lambda: bool(old.errors))
    assert [error.code for error in old.errors] == [200]
    new.mark(2)
    assert new.rules.upload < 3
    new.upload(3, CAT)
    assert new.rules.upload == 3
