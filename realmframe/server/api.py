"""App Services over HTTP, as far as the SDKs use it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from realmframe.model import ejson
from realmframe.server.accounts import Accounts
from realmframe.server.limits import MAX_BODY
from realmframe.server.refusals import ApiError
from realmframe.server.tokens import Claims

log: Final = logging.getLogger("realmframe.server")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(:\d{1,5})?")
_BASE: Final = "/api/client/v2.0"
Function = Callable[..., Any]
Handler = Callable[[Request], Awaitable[Response]]


def answer(body: Any, status: int = 200) -> Response:
    """Answer JSON with the only Content-Type whose errors real clients understand."""
    response = Response(json.dumps(body, ensure_ascii=False).encode(), status)
    response.headers["content-type"] = "application/json"
    return response


def refusal(error: ApiError) -> Response:
    """Answer an error."""
    return answer({"error": error.message, "error_code": error.code, "link": ""}, error.status)


async def read_json(request: Request) -> dict[str, Any]:
    """Read a JSON object of limited size; an empty body is an empty object."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise ApiError(413, "BadRequest", "the request is too large")
    if not data.strip():
        return {}
    try:
        body = json.loads(bytes(data))
    except (ValueError, RecursionError):
        raise ApiError(400, "BadRequest", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "BadRequest", "the body must be a JSON object")
    return body


