"""A process can be forked off at any moment, and works."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.waiting import WAIT

FORK = """
import os, sys, threading
import numba
from numba.core.compiler_lock import global_compiler_lock

from realmframe.store.forks import loading

lock = {"compiles": global_compiler_lock, "loads": loading}[sys.argv[1]]
held = threading.Event()
def work():
    with lock:
        held.set()
        threading.Event().wait(0.5)
threading.Thread(target=work).start()
held.wait()
child = os.fork()
if child == 0:
    threading.Timer(20, os._exit, [1]).start()
    with loading:
        pass
    assert numba.njit(lambda x: x + 1)(1) == 2
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("what", ["compiles", "loads"])
def test_while_a_thread_is_at_work(what: str) -> None:
    """The child can compile and load: it was forked off when the parent's threads were done with it."""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, what]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
