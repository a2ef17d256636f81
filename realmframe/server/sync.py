"""The sessions of one realm: uploads in, shares of every change out, in one order.

A session's outbox is a queue of what its client shall get: changes, bootstraps, answers to MARK, errors. It is filled
while messages are handled, and emptied by :meth:`Session.pump` after the commit, as far as the connection has room.
A message carries the progress of the moment when its item was queued, so the version rules of the protocol hold by
construction.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from realmframe.changes import Changeset, concat
from realmframe.errors import ProtocolError, QueryError, SchemaMismatchError
from realmframe.model import ClassKind, Key
from realmframe.server.bootstrap import BATCH_BYTES, bootstrap, catch_up, full_states, states_of
from realmframe.server.history import SERVER_FILE, ClientFile, Entry, History, Integrated
from realmframe.server.limits import MAX_QUERY
from realmframe.server.permissions import Permissions, classes_of, has_data, split
from realmframe.server.repair import repair
from realmframe.server.reverted import Reverted
from realmframe.server.views import Share, View, check_size, erasures, is_beyond, share, size_of
from realmframe.store import apply, schema_changeset
from realmframe.wire import (
    Action,
    BatchState,
    ClientIdent,
    Download,
    DownloadEntry,
    JsonError,
    Mark,
    Query,
    Upload,
    UploadEntry,
    json_error_body,
)
from realmframe.wire import QueryError as QueryErrorMessage

#: Timestamp of full states and erasures: older than anything a client writes.
SYNTHETIC_TIMESTAMP: Final = 1
_LAG: Final = 2_000
_OUTBOX_BYTES: Final = 32 << 20
_EPOCH: Final = 1_420_070_400
_COLLECTION_OPS: Final = (8, 9, 10, 11, 12, 13)


class Outlet(Protocol):
    """Where a session's messages go."""

    def send(self, message: Any) -> None:
        """Queue a message of the protocol."""

    def has_room(self) -> bool:
        """Whether more may be queued now."""


@dataclass(slots=True)
class Changes:
    """Entries up to a server version, for the steady state.

    Attributes
    ----------
    version : int
        What the client has when it has them.
    client_version : int
    entries : tuple of DownloadEntry
    size : int
        In bytes.
    before : int
        The highest version that the client may be said to have while they are still to come.
    """

    version: int
    client_version: int
    entries: tuple[DownloadEntry, ...]
    size: int
    before: int


@dataclass(slots=True)
class Bootstrap:
    """A bootstrap under way."""

    version: int
    client_version: int
    query_version: int
    batches: Iterator[tuple[list[bytes], float, bool]]

    @property
    def before(self) -> int:
        """The highest version that the client may be said to have while it is still to come."""
        return self.version - 1


