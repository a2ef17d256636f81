"""What a session's machine tells: into the store, to whoever waits, and to the app."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from realmframe.client.subscriptions import DONE
from realmframe.errors import CompensatingWriteError, QueryError, RealmError, SyncError
from realmframe.session import events as ev
from realmframe.session.subscriptions import State

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

log: Final = logging.getLogger("realmframe.client")


class News:
    """Acts on the events of one session's machine; everything here runs in the sync thread.

    Parameters
    ----------
    session : SyncSession
    """

    def __init__(self, session: SyncSession) -> None:
        self.session = session

    def take(self, event: Any) -> None:
        """*loop* Take one event of the machine."""
        session = self.session
        handler = self._HANDLERS.get(type(event))
        if handler is None:
            return
        try:
            handler(self, event)
        except RealmError as fault:
            session.fail(fault)
        except Exception as fault:
            log.exception("realm %s: the session failed", session.store.path.name)
            session.fail(SyncError(f"The session of {session.store.path.name} failed: {fault!r}.", is_fatal=True))

    def _on_ident(self, event: ev.IdentAssigned) -> None:
        self.session.store.set_file(event.file_ident, event.salt)

    def _on_batch(self, event: ev.BootstrapBatch) -> None:
        session = self.session
        if event.query_version != session.bootstrap_version:
            # Another subscription set's data: what has come of it begins anew.
            session.bootstrap_version = event.query_version
            phase = "download" if session.transfer.phase == "done" else session.transfer.phase
            session.transfer = replace(session.transfer, phase=phase, fraction=0.0)
        self._count(event.entries, event.estimate)
        if event.last:
            session.integration.put(event)

    def _on_download(self, event: ev.DownloadReceived) -> None:
        self._count(event.entries, event.estimate, event.downloadable_bytes)
        self.session.integration.put(event)

    def _count(self, entries: tuple[Any, ...], estimate: float, still: int = 0) -> None:
        """Note what has come; of partition-based sync `still` is what is to come in bytes."""
        session = self.session
        now = session.transfer
        size = now.bytes + sum(len(e.changeset) for e in entries)
        fraction = min(1.0, max(0.0, estimate))
        if not session.options.flexible and still:
            fraction = size / (size + still)
        total = size + still if still or fraction == 0.0 else max(size, round(size / fraction))
        session.transfer = now.after(
            bytes=size,
            batches=now.batches + 1,
            changesets=now.changesets + len(entries),
            fraction=fraction,
            transferable=total,
        )
        self._progressed()
        session.notify()

    def _progressed(self) -> None:
        self.session.patience.calm()
        self.session.follow_ups.progressed()

    def _on_acknowledged(self, _event: ev.UploadAcknowledged) -> None:
        session = self.session
        self._progressed()
        session.settle_reset()
        session.waits.settle()
        session.notify()

    def _on_mark(self, event: ev.MarkReached) -> None:
        session = self.session
        session.caught_up = True
        session.caught_up_at = time.time()
        session.last_error = None
        self._progressed()
        session.settle_reset()
        if session.transfer.phase != "done":
            done = session.subscriptions.latest.state in DONE
            session.transfer = session.transfer.after(
                phase="done" if done else "subscriptions", fraction=1.0 if done else 0.0
            )
        session.waits.marked(event.request)
        session.waits.settle()
        session.notify()

    def _on_query_state(self, event: ev.QueryStateChanged) -> None:
        session = self.session
        session.subscriptions.advance(event.version, State(event.state), event.message or None)
        if State(event.state) is State.COMPLETE:
            session.end_migration(event.version)
        if State(event.state) is State.ERROR:
            session.report(
                QueryError(f"The server refused the subscriptions: {event.message or 'no reason given'}.", kind="other")
            )
        session.waits.settle()
        session.notify()

    def _on_compensating(self, event: ev.CompensatingWrites) -> None:
        session = self.session
        writes = [dict(w) for w in event.writes]
        names = ", ".join(sorted({str(w.get("class")) for w in writes}))
        session.report(
            CompensatingWriteError(
                f"The server reverted {len(writes)} write{'s' if len(writes) != 1 else ''} to {names}: {event.message}",
                writes=writes,
            )
        )

    def _on_round_trip(self, _event: ev.RoundTrip) -> None:
        session = self.session
        if session.caught_up:
            session.caught_up_at = time.time()

    def _on_error(self, event: ev.SessionError) -> None:
        self.session.follow_ups.act(event)

    _HANDLERS: ClassVar[dict[type, Callable[[News, Any], None]]] = {
        ev.IdentAssigned: _on_ident,
        ev.BootstrapBatch: _on_batch,
        ev.DownloadReceived: _on_download,
        ev.UploadAcknowledged: _on_acknowledged,
        ev.MarkReached: _on_mark,
        ev.QueryStateChanged: _on_query_state,
        ev.CompensatingWrites: _on_compensating,
        ev.SessionError: _on_error,
        ev.RoundTrip: _on_round_trip,
    }
