"""Users and places of realms, against a real server: who opens what, what goes with whom, what works offline."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import realmframe as rf
from realmframe.cli import main
from realmframe.realm.core import is_open
from realmframe.testing import Server
from tests.waiting import WAIT, until

DOG = {"name": "Dog", "primaryKey": "_id", "properties": {"_id": "int", "name": "string?"}}
NOW = rf.OpenRealmBehaviorConfiguration("open_immediately")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of all tests here, whose access tokens live four seconds."""
    with Server(tmp_path_factory.mktemp("server") / "data", access_token_seconds=4) as running:
        yield running


class Refuses(httpx.AsyncBaseTransport):
    """A network that must not be asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Note the request, and fail."""
        self.asked.append(str(request.url))
        raise httpx.ConnectError("no network in this test")


def make_app(server: Server | str, path: Path, app: str = "test", **options: Any) -> rf.App:
    """Make an app."""
    url = server if isinstance(server, str) else server.url
    return rf.App(app, base_url=url, base_file_path=path, timeout=WAIT, **options)


def log_in(app: rf.App, name: str) -> rf.User:
    """Register and log in."""
    email = f"{name}-{time.monotonic_ns()}@example.com"
    app.email_password_auth.register_user(email, "secret-1")
    return app.log_in(rf.Credentials.email_password(email, "secret-1"))


def sync(user: rf.User, behavior: Any = NOW, **options: Any) -> rf.SyncConfiguration:
    """Configure sync of everything."""
    options.setdefault("initial_subscriptions", lambda subs, realm: subs.add("Dog"))
    return rf.SyncConfiguration(
        user, flexible=True, new_realm_file_behavior=behavior, existing_realm_file_behavior=behavior, **options
    )


# ---------------------------------------------------------------------- offline


@pytest.mark.parametrize("expired", [False, True])
def test_a_cached_user_opens_offline(server: Server, tmp_path: Path, expired: bool) -> None:
    """Without network a cached user's realm opens with its data; while the token is good nothing is even asked."""
    app = make_app(server, tmp_path)
    user = log_in(app, "ann")
    with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user)) as realm, realm.write() as tx:
        tx.create("Dog", {"_id": 1})
    network = Refuses()
    now = time.time() + (1000 if expired else 0)
    again = make_app("http://127.0.0.1:9", tmp_path, transport=network, clock=lambda: now - (0 if expired else 60))
    cached = again.current_user
    assert cached is not None
    assert (cached.id, cached.is_logged_in, cached.profile) == (user.id, True, user.profile)
    assert again.all_users.keys() == {user.id}
    for behavior in (NOW, rf.OpenRealmBehaviorConfiguration("download_before_open", 0.3, "open_local_realm")):
        with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(cached, behavior)) as realm:
            assert len(realm["Dog"]) == 1
            assert cached.is_logged_in
    if not expired:
        assert network.asked == []
    with pytest.raises(rf.NetworkError, match="first log-in needs the server"):
        again.log_in(rf.Credentials.email_password("bob@example.com", "secret-1"))


def test_anonymous_offline_is_the_same_user(server: Server, tmp_path: Path) -> None:
    """An anonymous user who logged in before logs in again without network."""
    user = make_app(server, tmp_path).log_in(rf.Credentials.anonymous())
    network = Refuses()
    again = make_app("http://127.0.0.1:9", tmp_path, transport=network)
    assert again.log_in(rf.Credentials.anonymous()).id == user.id
    assert network.asked == []
    with pytest.raises(rf.NetworkError):
        again.log_in(rf.Credentials.anonymous(reuse=False))


# ---------------------------------------------------------------------- tokens and revocation


def test_tokens_are_renewed_while_syncing(server: Server, tmp_path: Path) -> None:
    """A token of four seconds is replaced while the realm is open, without anybody asking and without a break."""
    app = make_app(server, tmp_path)
    user = log_in(app, "ann")
    with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user)) as realm:
        first, states = user.access_token, []
        realm.download_all_server_changes(timeout=WAIT)
        stop = realm.sync_session.listen(lambda: states.append(realm.sync_session.connection_state))
        assert until(lambda: user.access_token != first)
        stop()
        assert set(states) <= {"connected"}


