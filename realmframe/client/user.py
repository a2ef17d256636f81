"""A user of an app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from realmframe.client.auth import ApiKeyAuth, Functions
from realmframe.client.credentials import Credentials
from realmframe.client.metadata import UserRecord
from realmframe.client.tokens import read_token
from realmframe.errors import AuthError, UsageError
from realmframe.model import ejson

if TYPE_CHECKING:
    from realmframe.client.app import App


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """One way in which a user logs in."""

    id: str
    provider_type: str


class User:
    """A user; made by :meth:`App.log_in`. What it says comes from the cache on disk and needs no network."""

    def __init__(self, app: App, user_id: str) -> None:
        self.app = app
        self.id = user_id

    def __repr__(self) -> str:
        return f"<User {self.id} of app {self.app.id!r}: {self.state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, User) and (other.app.id, other.id) == (self.app.id, self.id)

    def __hash__(self) -> int:
        return hash((self.app.id, self.id))

    @property
    def _record(self) -> UserRecord | None:
        return self.app.metadata.get(self.id)

    @property
    def state(self) -> str:
        """``logged_in``, ``logged_out`` or ``removed``."""
        record = self._record
        return "removed" if record is None else record.state

    @property
    def is_logged_in(self) -> bool:
        """Whether the user may sync."""
        return self.state == "logged_in"

    @property
    def device_id(self) -> str:
        """What the server calls this device."""
        record = self._record
        return record.device_id if record else ""

    @property
    def identities(self) -> list[UserIdentity]:
        """The ways in which the user logs in."""
        record = self._record
        return [UserIdentity(i["id"], i["provider_type"]) for i in record.identities] if record else []

    @property
    def provider_type(self) -> str:
        """The way in which the user logged in."""
        record = self._record
        return record.provider if record else ""

    @property
    def profile(self) -> dict[str, Any]:
        """What the server knows of the user, as of the last log-in."""
        record = self._record
        return dict(record.profile) if record else {}

    @property
    def access_token(self) -> str | None:
        """The token of requests, as last known; None when logged out."""
        record = self._record
        return record.access_token if record else None

    @property
    def refresh_token(self) -> str | None:
        """The token that fetches access tokens; None when logged out."""
        record = self._record
        return record.refresh_token if record else None

    @property
    def custom_data(self) -> Any:
        """The user's document at the server, as of the last token."""
        token = self.access_token
        return ejson.decode(read_token(token).user_data) if token else {}

    def refresh_custom_data(self) -> Any:
        """Fetch the custom data anew (it comes with a new token)."""
        self.app.run(self.app.access_token(self.id, stale=self.access_token), "refresh_custom_data")
        return self.custom_data

    @property
    def api_keys(self) -> ApiKeyAuth:
        """The user's API keys."""
        return ApiKeyAuth(self)

    @property
    def functions(self) -> Functions:
        """The server's functions, called in this user's name."""
        return Functions(self)

    def call_function(self, name: str, *arguments: Any, service: str | None = None) -> Any:
        """Call a function of the server.

        Raises
        ------
        AppError
            With the function's error, or code ``FunctionNotFound``.
        """
        body = {"name": name, "arguments": ejson.encode(arguments)} | ({"service": service} if service else {})
        app = self.app
        work = app.with_access_token(
            self.id, lambda token: app.services.request("POST", "/functions/call", token=token, body=body)
        )
        return ejson.decode(app.run(work, f"The function {name}"))

    def link_credentials(self, credentials: Credentials) -> None:
        """Add a way to log in to this user.

        Raises
        ------
        UsageError
            For anonymous credentials, or a user who is not logged in.
        """
        if credentials.provider == "anon-user":
            raise UsageError("A user cannot be linked with anonymous credentials.")
        if not self.is_logged_in:
            raise AuthError(f"The user {self.id} is not logged in and cannot be linked.", hint="Log in first.")
        self.app.run(self.app.link(self.id, credentials), "link_credentials")

    def log_out(self) -> None:
        """Log out: at once here, also when the server cannot be told. An anonymous user is removed."""
        self.app.log_out(self)
