"""One client's connection to a server: when to open it, what goes over it, when it is dead.

The sessions on it are in :mod:`realmframe.session.client_session`; see the room's docstring for the contract.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

from realmframe.errors import RemoteProtocolError
from realmframe.session import events as ev
from realmframe.session.backoff import BackOff, Delays, Random, delays_of
from realmframe.session.client_session import ClientSession
from realmframe.session.progress import UploadSource
from realmframe.session.rules import LOST, PONG_TIMEOUT, VOLUNTARY, Ending, error_name
from realmframe.session.start import QuerySet, SessionStart
from realmframe.session.timeouts import Timeouts
from realmframe.wire import (
    ERROR_CODES,
    Dialect,
    Download,
    JsonError,
    LegacyError,
    LogMessage,
    Ping,
    Pong,
    encode,
    parse_server,
)

#: What the machine connects again by itself after; for the two refreshes its owner calls ``reconnect`` sooner.
_RETRIED: Final = frozenset({ev.FollowUp.RETRY, ev.FollowUp.REFRESH_USER, ev.FollowUp.REFRESH_LOCATION})


class ConnectionState(StrEnum):
    """Where a connection is."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"


class ClientConnection:
    """One WebSocket at a time, again and again, for all realms of one user in one sync mode.

    Parameters
    ----------
    dialect : Dialect
        The highest that is offered; :meth:`opened` says what was agreed on.
    random : Random
        For jitter.
    timeouts : Timeouts
    numbers : iterator of int
        Session numbers, shared by all connections of a process.
    delays : Delays
        The back-off between two tries.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        random: Random,
        timeouts: Timeouts | None = None,
        numbers: Iterator[int] | None = None,
        delays: Delays | None = None,
    ) -> None:
        self.dialect = dialect
        self.random = random
        self.timeouts = timeouts or Timeouts()
        self.delays = delays or Delays()
        self.state = ConnectionState.DISCONNECTED
        self.sessions: dict[int, ClientSession] = {}
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._used: set[int] = set()
        self._events: deque[Any] = deque()
        self._out: deque[bytes] = deque()
        self._back_off = BackOff(self.delays)
        self._retry_at: float | None = None
        self._blocked = False
        self._lost_at: float | None = None
        #: The owner asked to reconnect while connected: unless a PONG comes, the next wait is skipped.
        self._skips_wait = False
        self._linger_until: float | None = None
        self._ping_at: float | None = None
        self._ping: tuple[int, float] | None = None
        self._rtt = 0

    def __repr__(self) -> str:
        return f"<ClientConnection {self.state}, {len(self.sessions)} sessions>"

    # ---- what the owner may ask and say

    @property
    def is_connected(self) -> bool:
        """Whether there is a WebSocket now."""
        return self.state is ConnectionState.CONNECTED

    def emit(self, event: Any) -> None:
        """Note something for the owner."""
        self._events.append(event)

    def events(self) -> list[Any]:
        """Give and forget what happened."""
        found = list(self._events)
        self._events.clear()
        return found

    def add_session(self, start: SessionStart, source: UploadSource, now: float) -> ClientSession:
        """Begin a session for a realm; it binds as soon as there is a connection."""
        session = ClientSession(self, next(self._numbers), start, source)
        self.sessions[session.number] = session
        self._used.add(session.number)
        self._blocked = False
        if self.is_connected:
            session.connected(fast=False)
        self.settle(now)
        return session

    def opened(self, now: float, dialect: Dialect | None = None) -> None:
        """Note that the WebSocket is open."""
        if dialect is not None:
            self.dialect = dialect
        fast = self._lost_at is not None and now - self._lost_at < self.timeouts.fast_reconnect_limit
        self._move(ConnectionState.CONNECTED)
        self._retry_at = self._linger_until = None
        self._ping = None
        self._ping_at = now + self.random.uniform(0.0, self.timeouts.ping_keep_alive_period)
        for session in list(self.sessions.values()):
            session.connected(fast=fast)
        self.settle(now)

    def closed(self, ending: Ending, now: float) -> None:
        """Note that the WebSocket could not be opened, or ended."""
        if self.state is ConnectionState.DISCONNECTED:
            return
        self._forget(now)
        if ending is VOLUNTARY:
            self.settle(now)
            return
        message = ending.message or f"The connection to the server failed: {ending.error or ending.reason}."
        self._failed(
            ev.ConnectionFailed(ending.error, message, ending.follow_up, ending.is_fatal, ending.is_reported),
            ending.reason,
            now,
        )

    def reconnect(self, now: float) -> None:
        """Skip the back-off; with a connection, ask for a sign of life at once."""
        self._blocked = False
        if self.is_connected:
            self._skips_wait = True
            if self._ping is None:
                self._ping_at = now
        else:
            self._retry_at = None
            self._back_off.reset()
        self.settle(now)

    def settle(self, now: float) -> None:
        """Open or let go of the connection, as the sessions need."""
        for number in [n for n, s in self.sessions.items() if s.is_ended]:
            del self.sessions[number]
        wanted = any(s.wants_connection for s in self.sessions.values())
        if self.state is ConnectionState.DISCONNECTED:
            if wanted and self._retry_at is None and not self._blocked:
                self._move(ConnectionState.CONNECTING)
                self.emit(ev.OpenConnection())
        elif wanted:
            self._linger_until = None
        elif self._linger_until is None:
            self._linger_until = now + self.timeouts.connection_linger

    # ---- how it fails

    def _move(self, state: ConnectionState) -> None:
        if state is not self.state:
            self.state = state
            self.emit(ev.ConnectionStateChanged(str(state)))

    def _forget(self, now: float) -> None:
        """Take the connection for gone."""
        if self.is_connected:
            self._lost_at = now
        self._out.clear()
        self._ping = self._ping_at = self._linger_until = None
        for session in list(self.sessions.values()):
            session.lost()
        self._move(ConnectionState.DISCONNECTED)

    def _failed(self, event: ev.ConnectionFailed, reason: object, now: float) -> None:
        if event.follow_up in _RETRIED:
            if self._skips_wait:
                self._back_off.reset()
            else:
                self._back_off.update(str(reason), delays_of(event.body, self.delays))
                self._retry_at = now + self._back_off.next_delay(self.random)
            self._skips_wait = False
        else:
            self._retry_at, self._blocked = None, True
        self.emit(event)
        self.settle(now)

    def _drop(self, reason: str, ending: Ending, now: float) -> None:
        """Drop the WebSocket ourselves."""
        self.emit(ev.CloseConnection(reason))
        self.closed(ending, now)

    def _broken(self, session: ClientSession | None, error: RemoteProtocolError, now: float) -> None:
        """End the connection, and the session, because the server broke the protocol."""
        self.emit(ev.ProtocolFailure(0 if session is None else session.number, error))
        self.emit(ev.CloseConnection(error.message))
        self._forget(now)
        if session is not None:
            session.stop(error.message)
        follow_up = ev.FollowUp.RETRY
        text = f"The server broke the protocol: {error.message}"
        self._failed(ev.ConnectionFailed("SyncProtocolInvariantFailed", text, follow_up, is_fatal=False), "broken", now)

    # ---- bytes

    def receive(self, data: bytes, now: float) -> None:
        """Take one WebSocket message; what is wrong with it comes as an event."""
        if not self.is_connected:
            return
        session: ClientSession | None = None
        try:
            message = parse_server(data, self.dialect)
            handler = self._OWN.get(type(message))
            if handler is not None and not getattr(message, "session", 0):
                handler(self, message, now)
                return
            if isinstance(message, LogMessage):
                self._on_log(message, now)
                return
            session = self._session_of(message.session)
            if session is not None:
                session.receive(message, now)
                if isinstance(message, Download):  # the connection works: its next end is a new one
                    self._back_off.reset()
        except RemoteProtocolError as error:
            self._broken(session, error, now)
            return
        self.settle(now)

    def _session_of(self, number: int) -> ClientSession | None:
        """Find a session; what is still on its way to one that has ended is ignored."""
        found = self.sessions.get(number)
        if found is None and number not in self._used:
            raise RemoteProtocolError(f"The server named session {number}, which does not exist.")
        return found

    def _on_error(self, message: JsonError | LegacyError, now: float) -> None:
        known = message.code in ERROR_CODES and message.code < 200
        if not known:
            raise RemoteProtocolError(f"The server sent code {message.code} for the whole connection.")
        body: Mapping[str, Any] = message.body if isinstance(message, JsonError) else {"message": message.message}
        again = message.try_again if isinstance(message, LegacyError) else body.get("tryAgain") is True
        self.emit(ev.CloseConnection(f"error {message.code}"))
        self._forget(now)
        follow_up = ev.FollowUp.RETRY if again else ev.FollowUp.STOP
        text = str(body.get("message", ""))
        name, code = error_name(message.code), message.code
        event = ev.ConnectionFailed(name, text, follow_up, not again, code=code, body=dict(body))
        self._failed(event, f"error {message.code}", now)

    def _on_log(self, message: LogMessage, _now: float) -> None:
        body = message.body
        level, text, request = body.get("level", "info"), body.get("msg", ""), body.get("co_id", "")
        self.emit(ev.ServerLog(message.session, str(level), str(text), str(request)))

    def _on_pong(self, message: Pong, now: float) -> None:
        if self._ping is None or self._ping[0] != message.timestamp:
            raise RemoteProtocolError("The server sent a PONG that nobody asked for.")
        seconds = max(0.0, now - self._ping[1])
        self._ping, self._rtt, self._skips_wait = None, round(seconds * 1000), False
        period = self.timeouts.ping_keep_alive_period
        self._ping_at = now + period - self.random.uniform(0.0, period * 0.1)
        self.emit(ev.RoundTrip(seconds))

    def data_to_send(self, limit: int = 1 << 20) -> list[bytes]:
        """Give about so many bytes of messages, oldest first; call until it gives none."""
        found: list[bytes] = []
        if not self.is_connected:
            return found
        found.extend(self._out)
        self._out.clear()
        size = sum(map(len, found))
        busy = True
        while busy and size < limit:
            busy = False
            # One message of each session in turn, so that none starves the others.
            for session in list(self.sessions.values()):
                message = session.next_message()
                if message is not None:
                    data = encode(message, self.dialect)
                    found.append(data)
                    size += len(data)
                    busy = True
        return found

    # ---- time

    def deadline(self) -> float | None:
        """Give when :meth:`on_deadline` has something to do; None: never."""
        times = [s.retry_at for s in self.sessions.values()]
        times += [self._retry_at, self._linger_until]
        if self._ping is not None:
            times.append(self._ping[1] + self.timeouts.pong_keep_alive_timeout)
        else:
            times.append(self._ping_at)
        return min((t for t in times if t is not None), default=None)

    def on_deadline(self, now: float) -> None:
        """Do what is due."""
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None
        for session in list(self.sessions.values()):
            if session.retry_at is not None and session.retry_at <= now:
                session.resume(now)
        if self.is_connected:
            self._keep_alive(now)
        self.settle(now)

    def _keep_alive(self, now: float) -> None:
        if self._linger_until is not None and self._linger_until <= now:
            self._drop("nobody needs it any more", VOLUNTARY, now)
        elif self._ping is not None:
            if self._ping[1] + self.timeouts.pong_keep_alive_timeout <= now:
                self._drop("no PONG came", PONG_TIMEOUT, now)
        elif self._ping_at is not None and self._ping_at <= now:
            stamp = round(now * 1000)
            self._ping, self._ping_at = (stamp, now), None
            self._out.append(encode(Ping(stamp, self._rtt), self.dialect))

    #: Messages for the connection itself.
    _OWN: ClassVar[Mapping[type, Callable[[ClientConnection, Any, float], None]]] = {
        JsonError: _on_error,
        LegacyError: _on_error,
        LogMessage: _on_log,
        Pong: _on_pong,
    }


__all__ = ["LOST", "ClientConnection", "ClientSession", "ConnectionState", "QuerySet", "SessionStart"]
