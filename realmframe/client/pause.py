"""No cyclic garbage collection while a realm's data is being integrated.

A collection of everything stops all threads for as long as it takes to look at every object of the process: 100 ms with
the usual packages loaded, several times while a large download is integrated. Whoever waits with a time-out would be
that late. What integrating makes has no cycles, so nothing is gained by looking for them then.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_lock: Final = threading.Lock()
_users = 0
_was_enabled = False


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause it; it goes on when the last of all threads is done, if it was on before the first."""
    global _users, _was_enabled
    with _lock:
        if _users == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _was_enabled:
                gc.enable()
