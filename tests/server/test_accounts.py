"""Users as a self-hosted backend has them: mails, passwords, foreign tokens, functions, an administrator's reach."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from websockets.exceptions import ConnectionClosed

import realmframe as rf
from realmframe.cli import main
from realmframe.errors import UsageError
from realmframe.server import JwtProvider, Mail
from realmframe.server.foreign import JwtLogin
from realmframe.server.limits import Attempts
from realmframe.server.refusals import ApiError
from realmframe.testing import Server
from tests.waiting import WAIT

from .conftest import RawConnection, claims_of

EMAIL, PASSWORD = "ann@example.com", "secret-1"


class Http:
    """The HTTP API of one app, as a client sees it."""

    def __init__(self, server: Server, app: str = "test") -> None:
        self.base = f"{server.url}/api/client/v2.0"
        self.app, self.client = app, httpx.Client(timeout=WAIT)

    def __call__(self, method: str, path: str, bearer: str | None = None, **body: Any) -> tuple[int, Any]:
        """Send a request; give status and error code, or body."""
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        root = f"{self.base}{path}" if path.startswith("/auth") else f"{self.base}/app/{self.app}/{path}"
        answer = self.client.request(method, root, headers=headers, json=body or None)
        form = answer.json() if answer.content else None
        if isinstance(form, dict) and "error_code" in form:
            assert set(form) == {"error", "error_code", "link"}
            assert answer.headers["content-type"] == "application/json"
            return answer.status_code, f"{form['error_code']}: {form['error']}"
        return answer.status_code, form

    def userpass(self, action: str, **body: Any) -> tuple[int, Any]:
        """One action of the provider of passwords."""
        return self("POST", f"auth/providers/local-userpass/{action}", **body)

    def log_in(self, email: str = EMAIL, password: str = PASSWORD) -> tuple[int, Any]:
        """Log in with a password."""
        return self.userpass("login", username=email, password=password)


@contextmanager
def served(path: Path, **options: Any) -> Iterator[Http]:
    """Run a server with options."""
    with Server(path / "data", **options) as server:
        http = Http(server)
        with http.client:
            yield http


def test_confirmation_by_mail(tmp_path: Path) -> None:
    """An address logs in only when the token of its newest mail came back, which works once."""
    mails: list[Mail] = []
    with served(tmp_path, confirm="mail", send_mail=mails.append) as http:
        assert http.userpass("register", email=EMAIL, password=PASSWORD) == (201, {})
        assert http.log_in() == (401, "AuthError: confirmation required")
        assert http.log_in(password="wrong-one")[1].startswith("InvalidPassword")
        assert http.userpass("confirm/send", email=EMAIL) == (200, {})
        old, new = mails
        assert (new.purpose, new.app, new.email) == ("confirm", "test", EMAIL)
        assert new.token not in repr(new)
        for token, token_id in ((old.token, old.token_id), (new.token, old.token_id), ("x", new.token_id)):
            answer = http.userpass("confirm", token=token, tokenId=token_id)
            assert answer == (400, "BadRequest: invalid token data")
        # A token of one purpose is worth nothing for another.
        assert http.userpass("reset", token=new.token, tokenId=new.token_id, password="secret-2")[0] == 400
        assert http.userpass("confirm", token=new.token, tokenId=new.token_id) == (200, {})
        assert http.userpass("confirm", token=new.token, tokenId=new.token_id)[0] == 400
        assert http.log_in()[0] == 200
        assert http.userpass("confirm/send", email=EMAIL) == (400, "UserAlreadyConfirmed: already confirmed")
        assert http.userpass("confirm/call", email=EMAIL)[1].startswith("UserAlreadyConfirmed")


@pytest.mark.parametrize(("outcome", "registers", "logs_in"), [(True, 201, 200), (None, 201, 401), (False, 400, 401)])
def test_confirmation_by_function(tmp_path: Path, outcome: Any, registers: int, logs_in: int) -> None:
    """The function confirms, leaves waiting, or refuses, and then the address is free again."""
    outcomes, seen = [outcome], []

    def confirm(mail: Mail) -> Any:
        seen.append(mail)
        return outcomes[0]

    with served(tmp_path, confirm=confirm) as http:
        status, said = http.userpass("register", email=EMAIL, password=PASSWORD)
        assert status == registers
        assert http.log_in()[0] == logs_in
        if outcome is False:
            assert said == f'BadRequest: failed to confirm user "{EMAIL}"'
            outcomes[0] = True
            assert http.userpass("register", email=EMAIL, password=PASSWORD)[0] == 201
            assert http.log_in()[0] == 200
        if outcome is None:
            assert http.userpass("confirm", token=seen[0].token, tokenId=seen[0].token_id)[0] == 200
            assert http.log_in()[0] == 200


def test_confirmation_tried_again(tmp_path: Path) -> None:
    """retry_custom_confirmation runs the function again."""
    outcomes: list[bool | None] = [None]
    with served(tmp_path, confirm=lambda mail: outcomes[0]) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        assert http.userpass("confirm/call", email=EMAIL)[0] == 200
        assert http.log_in()[0] == 401
        outcomes[0] = True
        assert http.userpass("confirm/call", email=EMAIL)[0] == 200
        assert http.log_in()[0] == 200


def test_reset_by_mail(tmp_path: Path) -> None:
    """The token of the mail sets a password once; the old one and every log-in end."""
    mails: list[Mail] = []
    with served(tmp_path, send_mail=mails.append) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        before = http.log_in()[1]
        assert http.userpass("reset/send", email=EMAIL) == (200, {})
        answer = {"token": mails[0].token, "tokenId": mails[0].token_id}
        assert http.userpass("reset", password="short", **answer)[0] == 400
        assert http.userpass("reset", password="secret-2", **answer) == (200, {})
        assert http.userpass("reset", password="secret-3", **answer)[0] == 400
        assert http.log_in()[1].startswith("InvalidPassword")
        assert http.log_in(password="secret-2")[0] == 200
        assert http("POST", "/auth/session", before["refresh_token"])[0] == 401


def test_tokens_of_mails_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reset token is good for half an hour, and is shown to the administrator for as long."""
    mails: list[Mail] = []
    command = ["admin", "users", "mails", "--app", "test", "--data", str(tmp_path / "data")]
    with served(tmp_path, send_mail=mails.append) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        http.userpass("reset/send", email=EMAIL)
        assert main(command) == 0
        assert mails[0].token in capsys.readouterr().out
        now = time.time()
        monkeypatch.setattr("realmframe.server.passwords.time.time", lambda: now + 1801)
        assert main(command) == 0
        assert capsys.readouterr().out == "no mails wait\n"
        answer = http.userpass("reset", password="secret-2", token=mails[0].token, tokenId=mails[0].token_id)
        assert answer == (400, "UserpassTokenInvalid: userpass token is expired or invalid")


