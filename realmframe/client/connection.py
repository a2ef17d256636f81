"""One websocket of one user, kept open for all their realms: socket, clock and tokens of ``session.ClientConnection``.

The machine says when to open and close (``OpenConnection``, ``CloseConnection``); this module opens with a token that
is good, tells the machine how it went, carries bytes both ways, and hands every event with a session number to that
session. Everything here runs in the sync thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import httpx
import httpx_ws

from realmframe.client.loop import sync_loop
from realmframe.client.transport import map_fault, tls_context
from realmframe.errors import AuthError, NetworkError, RealmError, RemoteProtocolError
from realmframe.session import events as ev
from realmframe.session.client import ClientConnection
from realmframe.session.rules import CONNECT_FAILED, CONNECT_TIMEOUT, LOST, Ending, after_close, after_status
from realmframe.session.timeouts import Timeouts
from realmframe.wire import MAX_VERSION, Dialect, parse_subprotocol, subprotocols

if TYPE_CHECKING:
    from realmframe.client.app import App
    from realmframe.client.sync import SyncSession

log: Final = logging.getLogger("realmframe.client")

#: Session numbers are never used twice in a process.
_NUMBERS: Final = itertools.count(1)
#: Bytes asked of the socket at a time, and of the machine.
_READ_BYTES: Final = 1 << 20
_WRITE_BYTES: Final = 1 << 20
#: Seconds to wait for the server's reason when writing has failed.
_LAST_WORDS: Final = 0.5


class _Redacted(logging.Filter):
    """Keeps tokens out of httpx's log of requests: the websocket's URL holds one."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "baas_at=" in text:
            record.msg, record.args = re.sub(r"baas_at=[^\s\"&]+", "baas_at=***", text), ()
        return True


logging.getLogger("httpx").addFilter(_Redacted())


