"""Users, tokens and the HTTP API against a server behind httpx's seam."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from realmframe.client import App, Credentials, SyncTimeouts
from realmframe.client.loop import stop_sync_loop, sync_loop
from realmframe.errors import AppError, AuthError, CorruptFileError, NetworkError, RealmError, UsageError

Make = Callable[..., App]


def test_log_in_asks_location_login_profile(make_app: Make, services: Any) -> None:
    """A first log-in asks for the location, the tokens and the profile, in this order, and is remembered."""
    app = make_app()
    assert app.current_user is None
    user = app.log_in(Credentials.anonymous())
    assert services.paths == [
        "GET /app/app-1/location",
        "POST /app/app-1/auth/providers/anon-user/login",
        "GET /auth/profile",
    ]
    assert (user.id, user.state, user.profile, user.custom_data) == ("user-1", "logged_in", {"name": "Ann"}, {"n": 7})
    assert app.current_user is user
    assert [i.provider_type for i in user.identities] == ["anon-user"]
    body = json.loads(services.requests[1].content)
    assert body["provider"] == "anon-user"
    assert body["options"]["device"]["appId"] == "app-1"


def test_anonymous_is_reused_without_request(make_app: Make, services: Any) -> None:
    """A second anonymous log-in takes the first user again; reuse=False makes another."""
    app = make_app()
    first = app.log_in(Credentials.anonymous())
    asked = len(services.requests)
    assert app.log_in(Credentials.anonymous()) is first
    assert len(services.requests) == asked
    assert app.log_in(Credentials.anonymous(reuse=False)).id == "user-2"
    assert app.current_user is not None
    assert app.current_user.id == "user-2"


def test_cached_user_needs_no_network(make_app: Make, services: Any) -> None:
    """Another process finds the current user on disk, with no request at all."""
    make_app().log_in(Credentials.email_password("ann@example.com", "secret-1"))
    services.requests.clear()
    again = make_app().current_user
    assert again is not None
    assert (again.id, again.state, again.provider_type) == ("user-1", "logged_in", "local-userpass")
    assert not services.requests


def test_files_are_private(make_app: Make, tmp_path: Path) -> None:
    """Tokens lie in a file 0600 in folders 0700."""
    make_app().log_in(Credentials.anonymous())
    file = tmp_path / "mongodb-realm" / "app-1" / "users.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (file.parent, file.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(p.name for p in file.parent.iterdir()) == ["users.json", "users.lock"]


def test_no_secret_shows(make_app: Make) -> None:
    """Neither tokens nor passwords are in any repr."""
    app = make_app()
    credentials = Credentials.email_password("ann@example.com", "secret-1")
    user = app.log_in(credentials)
    record = app.metadata.get(user.id)
    texts = repr(user) + repr(credentials) + repr(app) + repr(record) + repr(Credentials.api_key("secret-1"))
    assert "secret-1" not in texts
    assert user.access_token is not None
    assert user.access_token not in texts
    assert "e30." not in texts


def test_damaged_file_is_named(make_app: Make, tmp_path: Path) -> None:
    """A users file that is not ours is an error that names it, not a crash or a silent loss."""
    app = make_app()
    app.log_in(Credentials.anonymous())
    file = tmp_path / "mongodb-realm" / "app-1" / "users.json"
    file.write_text("{broken")
    with pytest.raises(CorruptFileError, match=r"users\.json"):
        _ = make_app().current_user


def test_log_out_holds_locally_when_the_server_is_down(make_app: Make, services: Any) -> None:
    """Logging out takes effect here even if the server cannot be told; an anonymous user is removed."""
    app = make_app()
    anonymous = app.log_in(Credentials.anonymous())
    mail = app.log_in(Credentials.email_password("ann@example.com", "secret-1"))
    services.answers["/auth/session"] = httpx.ConnectError("refused")
    mail.log_out()
    anonymous.log_out()
    assert (mail.state, anonymous.state) == ("logged_out", "removed")
    assert (mail.access_token, mail.refresh_token) == (None, None)
    assert list(app.all_users) == [mail.id]
    assert app.current_user is None
    assert services.paths.count("DELETE /auth/session") == 2


def test_switch_and_remove_user(make_app: Make) -> None:
    """switch_user wants somebody logged in; remove_user forgets."""
    app = make_app()
    one = app.log_in(Credentials.email_password("a@example.com", "secret-1"))
    two = app.log_in(Credentials.email_password("b@example.com", "secret-1"))
    app.switch_user(one)
    assert app.current_user is one
    two.log_out()
    with pytest.raises(AuthError):
        app.switch_user(two)
    app.remove_user(two)
    assert two.state == "removed"
    with pytest.raises(UsageError):
        app.switch_user(two)
    with pytest.raises(UsageError):
        app.remove_user(two)


def test_delete_user(make_app: Make, services: Any) -> None:
    """delete_user asks the server, then forgets."""
    app = make_app()
    user = app.log_in(Credentials.email_password("a@example.com", "secret-1"))
    app.delete_user(user)
    assert services.paths[-1] == "DELETE /auth/delete"
    assert user.state == "removed"
    with pytest.raises(UsageError):
        app.delete_user(user)


def test_link_keeps_the_user(make_app: Make, services: Any) -> None:
    """Linking sends ?link=true with the access token and keeps the user's id; anonymous is refused."""
    app = make_app()
    user = app.log_in(Credentials.anonymous())
    user.link_credentials(Credentials.email_password("a@example.com", "secret-1"))
    request = services.requests[-2]
    assert request.url.params["link"] == "true"
    assert request.headers["Authorization"].startswith("Bearer ")
    assert app.current_user is user
    with pytest.raises(UsageError):
        user.link_credentials(Credentials.anonymous())


