"""Tokens are refreshed before they end, by the app's clock."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from realmframe.client import App, Credentials
from realmframe.client.keeper import LOOK_SECONDS, RETRY_SECONDS, TokenKeeper
from realmframe.client.loop import sync_loop
from realmframe.client.tokens import read_token
from realmframe.errors import AuthError, UsageError

Make = Callable[..., App]


def token(issued: Any, expires: Any) -> str:
    """Make a token with these times."""
    claims = {k: v for k, v in (("iat", issued), ("exp", expires)) if v is not None}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.sig"


@pytest.mark.parametrize(
    ("issued", "expires", "due"),
    [
        (1000, 2000, 1900),
        (1000, 1010, 1009),
        (None, 2000, 1990),
        (3000, 2000, 1990),
        (1000, None, None),
        ("x", 2000, 1990),
        (1000, True, None),
    ],
)
def test_when_a_token_is_due(issued: Any, expires: Any, due: float | None) -> None:
    """After nine tenths of its life, or shortly before its end when its beginning is unknown."""
    assert read_token(token(issued, expires)).refresh_at == due


class Bench:
    """A keeper, a clock that is set by hand, and a server that gives tokens of a thousand seconds."""

    def __init__(self, make_app: Make, services: Any) -> None:
        self.now = 1000.0
        self.services = services
        services.answers["/auth/session"] = self.session
        self.app = make_app(clock=lambda: self.now)
        self.user = self.app.log_in(Credentials.email_password("a@example.com", "secret-1"))
        self.app.metadata.change(self.user.id, access_token=token(1000, 2000))
        self.is_syncing = True
        self.keeper = TokenKeeper(self.app, lambda _: self.is_syncing)
        self.keeper._users[self.user.id] = 0.0
        services.requests.clear()

    def session(self, request: httpx.Request) -> httpx.Response:
        """Answer POST and DELETE of the session."""
        return httpx.Response(201, json={"access_token": token(int(self.now), int(self.now) + 1000)})

    def look(self, now: float) -> tuple[float, int]:
        """Look at a time; give when to look next, and how often the server was asked."""
        self.now = now
        self.services.requests.clear()
        wait = sync_loop().call(self.keeper.look(), 10.0)
        return wait, sum("session" in p for p in self.services.paths)


def test_refreshed_when_due_and_not_before(make_app: Make, services: Any) -> None:
    """Nothing is asked until nine tenths are over; then one request, and the next one is as far away."""
    bench = Bench(make_app, services)
    assert bench.look(1800) == (LOOK_SECONDS, 0)
    assert bench.look(1895) == (5.0, 0)
    assert bench.look(1900) == (LOOK_SECONDS, 1)
    assert read_token(bench.user.access_token or "").expires_at == 2900
    assert bench.look(2000)[1] == 0
    assert bench.look(2801)[1] == 1


def test_not_for_those_who_do_not_sync(make_app: Make, services: Any) -> None:
    """A user without sessions is left alone and forgotten."""
    bench = Bench(make_app, services)
    bench.is_syncing = False
    assert bench.look(1900)[1] == 0
    assert bench.keeper._users == {}


@pytest.mark.parametrize("fault", ["network", "answer"])
def test_tried_again_when_the_server_is_down(make_app: Make, services: Any, fault: str) -> None:
    """A refresh that fails without a refusal of the user is repeated after a pause; the old token stays meanwhile."""
    bench = Bench(make_app, services)
    refused = services.refuse(400, "AuthError") if fault == "answer" else httpx.ConnectError("refused")
    services.answers["/auth/session"] = refused
    assert bench.look(1900)[1] == 1
    assert bench.look(1901)[1] == 0
    assert bench.user.is_logged_in
    services.answers["/auth/session"] = bench.session
    assert bench.look(1900 + RETRY_SECONDS)[1] == 1
    assert read_token(bench.user.access_token or "").expires_at == 2930


@pytest.mark.parametrize("ahead", [2000.0, 1e8])
def test_a_clock_that_is_ahead(make_app: Make, services: Any, ahead: float) -> None:
    """By it a new token has ended already: it is asked for once in a token's life all the same."""
    bench = Bench(make_app, services)
    real = 1900.0
    services.answers["/auth/session"] = lambda _: httpx.Response(
        201, json={"access_token": token(int(real), int(real) + 1000)}
    )
    assert bench.look(real + ahead)[1] == 1
    for passed in (1.0, 100.0, 899.0):
        assert bench.look(real + ahead + passed)[1] == 0
    real += 900.0
    assert bench.look(real + ahead)[1] == 1


