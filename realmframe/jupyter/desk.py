"""What the magics work on: the app, its user and the realms that are open, and what each command does with them."""

from __future__ import annotations

import contextlib
import getpass
import os
import textwrap
from collections.abc import Callable
from typing import Any, Final

import realmframe as rf
from realmframe.errors import ClosedError, RealmError, UsageError
from realmframe.jupyter import command as c
from realmframe.jupyter.bridge import Bridge
from realmframe.jupyter.facts import Shown, status_rows, subscription_rows
from realmframe.jupyter.opening import open_with_progress
from realmframe.jupyter.widgets import StatusWidget, SubscriptionPanel
from realmframe.realm.core import open_realms


class Desk:
    """The state behind ``%realm`` in one kernel.

    Parameters
    ----------
    namespace : dict
        The user's variables; ``realm`` and the frames are bound there.
    bridge : Bridge
    run_cell : callable
        Runs source in the user's namespace, for ``%%realm write``.
    show : callable
        Displays an object.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        bridge: Bridge,
        run_cell: Callable[[str], None],
        show: Callable[[Any], None],
    ) -> None:
        self.namespace = namespace
        self.bridge = bridge
        self.app: rf.App | None = None
        self.realms: dict[str, rf.Realm] = {}
        self._run_cell = run_cell
        self._show = show
        self._widgets: dict[tuple[str, str], Any] = {}

    def run(self, command: c.Command) -> Any:
        """Do what a command says; return what the cell shows."""
        if isinstance(command, c.Simple):
            return _SIMPLE[command.verb](self)
        return _COMMANDS[type(command)](self, command)

    @property
    def realm(self) -> rf.Realm:
        """The realm that commands mean: the one opened last."""
        if not self.realms:
            raise UsageError("No realm is open.", hint="Open one with `%realm open PATH`.")
        return next(reversed(self.realms.values()))

    def advance(self) -> None:
        """Move the frames of every realm of this process to its newest version; runs between cells."""
        self.bridge.flush()
        for realm in open_realms():
            with contextlib.suppress(ClosedError):  # by another thread, meanwhile
                realm.refresh()

    def close(self) -> None:
        """Close everything, as when the extension is unloaded."""
        for name in list(self.realms):
            self._close(name)

    # ------------------------------------------------------------------ connecting

    def _need_app(self) -> rf.App:
        if self.app is None:
            raise UsageError("No backend is connected.", hint="Begin with `%realm connect URL --app ID`.")
        return self.app

    def connect(self, found: c.Connect) -> None:
        """Point at a backend."""
        self.app = rf.App(found.app, base_url=found.url, base_file_path=found.base_path, timeout=found.timeout)
        user = self.app.current_user
        cached = f", user {user.id} is logged in" if user is not None else ""
        print(f"app {found.app} at {found.url}{cached}")

    def login(self, found: c.Login) -> None:
        """Log in."""
        app = self._need_app()
        if found.provider == "anonymous":
            credentials = rf.Credentials.anonymous()
        elif found.provider == "email":
            email = found.email or ""
            password = _secret(found.secret_env, f"Password of {email}: ")
            if found.register:
                app.email_password_auth.register_user(email, password)
            credentials = rf.Credentials.email_password(email, password)
        elif found.provider == "api-key":
            credentials = rf.Credentials.api_key(_secret(found.secret_env, "API key: "))
        else:
            credentials = rf.Credentials.jwt(_secret(found.secret_env, "Token: "))
        user = app.log_in(credentials)
        print(f"logged in as {user.id}")

    def logout(self) -> None:
        """Log the current user out."""
        user = self._need_app().current_user
        if user is None:
            raise UsageError("Nobody is logged in.")
        user.log_out()
        print(f"logged out {user.id}")

    # ------------------------------------------------------------------ opening

    def open(self, found: c.Open) -> None:
        """Open a realm, with progress, and bind its frames."""
        if found.name in self.realms:
            self._close(found.name)
        realm = open_with_progress(self._configuration(found), self._show)
        self.realms[found.name] = realm
        self.namespace[found.name] = realm
        bound = [name for name in realm.frames if name.isidentifier()]
        wanted = {line.class_name for line in found.subscriptions}
        for name in bound:
            if not wanted or name in wanted:
                self.namespace[name] = realm[name]
        for line in found.subscriptions:
            if line.class_name not in bound:
                print(f"{line.class_name}: the server has no such class yet")

    def _configuration(self, found: c.Open) -> dict[str, Any]:
        if found.local:
            return {"path": found.path}
        user = self._need_app().current_user
        if user is None:
            raise UsageError("Nobody is logged in.", hint="Log in with `%realm login --anonymous`.")
        behaviour = rf.OpenRealmBehaviorConfiguration(
            type="open_immediately" if found.immediately else "download_before_open",
            time_out=found.timeout,
            time_out_behavior="open_local_realm" if found.on_timeout == "local" else "throw_exception",
        )
        mode: dict[str, Any] = (
            {"partition_value": found.partition} if found.partition is not None else {"flexible": True}
        )

        def subscribe(subscriptions: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
            for line in found.subscriptions:
                subscriptions.add(line.class_name, line.query, name=line.name)

        if found.subscriptions:
            # Run again at every open: the cell says what is wanted, and adding what is there changes nothing.
            mode |= {"initial_subscriptions": subscribe, "rerun_on_open": True}
        sync = rf.SyncConfiguration(
            user, new_realm_file_behavior=behaviour, existing_realm_file_behavior=behaviour, **mode
        )
        return {"path": found.path, "sync": sync}

    def _close(self, name: str) -> None:
        realm = self.realms.pop(name)
        for key in [k for k in self._widgets if k[0] == name]:
            self._widgets.pop(key).close()
        realm.close()

    def close_realm(self) -> None:
        """Close the realm opened last."""
        realm = self.realm
        name = next(n for n, r in self.realms.items() if r is realm)
        self._close(name)
        print(f"closed {realm.path.name}")

    # ------------------------------------------------------------------ looking

    def status(self) -> Shown:
        """Say how fresh the realm is."""
        return Shown((), status_rows(self.realm))

    def where(self) -> Shown:
        """Say which files the realm has and which rule placed them."""
        realm = self.realm
        return Shown((), [("path", str(realm.path)), ("rule", realm.path_rule)])

    def list_realms(self) -> Shown:
        """List the realms that are open."""
        rows = [(name, r.path.name, str(r.status().version), r.status().label) for name, r in self.realms.items()]
        return Shown(("name", "realm", "version", "state"), rows)

    def query(self, found: c.Query) -> Any:
        """Show what matches, as an ordinary frame."""
        return self.realm[found.line.class_name].filtered(found.line.query).realm.pin()

    def history(self, found: c.History) -> Any:
        """Show the past of a class."""
        return self.realm.history(found.class_name)

    def sql(self, found: c.Sql) -> Any:
        """Run SQL; bind or show the result."""
        result = self.realm.sql(found.body)
        if found.into is None:
            return result
        self.namespace[found.into] = result
        return None

    def help(self) -> Shown:
        """List the commands."""
        lines = (line for line in (c.__doc__ or "").split("\n") if line.startswith("``"))
        rows = [tuple(part.strip() for part in line.replace("``", "").split("  ", 1)) for line in lines]
        return Shown(("command", "what it does"), rows)

    # ------------------------------------------------------------------ changing

    def subscribe(self, found: c.Subscribe) -> None:
        """Add a subscription and wait until its data is there."""
        realm, line = self.realm, found.line
        with realm.subscriptions.update(wait=False) as subscriptions:
            subscriptions.add(line.class_name, line.query, name=line.name)
        realm.subscriptions.wait_for_synchronization(timeout=found.timeout)
        realm.refresh()
        print(f"{line.name or line.class_name}: {realm.subscriptions.state}")

    def unsubscribe(self, found: c.Unsubscribe) -> None:
        """Remove a subscription by name, or all of a class."""
        realm = self.realm
        rows = subscription_rows(realm)
        with realm.subscriptions.update(wait=False) as subscriptions:
            if any(row.name == found.name for row in rows):
                subscriptions.remove(found.name)
            elif any(row.class_name == found.name for row in rows):
                subscriptions.remove_all(found.name)
            else:
                raise UsageError(f"No subscription is named {found.name!r}, and none is of such a class.")

    def write(self, found: c.Write) -> None:
        """Run Python in one transaction, as ``tx``."""
        missing = object()
        before = self.namespace.get("tx", missing)
        with self.realm.write() as tx:
            self.namespace["tx"] = tx
            try:
                self._run_cell(textwrap.dedent(found.body))
            finally:
                if before is missing:
                    self.namespace.pop("tx", None)
                else:
                    self.namespace["tx"] = before
        self.realm.refresh()

    def pause(self) -> None:
        """Stop syncing for now."""
        self.realm.sync_session.pause()

    def resume(self) -> None:
        """Sync again."""
        self.realm.sync_session.resume()

    def refresh(self) -> None:
        """Move the frames to the newest version."""
        self.realm.refresh()

    # ------------------------------------------------------------------ widgets

    def widget(self, kind: type[StatusWidget] | type[SubscriptionPanel]) -> Any:
        """Give the realm's widget of a kind, always the same one."""
        realm = self.realm
        name = next(n for n, r in self.realms.items() if r is realm)
        key = (name, kind.__name__)
        if key not in self._widgets:
            self._widgets[key] = kind(realm, self.bridge)
        return self._widgets[key]


