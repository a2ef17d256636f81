"""The users' file under bad luck: several processes, kills, damage, read-only folders, links, wrong keys, odd names."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realmframe.client import App, Credentials, MetadataConfiguration
from realmframe.client.metadata import Metadata, UserRecord
from realmframe.client.paths import metadata_folder
from realmframe.errors import CorruptFileError, ReadOnlyError, RealmError, StorageError, UsageError

Make = Callable[..., App]
KEY, OTHER = bytes(range(64)), bytes(range(1, 65))
ENCRYPTED = MetadataConfiguration("encryption", KEY)


def record(name: str = "u", token: str = "secret-token") -> UserRecord:
    """Make a user who is logged in."""
    return UserRecord(name, provider="local-userpass", access_token=token, refresh_token=token)


def folder(tmp_path: Path, app: str = "app") -> Path:
    """Give an app's folder."""
    return metadata_folder(tmp_path, app)


# ---------------------------------------------------------------------- encryption


def test_encrypted_users_come_back(tmp_path: Path) -> None:
    """With the key everything comes back; no token or name is on disk, and two writings differ."""
    kept = Metadata(folder(tmp_path), ENCRYPTED)
    kept.put(record("ann"), current=True)
    first = kept.path.read_bytes()
    assert b"secret-token" not in first
    assert b"ann" not in first
    again = Metadata(folder(tmp_path), ENCRYPTED)
    assert again.current() == record("ann")
    again.set_current("ann")
    second = kept.path.read_bytes()
    assert json.loads(first)["sealed"] != json.loads(second)["sealed"]
    shown = repr(ENCRYPTED) + repr(kept._vault) + second.decode()
    for secret in (repr(KEY), KEY.hex(), base64.b64encode(KEY).decode()):
        assert secret not in shown


@pytest.mark.parametrize(
    ("written", "read", "text"),
    [
        (ENCRYPTED, MetadataConfiguration("encryption", OTHER), "another encryption_key"),
        (ENCRYPTED, None, "are encrypted"),
        (None, ENCRYPTED, "are not encrypted"),
    ],
)
def test_wrong_keys_are_told(tmp_path: Path, written: Any, read: Any, text: str) -> None:
    """Another key, none, or one too many is an error that says so, for reading and writing, and harms nothing."""
    Metadata(folder(tmp_path), written).put(record())
    before = (folder(tmp_path) / "users.json").read_bytes()
    wrong = Metadata(folder(tmp_path), read)
    for act in (wrong.current, lambda: wrong.put(record("other"))):
        with pytest.raises(UsageError, match=text):
            act()
    assert (folder(tmp_path) / "users.json").read_bytes() == before


@pytest.mark.parametrize("name", ["salt", "nonce", "sealed"])
def test_changed_ciphertext_is_damage(tmp_path: Path, name: str) -> None:
    """A changed byte anywhere is damage, not a wrong key, and never another user's data."""
    kept = Metadata(folder(tmp_path), ENCRYPTED)
    kept.put(record())
    form = json.loads(kept.path.read_text())
    form[name] = ("B" if form[name][0] == "A" else "A") + form[name][1:]
    kept.path.write_text(json.dumps(form))
    with pytest.raises(CorruptFileError):
        Metadata(folder(tmp_path), ENCRYPTED).current()


@pytest.mark.parametrize(
    "form",
    [
        {"mode": "encryption"},
        {"mode": "no_encryption", "encryption_key": KEY},
        {"mode": "encryption", "encryption_key": KEY[:32]},
        {"mode": "encryption", "encryption_key": "x" * 64},
        {"mode": "encrypted"},
        {"encryptionKey": KEY},
    ],
)
def test_wrong_configurations(form: dict[str, Any], tmp_path: Path) -> None:
    """A mode, key or keyword that is wrong is refused when the app is made, without showing the key."""
    with pytest.raises(UsageError) as caught:
        App("a", base_file_path=tmp_path, metadata=form)
    assert "x" * 64 not in str(caught.value)


