"""One realm on this server: the messages of its clients, each handled to the end, in one order.

What a client is sent is queued in its session. What that is, is decided in ``catching_up`` (when it begins or has
fallen behind), ``sharing`` (what others write), ``corrections`` and ``compensating`` (what came of its own writes).
"""

from __future__ import annotations

from realmframe.changes import Changeset
from realmframe.errors import ProtocolError, QueryError, SchemaMismatchError
from realmframe.server.answers import expired, failure, now, read_only
from realmframe.server.catching_up import begin, queue_bootstrap, queue_log, queue_missed, states_since
from realmframe.server.compensating import allowed, outside, take_back, warn
from realmframe.server.corrections import integrate, is_to_correct, send_states
from realmframe.server.entries import Integrated
from realmframe.server.history import History
from realmframe.server.permissions import Permissions, has_data
from realmframe.server.query_sets import QuerySets
from realmframe.server.reverted import Reverted
from realmframe.server.session import Session
from realmframe.server.sharing import fan_out
from realmframe.wire import Action, ClientIdent, JsonError, Mark, Query, Upload, UploadEntry
from realmframe.wire import QueryError as QueryErrorMessage


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
        self.query_sets = QuerySets(history, self.sessions)

    def identify(self, session: Session, message: ClientIdent) -> None:
        """Catch up a client that says what it has."""
        history = self.history
        session.covered = session.partial = history.version
        session.sent = message.download_server_version
        # A partition whose log is whole makes up no states, but for writes that its client holds otherwise for sure.
        is_made_up = session.flexible or history.trimmed
        session.synthetic = message.download_server_version if is_made_up else session.file.told
        history.advance(session.file, message.download_client_version, 0)
        session.sent_client = message.download_client_version
        self.sessions.append(session)
        if not session.flexible:
            self._queue_log(session, message.download_server_version)
            return
        session.query_version = message.query_version or 0
        session.view = self.query_sets.in_force(self.permissions.readable(session.file.user, message.query or {}))
        if message.download_server_version == 0:
            begin(history, session)
        else:
            queue_missed(history, session, message.download_server_version)

    def _queue_log(self, session: Session, since: int) -> None:
        states = states_since(self.history, session, since)
        if not states:
            queue_log(self.history, session, since)
            return
        session.synthetic = session.covered = session.file.told = version = self.history.version
        session.append_made(version, states, since)

    def query(self, session: Session, message: Query) -> None:
        """Take a client's new query set."""
        if session.is_lagging:
            self.resume(session)
        try:
            new = self.query_sets.view(self.permissions.readable(session.file.user, message.query))
        except QueryError as error:
            session.outbox.append(QueryErrorMessage(session.number, 226, message.version, str(error)))
            return
        if session.outbox or session.sent >= self.history.version:
            # The client may be at this version already. The answer gets one of its own, which tells apart what is
            # written on it and what was written before it came.
            fan_out(self.sessions, self.history.append_own(Changeset.from_instructions([]), now()))
        old, session.view = session.view, new
        session.query_version = message.version
        queue_bootstrap(self.history, session, old)

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
            queue_missed(self.history, session, session.reached)
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
            error = self._take(session, entry)
            if error is not None:
                return error
        self.history.advance(session.file, message.progress_client_version, message.progress_server_version)
        return None

    def _take(self, session: Session, entry: UploadEntry) -> JsonError | None:
        history, is_new = self.history, entry.client_version > session.file.client_version
        if is_new and history.is_gone(session.file, entry.server_version):
            return expired(session.number)
        refused = None
        try:
            if session.flexible and self.permissions.guards_classes:
                entry, refused = allowed(history, self.permissions, session, entry)
            elif not session.may_write and is_new and has_data(Changeset.decode(entry.changeset)):
                return read_only(session.number)
            found, is_fitted = integrate(history, session, entry, development=self.development)
        except SchemaMismatchError as fault:
            return failure(session.number, 225, str(fault), Action.APPLICATION_BUG)
        except ProtocolError as fault:
            return failure(session.number, 212, str(fault), Action.PROTOCOL_VIOLATION)
        session.needs_ack = True
        if found is not None:
            fan_out(self.sessions, found)
            if is_fitted or is_to_correct(history, session, found):
                send_states(session, found)
            if session.flexible:
                self._compensate(session, found)
            if refused is not None:
                take_back(history, session, found, refused)
        return None

    def _compensate(self, session: Session, found: Integrated) -> None:
        """Take back the creation of objects that the writer's own queries do not match."""
        erased, named = outside(session, found)
        if not named:
            return
        undo = self.history.append_own(erased, now(), compensates=session.file.ident)
        warn(self.history, session, Reverted(undo.entry.version, found.entry.client_version, named))
        fan_out(self.sessions, undo)

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
        return count, [session for session in self.sessions if self._is_behind(session)]

    def _is_behind(self, session: Session) -> bool:
        history = self.history
        if session.is_lagging:  # what it has not got yet is to come from the log
            return session.reached < history.trimmed
        return history.is_gone(session.file, session.sent)

    def remove(self, session: Session) -> None:
        """Forget a session."""
        if session in self.sessions:
            self.sessions.remove(session)