@pytest.mark.parametrize("action", ["disable", "revoke"])
def test_a_revoked_user_is_logged_out_at_once(server: Server, tmp_path: Path, action: str) -> None:
    """The administrator's word ends sync here: an event, an AuthError, an inactive session; local data stays."""
    app = make_app(server, tmp_path)
    user, errors, heard = log_in(app, "ann"), [], []
    app.listen(lambda: heard.append(user.state))
    configuration = sync(user, on_error=lambda session, error: errors.append(error))
    with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=configuration) as realm:
        realm.download_all_server_changes(timeout=WAIT)
        with realm.write() as tx:
            tx.upsert("Dog", [{"_id": 1001, "name": "Rex"}])
        realm.upload_all_local_changes(timeout=WAIT)
        data = Path(str(server.data))
        assert main(["admin", "users", action, user.id, "--app", "test", "--data", str(data)]) == 0
        assert until(lambda: user.state == "logged_out")
        assert until(lambda: heard[-1:] == ["logged_out"])  # told after the state has changed, in the sync thread
        assert until(lambda: realm.sync_session.state == "inactive")
        assert until(lambda: any(isinstance(e, rf.AuthError) for e in errors))
        with realm.write() as tx:
            tx.create("Dog", {"_id": 1002})
        assert {1001, 1002} <= set(realm["Dog"]["_id"])
    assert (tmp_path / "dogs.realm").is_dir()
    with pytest.raises(rf.AuthError, match="not logged in"):
        rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user))


def test_a_revoked_anonymous_user_keeps_the_data(server: Server, tmp_path: Path) -> None:
    """An anonymous user who is revoked is forgotten, but what is on disk stays, also at the next launch."""
    app = make_app(server, tmp_path)
    user = app.log_in(rf.Credentials.anonymous())
    with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user)) as realm:
        realm.download_all_server_changes(timeout=WAIT)
        assert main(["admin", "users", "revoke", user.id, "--app", "test", "--data", str(server.data)]) == 0
        assert until(lambda: user.state == "removed")
    make_app(server, tmp_path)
    assert (tmp_path / "dogs.realm").is_dir()


# ---------------------------------------------------------------------- files go with their user


def test_remove_user_deletes_their_realms(server: Server, tmp_path: Path) -> None:
    """Tracked realms go at once; an absolute path, another user's and a local realm stay."""
    app = make_app(server, tmp_path / "base")
    ann, bob = log_in(app, "ann"), log_in(app, "bob")
    absolute = tmp_path / "elsewhere" / "own.realm"
    mine = [{"path": "sub/dogs.realm"}, {}, {"path": str(absolute)}]
    for places, user in ((mine, ann), ([{"path": "bob.realm"}], bob)):
        for place in places:
            rf.Realm.open(schema=[DOG], sync=sync(user), **place).close()
    rf.Realm.open(path="notes.realm", base_file_path=tmp_path / "base", schema=[DOG]).close()
    app.remove_user(ann)
    assert ann.state == "removed"
    assert ann.id not in app.all_users
    left = sorted(p.name for p in (tmp_path / "base").rglob("*.realm"))
    assert left == ["bob.realm", "notes.realm"]
    assert absolute.is_dir()
    with pytest.raises(rf.UsageError, match="removed"):
        app.remove_user(ann)


def test_realms_in_use_go_at_the_next_launch(server: Server, tmp_path: Path) -> None:
    """A realm that is open stays usable while its user is removed, and is deleted when an App is next made."""
    app = make_app(server, tmp_path)
    user = log_in(app, "ann")
    with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user)) as realm:
        app.remove_user(user)
        make_app(server, tmp_path)
        with realm.write() as tx:
            tx.create("Dog", {"_id": 1})
        assert len(realm["Dog"]) == 1
    assert (tmp_path / "dogs.realm").is_dir()
    make_app(server, tmp_path)
    assert not (tmp_path / "dogs.realm").exists()


