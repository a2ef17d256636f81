"""What applications do when they are asked for their initial subscriptions, at odd moments and in odd ways."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import realmframe as rf
from realmframe.realm.core import is_open
from tests.waiting import WAIT, until

#: A task of anyio that is cancelled before it began is not awaited; it happens when the test ends while connecting.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*connect_tcp:pytest.PytestUnraisableExceptionWarning"),
]

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
Login = Callable[..., rf.User]
Subscribe = Callable[[rf.MutableSubscriptionSet, rf.Realm], object]


def configuration(user: rf.User, subscribe: Any, time_out: float = 10.0, **sync: Any) -> dict[str, Any]:
    """Configure a realm that asks so."""
    behaviour = rf.OpenRealmBehaviorConfiguration("download_before_open", time_out, "throw_exception")
    sync = {"new_realm_file_behavior": behaviour, "existing_realm_file_behavior": behaviour} | sync
    made = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=subscribe, **sync)
    return {"path": "dogs.realm", "schema": [DOG], "sync": made}


def queries(realm: rf.Realm) -> list[str]:
    """Give the queries of all subscriptions."""
    return [s.query for s in realm.subscriptions]


@pytest.mark.parametrize("rerun", [False, True])
def test_two_are_asked_at_once(login: Login, rerun: bool) -> None:
    """Two threads open a new realm: both are asked, one set is written, and what happened meanwhile stays."""
    user, both = login(), threading.Barrier(2, timeout=WAIT)
    realms: list[rf.Realm] = []

    def subscribe(subs: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
        subs.add("Dog", name="dogs")
        both.wait()

    def opened(slow: bool) -> None:
        def subscribe_late(subs: rf.MutableSubscriptionSet, realm: rf.Realm) -> None:
            subscribe(subs, realm)
            if slow:
                assert first.wait(10.0)

        realms.append(rf.Realm.open(**configuration(user, subscribe_late, rerun_on_open=rerun)))
        if not slow:
            with realms[0].subscriptions.update(timeout=WAIT) as subs:
                subs.add("Dog", "_id > 7", name="mine")
            first.set()

    first = threading.Event()
    threads = [threading.Thread(target=opened, args=(slow,)) for slow in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert len(realms) == 2
    for realm in realms:
        assert sorted(s.name or "" for s in realm.subscriptions) == ["dogs", "mine"]
        assert realm.subscriptions.version == 2
        realm.close()


def wait_forever(subs: rf.MutableSubscriptionSet, realm: rf.Realm) -> None:
    """Wait for what comes only later."""
    subs.add("Dog")
    realm.download_all_server_changes()


def update(subs: rf.MutableSubscriptionSet, realm: rf.Realm) -> None:
    """Change the realm's set in place of the one that is given."""
    subs.add("Dog")
    with realm.subscriptions.update() as others:
        others.add("Dog", "_id > 7")


@pytest.mark.parametrize(
    ("subscribe", "text"),
    [(wait_forever, "sync begins afterwards"), (update, "the set that it is given")],
)
def test_what_would_wait_for_ever(login: Login, subscribe: Subscribe, text: str) -> None:
    """What cannot be done in there is refused, and says so; nothing was written."""
    user = login()
    with pytest.raises(rf.UsageError, match=text):
        rf.Realm.open(**configuration(user, subscribe))
    with rf.Realm.open(**configuration(user, lambda subs, _: subs.add("Dog", "_id > 3"))) as realm:
        assert queries(realm) == ["_id > 3 "]
        assert realm.subscriptions.version == 1


def test_an_application_that_raises(login: Login) -> None:
    """Its own error comes out, nothing is left open or written, and it is asked again the next time."""
    user = login()

    def fail(subs: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
        subs.add("Dog", name="half")
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        rf.Realm.open(**configuration(user, fail))
    assert until(lambda: not is_open(user.app.base_file_path / "dogs.realm"))
    with rf.Realm.open(**configuration(user, lambda subs, _: subs.add("Dog"))) as realm:
        assert queries(realm) == ["TRUEPREDICATE "]
        assert realm.subscriptions.version == 1


def test_an_application_that_thinks_for_long(login: Login) -> None:
    """Its time counts, and is not taken for that of the files: the subscriptions are there afterwards."""
    user = login()

    def subscribe(subs: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
        time.sleep(1.3)
        subs.add("Dog")

    with pytest.raises(rf.OpenTimeoutError) as late:
        rf.Realm.open(**configuration(user, subscribe, time_out=0.2))
    assert late.value.phase != "files"
    with rf.Realm.open(**configuration(user, lambda *_: pytest.fail("asked again"))) as realm:
        assert queries(realm) == ["TRUEPREDICATE "]


async def in_a_loop(subs: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
    """Be something that nobody awaits."""
    subs.add("Dog")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"initial_subscriptions": in_a_loop}, "initial_subscriptions must be a plain function"),
        ({"on_error": in_a_loop}, "on_error must be a plain function"),
        ({"client_reset": {"mode": "manual", "on_manual": in_a_loop}}, "on_manual must be a plain function"),
        ({"initial_subscriptions": {"update": print, "rerunOnOpen": True}}, "Did you mean 'rerun_on_open'"),
    ],
)
def test_refused_when_configured(login: Login, options: dict[str, Any], text: str) -> None:
    """A coroutine function would never run, and a misspelt keyword would do nothing."""
    with pytest.raises(rf.UsageError, match=text):
        rf.SyncConfiguration(login(), flexible=True, **options)


@pytest.mark.parametrize("time_out", [float("inf"), 1e12])
def test_a_time_out_beyond_all_bounds(login: Login, time_out: float) -> None:
    """It is a long time, not an error of the clock."""
    with rf.Realm.open(**configuration(login(), lambda subs, _: subs.add("Dog"), time_out)) as realm:
        assert queries(realm) == ["TRUEPREDICATE "]
        realm.download_all_server_changes(timeout=time_out)
