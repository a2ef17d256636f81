"""Where the process that syncs a realm stands, told to the others that have the realm open.

It writes a small file, ``standing.json`` in the realm's folder, whenever something in it changes, by taking the place
of the one before in one step. What was downloaded is in the journal before the file says so: who reads first the file
and then the journal never believes too much. A process that is killed leaves what it said last; but the next one to
sync writes its own at once, and without any the reader is that one itself. What nobody confirms any more is not
believed for longer than a lost connection stays unnoticed. The file stays when all have ended: it says when the realm
was in step last.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import time
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realmframe.client.progress import TransferProgress
from realmframe.session.timeouts import Timeouts

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

log: Final = logging.getLogger("realmframe.client")

#: Name of the file, in the realm's folder.
STANDING: Final = "standing.json"
#: Seconds between two notes of when the realm was in step, if nothing else changes.
AS_OF_SECONDS: Final = 1.0
#: For how many seconds "in step" is believed: the server is asked, and has to answer, more often.
BELIEVED_SECONDS: Final = Timeouts().ping_keep_alive_period + Timeouts().pong_keep_alive_timeout


@dataclass(frozen=True, slots=True)
class Standing:
    """What the process that syncs says of itself.

    Attributes
    ----------
    is_leading : bool
        Whether it still syncs; false when it has said goodbye.
    connection : str
        The state of its connection.
    is_in_step : bool
        Whether it is connected, and everything is here that the server has for the subscriptions in force.
    as_of : float or None
        When the server last confirmed that; seconds since 1970.
    error : str or None
        The last one, unless something went well since.
    bootstrap_version : int
        The subscription set whose bootstrap came last.
    transfer : TransferProgress
    """

    is_leading: bool = False
    connection: str = "disconnected"
    is_in_step: bool = False
    as_of: float | None = None
    error: str | None = None
    bootstrap_version: int = 0
    transfer: TransferProgress = TransferProgress()  # noqa: RUF009 - frozen

    @classmethod
    def of(cls, session: SyncSession) -> Standing:
        """*loop* Say where a session of this process stands."""
        return cls(
            is_leading=True,
            connection=session.connection_state,
            is_in_step=session.is_connected and session.caught_up,
            as_of=session.caught_up_at,
            error=None if session.last_error is None else session.last_error.message,
            bootstrap_version=session.bootstrap_version,
            transfer=session.transfer,
        )

    @classmethod
    def read(cls, realm: Path) -> Standing:
        """Give what was said last; nothing is believed of a file that is none, or of another version."""
        try:
            said = json.loads((realm / STANDING).read_bytes())
            found = cls(**{**said, "transfer": TransferProgress(**said["transfer"])})
        except (OSError, ValueError, LookupError, TypeError):
            return cls()
        return found if found.is_well_formed else cls()

    @property
    def is_well_formed(self) -> bool:
        """Whether every value is of its type."""
        numbers = zip(astuple(self.transfer), astuple(TransferProgress()), strict=True)
        return all(isinstance(getattr(self, name), kind) for name, kind in _KINDS.items()) and all(
            type(value) is type(default) for value, default in numbers
        )

    def is_in_step_at(self, now: float) -> bool:
        """Whether it is to be believed that the realm is in step."""
        return self.is_in_step and self.as_of is not None and abs(now - self.as_of) < BELIEVED_SECONDS

    def says_more_than(self, before: Standing) -> bool:
        """Whether it differs in more than in how recently the server was heard."""
        if replace(self, as_of=None) != replace(before, as_of=None) or (self.as_of is None) != (before.as_of is None):
            return True
        return self.as_of is not None and before.as_of is not None and abs(self.as_of - before.as_of) >= AS_OF_SECONDS


_KINDS: Final[dict[str, Any]] = {
    "is_leading": bool,
    "connection": str,
    "is_in_step": bool,
    "as_of": float | None,
    "error": str | None,
    "bootstrap_version": int,
}


class Teller:
    """Tells the other processes where this one stands, while it syncs; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession
    """

    def __init__(self, session: SyncSession) -> None:
        self._session = session
        self._told: Standing | None = None

    def look(self) -> None:
        """Tell what has changed."""
        self._tell(Standing.of(self._session))

    def end(self) -> None:
        """Say that this process does not sync any more."""
        self._tell(Standing(as_of=self._session.caught_up_at))

    def _tell(self, standing: Standing) -> None:
        if self._told is not None and not standing.says_more_than(self._told):
            return
        path = self._session.store.path / STANDING
        temporary = path.with_name(f"{STANDING}.{secrets.token_hex(4)}.tmp")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                json.dump(asdict(standing), file)
            os.replace(temporary, path)  # not forced to disk: after a failure of power it is of no use
        except OSError as fault:  # the next look tries again; until then nothing is told rather than what was true
            log.info("realm %s: %s cannot be written: %s", path.parent.name, STANDING, fault)
            for left in (temporary, path):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            self._told = None
        else:
            self._told = standing


def seen_last(realm: Path) -> float | None:
    """When a realm was in step with its server last, whichever process synced it; seconds since 1970."""
    as_of = Standing.read(realm).as_of
    return None if as_of is None else min(as_of, time.time())
