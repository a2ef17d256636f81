"""Garbage collection stands still while data is integrated and before a time-out, and goes on as it was."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time

import pytest

from realmframe.client import pause as pause_module
from realmframe.client.pause import NEAR_SECONDS, PauseBeforeTimeOut, collection_paused


def test_paused_until_the_last_is_done() -> None:
    """Two that overlap end the pause together, also when one fails."""
    assert gc.isenabled()
    with collection_paused():
        with contextlib.suppress(KeyError), collection_paused():
            assert not gc.isenabled()
            raise KeyError
        assert not gc.isenabled()
    assert gc.isenabled()


def test_stays_off_where_it_was_off() -> None:
    """What the program itself switched off is not switched on."""
    gc.disable()
    try:
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def _comes(is_enabled: bool, seconds: float = 5.0) -> bool:
    """Tell whether the collector is soon on, or off."""
    ends = time.monotonic() + seconds
    while gc.isenabled() != is_enabled and time.monotonic() < ends:
        time.sleep(0.002)
    return gc.isenabled() == is_enabled


def test_from_shortly_before_a_time_out_until_it_is_over() -> None:
    """A time-out that is far away changes nothing yet; when it is near collections wait until whoever waits is done."""
    pause = PauseBeforeTimeOut(NEAR_SECONDS + 0.2)
    assert gc.isenabled()
    assert _comes(is_enabled=False)
    pause.end()
    assert gc.isenabled()
    pause.end()
    assert gc.isenabled()


def test_at_once_where_the_time_out_is_near() -> None:
    """Two that overlap: the last one counts."""
    one, other = PauseBeforeTimeOut(0.0), PauseBeforeTimeOut(NEAR_SECONDS)
    assert not gc.isenabled()
    one.end()
    assert not gc.isenabled()
    other.end()
    assert gc.isenabled()


def test_not_without_a_time_out() -> None:
    """None never comes."""
    PauseBeforeTimeOut(None)
    assert gc.isenabled()


def test_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forgets an opening does not keep collections off."""
    monkeypatch.setattr(pause_module, "GRACE_SECONDS", 0.5)
    PauseBeforeTimeOut(0.0)
    assert not gc.isenabled()
    assert _comes(is_enabled=True)


def test_ended_before_it_is_near() -> None:
    """Then it never begins."""
    pause = PauseBeforeTimeOut(NEAR_SECONDS + 0.05)
    pause.end()
    assert not _comes(is_enabled=False, seconds=0.15)


FORK = """
import gc, os, sys
from realmframe.client import pause
from realmframe.client.pause import PauseBeforeTimeOut, collection_paused

def child_of(work):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0

def check(is_enabled):
    assert gc.isenabled() is is_enabled
    with collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled() is is_enabled

def on():
    check(True)
    one = PauseBeforeTimeOut(0.5)
    assert not gc.isenabled()
    one.end()
    assert gc.isenabled()
    inherited.end()
    check(True)

inherited = PauseBeforeTimeOut(0.5)
assert not gc.isenabled()
with pause._lock:  # as when another thread begins or ends a pause in this moment
    child_of(on)
assert not gc.isenabled()
inherited.end()
check(True)

with collection_paused():
    child_of(lambda: check(True))
    assert not gc.isenabled()
check(True)

gc.disable()
with collection_paused():
    child_of(lambda: check(False))
check(False)
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_process_that_is_forked_off_meanwhile() -> None:
    """It collects as its parent did before: nobody there would ever end the pause."""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
