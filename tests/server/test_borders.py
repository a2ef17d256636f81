"""Between users, between apps, between log-ins: nobody reaches what is another's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from realmframe.server import database as db
from realmframe.server.limits import Attempts
from realmframe.testing import Server
from tests.waiting import WAIT


class Api:
    """The HTTP API of one app."""

    def __init__(self, server: Server, app: str = "one") -> None:
        self.server, self.app = server, app
        self.base = f"{server.url}/api/client/v2.0"

    def __call__(self, method: str, path: str, bearer: str | None = None, **body: Any) -> tuple[int, Any]:
        """Send a request; give status, and error code or body."""
        root = f"{self.base}{path}" if path.startswith("/auth") else f"{self.base}/app/{self.app}/{path}"
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        answer = httpx.request(method, root, headers=headers, json=body or None, timeout=WAIT)
        form = answer.json() if answer.content else None
        is_error = isinstance(form, dict) and "error_code" in form
        return answer.status_code, form["error_code"] if is_error else form

    def log_in(self, provider: str = "anon-user", link: str | None = None, **body: Any) -> tuple[int, Any]:
        """Log in, or link."""
        path = f"auth/providers/{provider}/login{'?link=true' if link else ''}"
        return self("POST", path, link, **body)

    def user(self, provider: str = "anon-user", **body: Any) -> dict[str, Any]:
        """Log in somebody."""
        status, form = self.log_in(provider, **body)
        assert status == 200
        return dict(form)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Run a server with a function, and log-ins by name."""

    def who(user: str) -> str:
        return user

    def custom(payload: Any) -> Any:
        if payload["name"] == "bug":
            raise KeyError("a secret of the server")
        return {"id": payload["name"], **payload.get("more", {})}

    with Server(tmp_path / "data", functions={"who": who}, custom_login=custom) as running:
        yield running


def test_api_keys_are_their_users(server: Server) -> None:
    """Another user neither sees a key nor changes it; another app does not take it."""
    api, other = Api(server), Api(server, "two")
    ann, bob = (api.user()["refresh_token"] for _ in range(2))
    other.user()
    _, key = api("POST", "/auth/api_keys", ann, name="k")
    one = f"/auth/api_keys/{key['_id']}"
    assert api("GET", "/auth/api_keys", bob) == (200, [])
    assert len(api("GET", "/auth/api_keys", ann)[1]) == 1
    missing = (404, "APIKeyNotFound")
    tries = [("GET", one), ("PUT", f"{one}/disable"), ("PUT", f"{one}/enable"), ("DELETE", one)]
    assert [api(method, path, bob) for method, path in tries] == [missing] * 4
    assert api.log_in("api-key", key=key["key"])[0] == 200
    assert other.log_in("api-key", key=key["key"]) == (401, "AuthError")
    assert api("DELETE", "/auth/api_keys/0123456789abcdef01234567", ann) == missing


def test_tokens_are_good_in_their_own_app(server: Server) -> None:
    """A function is not called, and nobody is linked, with a token of another app."""
    one, two = Api(server), Api(server, "two")
    token, stranger = (api.user()["access_token"] for api in (one, two))
    assert one("POST", "functions/call", token, name="who", arguments=[])[0] == 200
    assert one("POST", "functions/call", stranger, name="who", arguments=[]) == (401, "InvalidSession")
    assert one.log_in("custom-function", link=stranger, name="x") == (401, "InvalidSession")
    assert one.log_in("custom-function", link=token, name="x")[0] == 200


def test_tokens_end_with_their_log_in(server: Server) -> None:
    """Logging out ends one log-in, with both its tokens; the same user's others go on."""
    api = Api(server)
    first, second = (api.user("custom-function", name="ann") for _ in range(2))
    assert first["user_id"] == second["user_id"]
    assert api("DELETE", "/auth/session", first["refresh_token"])[0] == 204
    ended = (401, "InvalidSession")
    assert api("GET", "/auth/profile", first["access_token"]) == ended
    assert api("POST", "/auth/session", first["refresh_token"]) == ended
    assert api("GET", "/auth/profile", second["access_token"])[0] == 200
    assert api("POST", "/auth/session", second["refresh_token"])[0] == 201
    assert api("POST", "/auth/session", second["access_token"]) == ended
    assert api("GET", "/auth/profile", second["refresh_token"]) == ended


def test_nothing_of_a_deleted_user_stays(server: Server) -> None:
    """Log-ins, keys, identities and custom data go; a key that was theirs lets nobody in."""
    api = Api(server)
    ann = api.user("custom-function", name="ann")
    _, key = api("POST", "/auth/api_keys", ann["refresh_token"], name="k")
    assert api.log_in("api-key", key=key["key"])[0] == 200
    assert api("DELETE", "/auth/delete", ann["access_token"])[0] == 204
    assert api.log_in("api-key", key=key["key"]) == (401, "AuthError")
    assert api("POST", "/auth/session", ann["refresh_token"]) == (401, "InvalidSession")
    database = db.Database.existing(Path(str(server.data)))
    try:
        with database.transaction() as sql:
            for table in (db.logins, db.api_keys, db.identities, db.custom_data):
                found = sql.execute(sa.select(table).where(table.c.user == ann["user_id"])).all()
                assert found == [], table.name
    finally:
        database.close()
    assert api.user("custom-function", name="ann")["user_id"] != ann["user_id"]


def test_what_a_log_in_function_says(server: Server) -> None:
    """Its fields are added to the profile; what went wrong inside it is not told to strangers."""
    api = Api(server)
    token = api.user("custom-function", name="ann", more={"team": "blue"})["access_token"]
    api.user("custom-function", name="ann", more={"role": "cook"})
    assert api("GET", "/auth/profile", token)[1]["data"] == {"team": "blue", "role": "cook"}
    path = f"{api.base}/app/one/auth/providers/custom-function/login"
    answer = httpx.post(path, json={"name": "bug"}, timeout=WAIT)
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_failures_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are allowed within the time, and again when it is over."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    attempts = Attempts(allowed=2, seconds=60.0)
    for expected in (False, False, True, True):
        assert attempts.blocked("ann") is expected
        attempts.failed("ann")
        now += 1.0
    now = 161.5  # the first two are over, two are left
    assert attempts.blocked("ann")
    now = 162.5
    assert not attempts.blocked("ann")
    assert not attempts.blocked("bob")
    attempts.failed("ann")
    attempts.succeeded("ann")
    attempts.failed("ann")
    assert not attempts.blocked("ann")