@pytest.mark.parametrize(("outcome", "status", "works"), [(True, 200, True), (None, 200, False), (False, 400, False)])
def test_reset_by_function(tmp_path: Path, outcome: Any, status: int, works: bool) -> None:
    """The reset function is given the new password and the caller's arguments as Python values, and decides."""
    seen: list[Any] = []

    def reset(mail: Mail, password: str, *arguments: Any) -> Any:
        seen.append((mail.email, password, arguments))
        return outcome

    with served(tmp_path, reset=reset) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        arguments = ["a", {"$numberLong": "1"}]
        found = http.userpass("reset/call", email=EMAIL, password="secret-2", arguments=arguments)
        assert found[0] == status
        assert seen == [(EMAIL, "secret-2", ("a", 1))]
        assert (http.log_in(password="secret-2")[0] == 200) is works
        assert (http.log_in()[0] == 200) is not works
        unknown = http.userpass("reset/call", email="bob@example.com", password="secret-2", arguments=[])
        assert unknown == (404, "UserNotFound: user not found")


@pytest.mark.parametrize("development", [True, False])
def test_who_is_registered_is_told_in_development_only(tmp_path: Path, development: bool) -> None:
    """Asking for a mail to an unknown address says so in development, and nothing in production."""
    with served(tmp_path) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
    with served(tmp_path, development=development) as http:
        wanted = (404, "UserNotFound: user not found") if development else (200, {})
        assert http.userpass("reset/send", email=EMAIL) == (200, {})
        assert http.userpass("reset/send", email="bob@example.com") == wanted
        # A wrong password and an unknown address are one answer.
        assert http.log_in(password="wrong-one") == http.log_in("bob@example.com", "wrong-one")


