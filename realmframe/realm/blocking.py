"""Blocking on an awaitable where a loop runs already, as in a notebook's cell."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from realmframe.client.loop import sync_loop
from realmframe.errors import UsageError

T = TypeVar("T")
_patched: Final[weakref.WeakSet[asyncio.AbstractEventLoop]] = weakref.WeakSet()


def run(awaitable: Awaitable[T]) -> T:
    """Wait for an awaitable and give its result, also inside a running loop.

    With no loop running this is ``asyncio.run``. Inside one (a notebook's cell) nest-asyncio is applied to that loop,
    once, and to no other; the sync thread is never patched.

    Raises
    ------
    UsageError
        In the sync thread.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_await(awaitable))
    if sync_loop().loop is loop:
        raise UsageError("realmframe.run would block the sync thread.", hint="Await it instead.")
    if loop not in _patched:
        import nest_asyncio

        nest_asyncio.apply(loop)
        _patched.add(loop)
    result: Any = loop.run_until_complete(_await(awaitable))
    return result  # type: ignore[no-any-return]


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
