"""Who listens to a session: to its state, its connection's, and to its transfers.

Functions given by an app are called in a thread of their own, one at a time and in order, so they may wait for the sync
thread. A session's own listeners (``listen``) are called in the sync thread itself.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from realmframe.client.callbacks import deliver
from realmframe.client.progress import TransferProgress, UploadMeter
from realmframe.errors import UsageError

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

log: Final = logging.getLogger("realmframe.client")

DIRECTIONS: Final = ("download", "upload")
INDEFINITELY, OUTSTANDING = MODES = ("report_indefinitely", "for_currently_outstanding_work")
STATE, CONNECTION = "state", "connection"

Stop = Callable[[], None]


class Observers:
    """The listeners of one session.

    Parameters
    ----------
    session : SyncSession
    """

    def __init__(self, session: SyncSession) -> None:
        self._session = session
        self._listeners: list[Callable[[], None]] = []
        self._changes: list[tuple[str, Callable[[str, str], object]]] = []
        self._known = {STATE: "inactive", CONNECTION: "disconnected"}
        #: Functions that an app gave, and what ends each.
        self._stops: list[tuple[Callable[..., object], Stop]] = []

    # ------------------------------------------------------------------ any thread

    def listen(self, callback: Callable[[], None]) -> Stop:
        """Have a function called in the sync thread when a state or progress changes; return what stops that."""
        self._listeners.append(callback)

        def stop() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return stop

    def on_change(self, kind: str, callback: Callable[[str, str], object]) -> Stop:
        """Have ``callback(new, old)`` called when the session's or the connection's state changes."""
        found = (kind, callback)
        self._changes.append(found)

        def stop() -> None:
            if found in self._changes:
                self._changes.remove(found)

        return self.remember(callback, stop)

    def progress(self, callback: Callable[[TransferProgress], object], direction: str, mode: str) -> Stop:
        """Have a function called with progress; see :meth:`SyncSession.progress`."""
        for name, value, allowed in (("direction", direction, DIRECTIONS), ("mode", mode, MODES)):
            if value not in allowed:
                raise UsageError(f"{name} cannot be {value!r}.", hint=f"It is one of {', '.join(allowed)}.")
        is_outstanding = mode == OUTSTANDING
        read = self._download_reader(is_outstanding=is_outstanding)
        if direction == "upload":
            read = UploadMeter(self._session.store, outstanding_only=is_outstanding).read
        seen: list[TransferProgress] = []

        def look() -> None:
            now = read()
            if now is None or (seen and (seen[0] == now or (is_outstanding and seen[0].phase == "done"))):
                return
            seen[:] = [now]
            deliver(callback, now)
            if is_outstanding and now.phase == "done":
                stop()

        stop = self.remember(callback, self.listen(look))
        look()
        return stop

    def _download_reader(self, *, is_outstanding: bool) -> Callable[[], TransferProgress | None]:
        """Give a function that reads the download's progress; None is nothing to tell of.

        Of what is outstanding, an older subscription set's bootstrap is none of it, and the estimate never falls.
        """
        session = self._session
        wanted = session.subscriptions.latest.version if is_outstanding and session.options.flexible else 0
        highest = [0.0]

        def read() -> TransferProgress | None:
            now = session.transfer
            if not is_outstanding:
                return now
            if session.bootstrap_version < wanted and now.phase not in ("login", "location", "connect", "done"):
                return None
            highest[0] = max(highest[0], now.fraction)
            return now.after(fraction=highest[0])

        return read

    def remove(self, callback: Callable[..., object]) -> None:
        """End every notification of a function; nothing happens if there is none."""
        for _, stop in [s for s in self._stops if s[0] == callback]:
            stop()

    def remember(self, callback: Callable[..., object], end: Stop) -> Stop:
        """Know what ends the notifications of a function; give what ends this one, and forgets it."""

        def stop() -> None:
            end()
            if found in self._stops:
                self._stops.remove(found)

        found = (callback, stop)
        self._stops.append(found)
        return stop

    # ------------------------------------------------------------------ loop

    def changed(self, kind: str, new: str) -> None:
        """*loop* Tell of a state, if it is another one than before."""
        old, self._known[kind] = self._known[kind], new
        if new != old:
            for wanted, callback in list(self._changes):
                if wanted == kind:
                    deliver(callback, new, old)

    def notify(self) -> None:
        """*loop* Have those look who listen."""
        session = self._session
        self.changed(STATE, session.state)
        self.changed(CONNECTION, session.connection_state)
        for callback in list(self._listeners):
            try:
                callback()
            except Exception:
                log.exception("realm %s: a listener failed", session.store.path.name)


def in_sdk_form(callback: Callable[..., object]) -> Callable[[TransferProgress], object]:
    """Wrap a function of the SDK's form: of the estimate alone, or of the bytes transferred and transferable.

    Raises
    ------
    UsageError
        If it takes neither one nor two arguments.
    """
    try:
        inspect.signature(callback).bind(0, 0)
    except TypeError:
        try:
            inspect.signature(callback).bind(0.0)
        except TypeError:
            raise UsageError("A progress notification takes (estimate) or (transferred, transferable).") from None
        return lambda now: callback(now.estimate)

    def with_bytes(now: TransferProgress) -> Any:
        return callback(now.bytes, now.transferable)

    return with_bytes