def test_who_logs_in_again_keeps_them(server: Server, tmp_path: Path) -> None:
    """A removed user who logs in before the next launch keeps the realms that were in use."""
    app = make_app(server, tmp_path)
    app.email_password_auth.register_user("keeps@example.com", "secret-1")
    credentials = rf.Credentials.email_password("keeps@example.com", "secret-1")
    user = app.log_in(credentials)
    with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user)):
        app.remove_user(user)
        assert app.log_in(credentials).id == user.id
    make_app(server, tmp_path)
    assert (tmp_path / "dogs.realm").is_dir()


def test_an_anonymous_user_who_logs_out_takes_the_realms_along(server: Server, tmp_path: Path) -> None:
    """Nobody could open them any more: they go at the next launch, as in the SDKs. A named user's stay."""
    app = make_app(server, tmp_path)
    anonymous, named = app.log_in(rf.Credentials.anonymous()), log_in(app, "ann")
    for user, path in ((anonymous, "a.realm"), (named, "n.realm")):
        rf.Realm.open(path=path, schema=[DOG], sync=sync(user)).close()
        user.log_out()
        assert (tmp_path / path).is_dir()
    make_app(server, tmp_path)
    assert not (tmp_path / "a.realm").exists()
    assert (tmp_path / "n.realm").is_dir()


def test_delete_user_at_the_server_and_here(server: Server, tmp_path: Path) -> None:
    """The server forgets the user, and so does the disk."""
    app = make_app(server, tmp_path)
    app.email_password_auth.register_user("deleted@example.com", "secret-1")
    credentials = rf.Credentials.email_password("deleted@example.com", "secret-1")
    user = app.log_in(credentials)
    rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user)).close()
    app.delete_user(user)
    assert not (tmp_path / "dogs.realm").exists()
    with pytest.raises(rf.AuthError, match="InvalidPassword"):
        app.log_in(credentials)


def test_a_place_taken_by_somebody_else_is_left_alone(server: Server, tmp_path: Path) -> None:
    """A realm that another user made where a removed user's was is not deleted with the first."""
    app = make_app(server, tmp_path)
    ann, bob = log_in(app, "ann"), log_in(app, "bob")
    rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(ann)).close()
    rf.Realm.delete_files(path="dogs.realm", sync=sync(ann))
    rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(bob)).close()
    app.remove_user(ann)
    assert (tmp_path / "dogs.realm").is_dir()


# ---------------------------------------------------------------------- linking and custom data


def test_linking_keeps_user_and_realms(server: Server, tmp_path: Path) -> None:
    """An anonymous user who gets a name keeps id and realms, and no longer disappears on logging out."""
    app = make_app(server, tmp_path)
    user = app.log_in(rf.Credentials.anonymous(reuse=False))
    rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(user)).close()
    app.email_password_auth.register_user("linked@example.com", "secret-1")
    credentials = rf.Credentials.email_password("linked@example.com", "secret-1")
    user.link_credentials(credentials)
    assert {i.provider_type for i in user.identities} == {"anon-user", "local-userpass"}
    assert app.log_in(rf.Credentials.anonymous()).id != user.id
    user.log_out()
    assert user.state == "logged_out"
    make_app(server, tmp_path)
    assert (tmp_path / "dogs.realm").is_dir()
    assert app.log_in(credentials).id == user.id


def test_custom_data(server: Server, tmp_path: Path) -> None:
    """What the server keeps of a user comes with a fresh token."""
    user = log_in(make_app(server, tmp_path), "ann")
    assert user.custom_data == {}
    data = ["--app", "test", "--data", str(server.data)]
    assert main(["admin", "users", "set-data", user.id, '{"n": {"$numberLong": "7"}}', *data]) == 0
    assert user.refresh_custom_data() == {"n": 7}
    assert user.custom_data == {"n": 7}


# ---------------------------------------------------------------------- places


def test_the_wrong_user_or_app(server: Server, tmp_path: Path) -> None:
    """A realm opens only as the user and app that made it; the error names both, and nothing is changed."""
    app = make_app(server, tmp_path)
    ann, bob = log_in(app, "ann"), log_in(app, "bob")
    stranger = log_in(make_app(server, tmp_path, "other"), "ann")
    rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(ann)).close()
    for wrong in (bob, stranger):
        with pytest.raises(rf.WrongUserError) as caught:
            rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(wrong))
        for name in (ann.id, wrong.id, "test", wrong.app.id):
            assert name in str(caught.value)
        app.remove_user(bob) if wrong is bob else None
    with rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(ann)), pytest.raises(rf.WrongUserError):
        rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync(stranger))


