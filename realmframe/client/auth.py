"""What hangs on an app or a user: e-mail/password registration, API keys, functions of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from realmframe.errors import UsageError
from realmframe.model import ObjectId, ejson

if TYPE_CHECKING:
    from realmframe.client.app import App
    from realmframe.client.user import User

_PROVIDER = "/auth/providers/local-userpass"


class EmailPasswordAuth:
    """Registration of e-mail addresses; ``app.email_password_auth``."""

    def __init__(self, app: App) -> None:
        self._app = app

    def _post(self, action: str, **body: Any) -> None:
        app = self._app
        app.run(app.services.request("POST", f"{_PROVIDER}/{action}", body=body), f"email_password_auth: {action}")

    def register_user(self, email: str, password: str) -> None:
        """Register an address.

        Raises
        ------
        AppError
            With code ``AccountNameInUse`` when it is registered already.
        """
        self._post("register", email=email, password=password)

    def confirm_user(self, token: str, token_id: str) -> None:
        """Confirm an address with what the confirmation mail held."""
        self._post("confirm", token=token, tokenId=token_id)

    def resend_confirmation_email(self, email: str) -> None:
        """Have the confirmation mail sent again."""
        self._post("confirm/send", email=email)

    def retry_custom_confirmation(self, email: str) -> None:
        """Have the server's own confirmation function run again."""
        self._post("confirm/call", email=email)

    def send_reset_password_email(self, email: str) -> None:
        """Have a mail sent that allows a new password."""
        self._post("reset/send", email=email)

    def reset_password(self, password: str, token: str, token_id: str) -> None:
        """Set a new password with what that mail held."""
        self._post("reset", password=password, token=token, tokenId=token_id)

    def call_reset_password_function(self, email: str, password: str, *arguments: Any) -> None:
        """Have the server's own function reset the password."""
        self._post("reset/call", email=email, password=password, arguments=ejson.encode(arguments))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key of a user; ``key`` is known only right after it was made, and never shows in the ``repr``."""

    id: str
    name: str
    disabled: bool
    key: str | None = field(default=None, repr=False)


class ApiKeyAuth:
    """API keys of a user; ``user.api_keys``."""

    def __init__(self, user: User) -> None:
        self._user = user

    def _send(self, method: str, *steps: object, body: Any = None) -> Any:
        app, user_id = self._user.app, self._user.id
        path = "".join(f"/{quote(str(step), safe='')}" for step in steps)
        work = app.with_refresh_token(
            user_id,
            lambda token: app.services.request(method, f"/auth/api_keys{path}", token=token, body=body, of_app=False),
        )
        return app.run(work, "api_keys")

    def create(self, name: str) -> ApiKey:
        """Make a key; its secret is in this answer only."""
        return _key(self._send("POST", body={"name": name}))

    def fetch(self, key_id: str | ObjectId) -> ApiKey:
        """Get one key."""
        return _key(self._send("GET", _known(key_id)))

    def fetch_all(self) -> list[ApiKey]:
        """List the keys."""
        return [_key(form) for form in self._send("GET") or ()]

    def delete(self, key_id: str | ObjectId) -> None:
        """Delete a key."""
        self._send("DELETE", _known(key_id))

    def enable(self, key_id: str | ObjectId) -> None:
        """Let a key log in again."""
        self._send("PUT", _known(key_id), "enable")

    def disable(self, key_id: str | ObjectId) -> None:
        """Keep a key from logging in."""
        self._send("PUT", _known(key_id), "disable")


def _known(key_id: str | ObjectId) -> str | ObjectId:
    if not isinstance(key_id, str | ObjectId) or not str(key_id).strip("."):
        raise UsageError(f"{key_id!r} is no id of an API key.", hint="user.api_keys.fetch_all() lists them.")
    return key_id


def _key(form: Any) -> ApiKey:
    return ApiKey(str(form["_id"]), str(form["name"]), bool(form.get("disabled", False)), form.get("key"))


class Functions:
    """Functions of the server: ``user.functions.sum(1, 2)``."""

    def __init__(self, user: User) -> None:
        self._user = user

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self._user.call_function(name, *arguments)
