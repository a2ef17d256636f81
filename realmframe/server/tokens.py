"""Access and refresh tokens: JWTs signed with a key that only the database knows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

ACCESS_SECONDS: Final = 30 * 60
REFRESH_SECONDS: Final = 60 * 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says.

    Attributes
    ----------
    app, user, login : str
        Whose it is; ``login`` names the log-in that it came from.
    expires : int
        Seconds since 1970.
    """

    app: str
    user: str
    login: str
    device: str
    expires: int


class Tokens:
    """Signs and checks tokens.

    Parameters
    ----------
    key : bytes
        At least 32 random bytes.
    """

    def __init__(self, key: bytes, access_seconds: int = ACCESS_SECONDS) -> None:
        self._key = OctKey.import_key(key)
        self.access_seconds = access_seconds

    def __repr__(self) -> str:
        return "Tokens(<key>)"

    def issue(self, kind: str, app: str, user: str, login: str, device: str, data: dict[str, Any] | None = None) -> str:
        """Make an ``access`` or ``refresh`` token."""
        now = time.time()
        life = self.access_seconds if kind == "access" else REFRESH_SECONDS
        claims: dict[str, Any] = {"sub": user, "iss": app, "baas_id": login, "baas_device_id": device, "typ": kind}
        # Whole seconds, as the SDKs read them; rounded so that no token lives shorter than was asked for.
        claims |= {"iat": int(now), "exp": math.ceil(now) + life}
        if data:  # never null: it ends the process of a real client
            claims["user_data"] = data
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, self._key, algorithms=["HS256"])

    def check(self, token: str, kind: str) -> Claims | None:
        """Read a token of ours; None if it is another kind, expired, forged or no token at all."""
        if len(token) > 16_384:
            return None
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"]).claims
            expires = int(claims["exp"])
            if claims["typ"] != kind or expires <= time.time():
                return None
            return Claims(claims["iss"], claims["sub"], claims["baas_id"], claims["baas_device_id"], expires)
        except (JoseError, KeyError, ValueError, TypeError):
            return None