def test_expired_token_is_refreshed_before_use(make_app: Make, services: Any) -> None:
    """An access token that has ended is not tried; a new one is fetched first."""
    app = make_app()
    user = app.log_in(Credentials.anonymous())
    app.metadata.change(user.id, access_token=services.token("old", -60))
    services.requests.clear()
    user.call_function("f", 1, "x")
    assert services.paths == ["POST /auth/session", "POST /app/app-1/functions/call"]
    assert json.loads(services.requests[-1].content) == {"name": "f", "arguments": [{"$numberLong": "1"}, "x"]}


def test_refused_token_is_refreshed_once(make_app: Make, services: Any) -> None:
    """A 401 on the access token refreshes and repeats; a second 401 is the caller's error."""
    app = make_app()
    user = app.log_in(Credentials.anonymous())
    services.answers["/functions/call"] = services.refuse(401, "InvalidSession")
    services.requests.clear()
    with pytest.raises(AuthError):
        user.functions.add(1, 2)
    assert services.paths == [
        "POST /app/app-1/functions/call",
        "POST /auth/session",
        "POST /app/app-1/functions/call",
    ]
    assert user.is_logged_in


def test_token_that_ends_while_logging_in(make_app: Make, services: Any) -> None:
    """The profile is asked for with a new token where the first ended on the way, and only once."""
    app = make_app()
    refused: list[str] = []

    def refuse_first(request: httpx.Request) -> httpx.Response:
        token = request.headers["Authorization"]
        refused.append(token)
        answer: httpx.Response = services.refuse(401, "InvalidSession")(request)
        return answer if token in refused[:1] else httpx.Response(200, json={"identities": [], "data": {"name": "Ann"}})

    services.answers["/auth/profile"] = refuse_first
    user = app.log_in(Credentials.anonymous())
    assert services.paths[-3:] == ["GET /auth/profile", "POST /auth/session", "GET /auth/profile"]
    assert (user.state, user.profile) == ("logged_in", {"name": "Ann"})
    assert f"Bearer {user.access_token}" == refused[-1] != refused[0]
    services.answers["/auth/profile"] = services.refuse(401, "InvalidSession")
    with pytest.raises(AuthError):
        app.log_in(Credentials.anonymous(reuse=False))
    assert list(app.all_users) == [user.id]


def test_refused_refresh_logs_out(make_app: Make, services: Any) -> None:
    """A revoked user is logged out here, listeners hear of it, and the error says what to do."""
    app = make_app()
    user = app.log_in(Credentials.email_password("a@example.com", "secret-1"))
    heard: list[str] = []
    stop = app.listen(lambda: heard.append(user.state))
    services.answers["/functions/call"] = services.refuse(401, "InvalidSession")
    services.answers["/auth/session"] = services.refuse(401, "InvalidSession")
    with pytest.raises(AuthError, match="Log in again"):
        user.functions.add(1, 2)
    assert user.state == "logged_out"
    assert heard == ["logged_out"]
    stop()


