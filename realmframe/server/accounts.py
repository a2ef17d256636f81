"""Apps, users and their credentials, on the database. Everything here blocks: call it from a worker thread."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from realmframe.errors import UsageError
from realmframe.model import ejson
from realmframe.server import database as db
from realmframe.server.foreign import JwtLogin, JwtProvider
from realmframe.server.limits import Attempts
from realmframe.server.passwords import PROVIDER, PasswordPolicy, Passwords
from realmframe.server.refusals import ApiError, need_text, new_id
from realmframe.server.tokens import Tokens

log: Final = logging.getLogger("realmframe.server")
_APP_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_KEYS: Final = 20
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")


@dataclass(frozen=True, slots=True)
class Login:
    """A user that has just logged in."""

    user: str
    login: str
    device: str


@dataclass(frozen=True, slots=True)
class _Proof:
    """What checked credentials say: who it is, whether that one may be made, and what goes into the profile."""

    subject: str
    may_create: bool = False
    profile: Mapping[str, Any] | None = None


#: Takes the payload of a custom-function log-in; gives the user's name, or a mapping with ``id`` and profile fields.
CustomFunction = Callable[[Mapping[str, Any]], "str | Mapping[str, Any]"]


class Accounts:
    """Who may do what.

    Parameters
    ----------
    database : Database
    tokens : Tokens
    development : bool
        Whether an unknown app is created on first use.
    custom_login : callable, optional
        Takes the payload of a custom-function log-in and returns the external user id, or a mapping of ``id`` and
        what goes into the profile; ValueError refuses.
    jwt : JwtProvider, optional
        Whose tokens log in; without it the provider ``custom-token`` is off.
    policy : PasswordPolicy
        How addresses are confirmed and passwords reset.
    """

    def __init__(
        self,
        database: db.Database,
        tokens: Tokens,
        *,
        development: bool,
        custom_login: CustomFunction | None = None,
        jwt: JwtProvider | None = None,
        policy: PasswordPolicy | None = None,
    ) -> None:
        self.database, self.tokens, self.development = database, tokens, development
        self.passwords = Passwords(database, policy or PasswordPolicy(), tells=development)
        self._custom_login = custom_login
        self._jwt = None if jwt is None else JwtLogin(jwt)
        self._sources = Attempts(allowed=100)
        self._known: set[str] = set()
        #: Called with app and user when a user's log-ins have ended: what they have open is to be closed.
        self.on_end: Callable[[str, str], object] = lambda app, user: None
        self.passwords.on_end = lambda app, user: self.on_end(app, user)

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
        # Of several first requests at once, one makes the app.
        with contextlib.suppress(sa.exc.IntegrityError), self.database.transaction() as sql:
            if sql.execute(sa.select(db.apps.c.id).where(db.apps.c.id == app)).scalar() is None:
                if not self.development:
                    raise missing
                sql.execute(db.apps.insert().values(id=app, created=int(time.time())))
        self._known.add(app)

    # ------------------------------------------------------------------ logging in

    def log_in(
        self, app: str, provider: str, body: Mapping[str, Any], link_to: str | None = None, source: str = ""
    ) -> Login:
        """Check credentials; with ``link_to`` add them to that user instead of finding theirs."""
        handler = _PROVIDERS.get(provider)
        if handler is None:
            raise ApiError(404, "AuthProviderNotFound", f"the auth provider {provider[:40]!r} is not there")
        if source and self._sources.blocked(source):
            raise ApiError(429, "RateLimitExceeded", "too many failed attempts; wait a minute")
        try:
            proof = handler(self, app, body)
        except ApiError as error:
            if source and error.status == 401:
                self._sources.failed(source)
            raise
        device = body.get("options", {}).get("device", {}) if isinstance(body.get("options"), dict) else {}
        device_id = str(device.get("deviceId", "")) if isinstance(device, dict) else ""
        if not re.fullmatch(r"[0-9a-f]{24}", device_id) or set(device_id) == {"0"}:
            device_id = new_id()
        try:
            user, login = self._enter(app, provider, proof, link_to, device_id)
        except sa.exc.IntegrityError:  # the same user was made at the same moment
            user, login = self._enter(app, provider, proof, link_to, device_id)
        return Login(user, login, device_id)

    def _enter(self, app: str, provider: str, proof: _Proof, link_to: str | None, device: str) -> tuple[str, str]:
        """Find or make the user whom a proof names, and note the log-in."""
        with self.database.transaction() as sql:
            if link_to is not None:
                user = self._link(sql, app, provider, proof.subject, link_to)
            else:
                user = self._find_or_create(sql, app, provider, proof.subject, proof.may_create)
            if proof.profile:
                t = db.users.c
                known = sql.execute(sa.select(t.data).where(t.id == user)).scalar() or {}
                sql.execute(db.users.update().where(t.id == user).values(data={**known, **proof.profile}))
            login = new_id()
            sql.execute(db.logins.insert().values(id=login, user=user, device=device))
        return user, login

    def custom_data(self, user: str) -> dict[str, Any]:
        """Give what comes with each access token of a user."""
        t = db.custom_data.c
        with self.database.transaction() as sql:
            return dict(sql.execute(sa.select(t.data).where(t.user == user)).scalar() or {})

    def access_token(self, app: str, user: str, login: str, device: str) -> str:
        """Make an access token, with the user's custom data in it."""
        return self.tokens.issue("access", app, user, login, device, self.custom_data(user))

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
        linked = sa.select(t.id).where(t.user == user, t.provider == PROVIDER)
        if provider == PROVIDER and sql.execute(linked).first() is not None:
            text = f"linking a {PROVIDER} identity is not allowed when one is already linked"
            raise ApiError(400, "BadRequest", text)
        sql.execute(db.identities.update().where(t.id == found["id"]).values(user=user))
        return user

    def by_anonymous(self, app: str, body: Mapping[str, Any]) -> _Proof:
        """Make a new user."""
        return _Proof(new_id(), may_create=True)

    def by_password(self, app: str, body: Mapping[str, Any]) -> _Proof:
        """Check an e-mail address and password."""
        return _Proof(self.passwords.check(app, body))

    def by_api_key(self, app: str, body: Mapping[str, Any]) -> _Proof:
        """Check an API key."""
        digest = hashlib.sha256(need_text(body, "key").encode()).hexdigest()
        t = db.api_keys.c
        with self.database.transaction() as sql:
            found = sql.execute(sa.select(db.api_keys).where(t.digest == digest, t.app == app)).mappings().first()
            if found is None or found["disabled"]:
                raise ApiError(401, "AuthError", "invalid API key")
            if self._identity(sql, app, "api-key", found["id"]) is None:
                row = {"app": app, "provider": "api-key", "subject": found["id"], "id": new_id()}
                sql.execute(db.identities.insert().values(user=found["user"], **row))
        return _Proof(str(found["id"]))

    def by_token(self, app: str, body: Mapping[str, Any]) -> _Proof:
        """Check a JWT made elsewhere."""
        if self._jwt is None:
            raise ApiError(404, "AuthProviderNotFound", "the auth provider 'custom-token' is not set up")
        subject, profile = self._jwt.check(app, need_text(body, "token"))
        return _Proof(subject, may_create=True, profile=profile)

    def by_function(self, app: str, body: Mapping[str, Any]) -> _Proof:
        """Ask the registered function."""
        if self._custom_login is None:
            raise ApiError(404, "AuthProviderNotFound", "the auth provider 'custom-function' is not set up")
        payload = ejson.decode({k: v for k, v in body.items() if k != "options"})
        try:
            answer = self._custom_login(payload)
        except ValueError as error:
            raise ApiError(401, "AuthError", str(error)) from None
        except Exception as error:
            log.exception("The function of custom log-ins failed")
            raise ApiError(500, "FunctionExecutionError", "the log-in function failed") from error
        known = dict(answer) if isinstance(answer, Mapping) else {"id": answer}
        subject = known.pop("id", None)
        if not isinstance(subject, str | int) or isinstance(subject, bool) or subject == "":
            raise ApiError(401, "AuthError", "the log-in function named no user")
        return _Proof(str(subject), may_create=True, profile=ejson.encode(known))

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
        # A function's users are known to apps by the name that it gave them.
        names = [(subject if provider == "custom-function" else ident, provider) for ident, provider, subject in rows]
        if data is None:
            raise ApiError(401, "InvalidSession", "user not found")
        shown = dict(data)
        for _, provider, subject in rows:
            if provider == "local-userpass":
                shown.setdefault("email", subject)
        return {
            "user_id": user,
            "domain_id": "",
            "identities": [{"id": i, "provider_type": p, "provider_id": "", "provider_data": {}} for i, p in names],
            "data": shown,
            "type": "normal",
        }

    def log_out(self, login: str) -> None:
        """End a log-in: its refresh token is worth nothing from now on."""
        with self.database.transaction() as sql:
            sql.execute(db.logins.delete().where(db.logins.c.id == login))

    def end_logins(self, app: str, user: str) -> int:
        """End all log-ins of a user; give how many there were."""
        with self.database.transaction() as sql:
            count = sql.execute(db.logins.delete().where(db.logins.c.user == user)).rowcount
        self.on_end(app, user)
        return int(count)

    def disable(self, app: str, user: str, *, disabled: bool) -> None:
        """Keep a user from doing anything, or let them again."""
        with self.database.transaction() as sql:
            sql.execute(db.users.update().where(db.users.c.id == user).values(disabled=disabled))
        if disabled:
            self.on_end(app, user)

    def set_custom_data(self, user: str, data: Mapping[str, Any]) -> None:
        """Replace a user's custom data, given as extended JSON of any form; clients get the canonical one.

        Raises
        ------
        UsageError
            If it is no extended JSON.
        """
        t = db.custom_data.c
        try:
            data = ejson.encode(ejson.decode(dict(data)))
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as fault:
            raise UsageError(f"The custom data is no extended JSON: {fault!r}.") from None
        with self.database.transaction() as sql:
            sql.execute(db.custom_data.delete().where(t.user == user))
            if data:
                sql.execute(db.custom_data.insert().values(user=user, data=data))

    def delete_user(self, app: str, user: str) -> None:
        """Delete a user with all identities, keys, log-ins and mails; what they synced stays."""
        t = db.identities.c
        with self.database.transaction() as sql:
            emails = sa.select(t.subject).where(t.user == user, t.provider == PROVIDER)
            for email in sql.execute(emails).scalars().all():
                for table in (db.mails, db.unconfirmed):
                    sql.execute(table.delete().where(table.c.app == app, table.c.email == email))
            # Log-ins, keys, identities and custom data go with the user: the database sees to it.
            sql.execute(db.users.delete().where(db.users.c.id == user))
        self.on_end(app, user)

    # ------------------------------------------------------------------ API keys

    def create_key(self, app: str, user: str, name: str) -> dict[str, Any]:
        """Make an API key; the only answer that holds the key itself."""
        if not _KEY_NAME.fullmatch(name):
            text = "can only contain ASCII letters, numbers, underscores, and hyphens, at most 256 of them"
            raise ApiError(400, "InvalidParameter", f"the name of an API key {text}")
        key, key_id = secrets.token_urlsafe(48), new_id()
        digest = hashlib.sha256(key.encode()).hexdigest()
        row = {"id": key_id, "user": user, "app": app, "name": name, "digest": digest, "disabled": False}
        with self.database.transaction() as sql:
            t = db.api_keys.c
            if (sql.execute(sa.select(sa.func.count()).where(t.user == user)).scalar() or 0) >= _MAX_KEYS:
                raise ApiError(400, "BadRequest", f"a user has at most {_MAX_KEYS} API keys")
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
                i = db.identities.c
                sql.execute(db.identities.delete().where(i.provider == "api-key", i.subject == key_id, i.user == user))
            else:
                sql.execute(db.api_keys.update().where(t.id == key_id, t.user == user).values(disabled=disabled))


_Handler = Callable[[Accounts, str, Mapping[str, Any]], _Proof]
_PROVIDERS: Final[dict[str, _Handler]] = {
    "anon-user": Accounts.by_anonymous,
    PROVIDER: Accounts.by_password,
    "api-key": Accounts.by_api_key,
    "custom-token": Accounts.by_token,
    "custom-function": Accounts.by_function,
}
