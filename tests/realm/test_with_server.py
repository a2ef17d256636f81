"""Client and server of this package together, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import realmframe as rf
from realmframe.client.loop import stop_sync_loop
from realmframe.testing import Server
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?", "age": "int?"}, "_id")
Open = Callable[..., rf.Realm]


@pytest.fixture(scope="module")
def backend() -> Iterator[Server]:
    """Run one server for the module."""
    with Server() as made:
        yield made
        stop_sync_loop()


@pytest.fixture
def app(backend: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], rf.App]:
    """Make apps, one id per test, with a folder of its own per name."""
    app_id = f"app-{abs(hash(request.node.nodeid)) % 10**8}"
    return lambda name: rf.App(app_id, base_url=backend.url, base_file_path=tmp_path / name, timeout=WAIT)


@pytest.fixture
def open_dogs(app: Callable[[str], rf.App]) -> Open:
    """Open a realm of dogs as somebody."""

    def make(name: str, query: str = "TRUEPREDICATE") -> rf.Realm:
        user = app(name).log_in(rf.Credentials.anonymous())
        sync = rf.SyncConfiguration(
            user, flexible=True, initial_subscriptions=lambda subs, _realm: subs.add("Dog", query, name="dogs")
        )
        return rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync)

    return make


def test_both_ways(open_dogs: Open) -> None:
    """Two clients see what the other one writes, and agree."""
    with open_dogs("a") as one, open_dogs("b") as two:
        for writer, reader, key in ((one, two, 1), (two, one, 2)):
            with writer.write() as tx:
                tx.upsert("Dog", {"_id": key, "name": f"dog {key}"})
            writer.upload_all_local_changes(timeout=WAIT)
            reader.download_all_server_changes(timeout=WAIT)
        assert sorted(one["Dog"].name) == sorted(two["Dog"].name) == ["dog 1", "dog 2"]


def test_only_what_matches(open_dogs: Open) -> None:
    """A client has exactly the objects that its subscription matches, also after they change."""
    with open_dogs("a") as one:
        with one.write() as tx:
            tx.upsert("Dog", [{"_id": i, "age": i} for i in range(10)])
        one.upload_all_local_changes(timeout=WAIT)
        with open_dogs("b", "age > 6") as two:
            assert sorted(two["Dog"]._id) == [7, 8, 9]
            with one.write() as tx:
                tx.upsert("Dog", [{"_id": 1, "age": 50}, {"_id": 9, "age": 0}])
            one.upload_all_local_changes(timeout=WAIT)
            two.download_all_server_changes(timeout=WAIT)
            assert sorted(two["Dog"]._id) == [1, 7, 8]


def test_offline_edits_merge(open_dogs: Open) -> None:
    """What both wrote while one was paused comes together on both."""
    with open_dogs("a") as one, open_dogs("b") as two:
        with one.write() as tx:
            tx.upsert("Dog", {"_id": 1, "name": "Rex", "age": 1})
        one.upload_all_local_changes(timeout=WAIT)
        two.download_all_server_changes(timeout=WAIT)
        two.sync_session.pause()
        with one.write() as tx:
            tx.update("Dog", 1, name="one")
        with two.write() as tx:
            tx.increment("Dog", 1, "age", 5)
            tx.create("Dog", {"_id": 2, "name": "two"})
        one.upload_all_local_changes(timeout=WAIT)
        two.sync_session.resume()
        two.upload_all_local_changes(timeout=WAIT)
        for realm in (one, two):
            realm.download_all_server_changes(timeout=WAIT)
        seen = [sorted(zip(r["Dog"]._id, r["Dog"].name, strict=True)) for r in (one, two)]
        assert seen == [[(1, "one"), (2, "two")]] * 2
        assert [int(r["Dog"].age[0]) for r in (one, two)] == [6, 6]


def test_email_and_password(app: Callable[[str], rf.App]) -> None:
    """Registering allows logging in; a wrong password and a second registration are told apart."""
    made = app("a")
    made.email_password_auth.register_user("ann@example.com", "secret-1")
    user = made.log_in(rf.Credentials.email_password("ann@example.com", "secret-1"))
    assert user.is_logged_in
    with pytest.raises(rf.AuthError, match="password"):
        made.log_in(rf.Credentials.email_password("ann@example.com", "wrong-1"))
    with pytest.raises(rf.AppError) as caught:
        made.email_password_auth.register_user("ann@example.com", "secret-1")
    assert caught.value.code == "AccountNameInUse"
    user.log_out()
    assert user.state == "logged_out"


def test_large_bootstrap(open_dogs: Open) -> None:
    """More than one window of well-compressing data comes to a second client without a stall."""
    count = 60_000
    with open_dogs("a") as one:
        for start in range(0, count, 20_000):
            with one.write() as tx:
                tx.upsert("Dog", [{"_id": n, "name": "x" * 200, "age": 1} for n in range(start, start + 20_000)])
        one.upload_all_local_changes(timeout=120.0)
        with open_dogs("b") as two:
            assert len(two["Dog"]) == count
            assert (two["Dog"].name == "x" * 200).all()


@pytest.mark.parametrize("mode", ["flexible", "partition"])
def test_a_copy_turns_a_local_realm_into_a_synced_one_and_back(
    app: Callable[[str], rf.App], tmp_path: Path, mode: str
) -> None:
    """The objects of a local realm reach the server by its synced copy, and a local copy of that has them all."""
    user = app("a").log_in(rf.Credentials.anonymous())

    def sync(subscribe: bool = True) -> rf.SyncConfiguration:
        if mode == "partition":
            return rf.SyncConfiguration(user, partition_value="p")
        add = (lambda subs, _realm: subs.add("Dog", name="dogs")) if subscribe else None
        return rf.SyncConfiguration(user, flexible=True, initial_subscriptions=add)

    with rf.Realm.open(path=tmp_path / "local.realm", schema=[DOG]) as local:
        with local.write() as tx:
            tx.create("Dog", [{"_id": n, "name": f"dog {n}"} for n in range(3)])
        if mode == "flexible":
            with pytest.raises(rf.NoSubscriptionForWriteError, match="Dog"):
                local.write_copy_to(path="copy.realm", sync=sync(subscribe=False))
            assert not rf.Realm.exists(path="copy.realm", sync=sync())
        local.write_copy_to(path="copy.realm", sync=sync())
    with rf.Realm.open(path="copy.realm", schema=[DOG], sync=sync()) as copy:
        assert len(copy["Dog"]) == 3
        copy.upload_all_local_changes(timeout=WAIT)
        copy.download_all_server_changes(timeout=WAIT)
        assert copy.quarantine().empty
        copy.write_copy_to(tmp_path / "back.realm")
    with rf.Realm.open(path="other.realm", sync=sync()) as other:
        assert sorted(other["Dog"].name) == ["dog 0", "dog 1", "dog 2"]
    with rf.Realm.open(path=tmp_path / "back.realm") as back:
        assert back.status().synced is False
        assert sorted(back["Dog"].name) == ["dog 0", "dog 1", "dog 2"]