@pytest.mark.parametrize(("size", "status"), [(5, 400), (6, 201), (128, 201), (129, 400)])
def test_length_of_passwords(tmp_path: Path, size: int, status: int) -> None:
    """Six characters at least, and not so many that hashing them takes long; the same of a new one."""
    mails: list[Mail] = []
    with served(tmp_path, send_mail=mails.append) as http:
        assert http.userpass("register", email=EMAIL, password="p" * size)[0] == status
        http.userpass("register", email="bob@example.com", password=PASSWORD)
        http.userpass("reset/send", email="bob@example.com")
        body = {"token": mails[-1].token, "tokenId": mails[-1].token_id}
        assert http.userpass("reset", password="q" * size, **body)[0] == (200 if status == 201 else 400)


def test_an_unknown_address_costs_as_much_as_a_known_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is hashed in either case, so the time of an answer does not tell who is registered."""
    hashed: list[str] = []
    verify = PasswordHasher.verify

    def note(hasher: PasswordHasher, stored: str, password: str) -> bool:
        hashed.append(stored.rpartition("$")[0].rpartition("$")[0])
        return verify(hasher, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", note)
    with served(tmp_path) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        assert http.log_in(password="wrong-one")[0] == http.log_in("nobody@example.com", "wrong-one")[0] == 401
    known, unknown = hashed
    assert known == unknown
    assert known.startswith("$argon2id$")


def test_guessing_and_flooding_are_limited(tmp_path: Path) -> None:
    """Ten wrong passwords close an address for a minute, known or not; five mails in an hour are the most."""
    with served(tmp_path) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        for email in (EMAIL, "nobody@example.com"):
            assert {http.log_in(email, "wrong-one")[0] for _ in range(10)} == {401}
            assert http.log_in(email, PASSWORD)[0] == 429
        assert [http.userpass("reset/send", email=EMAIL)[0] for _ in range(6)] == [200] * 5 + [429]


def test_attempts_count_across_threads() -> None:
    """Failures of several threads at once are all counted."""
    attempts = Attempts(allowed=400)

    def fail() -> None:
        for number in range(200):
            attempts.failed("name")
            attempts.succeeded(str(number))
            attempts.blocked(str(number))

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert attempts.blocked("name")
    assert len(attempts._failures["name"]) == 800


def test_registering_twice_at_once(tmp_path: Path) -> None:
    """Of several registrations of one address at the same moment one is taken, the others are told so."""
    with served(tmp_path) as http:
        found: list[int] = []
        register = lambda: found.append(http.userpass("register", email=EMAIL, password=PASSWORD)[0])  # noqa: E731
        threads = [threading.Thread(target=register) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(found) == [201, 409, 409, 409]


def test_api_keys(tmp_path: Path) -> None:
    """A key logs its user in until it is disabled or deleted; the list never shows it."""
    with Server(tmp_path / "data") as server:
        app = rf.App("test", base_url=server.url, base_file_path=tmp_path / "files")
        app.email_password_auth.register_user(EMAIL, PASSWORD)
        user = app.log_in(rf.Credentials.email_password(EMAIL, PASSWORD))
        made = user.api_keys.create("laptop")
        assert [(k.id, k.name, k.key, k.disabled) for k in user.api_keys.fetch_all()] == [
            (made.id, "laptop", None, False)
        ]
        assert made.key is not None
        credentials = rf.Credentials.api_key(made.key)
        assert app.log_in(credentials) is user
        user.api_keys.disable(made.id)
        assert user.api_keys.fetch(made.id).disabled
        with pytest.raises(rf.AuthError, match=r"invalid API key \(AuthError\)"):
            app.log_in(credentials)
        user.api_keys.enable(made.id)
        assert app.log_in(credentials).id == user.id
        assert {i.provider_type for i in user.identities} == {"local-userpass", "api-key"}
        user.api_keys.delete(made.id)
        with pytest.raises(rf.AuthError):
            app.log_in(credentials)
        with pytest.raises(rf.AppError) as caught:
            user.api_keys.fetch(made.id)
        assert caught.value.code == "APIKeyNotFound"
        for number in range(20):
            user.api_keys.create(f"k{number}")
        with pytest.raises(rf.AppError, match="at most 20"):
            user.api_keys.create("one-more")


def test_names_of_api_keys(tmp_path: Path) -> None:
    """They are letters, digits, underscores and hyphens, and what is said of others has the service's words."""
    with served(tmp_path) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        bearer = http.log_in()[1]["refresh_token"]
        assert http("POST", "/auth/api_keys", bearer, name="My_laptop-2")[0] == 201
        for name in ("My very cool key", "", "ü", "a\n", "x" * 257):
            status, said = http("POST", "/auth/api_keys", bearer, name=name)
            assert status == 400
            assert said.startswith("InvalidParameter: ")
            assert "can only contain ASCII letters, numbers, underscores, and hyphens" in said