def test_a_revoked_user_is_logged_out(make_app: Make, services: Any) -> None:
    """A refresh that is refused logs out here, with an event."""
    bench = Bench(make_app, services)
    heard: list[str] = []
    bench.app.listen(lambda: heard.append(bench.user.state))
    services.answers["/auth/session"] = services.refuse(403, "UserDisabled")
    assert bench.look(1900)[1] == 1
    assert heard == ["logged_out"]
    bench.look(1901)
    assert bench.keeper._users == {}


def test_a_token_that_ends_soon_is_not_used(make_app: Make, services: Any) -> None:
    """Ten seconds before its end a token is replaced before a request, by the app's clock."""
    bench = Bench(make_app, services)
    services.answers["/functions/call"] = lambda _: httpx.Response(200, json=1)
    for now, asked in ((1985.0, 0), (1991.0, 1)):
        bench.now = now
        services.requests.clear()
        bench.user.call_function("f")
        assert sum("session" in p for p in services.paths) == asked


def test_unknown_keywords_are_suggested(tmp_path: Any) -> None:
    """A keyword of the SDK, or a slip, is refused with the right spelling; it is never ignored."""
    rows = [
        ({"baseUrl": "http://x"}, "base_url"),
        ({"baseFilePath": "x"}, "base_file_path"),
        ({"multiplexSession": True}, "multiplex_sessions"),
        ({"sync_timeout": {}}, "sync_timeouts"),
        ({"sync_timeouts": {"pingKeepAlivePeriod": 1}}, "ping_keep_alive_period"),
        ({"metadata": {"encryptionKey": b""}}, "encryption_key"),
    ]
    for wrong, right in rows:
        with pytest.raises(UsageError, match=f"Did you mean '{right}'"):
            App("a", **({"base_file_path": tmp_path} | wrong))


def test_watched_again(make_app: Make, services: Any) -> None:
    """A user who stopped syncing and begins again is looked after again, also when nobody was meanwhile."""
    bench = Bench(make_app, services)
    bench.is_syncing = False

    async def watch() -> None:
        bench.keeper.watch(bench.user.id)
        if not bench.is_syncing:
            assert bench.keeper._task is not None
            await bench.keeper._task

    sync_loop().call(watch(), 10.0)
    assert bench.keeper._users == {}
    bench.is_syncing, bench.now = True, 1900.0
    sync_loop().call(watch(), 10.0)
    ends = time.monotonic() + 10.0
    while "POST /auth/session" not in services.paths and time.monotonic() < ends:
        time.sleep(0.005)
    assert services.paths.count("POST /auth/session") == 1


def test_base64_of_either_alphabet() -> None:
    """Tokens are read in the alphabet of URLs and in the other one, with and without padding."""
    claims = {"exp": 2000, "user_data": {"text": "\u00ff\u00fe\u00fb???>>>~~~"}}
    body = base64.b64encode(json.dumps(claims, ensure_ascii=False).encode()).decode()
    assert {"+", "/"} & set(body)
    for form in (body, body.rstrip("="), body.replace("+", "-").replace("/", "_").rstrip("=")):
        read = read_token(f"e30.{form}.sig")
        assert (read.expires_at, read.user_data) == (2000, claims["user_data"])


def test_custom_data_that_is_none() -> None:
    """Custom data has to be a document, or absent."""
    for data, text in (([1], "no document"), ("x", "no document")):
        body = base64.urlsafe_b64encode(json.dumps({"exp": 1, "user_data": data}).encode()).decode()
        with pytest.raises(AuthError, match=text):
            read_token(f"e30.{body}.sig")
    body = base64.urlsafe_b64encode(json.dumps({"exp": 1, "user_data": None}).encode()).decode()
    assert read_token(f"e30.{body}.sig").user_data == {}
