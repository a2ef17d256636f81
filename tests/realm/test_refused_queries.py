"""A subscription set that the real server refuses: the one before stays in force, over restarts too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.query.flexible import MAX_TEXT
from realmframe.testing import Server
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
#: Not too long for one subscription, but for a set, together with what is put around it.
TOO_LONG = f"name == '{'x' * (MAX_TEXT - 11)}'"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one server; each test has an app of its own."""
    with Server() as running:
        yield running


@pytest.fixture
def user(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], rf.User]:
    """Log users in, each with a folder of its own."""
    app_id = f"app{abs(hash(request.node.name)) % 10**8}"

    def make(name: str) -> rf.User:
        app = rf.App(app_id, base_url=server.url, base_file_path=tmp_path / name)
        return app.current_user or app.log_in(rf.Credentials.anonymous())

    return make


def open_dogs(user: rf.User, query: str = "TRUEPREDICATE", **sync: Any) -> rf.Realm:
    """Open a realm that sees some dogs."""
    settings = {"flexible": True, "initial_subscriptions": lambda subs, _r: subs.add("Dog", query, name="dogs")} | sync
    return rf.Realm.open(path="dogs.realm", schema=[DOG], sync=rf.SyncConfiguration(user, **settings))


def write(realm: rf.Realm, key: int, name: str) -> None:
    """Write a dog, and have it at the server."""
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key, "name": name}])
    realm.upload_all_local_changes(WAIT)


def names(realm: rf.Realm) -> dict[int, str]:
    """Give what is here once everything has come."""
    realm.download_all_server_changes(WAIT)
    realm.refresh()
    return dict(zip(realm["Dog"]._id.tolist(), realm["Dog"].name.tolist(), strict=True))


def refuse(realm: rf.Realm, name: str | None = "bad") -> None:
    """Ask for what the server refuses."""
    with pytest.raises(rf.QueryError, match="too large"), realm.subscriptions.update(timeout=WAIT) as subs:
        subs.add("Dog", TOO_LONG, name=name)
    assert realm.subscriptions.state == "error"
    assert "too large" in realm.subscriptions.error


def test_the_previous_set_stays_in_force(user: Callable[[str], rf.User]) -> None:
    """Data stays, what fits the previous set goes on coming and going, also after a restart; the next set heals it."""
    told: list[Any] = []
    now = rf.OpenRealmBehaviorConfiguration("open_immediately")
    mine = open_dogs(
        user("a"), "name == 'Rex'", on_error=lambda _s, e: told.append(e), existing_realm_file_behavior=now
    )
    with mine, open_dogs(user("b")) as other:
        write(other, 1, "Rex")
        assert names(mine) == {1: "Rex"}
        refuse(mine)
        assert [s.name for s in mine.subscriptions] == ["dogs", "bad"]
        version = mine.subscriptions.version
        write(other, 2, "Rex")
        write(other, 3, "Max")
        assert names(mine) == {1: "Rex", 2: "Rex"}
        write(mine, 4, "Rex")
        assert names(other) == {1: "Rex", 2: "Rex", 3: "Max", 4: "Rex"}
        assert mine.sync_session.state == "active"
        assert [type(e) for e in told] == [rf.QueryError]
        # A wait for a set that was refused ends at once, however often.
        with pytest.raises(rf.QueryError, match="too large"):
            mine.subscriptions.wait_for_synchronization(timeout=0)
        mine.close()
        write(other, 5, "Rex")
        write(other, 6, "Max")
        with open_dogs(user("a"), existing_realm_file_behavior=now) as again:
            assert again.subscriptions.state == "error"
            assert again.subscriptions.version == version
            assert names(again) == {1: "Rex", 2: "Rex", 4: "Rex", 5: "Rex"}
            # Not asked for again: it was refused, and stays so.
            assert again.subscriptions.state == "error"
            with again.subscriptions.update(timeout=WAIT) as subs:
                subs.add("Dog", "name == 'Max'", name="bad")
            assert (again.subscriptions.state, again.subscriptions.error) == ("complete", None)
            assert names(again) == {1: "Rex", 2: "Rex", 3: "Max", 4: "Rex", 5: "Rex", 6: "Max"}


def test_waiting_opens_fail_with_the_reason(user: Callable[[str], rf.User]) -> None:
    """As in the SDKs, an open that waits for a set which was refused says so, at once, and what is here stays."""
    with open_dogs(user("a")) as mine:
        write(mine, 1, "Rex")
        refuse(mine)
    begun = time.monotonic()
    with pytest.raises(rf.QueryError, match="too large"):
        open_dogs(user("a"))
    assert time.monotonic() - begun < 5.0
    now = rf.OpenRealmBehaviorConfiguration("open_immediately")
    with open_dogs(user("a"), existing_realm_file_behavior=now) as mine:
        assert names(mine) == {1: "Rex"}
        with mine.subscriptions.update(timeout=WAIT) as subs:
            assert subs.remove("bad")
    with open_dogs(user("a")) as mine:
        assert names(mine) == {1: "Rex"}


def test_the_first_set_is_refused(user: Callable[[str], rf.User]) -> None:
    """Without a set before it nothing comes, and nothing breaks: the next set brings everything."""
    now = rf.OpenRealmBehaviorConfiguration("open_immediately")
    with open_dogs(user("b")) as other, open_dogs(user("a"), TOO_LONG, new_realm_file_behavior=now) as mine:
        write(other, 1, "Rex")
        with pytest.raises(rf.QueryError, match="too large"):
            mine.subscriptions.wait_for_synchronization(WAIT)
        assert names(mine) == {}
        with mine.subscriptions.update(timeout=WAIT) as subs:
            subs.add("Dog", name="dogs")
        assert names(mine) == {1: "Rex"}


def test_refused_sets_one_after_another(user: Callable[[str], rf.User]) -> None:
    """The set in force is the last good one, and one that is overtaken while it is refused does no harm."""
    with open_dogs(user("a"), "name == 'Rex'") as mine, open_dogs(user("b")) as other:
        refuse(mine)
        refuse(mine, "worse")
        for query in (TOO_LONG, "name == 'Rex'"):
            with mine.subscriptions.update(wait=False) as subs:
                subs.remove_all()
                subs.add("Dog", query, name="last")
        write(other, 1, "Rex")
        write(other, 2, "Max")
        mine.subscriptions.wait_for_synchronization(WAIT)
        assert names(mine) == {1: "Rex"}
        assert mine.subscriptions.state == "complete"