class Session:
    """One client file, connected.

    Parameters
    ----------
    number : int
        As the client numbers it.
    outlet : Outlet
    file : ClientFile
    flexible : bool
    may_write : bool
        False for a partition that the user may only read.
    """

    def __init__(
        self, number: int, outlet: Outlet, file: ClientFile, *, flexible: bool, may_write: bool = True
    ) -> None:
        self.number, self.outlet, self.file, self.flexible = number, outlet, file, flexible
        self.may_write = may_write
        self.view = View({})
        self.query_version = 0
        self.outbox: deque[Changes | Bootstrap | Reverted | Mark | QueryErrorMessage] = deque()
        self.outbox_bytes = 0
        #: Up to which server version everything for this client has been queued, and been sent.
        self.covered = self.sent = 0
        self.sent_client = 0
        self.needs_ack = False
        self.has_schema = False
        #: Uploads based on versions below it may have met synthetic states on the client.
        self.synthetic = 0
        #: Entries up to this version did not all go to the client as they are.
        self.partial = 0
        #: Version of the first bootstrap of a fresh file, if this session sent it.
        self.first = -1
        #: Whether changes were left out of the outbox because it was too full; the client catches up when it is empty.
        self.is_lagging = False
        #: What waits for that.
        self.marks: list[Mark] = []

    def queue(self, item: Changes) -> None:
        """Queue changes; too many, and the client catches up later instead."""
        self.covered = item.version
        if self.is_lagging or not item.entries:
            return
        if self.outbox_bytes + item.size > _OUTBOX_BYTES and self.outbox_bytes:
            self.is_lagging = True
            while self.outbox and isinstance(last := self.outbox[-1], Changes | Reverted):
                if last.version != item.version:
                    break
                # What belongs together comes together.
                self.outbox.pop()
                self.outbox_bytes -= last.size if isinstance(last, Changes) else 0
            return
        self.outbox.append(item)
        self.outbox_bytes += item.size

    @property
    def reached(self) -> int:
        """The version that the client has when it has what is queued."""
        return max([self.sent, *(i.version for i in self.outbox if isinstance(i, Changes | Bootstrap))])

    # ------------------------------------------------------------------ sending

    def pump(self, history: History) -> None:
        """Send what is queued, as far as there is room."""
        while self.outlet.has_room():
            if not self.outbox:
                break
            item = self.outbox[0]
            if isinstance(item, Changes):
                self._send_changes(item, history)
            elif isinstance(item, Bootstrap):
                self._send_batch(item, history)
            else:
                if isinstance(item, Mark) and (self.needs_ack or self.sent < self.covered) and not self.is_lagging:
                    self._send(history, (), *self._reachable())
                self.outlet.send(item.warning(self.number) if isinstance(item, Reverted) else item)
                self.outbox.popleft()
        idle = not self.outbox and not self.is_lagging and self.outlet.has_room()
        if idle and (self.needs_ack or self.covered - self.sent > _LAG):
            self._send(history, (), self.covered, self.file.client_version)

    def _reachable(self) -> tuple[int, int]:
        """Give the server and client version that may be announced now: nothing queued behind belongs to them."""
        behind = [i for i in self.outbox if isinstance(i, Changes | Bootstrap)]
        version = min([self.covered, *(i.before for i in behind)])
        client = min([self.file.client_version, *(i.client_version for i in behind)])
        return max(self.sent, version), client

    def _send_changes(self, first: Changes, history: History) -> None:
        entries: list[DownloadEntry] = []
        size, last = 0, first
        while self.outbox and isinstance(item := self.outbox[0], Changes):
            if size >= BATCH_BYTES and item.before >= last.version:
                break
            last = item
            self.outbox.popleft()
            entries += last.entries
            size += last.size
        self.outbox_bytes -= size
        self._send(history, tuple(entries), last.version, last.client_version)

    def _send_batch(self, item: Bootstrap, history: History) -> None:
        batch = next(item.batches, None)
        if batch is None:
            self.outbox.popleft()
            return
        changesets, estimate, last = batch
        version, client = item.version, item.client_version
        entries = tuple(DownloadEntry(version, client, SYNTHETIC_TIMESTAMP, SERVER_FILE, len(c), c) for c in changesets)
        state = BatchState.LAST_IN_BATCH if last else BatchState.MORE_TO_COME
        self._send(history, entries, version, client, state, estimate, item.query_version)
        if last:
            self.outbox.popleft()

    def _send(
        self,
        history: History,
        entries: tuple[DownloadEntry, ...],
        version: int,
        client_version: int,
        batch: BatchState = BatchState.STEADY_STATE,
        estimate: float = 1.0,
        query_version: int | None = None,
    ) -> None:
        file = self.file
        self.outlet.send(
            Download(
                self.number,
                version,
                max(client_version, self.sent_client),
                history.version,
                history.salt,
                file.client_version,
                min(file.server_version, version),
                self.query_version if query_version is None else query_version,
                batch,
                estimate,
                entries=entries,
            )
        )
        self.sent, self.sent_client = version, max(client_version, self.sent_client)
        self.needs_ack = False


