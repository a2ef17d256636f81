"""One server on one data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from realmframe.errors import StorageError
from realmframe.store.lock import Lock, lock_file, try_lock

#: Name of the lock that a running server holds on its data folder.
RUNNING: Final = "server.lock"
#: Seconds that a server waits for it: an administrator's command, or a server that is just ending, may have it.
CLAIM_SECONDS: Final = 2.0


def claim(folder: Path, lock: Lock | None = None) -> Lock:
    """Become the one server of a data folder; the engine lets it go when it stops.

    Raises
    ------
    StorageError
        If another server has it.
    """
    running = lock or lock_file(folder, RUNNING)
    if not try_lock(running, CLAIM_SECONDS):
        raise StorageError(
            f"Another server runs on the data folder {folder}.",
            path=str(folder),
            hint="Stop it first, or give this one a folder of its own with --data.",
        )
    return running