class Api:
    """The routes.

    Parameters
    ----------
    accounts : Accounts
    functions : mapping
        Name to Python callable, called with the arguments of ``functions/call`` (Python values) after the user id.
    """

    def __init__(self, accounts: Accounts, functions: Mapping[str, Function]) -> None:
        self.accounts, self.functions = accounts, functions

    def routes(self) -> list[Route]:
        """List all routes."""
        app, up = f"{_BASE}/app/{{app}}", f"{_BASE}/app/{{app}}/auth/providers/local-userpass"
        table: list[tuple[str, str, Handler]] = [
            ("GET", f"{app}/location", self.location),
            ("POST", f"{app}/auth/providers/{{provider}}/login", self.log_in),
            ("POST", f"{up}/register", self.register),
            ("POST", f"{up}/confirm", self.confirm),
            ("POST", f"{up}/confirm/send", self.confirm_send),
            ("POST", f"{up}/confirm/call", self.confirm_call),
            ("POST", f"{up}/reset", self.reset),
            ("POST", f"{up}/reset/send", self.reset_send),
            ("POST", f"{up}/reset/call", self.reset_call),
            ("GET", f"{_BASE}/auth/profile", self.profile),
            ("POST", f"{_BASE}/auth/session", self.refresh),
            ("DELETE", f"{_BASE}/auth/session", self.log_out),
            ("DELETE", f"{_BASE}/auth/delete", self.delete),
            ("POST", f"{_BASE}/auth/api_keys", self.create_key),
            ("GET", f"{_BASE}/auth/api_keys", self.list_keys),
            ("GET", f"{_BASE}/auth/api_keys/{{key}}", self.one_key),
            ("DELETE", f"{_BASE}/auth/api_keys/{{key}}", self.delete_key),
            ("PUT", f"{_BASE}/auth/api_keys/{{key}}/enable", self.enable_key),
            ("PUT", f"{_BASE}/auth/api_keys/{{key}}/disable", self.disable_key),
            ("POST", f"{app}/functions/call", self.call),
        ]
        return [Route(path, _guarded(handler), methods=[method]) for method, path, handler in table]

    async def _app(self, request: Request) -> str:
        app = str(request.path_params["app"])
        await run_in_threadpool(self.accounts.need_app, app)
        return app

    async def _claims(self, request: Request, kind: str) -> Claims:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        claims = self.accounts.tokens.check(token.strip(), kind) if scheme.lower() == "bearer" else None
        if claims is not None and claims.app != request.path_params.get("app", claims.app):
            claims = None  # a user of another app is a stranger here
        if claims is None or not await run_in_threadpool(self.accounts.session_is_valid, claims.login, claims.user):
            raise ApiError(401, "InvalidSession", f"invalid session: the {kind} token is missing, expired or revoked")
        return claims

    async def location(self, request: Request) -> Response:
        """Say where this server is, as the client sees it."""
        await self._app(request)
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            raise ApiError(400, "BadRequest", "the Host header is missing or malformed")
        secure = request.url.scheme == "https"
        return answer(
            {
                "deployment_model": "GLOBAL",
                "location": "US-VA",
                "hostname": f"{'https' if secure else 'http'}://{host}",
                "ws_hostname": f"{'wss' if secure else 'ws'}://{host}",
            }
        )

    async def log_in(self, request: Request) -> Response:
        """Check credentials and answer tokens."""
        app, provider = await self._app(request), str(request.path_params["provider"])
        link = (await self._claims(request, "access")).user if request.query_params.get("link") == "true" else None
        body = await read_json(request)
        source = request.client.host if request.client is not None else ""
        found = await run_in_threadpool(self.accounts.log_in, app, provider, body, link, source)
        whose = (app, found.user, found.login, found.device)
        return answer(
            {
                "access_token": await run_in_threadpool(self.accounts.access_token, *whose),
                "refresh_token": self.accounts.tokens.issue("refresh", *whose),
                "user_id": found.user,
                "device_id": found.device,
            }
        )

    async def _post(
        self, request: Request, act: Callable[[str, dict[str, Any]], object], status: int = 200
    ) -> Response:
        app, body = await self._app(request), await read_json(request)
        await run_in_threadpool(act, app, body)
        return answer({}, status)

    async def register(self, request: Request) -> Response:
        """Register an e-mail address."""
        return await self._post(request, self.accounts.passwords.register, 201)

    async def confirm(self, request: Request) -> Response:
        """Confirm an address with the token of a mail."""
        return await self._post(request, self.accounts.passwords.confirm)

    async def confirm_send(self, request: Request) -> Response:
        """Send the mail about an address again."""
        again = self.accounts.passwords.confirm_again
        return await self._post(request, lambda app, body: again(app, body, by_function=False))

    async def confirm_call(self, request: Request) -> Response:
        """Run the confirmation function again."""
        again = self.accounts.passwords.confirm_again
        return await self._post(request, lambda app, body: again(app, body, by_function=True))

    async def reset(self, request: Request) -> Response:
        """Set a new password with the token of a mail."""
        return await self._post(request, self.accounts.passwords.reset)

    async def reset_send(self, request: Request) -> Response:
        """Send the mail that allows a new password."""
        return await self._post(request, self.accounts.passwords.send_reset)

    async def reset_call(self, request: Request) -> Response:
        """Run the reset function."""
        return await self._post(request, self.accounts.passwords.call_reset)

    async def profile(self, request: Request) -> Response:
        """Describe the user."""
        claims = await self._claims(request, "access")
        return answer(await run_in_threadpool(self.accounts.profile, claims.user))

    async def refresh(self, request: Request) -> Response:
        """Give a new access token."""
        c = await self._claims(request, "refresh")
        token = await run_in_threadpool(self.accounts.access_token, c.app, c.user, c.login, c.device)
        return answer({"access_token": token}, 201)

    async def log_out(self, request: Request) -> Response:
        """End a log-in."""
        claims = await self._claims(request, "refresh")
        await run_in_threadpool(self.accounts.log_out, claims.login)
        return Response(status_code=204)

    async def delete(self, request: Request) -> Response:
        """Delete the user."""
        claims = await self._claims(request, "access")
        await run_in_threadpool(self.accounts.delete_user, claims.app, claims.user)
        return Response(status_code=204)

    async def create_key(self, request: Request) -> Response:
        """Make an API key."""
        claims, body = await self._claims(request, "refresh"), await read_json(request)
        name = str(body.get("name", ""))
        return answer(await run_in_threadpool(self.accounts.create_key, claims.app, claims.user, name), 201)

    async def list_keys(self, request: Request) -> Response:
        """List API keys."""
        claims = await self._claims(request, "refresh")
        return answer(await run_in_threadpool(self.accounts.keys, claims.user))

    async def one_key(self, request: Request) -> Response:
        """Describe an API key."""
        claims = await self._claims(request, "refresh")
        return answer((await run_in_threadpool(self.accounts.keys, claims.user, request.path_params["key"]))[0])

    async def delete_key(self, request: Request) -> Response:
        """Delete an API key."""
        return await self._change_key(request, None)

    async def enable_key(self, request: Request) -> Response:
        """Enable an API key."""
        return await self._change_key(request, False)

    async def disable_key(self, request: Request) -> Response:
        """Disable an API key."""
        return await self._change_key(request, True)

    async def _change_key(self, request: Request, disabled: bool | None) -> Response:
        claims = await self._claims(request, "refresh")
        change = lambda: self.accounts.change_key(claims.user, request.path_params["key"], disabled=disabled)  # noqa: E731
        await run_in_threadpool(change)
        return Response(status_code=204)

    async def call(self, request: Request) -> Response:
        """Call a registered function."""
        await self._app(request)
        claims, body = await self._claims(request, "access"), await read_json(request)
        if body.get("service"):  # of a MongoDB collection, say: not one of the app's own functions
            raise ApiError(404, "ServiceNotFound", f"service not found: '{str(body['service'])[:100]}'")
        function = self.functions.get(str(body.get("name", "")))
        arguments = body.get("arguments", [])
        if function is None or not isinstance(arguments, list):
            raise ApiError(404, "FunctionNotFound", f"function not found: '{str(body.get('name'))[:100]}'")
        try:
            result = ejson.encode(await run_in_threadpool(function, claims.user, *ejson.decode(arguments)))
        except Exception as error:
            log.exception("The function %s failed", body.get("name"))
            raise ApiError(400, "FunctionExecutionError", f"{type(error).__name__}: {error}") from error
        return answer(result)


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except ApiError as error:
            return refusal(error)

    return guarded