def test_in_memory_leaves_nothing_on_disk(make_app: Make, tmp_path: Path) -> None:
    """Users are there while the App is, and nothing is written."""
    app = make_app(metadata={"mode": "in_memory"})
    user = app.log_in(Credentials.email_password("a@example.com", "secret-1"))
    assert app.current_user is user
    user.log_out()
    assert (user.state, app.current_user) == ("logged_out", None)
    app.remove_user(user)
    assert app.all_users == {}
    assert list(tmp_path.iterdir()) == []


def test_encryption_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says what to install."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(UsageError, match=r"realmframe\[encryption\]"):
        MetadataConfiguration("encryption", KEY)


# ---------------------------------------------------------------------- several processes, and kills

WRITE = """
import sys
from pathlib import Path
from realmframe.client.metadata import Metadata, UserRecord
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
kept = Metadata(folder)
for n in range(count):
    token = "t" * (1 + n % 5000)
    kept.put(UserRecord(f"{name}-{n % 50}", access_token=token, refresh_token=token), current=True)
    if n == 0:
        print("ready", flush=True)
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    """Start a process that writes users."""
    arguments = [sys.executable, "-c", WRITE, str(path), name, str(count)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_each_sees_what_others_did(tmp_path: Path) -> None:
    """What one wrote another that has read before finds when it looks next, and adds to."""
    here, there = Metadata(folder(tmp_path)), Metadata(folder(tmp_path))
    here.put(record("ann"))
    assert list(there.users()) == ["ann"]
    there.put(record("bob"), current=True)
    assert list(here.users()) == ["ann", "bob"]
    here.put(record("eve"))
    there.remove("ann")
    assert list(here.users()) == ["bob", "eve"]
    assert here.current() == record("bob")


def test_a_change_within_one_tick_of_the_clock(tmp_path: Path) -> None:
    """A file of the same size and time as the one before is looked at all the same."""
    here, there = Metadata(folder(tmp_path)), Metadata(folder(tmp_path))
    here.put(record("ann", "token-1"))
    state = here.path.stat()
    assert there.current() == record("ann", "token-1")
    here.put(record("ann", "token-2"))
    os.utime(here.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert here.path.stat().st_size == state.st_size
    assert there.current() == record("ann", "token-2")


@pytest.mark.parametrize(
    ("changes", "is_anonymous", "is_valid"),
    [
        ({}, True, True),
        ({"identities": [{"id": "1", "provider_type": "anon-user"}]}, True, True),
        ({"identities": [{"id": "1", "provider_type": "api-key"}]}, False, True),
        ({"provider": "api-key", "identities": [{"id": "1", "provider_type": "anon-user"}]}, False, True),
        ({"state": "logged_out"}, True, False),
        ({"access_token": None}, True, False),
        ({"refresh_token": None}, True, False),
    ],
)
def test_who_is_anonymous_and_who_is_logged_in(changes: dict[str, Any], is_anonymous: bool, is_valid: bool) -> None:
    """Anonymous: by provider and every identity; logged in: by state and both tokens."""
    user = UserRecord(**{"id": "u", "provider": "anon-user", "access_token": "a", "refresh_token": "r", **changes})
    assert (user.is_anonymous, user.is_valid) == (is_anonymous, is_valid)


def test_a_record_shows_nothing_private() -> None:
    """Neither tokens nor the profile, which may hold an address, are in a record's repr."""
    user = UserRecord("u", access_token="secret-1", refresh_token="secret-2", profile={"email": "secret-3"})
    assert "secret" not in repr(user)


