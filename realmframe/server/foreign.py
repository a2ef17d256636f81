"""Custom JWT log-ins: tokens that another authority signed, and whose key this server knows."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, OctKey, RSAKey
from joserfc.jws import JWSRegistry

from realmframe.errors import StorageError, UsageError
from realmframe.server.refusals import ApiError

#: Seconds after which keys of a URL are asked for anew: when they are old, for an unknown key, while there are none.
_FRESH, _AGAIN, _RETRY = 3600.0, 60.0, 5.0
_FETCH_SECONDS: Final = 10.0
_MAX_KEYS: Final = 1 << 20
_MIN_SECRET: Final = 32


@dataclass(frozen=True, slots=True)
class JwtProvider:
    """Which foreign tokens log a user in.

    Parameters
    ----------
    secret : str, optional
        Key of HS256, at least 32 characters.
    public_key : str, optional
        Key of RS256: a PEM text.
    jwks : str, mapping or Path, optional
        Keys of RS256: a key set, a file of it, or its ``https`` URL. Exactly one of the three is given.
    audience : str, optional
        What ``aud`` must hold; the app id by default.
    check_audience : bool
        Whether ``aud`` is looked at.
    id_field : str
        The claim that names the user.
    fields : mapping
        Claims that go into the user's profile: claim to name there, such as ``{"email": "email"}``.
    leeway : float
        Seconds by which clocks may differ.

    Raises
    ------
    UsageError
        For none or several keys, or a secret that is short.
    StorageError
        If the file of the keys cannot be read.
    """

    secret: str | None = field(default=None, repr=False)
    public_key: str | None = None
    jwks: str | Mapping[str, Any] | Path | None = None
    audience: str | None = None
    check_audience: bool = True
    id_field: str = "sub"
    fields: Mapping[str, str] = field(default_factory=dict)
    leeway: float = 30.0

    def __post_init__(self) -> None:
        if sum(key is not None for key in (self.secret, self.public_key, self.jwks)) != 1:
            raise UsageError("A JwtProvider has one of secret, public_key and jwks.")
        if self.secret is not None and len(self.secret) < _MIN_SECRET:
            raise UsageError(f"The secret of custom JWT log-ins needs {_MIN_SECRET} characters or more.")


class JwtLogin:
    """Checks foreign tokens.

    Parameters
    ----------
    provider : JwtProvider
    """

    def __init__(self, provider: JwtProvider) -> None:
        self._provider = provider
        self._algorithm = "HS256" if provider.secret is not None else "RS256"
        self._lock = threading.Lock()
        self._asked = -math.inf
        self._keys: Key | KeySet | None = None
        jwks = provider.jwks
        try:
            if provider.secret is not None:
                self._keys = OctKey.import_key(provider.secret)
            elif provider.public_key is not None:
                self._keys = RSAKey.import_key(provider.public_key)
            elif not isinstance(jwks, str) or not jwks.startswith(("https://", "http://")):
                form: Any = jwks if isinstance(jwks, Mapping) else json.loads(Path(str(jwks)).read_text("utf-8"))
                self._keys = KeySet.import_key_set(form)
        except OSError as fault:
            raise StorageError(f"The keys of custom JWT log-ins cannot be read: {fault}.", path=str(jwks)) from fault
        except (JoseError, ValueError, KeyError, TypeError) as fault:
            raise UsageError(f"The key of custom JWT log-ins is none: {fault}.") from None

    def check(self, app: str, token: str, now: float | None = None) -> tuple[str, dict[str, Any]]:
        """Check a token; give the user's name at the authority, and what goes into the profile.

        Raises
        ------
        ApiError
            401, for a token that is not signed by the authority, has ended, or is for somebody else.
        """
        claims = self._decode(token)
        now, leeway = time.time() if now is None else now, self._provider.leeway
        expires: Any = claims.get("exp")
        begins: Any = claims.get("nbf", 0)
        if not _is_number(expires) or not _is_number(begins):
            raise _refused("the token does not say when it ends")
        if expires + leeway <= now or begins - leeway > now:
            raise _refused("the token has expired or is not valid yet")
        if self._provider.check_audience:
            audience = claims.get("aud")
            named = audience if isinstance(audience, list) else [audience]
            if (self._provider.audience or app) not in named:
                raise _refused("the token is for another audience")
        subject = claims.get(self._provider.id_field)
        if not isinstance(subject, str | int) or isinstance(subject, bool) or subject == "" or len(str(subject)) > 512:
            raise _refused(f"the token has no {self._provider.id_field!r} that names a user")
        profile = {name: claims[claim] for claim, name in self._provider.fields.items() if claim in claims}
        return str(subject), profile

    def _decode(self, token: str) -> dict[str, Any]:
        # Only the algorithm that was set up is taken: a public key must never be used as a secret.
        registry = JWSRegistry(algorithms=[self._algorithm])
        for fetch in (False, True):
            keys = self._current(fetch)
            try:
                return dict(jwt.decode(token, keys, algorithms=[self._algorithm], registry=registry).claims)
            except (JoseError, KeyError, ValueError, TypeError, AttributeError):
                if not isinstance(self._provider.jwks, str):
                    break
        raise _refused("the token is malformed or was signed by somebody else")

    def _current(self, fetch: bool) -> Key | KeySet:
        url = str(self._provider.jwks)
        if not url.startswith(("https://", "http://")):
            assert self._keys is not None
            return self._keys
        with self._lock:
            age = time.monotonic() - self._asked
            is_due = age > _RETRY if self._keys is None else age > _FRESH or (fetch and age > _AGAIN)
            fault: Exception | None = None
            if is_due:
                try:
                    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - scheme checked
                        self._keys = KeySet.import_key_set(json.loads(answer.read(_MAX_KEYS)))
                except (OSError, JoseError, ValueError, KeyError, TypeError) as found:
                    fault = found
                    if isinstance(found, urllib.error.HTTPError):
                        found.close()  # an answer like any other, with a connection behind it
                self._asked = time.monotonic()
            if self._keys is None:
                raise ApiError(503, "AuthError", "the keys of the token's authority cannot be had") from fault
            return self._keys


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(why: str) -> ApiError:
    return ApiError(401, "AuthError", why)
