"""The realm's folder: what was committed is there again, whoever opens it and whatever happened in between."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.errors import (
    ApplyError,
    BadChangesetError,
    ClosedError,
    CorruptFileError,
    ReadOnlyError,
    RemoteProtocolError,
    StorageError,
    UsageError,
    WrongUserError,
)
from realmframe.model import PropertyType
from realmframe.store import ClientFile, Commit, Entry, FileSystem, Owner, Progress, RealmStore, Snapshot
from realmframe.store.journal import segment_numbers, segment_path

OWNER = Owner("app", "ann")


def schema() -> Changeset:
    """Make the class that the tests use."""
    return Changeset.from_instructions(
        [ins.AddTable("C", pk_field="_id", pk_type=PropertyType.INT), ins.AddColumn("C", "v", PropertyType.INT)]
    )


def put(key: int, value: int, *, create: bool = True) -> Changeset:
    """Write one object."""
    update = ins.Update("C", key, "v", (), value)
    return Changeset.from_instructions([ins.CreateObject("C", key), update] if create else [update])


def erase(key: int) -> Changeset:
    """Erase one object."""
    return Changeset.from_instructions([ins.EraseObject("C", key)])


def content(snapshot: Snapshot) -> dict[int, int]:
    """Give the objects of a snapshot."""
    if "C" not in snapshot.tables:
        return {}
    table = snapshot.table("C")
    return dict(zip(table.keys().to_pylist(), table.column("v").to_pylist(), strict=True))


def entry(changeset: Changeset, server: int, client: int = 0) -> Entry:
    """Make a download's entry by another device."""
    return Entry(server, client, 1_000 + server, 77, changeset.encode())


def made(path: Path, **options: Any) -> RealmStore:
    """Make a synced realm with its class."""
    store = RealmStore.open(path, owner=OWNER, **options)
    store.commit(schema(), timestamp=1)
    return store


def test_everything_survives(tmp_path: Path) -> None:
    """Everything that a realm holds comes back, with a checkpoint or not."""
    path = tmp_path / "sub" / "a.realm"
    with made(path) as store:
        store.set_file(5, 99)
        store.commit(put(1, 10), timestamp=2)
        progress = Progress(7, 0, 9, 123, 1, 7, 50)
        lost = [{"reason": "no"}]
        store.integrate([entry(put(2, 20), 7, store.snapshot.version)], progress, quarantine=lambda _applied: lost)
        store.set_subscriptions(lambda _stored: {"version": 1})
        store.set_extra(theme="dark")
        last = put(3, 30)
        store.commit(last, timestamp=3)
        want = content(store.snapshot)
        version = store.snapshot.version
    for checkpoint in (False, True, False):
        with RealmStore.open(path, owner=OWNER) as store:
            assert content(store.snapshot) == want == {1: 10, 2: 20, 3: 30}
            assert store.snapshot.version == version
            assert store.file == ClientFile(5, 99)
            assert store.progress == progress
            assert [p.changeset for p in store.pending()] == [put(1, 10).encode(), last.encode()]
            assert [(p.version, p.server_version, p.timestamp) for p in store.pending()] == [(2, 0, 2), (4, 7, 3)]
            assert store.subscriptions == {"version": 1}
            assert store.quarantine == [{"reason": "no"}]
            assert store.extra == {"theme": "dark"}
            assert store.owner == OWNER
            if checkpoint:
                store.checkpoint()
    assert len(segment_numbers(path)) == 1


def test_acknowledged_changes_stay_for_merging(tmp_path: Path) -> None:
    """A change is not uploaded again once acknowledged, and is kept until the download cursor has passed it."""
    with made(tmp_path / "a.realm") as store:
        store.integrate([], Progress(upload_client_version=1))
        assert store.pending() == []
        assert len(store._state.pending) == 1
        store.integrate([], Progress(3, 1, 3, 1, 1, 1))
        assert len(store._state.pending) == 0


