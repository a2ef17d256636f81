"""Threads that work for the sync thread: in order, as many as are allowed, and none when there is nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from realmframe.client.workers import Workers
from tests.waiting import WAIT, until


def names() -> list[str]:
    """List the threads of the pool."""
    return [thread.name for thread in threading.enumerate() if thread.name == "worker"]


def test_one_thread_works_in_order() -> None:
    """Also while more comes; then it ends."""
    pool, done = Workers(1, "worker"), list[int]()
    go = threading.Event()
    futures = [pool.submit(go.wait), *(pool.submit(done.append, n) for n in range(50))]
    assert names() == ["worker"]
    go.set()
    for future in futures:
        future.result(WAIT)
    assert done == list(range(50))
    pool.finish()
    assert until(lambda: names() == [])
    assert pool.submit(lambda: 7).result(WAIT) == 7


def test_as_many_as_are_allowed_at_once() -> None:
    """Three meet where three are allowed; the fourth waits for its turn, and can be cancelled until then."""
    pool, meeting = Workers(3, "worker"), threading.Barrier(4)
    met = [pool.submit(meeting.wait) for _ in range(3)]
    fourth, fifth = pool.submit(lambda: 4), pool.submit(lambda: 5)
    assert fifth.cancel()
    assert len(names()) == 3
    assert not fourth.done()
    meeting.wait(WAIT)
    assert sorted(future.result(WAIT) for future in met) != []
    assert fourth.result(WAIT) == 4


def test_what_is_raised_is_handed_on() -> None:
    """It ends the call, not the thread."""
    pool = Workers(1, "worker")

    def fail() -> None:
        raise KeyError("x")

    failed, after = pool.submit(fail), pool.submit(lambda: 1)
    with pytest.raises(KeyError):
        failed.result(WAIT)
    assert after.result(WAIT) == 1


END = """
import os, sys, threading, time
from realmframe.client.workers import Workers
pool, begun = Workers(1, "worker"), threading.Event()
def work():
    begun.set()
    time.sleep(0.3)
    os.write(1, b"done ")
pool.submit(work)
begun.wait()
child = os.fork() if sys.argv[1] == "fork" else 1
if child == 0:
    pool.submit(os.write, 1, b"child ").result(30)
    sys.exit()
if sys.argv[1] == "fork":
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.process
@pytest.mark.parametrize(("how", "said"), [("end", b"done "), ("fork", b"child done ")])
def test_the_end_of_a_program(how: str, said: bytes) -> None:
    """What is being done is done first; a process that was forked off has nothing of it to wait for."""
    if how == "fork" and not hasattr(os, "fork"):
        pytest.skip("the system has no fork")
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", END, how]
    ended = subprocess.run(arguments, capture_output=True, timeout=WAIT, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert sorted(ended.stdout.split()) == sorted(said.split())
