"""What passes between the processes that have a realm open, of which one syncs: the others follow it.

A follower sees in the store what was uploaded and which subscriptions are complete. That everything which the server
has *now* is here nobody but the process that syncs can find out: a follower who waits for a download puts an empty file
into ``asks/`` of the realm's folder, and the process that syncs removes it when a MARK that it asked for afterwards is
answered and integrated. A file of a process that was killed is answered like any other, and harms nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from realmframe.client.loop import sync_loop
from realmframe.errors import NetworkError, RealmError

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

log: Final = logging.getLogger("realmframe.client")

#: Folder of the questions, in the realm's own.
ASKS: Final = "asks"


class Ask:
    """A question of this process: whether everything has come that the server has now."""

    def __init__(self, realm: Path) -> None:
        folder = realm / ASKS
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / secrets.token_hex(8)
        self._path.touch(mode=0o600)

    @property
    def is_answered(self) -> bool:
        """Whether the process that syncs has said so."""
        return not self._path.exists()

    def withdraw(self) -> None:
        """Wait for it no longer."""
        self._path.unlink(missing_ok=True)


class Answers:
    """Answers the questions of other processes while this one syncs; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession
    """

    def __init__(self, session: SyncSession) -> None:
        self._session = session
        self._folder = session.store.path / ASKS
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def look(self) -> None:
        """Begin to answer what is new."""
        try:
            found = os.listdir(self._folder)
        except FileNotFoundError:
            return
        for name in found:
            if name not in self._tasks:
                self._tasks[name] = sync_loop().spawn(self._answer(name), f"realmframe-answer-{name}")

    async def _answer(self, name: str) -> None:
        try:
            await self._session.wait_download()
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
    """

    def __init__(self, session: SyncSession) -> None:
        self._session = session
        self._note: RealmError | None = None

    def look(self) -> None:
        """See what the other process has brought."""
        session = self._session
        if self._note is None:
            self._note = session.last_error = NetworkError(
                "Another process that has this realm open syncs it, and has not brought everything yet.",
                hint="See what holds it up there.",
            )
            session.transfer = session.transfer.after(phase="download")
            self._progressed()
        version = session.store.snapshot.version
        answered = session.waits.answered()  # before looking what has come: it is all there then
        if session.store.refresh().version != version or answered:
            self._progressed()
        if answered:
            session.note_current()
        session.waits.settle_as_follower(answered, session.store.path)

    def _progressed(self) -> None:
        """Begin again to count how long nothing has come."""
        self._session.patience.calm()
        self._session.patience.trouble()

    def end(self) -> None:
        """Note that this process syncs from now on."""
        if self._note is not None and self._session.last_error is self._note:
            self._session.last_error = None
        self._session.waits.withdraw()
