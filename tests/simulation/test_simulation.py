"""Worlds in which everything fails that can fail: in each of them all come together, and no write is lost.

``python -m tests.simulation --seeds 0:1000`` runs more of them, and prints what happened in those that went wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, Update
from realmframe.client.reset import RECOVER, RECOVER_OR_DISCARD
from realmframe.server import bootstrap, sharing, views
from realmframe.server.engine import Engine
from realmframe.server.history import History
from realmframe.store import RealmStore, objects_changeset, state
from tests.simulation import features
from tests.simulation.disk import Disk
from tests.simulation.tokens import TokenApp
from tests.simulation.world import SimulationFailure, World

#: Seeds that once failed, and why.
FAILED = [
    (3, "a journal whose last pages were not written was taken for damaged"),
    (8, "entries were forgotten before they were in the log"),
    (12, "a creation that came to nothing stayed at its client"),
    (20, "a catch-up of several messages was cut, and taken for whole"),
    (29, "an answer to MARK announced more than the bootstrap behind it"),
    (35, "a reverted write was not sent to a client with a full outbox"),
    (1045, "an upload that arrived late on an older connection was not answered on the newer one"),
    (1059, "a torn tail was cut off, and came back after the next power failure"),
    (1067, "a client with an upload that was fitted was taken to have integrated more than it had"),
]
#: The same of short worlds.
FAILED_SHORT = [
    (11112, "a client cut off between two reminders of reverted writes, and a server killed, lost the second"),
    (12928, "a write made between two reminders of reverted writes was refused"),
    (13258, "a client killed between two reminders of reverted writes lost the second"),
    (13934, "a write on an object whose erasure came in a second reminder was refused"),
    (12390, "clients of a partition with its whole log were corrected, and what they wrote on that was refused"),
    (12395, "writes that were taken back came again in several messages of one version"),
    (12401, "so they did, and the server died between them"),
    (12499, "so they did, and the session ended between them and the objects caught up"),
    (11850, "how a client's writes came out was lost with the connection, where the log was trimmed"),
    (10306, "the connection of a dead process came back beside the one of the next, with what had been reset"),
]
#: The same of short worlds with features.
FAILED_WITH = [
    (26, "processes", "a subscription set of a process that follows was not seen by the one that syncs"),
    (4, "readings", "asymmetric objects that two clients made of one key were merged, and refused"),
    (100040, "readings", "the schema of an asymmetric class that came once more ended the server's task"),
    (7, "tokens", "a client whose token was refused and could not be refreshed connected without end"),
    (200080, "tokens", "a refresh that was refused for the log-in before logged the new one out"),
    (200114, "tokens", "so it did, while the session waited"),
]


@pytest.mark.parametrize("seed", range(10))
def test_short_world(seed):
    """After forty random steps all have the server's state, which is the sum of its log, with every write in it."""
    World(seed, phases=1, steps=40, reset_mode=None).run()


@pytest.mark.parametrize("mode", [RECOVER, RECOVER_OR_DISCARD])
@pytest.mark.parametrize("seed", [2, 4])
def test_world_with_client_resets(seed, mode):
    """An administrator who trims the log or resets client files keeps nobody from coming together."""
    World(seed, phases=1, reset_mode=mode).run()


@pytest.mark.parametrize(("seed", "reason"), FAILED)
def test_world_that_failed_once(seed, reason):
    """What was found by a seed stays mended."""
    World(seed, reset_mode=None).run()


@pytest.mark.parametrize(("seed", "reason"), FAILED_SHORT)
def test_short_world_that_failed_once(seed, reason):
    """What was found by a seed of a short world stays mended."""
    World(seed, phases=1, steps=40).run()


@pytest.mark.parametrize("seed", range(features.NEW, features.NEW + 4))
def test_short_world_with_features(seed):
    """The same holds for whatever else a world has."""
    assert World(seed, phases=1, steps=40).run().features


@pytest.mark.parametrize(("seed", "feature", "reason"), FAILED_WITH)
def test_short_world_with_features_that_failed_once(seed, feature, reason):
    """What was found by a seed of a short world with a feature stays mended."""
    World(seed, phases=1, steps=40, features=(feature,)).run()


def test_process_that_is_killed_while_it_begins_a_journal():
    """The other process of the machine goes on in the journal whose head was half written, and all can be read."""
    names = ("growth", "processes", "readings", "values")
    world = World.with_one_kill(704, "ax", 21, features=names).run()
    assert any(" ax: killed" in line for line in world.trace)


def test_features_leave_worlds_without_them_alone():
    """Seeds below the first one that draws features have none; those from there on draw them all."""
    assert not any(features.drawn(seed) for seed in (0, 11112, features.NEW - 1, "text"))
    assert {name for seed in range(20) for name in features.drawn(features.NEW + seed)} == set(features.known())