def test_refused_refresh_of_a_log_in_before(make_app: Make, services: Any) -> None:
    """Who logged in again while an older refresh token was being refused stays logged in, with the new tokens."""
    app = make_app()
    user = app.log_in(Credentials.email_password("a@example.com", "secret-1"))
    app.metadata.change(user.id, access_token=services.token("old", -60))
    new = services.token("new")

    def revoked(request: httpx.Request) -> httpx.Response:
        app.metadata.change(user.id, access_token=new, refresh_token=services.token("new-refresh"))
        refused: httpx.Response = services.refuse(401, "InvalidSession")(request)
        return refused

    services.answers["/auth/session"] = revoked
    assert app.run(app.access_token(user.id), "a token") == new
    assert user.is_logged_in
    services.answers["/auth/api_keys"] = revoked
    app.metadata.change(user.id, refresh_token="before")
    with pytest.raises(AuthError):
        user.api_keys.fetch_all()
    assert user.is_logged_in


def test_token_that_comes_after_a_log_out(make_app: Make, services: Any) -> None:
    """Nothing of a user who was logged out while a token was on its way is kept."""
    app = make_app()
    user = app.log_in(Credentials.email_password("a@example.com", "secret-1"))
    app.metadata.change(user.id, access_token=services.token("old", -60))

    def late(_request: httpx.Request) -> httpx.Response:
        app.expel(user.id)
        return httpx.Response(201, json={"access_token": services.token("late")})

    services.answers["/auth/session"] = late
    with pytest.raises(AuthError, match="not logged in"):
        app.run(app.access_token(user.id), "a token")
    assert (user.state, user.access_token) == ("logged_out", None)


def test_api_keys(make_app: Make, services: Any) -> None:
    """The five requests of API keys use the refresh token."""
    app = make_app()
    user = app.log_in(Credentials.anonymous())
    form = {"_id": "0123456789abcdef01234567", "name": "k", "disabled": False}
    services.answers["/auth/api_keys"] = lambda r: (
        httpx.Response(201, json=form | {"key": "secret-9"}) if r.method == "POST" else httpx.Response(200, json=[form])
    )
    services.answers["/auth/api_keys/0123456789abcdef01234567"] = lambda r: (
        httpx.Response(200, json=form) if r.method == "GET" else httpx.Response(204)
    )
    key = user.api_keys.create("k")
    assert key.key == "secret-9"
    assert "secret-9" not in repr(key)
    assert user.api_keys.fetch_all()[0].key is None
    assert user.api_keys.fetch(key.id).name == "k"
    user.api_keys.disable(key.id)
    user.api_keys.enable(key.id)
    user.api_keys.delete(key.id)
    assert services.requests[-1].headers["Authorization"] == f"Bearer {user.refresh_token}"
    assert services.paths[-3:] == [
        f"PUT /auth/api_keys/{key.id}/disable",
        f"PUT /auth/api_keys/{key.id}/enable",
        f"DELETE /auth/api_keys/{key.id}",
    ]


@pytest.mark.parametrize("key_id", ["", ".", "..", None, 7])
def test_no_ids_of_api_keys(make_app: Make, services: Any, key_id: Any) -> None:
    """What is none is refused here; it would be another request."""
    user = make_app().log_in(Credentials.anonymous())
    services.requests.clear()
    with pytest.raises(UsageError, match="no id of an API key"):
        user.api_keys.fetch(key_id)
    assert services.paths == []


def test_ids_of_api_keys_lead_nowhere_else(make_app: Make, services: Any) -> None:
    """A slash in one does not make another request of it."""
    user = make_app().log_in(Credentials.anonymous())
    services.answers[""] = lambda request: httpx.Response(404, json={"error": request.url.raw_path.decode()})
    with pytest.raises(AppError, match=r"/api_keys/\.\.%2Fx"):
        user.api_keys.delete("../x")


