"""What clients wrote on states that the server had made up: it is taken as far as it fits, and its outcome is told.

A full state or an erasure that nobody wrote is merged by the client with what it has not sent yet, and by nobody else.
So what client and server hold of such objects may differ, until the client is sent how they came out here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.errors import ProtocolError, SchemaMismatchError
from realmframe.server.bootstrap import states_of
from realmframe.server.entries import Integrated
from realmframe.server.history import History
from realmframe.server.repair import repair
from realmframe.server.session import Changes, Session
from realmframe.server.views import everything, is_beyond
from realmframe.store import apply
from realmframe.wire import UploadEntry

log: Final = logging.getLogger("realmframe.server")
_COLLECTION_OPS: Final = (8, 9, 10, 11, 12, 13)


def integrate(
    history: History, session: Session, entry: UploadEntry, *, development: bool
) -> tuple[Integrated | None, bool]:
    """Integrate a changeset, fitted to what is here if its client may not have known it; tell whether it was."""
    try:
        return history.integrate(session.file, entry, may_change_schema=development), False
    except SchemaMismatchError:
        raise
    except ProtocolError as fault:
        # Written on a state that we made up, and not corrected yet? Then it is our doing, not the client's.
        # Or on what the client does not see, as when a key that it creates is taken? Then nobody's. Nor where others
        # wrote meanwhile: by the real engine's rules two sides may come out so that they fit together no more.
        written = Changeset.decode(entry.changeset)
        if entry.server_version >= corrected(history, session):
            is_hidden = session.flexible and is_beyond(session.view, written, history.snapshot)
            if not is_hidden and not history.has_met(session.file, entry):
                raise
            if not is_hidden:
                log.warning("What client file %d wrote is fitted to what others wrote: %s", session.file.ident, fault)
    replaced = history.passing.replaced(history.snapshot, written)
    fitted = repair(apply(history.snapshot, replaced).snapshot if len(replaced) else history.snapshot, written)
    taken = replace(entry, server_version=history.version, changeset=fitted.encode())
    return history.integrate(session.file, taken, may_change_schema=development, written=entry), True


def corrected(history: History, session: Session) -> int:
    """Give the version from which on a client holds what the server has, as far as it has integrated it.

    What it wrote before may have met states that were made up, or, where the log is gone, what it was based on
    cannot be merged with any more.
    """
    return max(session.synthetic, history.trimmed)


def is_to_correct(history: History, session: Session, found: Integrated) -> bool:
    """Say whether a client has to be told how its write came out: it may have merged it otherwise."""
    entry = found.entry
    if found.changed and found.cleared:
        return True
    unseen = session.flexible and found.changed and entry.base < session.partial
    if not len(found.original) or not (unseen or entry.base < corrected(history, session)):
        return False
    # A client that met nothing but its first bootstrap met no erasures: plain fields come out alike on both sides.
    # What lies inside a collection or an embedded object may not.
    nested = np.isin(found.original.op, _COLLECTION_OPS) | (found.original.path_len > 0)
    return session.first != corrected(history, session) or found.changed or bool(nested.any())


def send_states(session: Session, found: Integrated) -> None:
    """Send a client the objects that it wrote to, as they are now."""
    # A correction is made up as well: what the client has written before it comes is corrected in turn.
    session.synthetic = session.file.told = version = found.entry.version
    snapshot = found.applied.snapshot
    data = states_of(snapshot, found.original, session.view if session.flexible else everything(snapshot)).encode()
    if data:
        session.queue(Changes.made(version, session.file.client_version, data, version - 1))
