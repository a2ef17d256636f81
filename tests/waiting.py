"""Waits of the tests: long enough for a busy machine, and over as soon as what is waited for holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Seconds after which a test gives up. Nothing that goes well takes as long, however busy the machine is.
WAIT: Final = 60.0


def until(holds: Callable[[], object], seconds: float = WAIT) -> bool:
    """Wait until something holds; tell whether it does."""
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            return False
        time.sleep(0.005)
    return True
