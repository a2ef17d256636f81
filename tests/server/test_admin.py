"""Orders of an administrator: files that begin anew, logs that are trimmed; and what IDENT refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.cli import main
from realmframe.errors import AppError, StorageError
from realmframe.model import Collection, PropertyType
from realmframe.server import database as db
from realmframe.server.admin import order
from realmframe.server.history import History
from realmframe.testing import Server
from realmframe.wire import Dialect, JsonError, UploadEntry
from tests.waiting import WAIT

from .conftest import RawConnection, RawSession, log_in

EVERYTHING = {"C": "(TRUEPREDICATE )"}
PBS = Dialect(14, flexible=False)
SCHEMA = [
    i.AddTable("C", pk_field="_id", pk_type=PropertyType.INT),
    i.AddColumn("C", "n", PropertyType.INT),
    i.AddColumn("C", "l", PropertyType.INT, collection=Collection.LIST),
]


def bytes_of(*instructions: Any) -> bytes:
    """Encode."""
    return Changeset.from_instructions(instructions).encode()


def make(key: int) -> bytes:
    """Create an object with a list of one element."""
    return bytes_of(
        i.CreateObject("C", key), i.Update("C", key, "n", (), key), i.ArrayInsert("C", key, "l", (0,), 7, 0)
    )


def begin(wire: RawConnection, number: int = 1) -> RawSession:
    """Open a session that has everything."""
    session = wire.session(number)
    session.open()
    session.mark(1)
    session.upload(1, bytes_of(*SCHEMA))
    if wire.dialect.flexible:
        session.query(1, **EVERYTHING)
    session.mark(2)
    return session


def again(wire: RawConnection, old: RawSession, number: int = 1, **changes: int) -> RawSession:
    """Come back with a file that was open before."""
    assert old.ident is not None
    session = wire.session(number)
    place = {"file": old.ident.file_ident, "salt": old.ident.salt}
    place |= {"server": old.rules.version, "client": old.rules.client} | changes
    query = {"query": EVERYTHING, "query_version": 1} if wire.dialect.flexible else {}
    ident = (place["file"], place["salt"], place["server"], place["client"])
    session.open(ident, **query, server_salt=place.get("server_salt", 0))
    return session


def refusal(wire: RawConnection, session: RawSession) -> tuple[int, str, bool]:
    """Give code and action of the error that comes, and whether recovery is disabled."""
    wire.until(lambda: bool(session.errors), may_fail=True)
    error = session.errors.pop()
    return error.code, str(error.body["action"]), error.body["isRecoveryModeDisabled"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"file": 77}, 208),
        ({"salt": 5}, 208),
        ({"server": 900}, 211),
        ({"server_salt": 5}, 211),
        ({"client": 900}, 210),
    ],
)
def test_files_that_cannot_go_on(client: Callable[..., RawConnection], changes: dict[str, int], code: int) -> None:
    """A number, a salt or a progress that the server never gave asks for a client reset."""
    old = begin(client())
    session = again(old.wire, old, 2, **changes)
    assert refusal(old.wire, session) == (code, "ClientReset", False)


def test_file_of_another_user(client: Callable[..., RawConnection]) -> None:
    """Whose client file it is nobody else may go on with, though number and salt are right."""
    old = begin(client())
    other = client()
    session = again(other, old, 2)
    other.until(lambda: bool(session.errors), may_fail=True)
    (error,) = session.errors
    assert isinstance(error, JsonError)
    assert (error.code, error.body["action"]) == (223, "ApplicationBug")


@pytest.mark.parametrize("recovery", [True, False])
def test_reset_of_connected_clients(server: Server, client: Callable[..., RawConnection], recovery: bool) -> None:
    """An order ends the sessions of the files it names, at once and whenever they come back; no others."""
    first, second = begin(client()), begin(client())
    assert first.ident is not None
    arguments = ["admin", "reset-client", "--app", "test", "--data", str(server.data)]
    arguments += ["--file-ident", str(first.ident.file_ident)] + ([] if recovery else ["--no-recovery"])
    assert main(arguments) == 0
    wanted = (217, "ClientReset" if recovery else "ClientResetNoRecovery", not recovery)
    assert refusal(first.wire, first) == wanted
    assert refusal(first.wire, again(first.wire, first, 2)) == wanted
    second.upload(2, make(5))
    assert not second.errors


def test_reset_of_a_user_while_the_server_is_down(tmp_path: Path) -> None:
    """An order is carried out without a server too, for all files of a user."""
    data = tmp_path / "data"
    with Server(data) as server:
        answer = log_in(server.url)
        wire = RawConnection(server.url, "test", answer["access_token"])
        old = begin(wire)
        wire.close()
    assert order(data, "test", "reset-client", user=answer["user_id"], file_ident=None, recovery=True) == {"files": 1}
    assert order(data, "test", "reset-client", user="nobody", file_ident=None, recovery=True) == {"files": 0}
    with Server(data) as server:
        wire = RawConnection(server.url, "test", answer["access_token"])
        assert refusal(wire, again(wire, old))[0] == 217
        wire.close()


@pytest.mark.parametrize("dialect", [Dialect(14, flexible=True), PBS], ids=["flexible", "partition"])
def test_trimmed_log(server: Server, client: Callable[..., RawConnection], dialect: Dialect) -> None:
    """After trimming, those who were away begin anew, those who are up to date go on, new ones get everything."""
    writer = begin(client(dialect=dialect))
    for key in range(5):
        writer.upload(2 + key, make(key))
    away = begin(client(dialect=dialect))
    away.wire.unbind(1)
    writer.upload(7, bytes_of(i.EraseObject("C", 0), i.Update("C", 1, "n", (), 100)))
    writer.upload(8, make(9))
    assert order(Path(str(server.data)), "test", "trim", keep=0, older_than=None)["entries"] > 5
    assert refusal(away.wire, again(away.wire, away, 2))[0:2] == (222, "ClientReset")
    writer.upload(9, make(10))
    new = begin(client(dialect=dialect))
    objects = state_of(new)
    assert objects == {1: 100, 2: 2, 3: 3, 4: 4, 9: 9, 10: 10}
    # Who wrote offline, before knowing anything of the server, is merged with what there is.
    late = client(dialect=dialect).session()
    late.open()
    late.mark(1)
    late.upload(2, bytes_of(*SCHEMA), bytes_of(i.CreateObject("C", 1), i.ArrayInsert("C", 1, "l", (0,), 8, 0)), base=0)
    assert not late.errors
    last = begin(client(dialect=dialect))
    assert state_of(last)[1] == 100


def state_of(session: RawSession) -> dict[int, int]:
    """Apply everything that a session got; give the numbers by key."""
    from realmframe.store import Snapshot, apply

    snapshot = Snapshot.empty()
    for entry in session.entries:
        snapshot = apply(snapshot, Changeset.decode(entry.changeset)).snapshot
    table = snapshot.table("C")
    return {int(k): int(n) for k, n in zip(table.values("_id"), table.values("n"), strict=True)}


def test_trimmed_state_survives(tmp_path: Path) -> None:
    """A trimmed realm opens with the state it had, with or without a checkpoint; what it keeps is merged as before."""
    database = db.Database(tmp_path)
    history = History(database, "a", "flx")
    file = history.files.new("u")

    def write(history: History, base: int, *changesets: bytes) -> None:
        own = history.files[file.ident]
        for data in changesets:
            history.integrate(own, UploadEntry(own.client_version + 1, base, 1000, 0, data))
        with database.transaction() as sql:
            history.write(sql)

    write(history, 1, bytes_of(*SCHEMA), make(1), make(2))
    kept = history.version
    write(history, kept, make(3), bytes_of(i.EraseObject("C", 1)))
    newest = history.version
    assert history.trim(kept) == 3
    assert history.trim(kept) == 0
    assert (history.trimmed, history.version) == (kept, newest)
    for _ in range(2):
        history = History(database, "a", "flx")
        assert (history.trimmed, history.version, len(history.since(0))) == (kept, newest, newest - kept)
        table = history.snapshot.table("C")
        assert [table.row(r) for r in range(2)] == [{"_id": k, "n": k, "l": [7]} for k in (2, 3)]
    assert history.trim(10_000) == newest - kept
    history = History(database, "a", "flx")
    assert (history.version, history.since(0)) == (newest, [])
    write(history, newest, make(4))
    assert history.version == newest + 1
    database.close()


def test_only_what_is_old_is_trimmed(tmp_path: Path) -> None:
    """``older_than`` keeps everything from the first change that is younger."""
    database = db.Database(tmp_path)
    history = History(database, "a", "flx")
    file = history.files.new("u")
    for n, stamp in enumerate((10, 20, 30, 15)):
        history.integrate(file, UploadEntry(n + 1, 1, stamp, 0, bytes_of(*SCHEMA) if n == 0 else make(n)))
    with database.transaction() as sql:
        history.write(sql)
    assert history.version_before(25, 0) == 3
    assert history.version_before(1000, 1) == 4
    database.close()


def test_wrong_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without data, or an app that is not there, is said in one line."""
    with pytest.raises(StorageError, match="no data of a server"):
        order(tmp_path, "test", "trim")
    db.Database(tmp_path).close()
    with pytest.raises(AppError, match="no data of an app 'test'"):
        order(tmp_path, "test", "trim")
    assert main(["admin", "trim", "--app", "x", "--data", str(tmp_path)]) == 1
    assert "no data of an app 'x'" in capsys.readouterr().err


def test_an_order_that_cannot_be_carried_out_holds_up_no_other(
    server: Server, client: Callable[..., RawConnection]
) -> None:
    """Whoever gave it is told; what is not said of a reset, whether it may recover, is yes."""
    session = begin(client())
    data = Path(str(server.data))
    for what, arguments in (("trim", {"keep": "some"}), ("no-such-order", {})):
        with pytest.raises(AppError, match=f"order '{what}' cannot be carried out"):
            order(data, "test", what, timeout=WAIT, **arguments)
    assert order(data, "test", "reset-client", timeout=WAIT) == {"files": 1}
    assert refusal(session.wire, session) == (217, "ClientReset", False)
