"""What a client reads out of its tokens: when they expire, and the user's custom data. Signatures are the server's."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass, field
from typing import Any, Final

from realmframe.errors import AuthError

#: A token this close to its end, in seconds, is refreshed before it is used.
LEEWAY: Final = 10.0


@dataclass(frozen=True, slots=True)
class Claims:
    """The readable part of a token.

    Attributes
    ----------
    expires_at : float or None
        Seconds since 1970; None when the token does not say.
    user_data : dict
        Custom data of the user.
    issued_at : float or None
        Seconds since 1970; None when the token does not say.
    """

    expires_at: float | None
    user_data: dict[str, Any] = field(default_factory=dict)
    issued_at: float | None = None

    @property
    def refresh_at(self) -> float | None:
        """When to ask for the next one: after nine tenths of its life; None when it never ends."""
        if self.expires_at is None:
            return None
        if self.issued_at is None or self.issued_at >= self.expires_at:
            return self.expires_at - LEEWAY
        return self.expires_at - (self.expires_at - self.issued_at) / 10

    @property
    def life(self) -> float:
        """Seconds from its beginning to its end; 0 when the token does not say."""
        return max(0.0, (self.expires_at or 0.0) - (self.issued_at or math.inf))

    def is_due(self, now: float) -> bool:
        """Whether the next one is to be asked for."""
        return self.refresh_at is not None and self.refresh_at <= now

    def is_expired(self, now: float, leeway: float = LEEWAY) -> bool:
        """Whether the token has ended, or is about to."""
        return self.expires_at is not None and self.expires_at < now + leeway


def read_token(token: str) -> Claims:
    """Read a token's claims without checking its signature.

    Raises
    ------
    AuthError
        If it is not of the form of a JSON web token.
    """
    parts = token.split(".")
    try:
        if len(parts) != 3 or not parts[2]:
            raise ValueError("not three parts")
        body = parts[1]  # in either alphabet: this reads both
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if not isinstance(claims, dict):
            raise ValueError("no JSON object")
    except (ValueError, binascii.Error, UnicodeDecodeError) as fault:
        raise AuthError(
            "The server's answer holds a malformed token.", code="BadToken", hint="Is it an App Services server?"
        ) from fault
    data = claims.get("user_data")
    if data is not None and not isinstance(data, dict):
        raise AuthError("The server's token holds custom data that is no document.", code="BadToken")
    return Claims(_seconds(claims.get("exp")), data or {}, _seconds(claims.get("iat")))


def _seconds(value: Any) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value
