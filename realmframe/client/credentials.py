"""Ways to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from realmframe.errors import UsageError
from realmframe.model import ejson


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user logs in with; secrets never show in its ``repr``.

    Attributes
    ----------
    provider : str
        The server's name of the way to log in.
    reuse : bool
        Anonymous only: whether an anonymous user who is logged in already is taken, without any request.
    """

    provider: str
    payload: Mapping[str, Any] = field(repr=False)
    reuse: bool = False

    @classmethod
    def anonymous(cls, reuse: bool = True) -> Credentials:
        """Nobody in particular. With `reuse` the anonymous user of this app is taken again if there is one."""
        return cls("anon-user", {"provider": "anon-user"}, reuse)

    @classmethod
    def email_password(cls, email: str, password: str) -> Credentials:
        """E-mail address and password, registered before."""
        _text("email", email)
        _text("password", password)
        return cls("local-userpass", {"provider": "local-userpass", "username": email, "password": password})

    @classmethod
    def api_key(cls, key: str) -> Credentials:
        """Log in with an API key of a user or of the server."""
        _text("key", key)
        return cls("api-key", {"provider": "api-key", "key": key})

    @classmethod
    def jwt(cls, token: str) -> Credentials:
        """Log in with a JSON web token of another authority, which the server knows."""
        _text("token", token)
        return cls("custom-token", {"provider": "custom-token", "token": token})

    @classmethod
    def function(cls, payload: Mapping[str, Any] | None = None, **values: Any) -> Credentials:
        """Whatever the server's own authentication function takes."""
        return cls("custom-function", ejson.encode({**(payload or {}), **values}))

    @classmethod
    def google(cls, *, id_token: str | None = None, auth_code: str | None = None) -> Credentials:
        """Google's id token, or its authorisation code."""
        if (id_token is None) == (auth_code is None):
            raise UsageError("Google credentials are either an id_token or an auth_code.")
        secret = {"id_token": id_token} if id_token is not None else {"authCode": auth_code}
        return cls("oauth2-google", {"provider": "oauth2-google", **secret})

    @classmethod
    def apple(cls, id_token: str) -> Credentials:
        """Apple's id token."""
        return cls("oauth2-apple", {"provider": "oauth2-apple", "id_token": id_token})

    @classmethod
    def facebook(cls, access_token: str) -> Credentials:
        """Facebook's access token."""
        return cls("oauth2-facebook", {"provider": "oauth2-facebook", "accessToken": access_token})


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name} must be a string that is not empty.")
