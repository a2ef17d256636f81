"""What a client reset makes of a realm, on files alone: what is kept, lost, copied, told, and asked of the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.changes import instructions as ins
from realmframe.client.lost import MOST_LOST, quarantined
from realmframe.client.options import SessionOptions
from realmframe.client.reset import DISCARD, RECOVER, RECOVER_OR_DISCARD, ClientReset, ResetOptions, ResetOutcome
from realmframe.client.subscriptions import StoredSubscriptions
from realmframe.errors import ClientResetError, MergeError, StorageError
from realmframe.model import PropertyType
from realmframe.session.subscriptions import State
from realmframe.store import ClientFile, Entry, Lost, Owner, Progress, RealmStore

OWNER = Owner("app", "ann")
FRESH = Progress(7, 0, 7, 9, 0, 0)


def changes(*instructions: Any) -> Changeset:
    """Make a changeset."""
    return Changeset.from_instructions(list(instructions))


def schema(*names: str, more: str | None = None) -> Changeset:
    """Add classes with a name, and one more property if asked."""
    fields = ["name", *([more] if more else [])]
    key = {"pk_field": "_id", "pk_type": PropertyType.INT}
    return changes(
        *(
            i
            for n in names
            for i in [ins.AddTable(n, **key), *(ins.AddColumn(n, f, PropertyType.STRING) for f in fields)]
        )
    )


def put(key: int, name: str, *, create: bool = True) -> Changeset:
    """Write a dog."""
    update = ins.Update("Dog", key, "name", (), name)
    return changes(ins.CreateObject("Dog", key), update) if create else changes(update)


def entry(version: int, changeset: Changeset) -> Entry:
    """Make what another device wrote."""
    return Entry(version, 0, 1_000 + version, 77, changeset.encode())


def names(store: RealmStore) -> dict[int, str]:
    """Give the dogs."""
    table = store.snapshot.table("Dog")
    return dict(zip(table.keys().to_pylist(), table.column("name").to_pylist(), strict=True))


class Bench:
    """A realm, its fresh copy, and a reset without a session."""

    def __init__(self, folder: Path) -> None:
        self.store = RealmStore.open(folder / "mine.realm", owner=OWNER)
        self.fresh = RealmStore.open(folder / "fresh.realm", owner=OWNER)
        self.store.set_file(5, 55)
        self.store.commit(schema("Dog"), timestamp=1)
        self.metadata = folder / "users"

    def download(self, *changesets: Changeset, number: bool = True) -> None:
        """Fill the fresh copy."""
        self.fresh.integrate([entry(n + 1, c) for n, c in enumerate(changesets)], FRESH)
        if number:
            self.fresh.set_file(8, 88)

    def run(self, mode: str) -> ResetOutcome:
        """Commit the reset."""
        session: Any = SimpleNamespace(
            store=self.store,
            app=SimpleNamespace(metadata=SimpleNamespace(folder=self.metadata)),
            options=SessionOptions("ann", flexible=True, client_reset=ResetOptions(mode)),
            commit_lock=threading.RLock(),
        )
        error = ClientResetError("begin anew", code=217, action="ClientReset", is_fatal=True)
        return ClientReset(session, error)._commit(self.fresh, mode)

    @property
    def pending(self) -> list[tuple[int, int]]:
        """What is still to be uploaded: version, and the server version that it is based on."""
        return [(p.version, p.server_version) for p in self.store.pending()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Make one."""
    made = Bench(tmp_path)
    yield made
    made.store.close()
    made.fresh.close()


def test_only_what_was_not_uploaded_is_recovered(bench: Bench) -> None:
    """What the server acknowledged is its own by now, although the file keeps it; numbers are the fresh copy's."""
    store = bench.store
    store.commit(put(1, "uploaded"), timestamp=2)
    uploaded = store.snapshot.version
    store.integrate([], Progress(3, 0, 3, 1, uploaded, 0))
    store.commit(put(2, "offline"), timestamp=3)
    assert len(store._state.pending) == 3
    offline = store.snapshot.version
    bench.download(schema("Dog"), put(1, "theirs"))
    assert bench.run(RECOVER) == ResetOutcome(recovered=True)
    assert names(store) == {1: "theirs", 2: "offline"}
    assert bench.pending == [(offline, 7)]
    assert (store.file, store.progress) == (ClientFile(8, 88), FRESH)
    assert (store.extra["pending_reset"]["mode"], store.extra["pending_reset"]["action"]) == (RECOVER, "ClientReset")
    assert store.quarantine == []
    assert not bench.metadata.exists()


def test_numbers_of_the_fresh_copys_own_history(bench: Bench) -> None:
    """What the server said about versions of the fresh copy is nothing about those of the realm."""
    bench.fresh.commit(changes(), timestamp=1)
    bench.fresh.integrate([entry(1, schema("Dog"))], Progress(7, 1, 7, 9, 1, 4))
    bench.fresh.set_file(8, 88)
    bench.run(DISCARD)
    assert bench.store.progress == FRESH


@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD, DISCARD])
@pytest.mark.parametrize(
    ("here", "there", "what"),
    [
        (schema("Dog", "Cat"), schema("Dog"), "the class Cat"),
        (schema("Cat", more="age"), schema("Dog", "Cat"), r"Cat\.age"),
    ],
)
def test_what_the_server_does_not_have_any_more(
    bench: Bench, mode: str, here: Changeset, there: Changeset, what: str
) -> None:
    """A class or property that the app may use is not taken away: the reset fails, and nothing is changed."""
    store = bench.store
    store.integrate([entry(1, here)], Progress(1, 0, 1, 1, store.snapshot.version, 0))
    before = store.snapshot
    bench.download(there)
    with pytest.raises(MergeError, match=f"does not have {what}"):
        bench.run(mode)
    assert (store.snapshot, store.file) == (before, ClientFile(5, 55))
    assert store.extra.get("pending_reset") is None


