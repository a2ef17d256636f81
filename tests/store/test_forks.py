"""A process can be forked off at any moment, and works."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.waiting import WAIT

COMPILING = """
import os, threading
import numba
from numba.core.compiler_lock import global_compiler_lock
import realmframe.store

held = threading.Event()
def compile():
    with global_compiler_lock:
        held.set()
        threading.Event().wait(0.5)
threading.Thread(target=compile).start()
held.wait()
child = os.fork()
if child == 0:
    threading.Timer(20, os._exit, [1]).start()
    assert numba.njit(lambda x: x + 1)(1) == 2
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_while_a_kernel_is_compiled() -> None:
    """The child can compile: it was forked off when the parent's threads were done with it."""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", COMPILING]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
