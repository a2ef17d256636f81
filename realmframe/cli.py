"""The command line: ``realmframe serve | demo | lab | conformance | admin | inspect``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import realmframe
from realmframe.errors import RealmError, UsageError


def _serve(found: argparse.Namespace) -> int:
    from realmframe.server import Tls, serve

    if found.tls_key is not None and found.tls_certificate is None:
        raise UsageError("--tls-key needs --tls-certificate.")
    serve(
        data=found.data,
        host=found.host,
        port=found.port,
        development=not found.no_development,
        log_level=found.log_level,
        tls=None if found.tls_certificate is None else Tls(found.tls_certificate, found.tls_key),
        **_account_options(found),
    )
    return 0


def _account_options(found: argparse.Namespace) -> dict[str, Any]:
    """Give the options of ``create_app`` about users."""
    from realmframe.server import JwtProvider

    options: dict[str, Any] = {
        name: load(getattr(found, name))
        for name in ("functions", "custom_login", "send_mail")
        if getattr(found, name) is not None
    }
    options |= {name: load(value) for name in ("confirm", "reset") if (value := getattr(found, name)) is not None}
    if found.jwks is not None or found.jwt_secret_env is not None:
        secret = None if found.jwt_secret_env is None else os.environ.get(found.jwt_secret_env, "")
        fields = dict(part.partition("=")[::2] for part in found.jwt_field)
        options["jwt"] = JwtProvider(
            secret=secret, jwks=found.jwks, audience=found.jwt_audience, id_field=found.jwt_id, fields=fields
        )
    return options


def load(name: str) -> Any:
    """Import what ``module:name`` names; a word without a colon is itself.

    Raises
    ------
    UsageError
        If there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        return name
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: the module of the user lies where they are
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as fault:
        raise UsageError(
            f"{name!r} cannot be loaded: {fault}.", hint="It is module:name, as in auth:log_in."
        ) from fault


def _demo(found: argparse.Namespace) -> int:
    from realmframe.demo import DemoOptions, run

    return run(DemoOptions(found.headless, found.data, found.port, found.devices, found.rate, found.flights))


def _lab(found: argparse.Namespace) -> int:
    import subprocess

    return subprocess.call([sys.executable, "-m", "jupyterlab", *found.arguments])  # noqa: S603 - the user's own arguments


def _conformance(found: argparse.Namespace) -> int:
    from realmframe.conformance import main

    return int(main([str(found.directory)]))


def _admin(found: argparse.Namespace) -> int:
    from realmframe.server.admin import order

    if found.order == "users":
        from realmframe.server.users import run

        print("\n".join(run(found.data, found.app, found.action, found.user, found.value)))
    elif found.order == "reset-client":
        wanted = {"user": found.user, "file_ident": found.file_ident, "recovery": not found.no_recovery}
        done = order(found.data, found.app, found.order, **wanted)
        print(f"{done['files']} client files begin anew")
    else:
        done = order(found.data, found.app, found.order, keep=found.keep, older_than=found.older_than)
        print(f"{done['entries']} changes of the log are gone; what they made is kept")
    return 0


