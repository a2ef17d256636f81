"""The users' callbacks run in a thread of their own, one at a time, so that they may wait for the sync thread."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable
from typing import Any, Final

log: Final = logging.getLogger("realmframe.client")

_thread: Final = concurrent.futures.ThreadPoolExecutor(1, "realmframe-callbacks")


def deliver(callback: Callable[..., object], *arguments: Any) -> None:
    """Have a function called soon; what it raises is logged."""
    _thread.submit(_call, callback, *arguments)


def _call(callback: Callable[..., object], *arguments: Any) -> None:
    try:
        callback(*arguments)
    except Exception:
        log.exception("a callback failed")