def test_progress_never_goes_back(tmp_path: Path) -> None:
    """A download whose cursors go back is refused, and nothing of it is used."""
    with made(tmp_path / "a.realm") as store:
        store.integrate([entry(put(1, 1), 5, 1)], Progress(5, 1, 5, 1, 1, 1))
        with pytest.raises(RemoteProtocolError, match="download server version went back from 5 to 4"):
            store.integrate([entry(put(2, 2), 6, 1)], Progress(4, 1, 5, 1, 1, 1))
        assert content(store.snapshot) == {1: 1}


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"\x20", BadChangesetError), (Changeset.from_instructions([ins.CreateObject("X", 1)]).encode(), ApplyError)],
)
def test_bad_downloads_leave_nothing(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    """A download that is malformed or contradicts the state is neither applied nor written, not even in part."""
    path = tmp_path / "a.realm"
    with made(path) as store:
        before, size = store.snapshot, segment_path(path, 1).stat().st_size
        with pytest.raises(error):
            store.integrate([entry(put(1, 1), 1, 1), Entry(2, 1, 5, 77, data)], Progress(2, 1, 2))
        assert store.snapshot is before
        assert store.progress == Progress()
        assert segment_path(path, 1).stat().st_size == size
        store.commit(put(1, 2), timestamp=1)
    with RealmStore.open(path) as store:
        assert content(store.snapshot) == {1: 2}


def test_owner(tmp_path: Path) -> None:
    """A realm is opened by its owner only; one that was made without sync is not taken over."""
    made(tmp_path / "a.realm").close()
    with pytest.raises(WrongUserError, match="user ann of app app, not to user bob of app app"):
        RealmStore.open(tmp_path / "a.realm", owner=Owner("app", "bob"))
    RealmStore.delete(tmp_path / "a.realm")
    with RealmStore.open(tmp_path / "b.realm") as store:
        store.commit(schema(), timestamp=1)
        assert store.pending() == []
    with pytest.raises(UsageError, match="made without sync"):
        RealmStore.open(tmp_path / "b.realm", owner=OWNER)


def test_exists_delete_copy(tmp_path: Path) -> None:
    """A realm in use is not deleted; a copy has everything; afterwards nothing is left."""
    path, copy = tmp_path / "a.realm", tmp_path / "b.realm"
    assert not RealmStore.exists(path)
    RealmStore.delete(path)
    with pytest.raises(StorageError, match="no realm at"):
        RealmStore.open(path, create=False)
    store = made(path)
    store.commit(put(1, 1), timestamp=1)
    with pytest.raises(UsageError, match="in use"):
        RealmStore.delete(path)
    store.copy_to(copy)
    with pytest.raises(UsageError, match="already"):
        store.copy_to(copy)
    store.close()
    RealmStore.delete(path)
    assert not path.exists()
    with RealmStore.open(copy, owner=OWNER) as other:
        assert content(other.snapshot) == {1: 1}
        assert len(other.pending()) == 2
    with pytest.raises(ClosedError):
        store.commit(put(2, 2), timestamp=1)


def test_foreign_things_are_refused(tmp_path: Path) -> None:
    """A plain file, a foreign folder and a damaged manifest give one clear error each, and stay as they were."""
    (tmp_path / "file.realm").write_text("hello")
    with pytest.raises(CorruptFileError, match="is a file, but a realm is a folder"):
        RealmStore.open(tmp_path / "file.realm")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    with pytest.raises(CorruptFileError, match=r"notes\.txt"):
        RealmStore.open(tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["notes.txt"]
    with made(tmp_path / "a.realm") as store:
        store.checkpoint()
    (tmp_path / "a.realm" / "manifest.json").write_text("{")
    with pytest.raises(CorruptFileError, match=r"manifest\.json is damaged"):
        RealmStore.open(tmp_path / "a.realm")


def test_missing_and_cut_files(tmp_path: Path) -> None:
    """Each file of a checkpoint that is missing or cut short is named."""
    path = tmp_path / "a.realm"
    with made(path) as store:
        store.commit(put(1, 1), timestamp=1)
        store.checkpoint()
    for file in [*path.glob("data/*"), *path.glob("journal-*")]:
        data = file.read_bytes()
        file.unlink()
        with pytest.raises(CorruptFileError):
            RealmStore.open(path)
        if file.suffix in (".arrow", ".npy"):
            file.write_bytes(data[: len(data) // 2])
            with pytest.raises(CorruptFileError) as found:
                RealmStore.open(path)
            assert Path(str(found.value.path)).stem.split(".")[0] == file.stem.split(".")[0]
        file.unlink(missing_ok=True)
        file.write_bytes(data)
    with RealmStore.open(path) as store:
        assert content(store.snapshot) == {1: 1}


class FullDisk(FileSystem):
    """Refuses to write more than ``room`` bytes once it is armed."""

    room: int | None = None
    code = errno.ENOSPC

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Write, or fail when armed."""
        if self.room is not None:
            os.write(descriptor, memoryview(data).cast("B")[: self.room])
            raise OSError(self.code, os.strerror(self.code))
        super().write(descriptor, data)


def test_subscriptions_change_with_the_data_of_a_bootstrap(tmp_path: Path) -> None:
    """Wherever the journal ends, the subscription sets are those that the data belongs to."""
    path = tmp_path / "a.realm"
    with made(path) as store:
        store.set_subscriptions(lambda _stored: ["old"])
        store.integrate([entry(put(1, 1), 1, 1)], Progress(1, 1, 1), subscriptions=lambda stored: [*stored, "in force"])
    whole = segment_path(path, 1).read_bytes()
    found = set()
    for cut in range(len(whole), 8, -1):
        segment_path(path, 1).write_bytes(whole[:cut])
        with RealmStore.open(path) as store:
            found.add((tuple(store.subscriptions or ()), tuple(content(store.snapshot))))
    assert found == {((), ()), (("old",), ()), (("old", "in force"), (1,))}


def test_folders_of_a_new_realm_are_on_disk(tmp_path: Path) -> None:
    """Every folder that is made for a realm is on disk in the one above before anything is committed."""
    synced: list[Path] = []

    class Listening(FileSystem):
        def sync_folder(self, folder: Path) -> None:
            synced.append(folder)
            super().sync_folder(folder)

    fs = Listening()
    with RealmStore.open(tmp_path / "x" / "y" / "a.realm", owner=OWNER, fs=fs):
        assert {tmp_path, tmp_path / "x", tmp_path / "x" / "y", tmp_path / "x" / "y" / "a.realm"} == set(synced)


def test_everything_is_for_its_owner_only(tmp_path: Path) -> None:
    """Folders that are made, also those above the realm and where it is copied or moved to, are 0700, files 0600."""
    with made(tmp_path / "x" / "y" / "a.realm") as store:
        store.checkpoint()
        store.copy_to(tmp_path / "copies" / "b.realm")
    RealmStore.move(tmp_path / "x" / "y" / "a.realm", tmp_path / "moved" / "far" / "a.realm")
    modes = {(p.is_dir(), stat.S_IMODE(p.stat().st_mode)) for p in tmp_path.rglob("*")}
    assert modes == {(True, 0o700), (False, 0o600)}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_full_disk(tmp_path: Path, code: int) -> None:
    """A commit or checkpoint that does not fit fails plainly; the realm stays usable and goes on when there is room."""
    fs, path = FullDisk(), tmp_path / "a.realm"
    fs.code = code
    with made(path, fs=fs) as store:
        store.commit(put(1, 1), timestamp=1)
        before = store.snapshot
        for fs.room in (0, 5, 30):
            with pytest.raises(StorageError if code == errno.ENOSPC else ReadOnlyError):
                store.commit(put(2, 2), timestamp=1)
            with pytest.raises(StorageError):
                store.checkpoint()
            assert store.snapshot is before
            fs.room = None
            with RealmStore.open(path) as other:
                assert content(other.snapshot) == {1: 1}
        store.commit(put(3, 3), timestamp=1)
        store.checkpoint()
    with RealmStore.open(path) as store:
        assert content(store.snapshot) == {1: 1, 3: 3}


def test_read_only(tmp_path: Path) -> None:
    """A read-only handle follows others and writes nothing."""
    path = tmp_path / "a.realm"
    with made(path) as store, RealmStore.open(path, read_only=True) as reader:
        store.commit(put(1, 1), timestamp=1)
        assert content(reader.refresh()) == {1: 1}
        with pytest.raises(ReadOnlyError):
            reader.commit(put(2, 2), timestamp=1)
        store.checkpoint()
        store.commit(put(2, 2), timestamp=1)
        store.checkpoint()
        store.commit(put(3, 3), timestamp=1)
        assert content(reader.refresh()) == {1: 1, 2: 2, 3: 3}


def test_listeners(tmp_path: Path) -> None:
    """Listeners hear of own and others' commits, in order; one that fails or commits itself disturbs nothing."""
    path = tmp_path / "a.realm"
    with made(path) as store, RealmStore.open(path) as other:
        heard: list[int] = []

        def listen(news: Commit) -> None:
            heard.append(news.snapshot.version)
            if len(heard) == 1:
                store.commit(put(50, 50), timestamp=1)
                raise ValueError("a listener's own fault")

        stop = store.listen(listen)
        store.commit(put(1, 1), timestamp=1)
        other.commit(put(2, 2), timestamp=1)
        store.refresh()
        store.refresh()
        assert heard == [2, 3, 4]
        stop()
        store.commit(put(3, 3), timestamp=1)
        assert len(heard) == 3


def test_the_past(tmp_path: Path) -> None:
    """Every version since the last checkpoint can be shown, also after reopening; older ones are refused plainly."""
    path = tmp_path / "a.realm"
    with made(path) as store:
        for n in range(40):
            store.commit(put(n, n), timestamp=1)
        assert [len(store.as_of(v).table("C")) for v in (1, 2, 20, 41)] == [0, 1, 19, 40]
        store.checkpoint()
        store.commit(put(99, 1), timestamp=1)
    with RealmStore.open(path) as store:
        assert len(store.as_of(41).table("C")) == 40
        for version in (3, 43):
            with pytest.raises(UsageError, match="Versions 41 to 42"):
                store.as_of(version)


def test_index_of_a_checkpoint_made_while_commits_go_on(tmp_path: Path) -> None:
    """Keys that were entered while a checkpoint was written are not found in it."""

    class Busy(FileSystem):
        done = False

        def step(self, name: str) -> None:
            if name == "journal rotated" and not self.done:
                self.done = True
                for n in range(100, 110):
                    store.commit(put(n, n), timestamp=1)
                segment_path(path, 2).rename(tmp_path / "aside")

    path = tmp_path / "a.realm"
    store = made(path, fs=Busy())
    for n in range(5):
        store.commit(put(n, n), timestamp=1)
    store.checkpoint()
    store.close()
    (tmp_path / "aside").write_bytes(b"")
    (tmp_path / "aside").rename(segment_path(path, 2))
    with RealmStore.open(path) as again:
        assert len(again.snapshot.table("C")) == 5
        again.commit(put(7, 7), timestamp=1)
        assert again.snapshot.table("C").find([100, 7, 4]).tolist() == [-1, 5, 4]


class Machine(RuleBasedStateMachine):
    """Two handles of one realm against a dictionary."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        """Open both handles."""
        import tempfile

        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name) / "a.realm"
        self.stores = [made(self.folder), RealmStore.open(self.folder)]
        self.want: dict[int, int] = {}
        self.pending = [schema().encode()]
        self.version, self.server = 1, 0

    def teardown(self) -> None:
        """Close both."""
        for store in self.stores:
            store.close()
        self._temporary.cleanup()

    @rule(which=st.integers(0, 1), key=st.integers(0, 9), value=st.integers(-5, 5))
    def commit(self, which: int, key: int, value: int) -> None:
        """Write one object."""
        changeset = put(key, value)
        self.stores[which].commit(changeset, timestamp=1)
        self.want[key] = value
        self.pending.append(changeset.encode())
        self.version += 1

    @rule(which=st.integers(0, 1), keys=st.lists(st.integers(0, 9), min_size=1, max_size=4), value=st.integers(-5, 5))
    def integrate(self, which: int, keys: list[int], value: int) -> None:
        """Download some objects."""
        store = self.stores[which]
        store.refresh()
        entries = []
        for key in keys:
            self.server += 1
            if key in self.want and value < 0:
                entries.append(entry(erase(key), self.server, self.version))
                del self.want[key]
            else:
                entries.append(entry(put(key, value), self.server, self.version))
                self.want[key] = value
        store.integrate(entries, Progress(self.server, self.version, self.server, 1, self.version, 0))
        self.pending.clear()
        self.version += 1

    @rule(which=st.integers(0, 1))
    def acknowledge(self, which: int) -> None:
        """Have the server acknowledge the oldest change."""
        store = self.stores[which]
        store.refresh()
        waiting = store.pending()
        if waiting:
            now = store.progress
            ack = waiting[0].version
            store.integrate([], Progress(self.server, now.download_client_version, self.server, 1, ack, 0))
            self.pending.pop(0)

    @rule(which=st.integers(0, 1))
    def checkpoint(self, which: int) -> None:
        """Make a checkpoint."""
        self.stores[which].checkpoint()

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        """Close and open a handle."""
        self.stores[which].close()
        self.stores[which] = RealmStore.open(self.folder, owner=OWNER)

    @rule(which=st.integers(0, 1), junk=st.integers(1, 23))
    def tear(self, which: int, junk: int) -> None:
        """Leave an unfinished record behind."""
        self.stores[which].close()
        number = segment_numbers(self.folder)[-1]
        with segment_path(self.folder, number).open("ab") as file:
            file.write(b"\x07" * junk)
        self.stores[which] = RealmStore.open(self.folder, owner=OWNER)

    @precondition(lambda self: hasattr(self, "stores"))
    @invariant()
    def both_agree(self) -> None:
        """Both handles show what the dictionary says."""
        for store in self.stores:
            snapshot = store.refresh()
            assert content(snapshot) == self.want
            assert snapshot.version == self.version
            assert [p.changeset for p in store.pending()] == self.pending
            found = snapshot.table("C").find(list(range(10))) >= 0
            assert [k for k in range(10) if found[k]] == sorted(self.want)


Machine.TestCase.settings = settings(max_examples=20, stateful_step_count=20)
TestMachine = Machine.TestCase
