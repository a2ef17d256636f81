"""Everything wired into one ASGI application."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute

from realmframe.server.accounts import Accounts, CustomFunction
from realmframe.server.api import Api, refusal
from realmframe.server.claim import claim
from realmframe.server.database import Database
from realmframe.server.engine import Engine
from realmframe.server.foreign import JwtProvider
from realmframe.server.passwords import Confirm, PasswordPolicy, Reset, SendMail
from realmframe.server.permissions import Permissions
from realmframe.server.refusals import ApiError
from realmframe.server.socket import SyncEndpoint
from realmframe.server.tokens import ACCESS_SECONDS, Tokens
from realmframe.store.lock import Lock


def create_app(
    data: str | Path | None = None,
    *,
    development: bool = True,
    database: str | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    custom_login: CustomFunction | None = None,
    jwt: JwtProvider | str | None = None,
    confirm: str | Confirm | None = None,
    reset: str | Reset = "mail",
    send_mail: SendMail | None = None,
    access_token_seconds: int = ACCESS_SECONDS,
    permissions: Permissions | None = None,
) -> Starlette:
    """Make the server, an ASGI application.

    Parameters
    ----------
    data : path, optional
        Data folder; without it everything is gone when the process ends.
    development : bool
        Whether unknown apps are created on first use and clients may add to the schema.
    database : str, optional
        SQLAlchemy URL; SQLite in the data folder by default.
    functions : mapping, optional
        What ``functions/call`` may call: name to callable, which gets the user id and the arguments.
    custom_login : callable, optional
        Custom-function log-in: takes the payload, returns the external user id or a mapping of ``id`` and profile
        fields, ValueError refuses.
    jwt : JwtProvider or str, optional
        Whose tokens log in; a text is the secret of HS256.
    confirm : str or callable, optional
        How e-mail addresses are confirmed: ``"auto"`` (the default in development), ``"mail"`` (otherwise), or a
        function of the :class:`~realmframe.server.passwords.Mail`.
    reset : str or callable
        How passwords are reset: ``"mail"``, or a function of the mail, the new password and the caller's arguments.
    send_mail : callable, optional
        Sends a mail; without it, mails wait for ``realmframe admin users mails``.
    access_token_seconds : int
        Life of an access token.
    permissions : Permissions, optional
        Who may read and write which partitions and classes; everybody everything by default.

    Raises
    ------
    StorageError
        If the data folder or database cannot be opened, or another server runs on it.
    """
    storage = _Storage(data, database)
    tokens = Tokens(storage.database.secret("token key"), access_token_seconds)
    policy = PasswordPolicy(confirm or ("auto" if development else "mail"), reset, send_mail)
    provider = JwtProvider(secret=jwt) if isinstance(jwt, str) else jwt
    accounts = Accounts(
        storage.database, tokens, development=development, custom_login=custom_login, jwt=provider, policy=policy
    )
    engine = storage.engine(development=development, permissions=permissions)
    accounts.on_end = engine.end_user
    return _application(accounts, engine, functions or {}, storage)


class _Storage:
    """The data folder and the database, from when the application is made to its end."""

    def __init__(self, data: str | Path | None, url: str | None) -> None:
        self._kept = tempfile.TemporaryDirectory(prefix="realmframe-server-") if data is None else None
        self._folder = Path(self._kept.name if self._kept is not None else str(data))
        self._running: Lock | None = None
        if self._kept is None:  # before anything else, so that whoever makes the application gets the error
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._running = claim(self._folder)
        self.database = Database(self._folder, url)

    def engine(self, *, development: bool, permissions: Permissions | None) -> Engine:
        """Make what runs sync on it; checkpoints are for what is kept."""
        folder = self._folder if self._kept is None else None
        return Engine(
            self.database, development=development, folder=folder, permissions=permissions, running=self._running
        )

    def close(self) -> None:
        """Close the database, and remove what is not kept."""
        self.database.close()
        if self._kept is not None:
            self._kept.cleanup()


def _application(
    accounts: Accounts, engine: Engine, functions: Mapping[str, Callable[..., Any]], storage: _Storage
) -> Starlette:
    """Put the API and the sync endpoint on routes."""
    api, endpoint = Api(accounts, functions), SyncEndpoint(accounts, engine)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            engine.stop()
            storage.close()

    sync = WebSocketRoute("/api/client/v2.0/app/{app}/realm-sync", endpoint.serve)
    app = Starlette(
        routes=[*api.routes(), sync],
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _crash},
    )
    app.state.accounts, app.state.engine = accounts, engine
    return app


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(ApiError(error.status_code, "NotFound" if error.status_code == 404 else "BadRequest", error.detail))


async def _crash(_request: Request, _error: Exception) -> Response:
    return refusal(ApiError(500, "InternalServerError", "the server failed; see its log"))
