"""Downloads meet a backlog: what comes of both is to the byte what merging everything anew gives."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest

from realmframe.changes import Changeset, concat
from realmframe.errors import ApplyError, MergeError
from realmframe.merge import Timed, lanes, transform
from realmframe.store import Entry, Owner, Progress, merging, state
from realmframe.store.pending import Changes
from tests.plain import PlainRealm, content
from tests.writer import OBJECTS, SCHEMA, Writer

BASE = Changeset.from_instructions([*SCHEMA, *OBJECTS]).encode()
FIELDS = ("li", "le", "lm", "n", "si", "ss", "dm", "e", "to")


def anew(have: state.State, entries: Sequence[Entry]) -> tuple[Changeset, Changes]:
    """Merge without anything that is kept from one download to the next."""
    ready: list[Changeset] = []
    pending = have.pending
    for client_version, group in itertools.groupby(entries, key=lambda e: e.client_version):
        batch = list(group)
        changesets = [Changeset.decode(e.data) for e in batch]
        unknown = pending.after(client_version)
        if len(unknown) and any(len(c) for c in changesets):
            assert have.file is not None
            left = [Timed(c, e.timestamp, e.file_ident) for c, e in zip(changesets, batch, strict=True)]
            right = [Timed(p.reciprocal, p.timestamp, have.file.ident) for p in unknown]
            changesets, others = transform(left, right)
            if any(new is not p.reciprocal for new, p in zip(others, unknown, strict=True)):
                pairs = zip(unknown, others, strict=True)
                pending = pending.replaced([p if new is p.reciprocal else p.with_reciprocal(new) for p, new in pairs])
        ready += changesets
    return concat(ready), pending


class Side:
    """A realm's state, and how it merges."""

    def __init__(self, merged: Any) -> None:
        self.merged = merged
        self.remote = Changeset.empty()
        self.state = state.State(
            state.Snapshot.empty(), file=state.ClientFile(3, 5), owner=Owner("app", "user"), pending=Changes()
        )

    def write(self, data: bytes, timestamp: int) -> None:
        """Commit a local transaction."""
        self.state, _ = state.advance(self.state, state.local_record(self.state, data, timestamp))

    def download(self, entries: Sequence[Entry], progress: Progress, *, is_lost: bool) -> str:
        """Integrate; give the error, if there is one. What is lost comes to nothing, as when a disk is full."""
        record = state.integrate_record(self.state, entries, progress, None)

        def merged(*arguments: Any) -> Any:
            self.remote, pending = self.merged(*arguments)
            return self.remote, pending

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state, "merged", merged)
            try:
                found, _ = state.advance(self.state, record)
            except (MergeError, ApplyError) as error:
                return f"{type(error).__name__}: {error}"
        if not is_lost:
            self.state = found
        return ""

    def told(self) -> Any:
        """Give what is pending, with all reciprocals, and the version."""
        return self.state.pending.to_bytes(), self.state.snapshot.version


class World:
    """A client that writes, and gets what others wrote; twice."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.sides = [Side(merging.merged), Side(anew)]
        self.focus = self.rng.sample(FIELDS, 2)
        self.server_version, self.acknowledged, self.merges, self.refused = 1, 0, 0, False
        self.lost: list[Entry] = []
        self.mine, self.theirs = PlainRealm(), PlainRealm()
        self._download([BASE])
        for one in Changeset.decode(BASE).instructions():
            self.theirs.apply(one)

    def _made(self, realm: PlainRealm, *, schema: bool) -> bytes:
        writer = Writer(realm, self.rng.randrange, focus=self.focus, schema=schema)
        for _ in range(self.rng.randrange(1, 4)):
            writer.step()
        return Changeset.from_instructions(writer.made).encode()

    def write(self) -> None:
        """Commit on both; only what the one realm can take is written."""
        copy = self.mine.copy()
        data, at = self._made(copy, schema=self.rng.randrange(20) == 0), self.rng.randrange(1, 9)
        try:
            for side in self.sides:
                side.write(data, at)
        except ApplyError:
            assert side is self.sides[0]
            return
        self.mine = copy

    def download(self) -> None:
        """Integrate on both."""
        before = self.theirs.copy()
        self._download([self._made(self.theirs, schema=False) for _ in range(self.rng.randrange(1, 4))])
        if self.refused:
            self.theirs = before

    def _download(self, parts: Sequence[bytes]) -> None:
        entries, self.lost = self.lost, []
        for data in parts:
            self.server_version += 1
            if self.rng.randrange(5) == 0 and len(self.sides[0].state.pending):
                self.acknowledged = max(self.acknowledged, self.sides[0].state.pending[0].version)
            entries.append(Entry(self.server_version, self.acknowledged, self.rng.randrange(1, 9), 2, data))
        progress = Progress(self.server_version, self.acknowledged, self.server_version, 7, self.acknowledged)
        is_lost = self.rng.randrange(6) == 0 and self.server_version > 2
        errors = [side.download(entries, progress, is_lost=is_lost) for side in self.sides]
        assert errors[0] == errors[1]
        if is_lost:
            self.lost = entries
        elif not errors[0]:
            for one in self.sides[0].remote.instructions():
                self.mine.apply(one)
        self.refused = bool(errors[0])
        self.merges += not errors[0]

    def step(self) -> None:
        """Do something, and compare."""
        self.download() if self.rng.randrange(3) == 0 else self.write()
        one, other = self.sides
        assert one.told() == other.told()
        assert repr(content(one.state.snapshot)) == repr(content(other.state.snapshot))


@pytest.mark.parametrize("seed", range(12))
def test_downloads_meet_a_backlog(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Local transactions and downloads in any order; some downloads fail, others come to nothing and come again."""
    monkeypatch.setattr(lanes, "FEW", 1 + seed % 3)
    monkeypatch.setattr(merging, "MOST_BYTES", 0 if seed % 4 == 3 else 1 << 20)
    world = World(seed)
    for _ in range(60):
        world.step()
    assert world.merges > 4
    assert (world.sides[0].state.pending.prepared is not None) == (seed % 4 != 3)
