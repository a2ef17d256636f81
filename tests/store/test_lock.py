"""Locks between processes and between handles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from realmframe.errors import UsageError
from realmframe.store.files import FileSystem
from realmframe.store.lock import SYNC, Use, held, lock_file, try_lock


def test_held_excludes_and_releases(tmp_path: Path) -> None:
    """A lock that another handle holds cannot be had in time, and can once it was released."""
    first, second = lock_file(tmp_path, SYNC), lock_file(tmp_path, SYNC)
    with held(first) as got, held(second, timeout=0) as other:
        assert got
        assert not other
    with held(second, timeout=0) as again:
        assert again


def test_use_excludes_deletion(tmp_path: Path) -> None:
    """A realm is deleted only once nobody has it open, and cannot be opened while it is."""
    fs = FileSystem()
    one, two = Use(tmp_path, fs), Use(tmp_path, fs)
    for use in (one, two):
        with pytest.raises(UsageError, match="is in use"):
            Use(tmp_path, fs, exclusive=True)
        use.release()
    claim = Use(tmp_path, fs, exclusive=True)
    with pytest.raises(UsageError, match="is being deleted"):
        Use(tmp_path, fs)
    claim.release()


@pytest.mark.process
def test_lock_dies_with_its_holder(tmp_path: Path) -> None:
    """A process that is killed leaves no lock behind."""
    code = (
        "import sys, pathlib\nfrom realmframe.store.lock import SYNC, lock_file, try_lock\n"
        f"lock = lock_file(pathlib.Path({str(tmp_path)!r}), SYNC)\nprint(try_lock(lock), flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        lock = lock_file(tmp_path, SYNC)
        assert not try_lock(lock)
        holder.kill()
        holder.wait(10)
        assert try_lock(lock)
        lock.release()
    finally:
        holder.kill()
        holder.communicate(timeout=10)