def _inspect(found: argparse.Namespace) -> int:
    from realmframe.store import RealmStore

    store = RealmStore.open(found.path, create=False, read_only=True)
    try:
        snapshot = store.snapshot
        print(f"version {snapshot.version}, {len(store.pending())} pending local transactions")
        for name, cls in snapshot.schema.items():
            rows = "embedded" if cls.embedded else f"{len(snapshot.table(name)):,} objects"
            print(f"{name}: {rows}")
            for prop in cls.properties.values():
                print(f"    {prop.name}: {prop.word}{'  (primary key)' if prop.name == cls.primary_key else ''}")
    finally:
        store.close()
    return 0


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "serve": _serve,
    "demo": _demo,
    "lab": _lab,
    "conformance": _conformance,
    "admin": _admin,
    "inspect": _inspect,
}


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="realmframe", description="Synced realms as live DataFrames.")
    parser.add_argument("--version", action="version", version=f"realmframe {realmframe.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the App-Services-compatible server")
    serve.add_argument("--data", type=Path, default=Path("realmframe-server"), help="its folder (%(default)s)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=int, default=9090, help="port to listen on (%(default)s)")
    serve.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    serve.add_argument(
        "--no-development", action="store_true", help="refuse apps that do not exist and schema changes by clients"
    )
    serve.add_argument("--tls-certificate", type=Path, metavar="FILE", help="serve https and wss with this certificate")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, unless it is in the same file")

    _add_accounts(serve.add_argument_group("users"))

    demo = commands.add_parser("demo", help="server, real data, devices and a notebook, all running")
    demo.add_argument("--headless", action="store_true", help="run the notebook without a browser and print it")
    demo.add_argument("--data", type=Path, default=Path("realmframe-demo"), help="folder of the demo (%(default)s)")
    demo.add_argument("--port", type=int, default=9090, help="port of the server (%(default)s)")
    demo.add_argument("--devices", type=int, default=4, help="device processes, 0 to 6 (%(default)s)")
    demo.add_argument("--rate", type=float, default=2.0, help="changes a second of each device (%(default)s)")
    demo.add_argument("--flights", type=int, default=None, help="load only so many flights (all 336,776)")

    lab = commands.add_parser("lab", help="start JupyterLab in this environment")
    lab.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to JupyterLab")

    conformance = commands.add_parser("conformance", help="run golden vectors against this implementation")
    conformance.add_argument("directory", type=Path, metavar="DIR", help="folder that holds the vector files")

    _add_admin(commands.add_parser("admin", help="what the administrator of a server does"))

    inspect = commands.add_parser("inspect", help="say what a realm's folder holds")
    inspect.add_argument("path", type=Path, metavar="PATH", help="the realm")
    return parser


def _add_accounts(group: Any) -> None:
    function = "module:name"
    group.add_argument(
        "--functions", metavar=function, help="a dict: name to function, called as f(user_id, *arguments)"
    )
    group.add_argument("--custom-login", metavar=function, help="f(payload) gives the user's name; ValueError refuses")
    group.add_argument("--confirm", metavar=f"auto|mail|{function}", help="how e-mail addresses are confirmed")
    group.add_argument("--reset", metavar=f"mail|{function}", help="how passwords are reset")
    group.add_argument("--send-mail", metavar=function, help="f(mail) sends a mail")
    keys = group.add_mutually_exclusive_group()
    keys.add_argument("--jwks", metavar="URL|FILE", help="RS256 keys of custom JWT log-ins")
    keys.add_argument("--jwt-secret-env", metavar="NAME", help="environment variable with their HS256 secret")
    group.add_argument("--jwt-audience", help="what their aud holds (the app id)")
    group.add_argument("--jwt-id", default="sub", metavar="CLAIM", help="the claim that names the user (%(default)s)")
    group.add_argument("--jwt-field", action="append", default=[], metavar="CLAIM=NAME", help="goes into the profile")


def _add_admin(admin: argparse.ArgumentParser) -> None:
    orders = admin.add_subparsers(dest="order", required=True, metavar="ORDER")
    reset = orders.add_parser("reset-client", help="have client files begin anew (client reset)")
    trim = orders.add_parser("trim", help="forget old changes; who was away since has to begin anew")
    users = orders.add_parser("users", help="list, disable, enable, revoke, delete and confirm users")
    users.add_argument(
        "action",
        choices=("list", "show", "disable", "enable", "revoke", "delete", "confirm", "mails", "set-data"),
        help="revoke ends all log-ins; mails lists tokens that wait to be sent; set-data replaces custom data",
    )
    users.add_argument("user", nargs="?", help="id or e-mail address")
    users.add_argument("value", nargs="?", help="of set-data: a JSON object")
    folder = Path("realmframe-server")
    for order in (reset, trim, users):
        order.add_argument("--app", required=True, help="the app")
        order.add_argument("--data", type=Path, default=folder, help="the server's folder (%(default)s)")
    which = reset.add_mutually_exclusive_group()
    which.add_argument("--user", help="only the files of this user")
    which.add_argument("--file-ident", type=int, help="only this file")
    reset.add_argument("--no-recovery", action="store_true", help="what was not uploaded may not be recovered")
    trim.add_argument("--keep", type=int, default=0, help="keep the last so many changes (%(default)s)")
    trim.add_argument("--older-than", type=float, metavar="DAYS", help="only what was written so many days ago")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    found = build_parser().parse_args(arguments)
    try:
        return _COMMANDS[found.command](found)
    except RealmError as error:
        print("\n".join(error._render_traceback_()), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
