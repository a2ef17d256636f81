"""Partition-based sync between two clients, and what permissions do in either mode."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.model import ObjectId
from realmframe.server import Permissions
from realmframe.testing import Server
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?", "tags": "string[]"}, "_id")
CAT = rf.ObjectSchema("Cat", {"_id": "int", "name": "string?"}, "_id")
#: Who may do what, by user id; filled by the tests.
READERS: dict[str, set[Any]] = {}
WRITERS: dict[str, set[Any]] = {}


def _may(rules: dict[str, set[Any]]) -> Callable[[str, Any], bool]:
    return lambda user, what: user not in rules or what in rules[user]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server with the rules of READERS and WRITERS; who is not in them may do everything."""
    rules = Permissions(_may(READERS), _may(WRITERS), _may(READERS), _may(WRITERS))
    with Server(permissions=rules) as made:
        yield made


@pytest.fixture
def login(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], rf.User]]:
    """Log users in to an app of the test's own."""
    app_id = f"app-{uuid.uuid4().hex[:8]}"

    def make(name: str) -> rf.User:
        app = rf.App(app_id, base_url=server.url, base_file_path=tmp_path / name)
        return app.current_user or app.log_in(rf.Credentials.anonymous())

    yield make
    READERS.clear()
    WRITERS.clear()


def open_partition(user: rf.User, value: Any, **sync: Any) -> rf.Realm:
    """Open the realm of a partition."""
    return rf.Realm.open(schema=[DOG, CAT], sync=rf.SyncConfiguration(user, partition_value=value, **sync))


def open_flexible(user: rf.User, **sync: Any) -> rf.Realm:
    """Open a realm that sees all dogs and cats."""

    def subscribe(subs: Any, _realm: rf.Realm) -> None:
        subs.add("Dog")
        subs.add("Cat")

    configuration = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=subscribe, **sync)
    return rf.Realm.open(path="flexible.realm", schema=[DOG, CAT], sync=configuration)


def write(realm: rf.Realm, cls: str, key: int, **values: Any) -> None:
    """Write one object."""
    with realm.write() as tx:
        tx.upsert(cls, {"_id": key} | values)


def names(realm: rf.Realm, cls: str = "Dog") -> dict[int, str]:
    """Give names by key, as far as they have come."""
    realm.refresh()
    return dict(zip(realm[cls]._id.tolist(), realm[cls].name.tolist(), strict=True))


VALUES = {
    "string": ("walks", "cats"),
    "empty string": ("", " "),
    "difficult string": ('a "b" \\ ü/%2F', "a"),
    "integer": (5, 6),
    "big integer": ((1 << 63) - 1, -(1 << 63)),
    "objectId": (ObjectId(b"0123456789ab"), ObjectId(b"0123456789ac")),
    "uuid": (uuid.UUID(int=5), uuid.UUID(int=6)),
    "null": (None, "null"),
    "text like a number": ("5", 5),
}


@pytest.mark.parametrize("kind", VALUES)
def test_two_clients(login: Callable[[str], rf.User], kind: str) -> None:
    """What one writes the other gets, both ways; another partition, however similar, has nothing of it."""
    value, other = VALUES[kind]
    with (
        open_partition(login("a"), value) as first,
        open_partition(login("b"), value) as second,
        open_partition(login("a"), other) as apart,
    ):
        assert first.path != apart.path
        write(first, "Dog", 1, name="Rex", tags=["old"])
        assert until(lambda: names(second) == {1: "Rex"})
        write(second, "Dog", 1, name="Max")
        write(apart, "Dog", 1, name="Tom")
        assert until(lambda: names(first) == {1: "Max"})
        first.upload_all_local_changes(WAIT)
        apart.upload_all_local_changes(WAIT)
        apart.download_all_server_changes(WAIT)
        assert names(apart) == {1: "Tom"}
        second.download_all_server_changes(WAIT)
        assert names(second) == {1: "Max"}
        with second.write() as tx:
            tx.delete("Dog", "_id == 1")
        assert until(lambda: names(first) == {})


