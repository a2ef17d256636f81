"""What becomes of users: who is current, who is told, what the server is asked, and with which token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from realmframe.client import App, Credentials, User
from realmframe.errors import AuthError, RealmError, UsageError

Make = Callable[..., App]
ANN = Credentials.email_password("ann@example.com", "secret-1")
BOB = Credentials.email_password("bob@example.com", "secret-1")


def bearers(services: Any, path: str, method: str = "") -> list[str]:
    """List the tokens that requests were made with."""
    found = [r for r in services.requests if r.url.path.endswith(path) and r.method.startswith(method)]
    return [r.headers["Authorization"].removeprefix("Bearer ") for r in found]


def test_listeners_hear_of_every_change(make_app: Make) -> None:
    """Log-ins, new and reused, switching, linking, logging out, removal: each is told when it is so."""
    app = make_app()
    heard: list[str | None] = []
    stop = app.listen(lambda: heard.append(app.current_user and app.current_user.id))
    nobody = app.log_in(Credentials.anonymous())
    ann = app.log_in(ANN)
    assert heard == [nobody.id, ann.id]
    assert app.log_in(Credentials.anonymous()) is nobody
    assert heard[2:] == [nobody.id]
    app.switch_user(ann)
    assert heard[3:] == [ann.id]
    nobody.link_credentials(BOB)
    assert heard[4:] == [ann.id]
    ann.log_out()
    assert heard[5:] == [nobody.id]
    app.remove_user(ann)
    assert heard[6:] == [nobody.id]
    stop()
    app.log_in(ANN)
    assert len(heard) == 7


def test_a_listener_that_fails(make_app: Make) -> None:
    """The others are still told, and the log-in stands."""
    app, heard = make_app(), list[str]()

    def fail() -> None:
        raise ValueError("mine")

    app.listen(fail)
    app.listen(lambda: heard.append("told"))
    assert app.log_in(ANN).is_logged_in
    assert heard == ["told"]


def test_who_is_current(make_app: Make) -> None:
    """The one logged in last or switched to; when that one goes, the first who is logged in."""
    app = make_app()
    one, two, three = app.log_in(ANN), app.log_in(BOB), app.log_in(ANN)
    assert app.current_user is three
    three.log_out()
    assert app.current_user is one
    app.switch_user(two)
    assert make_app().current_user == two
    app.remove_user(two)
    assert app.current_user is one
    app.remove_user(one)
    assert app.current_user is None
    assert list(app.all_users) == [three.id]


def test_an_anonymous_user_without_tokens_is_not_reused(make_app: Make) -> None:
    """Only who can sync is taken again without a request."""
    app = make_app()
    user = app.log_in(Credentials.anonymous())
    app.metadata.change(user.id, access_token=None)
    assert app.log_in(Credentials.anonymous()).id != user.id


def test_logging_in_again_keeps_the_realms(make_app: Make, services: Any) -> None:
    """What was tracked with a user still goes with them after another log-in."""
    app = make_app()
    user = app.log_in(ANN)
    app.track(user.id, "/somewhere/dogs.realm")
    services.serial = 0
    assert app.log_in(ANN) is user
    record = app.metadata.get(user.id)
    assert record is not None
    assert record.realms == ["/somewhere/dogs.realm"]


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize("bad", ["", "a.b", "e30.e30.", "e30.W10.sig"])
def test_malformed_tokens_log_nobody_in(make_app: Make, services: Any, name: str, bad: str) -> None:
    """Tokens that cannot be read are refused, and nothing of them is kept."""
    app = make_app()
    good = {"access_token": services.token("a"), "refresh_token": services.token("r"), "user_id": "u", "device_id": "d"}
    services.answers["/login"] = lambda _request: httpx.Response(200, json=good | {name: bad})
    with pytest.raises(AuthError, match="malformed") as caught:
        app.log_in(ANN)
    assert caught.value.code == "BadToken"
    assert app.all_users == {}


def test_a_malformed_new_token_is_not_kept(make_app: Make, services: Any) -> None:
    """A refresh that brings no token leaves the old one, and the user logged in."""
    app = make_app()
    user = app.log_in(ANN)
    before = user.access_token
    services.answers["/auth/session"] = lambda _request: httpx.Response(201, json={"access_token": "a.b"})
    with pytest.raises(AuthError, match="malformed"):
        user.refresh_custom_data()
    assert (user.access_token, user.is_logged_in) == (before, True)


def test_linking_names_the_user(make_app: Make, services: Any) -> None:
    """An anonymous user who is linked is no longer anonymous: the new provider counts, and the identities are asked."""
    app = make_app()
    user = app.log_in(Credentials.anonymous())
    identities = [{"id": "i-1", "provider_type": "anon-user"}, {"id": "i-2", "provider_type": "local-userpass"}]
    services.answers["/auth/profile"] = lambda _request: httpx.Response(
        200, json={"identities": identities, "data": {}}
    )
    user.link_credentials(ANN)
    assert user.provider_type == "local-userpass"
    assert [i.provider_type for i in user.identities] == ["anon-user", "local-userpass"]
    user.link_credentials(Credentials.api_key("key"))
    assert user.provider_type == "local-userpass"
    user.log_out()
    assert user.state == "logged_out"
    with pytest.raises(AuthError, match="cannot be linked"):
        user.link_credentials(BOB)


def test_logging_out_counts_here_first(make_app: Make, services: Any) -> None:
    """When the server hears of it with the refresh token, the user is logged out here already."""
    app = make_app()
    user = app.log_in(ANN)
    token, states = user.refresh_token, list[str]()

    def answer(_request: httpx.Request) -> httpx.Response:
        states.append(user.state)
        return httpx.Response(204)

    services.answers["/auth/session"] = answer
    user.log_out()
    assert states == ["logged_out"]
    assert bearers(services, "/auth/session", "DELETE") == [token]
    user.log_out()
    assert len(states) == 1


def test_removing_logs_out_at_the_server(make_app: Make, services: Any) -> None:
    """A user who is logged in is logged out at the server when they are removed."""
    app = make_app()
    user = app.log_in(ANN)
    token = user.refresh_token
    app.remove_user(user)
    assert bearers(services, "/auth/session", "DELETE") == [token]


def test_deleting_takes_the_access_token_of_who_is_logged_in(make_app: Make, services: Any) -> None:
    """Who is logged out cannot be deleted at the server, and stays here; nothing is asked."""
    app = make_app()
    user, other = app.log_in(ANN), app.log_in(BOB)
    token = other.access_token
    user.log_out()
    with pytest.raises(AuthError, match="cannot be deleted at the server"):
        app.delete_user(user)
    assert bearers(services, "/auth/delete") == []
    assert user.state == "logged_out"
    services.answers["/auth/delete"] = services.refuse(500, "Internal")
    with pytest.raises(RealmError):
        app.delete_user(other)
    assert other.is_logged_in
    del services.answers["/auth/delete"]
    app.delete_user(other)
    assert bearers(services, "/auth/delete") == [token, token]


def test_users_of_another_app(make_app: Make) -> None:
    """Nobody is switched to, removed or deleted in an app that is not theirs, also if the id is known there."""
    app, other = make_app(), make_app("app-2")
    app.log_in(ANN)
    stranger = User(other, "user-1")
    for act in (app.switch_user, app.remove_user, app.delete_user):
        with pytest.raises(UsageError, match="no user of the app"):
            act(stranger)
    assert list(app.all_users) == ["user-1"]
    assert stranger != app.user("user-1")


def test_one_refresh_for_all_who_need_it(make_app: Make, services: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several requests at once with a token that has ended ask for one new token."""
    app = make_app()
    user = app.log_in(ANN)
    refresh = app.services.refresh

    async def slow(token: str) -> str:
        await asyncio.sleep(0.01)  # the others have their turn
        return await refresh(token)

    monkeypatch.setattr(app.services, "refresh", slow)
    app.metadata.change(user.id, access_token=services.token("old", -60))

    async def many() -> list[str]:
        return await asyncio.gather(*(app.access_token(user.id) for _ in range(5)))

    assert len(set(app.run(many(), "tokens"))) == 1
    assert services.paths.count("POST /auth/session") == 1


