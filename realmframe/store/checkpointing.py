"""Checkpoints of a realm that is open, copies of it, and its past."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from realmframe.errors import ClosedError, StorageError, UsageError
from realmframe.store import folder as folders
from realmframe.store import lock as locks
from realmframe.store import state as st
from realmframe.store.applied import Applied
from realmframe.store.checkpoint import freeze_index, read_checkpoint, separate_index, write_checkpoint
from realmframe.store.files import make_folder
from realmframe.store.journal import Segment, segment_numbers
from realmframe.store.realm_files import RealmFiles
from realmframe.store.snapshot import Snapshot
from realmframe.store.state import State


class CheckpointedFiles(RealmFiles):
    """A realm's files that are written anew as a whole now and then."""

    def checkpoint(self) -> None:
        """Write a checkpoint now; commits of other threads go on meanwhile.

        Raises
        ------
        StorageError
            If it cannot be written; nothing is lost.
        """
        with self._checkpoint_mutex, locks.held(self._checkpoint_lock):
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        with self._writing():
            state, previous = self._state, self._checkpoint
            assert self._segment is not None
            number = self._segment.number + 1
            self._use_segment(number, create=True)
            self._journal_bytes = 0
            indexes = {name: freeze_index(table) for name, table in state.snapshot.tables.items()}
        self._fs.step("journal rotated")
        form, blobs = st.state_to_extra(state)
        made = write_checkpoint(
            self.path,
            state.snapshot,
            {"segment": number, "state": form},
            blobs=blobs,
            previous=previous if self._manifest_now() == self._checkpoint_id else None,
            fs=self._fs,
            indexes=indexes,
            publishing=lambda: self._publishing(number),
        )
        self._checkpoint = made

    @contextlib.contextmanager
    def _publishing(self, number: int) -> Iterator[None]:
        with self._writing(catch_up=False):
            yield
            self._manifest_id = self._checkpoint_id = self._manifest_now()
            self._remove_segments(number)

    def _checkpoint_soon(self) -> None:
        if self._checkpointing is not None:
            return

        def run() -> None:
            try:
                with contextlib.suppress(StorageError, ClosedError):
                    self.checkpoint()
            finally:
                self._checkpointing = None

        self._checkpointing = threading.Thread(target=run, name=f"realmframe-checkpoint-{self.path.name}", daemon=True)
        self._checkpointing.start()

    def copy_to(self, path: str | os.PathLike[str], *, with_identity: bool = True) -> None:
        """Write the newest state, with all that belongs to it, as a realm at another path.

        Parameters
        ----------
        with_identity : bool
            False leaves out who the file is to the server: its number, its user and its own history, not how far it has
            downloaded. It belongs to whichever user of the app opens it first; so it can be shipped to many.

        Raises
        ------
        UsageError
            If there is one already, or one without identity would lose what was not uploaded yet.
        """
        folder = Path(path)
        if folders.exists(folder):
            raise UsageError(f"There is a realm at {folder} already.", hint="Delete it first, or give another path.")
        folders.check_foreign(folder)
        state = self._state if with_identity else st.without_identity(self._state, self.path)
        form, blobs = st.state_to_extra(state)
        make_folder(self._fs, folder)
        with self._lock:
            freeze = freeze_index if with_identity else separate_index
            indexes = {name: freeze(table) for name, table in state.snapshot.tables.items()}
        Segment(folder, 1, self._fs, create=True).close()
        write_checkpoint(
            folder, state.snapshot, {"segment": 1, "state": form}, blobs=blobs, fs=self._fs, indexes=indexes
        )

    # ------------------------------------------------------------------ the past

    def as_of(self, version: int) -> Snapshot:
        """Give the state at a past version.

        Raises
        ------
        UsageError
            If the version is newer than the newest, or older than the last checkpoint and no longer in memory.
        """
        with self._lock:
            now = self._state.snapshot.version
            if version == now:
                return self._state.snapshot
            for applied in self._past:
                if applied.before.version <= version < applied.snapshot.version:
                    return applied.before
            oldest = self._past[0].before.version if self._past else now
        with contextlib.suppress(StorageError):
            found, oldest = self._replayed(version, oldest)
            if found is not None:
                return found
        raise UsageError(
            f"Version {version} of the realm is not kept.", hint=f"Versions {oldest} to {now} are, for now."
        )

    def _replayed(self, version: int, oldest: int) -> tuple[Snapshot | None, int]:
        """Read a version out of checkpoint and journal."""
        checkpoint = read_checkpoint(self.path)
        state, first = State(Snapshot.empty()), 0
        if checkpoint is not None:
            state = st.state_from_extra(checkpoint.snapshot, checkpoint.extra["state"], checkpoint.blobs)
            first = int(checkpoint.extra["segment"])
        if not state.snapshot.version <= version < self._state.snapshot.version:
            return None, min(oldest, state.snapshot.version)
        for number in [n for n in segment_numbers(self.path) if n >= first]:
            segment = Segment(self.path, number, self._fs, read_only=True)
            try:
                for record in segment.read():
                    if record.version > version:
                        return state.snapshot, oldest
                    state, _ = st.advance(state, record)
            finally:
                segment.close()
        return state.snapshot, oldest

    def past(self) -> list[Applied]:
        """List the last commits, oldest first."""
        with self._lock:
            return list(self._past)
