"""``%realm`` commands: text in, frozen commands out. Nothing here touches a realm.

=============================================== ==========================================================
``%realm connect URL --app ID``                 point at a backend
``%realm login --anonymous``                    log in (``--email E``, ``--api-key-env VAR``, ``--jwt-env VAR``)
``%realm open PATH [--timeout 10s]``            open a realm; the body of ``%%realm open`` lists subscriptions
``%realm status`` / ``where`` / ``list``        how fresh, which files, which realms
``%realm subscribe name: Class where QUERY``    add a subscription
``%realm unsubscribe NAME | Class``             remove one
``%realm query Class where QUERY``              show what matches, without keeping it
``%realm subscriptions`` / ``%realm panel``     the widgets
``%realm pause`` / ``resume`` / ``refresh``     the sync session, and the frames
``%realm history Class``                        the past of a class
``%realm close`` / ``logout``                   end
``%%realm write``                               Python in one transaction, as ``tx``
``%%realm sql``                                 SQL over the realm's classes
=============================================== ==========================================================
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

from realmframe.errors import UsageError

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}
_SUBSCRIPTION: Final = re.compile(
    r"""(?:(?P<name>[^\s:"'][^:"']*?)\s*:\s*)?(?P<cls>[^\W\d]\w*)(?:\s+where\s+(?P<query>.+))?""", re.S
)
_OPTION: Final = re.compile(r"""\s--?\w""")


@dataclass(frozen=True, slots=True)
class SubscriptionLine:
    """``[name:] Class [where QUERY]``."""

    class_name: str
    query: str = "TRUEPREDICATE"
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> SubscriptionLine:
        """Read one line.

        Raises
        ------
        UsageError
            If it has another form.
        """
        match = _SUBSCRIPTION.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"{text.strip()!r} is no subscription.", hint="Write `[name:] Class [where QUERY]`.")
        return cls(match["cls"], (match["query"] or "TRUEPREDICATE").strip(), match["name"])


@dataclass(frozen=True, slots=True)
class Connect:
    """Point at a backend."""

    url: str
    app: str
    base_path: str | None = None
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Login:
    """Log in; a secret is read from the environment or asked for, never typed into a cell."""

    provider: str
    email: str | None = None
    secret_env: str | None = None
    register: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """Open a realm and bind its frames."""

    path: str | None = None
    timeout: float | None = 30.0
    on_timeout: str = "local"
    immediately: bool = False
    partition: str | None = None
    local: bool = False
    name: str = "realm"
    subscriptions: tuple[SubscriptionLine, ...] = ()


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Add a subscription and wait for it."""

    line: SubscriptionLine
    timeout: float | None = 30.0


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Remove a subscription by name, or all of a class."""

    name: str


@dataclass(frozen=True, slots=True)
class Query:
    """Show what matches."""

    line: SubscriptionLine


@dataclass(frozen=True, slots=True)
class History:
    """Show the past of a class."""

    class_name: str


@dataclass(frozen=True, slots=True)
class Write:
    """Run Python in one transaction."""

    body: str


@dataclass(frozen=True, slots=True)
class Sql:
    """Run SQL over the realm's classes; the result is bound to ``into``."""

    body: str
    into: str | None = None


@dataclass(frozen=True, slots=True)
class Simple:
    """A command without arguments."""

    verb: str
    options: dict[str, Any] = field(default_factory=dict)


Command: TypeAlias = Connect | Login | Open | Subscribe | Unsubscribe | Query | History | Write | Sql | Simple

SIMPLE: Final = {
    "status": "how fresh the realm is",
    "where": "the realm's files and the rule that placed them",
    "list": "the realms that are open",
    "subscriptions": "the subscription panel",
    "panel": "the status widget",
    "pause": "stop syncing for now",
    "resume": "sync again",
    "refresh": "move the frames to the newest version",
    "close": "close the realm",
    "logout": "log the user out",
    "help": "this list",
}


def duration(text: str) -> float | None:
    """Read ``"10s"``, ``"500ms"``, ``"2m"``, plain seconds, or ``"never"`` (None: waits for ever)."""
    if text in ("never", "none"):
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no duration.", hint='Write "10s", "500ms", "2m" or "never".')
    return float(match[1]) * _UNITS[match[2]]


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises our error instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"%realm {self.prog}: {message}.", hint=self.format_usage().strip())

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise UsageError(f"%realm {self.prog}: {message or 'nothing to do'}.")


def _parser(verb: str) -> _Parser:
    return _Parser(prog=verb, add_help=False, allow_abbrev=False, exit_on_error=False)