def test_realms_of_users_who_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A realm is tracked once; deletion is for one user or for all, and what is left stays doomed."""
    kept = Metadata(folder(tmp_path))
    for name in ("ann", "bob"):
        kept.put(record(name))
        for place in (f"/{name}/1", f"/{name}/2", f"/{name}/1"):
            kept.track(name, place)
    with monkeypatch.context() as patched:  # another process tracks it between looking and writing
        patched.setattr(kept, "get", lambda _: record("ann"))
        kept.track("ann", "/ann/2")
    kept.track("nobody", "/nobody")
    kept.remove("ann")
    kept.remove("bob")
    assert kept.doomed() == {"ann": ["/ann/1", "/ann/2"], "bob": ["/bob/1", "/bob/2"]}
    kept.carry_out(lambda _, paths: paths[1:], "ann")
    assert kept.doomed() == {"ann": ["/ann/2"], "bob": ["/bob/1", "/bob/2"]}
    kept.carry_out(lambda *_: [])
    assert kept.doomed() == Metadata(folder(tmp_path)).doomed() == {}


@pytest.mark.process
def test_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two processes that put users at the same time both find all of them in the end, also the one that only reads."""
    path = folder(tmp_path)
    reader = Metadata(path)
    assert reader.users() == {}
    writers = [writer(path, name, 50) for name in ("a", "b")]
    for process in writers:
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert set(reader.users()) == {f"{name}-{n}" for name in "ab" for n in range(50)}


@pytest.mark.process
def test_killed_while_writing(tmp_path: Path) -> None:
    """After kill -9 at any moment the file is whole, the lock is free, and nothing with tokens is left behind."""
    path = folder(tmp_path)
    for turn in range(4):
        process = writer(path, f"p{turn}", 1_000_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.037 * turn)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        process.stdout.close()
        kept = Metadata(path)
        users = kept.users()
        assert users
        assert all(u.access_token == u.refresh_token for u in users.values())
        (path / "users.123.456.tmp").write_text("torn")
        kept.put(record(f"after-{turn}"))
        assert sorted(p.name for p in path.iterdir()) == ["users.json", "users.lock"]
    assert {f"after-{turn}" for turn in range(4)} <= set(Metadata(path).users())


def test_a_kill_before_the_rename_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails before the new file is in place leaves the old one, on disk and in memory."""
    kept = Metadata(folder(tmp_path))
    kept.put(record("one"))

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("realmframe.client.metadata.os.replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        kept.put(record("two"))
    monkeypatch.undo()
    assert list(kept.users()) == list(Metadata(folder(tmp_path)).users()) == ["one"]
    assert sorted(p.name for p in kept.folder.iterdir()) == ["users.json", "users.lock"]


def test_users_are_on_disk_before_anybody_relies_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is synced before it takes the old one's place, and the folder after that."""
    kept, steps = Metadata(folder(tmp_path)), list[str]()
    sync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def note_replace(source: Any, target: Any) -> None:
        assert json.loads(Path(source).read_bytes())["users"]  # whole, and not in a buffer
        assert stat.S_IMODE(Path(source).stat().st_mode) == 0o600
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr("realmframe.client.metadata.os.fsync", note_sync)
    monkeypatch.setattr("realmframe.client.metadata.os.replace", note_replace)
    kept.put(record())
    assert steps == ["file", "replace", "folder"]


def test_nothing_of_a_removed_user_stays(tmp_path: Path) -> None:
    """Neither the record nor the id of who was the current user is kept."""
    kept = Metadata(folder(tmp_path))
    kept.put(record("ann"), current=True)
    kept.remove("ann")
    assert "ann" not in kept.path.read_text()
    assert kept.current() is None


# ---------------------------------------------------------------------- damage and rights