def test_offline_partition(login: Callable[[str], rf.User]) -> None:
    """Both write while apart; in the end both have everything, and a reopened file goes on where it was."""
    for name in "ab":
        open_partition(login(name), 7).close()
    with open_partition(login("a"), 7) as first, open_partition(login("b"), 7) as second:
        for realm in (first, second):
            realm.sync_session.pause()
        write(first, "Dog", 1, name="one")
        write(second, "Dog", 2, name="two")
        for realm in (first, second):
            realm.sync_session.resume()
        assert until(lambda: names(first) == names(second) == {1: "one", 2: "two"})


@pytest.mark.parametrize(("first", "code"), [("partition", 114), ("flexible", 113)])
def test_modes_do_not_mix(login: Callable[[str], rf.User], first: str, code: int) -> None:
    """An app syncs in the mode of its first client; another one is told which mode that is, and stops for good."""
    opens: dict[str, Callable[[rf.User], rf.Realm]] = {
        "partition": lambda user: open_partition(user, "p", on_error=heard),
        "flexible": lambda user: open_flexible(user, on_error=heard),
    }
    errors: list[tuple[Any, rf.RealmError]] = []

    def heard(session: Any, error: rf.RealmError) -> None:
        errors.append((session, error))

    opens[first](login("a")).close()
    other = "flexible" if first == "partition" else "partition"
    with pytest.raises(rf.RealmError, match=r"syncs with (partitions|Flexible Sync), but the client asked"):
        opens[other](login("b"))
    assert until(lambda: errors)
    assert errors[0][0].state == "inactive"
    assert getattr(errors[0][1], "code", None) == code


def test_no_read(login: Callable[[str], rf.User]) -> None:
    """A partition that the user may not read ends the session with 206; others of the user go on."""
    user = login("a")
    READERS[user.id] = {"mine"}
    with pytest.raises(rf.SyncError, match="206") as caught:
        open_partition(user, "yours")
    assert (caught.value.code, caught.value.is_fatal) == (206, True)
    with open_partition(user, "mine") as realm:
        write(realm, "Dog", 1, name="Rex")
        realm.upload_all_local_changes(WAIT)


@pytest.mark.parametrize("mode", ["discard_unsynced_changes", "recover_or_discard_unsynced_changes"])
def test_read_only_partition(login: Callable[[str], rf.User], mode: str) -> None:
    """A write to a partition that may only be read is refused with 230, taken back, and kept in the quarantine."""
    user, owner = login("a"), login("b")
    WRITERS[user.id] = {"mine"}
    with open_partition(owner, "shared") as theirs, open_partition(user, "shared", client_reset=mode) as realm:
        write(theirs, "Dog", 1, name="Rex")
        assert until(lambda: names(realm) == {1: "Rex"})
        write(realm, "Dog", 1, name="mine")
        write(realm, "Dog", 2, name="mine too")
        assert until(lambda: names(realm) == {1: "Rex"})
        lost = realm.quarantine()
        assert set(lost["primary_key"].astype(str)) >= {"1", "2"}
        assert until(lambda: realm.sync_session.state == "active")
        write(theirs, "Dog", 3, name="later")  # and it goes on reading
        assert until(lambda: names(realm) == {1: "Rex", 3: "later"})
        assert names(theirs) == {1: "Rex", 3: "later"}


def test_read_only_partition_that_recovers(login: Callable[[str], rf.User]) -> None:
    """With the default mode, which drops nothing, the app is told, and what it wrote stays where it can be found."""
    user, errors = login("a"), list[rf.RealmError]()
    WRITERS[user.id] = {"mine"}
    with open_partition(login("b"), "shared"):
        realm = open_partition(user, "shared", on_error=lambda _s, error: errors.append(error))
        write(realm, "Dog", 2, name="mine")
        assert until(lambda: errors)
        assert isinstance(errors[0], rf.ClientResetError)
        assert (errors[0].code, realm.sync_session.state) == (230, "inactive")
        assert names(realm) == {2: "mine"}
        realm.close()
        with open_partition(user, "shared") as again:
            assert names(again) == {}
        assert Path(errors[0].recovery_path or "").exists()


