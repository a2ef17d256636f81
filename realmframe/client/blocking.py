"""Waiting for the sync thread: in a thread that blocks, or in a loop of the caller's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from realmframe.client.loop import sync_loop
from realmframe.errors import UsageError, WaitTimeoutError

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

T = TypeVar("T")
#: Seconds in which the sync thread says whether something is done already.
_ANSWER_SECONDS: Final = 5.0


def check_timeout(timeout: Any) -> float | None:
    """Take a time-out in seconds, zero or more; None is for ever.

    Raises
    ------
    UsageError
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise UsageError(f"timeout must be a number of seconds, zero or more, not {timeout!r}.")
    return None if timeout >= threading.TIMEOUT_MAX else float(timeout)


def block_on(session: SyncSession, work: Coroutine[Any, Any, T], timeout: float | None, what: str) -> T:
    """Block until a coroutine of the sync thread is done.

    Raises
    ------
    WaitTimeoutError
        When `timeout` seconds have passed; with 0, when it is not done already. It says where sync stands.
    UsageError
        For a time-out that is none, or when called in the sync thread.
    """
    try:
        limit = check_timeout(timeout)
    except UsageError:
        work.close()
        raise
    try:
        if limit == 0.0:
            return sync_loop().call(_only_look(work, what), _ANSWER_SECONDS, what)
        return sync_loop().call(work, limit, what)
    except WaitTimeoutError as late:
        raise WaitTimeoutError(late.message, hint=wait_hint(session)) from session.last_error


async def wait_in_loop(session: SyncSession, work: Coroutine[Any, Any, T], timeout: float | None, what: str) -> T:  # noqa: ASYNC109 - as in the blocking form
    """Wait in the caller's loop until a coroutine of the sync thread is done; as :func:`block_on`."""
    try:
        limit = check_timeout(timeout)
    except UsageError:
        work.close()
        raise
    future = asyncio.wrap_future(sync_loop().submit(_only_look(work, what) if limit == 0.0 else work))
    try:
        return await asyncio.wait_for(future, limit or None)
    except TimeoutError:
        text = f"{what} did not finish within {limit:g} s."
        raise WaitTimeoutError(text, hint=wait_hint(session)) from session.last_error
    except WaitTimeoutError as late:
        raise WaitTimeoutError(late.message, hint=wait_hint(session)) from session.last_error


async def _only_look(work: Coroutine[Any, Any, T], what: str) -> T:
    """*In the sync thread* Give the result of something that needs no waiting."""
    task = asyncio.ensure_future(work)
    # One turn to begin, one for what it awaits to be found done.
    for _ in range(2):
        await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        raise WaitTimeoutError(f"{what} is not done yet.")
    return task.result()


def wait_hint(session: SyncSession) -> str:
    """Say why a wait may have taken too long."""
    why = f" Last: {session.last_error.message}" if session.last_error is not None else ""
    return f"It goes on in the background ({session.connection_state}).{why}"