def test_second_address_is_not_linked(tmp_path: Path) -> None:
    """A user has one e-mail address: linking another is refused, linking the same again is nothing new."""
    with served(tmp_path) as http:
        other = "bob@example.com"
        for email in (EMAIL, other):
            http.userpass("register", email=email, password=PASSWORD)
        tokens = http("POST", "auth/providers/anon-user/login", provider="anon-user")[1]
        link = lambda email: http(  # noqa: E731
            "POST",
            "auth/providers/local-userpass/login?link=true",
            tokens["access_token"],
            username=email,
            password=PASSWORD,
        )
        for _ in range(2):
            assert link(EMAIL)[1]["user_id"] == tokens["user_id"]
        status, said = link(other)
        assert (status, said) == (
            400,
            "BadRequest: linking a local-userpass identity is not allowed when one is already linked",
        )
        profile = http("GET", "/auth/profile", tokens["access_token"])[1]
        assert {i["provider_type"] for i in profile["identities"]} == {"anon-user", "local-userpass"}
        assert http.log_in(other)[1]["user_id"] != tokens["user_id"]


# ---------------------------------------------------------------------- foreign tokens

SECRET = "a-secret-of-32-characters-or-more"
RSA = RSAKey.generate_key(2048, parameters={"kid": "one"})
OTHER = RSAKey.generate_key(2048, parameters={"kid": "one"})


def signed(key: Any = None, algorithm: str = "HS256", **changes: Any) -> str:
    """Make a token; a change to None leaves the claim out."""
    claims = {"sub": "u-1", "aud": "test", "exp": int(time.time()) + 60, "name": "Ann"} | changes
    claims = {k: v for k, v in claims.items() if v is not None}
    header = {"alg": algorithm} | ({"kid": "one"} if algorithm == "RS256" else {})
    return jwt.encode(header, claims, key or OctKey.import_key(SECRET), algorithms=[algorithm])


def _part(form: bytes) -> str:
    return base64.urlsafe_b64encode(form).rstrip(b"=").decode()


def _unsigned(algorithm: str = "none") -> str:
    claims = {"sub": "u-1", "aud": "test", "exp": int(time.time()) + 60}
    return f"{_part(json.dumps({'alg': algorithm}).encode())}.{_part(json.dumps(claims).encode())}."


