"""Garbage collection stands still while data is integrated, whoever else integrates, and goes on as it was."""

from __future__ import annotations

import contextlib
import gc

from realmframe.client.pause import collection_paused


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