def test_reading_does_not_count_as_writing(login: Callable[[str], rf.User]) -> None:
    """A client that brings a schema and acknowledges what it gets is no writer."""
    user, errors = login("a"), list[rf.RealmError]()
    WRITERS[user.id] = set()
    with (
        open_partition(login("b"), "shared") as theirs,
        open_partition(user, "shared", on_error=lambda _s, error: errors.append(error)) as realm,
    ):
        for key in range(5):
            write(theirs, "Dog", key, name="x")
            assert until(lambda key=key: key in names(realm))
        realm.upload_all_local_changes(WAIT)
    assert errors == []


# ---- Flexible Sync


def test_class_that_may_not_be_read(login: Callable[[str], rf.User]) -> None:
    """Its objects never come, whatever is subscribed to; those of others do."""
    user = login("a")
    READERS[user.id] = {"Dog"}
    with open_flexible(login("b")) as theirs, open_flexible(user) as realm:
        write(theirs, "Cat", 1, name="Tom")
        write(theirs, "Dog", 1, name="Rex")
        assert until(lambda: names(realm) == {1: "Rex"})
        theirs.upload_all_local_changes(WAIT)
        realm.download_all_server_changes(WAIT)
        assert names(realm, "Cat") == {}


def test_class_that_may_not_be_written(login: Callable[[str], rf.User]) -> None:
    """What is written to it comes back as it was, told as compensating writes; the rest of the transaction stays."""
    user, errors = login("a"), list[rf.RealmError]()
    WRITERS[user.id] = {"Dog"}
    with (
        open_flexible(login("b")) as theirs,
        open_flexible(user, on_error=lambda _s, error: errors.append(error)) as realm,
    ):
        for key in (1, 2):
            write(theirs, "Cat", key, name="Tom")
        assert until(lambda: names(realm, "Cat") == {1: "Tom", 2: "Tom"})
        with realm.write() as tx:
            tx.upsert("Cat", {"_id": 1, "name": "changed"})
            tx.delete("Cat", "_id == 2")
            tx.create("Cat", {"_id": 3, "name": "made"})
            tx.create("Dog", {"_id": 1, "name": "Rex"})
        assert names(realm, "Cat") == {1: "changed", 3: "made"}
        assert until(lambda: names(realm, "Cat") == {1: "Tom", 2: "Tom"})
        assert until(lambda: names(theirs) == {1: "Rex"})
        assert names(theirs, "Cat") == {1: "Tom", 2: "Tom"}
        assert until(lambda: errors)
        assert isinstance(errors[0], rf.CompensatingWriteError)
        told = {(w["class"], w["primary_key"]) for w in errors[0].writes}
        assert told == {("Cat", 1), ("Cat", 2), ("Cat", 3)}
        assert len(realm.quarantine()) == 3
        write(theirs, "Cat", 1, name="later")
        assert until(lambda: names(realm, "Cat") == {1: "later", 2: "Tom"})


def test_class_that_may_neither_be_read_nor_written(login: Callable[[str], rf.User]) -> None:
    """What is written to it goes away here and never arrives there."""
    user = login("a")
    READERS[user.id] = WRITERS[user.id] = {"Dog"}
    with open_flexible(login("b")) as theirs, open_flexible(user) as realm:
        write(realm, "Cat", 3, name="made")
        assert until(lambda: names(realm, "Cat") == {})
        write(realm, "Dog", 1, name="Rex")
        assert until(lambda: names(theirs) == {1: "Rex"})
        assert names(theirs, "Cat") == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", '"text"'),
        (5, '{"$numberLong": "5"}'),
        (ObjectId(bytes.fromhex("0123456789abcdef01234567")), '{"$oid": "0123456789abcdef01234567"}'),
        (
            uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
            '{"$binary": {"base64": "ABEiM0RVZneImaq7zN3u/w==", "subType": "04"}}',
        ),
        (None, "null"),
    ],
)
def test_partitions_are_written_as_the_sdks_write_them(login: Callable[[str], rf.User], value: Any, text: str) -> None:
    """To the letter, as recorded of a real client: a server may take the text for the name of the realm."""
    with open_partition(login("a"), value) as realm:
        assert realm.sync_session.options.partition == text