PUBLIC = RSA.as_pem(private=False)
GOOD: list[tuple[dict[str, Any], Callable[[], str], str]] = [
    ({"secret": SECRET}, signed, "u-1"),
    ({"secret": SECRET}, lambda: signed(aud=["other", "test"]), "u-1"),
    ({"secret": SECRET}, lambda: signed(sub=7), "7"),
    ({"secret": SECRET, "audience": "mine"}, lambda: signed(aud="mine"), "u-1"),
    ({"secret": SECRET, "check_audience": False}, lambda: signed(aud=None), "u-1"),
    ({"secret": SECRET, "id_field": "name"}, signed, "Ann"),
    ({"secret": SECRET}, lambda: signed(exp=int(time.time()) - 10), "u-1"),  # clocks may differ
    ({"public_key": PUBLIC.decode()}, lambda: signed(RSA, "RS256"), "u-1"),
    ({"jwks": KeySet([RSA]).as_dict(private=False)}, lambda: signed(RSA, "RS256"), "u-1"),
]
BAD: list[tuple[dict[str, Any], Callable[[], str]]] = [
    ({"secret": SECRET}, lambda: "not-a-token"),
    ({"secret": SECRET}, lambda: "a.b.c"),
    ({"secret": SECRET}, _unsigned),
    ({"secret": SECRET}, lambda: signed(exp=None)),
    ({"secret": SECRET}, lambda: signed(exp="tomorrow")),
    ({"secret": SECRET}, lambda: signed(exp=int(time.time()) - 60)),
    ({"secret": SECRET}, lambda: signed(nbf=int(time.time()) + 60)),
    ({"secret": SECRET}, lambda: signed(aud="other")),
    ({"secret": SECRET}, lambda: signed(aud=None)),
    ({"secret": SECRET}, lambda: signed(sub=None)),
    ({"secret": SECRET}, lambda: signed(sub=True)),
    ({"secret": SECRET}, lambda: signed(sub="")),
    ({"secret": SECRET}, lambda: signed(sub={"a": 1})),
    ({"secret": SECRET}, lambda: signed(OctKey.import_key("another-secret-of-32-characters-!"))),
    ({"secret": SECRET}, lambda: signed(RSA, "RS256")),
    ({"public_key": PUBLIC.decode()}, signed),
    ({"public_key": PUBLIC.decode()}, lambda: signed(OTHER, "RS256")),
    ({"public_key": PUBLIC.decode()}, lambda: signed(RSA, "RS512")),  # the right key, but not the algorithm set up
    ({"secret": SECRET}, lambda: signed(OctKey.import_key(SECRET), "HS384")),
    ({"jwks": KeySet([RSA]).as_dict(private=False)}, lambda: signed(OTHER, "RS256")),
    ({"jwks": KeySet([RSA]).as_dict(private=False)}, _unsigned),
]


@pytest.mark.parametrize(("provider", "make", "subject"), GOOD)
def test_foreign_tokens_that_are_taken(provider: dict[str, Any], make: Callable[[], str], subject: str) -> None:
    """A token that its authority signed for this app names its user."""
    assert JwtLogin(JwtProvider(**provider)).check("test", make())[0] == subject


@pytest.mark.parametrize(("provider", "make"), BAD)
def test_foreign_tokens_that_are_refused(provider: dict[str, Any], make: Callable[[], str]) -> None:
    """Anything else is a 401, never another exception."""
    with pytest.raises(ApiError) as caught:
        JwtLogin(JwtProvider(**provider)).check("test", make())
    assert (caught.value.status, caught.value.code) == (401, "AuthError")


def test_a_public_key_is_no_secret() -> None:
    """A token signed with the public key as if it were a secret is refused."""
    text = _unsigned("HS256").rstrip(".")
    forged = f"{text}.{_part(hmac.new(PUBLIC, text.encode(), hashlib.sha256).digest())}"
    with pytest.raises(ApiError):
        JwtLogin(JwtProvider(public_key=PUBLIC.decode())).check("test", forged)


@pytest.mark.parametrize(
    "options",
    [{}, {"secret": SECRET[:31]}, {"secret": SECRET, "public_key": "x"}, {"public_key": "no pem"}, {"jwks": {}}],
)
def test_wrong_providers(options: dict[str, Any]) -> None:
    """No key, two of them, or one that is none are refused when the server is made."""
    with pytest.raises(UsageError):
        JwtLogin(JwtProvider(**options))


def test_the_secret_does_not_show() -> None:
    """Whoever prints a provider or a mail cannot log others in."""
    assert SECRET not in repr(JwtProvider(secret=SECRET))
    shown = repr(Mail("reset", "test", EMAIL, "secret-token", "secret-id"))
    assert "secret" not in shown
    assert EMAIL in shown