def test_email_password_requests(make_app: Make, services: Any) -> None:
    """Each action of registration is one request with the body that servers need."""
    auth = make_app().email_password_auth
    rows: list[tuple[Callable[[], None], str, dict[str, Any]]] = [
        (lambda: auth.register_user("a@b.c", "pw1234"), "register", {"email": "a@b.c", "password": "pw1234"}),
        (lambda: auth.confirm_user("t", "i"), "confirm", {"token": "t", "tokenId": "i"}),
        (lambda: auth.resend_confirmation_email("a@b.c"), "confirm/send", {"email": "a@b.c"}),
        (lambda: auth.retry_custom_confirmation("a@b.c"), "confirm/call", {"email": "a@b.c"}),
        (lambda: auth.send_reset_password_email("a@b.c"), "reset/send", {"email": "a@b.c"}),
        (lambda: auth.reset_password("p", "t", "i"), "reset", {"password": "p", "token": "t", "tokenId": "i"}),
        (
            lambda: auth.call_reset_password_function("a@b.c", "p", 1),
            "reset/call",
            {"email": "a@b.c", "password": "p", "arguments": [{"$numberLong": "1"}]},
        ),
    ]
    for call, path, body in rows:
        call()
        assert services.paths[-1] == f"POST /app/app-1/auth/providers/local-userpass/{path}"
        assert json.loads(services.requests[-1].content) == body


FAULTS: list[tuple[Any, type[RealmError], str]] = [
    (httpx.ConnectError("refused"), NetworkError, "cannot be reached"),
    (httpx.ConnectTimeout(""), NetworkError, "did not answer within 5 s"),
    (httpx.ReadTimeout(""), NetworkError, "did not answer within 5 s"),
    (httpx.RemoteProtocolError("garbage"), NetworkError, "speaks no HTTP"),
    (httpx.ReadError(""), NetworkError, "failed"),
    ((401, "InvalidPassword"), AuthError, "E-mail or password is wrong"),
    ((401, ""), AuthError, "refused"),
    ((403, "UserDisabled"), AuthError, "disabled"),
    ((404, "AppNotFound"), AppError, "app id"),
    ((409, "AccountNameInUse"), AppError, "AccountNameInUse"),
    ((400, "NoSuchCode"), AppError, "NoSuchCode"),
    ((200, "AuthError"), AuthError, "AuthError"),
    ("not json", AppError, "does not answer as an App Services server"),
    ({"access_token": "a"}, AppError, "lacks"),
    (
        {"access_token": "a.b.c", "refresh_token": "a.b.c", "user_id": "u", "device_id": "d"},
        AuthError,
        "malformed token",
    ),
]


@pytest.mark.parametrize(("fault", "kind", "text"), FAULTS, ids=[str(f[0])[:40] for f in FAULTS])
def test_every_fault_is_one_clear_error(
    make_app: Make, services: Any, fault: Any, kind: type[RealmError], text: str
) -> None:
    """What httpx raises and what servers answer becomes an error of a named type that says what to do."""
    if isinstance(fault, tuple):
        fault = services.refuse(*fault)
    elif isinstance(fault, str):
        body = fault
        fault = lambda _r: httpx.Response(200, text=body)  # noqa: E731
    elif isinstance(fault, dict):
        form = fault
        fault = lambda _r: httpx.Response(200, json=form)  # noqa: E731
    services.answers["/login"] = fault
    with pytest.raises(kind) as caught:
        make_app().log_in(Credentials.anonymous())
    assert text in str(caught.value)
    assert caught.value.hint or isinstance(caught.value, AppError)


def test_first_log_in_offline_says_that_it_needs_the_network(make_app: Make, services: Any) -> None:
    """Without network the first log-in says plainly that it needs one."""
    services.answers["/location"] = httpx.ConnectError("refused")
    with pytest.raises(NetworkError, match="first log-in needs the server"):
        make_app().log_in(Credentials.anonymous())


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(make_app: Make, services: Any, status: int) -> None:
    """Credentials go nowhere but to the server that was named; that it sends elsewhere is said."""
    elsewhere = httpx.Response(status, headers={"location": "http://elsewhere.test/login"})
    services.answers["/login"] = lambda _request: elsewhere
    with pytest.raises(AppError, match="redirects elsewhere") as caught:
        make_app().log_in(Credentials.email_password("a@example.com", "secret-1"))
    assert caught.value.status == status
    assert {r.url.host for r in services.requests} == {"server.test"}