@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD, DISCARD])
@pytest.mark.parametrize("has_objects", [True, False])
def test_what_the_server_has_otherwise_by_now(bench: Bench, mode: str, has_objects: bool) -> None:
    """A property of another type ends the reset, with both types, whether or not an object has it."""
    store = bench.store
    store.commit(put(1, "offline"), timestamp=2)
    store.integrate([], Progress(1, 0, 1, 1, store.snapshot.version, 0))
    before = store.snapshot
    other = changes(
        ins.AddTable("Dog", pk_field="_id", pk_type=PropertyType.INT), ins.AddColumn("Dog", "name", PropertyType.INT)
    )
    objects = [ins.CreateObject("Dog", 2), ins.Update("Dog", 2, "name", (), 5)] if has_objects else []
    bench.download(other, changes(*objects))
    with pytest.raises(MergeError, match=r"Dog\.name.*string.*int"):
        bench.run(mode)
    assert (store.snapshot, store.file) == (before, ClientFile(5, 55))


@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD, DISCARD])
def test_changes_that_cannot_be_recovered(bench: Bench, mode: str) -> None:
    """They end the reset, or are dropped: named, with what was written, and in a copy; a class they add is kept."""
    store = bench.store
    store.commit(schema("Cat", "Cow"), timestamp=2)
    store.commit(put(1, "offline"), timestamp=3)
    store.commit(changes(ins.EraseTable("Cat")), timestamp=4)
    bench.download(schema("Dog"), put(2, "theirs"))
    if mode == RECOVER:
        with pytest.raises(MergeError, match="erase a class"):
            bench.run(mode)
        assert names(store) == {1: "offline"}
        return
    outcome = bench.run(mode)
    assert (outcome.recovered, outcome.lost) == (False, 1)
    assert names(store) == {2: "theirs"}
    assert "Cow" in store.snapshot.tables
    assert store.extra["pending_reset"]["mode"] == DISCARD
    (lost,) = store.quarantine
    assert (lost["class"], lost["primary_key"], lost["kind"], lost["copy"]) == ("Dog", 1, "client reset", outcome.copy)
    assert json.loads(lost["values"])["name"] == "offline"
    assert "discarded" in lost["reason"]
    assert outcome.copy is not None
    with RealmStore.open(outcome.copy, read_only=True) as copy:
        assert names(copy) == {1: "offline"}
    kept = [Changeset.decode(p.changeset).instructions() for p in store.pending()]
    assert {type(i) for instructions in kept for i in instructions} == {ins.AddTable, ins.AddColumn}


@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD, DISCARD])
def test_nothing_is_lost(bench: Bench, mode: str) -> None:
    """Where no object was written no copy is made, whatever the mode."""
    bench.download(schema("Dog"), put(2, "theirs"))
    outcome = bench.run(mode)
    assert outcome == ResetOutcome(recovered=mode != DISCARD)
    assert (bench.store.quarantine, names(bench.store)) == ([], {2: "theirs"})
    assert not bench.metadata.exists()


def test_a_second_reset_adds_to_what_is_kept(bench: Bench) -> None:
    """The quarantine and other values grow, and are not replaced."""
    store = bench.store
    bench.download(schema("Dog"))
    store.set_extra(other="kept")
    for key in (1, 2):
        store.commit(put(key, "offline"), timestamp=key)
        bench.run(DISCARD)
    assert [q["primary_key"] for q in store.quarantine] == [1, 2]
    assert store.extra["other"] == "kept"


def test_a_fresh_copy_without_a_number(bench: Bench) -> None:
    """It is not used: nobody could go on from there."""
    bench.download(schema("Dog"), number=False)
    with pytest.raises(StorageError, match="no number"):
        bench.run(RECOVER)
    assert bench.store.file == ClientFile(5, 55)


def test_subscription_sets(bench: Bench) -> None:
    """What was in force is complete, since the fresh copy has it; what is newer, or refused, is as it was."""
    stored = StoredSubscriptions(bench.store)
    for n in range(4):
        copy = stored.sets.latest.update()
        copy.add("Dog", f"_id == {n}", new_id=f"{n:024x}", now=n)
        stored.commit(copy)
    stored.advance(2, State.AWAITING_MARK)
    stored.advance(3, State.ERROR, "bad")
    bench.download(schema("Dog"))
    bench.run(RECOVER)
    states = [(s.version, s.state, len(s)) for s in StoredSubscriptions(bench.store).sets]
    assert states == [(2, State.COMPLETE, 2), (3, State.ERROR, 3), (4, State.PENDING, 4)]


def test_very_much_is_lost() -> None:
    """The first thousand objects are named, the rest is counted."""
    lost = [Lost("Dog", n, "gone", {"name": "x"}) for n in range(MOST_LOST + 5)]
    assert MOST_LOST == 1_000
    found = quarantined(lost, "/copy")
    assert [q["primary_key"] for q in found[:-1]] == list(range(1_000))
    assert "5 more objects" in found[-1]["reason"]
    assert {(q["kind"], q["copy"]) for q in found} == {("client reset", "/copy")}
    assert len(quarantined(lost[:1_000], None)) == 1_000
