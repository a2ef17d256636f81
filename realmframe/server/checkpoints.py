"""Checkpoints of a realm's state, beside the database; they save replaying the log, and can be deleted at any time."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from pathlib import Path
from typing import Final

from realmframe.errors import RealmError
from realmframe.store import Checkpoint, Snapshot, read_checkpoint, write_checkpoint
from realmframe.store.checkpoint import FrozenIndex, freeze_index

logger = logging.getLogger("realmframe.server")
#: A checkpoint is due after this many entries or bytes of log, but takes no more than a tenth of the time.
CHECKPOINT_ENTRIES: Final = 5_000
CHECKPOINT_BYTES: Final = 16 << 20
_PAUSE: Final = 9.0


def checkpoint_folder(folder: Path, app: str, name: str) -> Path:
    """Say where in the data folder the checkpoints of a realm lie."""
    # Apps and partitions are named by clients: hashed, no name can leave the folder or be too long for it.
    digest = hashlib.sha256(f"{len(app)} {app} {name}".encode("utf-8", "surrogatepass")).hexdigest()
    return folder / "checkpoints" / digest[:40]


class Checkpoints:
    """The checkpoints of one realm; written by a thread of their own, or at once at the end.

    Parameters
    ----------
    folder : Path
        The server's data folder.
    app, name : str
        The realm's.
    salt : int
        The history's: a checkpoint of another history is not used.
    """

    def __init__(self, folder: Path, app: str, name: str, salt: int) -> None:
        self.folder = checkpoint_folder(folder, app, name)
        self._extra = {"app": app, "name": name, "salt": salt}
        self._current: Checkpoint | None = None
        self._thread: threading.Thread | None = None
        self._not_before = 0.0
        #: Version of the newest one, and the entries and bytes of log since.
        self.version = self.entries = self.size = 0

    def load(self, newest: int) -> Snapshot | None:
        """Give the state of the newest one; None if there is none that fits a log which ends at a version."""
        try:
            found = read_checkpoint(self.folder)
        except (RealmError, OSError) as error:
            logger.warning("A checkpoint cannot be used, the log is replayed instead: %s", error)
            return None
        if found is None:
            return None
        extra = found.extra
        if extra.get("salt") != self._extra["salt"] or extra.get("version") != found.snapshot.version:
            logger.warning("The checkpoint in %s is of another history; the log is replayed instead", self.folder)
            return None
        if found.snapshot.version > newest:
            logger.warning(
                "The checkpoint in %s is of version %d, newer than the log, which ends at %d; the log is replayed",
                self.folder,
                found.snapshot.version,
                newest,
            )
            return None
        self._current, self.version = found, found.snapshot.version
        return found.snapshot

    def count(self, size: int) -> None:
        """Note an entry of the log."""
        self.entries += 1
        self.size += size

    def is_due(self) -> bool:
        """Whether enough log has come since the newest one."""
        if self.entries < CHECKPOINT_ENTRIES and self.size < CHECKPOINT_BYTES:
            return False
        return time.monotonic() >= self._not_before and (self._thread is None or not self._thread.is_alive())

    def start(self, snapshot: Snapshot) -> None:
        """Write one in a thread; the snapshot is the newest, and durable in the log."""
        indexes = {name: freeze_index(table) for name, table in snapshot.tables.items()}
        self.entries = self.size = 0
        self._thread = threading.Thread(
            target=self._write, args=(snapshot, indexes), name="realmframe-server-checkpoint", daemon=True
        )
        self._thread.start()

    def finish(self, snapshot: Snapshot) -> None:
        """Wait for the thread, and write the last one if there is anything new; nobody writes to the realm now."""
        if self._thread is not None:
            self._thread.join(60)
            if self._thread.is_alive():
                return
        if snapshot.version > self.version and snapshot.tables:
            self._write(snapshot, {name: freeze_index(table) for name, table in snapshot.tables.items()})

    def _write(self, snapshot: Snapshot, indexes: dict[str, FrozenIndex]) -> None:
        begun = time.monotonic()
        try:
            extra = {**self._extra, "version": snapshot.version}
            self._current = write_checkpoint(self.folder, snapshot, extra, previous=self._current, indexes=indexes)
            self.version = snapshot.version
        except (RealmError, OSError):
            logger.exception("A checkpoint could not be written; the next start takes longer")
        now = time.monotonic()
        self._not_before = now + _PAUSE * (now - begun)