@dataclass(slots=True)
class _Encoded:
    passed: bytes
    synthetic: bytes
    is_whole: bool


class RealmSync:
    """One realm on this server: its history, and who is connected to it.

    Parameters
    ----------
    history : History
    development : bool
        Whether clients may add to the schema.
    permissions : Permissions, optional
    """

    def __init__(self, history: History, *, development: bool, permissions: Permissions | None = None) -> None:
        self.history, self.development = history, development
        self.permissions = permissions or Permissions()
        self.sessions: list[Session] = []
        self._views: dict[tuple[tuple[str, str], ...], View] = {}

    def view(self, texts: Mapping[str, str]) -> View:
        """Give the view of a query set; equal sets share one.

        Raises
        ------
        QueryError
        """
        check_size(texts)
        key = tuple(sorted(texts.items()))
        found = self._views.get(key)
        if found is None:
            if len(self._views) > 1_000:
                used = {id(s.view) for s in self.sessions}
                self._views = {k: v for k, v in self._views.items() if id(v) in used}
            found = self._views[key] = View(texts)
        found.check(self.history.snapshot.schema)
        return found

    def _view_in_force(self, texts: Mapping[str, str]) -> View:
        """Give the view of a query set that was valid once; what of it is not any more sees nothing."""
        try:
            return self.view(texts)
        except QueryError:
            is_small = size_of(texts) <= MAX_QUERY
            return self.view({n: t for n, t in texts.items() if is_small and self._is_valid(n, t)})

    def _is_valid(self, name: str, text: str) -> bool:
        try:
            self.view({name: text})
        except QueryError:
            return False
        return True

    # ------------------------------------------------------------------ messages of clients

    def identify(self, session: Session, message: ClientIdent) -> None:
        """Catch up a client that says what it has."""
        history = self.history
        session.covered = session.partial = history.version
        session.sent = message.download_server_version
        # A partition whose log is whole never made up a state: what its clients hold needs no correction.
        session.synthetic = message.download_server_version if session.flexible or history.trimmed else 0
        history.advance(session.file, message.download_client_version, 0)
        session.sent_client = message.download_client_version
        self.sessions.append(session)
        if not session.flexible:
            self._queue_log(session, message.download_server_version)
            return
        session.query_version = message.query_version or 0
        session.view = self._view_in_force(self.permissions.readable(session.file.user, message.query or {}))
        if message.download_server_version == 0:
            kept = self._tell_again(session, 0)
            taken_back = self._states_of_reverted(session, kept) if len(kept) else None
            self._queue_bootstrap(session, View({}), session.view, session.query_version, taken_back)
            session.first = -1 if len(kept) else session.synthetic
        else:
            self._catch_up(session, message.download_server_version)

    def _queue_log(self, session: Session, since: int) -> None:
        client = session.sent_client
        if since < self.history.trimmed:  # a new file, see the engine: it gets the state, since the log is gone
            self._queue_state(session)
            since = self.history.version
        for entry in self.history.since(since):
            if entry.origin == session.file.ident:
                client = max(client, entry.client_version)
            else:
                item = (_as_is(entry, client),)
                session.queue(Changes(entry.version, client, item, len(entry.data), entry.version - 1))
        session.covered = self.history.version

    def _queue_state(self, session: Session) -> None:
        """Send a new client of a partition everything there is, as if written by the server."""
        history = self.history
        pieces = [schema_changeset(history.snapshot.schema).encode()]
        for name, table in history.snapshot.tables.items():
            pieces += full_states(history.snapshot, name, np.arange(len(table)))
        # Each entry needs a version of its own. Those of all but the last one are gone from the log: a client that has
        # not got the last one cannot go on from there, it begins anew.
        count = min(len(pieces), history.trimmed)
        for n, group in enumerate(np.array_split(np.arange(len(pieces)), count)):
            data = pieces[int(group[0])]
            if len(group) > 1:
                data = concat([Changeset.decode(pieces[g]) for g in group.tolist()]).encode()
            self._queue_made(session, history.version if n == count - 1 else n + 1, data, n)
        session.synthetic = session.partial = history.version

    def _catch_up(self, session: Session, since: int) -> None:
        """Queue what a client needs to get from one version to the newest."""
        history = self.history
        version = history.version
        taken_back = self._tell_again(session, since)
        entries = history.since(since)
        *most, last = [*catch_up(history.snapshot, entries, session.view, session.file.ident, taken_back), None]
        last = most.pop() if most else last
        # Only with the last one it has everything: when the connection ends before, all of it comes again.
        for data in most:
            self._queue_made(session, since, data, since)
        if len(taken_back):
            # All of it at once: a client that has a part of what comes with a version is taken to have the rest.
            self._send_reverted(session, taken_back)
        if last is not None:
            self._queue_made(session, version, last, since)
            session.synthetic = version
        session.covered = session.partial = version

    def _queue_made(self, session: Session, version: int, data: bytes, before: int) -> None:
        """Queue a changeset that nobody wrote."""
        client = session.file.client_version if session.flexible else session.sent_client
        session.outbox.append(_made(version, client, data, before))
        session.outbox_bytes += len(data)

    def _queue_bootstrap(
        self, session: Session, old: View, new: View, query_version: int, also: bytes | None = None
    ) -> None:
        """Queue a bootstrap, with one more changeset at its end."""
        history = self.history
        have = history.snapshot.schema if session.has_schema else None
        session.has_schema = True
        session.synthetic = session.covered = history.version
        batches = bootstrap(history.snapshot, have, old, new)
        if also is not None:
            batches = (([*made, also] if last else made, estimate, last) for made, estimate, last in batches)
        session.outbox.append(Bootstrap(history.version, session.file.client_version, query_version, batches))

    def query(self, session: Session, message: Query) -> None:
        """Take a client's new query set."""
        if session.is_lagging:
            self.resume(session)
        try:
            new = self.view(self.permissions.readable(session.file.user, message.query))
        except QueryError as error:
            session.outbox.append(QueryErrorMessage(session.number, 226, message.version, str(error)))
            return
        if session.outbox or session.sent >= self.history.version:
            # The client may be at this version already. The answer gets one of its own, which tells apart what is
            # written on it and what was written before it came.
            self._fan_out(self.history.append_own(Changeset.from_instructions([]), now()))
        old, session.view = session.view, new
        session.query_version = message.version
        self._queue_bootstrap(session, old, new, message.version)

    def pump(self, session: Session) -> None:
        """Send what is queued for a session, and what it has missed, as far as there is room."""
        session.pump(self.history)
        while session.is_lagging and not session.outbox and session.outlet.has_room():
            self.resume(session)
            session.pump(self.history)

    def resume(self, session: Session) -> None:
        """Catch up a session that fell behind, when its outbox is empty enough."""
        session.is_lagging = False
        if session.flexible:
            self._catch_up(session, session.reached)
        else:
            self._queue_log(session, session.reached)
        if not session.is_lagging:
            session.outbox += session.marks
            session.marks.clear()

    def mark(self, session: Session, message: Mark) -> None:
        """Answer when the client has everything there is now."""
        (session.marks if session.is_lagging else session.outbox).append(message)

    def upload(self, session: Session, message: Upload) -> JsonError | None:
        """Integrate what a client wrote; an error ends its session."""
        for entry in message.entries:
            if 0 < entry.server_version < self.history.trimmed and entry.client_version > session.file.client_version:
                return expired(session.number)
            refused = None
            try:
                if session.flexible and self.permissions.guards_classes:
                    entry, refused = self._allowed(session, entry)
                elif not session.may_write and _writes(session, entry):
                    return failure(
                        session.number,
                        230,
                        "The user may not write to this partition; what was written is taken back.",
                        Action.CLIENT_RESET_NO_RECOVERY,
                        recovery_disabled=True,
                    )
                found, is_fitted = self._integrate(session, entry)
            except SchemaMismatchError as error:
                return failure(session.number, 225, str(error), Action.APPLICATION_BUG)
            except ProtocolError as error:
                return failure(session.number, 212, str(error), Action.PROTOCOL_VIOLATION)
            session.needs_ack = True
            if found is not None:
                self._fan_out(found)
                if is_fitted or self._is_to_correct(session, found):
                    self._send_states(session, found)
                if session.flexible:
                    self._compensate(session, found)
                if refused is not None:
                    self._take_back(session, found, refused)
        self.history.advance(session.file, message.progress_client_version, message.progress_server_version)
        return None

    def _allowed(self, session: Session, entry: UploadEntry) -> tuple[UploadEntry, Changeset | None]:
        """Take out of what a client wrote the objects of classes that its user may not write to."""
        if entry.client_version <= session.file.client_version:
            return entry, None
        changeset = Changeset.decode(entry.changeset)
        classes = classes_of(changeset)
        known = self.history.snapshot.schema
        is_read = {n: n in known and known[n].kind is ClassKind.TOPLEVEL for n in classes}
        forbidden = self.permissions.forbidden(session.file.user, is_read)
        if not forbidden:
            return entry, None
        rest, refused = split(changeset, [classes[name] for name in forbidden])
        return replace(entry, changeset=rest.encode()), refused

    def _take_back(self, session: Session, found: Integrated, refused: Changeset) -> None:
        """Tell a client that a write was not allowed, and what the objects are here."""
        reason = "user does not have permission to write to this class"
        named = {(i.table, i.pk): (i.table, i.pk, reason) for i in refused.instructions() if hasattr(i, "pk")}
        made = Reverted(self.history.version, found.entry.client_version, tuple(named.values()))
        self._warn(session, made)
        self._send_reverted(session, made.erasures())

    def _warn(self, session: Session, made: Reverted) -> None:
        """Tell a client of writes that were reverted; its app hears of them once it has the server version."""
        self.history.note_reverted(session.file, made)
        if session.is_lagging:
            return  # it is told when it catches up: of the version which that comes with
        at = len(session.outbox)
        while at and isinstance(last := session.outbox[at - 1], Changes) and last.version == made.version:
            at -= 1  # what belongs to one version comes in one message
        session.outbox.insert(at, made)

    def _send_reverted(self, session: Session, named: Changeset) -> None:
        """Send a client the objects of writes that were reverted, as they are now."""
        session.synthetic = session.covered = version = self.history.version
        if session.is_lagging:
            return  # it comes when the client catches up
        # An entry has to come, even an empty one: the client tells its app when this version is there.
        self._queue_made(session, version, self._states_of_reverted(session, named), version - 1)

    def _states_of_reverted(self, session: Session, named: Changeset) -> bytes:
        unseen = {n: "FALSEPREDICATE" for n in classes_of(named) if not session.view.sees(n)}
        return states_of(self.history.snapshot, named, View(session.view.texts | unseen)).encode()

    def _tell_again(self, session: Session, since: int) -> Changeset:
        """Tell again of what was reverted after a version, since the client may not have got it; name the objects."""
        kept = [made for version, made in sorted(session.file.reverted.items()) if version > since]
        # It comes with the newest version, and real clients expect an error's version among those that come.
        session.outbox += [replace(made, version=self.history.version) for made in kept]
        return concat([made.erasures() for made in kept])

    def _integrate(self, session: Session, entry: UploadEntry) -> tuple[Integrated | None, bool]:
        """Integrate a changeset, fitted to what is here if its client may not have known it; tell whether it was."""
        history, development = self.history, self.development
        try:
            return history.integrate(session.file, entry, may_change_schema=development), False
        except SchemaMismatchError:
            raise
        except ProtocolError:
            # Written on a state that we made up, and not corrected yet? Then it is our doing, not the client's.
            # Or on what the client does not see, as when a key that it creates is taken? Then nobody's.
            written = Changeset.decode(entry.changeset)
            if entry.server_version >= self._corrected(session) and not (
                session.flexible and is_beyond(session.view, written, history.snapshot)
            ):
                raise
        replaced = history.passing.replaced(history.snapshot, written)
        fitted = repair(apply(history.snapshot, replaced).snapshot if len(replaced) else history.snapshot, written)
        taken = replace(entry, server_version=history.version, changeset=fitted.encode())
        return history.integrate(session.file, taken, may_change_schema=development, written=entry), True

    def _corrected(self, session: Session) -> int:
        """Give the version from which on a client holds what the server has, as far as it has integrated it.

        What it wrote before may have met states that were made up, or, where the log is gone, what it was based on
        cannot be merged with any more.
        """
        return max(session.synthetic, self.history.trimmed)

    # ------------------------------------------------------------------ what clients get of a change

    def _fan_out(self, found: Integrated) -> None:
        entry = found.entry
        known: dict[tuple[int, bool], _Encoded] = {}
        for session in self.sessions:
            client = session.file.client_version
            is_origin = entry.origin == session.file.ident
            if session.flexible and entry.compensates != session.file.ident:
                key = (id(session.view), is_origin)
                if key not in known:
                    known[key] = _encode(
                        entry,
                        share(
                            session.view,
                            found.entry.changeset,
                            found.applied.before,
                            found.applied.snapshot,
                            is_origin=is_origin,
                        ),
                    )
                entries = _entries(entry, client, known[key])
                if known[key].synthetic:
                    session.synthetic = entry.version
                if not known[key].is_whole and not is_origin:
                    session.partial = entry.version
            else:
                entries = () if is_origin else (_as_is(entry, client),)
            size = sum(len(e.changeset) for e in entries)
            session.queue(Changes(entry.version, client, entries, size, entry.version - 1))

    def _is_to_correct(self, session: Session, found: Integrated) -> bool:
        """Say whether a client has to be told how its write came out: it may have merged it otherwise."""
        entry = found.entry
        unseen = session.flexible and found.changed and entry.base < session.partial
        if not len(found.original) or not (unseen or entry.base < self._corrected(session)):
            return False
        # A client that met nothing but its first bootstrap met no erasures: plain fields come out alike on both sides.
        # What lies inside a collection or an embedded object may not.
        nested = np.isin(found.original.op, _COLLECTION_OPS) | (found.original.path_len > 0)
        return session.first != self._corrected(session) or found.changed or bool(nested.any())

    def _send_states(self, session: Session, found: Integrated) -> None:
        """Send a client the objects that it wrote to, as they are now."""
        # A correction is made up as well: what the client has written before it comes is corrected in turn.
        session.synthetic = version = found.entry.version
        view = session.view if session.flexible else View(dict.fromkeys(self.history.snapshot.tables, "TRUEPREDICATE"))
        data = states_of(found.applied.snapshot, found.original, view).encode()
        if data:
            session.queue(_made(version, session.file.client_version, data, version - 1))

    def _compensate(self, session: Session, found: Integrated) -> None:
        """Take back the creation of objects that the writer's own queries do not match."""
        snapshot, parts, named = found.applied.snapshot, list[Changeset](), list[tuple[str, Key, str]]()
        for name, touched in found.applied.touched.items():
            if not len(touched.inserted) or snapshot.schema[name].kind is not ClassKind.TOPLEVEL:
                continue
            outside = touched.inserted[~session.view.members(snapshot, name, touched.inserted)]
            if len(outside):
                parts.append(erasures(snapshot.tables[name], outside))
                reason = "write to an object that is outside of the current query view"
                named += [(name, key, reason) for key in found.applied.keys(name, outside)]
        if not parts:
            return
        undo = self.history.append_own(concat(parts), now(), compensates=session.file.ident)
        self._warn(session, Reverted(undo.entry.version, found.entry.client_version, tuple(named)))
        self._fan_out(undo)

    def trim(self, version: int) -> tuple[int, list[Session]]:
        """Forget the log up to a version, as far as connected clients do not need it.

        Returns
        -------
        int, list of Session
            How many entries are gone, and who has not got so far and cannot go on.
        """
        # What connected clients may still send is based on what they have confirmed.
        confirmed = [s.file.server_version for s in self.sessions if s.file.server_version]
        count = self.history.trim(min([version, *confirmed]))
        reached = [(s, s.reached if s.is_lagging else s.sent or self.history.trimmed) for s in self.sessions]
        return count, [session for session, version in reached if version < self.history.trimmed]

    def remove(self, session: Session) -> None:
        """Forget a session."""
        if session in self.sessions:
            self.sessions.remove(session)


