"""A disk that forgets: what a process wrote and did not sync may be gone, or half there, after a crash.

The files are real ones in a folder of the test; what is simulated is which of their bytes and names outlive the
process. A crash that only ends the process leaves everything that was written; one that takes the machine with it
leaves, for each file, what was synced and some of what came after.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from realmframe.store.files import FileSystem

#: A disk loses whole pages.
PAGE: Final = 512


class SimulatedKill(BaseException):
    """The process is dead: no code of it may go on."""


@dataclass(eq=False)
class _File:
    path: Path
    #: What was in it when it was synced last; None: never.
    synced: bytes | None


class Disk(FileSystem):
    """The disk of one process until it dies.

    Parameters
    ----------
    root : Path
        An empty folder.
    image : mapping of str to bytes
        What the crash before left: contents by relative path.
    rng : Random
    on_crash : callable
        Called when the process dies here.
    """

    def __init__(
        self, root: Path, image: Mapping[str, bytes], rng: random.Random, on_crash: Callable[[], None]
    ) -> None:
        self.root, self._rng, self._on_crash = root, rng, on_crash
        self._names: dict[Path, _File] = {}
        self._open: dict[int, _File] = {}
        for name, content in image.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self._names[path] = _File(path, content)
        self._synced_names = dict(self._names)
        self._synced_folders = {root, *(p for path in self._names for p in path.parents)}
        self.is_dead = False
        self.image: dict[str, bytes] = {}
        #: How many operations it will survive; None: all.
        self.fuse: int | None = None
        self.operations = 0

    # ---- what the store asks for

    def open(self, path: Path, flags: int) -> int:
        """Open a file."""
        known = self._names.get(path)
        if known is None or not path.exists():
            if flags & os.O_CREAT:
                self._operate()
            descriptor = super().open(path, flags)
            known = self._names[path] = _File(path, None)
        else:
            descriptor = super().open(path, flags)
        self._open[descriptor] = known
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Write, or die in the middle of it."""
        if self.fuse == 0 and not self.is_dead:
            super().write(
                descriptor, memoryview(data).cast("B")[: self._rng.randint(0, len(memoryview(data).cast("B")))]
            )
        self._operate()
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Remember what is in the file now."""
        self._operate()
        file = self._open[descriptor]
        file.synced = file.path.read_bytes()

    def rename(self, source: Path, target: Path) -> None:
        """Replace a file."""
        self._operate()
        super().rename(source, target)
        file = self._names[target] = self._names.pop(source)
        file.path = target

    def sync_folder(self, folder: Path) -> None:
        """Remember which names there are now."""
        self._operate()
        self._forget_removed()
        for path in [p for p in self._synced_names if p.parent == folder]:
            del self._synced_names[path]
        self._synced_names |= {p: f for p, f in self._names.items() if p.parent == folder}
        self._synced_folders |= {p for p in folder.iterdir() if p.is_dir()}

    def step(self, name: str) -> None:
        """Pass a step at which it may die."""
        self._operate()

    def _operate(self) -> None:
        if self.is_dead:
            raise SimulatedKill
        self.operations += 1
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.crash()
                raise SimulatedKill

    # ---- dying

    def crash(self) -> None:
        """Die: decide what is left, and let nothing more happen."""
        if self.is_dead:
            return
        self.is_dead = True
        self._forget_removed()
        if self._rng.random() < 0.4:
            found = {path: path.read_bytes() for path in self._names}
        else:
            found = self._after_power_loss()
        self.image = {str(path.relative_to(self.root)): content for path, content in found.items()}
        self._on_crash()

    def _forget_removed(self) -> None:
        for path in [path for path in self._names if not path.exists()]:
            del self._names[path]

    # ---- several processes

    def shared(self, rng: random.Random, on_crash: Callable[[], None]) -> Disk:
        """Give the same disk to another process, which dies alone, or with the one that had it first."""
        return _SharedDisk(self, rng, on_crash)

    def _after_power_loss(self) -> dict[Path, bytes]:
        rng, found = self._rng, dict[Path, bytes]()
        folders = dict.fromkeys(p for path in self._names for p in path.parents if p not in self._synced_folders)
        lost = {p for p in folders if self.root in p.parents and rng.random() < 0.5}
        for path in dict.fromkeys([*self._synced_names, *self._names]):
            new, old = self._names.get(path), self._synced_names.get(path)
            file = new if new is old or rng.random() < 0.5 else old
            if file is None or lost.intersection(path.parents):
                continue
            if file is new:
                found[path] = self._content(file.synced, path.read_bytes())
            elif file.synced is not None:
                found[path] = file.synced
        return found

    def _content(self, synced: bytes | None, now: bytes) -> bytes:
        """Give what is left of a file: what was synced, and some of what was not."""
        rng, old = self._rng, synced or b""
        if now == old or rng.random() < 0.3:
            return old
        if rng.random() < 0.3 or not now.startswith(old):
            return now
        at = rng.randint(len(old), len(now))
        if rng.random() < 0.5:
            return now[:at]
        # The size is known already, the pages are not there yet.
        at = max(len(old), at // PAGE * PAGE)
        return now[:at] + bytes(len(now) - at)


class _SharedDisk(Disk):
    """The disk as a second process has it; when that dies, what it wrote stays, and the machine runs on."""

    def __init__(self, other: Disk, rng: random.Random, on_crash: Callable[[], None]) -> None:
        super().__init__(other.root, {}, rng, on_crash)
        self._names, self._open = other._names, other._open
        self._synced_names, self._synced_folders = other._synced_names, other._synced_folders

    def crash(self) -> None:
        """Die."""
        if not self.is_dead:
            self.is_dead = True
            self._on_crash()
