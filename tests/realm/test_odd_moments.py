"""Closing where nobody expects it, joining what is half open, and processes that were forked off."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.client.loop import in_sync_thread
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


def configuration(user: rf.User, path: str = "dogs.realm", time_out: float = 20.0) -> dict[str, Any]:
    """Configure a realm of dogs."""
    behaviour = rf.OpenRealmBehaviorConfiguration("download_before_open", time_out, "throw_exception")
    sync = rf.SyncConfiguration(
        user,
        flexible=True,
        initial_subscriptions=lambda subs, _realm: subs.add("Dog"),
        new_realm_file_behavior=behaviour,
        existing_realm_file_behavior=behaviour,
    )
    return {"path": path, "schema": [DOG], "sync": sync}


def user_of(url: str, folder: Path, **options: Any) -> rf.User:
    """Log in."""
    return rf.App("odd", base_url=url, base_file_path=folder, **options).log_in(rf.Credentials.anonymous())


def write(realm: rf.Realm, key: int) -> None:
    """Write a dog."""
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key}])


def test_closed_by_a_listener_of_the_write(tmp_path: Path) -> None:
    """The write is done, and nobody is told that it was not."""
    realm = rf.Realm.open(path=tmp_path / "dogs.realm", schema=[DOG])
    realm.listen(realm.close)
    write(realm, 1)
    assert realm.is_closed
    with rf.Realm.open(path=tmp_path / "dogs.realm") as again:
        assert again["Dog"]["_id"].tolist() == [1]


def test_closed_in_the_sync_thread(server: Server, tmp_path: Path) -> None:
    """A listener that is called there may close; what others have open goes on."""
    with FaultProxy(server.url) as line:
        user = user_of(line.url, tmp_path)
        realm, closed = rf.Realm.open(**configuration(user)), threading.Event()

        def close() -> None:
            if in_sync_thread():
                realm.close()
                closed.set()

        realm.listen(close)
        line.cut()
        assert closed.wait(20.0)
        assert realm.core.closed.wait(20.0)
        with rf.Realm.open(**configuration(user)) as again:
            write(again, 1)
            again.upload_all_local_changes(timeout=WAIT)


def test_the_phase_of_a_connection_that_is_being_opened(server: Server, tmp_path: Path) -> None:
    """Who joins it is told what is being done, not what was done before."""
    with FaultProxy(server.url) as line:
        user = user_of(line.url, tmp_path)
        line.fault(stall_after=0)
        for name in ("a.realm", "b.realm"):
            with pytest.raises(rf.OpenTimeoutError) as late:
                rf.Realm.open(**configuration(user, name, 0.5))
            assert late.value.phase == "connect"


@pytest.mark.parametrize(
    ("status", "text"), [(503, "tries again by itself"), (401, "the user's token"), (404, "does the app exist")]
)
def test_a_websocket_that_is_refused(server: Server, tmp_path: Path, status: int, text: str) -> None:
    """The error says what the status means."""
    with FaultProxy(server.url) as line:
        user = user_of(line.url, tmp_path)
        line.fault(status=status)
        with pytest.raises((rf.OpenTimeoutError, rf.NetworkError)) as refused:
            rf.Realm.open(**configuration(user, time_out=1.0))
        error = refused.value if status == 404 else refused.value.__cause__
        assert isinstance(error, rf.NetworkError)
        assert text in str(error)


def test_a_realm_in_a_realm(tmp_path: Path) -> None:
    """It would be deleted with the outer one, so it is not made; nor are its folders."""
    outer = rf.Realm.open(path=tmp_path / "outer.realm", schema=[DOG])
    with pytest.raises(rf.UsageError, match=r"in the folder of another realm, .*outer\.realm"):
        rf.Realm.open(path=outer.path / "sub" / "inner.realm", schema=[DOG])
    assert not (outer.path / "sub").exists()
    outer.close()


FORK = """
import os, sys, threading
import realmframe as rf
url, folder = sys.argv[1:]
DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
app = rf.App("odd", base_url=url, base_file_path=folder)
sync = rf.SyncConfiguration(
    app.log_in(rf.Credentials.anonymous()), flexible=True, initial_subscriptions=lambda subs, _: subs.add("Dog")
)
def refused(f, *arguments):
    try:
        f(*arguments)
    except rf.UsageError as error:
        assert "forked off" in str(error), error
        return
    raise AssertionError(f)
def write(realm, key):
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key}])
realm = rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync)
write(realm, 1)
realm.upload_all_local_changes(timeout=60.0)
assert not realm.status().is_stale
held, over = threading.Event(), threading.Event()
def hold():
    with realm.core.store._lock:  # as while something is integrated
        held.set()
        over.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    status = 1
    try:
        assert realm["Dog"]["_id"].tolist() == [1]
        assert realm.status().is_stale and realm["Dog"].realm.as_of is not None  # nothing comes here any more
        assert realm.as_of(realm.status().version)["Dog"]["_id"].tolist() == [1] and len(realm.history("Dog")) == 1
        for work in (realm.refresh, realm.upload_all_local_changes, lambda: realm.sync_session):
            refused(work)
        refused(write, realm, 9)
        realm.close()
        again = rf.Realm.open(path="dogs.realm", sync=sync)
        write(again, 2)
        again.upload_all_local_changes(timeout=60.0)
        again.download_all_server_changes(timeout=60.0)
        other, heard = rf.Realm.open(path="more.realm", schema=[DOG], sync=sync), []
        other.sync_session.progress(heard.append)
        other.download_all_server_changes(timeout=60.0)
        assert sorted(other["Dog"]["_id"]) == [1, 2]
        again.close(); other.close()
        assert heard
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
over.set()
assert os.waitpid(child, 0)[1] == 0
realm.download_all_server_changes(timeout=60.0)
write(realm, 3)
realm.upload_all_local_changes(timeout=60.0)
assert sorted(realm["Dog"]["_id"]) == [1, 2, 3]
realm.close()
"""


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="Windows has no fork")
def test_fork(server: Server, tmp_path: Path) -> None:
    """A forked process reads what its parent had open, is told to open for anything else, and then all works."""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, server.url, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


LAST_THREAD = """
import sys, threading
import realmframe as rf
url, folder = sys.argv[1:]
DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
app = rf.App("last", base_url=url, base_file_path=folder)
sync = rf.SyncConfiguration(
    app.log_in(rf.Credentials.anonymous()), flexible=True, initial_subscriptions=lambda subs, _: subs.add("Dog")
)
one, other = (rf.Realm.open(path=name, schema=[DOG], sync=sync) for name in ("dogs.realm", "more.realm"))
heard = threading.Event()
def write(realm, key):
    with realm.write() as tx:
        tx.upsert("Dog", [{"_id": key}])
    realm.upload_all_local_changes(timeout=60)
def last():
    threading.main_thread().join()
    one.sync_session.progress(lambda now: heard.set() if now.objects else None)
    write(other, 1)
    one.download_all_server_changes(timeout=60)
    one.refresh()
    assert one["Dog"]["_id"].tolist() == [1]
    assert heard.wait(60)
    one.sync_session.pause()
    one.sync_session.resume()
    write(one, 2)
    one.close(); other.close()
    print("well")
threading.Thread(target=last).start()
"""


def test_the_last_threads_of_a_program(server: Server, tmp_path: Path) -> None:
    """Sync goes on while any thread of it runs, also when the main one has ended."""
    url = server.url.replace("127.0.0.1", "localhost")
    arguments = [sys.executable, "-c", LAST_THREAD, url, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")
