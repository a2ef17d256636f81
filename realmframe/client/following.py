"""What passes between the processes that have a realm open, of which one syncs: the others follow it.

A follower sees in the store what was uploaded and which subscriptions are complete, and in :mod:`.standing` how the
process that syncs is getting on. That everything which the server has *now* is here nobody but that process can find
out: a follower who waits for a download puts an empty file into ``asks/`` of the realm's folder, and the process that
syncs removes it when a MARK that it asked for afterwards is answered and integrated. A file of a process that was
killed is answered like any other, and harms nobody. ``asks/reconnect`` asks it to connect at once, whenever that would
be its next try: one who begins to follow would have tried at once himself.

Both look at the disk again and again: very soon after something has happened there or somebody has begun to wait, then
less and less often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from realmframe.client.loop import sync_loop
from realmframe.client.progress import TransferProgress
from realmframe.client.standing import Standing
from realmframe.errors import NetworkError, RealmError

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

log: Final = logging.getLogger("realmframe.client")

#: Folder of the questions, in the realm's own.
ASKS: Final = "asks"
#: Name of the one that asks to connect at once.
RECONNECT: Final = "reconnect"
#: Seconds until the next look at the disk after something has happened.
SOON_SECONDS: Final = 0.002
#: How much longer each pause is than the one before, while nothing happens.
GROWTH: Final = 1.5


class Pace:
    """How often one looks at the disk; only for use in the sync thread.

    Parameters
    ----------
    longest : float
        Seconds between two looks while nothing happens.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._next = SOON_SECONDS
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Look very soon: something has happened, or somebody waits."""
        self._next = SOON_SECONDS
        self._hurried.set()

    async def rest(self) -> None:
        """Wait until it is time to look again."""
        self._hurried.clear()
        seconds, self._next = self._next, min(self._longest, GROWTH * self._next)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()


class Ask:
    """A question of this process, put to the one that syncs; :meth:`put` makes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def put(cls, realm: Path, name: str | None = None) -> Ask | None:
        """Ask whether everything has come that the server has now, or something of another name.

        None if that cannot be written at the moment.
        """
        path = realm / ASKS / (name or secrets.token_hex(8))
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.touch(mode=0o600)
        except OSError as fault:
            log.info("realm %s: the process that syncs cannot be asked: %s", realm.name, fault)
            return None
        return cls(path)

    @property
    def is_answered(self) -> bool:
        """Whether the process that syncs has said so."""
        return not self._path.exists()

    def withdraw(self) -> None:
        """Wait for it no longer."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class Answers:
    """Answers the questions of other processes while this one syncs; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession
    tell : callable
        Tells where this process stands: what is answered with it is told before.
    """

    def __init__(self, session: SyncSession, tell: Callable[[], None]) -> None:
        self._session = session
        self._tell = tell
        self._folder = session.store.path / ASKS
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def look(self) -> bool:
        """Begin to answer what is new; tell whether there is anything."""
        try:
            found = [name for name in os.listdir(self._folder) if name not in self._tasks]
            if RECONNECT in found:
                found.remove(RECONNECT)
                (self._folder / RECONNECT).unlink(missing_ok=True)
                self._session.reconnect()
        except OSError:  # nobody has asked anything yet, as a rule
            return False
        for name in found:
            self._tasks[name] = sync_loop().spawn(self._answer(name), f"realmframe-answer-{name}")
        return bool(found)

    async def _answer(self, name: str) -> None:
        try:
            await self._session.wait_download()
            self._tell()
            (self._folder / name).unlink(missing_ok=True)
        except (RealmError, OSError) as fault:  # it is looked at again
            log.info("realm %s: another process waits on: %s", self._session.store.path.name, fault)
        finally:
            self._tasks.pop(name, None)

    def end(self) -> None:
        """Leave what is unanswered to the next process that syncs."""
        for task in list(self._tasks.values()):
            task.cancel()


class Following:
    """The time in which another process syncs the realm; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession

    Attributes
    ----------
    standing : Standing
        What the other process said last; all that it had by then is here.
    """

    def __init__(self, session: SyncSession) -> None:
        self._session = session
        self.standing = Standing()
        self._note: RealmError | None = None

    def look(self) -> bool:
        """See what the other process has brought; tell whether there was anything."""
        session = self._session
        # While something is written here the store is locked, and the loop must not wait for it.
        if not session.commit_lock.acquire(blocking=False):
            return False
        try:
            # In this order: what has been answered and said is in the store already.
            answered = session.waits.answered()
            standing = Standing.read(session.store.path)
            before = session.store.snapshot.version, session.store.progress, session.transfer.batches
            session.store.refresh()
        finally:
            session.commit_lock.release()
        is_news = self._hear(standing)
        if before != (session.store.snapshot.version, session.store.progress, session.transfer.batches) or answered:
            is_news = True
            session.patience.calm()  # begins again to count how long nothing has come
            session.patience.trouble()
        session.waits.settle_as_follower(answered, session.store.path)
        if is_news:
            session.notify()
        return is_news

    def _hear(self, standing: Standing) -> bool:
        """Take over what the other process says; tell whether it is anything new."""
        session, before, is_first = self._session, self.standing, self._note is None
        if standing == before and not is_first:
            return False
        self.standing = standing
        if is_first or standing.error != before.error:
            self._note = session.last_error = _not_yet(standing.error)
            session.patience.trouble()
        if standing.as_of is not None:
            session.caught_up_at = max(standing.as_of, session.caught_up_at or 0.0)
        session.bootstrap_version = standing.bootstrap_version
        if is_first and standing.connection != "connected":
            self.reconnect()
        counted = standing.transfer if is_first else before.transfer
        session.transfer = _advanced(session.transfer, counted, standing.transfer)
        return True

    def reconnect(self) -> None:
        """Ask the other process to connect at once."""
        Ask.put(self._session.store.path, RECONNECT)

    def end(self) -> None:
        """Note that this process does not follow any more."""
        if self._note is not None and self._session.last_error is self._note:
            self._session.last_error = None
        self._session.waits.withdraw()


def _not_yet(error: str | None) -> NetworkError:
    why = "" if error is None else f" What it met last: {error}"
    return NetworkError(
        f"Another process that has this realm open syncs it, and has not brought everything yet.{why}",
        hint="See what holds it up there.",
    )


def _advanced(mine: TransferProgress, before: TransferProgress, now: TransferProgress) -> TransferProgress:
    """Go on counting what comes, from wherever the other process was when this one began to follow it."""
    if now.bytes < before.bytes:
        before = TransferProgress()  # it is another process by now
    counts = {
        name: getattr(mine, name) + getattr(now, name) - getattr(before, name)
        for name in ("bytes", "batches", "changesets", "objects")
    }
    return replace(now, **counts, transferable=counts["bytes"] + max(0, now.transferable - now.bytes))