@pytest.mark.parametrize(("status", "stays"), [(401, False), (403, True)])
def test_a_refused_refresh_token(make_app: Make, services: Any, status: int, stays: bool) -> None:
    """401 in answer to it logs the user out here; that something is forbidden does not."""
    app = make_app()
    user = app.log_in(ANN)
    services.answers["/auth/api_keys"] = services.refuse(status, "InvalidSession")
    with pytest.raises(AuthError):
        user.api_keys.fetch_all()
    assert user.is_logged_in is stays


@pytest.mark.parametrize("timeout", [0, None, 60])
def test_defaults_of_an_app(make_app: Make, timeout: float | None) -> None:
    """A time-out of 0 or None is the SDK's 60 seconds; realms share one websocket."""
    app = make_app(timeout=timeout)
    assert app.timeout == app.services.timeout == 60.0
    assert app.multiplex_sessions


@pytest.mark.parametrize(
    "make",
    [
        lambda: Credentials.email_password("", "secret-1"),
        lambda: Credentials.email_password("ann@example.com", ""),
        lambda: Credentials.api_key(""),
        lambda: Credentials.jwt(""),
        lambda: Credentials.jwt(b"e30.e30.x"),  # type: ignore[arg-type]
        lambda: Credentials.google(),
        lambda: Credentials.google(id_token="t", auth_code="c"),
    ],
)
def test_credentials_that_are_none(make: Callable[[], Credentials]) -> None:
    """What cannot log anybody in is refused before anything is asked."""
    with pytest.raises(UsageError):
        make()


def test_custom_data_is_asked_for_anew(make_app: Make, services: Any) -> None:
    """A good token is replaced all the same: the data comes with the next one."""
    user = make_app().log_in(ANN)
    before = user.access_token
    assert user.refresh_custom_data() == {}
    assert services.paths.count("POST /auth/session") == 1
    assert user.access_token != before


def test_sessions_end_with_their_user(make_app: Make, services: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logged out, removed, deleted or refused: the sessions of just that user are ended."""
    app = make_app()
    ended: list[str] = []
    monkeypatch.setattr(app.sync, "stop_user", ended.append)
    users = [app.log_in(credentials) for credentials in (ANN, BOB, ANN, BOB, Credentials.anonymous())]
    users[0].log_out()
    app.remove_user(users[1])
    app.delete_user(users[2])
    assert ended == [user.id for user in users[:3]]
    services.answers["/auth/session"] = services.refuse(401, "InvalidSession")
    with pytest.raises(AuthError):
        users[3].refresh_custom_data()
    assert ended[3:] == [users[3].id]
    assert users[4].is_logged_in