class Connection:
    """A connection of one user in one sync mode.

    Parameters
    ----------
    app : App
    user_id : str
    flexible : bool
    """

    def __init__(self, app: App, user_id: str, flexible: bool) -> None:
        self.app = app
        self.user_id = user_id
        self.flexible = flexible
        self.sessions: dict[int, SyncSession] = {}
        self.last_error: RealmError | None = None
        t = app.sync_timeouts
        self.machine = ClientConnection(
            Dialect(MAX_VERSION, flexible),
            random=random.Random(),
            timeouts=Timeouts(
                # One for a single session is of no use to others, and closes with it.
                connection_linger=t.connection_linger if app.multiplex_sessions else 0.0,
                ping_keep_alive_period=t.ping_keep_alive_period,
                pong_keep_alive_timeout=t.pong_keep_alive_timeout,
                fast_reconnect_limit=t.fast_reconnect_limit,
            ),
            numbers=_NUMBERS,
        )
        self._task: asyncio.Task[None] | None = None
        self._generation = 0
        self._writable = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = False
        self._stale_token: str | None = None
        self._ask_location = False
        #: Whether it connected at once with a new token, and has heard nothing from the server since.
        self._is_renewed = False
        self._was_open = False
        #: What is being done before the websocket is open, for sessions that join meanwhile.
        self.phase = "login"

    @property
    def state(self) -> str:
        """``disconnected``, ``connecting`` or ``connected``."""
        return str(self.machine.state)

    @property
    def is_opening(self) -> bool:
        """Whether a websocket is being opened now."""
        return self._task is not None and not self.machine.is_connected

    # ------------------------------------------------------------------ the machine

    def pump(self) -> None:
        """Act on what the machine says; call after any call into it."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while events := self.machine.events():
                for event in events:
                    self._act(event)
        finally:
            self._pumping = False
        self._writable.set()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.machine.deadline()
        if due is not None:
            delay = max(0.0, due - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_deadline)

    def _on_deadline(self) -> None:
        self._timer = None
        self.machine.on_deadline(time.monotonic())
        self.pump()

    def _act(self, event: Any) -> None:
        handler = self._HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)
            return
        session = self.sessions.get(getattr(event, "session", 0))
        if session is not None:
            session.news.take(event)

    # ------------------------------------------------------------------ what it says

    def _on_open(self, _event: ev.OpenConnection) -> None:
        self._drop()
        self._generation += 1
        self._task = sync_loop().spawn(self._serve(self._generation), f"realmframe-websocket-{self.app.id}")

    def _on_close(self, event: ev.CloseConnection) -> None:
        log.info("app %s: websocket dropped: %s", self.app.id, event.reason)
        self._generation += 1
        self._drop()

    def _on_state(self, event: ev.ConnectionStateChanged) -> None:
        if event.state == "connected":
            self.last_error = None
        for session in list(self.sessions.values()):
            session.connection_changed(str(event.state))

    def _on_error(self, event: ev.ConnectionFailed) -> None:
        follow = self._FOLLOW_UPS.get(event.follow_up)
        if follow is not None:
            follow(self, event)
        for session in list(self.sessions.values()):
            session.follow_ups.connection_failed(event, self.last_error)

    def _on_failure(self, event: ev.ProtocolFailure) -> None:
        log.warning("app %s: the server broke the protocol: %s", self.app.id, event.error.message)
        for number, session in list(self.sessions.items()):
            if event.session in (0, number):
                session.follow_ups.protocol_failed(event.error)

    def _on_log(self, event: ev.ServerLog) -> None:
        log.log(_LEVELS.get(event.level, logging.INFO), "app %s: server: %s", self.app.id, event.message)

    # ------------------------------------------------------------------ following up

    def refresh_user(self, _event: object = None) -> None:
        """Get a new access token, then connect at once; without one, when the back-off is over."""
        user = self.app.metadata.get(self.user_id)
        self._stale_token = user.access_token if user else None
        sync_loop().spawn(self._refresh_then_reconnect(), "realmframe-refresh")

    def refresh_location(self, _event: object = None) -> None:
        """Ask where the app is and get a new token, then connect at once."""
        self._ask_location = True
        self.refresh_user()

    def log_out(self, _event: object = None) -> None:
        """Log the user out here."""
        self.app.expel(self.user_id)

    async def _refresh_then_reconnect(self) -> None:
        try:
            await self._address()
        except AuthError:
            pass  # the next connection ends with it
        except RealmError as fault:
            log.info("app %s: no new token yet: %s", self.app.id, fault.message)
            return
        else:
            if self._stale_token is not None or self._is_renewed:
                return  # there is no new one, or it was refused in turn: the back-off goes on
            self._is_renewed = True
        self.machine.reconnect(time.monotonic())
        self.pump()

    # ------------------------------------------------------------------ the socket

    def _drop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _address(self) -> str:
        """Give the URL to open, with a token that is good as far as can be known."""
        services = self.app.services
        if self._ask_location:
            self._phase("location")
            await services.location(refresh=True)
            self._ask_location = False
        self._phase("login")
        try:
            token = await self.app.access_token(self.user_id, stale=self._stale_token)
            self._stale_token = None
        except AuthError:
            raise
        except RealmError as fault:
            # The old token may still do; the server says so if not.
            record = self.app.metadata.get(self.user_id)
            if record is None or not record.access_token:
                raise
            log.info("app %s: the token could not be refreshed: %s", self.app.id, fault.message)
            self.last_error = fault
            token = record.access_token
        self._phase("connect")
        route = services.known_location.sync_route
        return f"{route}{'&' if '?' in route else '?'}baas_at={token}"

    def _phase(self, phase: str) -> None:
        self.phase = phase
        for session in list(self.sessions.values()):
            session.phase_changed(phase)

    async def _serve(self, generation: int) -> None:
        """Open a websocket and carry bytes until it ends; tell the machine how."""
        ending = await self._run(generation)
        if generation == self._generation:
            self._task = None
            self.machine.closed(ending, time.monotonic())
            self.pump()

    async def _run(self, generation: int) -> Ending:
        limit = self.app.sync_timeouts.connect
        where = self.app.base_url
        opened = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(limit):
                    url = await self._address()
                    where = url.partition("?")[0]
                    socket = await stack.enter_async_context(self._dial(url, limit))
                dialect = parse_subprotocol(socket.subprotocol or "")
                if dialect is None or dialect.flexible is not self.flexible:
                    raise RemoteProtocolError(
                        f"The server at {where} answered with the subprotocol {socket.subprotocol!r}.",
                        hint="It speaks no version of Device Sync that this client does.",
                    )
                opened = self._was_open = True
                return await self._carry(socket, dialect, generation)
        except Exception as error:
            return self._ended(_first(error), where, opened, limit)

    @contextlib.asynccontextmanager
    async def _dial(self, url: str, limit: float) -> AsyncIterator[httpx_ws.AsyncWebSocketSession]:
        """Open a websocket, for as long as the context lasts."""
        # A ws:// address has no TLS, and needs none of its settings.
        verify = tls_context() if url.startswith("wss") else False
        async with httpx.AsyncClient(timeout=limit, trust_env=False, verify=verify) as client:
            opening: Any = httpx_ws.aconnect_ws(
                url,
                client,
                max_message_size_bytes=_READ_BYTES,
                keepalive_ping_interval_seconds=None,
                subprotocols=list(subprotocols(self.flexible)),
            )
            async with opening as socket:
                yield socket

    def _ended(self, fault: BaseException, where: str, opened: bool, limit: float) -> Ending:
        """Remember what went wrong and say what it means."""
        if isinstance(fault, httpx_ws.WebSocketUpgradeError):
            status = fault.response.status_code
            self.last_error = NetworkError(
                f"The server at {where} refused the websocket with HTTP {status}.", hint=_refusal_hint(status)
            )
            return after_status(status, is_verified=self.app.services.is_located or self._was_open)
        if isinstance(fault, httpx_ws.WebSocketDisconnect):
            said = f"{fault.code} {fault.reason}".strip()
            self.last_error = NetworkError(
                f"The server at {where} closed the websocket ({said}).", hint="Sync connects again by itself."
            )
            return after_close(fault.code, fault.reason)
        if isinstance(fault, AuthError):
            self.last_error = fault
            return after_status(403, is_verified=True)
        self.last_error = fault if isinstance(fault, RealmError) else _network_error(fault, where, opened, limit)
        log.info("app %s: websocket: %s", self.app.id, self.last_error.message)
        if opened:
            return LOST
        return CONNECT_TIMEOUT if isinstance(fault, TimeoutError) else CONNECT_FAILED

    async def _carry(self, socket: httpx_ws.AsyncWebSocketSession, dialect: Dialect, generation: int) -> Ending:
        self.machine.opened(time.monotonic(), dialect)
        self.pump()
        writer = asyncio.create_task(self._write(socket))
        reading: asyncio.Future[Any] | None = None
        try:
            while generation == self._generation:
                reading = asyncio.ensure_future(socket.receive_bytes())
                await asyncio.wait({reading, writer}, return_when=asyncio.FIRST_COMPLETED)
                if writer.done() and not reading.done():
                    # Writing fails first when the server closes; what it said is about to be read.
                    await asyncio.wait({reading}, timeout=_LAST_WORDS)
                if not reading.done():
                    reading.cancel()
                    writer.result()
                    return LOST
                data = bytes(reading.result())
                self._is_renewed = False
                self.machine.receive(data, time.monotonic())
                self.pump()
            return LOST
        finally:
            # Both are waited for, so that what they end with is taken by somebody.
            tasks = [task for task in (writer, reading) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, socket: httpx_ws.AsyncWebSocketSession) -> None:
        while True:
            while messages := self.machine.data_to_send(_WRITE_BYTES):
                for message in messages:
                    await socket.send_bytes(message)
            self._writable.clear()
            # Events that sending caused (a query that went out) wait for nobody else to look.
            self._pump_later()
            await self._writable.wait()

    def _pump_later(self) -> None:
        events = self.machine.events()
        for event in events:
            self._act(event)
        self._arm()

    async def close(self) -> None:
        """Drop the socket and forget the timers."""
        self._generation += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task

    _HANDLERS: ClassVar[dict[type, Callable[[Connection, Any], None]]] = {
        ev.OpenConnection: _on_open,
        ev.CloseConnection: _on_close,
        ev.ConnectionStateChanged: _on_state,
        ev.ConnectionFailed: _on_error,
        ev.ProtocolFailure: _on_failure,
        ev.ServerLog: _on_log,
    }

    #: What the owner does about a connection that failed; the rest the machine does by itself.
    _FOLLOW_UPS: ClassVar[dict[ev.FollowUp, Callable[[Connection, Any], None]]] = {
        ev.FollowUp.REFRESH_USER: refresh_user,
        ev.FollowUp.REFRESH_LOCATION: refresh_location,
        ev.FollowUp.LOG_OUT: log_out,
    }


def _first(fault: BaseException) -> BaseException:
    """Take the first error out of a group, however deep."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault


def _network_error(fault: BaseException, where: str, opened: bool, limit: float) -> RealmError:
    if opened or isinstance(fault, httpx_ws.WebSocketNetworkError):
        return NetworkError(f"The connection to {where} was lost.", hint="Sync connects again by itself.")
    return map_fault(fault, where, None if opened else limit)


_LEVELS: Final[Mapping[str, int]] = {
    "fatal": logging.ERROR,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}


def _refusal_hint(status: int) -> str:
    if status >= 500:
        return "It is in trouble, or down behind a proxy; sync tries again by itself."
    if status in (401, 403):
        return "It does not accept the user's token: if that stays so, log in again."
    return "Is base_url an App Services server, and does the app exist?"