def test_keys_of_a_url_are_fetched_and_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys come from the URL, are kept, and are asked for again when a token has another key."""
    keys, asked = [RSA], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(KeySet(keys).as_dict(private=False)).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        login = JwtLogin(JwtProvider(jwks=f"http://127.0.0.1:{web.server_port}/keys"))
        for _ in range(3):
            assert login.check("test", signed(RSA, "RS256"))[0] == "u-1"
        assert len(asked) == 1
        keys[:] = [OTHER]
        with pytest.raises(ApiError):
            login.check("test", signed(OTHER, "RS256"))
        assert len(asked) == 1, "an unknown key is asked for once a minute at most"
        monkeypatch.setattr("realmframe.server.foreign._AGAIN", 0.0)
        assert login.check("test", signed(OTHER, "RS256"))[0] == "u-1"
        assert len(asked) == 2
    finally:
        web.shutdown()
        web.server_close()
        thread.join(10)
    with pytest.raises(ApiError) as caught:
        JwtLogin(JwtProvider(jwks=f"http://127.0.0.1:{web.server_port}/keys")).check("test", signed(RSA, "RS256"))
    assert caught.value.status == 503


def test_an_authority_that_fails_is_not_asked_for_each_token() -> None:
    """While an authority gives no keys, most log-ins are refused at once instead of waiting for it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(500)

        def log_message(self, *arguments: Any) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    try:
        login = JwtLogin(JwtProvider(jwks=f"http://127.0.0.1:{web.server_port}/keys"))
        for _ in range(5):
            with pytest.raises(ApiError) as caught:
                login.check("test", signed(RSA, "RS256"))
            assert caught.value.status == 503
    finally:
        web.shutdown()
        web.server_close()
        thread.join(10)
    assert len(asked) == 1


def test_foreign_tokens_make_users(tmp_path: Path) -> None:
    """The same name is the same user, fields of the token are in the profile, and come anew with each log-in."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(KeySet([RSA]).as_dict(private=False)))
    with Server(tmp_path / "data", jwt=JwtProvider(jwks=keys, fields={"name": "name", "mail": "email"})) as server:
        app = rf.App("test", base_url=server.url, base_file_path=tmp_path / "files")
        one = app.log_in(rf.Credentials.jwt(signed(RSA, "RS256", mail=EMAIL)))
        assert one.profile == {"name": "Ann", "email": EMAIL}
        assert app.log_in(rf.Credentials.jwt(signed(RSA, "RS256", name="Anna"))).id == one.id
        assert one.profile["name"] == "Anna"
        assert app.log_in(rf.Credentials.jwt(signed(RSA, "RS256", sub="u-2"))).id != one.id
        with pytest.raises(rf.AuthError):
            app.log_in(rf.Credentials.jwt(signed(OTHER, "RS256")))


def test_custom_functions(tmp_path: Path) -> None:
    """A function of the server logs in and is called with Python values; its refusal and its failure are told apart."""
    seen: list[Any] = []

    def custom(payload: Any) -> Any:
        seen.append(payload)
        if payload.get("n") == 1:
            raise ValueError("not today")
        if payload.get("n") == 2:
            raise KeyError("bug")
        return {"id": payload["name"], "team": "blue"} if payload["n"] == 5 else ""

    functions = {
        "add": lambda user, a, b: a + b,
        "who": lambda user: {"id": user, "at": 1.5},
        "log": lambda user, *_: None,
    }
    with Server(tmp_path / "data", custom_login=custom, functions=functions) as server:
        app = rf.App("test", base_url=server.url, base_file_path=tmp_path / "files")
        user = app.log_in(rf.Credentials.function({"name": "x", "n": 5}))
        assert [(i.id, i.provider_type) for i in user.identities] == [("x", "custom-function")]
        assert seen == [{"name": "x", "n": 5}]
        assert user.profile == {"team": "blue"}
        assert app.log_in(rf.Credentials.function(name="x", n=5)).id == user.id
        assert user.functions.add(1, 2) == 3
        assert user.functions.add("a", "b") == "ab"
        assert user.call_function("who") == {"id": user.id, "at": 1.5}
        assert user.functions.log("x") is None
        for n, status in ((1, 401), (2, 500), (3, 401)):
            with pytest.raises(rf.RealmError) as caught:
                app.log_in(rf.Credentials.function(name="x", n=n))
            assert getattr(caught.value, "status", None) == status
        with pytest.raises(rf.AppError) as failed:
            user.functions.add(1)
        assert failed.value.code == "FunctionExecutionError"


# ---------------------------------------------------------------------- the administrator


def _close_code(wire: RawConnection) -> int:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        try:
            wire.socket.recv(timeout=1)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0
        except TimeoutError:
            continue
    raise AssertionError("the connection stays open")


@pytest.mark.parametrize(
    ("action", "again"), [("disable", 401), ("revoke", 200), ("delete", 401)], ids=["disable", "revoke", "delete"]
)
def test_admin_ends_users(tmp_path: Path, action: str, again: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A user who is disabled, revoked or deleted loses websocket, tokens and new connections at once; others do not."""
    with Server(tmp_path / "data") as server:
        http = Http(server)
        for email in (EMAIL, "bob@example.com"):
            http.userpass("register", email=email, password=PASSWORD)
        ann, bob = http.log_in()[1], http.log_in("bob@example.com")[1]
        wire, other = (RawConnection(server.url, "test", t["access_token"]) for t in (ann, bob))
        try:
            wire.ping(1)
            arguments = ["admin", "users", action, EMAIL.upper(), "--app", "test", "--data", str(tmp_path / "data")]
            assert main(arguments) == 0
            assert _close_code(wire) == 4001
            other.ping(2)
            assert http("POST", "/auth/session", ann["refresh_token"])[0] == 401
            assert http("GET", "/auth/profile", ann["access_token"])[0] == 401
            assert http("POST", "/auth/session", bob["refresh_token"])[0] == 201
            late = RawConnection(server.url, "test", ann["access_token"])
            assert _close_code(late) == 4001
            assert http.log_in()[0] == again
            if action == "disable":
                assert http.log_in()[1] == "UserDisabled: user disabled"
                assert main([*arguments[:2], "enable", *arguments[3:]]) == 0
                assert http.log_in()[0] == 200
        finally:
            wire.close()
            other.close()
            http.client.close()


