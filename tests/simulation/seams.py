"""Where the simulation takes the place of the world: clock, random numbers, threads, files; and limits made small."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from realmframe.client import binding, callbacks, connection, loop
from realmframe.server import bootstrap, checkpoints, log
from realmframe.server import connection as server_connection
from realmframe.server import session as sessions
from realmframe.session import uploads
from realmframe.store import checkpoint, checkpointing, folder, realm_store
from tests.simulation.clients import SimulatedConnection
from tests.simulation.loop import EPOCH, PROCESS, Callbacks, Thread, Threads

if TYPE_CHECKING:
    from tests.simulation.world import World


class _Failures(logging.Handler):
    """What the product logs and lives on with is a failure here: errors, and ends that do not understand each other."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Note one."""
        if record.levelno >= logging.ERROR or "broke the protocol" in record.getMessage():
            self._world.failures.append(f"logged by {record.name}: {self.format(record)}")


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """Run the product in a world."""
    rng, numbers = random.Random(f"{world.seed} secrets"), itertools.count(1)
    threads = SimpleNamespace(**{**vars(threading), "Thread": Thread})
    places: list[tuple[Any, str, Any]] = [
        (time, "monotonic", world.loop.time),
        (time, "time", lambda: EPOCH + world.loop.time()),
        (secrets, "randbits", rng.getrandbits),
        (secrets, "token_hex", lambda size: f"{rng.getrandbits(8 * size):0{2 * size}x}"),
        (os, "urandom", rng.randbytes),
        (uuid, "uuid4", lambda: uuid.UUID(int=next(numbers))),
        (loop, "_current", Threads()),
        (connection, "Connection", SimulatedConnection),
        (callbacks, "_thread", Callbacks()),
        (binding, "POLL_SECONDS", 5.0),
        (checkpointing, "threading", threads),
        (checkpoints, "threading", threads),
        (realm_store, "FileSystem", lambda: PROCESS.get().disk),
        (folder, "FileSystem", lambda: PROCESS.get().disk),
        (checkpoint, "FileSystem", lambda: PROCESS.get().disk),
        *_limits(world.settings.limits),
    ]
    logger, handler = logging.getLogger("realmframe"), _Failures(world)
    with contextlib.ExitStack() as stack:
        for place, name, value in places:
            stack.enter_context(mock.patch.object(place, name, value))
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(logging.INFO)
        stack.callback(logger.setLevel, level)
        stack.callback(logger.removeHandler, handler)
        stack.enter_context(mock.patch.object(logger, "propagate", False))
        yield


def _limits(name: str) -> list[tuple[Any, str, Any]]:
    """Give limits that a few writes already reach; with ``usual`` those of the product."""
    if name == "usual":
        return []
    size = {"tiny": 1, "small": 8}[name]
    return [
        (bootstrap, "BATCH_BYTES", 40 * size),
        (sessions, "BATCH_BYTES", 40 * size),
        (bootstrap, "_FIRST_ROWS", size),
        (server_connection, "ROOM", 400 * size),
        (sessions, "_LAG", 3 * size),
        (sessions, "_OUTBOX_BYTES", 1_000 * size),
        (log, "_RECENT_ENTRIES", 4 * size),
        (uploads, "UPLOAD_SOFT_LIMIT", 60 * size),
        (realm_store, "CHECKPOINT_BYTES", 3_000 * size),
        (realm_store, "CLOSING_BYTES", 1_000 * size),
        (checkpoints, "CHECKPOINT_ENTRIES", 10 * size),
    ]
