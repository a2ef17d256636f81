"""An app: where its server is, who is logged in, and the sync that all its realms share."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from realmframe.client.auth import EmailPasswordAuth
from realmframe.client.credentials import Credentials
from realmframe.client.keywords import refuse_unknown
from realmframe.client.loop import sync_loop
from realmframe.client.metadata import Metadata, UserRecord
from realmframe.client.paths import base_folder, metadata_folder
from realmframe.client.tokens import read_token
from realmframe.client.user import User
from realmframe.client.vault import MetadataConfiguration
from realmframe.errors import AuthError, NetworkError, RealmError, UsageError

if TYPE_CHECKING:
    import httpx

    from realmframe.client.sync_client import SyncClient

T = TypeVar("T")
log: Final = logging.getLogger("realmframe.client")

DEFAULT_BASE_URL: Final = "https://services.cloud.mongodb.com"
DEFAULT_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class SyncTimeouts:
    """Timers of the sync client, in seconds; the defaults are the SDK's.

    Attributes
    ----------
    connect : float
        From starting to connect to the websocket's opening.
    connection_linger : float
        How long a connection is kept when its last session has ended.
    ping_keep_alive_period : float
        Between two PINGs.
    pong_keep_alive_timeout : float
        Within which a PONG must come.
    fast_reconnect_limit : float
        A session that was connected so recently uploads at once.
    """

    connect: float = 120.0
    connection_linger: float = 30.0
    ping_keep_alive_period: float = 60.0
    pong_keep_alive_timeout: float = 120.0
    fast_reconnect_limit: float = 60.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
                raise UsageError(f"SyncTimeouts: {name} must be a number of seconds, not {value!r}.")


_METADATA: Final = ("mode", "encryption_key")
_KEYWORDS: Final = (
    *("id", "base_url", "base_file_path", "timeout", "multiplex_sessions"),
    *("sync_timeouts", "metadata", "transport", "clock"),
)


class App:
    """An app of an App Services server.

    Parameters
    ----------
    id : str
        The app id.
    base_url : str
        Where the server is.
    base_file_path : str or PathLike, optional
        Folder of realms and metadata; by default the working directory that the App is made in.
    timeout : float
        Seconds that one HTTP request may take; 60 by default (also for 0 and None).
    multiplex_sessions : bool
        Whether all realms of a user share one websocket.
    sync_timeouts : SyncTimeouts or mapping, optional
        Timers of the sync client.
    metadata : MetadataConfiguration or mapping, optional
        How users and tokens are kept: ``{"mode": "encryption", "encryption_key": <64 bytes>}``, for example.
    transport : httpx.AsyncBaseTransport, optional
        In place of the network, for HTTP requests.
    clock : callable, optional
        Gives the time in seconds since 1970; decides when tokens have ended.

    Raises
    ------
    UsageError
        For an empty id, a base_url that is no URL, a time-out that is no number, or a keyword that does not exist.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the SDK's word
        *,
        base_url: str = DEFAULT_BASE_URL,
        base_file_path: str | os.PathLike[str] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        multiplex_sessions: bool = True,
        sync_timeouts: SyncTimeouts | Mapping[str, float] | None = None,
        metadata: MetadataConfiguration | Mapping[str, Any] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        **unknown: Any,
    ) -> None:
        refuse_unknown("App", unknown, _KEYWORDS)
        if not isinstance(id, str) or not id:
            raise UsageError("An app needs an id, a string that is not empty.")
        if timeout is not None and (
            not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout >= 0
        ):
            raise UsageError(f"timeout must be a number of seconds, not {timeout!r}.")
        from realmframe.client.transport import AppServices, check_base_url  # HTTP is loaded with the first app

        self.id = id
        self.base_url = check_base_url(base_url)
        self.base_file_path = base_folder(base_file_path)
        self.is_base_set = base_file_path is not None
        self.timeout = float(timeout or DEFAULT_TIMEOUT)
        self.multiplex_sessions = multiplex_sessions
        if isinstance(sync_timeouts, Mapping):
            names = SyncTimeouts.__slots__
            refuse_unknown("sync_timeouts", {k: v for k, v in sync_timeouts.items() if k not in names}, names)
            sync_timeouts = SyncTimeouts(**sync_timeouts)
        self.sync_timeouts = sync_timeouts or SyncTimeouts()
        if isinstance(metadata, Mapping):
            refuse_unknown("metadata", {k: v for k, v in metadata.items() if k not in _METADATA}, _METADATA)
            metadata = MetadataConfiguration(**metadata)
        self.metadata = Metadata(metadata_folder(base_file_path, id), metadata)
        self.clock = clock
        self.services = AppServices(id, self.base_url, self.timeout, transport)
        self._lock = threading.Lock()
        self._sync: SyncClient | None = None
        self._users: weakref.WeakValueDictionary[str, User] = weakref.WeakValueDictionary()
        self._refreshing: dict[str, asyncio.Lock] = {}
        self._listeners: list[Callable[[], None]] = []
        _apps.add(self)
        self._delete_doomed()

    def begin_anew(self) -> None:
        """Let go of locks and connections in a forked process: they are the parent's, whose threads are not here."""
        self._lock, self._sync, self._refreshing = threading.Lock(), None, {}
        self.metadata.begin_anew()

    def __repr__(self) -> str:
        return f"<App {self.id!r} at {self.base_url}>"

    # ------------------------------------------------------------------ users

    @property
    def current_user(self) -> User | None:
        """The user logged in last, from the cache on disk; needs no network."""
        record = self.metadata.current()
        return None if record is None else self.user(record.id)

    @property
    def all_users(self) -> dict[str, User]:
        """Every user who was not removed, by id, also those logged out."""
        return {user_id: self.user(user_id) for user_id in self.metadata.users()}

    def user(self, user_id: str) -> User:
        """Give the object of a user, the same one for as long as somebody holds it."""
        with self._lock:
            known = self._users.get(user_id)
            if known is None:
                known = self._users[user_id] = User(self, user_id)
            return known

    @property
    def email_password_auth(self) -> EmailPasswordAuth:
        """Registration of e-mail addresses."""
        return EmailPasswordAuth(self)

    def log_in(self, credentials: Credentials) -> User:
        """Log in and make the user the current one.

        Raises
        ------
        AuthError
            When the server refuses the credentials.
        NetworkError
            When the server cannot be reached: a first log-in needs the network.
        AppError
            For any other answer, such as an unknown app.
        """
        return self.run(self._log_in(credentials), "log_in")

    async def log_in_async(self, credentials: Credentials) -> User:
        """Log in without blocking the caller's loop; see :meth:`log_in`."""
        return await asyncio.wrap_future(sync_loop().submit(self._log_in(credentials)))

    async def _log_in(self, credentials: Credentials) -> User:
        if not isinstance(credentials, Credentials):
            raise UsageError("log_in takes Credentials.", hint="For example Credentials.anonymous().")
        if credentials.provider == "anon-user" and credentials.reuse:
            for record in self.metadata.users().values():
                if record.is_anonymous and record.is_valid:
                    self.metadata.set_current(record.id)
                    self._changed()
                    return self.user(record.id)
        try:
            answer = await self.services.log_in(credentials.provider, credentials.payload)
        except NetworkError as fault:
            fault.hint = (
                f"{fault.hint or ''} A first log-in needs the server; users who logged in before do not.".strip()
            )
            raise
        access = str(answer["access_token"])
        read_token(access)
        read_token(str(answer["refresh_token"]))
        record = UserRecord(
            id=str(answer["user_id"]),
            provider=credentials.provider,
            device_id=str(answer["device_id"] or ""),
            access_token=access,
            refresh_token=str(answer["refresh_token"]),
        )
        record, profile = await self._profile_of(record)
        before = self.metadata.get(record.id)
        if before is not None:
            record = replace(record, realms=before.realms)
        self.metadata.put(_with_profile(record, profile), current=True)
        self._changed()
        return self.user(record.id)

    async def link(self, user_id: str, credentials: Credentials) -> None:
        """Add credentials to a user; see :meth:`User.link_credentials`."""
        answer = await self.with_access_token(
            user_id,
            lambda token: self.services.log_in(credentials.provider, credentials.payload, link_token=token),
        )
        access = str(answer["access_token"])
        read_token(access)
        record = self.metadata.get(user_id)
        if record is not None:
            provider = credentials.provider if record.provider == "anon-user" else record.provider
            self.metadata.put(replace(record, state="logged_in", provider=provider, access_token=access))
            profile = await self.with_access_token(user_id, self.services.profile)
            record = self.metadata.get(user_id)
            if record is not None:
                self.metadata.put(_with_profile(record, profile))
        self._changed()

    async def _profile_of(self, record: UserRecord) -> tuple[UserRecord, Any]:
        """Ask for the profile of who has just logged in; a token that ended on the way is refreshed, once."""
        access, refresh = record.access_token or "", record.refresh_token or ""
        try:
            return record, await self.services.profile(access)
        except AuthError as fault:
            if fault.status != 401:
                raise
        access = await self.services.refresh(refresh)
        read_token(access)
        return replace(record, access_token=access), await self.services.profile(access)

    def switch_user(self, user: User) -> None:
        """Make another user, who is logged in, the current one.

        Raises
        ------
        UsageError
            For a user of another app, or one unknown here.
        AuthError
            For a user who is not logged in.
        """
        self._own(user)
        if not user.is_logged_in:
            raise AuthError(f"The user {user.id} is not logged in.", hint="Log in again first.")
        self.metadata.set_current(user.id)
        self._changed()

    def log_out(self, user: User) -> None:
        """Log a user out here, then tell the server (failures of which are only logged)."""
        record = self.metadata.get(user.id)
        if record is None or record.state != "logged_in":
            return
        self.expel(user.id, keep_files=False)
        if record.refresh_token:
            token = record.refresh_token
            try:
                self.run(self.services.request("DELETE", "/auth/session", token=token, of_app=False), "log_out")
            except RealmError as fault:
                log.info("app %s: the server could not be told of a log-out: %s", self.id, fault.message)

    def expel(self, user_id: str, *, keep_files: bool = True) -> None:
        """Log a user out locally: sessions stop, data stays (any thread).

        An anonymous user, who could never log in again, is forgotten; `keep_files` says whether their realms stay.
        """
        record = self.metadata.get(user_id)
        if record is None:
            return
        if record.is_anonymous:
            self.metadata.remove(user_id, keep_files=keep_files)
        else:
            self.metadata.change(user_id, state="logged_out", access_token=None, refresh_token=None)
        sync = self._sync
        if sync is not None:
            sync.stop_user(user_id)
        self._changed()

    def track(self, user_id: str, path: os.PathLike[str]) -> None:
        """Note that a realm is a user's: it goes when they are removed."""
        self.metadata.track(user_id, os.fspath(path))

    def _delete_doomed(self, user_id: str | None = None) -> None:
        """Delete the realms of users who are gone, where nobody has them open; see :mod:`.files`."""
        try:
            if not self.metadata.doomed():
                return
            from realmframe.client.files import delete_realms  # the store is loaded with the first realm

            self.metadata.carry_out(lambda user, paths: delete_realms(self.id, user, paths), user_id)
        except RealmError as fault:  # whoever needs the users hears of it
            log.warning("app %s: files of removed users stay: %s", self.id, fault.message)

    def remove_user(self, user: User) -> None:
        """Log a user out and forget them on this device, with their realms (but those at absolute paths).

        Raises
        ------
        UsageError
            For a user unknown here.
        """
        self._own(user)
        self.log_out(user)
        self._forget(user.id)

    def delete_user(self, user: User) -> None:
        """Delete a user at the server, then forget them here.

        Raises
        ------
        AuthError
            For a user who is not logged in.
        """
        self._own(user)
        if not user.is_logged_in:
            raise AuthError(f"The user {user.id} is not logged in, so cannot be deleted at the server.")
        work = self.with_access_token(
            user.id, lambda token: self.services.request("DELETE", "/auth/delete", token=token, of_app=False)
        )
        self.run(work, "delete_user")
        self.expel(user.id, keep_files=False)
        self._forget(user.id)

    def _forget(self, user_id: str) -> None:
        self.metadata.remove(user_id)
        self._delete_doomed(user_id)
        self._changed()

    def _own(self, user: User) -> None:
        if not isinstance(user, User) or user.app.id != self.id:
            raise UsageError(f"This is no user of the app {self.id!r}.")
        if self.metadata.get(user.id) is None:
            raise UsageError(f"The user {user.id} is unknown here, or was removed.", hint="Log in again.")

    # ------------------------------------------------------------------ events

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a function called when users log in, out, or are switched; return what stops that."""
        self._listeners.append(callback)

        def stop() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return stop

    def _changed(self) -> None:
        for callback in list(self._listeners):
            try:
                callback()
            except Exception:
                log.exception("app %s: a listener failed", self.id)

    # ------------------------------------------------------------------ the sync thread

    def run(self, work: Coroutine[Any, Any, T], what: str) -> T:
        """Run a coroutine in the sync thread and wait; its requests bound themselves by the app's time-out."""
        return sync_loop().call(work, what=what)

    @property
    def sync(self) -> SyncClient:
        """The app's sync client, made on first use."""
        with self._lock:
            if self._sync is None:
                from realmframe.client.sync_client import SyncClient

                self._sync = SyncClient(self)
            return self._sync

    async def access_token(self, user_id: str, *, stale: str | None = None) -> str:
        """Give a token that is good for a request, refreshing it when it has ended or is `stale`.

        Raises
        ------
        AuthError
            When the server no longer accepts the user, who is then logged out here.
        """
        async with self._refreshing.setdefault(user_id, asyncio.Lock()):
            while True:
                record = self._logged_in(user_id)
                token, refresh = record.access_token or "", record.refresh_token or ""
                # Another task or process may have refreshed it meanwhile.
                if token != stale and not read_token(token).is_expired(self.clock()):
                    return token
                try:
                    token = await self.services.refresh(refresh)
                except AuthError as fault:
                    if fault.status in (401, 403):
                        if self._is_another(user_id, refresh):
                            continue
                        self.expel(user_id)
                        fault.hint = "The user was logged out here. Log in again; local data is kept."
                    raise
                read_token(token)
                if self._logged_in(user_id).refresh_token == refresh:
                    self.metadata.change(user_id, access_token=token)
                    return token

    def _logged_in(self, user_id: str) -> UserRecord:
        record = self.metadata.get(user_id)
        if record is None or not record.is_valid:
            raise AuthError(f"The user {user_id} is not logged in.", hint="Log in again.")
        return record

    def _is_another(self, user_id: str, refresh_token: str) -> bool:
        """Whether the user has logged in again meanwhile: what the server says of the log-in before is no news."""
        record = self.metadata.get(user_id)
        return record is not None and record.is_valid and record.refresh_token != refresh_token

    async def with_access_token(self, user_id: str, send: Callable[[str], Awaitable[T]]) -> T:
        """Send a request in a user's name, refreshing the token once when the server refuses it."""
        token = await self.access_token(user_id)
        try:
            return await send(token)
        except AuthError as fault:
            if fault.status != 401:
                raise
        return await send(await self.access_token(user_id, stale=token))

    async def with_refresh_token(self, user_id: str, send: Callable[[str], Awaitable[T]]) -> T:
        """Send a request with the user's refresh token; when it is refused, the user is logged out here."""
        token = self._logged_in(user_id).refresh_token or ""
        try:
            return await send(token)
        except AuthError as fault:
            if fault.status == 401 and not self._is_another(user_id, token):
                self.expel(user_id)
            raise


def _with_profile(record: UserRecord, profile: Mapping[str, Any]) -> UserRecord:
    identities = [
        {"id": str(i.get("id", "")), "provider_type": str(i.get("provider_type", ""))} for i in profile["identities"]
    ]
    return replace(record, identities=identities, profile=dict(profile["data"]))


_apps: Final[weakref.WeakSet[App]] = weakref.WeakSet()


def _after_fork() -> None:
    for app in list(_apps):
        app.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
