"""Worlds in which everything fails that can fail: in each of them all come together, and no write is lost.

``python -m tests.simulation --seeds 0:1000`` runs more of them, and prints what happened in those that went wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from realmframe.client.reset import RECOVER, RECOVER_OR_DISCARD
from realmframe.server.history import History
from tests.simulation.disk import Disk
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
    (10306, "the connection of a dead process came back beside the one of the next, with what had been reset"),
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


def _run(seeds):
    for seed in seeds:
        World(seed, phases=1, steps=40, reset_mode=None).run()


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