def test_same_seed_same_world():
    """A seed gives one course of events, in every process."""
    worlds = [World(5, phases=1, steps=40).run() for _ in range(2)]
    assert len(worlds[0].trace) > 100
    assert worlds[0].trace == worlds[1].trace
    program = "from tests.simulation.world import World; print(World(5, phases=1, steps=40).run().digest)"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == worlds[0].digest


def _run(seeds, **changes):
    for seed in seeds:
        World(seed, **{"phases": 1, "steps": 40, "reset_mode": None, **changes}).run()


def test_a_disk_that_lies_is_noticed(monkeypatch):
    """When syncing does nothing, a power failure takes what was committed, and the simulation says so."""

    def lying(self, descriptor):
        self._operate()

    monkeypatch.setattr(Disk, "sync", lying)
    with pytest.raises(SimulationFailure, match=r"lost what it had committed|above what the client has"):
        _run(range(10))


def test_a_server_that_acknowledges_too_early_is_noticed(monkeypatch):
    """When a server acknowledges what it has not written, a kill loses it, and the simulation says so."""
    write = History.write

    def forgetful(self, sql):
        self.log.rows = self.log.rows[:-1]
        write(self, sql)

    monkeypatch.setattr(History, "write", forgetful)
    with pytest.raises(SimulationFailure):
        _run(range(10))


# ---- what each feature's world would notice


def _without(changeset, unwanted):
    return Changeset.from_instructions([one for one in changeset.instructions() if not unwanted(one)])


def test_new_properties_that_are_lost_are_noticed(monkeypatch):
    """When values of a property that came with a newer program are not written, on either side, growth says so."""
    commit = RealmStore.commit
    unwanted = lambda one: isinstance(one, Update) and one.field == "worth"  # noqa: E731
    forget = lambda self, data, *, timestamp: commit(self, _without(data, unwanted), timestamp=timestamp)  # noqa: E731
    monkeypatch.setattr(RealmStore, "commit", forget)
    with pytest.raises(SimulationFailure, match="is worth 0"):
        _run(range(10), features=("growth",))


def test_a_server_that_tells_nobody_of_new_properties_is_noticed(monkeypatch):
    """When additions to the schema are not passed on, the sides differ."""

    def share(*arguments, **settings):
        found = views.share(*arguments, **settings)
        if found.passed is None:
            return found
        return replace(found, passed=_without(found.passed, lambda one: isinstance(one, AddColumn | AddTable)))

    monkeypatch.setattr(sharing, "share", share)
    with pytest.raises(SimulationFailure):
        _run(range(10), features=("growth",))


def test_readings_that_stay_are_noticed(monkeypatch):
    """When a client keeps objects of an asymmetric class, the simulation says so."""
    monkeypatch.setattr(state, "without_passing", lambda _snapshot, applied, _changeset, _version: applied)
    with pytest.raises(SimulationFailure, match=r"keeps \d+ readings"):
        _run(range(10), features=("readings",), flexible=True)


def test_readings_that_are_not_uploaded_are_noticed(monkeypatch):
    """When they are taken out of what is uploaded too, nobody has them, and the simulation says so."""
    record = state.local_record

    def forgetful(before, data, timestamp):
        kept = _without(Changeset.decode(data), lambda one: one.table == "Reading" and hasattr(one, "pk"))
        return record(before, kept.encode(), timestamp)

    monkeypatch.setattr(state, "local_record", forgetful)
    with pytest.raises(SimulationFailure, match="readings lost"):
        _run(range(10), features=("readings",), flexible=True)


def test_values_that_are_sent_in_part_are_noticed(monkeypatch):
    """When a full state lacks what is in nested collections, a side that gets it differs."""

    def shallow(*arguments, **settings):
        made = objects_changeset(*arguments, **settings)
        return made.take(np.flatnonzero(made.path_len < 2))

    monkeypatch.setattr(bootstrap, "objects_changeset", shallow)
    with pytest.raises(SimulationFailure, match="differs"):
        _run(range(10), features=("values",), flexible=True)


def test_a_server_that_lets_revoked_users_go_on_is_noticed(monkeypatch):
    """When connections of a revoked user stay open, what is uploaded on them is noticed."""
    monkeypatch.setattr(Engine, "end_user", lambda _self, _app, _user: None)
    with pytest.raises(SimulationFailure, match="was revoked, and uploaded"):
        _run(range(30), features=("tokens",))


def test_a_client_that_does_not_log_out_is_noticed(monkeypatch):
    """When a refused refresh does not end the session, the simulation says so."""
    monkeypatch.setattr(TokenApp, "expel", lambda _self, _user: None)
    with pytest.raises(SimulationFailure, match="the session goes on"):
        _run(range(10), features=("tokens",))


def test_processes_that_do_not_look_what_others_wrote_are_noticed(monkeypatch):
    """When a process commits on what it knew, without reading what the other one committed, the simulation says so."""
    monkeypatch.setattr(RealmStore, "_catch_up", lambda _self: False)
    with pytest.raises(SimulationFailure):
        _run(range(10), features=("processes",))
