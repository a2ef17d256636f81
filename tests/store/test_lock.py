"""Locks between processes and between handles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from realmframe.errors import StorageError, UsageError
from realmframe.store import lock as locks
from realmframe.store.files import FileSystem
from realmframe.store.lock import SYNC, Use, WriteLock, held, lock_file, try_lock
from tests.waiting import WAIT


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
        use.close()
    claim = Use(tmp_path, fs, exclusive=True)
    with pytest.raises(UsageError, match="is being deleted"):
        Use(tmp_path, fs)
    claim.close()


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
        holder.communicate(timeout=WAIT)


FORK = """
import os, pathlib, sys
from realmframe.store.files import FileSystem
from realmframe.store.lock import SYNC, Use, WriteLock, lock_file, try_lock

folder = pathlib.Path(sys.argv[1])
use, writing, syncing = Use(folder, FileSystem()), WriteLock(folder), lock_file(folder, SYNC)
writing.acquire()
assert try_lock(syncing)
child = os.fork()
if child == 0:
    own = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    use.close(), writing.close()  # numbers that are others' now
    os.fstat(own[0]), os.fstat(own[1])
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
child = os.fork()
os.write(1, f"{'child' if child == 0 else 'parent'} {os.getpid()}\\n".encode())
sys.stdin.read()
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's locks stay its own: they die with it, and not with the process that was forked off."""
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.0)
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(tmp_path)]
    holder = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found: dict[str, int] = {}
    try:
        assert holder.stdout is not None
        for _ in range(2):
            name, number = holder.stdout.readline().split()
            found[name] = int(number)
        assert found["parent"] == holder.pid
        syncing, writing = lock_file(tmp_path, SYNC), WriteLock(tmp_path)
        assert not try_lock(syncing)
        with pytest.raises(StorageError, match="has held"):
            writing.acquire()
        with pytest.raises(UsageError, match="is in use"):
            Use(tmp_path, FileSystem(), exclusive=True)
        holder.kill()
        holder.wait(10)
        os.kill(found["child"], 0)  # it is there
        assert try_lock(syncing)
        syncing.release()
        writing.acquire()
        writing.release()
        writing.close()
        Use(tmp_path, FileSystem(), exclusive=True).close()
    finally:
        holder.kill()
        if "child" in found:
            os.kill(found["child"], signal.SIGKILL)
        holder.communicate(timeout=WAIT)