def test_the_location_is_asked_again_when_it_has_to_be(make_app: Make, services: Any) -> None:
    """Once per process, whatever is asked for; anew on request, and then everything goes where the new answer says."""
    app = make_app()
    hosts = iter(["one", "two"])

    def locate(_request: httpx.Request) -> httpx.Response:
        host = next(hosts)
        return httpx.Response(200, json={"hostname": f"https://{host}.test/", "ws_hostname": f"wss://ws.{host}.test"})

    services.answers["/location"] = locate
    assert not app.services.is_located
    assert app.services.known_location.sync_route == "ws://server.test/api/client/v2.0/app/app-1/realm-sync"
    user = app.log_in(Credentials.anonymous())
    assert {r.url.host for r in services.requests[1:]} == {"one.test"}
    located = app.run(app.services.location(refresh=True), "the location")
    assert located.sync_route == "wss://ws.two.test/api/client/v2.0/app/app-1/realm-sync"
    assert located == app.services.known_location
    assert services.requests[-1].url.host == "server.test"  # base_url alone is asked
    user.refresh_custom_data()
    assert services.requests[-1].url.host == "two.test"


@pytest.mark.parametrize(
    "answer",
    [
        {"hostname": "http://server.test:70000"},
        {"hostname": "http://"},
        {"hostname": "server.test"},
        {"hostname": "file:///etc"},
        {"hostname": "http://server.test:8x"},
        {"ws_hostname": "ws://server.test:-1"},
        {"ws_hostname": "http://server.test"},
        {"sync_route": "ws:///realm-sync"},
        {"sync_route": 7},
    ],
)
def test_a_location_that_leads_nowhere(make_app: Make, services: Any, answer: dict[str, Any]) -> None:
    """Such an answer, of a server that is broken or of a line that turns bits, is an error and not remembered."""
    app = make_app()
    good = {"hostname": "", "ws_hostname": "ws://server.test"}
    services.answers["/location"] = lambda _request: httpx.Response(200, json=good | answer)
    with pytest.raises(NetworkError, match="no address"):
        app.log_in(Credentials.anonymous())
    assert not app.services.is_located
    services.answers["/location"] = lambda _request: httpx.Response(200, json=good)
    assert app.log_in(Credentials.anonymous()).is_logged_in


@pytest.mark.parametrize(
    ("url", "uses_proxies"),
    [("http://127.0.0.1:9", False), ("http://localhost:9", False), ("http://[::1]:9", False), ("https://a.test", True)],
)
def test_proxies_are_not_for_this_machine(make_app: Make, url: str, uses_proxies: bool) -> None:
    """What the environment says of proxies catches no request to a server here; a new sync thread has a new pool."""
    app = make_app(base_url=url)

    async def pool() -> httpx.AsyncClient:
        return app.services.client

    first = app.run(pool(), "the pool")
    assert first.trust_env is uses_proxies
    assert app.run(pool(), "the pool") is first
    stop_sync_loop()
    assert first.is_closed
    assert app.run(pool(), "the pool") is not first


def test_a_slow_server_is_bounded(make_app: Make, services: Any) -> None:
    """The app's time-out bounds a whole request, however the server dawdles."""

    async def slow(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return httpx.Response(200)

    app = make_app(timeout=0.1)
    app.services._transport = httpx.MockTransport(slow)
    begun = time.monotonic()
    with pytest.raises(NetworkError, match=r"0\.1 s"):
        app.log_in(Credentials.anonymous())
    assert time.monotonic() - begun < 2.0


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:9090", "ftp://x", "http://", "not a url", "http://x:65536", "http://x:0"]
)
def test_wrong_urls(url: str, tmp_path: Path) -> None:
    """A base_url that is none is refused at once, with an example."""
    with pytest.raises(UsageError, match="http"):
        App("a", base_url=url, base_file_path=tmp_path)


@pytest.mark.parametrize(
    "options", [{"timeout": -1}, {"timeout": float("nan")}, {"timeout": "5"}, {"sync_timeouts": {"conect": 1}}]
)
def test_wrong_options(options: dict[str, Any], tmp_path: Path) -> None:
    """Options are checked when the app is made."""
    with pytest.raises(UsageError):
        App("a", base_file_path=tmp_path, **options)


def test_timers_have_the_sdk_defaults() -> None:
    """The sync timers default to the SDK's and refuse nonsense."""
    assert SyncTimeouts() == SyncTimeouts(120.0, 30.0, 60.0, 120.0, 60.0)
    with pytest.raises(UsageError):
        SyncTimeouts(connect=-1)


def test_waiting_in_the_sync_thread_is_refused(make_app: Make) -> None:
    """A callback of the sync thread that would wait for it gets an error, not a deadlock."""
    app = make_app()

    async def inside() -> str:
        try:
            app.log_in(Credentials.anonymous())
        except UsageError as error:
            return str(error)
        return "waited"

    assert "must not" in sync_loop().call(inside(), 5.0)
