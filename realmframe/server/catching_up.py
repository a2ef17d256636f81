"""What a session is sent when it begins, when its query set changes, and when it has fallen behind."""

from __future__ import annotations

import numpy as np

from realmframe.changes import Changeset, concat
from realmframe.server.bootstrap import bootstrap, catch_up, full_states, states_of
from realmframe.server.compensating import send_reverted, states_of_reverted, tell_again
from realmframe.server.history import History
from realmframe.server.session import Bootstrap, Changes, Session, as_is
from realmframe.server.views import View, everything
from realmframe.store import schema_changeset


def begin(history: History, session: Session) -> None:
    """Queue everything for a client that has a query set and nothing else."""
    kept = tell_again(history, session, 0)
    queue_bootstrap(history, session, View({}), states_of_reverted(history, session, kept) if len(kept) else None)
    session.first = -1 if len(kept) else session.synthetic


def queue_bootstrap(history: History, session: Session, old: View, also: bytes | None = None) -> None:
    """Queue a bootstrap from one view to that of a session now, with one more changeset at its end."""
    have = history.snapshot.schema if session.has_schema else None
    session.has_schema = True
    session.synthetic = session.covered = history.version
    batches = bootstrap(history.snapshot, have, old, session.view)
    if also is not None:
        batches = (([*made, also] if last else made, estimate, last) for made, estimate, last in batches)
    session.outbox.append(Bootstrap(history.version, session.file.client_version, session.query_version, batches))


def queue_missed(history: History, session: Session, since: int) -> None:
    """Queue what a client needs to get from one version to the newest."""
    version = history.version
    taken_back = tell_again(history, session, since)
    entries = history.since(since)
    *most, last = [*catch_up(history.snapshot, entries, session.view, session.file.ident, taken_back), None]
    last = most.pop() if most else last
    # Only with the last one it has everything: when the connection ends before, all of it comes again.
    for data in most:
        session.append_made(since, data, since)
    if len(taken_back):
        # All of it at once: a client that has a part of what comes with a version is taken to have the rest.
        send_reverted(history, session, taken_back)
    if last is not None:
        session.append_made(version, last, since)
        session.synthetic = version
    session.covered = session.partial = version


def queue_log(history: History, session: Session, since: int) -> None:
    """Queue the log after a version for a client of a partition."""
    client = session.sent_client
    if since < history.trimmed:  # it begins: it gets the state, since the log is gone
        _queue_state(history, session, since)
        since = history.version
    for entry in history.since(since):
        if entry.origin == session.file.ident:
            client = max(client, entry.client_version)
        else:
            session.queue(Changes.of((as_is(entry, client),), entry.version, client))
    session.covered = history.version


def states_since(history: History, session: Session, since: int) -> bytes:
    """Give what a client of a partition needs in place of the log after a version; nothing if the log will do.

    What it wrote itself may have come out otherwise than it has it, and then what others wrote on that fits nothing
    there. So it gets all objects that were written to as they are now.
    """
    entries = history.since(since)
    is_in_doubt = history.trimmed <= since if history.trimmed else since < session.file.told
    if not is_in_doubt or all(e.origin != session.file.ident for e in entries):
        return b""
    snapshot = history.snapshot
    pieces = catch_up(snapshot, entries, everything(snapshot), session.file.ident, concat([]))
    return concat([Changeset.decode(piece) for piece in pieces]).encode()


def _queue_state(history: History, session: Session, since: int) -> None:
    """Send a new client of a partition everything there is, as if written by the server.

    If it has a part of an older state already, that is repeated, and what was erased meanwhile is erased.
    """
    snapshot = history.snapshot
    head = [schema_changeset(snapshot.schema)]
    if since:
        head += [
            states_of(snapshot, entry.changeset, everything(snapshot)) for entry in history.since(session.file.began)
        ]
    pieces = [concat(head).encode()]
    for name, table in snapshot.tables.items():
        pieces += full_states(snapshot, name, np.arange(len(table)))
    # Each entry needs a version of its own; those of all but the last one are gone from the log.
    count = min(len(pieces), history.trimmed - since)
    for n, group in enumerate(np.array_split(np.arange(len(pieces)), count)):
        data = pieces[int(group[0])]
        if len(group) > 1:
            data = concat([Changeset.decode(pieces[g]) for g in group.tolist()]).encode()
        session.append_made(history.version if n == count - 1 else since + n + 1, data, since + n)
    session.synthetic = session.partial = session.file.began = history.version