def _secret(variable: str | None, prompt: str) -> str:
    """Take a secret from the environment, or ask for it; it is never in a cell."""
    if variable is None:
        return getpass.getpass(prompt)
    value = os.environ.get(variable)
    if not value:
        raise UsageError(f"The environment has no variable {variable}.")
    return value


_COMMANDS: Final[dict[type, Callable[[Desk, Any], Any]]] = {
    c.Connect: Desk.connect,
    c.Login: Desk.login,
    c.Open: Desk.open,
    c.Subscribe: Desk.subscribe,
    c.Unsubscribe: Desk.unsubscribe,
    c.Query: Desk.query,
    c.History: Desk.history,
    c.Write: Desk.write,
    c.Sql: Desk.sql,
}
_SIMPLE: Final[dict[str, Callable[[Desk], Any]]] = {
    "status": Desk.status,
    "where": Desk.where,
    "list": Desk.list_realms,
    "subscriptions": lambda desk: desk.widget(SubscriptionPanel),
    "panel": lambda desk: desk.widget(StatusWidget),
    "pause": Desk.pause,
    "resume": Desk.resume,
    "refresh": Desk.refresh,
    "close": Desk.close_realm,
    "logout": Desk.logout,
    "help": Desk.help,
}

__all__ = ["Desk", "RealmError"]