def test_admin_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    """Pending confirmations, mails and custom data are in reach of the command line; no token is logged."""
    data = ["--app", "test", "--data", str(tmp_path / "data")]
    with caplog.at_level(logging.DEBUG), served(tmp_path, confirm="mail") as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
    assert main(["admin", "users", "mails", *data]) == 0
    line = capsys.readouterr().out.strip()
    kind, email, token, token_id = line.split()
    assert (kind, email) == ("confirm", EMAIL)
    assert token.removeprefix("token=") not in caplog.text
    assert main(["admin", "users", "list", *data]) == 0
    assert "unconfirmed" in capsys.readouterr().out
    assert main(["admin", "users", "set-data", EMAIL, '{"team": "blue"}', *data]) == 0
    with served(tmp_path) as http:
        answer = {"token": token.partition("=")[2], "tokenId": token_id.partition("=")[2]}
        assert http.userpass("confirm", **answer) == (200, {})
        tokens = http.log_in()[1]
        assert claims_of(tokens["access_token"])["user_data"] == {"team": "blue"}
        assert main(["admin", "users", "set-data", EMAIL, '{"team": "red"}', *data]) == 0
        renewed = http("POST", "/auth/session", tokens["refresh_token"])[1]
        assert claims_of(renewed["access_token"])["user_data"] == {"team": "red"}
    assert main(["admin", "users", "list", *data]) == 0
    assert "enabled" in capsys.readouterr().out
    for wrong in (["show", "nobody"], ["disable"], ["set-data", EMAIL, "[1]"]):
        assert main(["admin", "users", *wrong, *data]) == 1
    assert "no user 'nobody'" in capsys.readouterr().err


def test_words_that_apps_compare(tmp_path: Path) -> None:
    """The tests of the SDKs compare these messages, as apps do."""
    with served(tmp_path) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        assert http.log_in(password="wrong-one") == (401, "InvalidPassword: unauthorized")
        assert http.log_in("nobody@example.com") == (401, "InvalidPassword: unauthorized")
        wanted = f"BadRequest: cannot run confirmation for {EMAIL}: automatic confirmation is enabled"
        assert http.userpass("confirm/call", email=EMAIL) == (400, wanted)


