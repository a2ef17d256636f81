"""Apps, users and their credentials, on the database. Everything here blocks: call it from a worker thread."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from realmframe.server import database as db
from realmframe.server.limits import Attempts
from realmframe.server.tokens import Tokens

_APP_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class ApiError(Exception):
    """An answer of the API other than success: HTTP status, ``error_code`` and text."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True, slots=True)
class Login:
    """A user that has just logged in."""

    user: str
    login: str
    device: str


CustomFunction = Callable[[Mapping[str, Any]], str]


def new_id() -> str:
    """Make a random identifier of 24 hexadecimal digits."""
    return secrets.token_hex(12)


class Accounts:
    """Who may do what.

    Parameters
    ----------
    database : Database
    tokens : Tokens
    development : bool
        Whether an unknown app is created on first use.
    custom_login : callable, optional
        Takes the payload of a custom-function log-in and returns the external user id; ValueError refuses.
    jwt_key : str, optional
        HS256 key of custom-token log-ins; without it the provider is off.
    """

    def __init__(
        self,
        database: db.Database,
        tokens: Tokens,
        *,
        development: bool,
        custom_login: CustomFunction | None = None,
        jwt_key: str | None = None,
    ) -> None:
        self.database, self.tokens, self.development = database, tokens, development
        self._custom_login, self._jwt_key = custom_login, jwt_key
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._attempts = Attempts()
        self._known: set[str] = set()

    # ------------------------------------------------------------------ apps

    def need_app(self, app: str) -> None:
        """Make sure that an app exists.

        Raises
        ------
        ApiError
            404, if it does not and may not be created.
        """
        if app in self._known:
            return
        missing = ApiError(404, "AppNotFound", f"cannot find app using Client App ID '{app[:64]}'")
        if not _APP_ID.fullmatch(app):
            raise missing
        with self.database.transaction() as sql:
            if sql.execute(sa.select(db.apps.c.id).where(db.apps.c.id == app)).scalar() is None:
                if not self.development:
                    raise missing
                sql.execute(db.apps.insert().values(id=app, created=int(time.time())))
        self._known.add(app)

    # ------------------------------------------------------------------ logging in

    def log_in(self, app: str, provider: str, body: Mapping[str, Any], link_to: str | None = None) -> Login:
        """Check credentials; with ``link_to`` add them to that user instead of finding theirs."""
        handler = _PROVIDERS.get(provider)
        if handler is None:
            raise ApiError(404, "AuthProviderNotFound", f"the auth provider {provider[:40]!r} is not there")
        subject, may_create = handler(self, app, body)
        device = body.get("options", {}).get("device", {}) if isinstance(body.get("options"), dict) else {}
        device_id = str(device.get("deviceId", "")) if isinstance(device, dict) else ""
        if not re.fullmatch(r"[0-9a-f]{24}", device_id) or set(device_id) == {"0"}:
            device_id = new_id()
        with self.database.transaction() as sql:
            if link_to is not None:
                user = self._link(sql, app, provider, subject, link_to)
            else:
                user = self._find_or_create(sql, app, provider, subject, may_create)
            login = new_id()
            sql.execute(db.logins.insert().values(id=login, user=user, device=device_id))
        return Login(user, login, device_id)

    def _identity(self, sql: sa.Connection, app: str, provider: str, subject: str) -> Any:
        t = db.identities.c
        query = sa.select(db.identities).where(t.app == app, t.provider == provider, t.subject == subject)
        return sql.execute(query).mappings().first()

    def _find_or_create(self, sql: sa.Connection, app: str, provider: str, subject: str, may_create: bool) -> str:
        found = self._identity(sql, app, provider, subject)
        if found is not None and found["user"] is not None:
            user = str(found["user"])
            if sql.execute(sa.select(db.users.c.disabled).where(db.users.c.id == user)).scalar():
                raise ApiError(401, "UserDisabled", "user disabled")
            return user
        if not may_create:
            raise ApiError(401, "AuthError", "authentication failed")
        user = new_id()
        sql.execute(db.users.insert().values(id=user, app=app, data={}, disabled=False, generation=0))
        row = {"app": app, "provider": provider, "subject": subject, "id": new_id(), "user": user}
        sql.execute(db.identities.insert().values(row))
        return user

    def _link(self, sql: sa.Connection, app: str, provider: str, subject: str, user: str) -> str:
        found = self._identity(sql, app, provider, subject)
        if found is None:
            row = {"app": app, "provider": provider, "subject": subject, "id": new_id(), "user": user}
            sql.execute(db.identities.insert().values(row))
            return user
        if found["user"] == user:
            return user
        t = db.identities.c
        # A registered address whose own user was never used may be joined to this user.
        used = sql.execute(sa.select(db.logins.c.id).where(db.logins.c.user == found["user"]).limit(1)).scalar()
        if used is not None:
            raise ApiError(401, "InvalidSession", "a user already exists with the specified provider")
        sql.execute(db.identities.update().where(t.id == found["id"]).values(user=user))
        return user

    def by_anonymous(self, app: str, body: Mapping[str, Any]) -> tuple[str, bool]:
        """Make a new user."""
        return new_id(), True

    def by_password(self, app: str, body: Mapping[str, Any]) -> tuple[str, bool]:
        """Check an e-mail address and password."""
        name, password = _text(body, "username").lower(), _text(body, "password")
        if self._attempts.blocked(f"{app}\0{name}"):
            raise ApiError(429, "RateLimitExceeded", "too many failed attempts; wait a minute")
        with self.database.transaction() as sql:
            found = self._identity(sql, app, "local-userpass", name)
        stored = found["secret"] if found is not None and found["secret"] else self._nobody
        if not self._matches(stored, password) or found is None:
            self._attempts.failed(f"{app}\0{name}")
            raise ApiError(401, "InvalidPassword", "invalid username/password")
        self._attempts.succeeded(f"{app}\0{name}")
        return name, False

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False

    def by_api_key(self, app: str, body: Mapping[str, Any]) -> tuple[str, bool]:
        """Check an API key."""
        digest = hashlib.sha256(_text(body, "key").encode()).hexdigest()
        t = db.api_keys.c
        with self.database.transaction() as sql:
            found = sql.execute(sa.select(db.api_keys).where(t.digest == digest, t.app == app)).mappings().first()
            if found is None or found["disabled"]:
                raise ApiError(401, "InvalidSession", "invalid API key")
            if self._identity(sql, app, "api-key", found["id"]) is None:
                row = {"app": app, "provider": "api-key", "subject": found["id"], "id": new_id()}
                sql.execute(db.identities.insert().values(user=found["user"], **row))
        return str(found["id"]), False

    def by_token(self, app: str, body: Mapping[str, Any]) -> tuple[str, bool]:
        """Check a JWT made elsewhere."""
        if not self._jwt_key:
            raise ApiError(404, "AuthProviderNotFound", "the auth provider 'custom-token' is not set up")
        try:
            key = OctKey.import_key(self._jwt_key)
            claims = jwt.decode(_text(body, "token"), key, algorithms=["HS256"]).claims
            if float(claims.get("exp", 0)) <= time.time():
                raise ValueError("expired")
            return str(claims["sub"]), True
        except (JoseError, KeyError, ValueError, TypeError):
            raise ApiError(401, "AuthError", "the custom token is invalid or expired") from None

    def by_function(self, app: str, body: Mapping[str, Any]) -> tuple[str, bool]:
        """Ask the registered function."""
        if self._custom_login is None:
            raise ApiError(404, "AuthProviderNotFound", "the auth provider 'custom-function' is not set up")
        try:
            payload = {k: v for k, v in body.items() if k != "options"}
            return str(self._custom_login(payload)), True
        except ValueError as error:
            raise ApiError(401, "AuthError", str(error)) from None

    # ------------------------------------------------------------------ e-mail and password

    def register(self, app: str, body: Mapping[str, Any]) -> None:
        """Register an address; development and production confirm at once."""
        email, password = _text(body, "email").lower(), _text(body, "password")
        if not 6 <= len(password) <= 128:
            raise ApiError(400, "BadRequest", "password must be between 6 and 128 characters")
        secret = self._hasher.hash(password)
        with self.database.transaction() as sql:
            if self._identity(sql, app, "local-userpass", email) is not None:
                raise ApiError(409, "AccountNameInUse", "name already in use")
            user = new_id()
            sql.execute(db.users.insert().values(id=user, app=app, data={}, disabled=False, generation=0))
            row = {"app": app, "provider": "local-userpass", "subject": email, "id": new_id(), "user": user}
            sql.execute(db.identities.insert().values(secret=secret, **row))

    def token_for(self, purpose: str, app: str, email: str) -> tuple[str, str]:
        """Make the token and tokenId that the mail about a confirmation or a reset holds."""
        expires = int(time.time()) + 1800
        token_id = f"{expires}.{email.encode().hex()}"
        return self._sign(purpose, app, token_id), token_id

    def _sign(self, purpose: str, app: str, token_id: str) -> str:
        key = self.database.secret("mail tokens")
        return hmac.new(key, f"{purpose}\0{app}\0{token_id}".encode(), hashlib.sha256).hexdigest()

    def use_token(self, purpose: str, app: str, body: Mapping[str, Any]) -> str:
        """Check a token of a mail; give the address."""
        token, token_id = _text(body, "token"), _text(body, "tokenId")
        if not hmac.compare_digest(self._sign(purpose, app, token_id), token):
            raise ApiError(400, "UserpassTokenInvalid", "userpass token is expired or invalid")
        expires, _, email = token_id.partition(".")
        if int(expires) < time.time():
            raise ApiError(400, "UserpassTokenInvalid", "userpass token is expired or invalid")
        return bytes.fromhex(email).decode()

    def reset_password(self, app: str, body: Mapping[str, Any]) -> None:
        """Set a new password with a reset token."""
        email, password = self.use_token("reset", app, body), _text(body, "password")
        if not 6 <= len(password) <= 128:
            raise ApiError(400, "BadRequest", "password must be between 6 and 128 characters")
        t = db.identities.c
        with self.database.transaction() as sql:
            where = (t.app == app, t.provider == "local-userpass", t.subject == email)
            sql.execute(db.identities.update().where(*where).values(secret=self._hasher.hash(password)))

    def need_email(self, app: str, email: str) -> None:
        """Make sure that an address is registered."""
        with self.database.transaction() as sql:
            if self._identity(sql, app, "local-userpass", email.lower()) is None:
                raise ApiError(404, "UserNotFound", "user not found")

    # ------------------------------------------------------------------ users

    def session_is_valid(self, login: str, user: str) -> bool:
        """Whether a log-in has not been ended, and its user exists and is enabled."""
        with self.database.transaction() as sql:
            query = (
                sa.select(db.users.c.disabled)
                .join(db.logins, db.logins.c.user == db.users.c.id)
                .where(db.logins.c.id == login, db.users.c.id == user)
            )
            disabled = sql.execute(query).scalar()
        return disabled is not None and not disabled

    def profile(self, user: str) -> dict[str, Any]:
        """Give what ``GET /auth/profile`` answers."""
        with self.database.transaction() as sql:
            data = sql.execute(sa.select(db.users.c.data).where(db.users.c.id == user)).scalar()
            t = db.identities.c
            rows = sql.execute(sa.select(t.id, t.provider, t.subject).where(t.user == user)).all()
        if data is None:
            raise ApiError(401, "InvalidSession", "user not found")
        shown = dict(data)
        for _, provider, subject in rows:
            if provider == "local-userpass":
                shown.setdefault("email", subject)
        return {
            "user_id": user,
            "domain_id": "",
            "identities": [{"id": i, "provider_type": p, "provider_id": "", "provider_data": {}} for i, p, _ in rows],
            "data": shown,
            "type": "normal",
        }

    def log_out(self, login: str) -> None:
        """End a log-in: its refresh token is worth nothing from now on."""
        with self.database.transaction() as sql:
            sql.execute(db.logins.delete().where(db.logins.c.id == login))

    def delete_user(self, user: str) -> None:
        """Delete a user with all identities, keys and log-ins."""
        with self.database.transaction() as sql:
            for table in (db.logins, db.api_keys, db.identities):
                sql.execute(table.delete().where(table.c.user == user))
            sql.execute(db.users.delete().where(db.users.c.id == user))

    # ------------------------------------------------------------------ API keys

    def create_key(self, app: str, user: str, name: str) -> dict[str, Any]:
        """Make an API key; the only answer that holds the key itself."""
        if not name or len(name) > 256:
            raise ApiError(400, "InvalidParameter", "an API key needs a name of at most 256 characters")
        key, key_id = secrets.token_urlsafe(48), new_id()
        digest = hashlib.sha256(key.encode()).hexdigest()
        row = {"id": key_id, "user": user, "app": app, "name": name, "digest": digest, "disabled": False}
        with self.database.transaction() as sql:
            sql.execute(db.api_keys.insert().values(row))
        return {"_id": key_id, "key": key, "name": name, "disabled": False}

    def keys(self, user: str, key_id: str | None = None) -> list[dict[str, Any]]:
        """List the keys of a user, or one of them."""
        t = db.api_keys.c
        query = sa.select(t.id, t.name, t.disabled).where(t.user == user)
        if key_id is not None:
            query = query.where(t.id == key_id)
        with self.database.transaction() as sql:
            rows = sql.execute(query).all()
        if key_id is not None and not rows:
            raise ApiError(404, "APIKeyNotFound", "API key not found")
        return [{"_id": i, "name": n, "disabled": bool(d)} for i, n, d in rows]

    def change_key(self, user: str, key_id: str, *, disabled: bool | None) -> None:
        """Enable, disable or (None) delete a key."""
        t = db.api_keys.c
        self.keys(user, key_id)
        with self.database.transaction() as sql:
            if disabled is None:
                sql.execute(db.api_keys.delete().where(t.id == key_id, t.user == user))
            else:
                sql.execute(db.api_keys.update().where(t.id == key_id, t.user == user).values(disabled=disabled))


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > 16_384:
        raise ApiError(400, "BadRequest", f"'{name}' must be a text that is not empty")
    return value


_Handler = Callable[[Accounts, str, Mapping[str, Any]], "tuple[str, bool]"]
_PROVIDERS: Final[dict[str, _Handler]] = {
    "anon-user": Accounts.by_anonymous,
    "local-userpass": Accounts.by_password,
    "api-key": Accounts.by_api_key,
    "custom-token": Accounts.by_token,
    "custom-function": Accounts.by_function,
}