def _made(version: int, client: int, data: bytes, before: int) -> Changes:
    """Wrap a changeset that nobody wrote."""
    entry = DownloadEntry(version, client, SYNTHETIC_TIMESTAMP, SERVER_FILE, len(data), data)
    return Changes(version, client, (entry,), len(data), before)


def _writes(session: Session, entry: UploadEntry) -> bool:
    """Tell whether an entry is new, and more than schema."""
    return entry.client_version > session.file.client_version and has_data(Changeset.decode(entry.changeset))


def now() -> int:
    """Give the time of the protocol: milliseconds since 2015."""
    return int((time.time() - _EPOCH) * 1000)


def failure(
    number: int, code: int, message: str, action: Action, *, try_again: bool = False, recovery_disabled: bool = False
) -> JsonError:
    """Make a json_error."""
    body = json_error_body(message, action=action, try_again=try_again, recovery_disabled=recovery_disabled)
    return JsonError(number, code, body)


def expired(number: int) -> JsonError:
    """Tell a client that the history which it is based on is gone."""
    text = "The client has been away for too long: the history since then is not kept any more."
    return failure(number, 222, text, Action.CLIENT_RESET)


def reset_ordered(number: int, *, recovery: bool) -> JsonError:
    """Tell a client that an administrator wants it to begin anew."""
    action = Action.CLIENT_RESET if recovery else Action.CLIENT_RESET_NO_RECOVERY
    text = "The administrator of the server has reset this client file."
    return failure(number, 217, text, action, recovery_disabled=not recovery)


