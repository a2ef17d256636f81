"""The users' callbacks run in a thread of their own, one at a time, so that they may wait for the sync thread."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Final

from realmframe.client.workers import Workers

log: Final = logging.getLogger("realmframe.client")

_thread = Workers(1, "realmframe-callbacks")


def deliver(callback: Callable[..., object], *arguments: Any) -> None:
    """Have a function called soon; what it raises is logged."""
    _thread.submit(_call, callback, *arguments)


def _call(callback: Callable[..., object], *arguments: Any) -> None:
    try:
        callback(*arguments)
    except Exception:
        log.exception("a callback failed")


def _after_fork() -> None:
    """Begin anew in a forked process, which has none of the threads."""
    global _thread
    _thread = Workers(1, "realmframe-callbacks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