def test_a_function_without_a_result_answers_null(tmp_path: Path) -> None:
    """The Node SDK parses every answer of a function as JSON; an empty one ends its process."""
    with served(tmp_path, functions={"log": lambda user: None}) as http:
        token = http("POST", "auth/providers/anon-user/login")[1]["access_token"]
        url, bearer = f"{http.base}/app/test/functions/call", {"Authorization": f"Bearer {token}"}
        answer = http.client.post(url, headers=bearer, json={"name": "log", "arguments": []})
        assert (answer.status_code, answer.content) == (200, b"null")


def test_functions_of_services(tmp_path: Path) -> None:
    """What an app calls on a service, as a MongoDB collection does, does not reach the function of that name."""
    with served(tmp_path, functions={"find": lambda user, *_: "mine"}) as http:
        token = http("POST", "auth/providers/anon-user/login", provider="anon-user")[1]["access_token"]
        assert http("POST", "functions/call", token, name="find", arguments=[]) == (200, "mine")
        refused = http("POST", "functions/call", token, name="find", arguments=[], service="mongodb-atlas")
        assert refused == (404, "ServiceNotFound: service not found: 'mongodb-atlas'")


def test_custom_data_is_sent_in_the_form_that_clients_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real clients take a date that is written as text for a number; so it goes out in the one form they read."""
    data = ["--app", "test", "--data", str(tmp_path / "data")]
    with served(tmp_path) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        text = '{"since": {"$date": "2020-01-01T00:00:00Z"}, "id": {"$uuid": "00112233-4455-6677-8899-aabbccddeeff"}}'
        assert main(["admin", "users", "set-data", EMAIL, text, *data]) == 0
        sent = claims_of(http.log_in()[1]["access_token"])["user_data"]
        assert sent == {
            "since": {"$date": {"$numberLong": "1577836800000"}},
            "id": {"$binary": {"base64": "ABEiM0RVZneImaq7zN3u/w==", "subType": "04"}},
        }
    for wrong in ('{"since": {"$date": "yesterday"}}', '{"n": {"$numberDecimal": "x"}}', '{"n": {"$binary": 1}}'):
        assert main(["admin", "users", "set-data", EMAIL, wrong, *data]) == 1
        assert "extended JSON" in capsys.readouterr().err


def test_admin_confirms(tmp_path: Path) -> None:
    """An administrator may confirm an address by hand."""
    with served(tmp_path, development=True, confirm="mail") as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        assert http.log_in()[0] == 401
        assert main(["admin", "users", "confirm", EMAIL, "--app", "test", "--data", str(tmp_path / "data")]) == 0
        assert http.log_in()[0] == 200


def test_delete_by_the_user(tmp_path: Path) -> None:
    """A user who deletes themself is gone with keys and identities, and the address is free."""
    with served(tmp_path) as http:
        http.userpass("register", email=EMAIL, password=PASSWORD)
        tokens = http.log_in()[1]
        key = http("POST", "/auth/api_keys", tokens["refresh_token"], name="k")[1]["key"]
        assert http("DELETE", "/auth/delete", tokens["access_token"])[0] == 204
        assert http.log_in()[0] == 401
        assert http("POST", "auth/providers/api-key/login", key=key)[0] == 401
        assert http.userpass("register", email=EMAIL, password=PASSWORD)[0] == 201
        assert http.log_in()[1]["user_id"] != tokens["user_id"]


def test_command_line_loads_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``module:name`` is imported; what cannot be is one clear error."""
    from realmframe.cli import build_parser, load

    (tmp_path / "mine_of_accounts.py").write_text("FUNCTIONS = {'one': lambda user: 1}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("mine_of_accounts:FUNCTIONS")["one"]("u") == 1
    assert load("auto") == "auto"
    for wrong in ("mine_of_accounts:nothing", "no_such_module_at_all:f"):
        with pytest.raises(UsageError, match="cannot be loaded"):
            load(wrong)
    found = build_parser().parse_args(["serve", "--jwks", "k.json", "--jwt-field", "name=name", "--confirm", "mail"])
    assert (found.jwks, found.jwt_field, found.confirm) == ("k.json", ["name=name"], "mail")
