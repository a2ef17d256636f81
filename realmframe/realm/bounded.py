"""Work on files that somebody waits for only so long: a long journal, or a lock that another process holds."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from realmframe.realm.deadline import Deadline

T = TypeVar("T")
#: Seconds between two looks of the waiting thread, so that Ctrl-C is heard.
_TICK: Final = 0.25


class LateError(Exception):
    """The time has passed; whoever asked for the work says so in words of its own."""


def within(deadline: Deadline, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Do something in a thread of its own, and wait for it until a deadline.

    Parameters
    ----------
    deadline : Deadline
        Without an end too the work is done in that thread: Ctrl-C then meets nobody but the one who waits.
    work : callable
        Goes on after the deadline: what has begun with files is brought to its end.
    undo : callable, optional
        ``f(result)``: called in that thread if nobody waits any more when the work is done.

    Raises
    ------
    LateError
        When the deadline has passed.
    Exception
        Whatever the work raises.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    lock = threading.Lock()
    is_given_up = False

    def run() -> None:
        try:
            found = work()
        except BaseException as error:
            future.set_exception(error)
            return
        with lock:
            given_up = is_given_up
            if not given_up:
                future.set_result(found)
        if given_up and undo is not None:
            undo(found)

    threading.Thread(target=run, name="realmframe-files", daemon=True).start()
    try:
        while True:
            left = deadline.remaining
            try:
                return future.result(_TICK if left is None else min(_TICK, left))
            except concurrent.futures.TimeoutError:
                if future.done():
                    raise  # the work's own
                if deadline.passed:
                    raise LateError from None
    except BaseException:  # late, or Ctrl-C
        with lock:
            is_given_up = True
            found = future.done() and future.exception() is None
        if found and undo is not None:
            undo(future.result())
        raise
