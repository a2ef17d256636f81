"""Realms copied into others: local, synced, and shipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.changes import Changeset
from realmframe.changes.instructions import CreateObject
from realmframe.store import RealmStore
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT, until

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?", "owner": "Person?"}, "_id")
PERSON = rf.ObjectSchema("Person", {"_id": "string", "age": "int?"}, "_id")
MODES = ("flexible", "partition")
Sync = Callable[..., rf.SyncConfiguration]


@pytest.fixture
def line() -> Iterator[FaultProxy]:
    """Run a server behind a line that can be cut."""
    with Server() as server, FaultProxy(server) as made:
        yield made


@pytest.fixture
def sync(line: FaultProxy, tmp_path: Path) -> Sync:
    """Give the configuration of a user, by name, in a mode."""

    def make(name: str, mode: str, value: Any = "p", app: str = "app", **more: Any) -> rf.SyncConfiguration:
        found = rf.App(f"{app}-{mode}", base_url=line.url, base_file_path=tmp_path / name)
        user = found.current_user or found.log_in(rf.Credentials.anonymous())
        if mode == "partition":
            return rf.SyncConfiguration(user, partition_value=value, **more)

        def subscribe(subs: Any, _realm: rf.Realm) -> None:
            subs.add("Dog", name="dogs")
            subs.add("Person")

        return rf.SyncConfiguration(user, flexible=True, initial_subscriptions=subscribe, **more)

    return make


def open_realm(sync: rf.SyncConfiguration | None, path: Any = "dogs.realm") -> rf.Realm:
    """Open with the classes."""
    return rf.Realm.open(path=path, schema=[DOG, PERSON], sync=sync)


def fill(realm: rf.Realm, *keys: int) -> None:
    """Write dogs of one owner."""
    with realm.write() as tx:
        tx.upsert("Person", {"_id": "ann", "age": 7})
        tx.upsert("Dog", [{"_id": k, "name": f"dog {k}", "owner": rf.Link("Person", "ann")} for k in keys])


def content(realm: rf.Realm) -> dict[int, tuple[str, str]]:
    """Give name and owner by key, as far as they have come."""
    realm.refresh()
    dogs = realm["Dog"]
    return {k: (n, str(o)) for k, n, o in zip(dogs._id.tolist(), dogs.name, dogs.owner, strict=True)}


@pytest.mark.parametrize("mode", MODES)
def test_local_to_synced(sync: Sync, tmp_path: Path, mode: str) -> None:
    """The objects become uploads: another user gets them, links included; the local realm stays as it was."""
    with open_realm(None, tmp_path / "local.realm") as local:
        fill(local, 1, 2, 3)
        before = content(local)
        local.write_copy_to(path="dogs.realm", sync=sync("a", mode))
        assert content(local) == before
        assert local.status().synced is False
    with open_realm(sync("a", mode)) as copy, open_realm(sync("b", mode)) as other:
        copy.upload_all_local_changes(WAIT)
        assert until(lambda: content(other) == content(copy) == before)
        assert copy.quarantine().empty


@pytest.mark.parametrize("mode", MODES)
def test_synced_to_local(sync: Sync, line: FaultProxy, tmp_path: Path, mode: str) -> None:
    """A local copy has everything, also what was not uploaded yet; it takes nothing from the synced realm."""
    with open_realm(sync("a", mode)) as realm:
        fill(realm, 1)
        realm.upload_all_local_changes(WAIT)
        line.fault(down=True)
        fill(realm, 2)
        realm.write_copy_to(tmp_path / "copy.realm")
        line.heal()
        with open_realm(None, tmp_path / "copy.realm") as copy:
            assert content(copy) == content(realm)
            assert set(content(copy)) == {1, 2}
            fill(copy, 3)
        realm.sync_session.reconnect()
        realm.upload_all_local_changes(WAIT)
        assert set(content(realm)) == {1, 2}
        with open_realm(sync("b", mode)) as other:
            assert until(lambda: set(content(other)) == {1, 2})


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_that_is_shipped(sync: Sync, line: FaultProxy, tmp_path: Path, mode: str) -> None:
    """Opened by another user, offline too, it has everything; then only what is newer comes, and writes go up."""
    with open_realm(sync("a", mode)) as realm:
        fill(realm, *range(200))
        realm.upload_all_local_changes(WAIT)
        realm.download_all_server_changes(WAIT)
        realm.write_copy_to(path="bundle.realm", sync=sync("a", mode))
        for name in "bc":
            (tmp_path / name).mkdir()
            shutil.copytree(tmp_path / "a" / "bundle.realm", tmp_path / name / "dogs.realm")
        fill(realm, 200)
        realm.upload_all_local_changes(WAIT)
        at_once = {"type": "open_immediately"}
        bundled = sync("b", mode, existing_realm_file_behavior=at_once)
        line.fault(down=True)
        with open_realm(bundled) as opened:
            assert set(content(opened)) == set(range(200))
            assert opened.status().pending_writes == 0
            line.heal()
            opened.sync_session.reconnect()
            assert until(lambda: set(content(opened)) == set(range(201)))
            assert opened.sync_session.transfer.objects <= 4
            fill(opened, 300)
            opened.upload_all_local_changes(WAIT)
            realm.sync_session.reconnect()
            assert until(lambda: 300 in content(realm))
            if mode == "flexible":
                assert [s.name for s in opened.subscriptions if s.name] == ["dogs"]
        with open_realm(sync("c", mode)) as third:  # each has a number of its own
            assert until(lambda: set(content(third)) == {*range(201), 300})
        with pytest.raises(rf.WrongUserError):
            open_realm(sync("c", mode), tmp_path / "b" / "dogs.realm")


@pytest.mark.parametrize("mode", MODES)
def test_what_would_be_lost_is_not_copied(sync: Sync, line: FaultProxy, tmp_path: Path, mode: str) -> None:
    """While something waits for the server, no copy that syncs is written, and nothing is left behind."""
    with open_realm(sync("a", mode)) as realm:
        line.fault(down=True)
        fill(realm, 1)
        with pytest.raises(rf.UsageError, match="not got everything") as caught:
            realm.write_copy_to(path="copy.realm", sync=sync("a", mode))
        assert "upload_all_local_changes" in str(caught.value.hint)
        assert not (tmp_path / "a" / "copy.realm").exists()
        line.heal()
        realm.sync_session.reconnect()
        realm.upload_all_local_changes(WAIT)
        realm.write_copy_to(path="copy.realm", sync=sync("a", mode))
        with pytest.raises(rf.UsageError, match="already"):
            realm.write_copy_to(path="copy.realm", sync=sync("a", mode))


def test_to_another_partition(sync: Sync) -> None:
    """Elsewhere the objects are the copy's own writes, and are uploaded there."""
    with open_realm(sync("a", "partition", "here"), "here.realm") as realm:
        fill(realm, 1, 2)
        realm.upload_all_local_changes(WAIT)
        realm.write_copy_to(path="there.realm", sync=sync("a", "partition", "there"))
        before = content(realm)
    with open_realm(sync("a", "partition", "there"), "there.realm") as copy:
        copy.upload_all_local_changes(WAIT)
    with open_realm(sync("b", "partition", "there")) as other:
        assert content(other) == before


