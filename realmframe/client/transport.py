"""The App Services HTTP API on httpx: one method per kind of request, and every fault as one clear error.

========================================= ===========================================================
what httpx or the server says             what the caller gets
========================================= ===========================================================
refused, unknown host, no route           NetworkError: cannot be reached
connect, read, write, pool time-out       NetworkError: did not answer within the app's time-out
broken HTTP, other protocol               NetworkError: speaks no HTTP
401, 403, or a known code of those        AuthError with the server's code
any other error body or status            AppError with code and status
an answer that is no JSON, or lacks keys  AppError: not an App Services server
========================================= ===========================================================
"""

from __future__ import annotations

import asyncio
import functools
import platform
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from realmframe.client.loop import sync_loop
from realmframe.errors import AppError, AuthError, NetworkError, RealmError, UsageError

API: Final = "/api/client/v2.0"
_HEADERS: Final = {"Content-Type": "application/json;charset=utf-8", "Accept": "application/json"}
_SCHEMES: Final = {"http": "ws", "https": "wss"}

#: Codes of the server that are about who the caller is, whatever the status.
_AUTH_CODES: Final[dict[str, str]] = {
    "InvalidPassword": "E-mail or password is wrong, or nobody is registered under it.",
    "InvalidSession": "Log in again.",
    "InvalidEmailPassword": "E-mail or password is wrong, or nobody is registered under it.",
    "AuthError": "Check the credentials.",
    "AuthProviderNotFound": "Enable this way of logging in at the server.",
    "AuthProviderDisabled": "Enable this way of logging in at the server.",
    "UserNotConfirmed": "Confirm the e-mail address first.",
    "UserDisabled": "The server's administrator has disabled this user.",
    "UserNotFound": "Nobody is registered under these credentials.",
    "BadToken": "The token is malformed or was signed by somebody else.",
}
#: What the text of an answer says more exactly than its code.
_SPECIAL: Final[dict[str, str]] = {
    "confirmation required": "Confirm the e-mail address first.",
    "user already exists": "These credentials are another user's: log in with them.",
}
_HINTS: Final[dict[str, str]] = {
    "AccountNameInUse": "Log in with this e-mail address, or register another one.",
    "AppNotFound": "Check the app id given to App(...).",
    "FunctionNotFound": "Check the function's name at the server.",
    "APIKeyNotFound": "List the keys with user.api_keys.fetch_all().",
    "PasswordTokenExpired": "Ask for a new one.",
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where an app's endpoints are.

    Attributes
    ----------
    hostname : str
        Base of HTTP requests, without a slash at the end.
    sync_route : str
        Complete URL of the sync websocket.
    """

    hostname: str
    sync_route: str


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Give the process's TLS settings; to read the certificates takes 20 ms, too long for each connection anew."""
    return httpx.create_ssl_context()


def websocket_url(base_url: str) -> str:
    """Turn ``http(s)://`` into ``ws(s)://``."""
    scheme, _, rest = base_url.partition("://")
    return f"{_SCHEMES.get(scheme, scheme)}://{rest}"


def check_base_url(url: str) -> str:
    """Normalise a base URL.

    Raises
    ------
    UsageError
        If it is no http or https URL with a host.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as fault:
        raise UsageError(f"base_url {url!r} is no URL: {fault}.") from fault
    if not _leads_somewhere(parsed, _SCHEMES.keys()):
        raise UsageError(
            f"base_url {url!r} is not the URL of a server.", hint="It looks like http://127.0.0.1:9090 or https://host."
        )
    return str(parsed).rstrip("/")


def _leads_somewhere(url: httpx.URL, schemes: Collection[str]) -> bool:
    """Whether a URL has one of some schemes, a host, and a port that there is."""
    return url.scheme in schemes and bool(url.host) and (url.port is None or 0 < url.port < 1 << 16)


class AppServices:
    """HTTP requests of one app; lives in the sync thread.

    Parameters
    ----------
    app_id, base_url : str
    timeout : float
        Seconds that one request may take.
    transport : httpx.AsyncBaseTransport, optional
        In place of the network.
    """

    def __init__(
        self, app_id: str, base_url: str, timeout: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.app_id = app_id
        self.base_url = base_url
        self.timeout = timeout
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._location: Location | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """The pool of connections, made anew when the sync thread was."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Environment proxies and .netrc must not catch requests to a local server: trust_env stays httpx's default
            # for remote hosts only.
            local = httpx.URL(self.base_url).host in ("localhost", "127.0.0.1", "::1")
            self._client = httpx.AsyncClient(
                timeout=self.timeout,
                transport=self._transport,
                follow_redirects=False,
                trust_env=not local,
                verify=tls_context(),
            )
            self._loop = loop
            running = sync_loop()
            if running.loop is loop:
                running.at_stop(self.aclose)
        return self._client

    async def aclose(self) -> None:
        """Close the pool."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    @property
    def is_located(self) -> bool:
        """Whether the server has been asked in this process."""
        return self._location is not None

    @property
    def default_location(self) -> Location:
        """What is assumed until the server has been asked."""
        return Location(self.base_url, self._route(websocket_url(self.base_url)))

    @property
    def known_location(self) -> Location:
        """The location the server gave, or else the assumed one; no request is made."""
        return self._location or self.default_location

    def _route(self, ws_hostname: str) -> str:
        return f"{ws_hostname.rstrip('/')}{API}/app/{self.app_id}/realm-sync"

    async def location(self, *, refresh: bool = False) -> Location:
        """Ask where the app is, once per process unless `refresh` is set."""
        if self._location is None or refresh:
            answer = await self._send("GET", f"{self.base_url}{API}/app/{self.app_id}/location")
            need = _need(answer, ("hostname", "ws_hostname"), "location")
            hostname = str(need["hostname"] or self.base_url).rstrip("/")
            route = answer.get("sync_route") or self._route(str(need["ws_hostname"] or websocket_url(hostname)))
            self._check(hostname, _SCHEMES.keys())
            self._check(str(route), _SCHEMES.values())
            self._location = Location(hostname, str(route))
        return self._location

    def _check(self, url: str, schemes: Collection[str]) -> None:
        """Raise a NetworkError if the server names a place that there cannot be."""
        try:
            is_good = _leads_somewhere(httpx.URL(url), schemes)
        except httpx.InvalidURL:
            is_good = False
        if not is_good:
            raise NetworkError(
                f"The server at {self.base_url} names {url[:200]!r} as where the app is, which is no address.",
                hint="Check base_url, and what is between here and there.",
            )

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        of_app: bool = True,
    ) -> Any:
        """Send a request and give the parsed body of its answer (None when empty).

        Parameters
        ----------
        method, path : str
            The path below ``/app/<id>``, or below the API's root when `of_app` is false.
        token : str, optional
            Sent as bearer token.
        body : JSON-able, optional
        params : mapping, optional
            Query of the URL.

        Raises
        ------
        NetworkError, AuthError, AppError
        """
        where = await self.location()
        root = f"{where.hostname}{API}" + (f"/app/{self.app_id}" if of_app else "")
        return await self._send(method, root + path, token=token, body=body, params=params)

    async def log_in(self, provider: str, payload: Mapping[str, Any], *, link_token: str | None = None) -> Any:
        """Exchange credentials for tokens."""
        body = {**payload, "options": {"device": self.device()}}
        params = {"link": "true"} if link_token else None
        answer = await self.request(
            "POST", f"/auth/providers/{provider}/login", token=link_token, body=body, params=params
        )
        keys = ("access_token",) if link_token else ("access_token", "refresh_token", "user_id", "device_id")
        return _need(answer, keys, "login")

    async def profile(self, access_token: str) -> Any:
        """Ask who a token belongs to."""
        answer = await self.request("GET", "/auth/profile", token=access_token, of_app=False)
        return _need(answer, ("identities", "data"), "profile")

    async def refresh(self, refresh_token: str) -> str:
        """Get a new access token."""
        answer = await self.request("POST", "/auth/session", token=refresh_token, of_app=False)
        return str(_need(answer, ("access_token",), "session")["access_token"])

    def device(self) -> dict[str, str]:
        """Describe this client as the SDKs do."""
        from realmframe import __version__

        return {
            "appId": self.app_id,
            "platform": platform.system(),
            "platformVersion": platform.release(),
            "sdk": "realmframe",
            "sdkVersion": __version__,
            "cpuArch": platform.machine(),
            "deviceName": "",
            "deviceVersion": "",
            "frameworkName": platform.python_implementation(),
            "frameworkVersion": platform.python_version(),
            "coreVersion": __version__,
            "bundleId": "",
        }

    async def _send(
        self,
        method: str,
        url: str,
        *,
        token: str | None = None,
        body: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        headers = dict(_HEADERS)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            # httpx bounds each step of a request; this bounds all of them together.
            async with asyncio.timeout(self.timeout):
                answer = await self.client.request(method, url, headers=headers, json=body, params=params)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as fault:
            raise map_fault(fault, self._host(url), self.timeout) from fault
        return self._read(answer)

    def _host(self, url: str) -> str:
        parsed = httpx.URL(url)
        return f"{parsed.scheme}://{parsed.netloc.decode()}"

    def _read(self, answer: httpx.Response) -> Any:
        host, status = self._host(str(answer.request.url)), answer.status_code
        body: Any = None
        if answer.content:
            try:
                body = answer.json()
            except ValueError:
                body = _NOT_JSON
        if isinstance(body, dict) and "error_code" in body:
            raise map_answer(status, str(body.get("error_code") or ""), str(body.get("error") or ""), host)
        if 200 <= status < 300:
            if body is _NOT_JSON:
                raise _stranger(host, "its answer is no JSON", status)
            return body
        if isinstance(body, dict):
            raise map_answer(status, "", str(body.get("error") or ""), host)
        if status in (401, 403):
            raise map_answer(status, "", "", host)
        what = "it redirects elsewhere" if status in (301, 302, 307, 308) else f"it answered HTTP {status}"
        if status >= 500:
            raise AppError(f"The server at {host} failed with HTTP {status}.", status=status, hint="Try again later.")
        raise _stranger(host, what, status)


_NOT_JSON: Final = object()


def _stranger(host: str, what: str, status: int) -> AppError:
    return AppError(
        f"The server at {host} does not answer as an App Services server ({what}).",
        status=status,
        hint="Check base_url.",
    )


def _need(answer: Any, keys: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(answer, dict) or any(key not in answer for key in keys):
        raise AppError(
            f"The server's answer about the {what} lacks {', '.join(keys)}.", hint="Is base_url an App Services server?"
        )
    return answer


def map_answer(status: int, code: str, text: str, host: str) -> RealmError:
    """Turn an error answer of the API into the error that callers see."""
    said = f"The server at {host} refused: {text or f'HTTP {status}'}" + (f" ({code})." if code else ".")
    if code in _AUTH_CODES or (status in (401, 403) and code not in _HINTS):
        special = next((hint for words, hint in _SPECIAL.items() if words in text), None)
        hint = special or _AUTH_CODES.get(code, "Check the credentials, or log in again.")
        return AuthError(said, code=code or None, status=status, hint=hint)
    known = _HINTS.get(code) or ("Check the app id and base_url." if status == 404 else None)
    return AppError(said, code=code or None, status=status, hint=known)


def map_fault(fault: BaseException, host: str, timeout: float | None) -> NetworkError:
    """Turn a fault of the network, or of httpx, into one that says what to do."""
    if isinstance(fault, httpx.TimeoutException | TimeoutError):
        limit = f" within {timeout:g} s" if timeout is not None else ""
        return NetworkError(f"The server at {host} did not answer{limit}.", hint="Is it busy, or a firewall between?")
    if isinstance(fault, httpx.ConnectError | ConnectionError):
        reason = _reason(fault)
        return NetworkError(
            f"The server at {host} cannot be reached ({reason}).", hint="Is it running, and is base_url right?"
        )
    if isinstance(fault, httpx.RemoteProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return NetworkError(f"What is at {host} speaks no HTTP ({_reason(fault)}).", hint="Check base_url.")
    return NetworkError(f"The connection to {host} failed ({_reason(fault)}).", hint="Try again.")


def _reason(fault: BaseException) -> str:
    text = str(fault).strip().rstrip(".")
    return text or type(fault).__name__
