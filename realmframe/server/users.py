"""What an administrator does about users: ``realmframe admin users``, on the data folder, whether or not a server runs.

The database is changed here; a server that runs is told by an order to close what the user has open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from realmframe.errors import AppError, UsageError
from realmframe.server import database as db
from realmframe.server.accounts import Accounts
from realmframe.server.admin import END_USER, order
from realmframe.server.passwords import PROVIDER
from realmframe.server.tokens import Tokens


class UserAdmin:
    """The users of one app in a server's data folder.

    Parameters
    ----------
    data : Path
        The server's data folder.
    app : str

    Raises
    ------
    StorageError
        If there is no server's data in the folder.
    """

    def __init__(self, data: Path, app: str) -> None:
        self.data, self.app = data, app
        self._database = db.Database.existing(data)
        self._accounts = Accounts(self._database, Tokens(self._database.secret("token key")), development=True)
        self._accounts.on_end = lambda app, user: order(data, app, END_USER, user=user)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def find(self, name: str) -> str:
        """Give the id of a user named by id or e-mail address.

        Raises
        ------
        AppError
            If there is none.
        """
        u, i = db.users.c, db.identities.c
        by_email = sa.select(i.user).where(i.app == self.app, i.provider == PROVIDER, i.subject == name.lower())
        with self._database.transaction() as sql:
            found = sql.execute(sa.select(u.id).where(u.app == self.app, u.id == name)).scalar()
            found = found or sql.execute(by_email).scalar()
        if found is None:
            raise AppError(f"The app {self.app!r} has no user {name!r}.", hint="`admin users list` shows who there is.")
        return str(found)

    def describe(self, name: str | None = None) -> list[dict[str, Any]]:
        """List users with identities, log-ins, keys and whether they may log in; all of them by default."""
        only = None if name is None else self.find(name)
        u, i, n, k = db.users.c, db.identities.c, db.logins.c, db.api_keys.c
        w = db.unconfirmed.c
        query = sa.select(u.id, u.disabled, u.data).where(u.app == self.app, *([u.id == only] if only else []))
        with self._database.transaction() as sql:
            waiting = set(sql.execute(sa.select(w.email).where(w.app == self.app)).scalars())
            found = []
            for user, disabled, profile in sql.execute(query.order_by(u.id)).all():
                identities = sql.execute(sa.select(i.provider, i.subject).where(i.user == user)).all()
                emails = [s for p, s in identities if p == PROVIDER]
                found.append(
                    {
                        "id": user,
                        "emails": emails,
                        "providers": sorted({p for p, _ in identities}),
                        "disabled": bool(disabled),
                        "unconfirmed": bool(waiting & set(emails)),
                        "logins": sql.execute(sa.select(sa.func.count()).where(n.user == user)).scalar(),
                        "api_keys": sql.execute(sa.select(sa.func.count()).where(k.user == user)).scalar(),
                        "profile": profile,
                    }
                )
        return found

    def disable(self, name: str) -> str:
        """Keep a user from logging in and syncing, at once."""
        self._accounts.disable(self.app, user := self.find(name), disabled=True)
        return f"{user} is disabled"

    def enable(self, name: str) -> str:
        """Let a user log in again."""
        self._accounts.disable(self.app, user := self.find(name), disabled=False)
        return f"{user} is enabled"

    def revoke(self, name: str) -> str:
        """End all log-ins of a user, on all devices; logging in again is allowed."""
        count = self._accounts.end_logins(self.app, user := self.find(name))
        return f"{count} log-ins of {user} have ended"

    def delete(self, name: str) -> str:
        """Delete a user; what they synced stays."""
        self._accounts.delete_user(self.app, user := self.find(name))
        return f"{user} is deleted"

    def confirm(self, name: str) -> str:
        """Confirm the e-mail address of a user."""
        (described,) = self.describe(name)
        done = [e for e in described["emails"] if self._accounts.passwords.confirm_address(self.app, e)]
        return f"{', '.join(done)} confirmed" if done else f"{name} waited for no confirmation"

    def set_data(self, name: str, text: str) -> str:
        """Replace the custom data of a user, given as a JSON object; it comes with their next access token.

        Raises
        ------
        UsageError
            If it is no JSON object.
        """
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise UsageError("Custom data must be a JSON object.", hint="""For example '{"team": "blue"}'.""")
        self._accounts.set_custom_data(user := self.find(name), data)
        return f"custom data of {user} set; it comes with their next access token"

    def mails(self) -> list[str]:
        """List the mails that wait to be sent by hand; what is listed lets its reader in."""
        found = self._accounts.passwords.waiting_mails(self.app)
        return [f"{m.purpose} {m.email} token={m.token} tokenId={m.token_id}" for m in found]


@contextmanager
def _opened(data: Path, app: str) -> Iterator[UserAdmin]:
    users = UserAdmin(data, app)
    try:
        yield users
    finally:
        users.close()


_ABOUT_ONE: Final[dict[str, Callable[[UserAdmin, str], str]]] = {
    "disable": UserAdmin.disable,
    "enable": UserAdmin.enable,
    "revoke": UserAdmin.revoke,
    "delete": UserAdmin.delete,
    "confirm": UserAdmin.confirm,
}
#: What can be asked for, and whether it is about one user.
ACTIONS: Final = {"list": False, "mails": False, "show": True, "set-data": True, **dict.fromkeys(_ABOUT_ONE, True)}


def run(data: Path, app: str, action: str, name: str | None = None, value: str | None = None) -> list[str]:
    """Carry out one action of ``realmframe admin users``; give the lines to print.

    Raises
    ------
    UsageError
        If the user or the data is not given.
    AppError
        If there is no such user.
    """
    if ACTIONS[action] and name is None:
        raise UsageError(f"`admin users {action}` needs a user.", hint="Give an id or an e-mail address.")
    with _opened(data, app) as users:
        if action == "list":
            return [_line(user) for user in users.describe()] or ["no users"]
        if action == "mails":
            return users.mails() or ["no mails wait"]
        assert name is not None
        if action == "show":
            return [json.dumps(users.describe(name)[0], indent=1, ensure_ascii=False)]
        if action == "set-data":
            return [users.set_data(name, value or "")]
        return [_ABOUT_ONE[action](users, name)]


def _line(user: dict[str, Any]) -> str:
    state = "disabled" if user["disabled"] else "unconfirmed" if user["unconfirmed"] else "enabled"
    return f"{user['id']}  {state}  {user['logins']} log-ins  {', '.join(user['emails'] or user['providers'])}"