USER = '{"id": "u", "state": "logged_in"'
DAMAGED = [
    "",
    "{",
    "null",
    "[]",
    "1",
    '"x"',
    "{}",
    '{"format": 2, "users": []}',
    '{"format": 1}',
    '{"format": 1, "users": 3}',
    '{"format": 1, "users": [3]}',
    '{"format": 1, "users": [{}]}',
    '{"format": 1, "users": [{"id": 5}]}',
    f'{{"format": 1, "users": [{USER}, "access_token": 5}}]}}',
    f'{{"format": 1, "users": [{USER}, "identities": 5}}]}}',
    f'{{"format": 1, "users": [{USER}, "identities": ["x"]}}]}}',
    f'{{"format": 1, "users": [{USER}, "realms": [5]}}]}}',
    f'{{"format": 1, "users": [{USER}, "profile": []}}]}}',
    '{"format": 1, "users": [], "doomed": 5}',
    '{"sealed": 1}',
    "[" * 100_000,
    "\udcff\udcfe",
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damage_is_one_clear_error(tmp_path: Path, text: str) -> None:
    """Whatever is in the file, reading and writing give one error that names it, and it is not overwritten."""
    kept = Metadata(folder(tmp_path))
    kept.folder.mkdir(parents=True)
    kept.path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for act in (kept.current, lambda: kept.put(record())):
        with pytest.raises(RealmError, match=r"users\.json") as caught:
            act()
        assert isinstance(caught.value, CorruptFileError | UsageError)
        assert caught.value.hint
    assert kept.path.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_a_read_only_folder(make_app: Make, tmp_path: Path, services: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached user is found where nothing can be written; logging in there says what is wrong."""
    make_app().log_in(Credentials.email_password("a@example.com", "secret-1"))
    services.requests.clear()

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(30, "Read-only file system")

    for name in ("open", "mkdir", "chmod", "replace", "unlink"):
        monkeypatch.setattr(f"realmframe.client.metadata.os.{name}", refuse)
    user = make_app().current_user
    assert user is not None
    assert user.is_logged_in
    assert not services.requests
    with pytest.raises(ReadOnlyError, match=r"written.*base_file_path"):
        make_app().log_in(Credentials.anonymous())


def test_nothing_is_ever_readable_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and files are made for their owner alone, and not closed afterwards."""
    monkeypatch.setattr("pathlib.Path.chmod", None)
    kept = Metadata(folder(tmp_path))
    kept.put(record())
    assert {stat.S_IMODE(p.stat().st_mode) for p in (kept.folder, kept.folder.parent)} == {0o700}
    assert {stat.S_IMODE(p.stat().st_mode) for p in kept.folder.iterdir()} == {0o600}


def test_lax_folders_are_tightened(tmp_path: Path) -> None:
    """Folders that were there with wider rights are closed when tokens are written."""
    kept = Metadata(folder(tmp_path))
    kept.folder.mkdir(parents=True, mode=0o755)
    kept.path.write_text('{"format": 1, "users": []}')
    kept.path.chmod(0o644)
    kept.put(record())
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (kept.path, kept.folder, kept.folder.parent, tmp_path)]
    assert modes[:3] == [0o600, 0o700, 0o700]
    assert modes[3] != 0o700 or stat.S_IMODE(tmp_path.stat().st_mode) == modes[3]


@pytest.mark.parametrize("level", ["mongodb-realm", "mongodb-realm/app"])
def test_tokens_do_not_follow_links_out(tmp_path: Path, level: str) -> None:
    """A symbolic link in place of a folder, leading out of base_file_path, gets no tokens."""
    outside = tmp_path / "outside"
    outside.mkdir()
    base = tmp_path / "base"
    link = base / level
    link.parent.mkdir(parents=True)
    link.symlink_to(outside, target_is_directory=True)
    with pytest.raises(UsageError, match="through a link"):
        Metadata(folder(base)).put(record())
    assert list(outside.rglob("*")) == []


def test_a_base_that_is_a_link_is_fine(tmp_path: Path) -> None:
    """base_file_path itself may be a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    Metadata(folder(tmp_path / "link")).put(record("ann"))
    assert list(Metadata(folder(tmp_path / "real")).users()) == ["ann"]


NAMES = ["ünï-日本", "a/b", "..%2F", "100%", "CON", "nul.txt", "app.", "a b", "x" * 300, "é" * 200, "com1"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_app_ids(tmp_path: Path, name: str) -> None:
    """Whatever an app is called, its users lie in one folder of their own, of a name that every system takes."""
    for other in [*NAMES, name]:
        if other != name:
            Metadata(folder(tmp_path, other)).put(record(f"of-{other[:20]}"))
    kept = Metadata(folder(tmp_path, name))
    kept.put(record("ann"))
    assert list(Metadata(folder(tmp_path, name)).users()) == ["ann"]
    made = kept.folder.name
    assert kept.folder.parent == tmp_path / "mongodb-realm"
    assert len(made.encode()) <= 255
    assert made.partition(".")[0].lower() not in {"con", "nul", "com1"}
    assert not made.endswith(".")
    assert len(list((tmp_path / "mongodb-realm").iterdir())) == len(NAMES)