def unusable(number: int, reason: str) -> JsonError:
    """Answer a client that could not use what it was sent: it takes nothing more, and waits for this."""
    if "schema mismatch" in reason.lower():  # so say real clients, whatever the code
        text = f"The schemas of the client and of the app contradict each other: {reason}"
        return failure(number, 225, text, Action.APPLICATION_BUG)
    text = f"The client could not use what it was sent: {reason}"
    return failure(number, 212, text, Action.CLIENT_RESET)


def _as_is(entry: Entry, client_version: int) -> DownloadEntry:
    return DownloadEntry(entry.version, client_version, entry.timestamp, entry.origin, entry.original_size, entry.data)


def _encode(entry: Entry, found: Share) -> _Encoded:
    passed = b""
    if found.passed is not None:
        passed = entry.data if found.passed is entry.changeset else found.passed.encode()
    is_whole = found.passed is entry.changeset or not len(entry.changeset)
    return _Encoded(passed, b"" if found.synthetic is None else found.synthetic.encode(), is_whole)


def _entries(entry: Entry, client: int, encoded: _Encoded) -> tuple[DownloadEntry, ...]:
    made: list[DownloadEntry] = []
    if encoded.passed:
        size = len(encoded.passed)
        made.append(DownloadEntry(entry.version, client, entry.timestamp, entry.origin, size, encoded.passed))
    if encoded.synthetic:
        size = len(encoded.synthetic)
        made.append(DownloadEntry(entry.version, client, SYNTHETIC_TIMESTAMP, SERVER_FILE, size, encoded.synthetic))
    return tuple(made)
