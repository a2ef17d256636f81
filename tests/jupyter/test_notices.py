"""Warnings of the sync thread in a notebook: under the cell that runs, or the next one, once."""

from __future__ import annotations

import logging
import threading

from realmframe.jupyter.notices import MOST

from .conftest import Shell

LOG = logging.getLogger("realmframe.client")


def warn(*texts: str) -> None:
    """Log from another thread, as the sync thread does."""
    thread = threading.Thread(target=lambda: [LOG.warning("realm dogs.realm: %s", text) for text in texts])
    thread.start()
    thread.join()


def test_between_cells(shell: Shell) -> None:
    """It is shown with the next cell, before what that shows, and not again."""
    warn("The server refused.")
    shell.run("print('cell')")
    assert shell.shown.index("cell") >= 0
    assert shell.shown.count("realm dogs.realm: The server refused.") == 1
    shell.run("print('cell')")
    assert shell.shown.strip() == "cell"


def test_during_a_cell(shell: Shell) -> None:
    """It is shown with that cell."""
    shell.ip.user_ns["warn"] = warn
    shell.run("warn('It is slow.')")
    assert "It is slow." in shell.shown


def test_error_of_the_cell_itself(shell: Shell) -> None:
    """What the cell's error says is not said twice; anything else is."""
    shell.ip.user_ns["warn"] = warn
    shell.run("import realmframe as rf")
    shown = shell.fail("warn('It is wrong.', 'It is slow.'); raise rf.SyncError('It is wrong.')")
    assert shown.count("It is wrong.") == 1
    assert shown.count("It is slow.") == 1
    shell.run("1")
    assert "It is" not in shell.shown


def test_very_many(shell: Shell) -> None:
    """The newest are shown, and how many there were before them."""
    warn(*(f"number {n}" for n in range(MOST + 3)))
    shell.run("1")
    lines = [line for line in shell.shown.splitlines() if "number" in line or "earlier" in line]
    assert lines[0] == "(3 earlier warnings)"
    assert [line.rpartition(" ")[2] for line in lines[1:]] == [str(n) for n in range(3, MOST + 3)]


def test_without_the_extension(shell: Shell) -> None:
    """Unloading it takes the handler away."""
    before = len(logging.getLogger("realmframe").handlers)
    shell.run("%unload_ext realmframe")
    assert len(logging.getLogger("realmframe").handlers) == before - 1
    shell.run("%load_ext realmframe")
    assert len(logging.getLogger("realmframe").handlers) == before