def _connect(arguments: Sequence[str], _cell: str | None) -> Command:
    parser = _parser("connect")
    parser.add_argument("url")
    parser.add_argument("--app", required=True)
    parser.add_argument("--base-path")
    parser.add_argument("--timeout", type=duration, default=60.0)
    found = parser.parse_args(arguments)
    return Connect(found.url, found.app, found.base_path, found.timeout or 60.0)


def _login(arguments: Sequence[str], _cell: str | None) -> Command:
    parser = _parser("login")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--anonymous", action="store_true")
    kind.add_argument("--email")
    kind.add_argument("--api-key-env")
    kind.add_argument("--jwt-env")
    parser.add_argument("--password-env")
    parser.add_argument("--register", action="store_true")
    found = parser.parse_args(arguments)
    if found.register and not found.email:
        raise UsageError("%realm login --register needs --email.")
    if found.email:
        return Login("email", found.email, found.password_env, found.register)
    if found.api_key_env:
        return Login("api-key", secret_env=found.api_key_env)
    if found.jwt_env:
        return Login("jwt", secret_env=found.jwt_env)
    return Login("anonymous")


def _open(arguments: Sequence[str], cell: str | None) -> Command:
    parser = _parser("open")
    parser.add_argument("path", nargs="?")
    parser.add_argument("--timeout", type=duration, default=30.0)
    parser.add_argument("--on-timeout", choices=("local", "raise"), default="local")
    parser.add_argument("--immediately", action="store_true")
    parser.add_argument("--partition")
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--as", dest="name", default="realm")
    found = parser.parse_args(arguments)
    if not found.name.isidentifier():
        raise UsageError(f"%realm open --as: {found.name!r} is no Python name.")
    lines = tuple(SubscriptionLine.parse(line) for line in _body_lines(cell))
    return Open(
        found.path, found.timeout, found.on_timeout, found.immediately, found.partition, found.local, found.name, lines
    )


def _body_lines(cell: str | None) -> list[str]:
    lines = (line.strip() for line in (cell or "").split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _history(arguments: Sequence[str], _cell: str | None) -> Command:
    parser = _parser("history")
    parser.add_argument("class_name", metavar="CLASS")
    return History(parser.parse_args(arguments).class_name)


def _sql(arguments: Sequence[str], cell: str | None) -> Command:
    parser = _parser("sql")
    parser.add_argument("--into")
    found = parser.parse_args(arguments)
    return Sql(_needs_body("sql", cell), found.into)


def _write(arguments: Sequence[str], cell: str | None) -> Command:
    _parser("write").parse_args(arguments)
    return Write(_needs_body("write", cell))


def _needs_body(verb: str, cell: str | None) -> str:
    if not cell or not cell.strip():
        raise UsageError(f"%realm {verb} needs a body.", hint=f"Write it as a cell that begins with `%%realm {verb}`.")
    return cell


_SPLIT_VERBS: Final = {
    "connect": _connect,
    "login": _login,
    "open": _open,
    "history": _history,
    "sql": _sql,
    "write": _write,
}
VERBS: Final = (*_SPLIT_VERBS, "subscribe", "unsubscribe", "query", *SIMPLE)


def parse(line: str, cell: str | None = None) -> Command:
    """Read a magic's line and body.

    Parameters
    ----------
    line : str
        What follows ``%realm``.
    cell : str, optional
        The body of ``%%realm``.

    Raises
    ------
    UsageError
        Naming what cannot be read and what to write instead.
    """
    verb, _, rest = line.strip().partition(" ")
    verb, rest = verb or "help", rest.strip()
    if verb in SIMPLE:
        if rest:
            raise UsageError(f"%realm {verb} takes no arguments.")
        return Simple(verb)
    if verb in ("subscribe", "query"):
        return _query_verb(verb, rest)
    if verb == "unsubscribe":
        if not rest:
            raise UsageError("%realm unsubscribe needs the name of a subscription, or a class.")
        return Unsubscribe(rest.strip("\"'"))
    handler = _SPLIT_VERBS.get(verb)
    if handler is None:
        raise UsageError(f"%realm has no command {verb!r}.", hint=f"It has: {', '.join(VERBS)}.")
    try:
        words = shlex.split(rest)
    except ValueError as fault:
        raise UsageError(f"%realm {verb}: {fault}.") from None
    try:
        return handler(words, cell)
    except argparse.ArgumentError as fault:
        raise UsageError(f"%realm {verb}: {fault}.") from None


def _query_verb(verb: str, rest: str) -> Command:
    timeout: float | None = 30.0
    match = re.match(r"--timeout(?:=|\s+)(\S+)\s+", rest)
    if match is not None:
        timeout, rest = duration(match[1]), rest[match.end() :]
    line = SubscriptionLine.parse(rest)
    return Subscribe(line, timeout) if verb == "subscribe" else Query(line)