def test_looking_touches_nothing(server: Server, tmp_path: Path) -> None:
    """path_for, exists and delete_files of what is not there make no file or folder, and start no thread."""
    app = make_app(server, tmp_path / "base")
    user = log_in(make_app(server, tmp_path / "other"), "ann")
    moved = rf.User(app, user.id)
    threads = threading.active_count()
    for place in ({}, {"path": "sub/dogs.realm"}, {"path": str(tmp_path / "x.realm")}):
        found = rf.Realm.path_for(sync=sync(moved), **place)
        assert found.rule
        assert not rf.Realm.exists(sync=sync(moved), **place)
        rf.Realm.delete_files(sync=sync(moved), **place)
    assert not (tmp_path / "base").exists()
    assert threading.active_count() == threads
    assert rf.Realm.path_for(sync=sync(moved)).path == tmp_path / "base" / f"flx_sync_default_{user.id}.realm"


def test_local_realms_stay_inside_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without base_file_path the working directory is the bound, for links as well."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "sub").symlink_to(tmp_path, target_is_directory=True)
    monkeypatch.chdir(tmp_path / "cwd")
    for act in (rf.Realm.open, rf.Realm.delete_files):
        with pytest.raises(rf.UsageError, match="through a link"):
            act(path="sub/a.realm")
    with pytest.raises(rf.UsageError, match="leads out"):
        rf.Realm.open(path="../a.realm", schema=[DOG])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cwd"]


HOLD = """
import sys
import realmframe as rf
realm = rf.Realm.open(path=sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
realm.close()
"""


@pytest.mark.process
@pytest.mark.parametrize("path", [None, "sub/dogs.realm"])
def test_the_working_directory_is_changed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    """Without base_file_path the realms of an app stay where its users are, also when a notebook moves on."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    app = rf.App("moving", base_url=server.url)
    sync = rf.SyncConfiguration(app.log_in(rf.Credentials.anonymous()), flexible=True)
    before = rf.Realm.path_for(path=path, sync=sync)
    monkeypatch.chdir(tmp_path / "second")
    assert rf.Realm.path_for(path=path, sync=sync) == before
    assert before.path.is_relative_to(tmp_path / "first")
    assert "the current working directory" in before.rule
    rf.Realm.open(path=path, sync=sync).close()
    assert list((tmp_path / "second").iterdir()) == []


def test_delete_files_while_open(tmp_path: Path) -> None:
    """What is open, here or in another process, is not deleted; closed, it is, with everything."""
    place = {"path": str(tmp_path / "dogs.realm")}
    with rf.Realm.open(schema=[DOG], **place) as realm:
        with pytest.raises(rf.StorageError, match="is open"):
            rf.Realm.delete_files(**place)
        assert is_open(realm.path)
    arguments = [sys.executable, "-c", HOLD, place["path"]]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(rf.StorageError, match="open in another process"):
            rf.Realm.delete_files(**place)
        assert rf.Realm.exists(**place)
        process.communicate("\n", timeout=30)
    rf.Realm.delete_files(**place)
    assert not rf.Realm.exists(**place)
    assert list(tmp_path.iterdir()) == []


LOG_IN = """
import sys
import realmframe as rf
app = rf.App("test", base_url=sys.argv[1], base_file_path=sys.argv[2])
for _ in range(5):
    print(app.log_in(rf.Credentials.anonymous(reuse=False)).id)
"""


@pytest.mark.process
def test_two_processes_log_in_at_once(server: Server, tmp_path: Path) -> None:
    """Ten users of two processes on one base_file_path are all there in the end, with tokens that work."""
    arguments = [sys.executable, "-c", LOG_IN, server.url, str(tmp_path)]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ids = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert len(set(ids)) == 10
    app = make_app(server, tmp_path)
    assert set(app.all_users) == set(ids)
    assert app.current_user is not None
    assert all(isinstance(user.refresh_custom_data(), dict) for user in app.all_users.values())
