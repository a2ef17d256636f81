"""E-mail addresses and passwords: registration, confirmation, reset.

=================== ==============================================================================================
``confirm``         an address that is registered
=================== ==============================================================================================
``"auto"``          is confirmed at once (the default in development)
``"mail"``          waits until the token of a mail comes back (the default otherwise)
a callable          is given the :class:`Mail`; ``True`` confirms, ``None`` leaves it waiting, ``False`` refuses it
=================== ==============================================================================================

``reset`` is ``"mail"``, or a callable that ``call_reset_password_function`` runs with the :class:`Mail`, the new
password and the caller's arguments; its answers mean the same. A mail goes to ``send_mail(mail)``. Without it, nothing
is sent and no token is logged: ``realmframe admin users mails`` shows what waits.

Whoever logs in cannot learn from the time of an answer whether an address is registered. Outside development a request
for a mail does not tell either; registering one does, as the SDKs expect.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from realmframe.errors import UsageError
from realmframe.model import ejson
from realmframe.server import database as db
from realmframe.server.limits import Attempts
from realmframe.server.refusals import ApiError, need_text, new_id

log: Final = logging.getLogger("realmframe.server")

PROVIDER: Final = "local-userpass"
#: Seconds for which the token of a mail is good, by what it is for.
LIFE: Final = {"confirm": 3 * 24 * 3600, "reset": 1800}
_MIN, _MAX = 6, 128
_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Mail:
    """What a mail has to tell its reader; the token never shows in the ``repr``.

    Attributes
    ----------
    purpose : str
        ``"confirm"`` or ``"reset"``.
    app, email : str
    token, token_id : str
        What the app hands to ``confirm_user`` or ``reset_password``.
    """

    purpose: str
    app: str
    email: str
    token: str = field(repr=False)
    token_id: str = field(repr=False)


Outcome = bool | None
SendMail = Callable[[Mail], object]
Confirm = Callable[[Mail], Outcome]
Reset = Callable[..., Outcome]


@dataclass(frozen=True, slots=True)
class PasswordPolicy:
    """How addresses are confirmed and passwords reset; see the module.

    Raises
    ------
    UsageError
        For a word that is none.
    """

    confirm: str | Confirm = "auto"
    reset: str | Reset = "mail"
    send_mail: SendMail | None = None

    def __post_init__(self) -> None:
        for name, words in (("confirm", ("auto", "mail")), ("reset", ("mail",))):
            value = getattr(self, name)
            if not callable(value) and value not in words:
                raise UsageError(f"{name} cannot be {value!r}.", hint=f"It is {' or '.join(words)}, or a function.")


class Passwords:
    """The provider ``local-userpass``; everything blocks.

    Parameters
    ----------
    database : Database
    policy : PasswordPolicy
    tells : bool
        Whether a request for a mail says that an address is unknown.
    """

    def __init__(self, database: db.Database, policy: PasswordPolicy, *, tells: bool) -> None:
        self._database, self._policy, self._tells = database, policy, tells
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
        self._nobody = self._hasher.hash(secrets.token_hex(16))
        self._failures = Attempts()
        self._mailed = Attempts(allowed=5, seconds=_HOUR)
        self._key = database.secret("mail tokens")
        #: Called with app and user when a user's log-ins have ended.
        self.on_end: Callable[[str, str], object] = lambda app, user: None

    # ------------------------------------------------------------------ logging in

    def check(self, app: str, body: Mapping[str, Any]) -> str:
        """Check an address and its password; give the address.

        Raises
        ------
        ApiError
            429 after too many failures, 401 for a wrong password or an address that is not confirmed.
        """
        email, password = _address(need_text(body, "username")), need_text(body, "password")
        name = f"{app}\0{email}"
        if self._failures.blocked(name):
            raise ApiError(429, "RateLimitExceeded", "too many failed attempts; wait a minute")
        found = self._identity(app, email)
        stored = found["secret"] if found is not None and found["secret"] else self._nobody
        if not self._matches(stored, password) or found is None:
            self._failures.failed(name)
            raise ApiError(401, "InvalidPassword", "unauthorized")
        self._failures.succeeded(name)
        if self._is_waiting(app, email):
            raise ApiError(401, "AuthError", "confirmation required")
        return email

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (Argon2Error, InvalidHashError):
            return False

    def _identity(self, app: str, email: str) -> Any:
        t = db.identities.c
        query = sa.select(db.identities).where(t.app == app, t.provider == PROVIDER, t.subject == email)
        with self._database.transaction() as sql:
            return sql.execute(query).mappings().first()

    def _is_waiting(self, app: str, email: str) -> bool:
        t = db.unconfirmed.c
        with self._database.transaction() as sql:
            return sql.execute(sa.select(t.email).where(t.app == app, t.email == email)).scalar() is not None

    # ------------------------------------------------------------------ registration and confirmation

    def register(self, app: str, body: Mapping[str, Any]) -> None:
        """Register an address.

        Raises
        ------
        ApiError
            409 if it is taken, 400 for a password of a wrong length or when the confirmation function refuses.
        """
        email, secret = _address(need_text(body, "email")), self._hash(need_text(body, "password"))
        is_auto = self._policy.confirm == "auto"
        user = new_id()
        row = {"app": app, "provider": PROVIDER, "subject": email, "secret": secret, "id": new_id(), "user": user}
        try:
            with self._database.transaction() as sql:
                sql.execute(db.users.insert().values(id=user, app=app, data={}, disabled=False, generation=0))
                sql.execute(db.identities.insert().values(row))
                if not is_auto:
                    sql.execute(db.unconfirmed.insert().values(app=app, email=email, created=int(time.time())))
        except sa.exc.IntegrityError:
            raise ApiError(409, "AccountNameInUse", "name already in use") from None
        if not is_auto and not self._start_confirmation(app, email):
            with self._database.transaction() as sql:
                sql.execute(db.users.delete().where(db.users.c.id == user))
                sql.execute(db.identities.delete().where(db.identities.c.user == user))
                sql.execute(db.unconfirmed.delete().where(*_of(db.unconfirmed, app, email)))
            raise ApiError(400, "BadRequest", f'failed to confirm user "{email}"')

    def _start_confirmation(self, app: str, email: str) -> bool:
        """Send the mail, or run the function; tell whether the address may stay."""
        mail = self._mail("confirm", app, email)
        function = self._policy.confirm
        if not callable(function):
            self._send(mail)
            return True
        outcome = function(mail)
        if outcome is not None:
            self._forget_mails(app, email, "confirm")
        if outcome:
            self.confirm_address(app, email)
        return outcome is not False

    def confirm(self, app: str, body: Mapping[str, Any]) -> None:
        """Confirm an address with the token of its mail.

        Raises
        ------
        ApiError
            400, for a token that is wrong, was used or has ended.
        """
        self.confirm_address(app, self._use("confirm", app, body))

    def confirm_address(self, app: str, email: str) -> bool:
        """Confirm an address; tell whether it waited for that."""
        with self._database.transaction() as sql:
            done = sql.execute(db.unconfirmed.delete().where(*_of(db.unconfirmed, app, email))).rowcount
        self._forget_mails(app, email, "confirm")
        return bool(done)

    def confirm_again(self, app: str, body: Mapping[str, Any], *, by_function: bool) -> None:
        """Send the mail again, or run the confirmation function again.

        Raises
        ------
        ApiError
            400 if the address is confirmed already or the policy is another, 404 if it is unknown.
        """
        email = self._known(app, body)
        if email is None:
            return
        if by_function and self._policy.confirm == "auto":
            text = f"cannot run confirmation for {email}: automatic confirmation is enabled"
            raise ApiError(400, "BadRequest", text)
        if not self._is_waiting(app, email):
            raise ApiError(400, "UserAlreadyConfirmed", "already confirmed")
        if by_function and not callable(self._policy.confirm):
            raise ApiError(400, "BadRequest", "no confirmation function is set up on this server")
        self._limit(app, email)
        if not self._start_confirmation(app, email):
            raise ApiError(400, "BadRequest", f'failed to confirm user "{email}"')

    def _known(self, app: str, body: Mapping[str, Any]) -> str | None:
        email = _address(need_text(body, "email"))
        if self._identity(app, email) is not None:
            return email
        if self._tells:
            raise ApiError(404, "UserNotFound", "user not found")
        return None

    def _limit(self, app: str, email: str) -> None:
        name = f"{app}\0{email}"
        if self._mailed.blocked(name):
            raise ApiError(429, "RateLimitExceeded", "too many mails to this address; wait an hour")
        self._mailed.failed(name)

    # ------------------------------------------------------------------ reset

    def send_reset(self, app: str, body: Mapping[str, Any]) -> None:
        """Send the mail that allows a new password."""
        email = self._known(app, body)
        if email is not None:
            self._limit(app, email)
            self._send(self._mail("reset", app, email))

    def reset(self, app: str, body: Mapping[str, Any]) -> None:
        """Set a new password with the token of a mail; every log-in of the user ends.

        Raises
        ------
        ApiError
            400, for a token that is wrong, was used or has ended, or a password of a wrong length.
        """
        secret = self._hash(need_text(body, "password"))
        self._set(app, self._use("reset", app, body), secret)

    def call_reset(self, app: str, body: Mapping[str, Any]) -> None:
        """Run the reset function.

        Raises
        ------
        ApiError
            400 if there is none or it refuses, 404 for an unknown address.
        """
        function = self._policy.reset
        if not callable(function):
            raise ApiError(400, "BadRequest", "no password reset function is set up on this server")
        password, arguments = need_text(body, "password"), ejson.decode(body.get("arguments", []))
        secret, email = self._hash(password), self._known(app, body)
        failed = ApiError(400, "BadRequest", f'failed to reset password for user "{email or body.get("email")}"')
        if not isinstance(arguments, Sequence) or isinstance(arguments, str) or email is None:
            raise failed
        self._limit(app, email)
        outcome = function(self._mail("reset", app, email), password, *arguments)
        if outcome is not None:
            self._forget_mails(app, email, "reset")
        if outcome is False:
            raise failed
        if outcome:
            self._set(app, email, secret)

    def _set(self, app: str, email: str, secret: str) -> None:
        t = db.identities.c
        where = (t.app == app, t.provider == PROVIDER, t.subject == email)
        with self._database.transaction() as sql:
            sql.execute(db.identities.update().where(*where).values(secret=secret))
            user = sql.execute(sa.select(t.user).where(*where)).scalar()
            sql.execute(db.logins.delete().where(db.logins.c.user == user))
        self.on_end(app, str(user))
        self._failures.succeeded(f"{app}\0{email}")

    def _hash(self, password: str) -> str:
        if not _MIN <= len(password) <= _MAX:
            raise ApiError(400, "BadRequest", f"password must be between {_MIN} and {_MAX} characters")
        return self._hasher.hash(password)

    # ------------------------------------------------------------------ mails

    def _mail(self, purpose: str, app: str, email: str) -> Mail:
        """Make the one mail of a purpose that is good; an older one no longer is."""
        token_id, expires = new_id(), int(time.time()) + LIFE[purpose]
        with self._database.transaction() as sql:
            sql.execute(db.mails.delete().where(*_of(db.mails, app, email), db.mails.c.purpose == purpose))
            row = {"id": token_id, "app": app, "email": email, "purpose": purpose, "expires": expires}
            sql.execute(db.mails.insert().values(row))
        return Mail(purpose, app, email, self._sign(purpose, app, email, token_id), token_id)

    def _sign(self, purpose: str, app: str, email: str, token_id: str) -> str:
        text = "\0".join((purpose, app, email, token_id)).encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()

    def _send(self, mail: Mail) -> None:
        if self._policy.send_mail is not None:
            self._policy.send_mail(mail)
        else:
            log.info("A mail to %s waits: `realmframe admin users mails` shows it", mail.email)

    def _use(self, purpose: str, app: str, body: Mapping[str, Any]) -> str:
        """Take the token of a mail, once; give the address."""
        token, token_id = need_text(body, "token"), need_text(body, "tokenId")
        t = db.mails.c
        with self._database.transaction() as sql:
            where = (t.id == token_id, t.app == app, t.purpose == purpose)
            found = sql.execute(sa.select(t.email, t.expires).where(*where)).first()
            wanted = self._sign(purpose, app, found[0] if found else "", token_id)
            if not hmac.compare_digest(wanted, token) or found is None:
                raise ApiError(400, "BadRequest", "invalid token data")
            if not sql.execute(db.mails.delete().where(t.id == token_id)).rowcount or found[1] < time.time():
                raise ApiError(400, "UserpassTokenInvalid", "userpass token is expired or invalid")
        return str(found[0])

    def _forget_mails(self, app: str, email: str, purpose: str) -> None:
        with self._database.transaction() as sql:
            sql.execute(db.mails.delete().where(*_of(db.mails, app, email), db.mails.c.purpose == purpose))

    def waiting_mails(self, app: str) -> list[Mail]:
        """List the mails whose tokens are good, for an administrator who sends them by hand."""
        t = db.mails.c
        query = sa.select(t.purpose, t.email, t.id).where(t.app == app, t.expires > time.time()).order_by(t.expires)
        with self._database.transaction() as sql:
            rows = sql.execute(query).all()
        return [Mail(p, app, email, self._sign(p, app, email, i), i) for p, email, i in rows]


def _address(text: str) -> str:
    return text.strip().lower()


def _of(table: sa.Table, app: str, email: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.app == app, table.c.email == email