def test_a_shipped_copy_is_of_its_app_and_partition_only(sync: Sync, tmp_path: Path) -> None:
    """It cannot be opened as another partition, nor without having been shipped for this app."""
    with open_realm(sync("a", "partition", "here")) as realm:
        realm.upload_all_local_changes(WAIT)
        realm.write_copy_to(path="bundle.realm", sync=sync("a", "partition", "here"))
    bundle = tmp_path / "a" / "bundle.realm"
    for other in (sync("b", "partition", "there"), sync("b", "partition", "here", app="other")):
        with pytest.raises((rf.UsageError, rf.WrongUserError)):
            open_realm(other, bundle)
    open_realm(sync("b", "partition", "here"), bundle).close()


def test_a_copy_for_another_user(sync: Sync, tmp_path: Path) -> None:
    """It is the same file as for oneself: nothing of it is uploaded again, whoever it was written for."""
    with open_realm(sync("a", "partition")) as realm:
        fill(realm, 1, 2)
        before = content(realm)
        realm.upload_all_local_changes(WAIT)
        realm.write_copy_to(path=tmp_path / "bundle.realm", sync=sync("b", "partition"))
    with RealmStore.open(tmp_path / "bundle.realm", read_only=True) as store:
        assert store.pending() == []
        assert store.progress.download_server_version > 0
    with open_realm(sync("b", "partition"), tmp_path / "bundle.realm") as other:
        assert content(other) == before


def test_a_class_that_no_subscription_is_on(sync: Sync, tmp_path: Path) -> None:
    """The server would take its objects back: the copy is refused, and nothing of it is left."""
    with open_realm(None, tmp_path / "local.realm") as local:
        fill(local, 1)
        user = sync("a", "flexible").user
        only_dogs = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=lambda subs, _: subs.add("Dog"))
        with pytest.raises(rf.NoSubscriptionForWriteError, match="Person"):
            local.write_copy_to(path="dogs.realm", sync=only_dogs)
    assert not rf.Realm.exists(path="dogs.realm", sync=only_dogs)
    assert not (tmp_path / "a" / "dogs.realm").exists()


def test_what_another_process_wrote_is_copied_too(tmp_path: Path) -> None:
    """A copy has what is in the files by then, not what this process has seen of it."""
    with open_realm(None, tmp_path / "local.realm") as local:
        fill(local, 1)
        with RealmStore.open(tmp_path / "local.realm") as other:
            other.commit(Changeset.from_instructions([CreateObject("Person", "bob")]), timestamp=1)
        local.write_copy_to(tmp_path / "copy.realm")
    with open_realm(None, tmp_path / "copy.realm") as copy:
        assert set(copy["Person"]._id) == {"ann", "bob"}


def test_a_copy_does_not_follow_links_out(sync: Sync, tmp_path: Path) -> None:
    """Neither as a file that is shipped, nor as writes of its own."""
    (tmp_path / "outside").mkdir()
    with open_realm(sync("a", "partition")) as realm:
        realm.upload_all_local_changes(WAIT)
        (tmp_path / "a" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
        for value in ("p", "other"):
            with pytest.raises(rf.UsageError, match="through a link"):
                realm.write_copy_to(path="link/dogs.realm", sync=sync("a", "partition", value))
    assert list((tmp_path / "outside").iterdir()) == []
