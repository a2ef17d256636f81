"""What the Node SDK (realm 12.15) asked over HTTP, asked again: each request gets the answer that it got then.

In the recordings ``node_http_*`` names such as ``access-001`` stand for tokens, keys and identifiers; here they are
bound to what this server says in their places.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from realmframe.server import tokens
from realmframe.server.passwords import Mail
from realmframe.testing import Server
from tests import transcripts
from tests.waiting import WAIT

from .conftest import claims_of

_NAME = re.compile(r"\b(?:access|refresh|user|device|identity|key-id|key|mail-token|mail-id|jwt)-\d{3}\b")
_JWT_KEY = "only-for-this-test-" * 2


def _fail(_user: str) -> None:
    raise RuntimeError("no such thing")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda _user, *numbers: sum(numbers),
    "echo": lambda _user, *values: list(values),
    "none": lambda _user: None,
    "who": lambda user: user,
    "fail": _fail,
}


def custom_login(payload: Mapping[str, Any]) -> str | dict[str, Any]:
    """Know those who logged in then."""
    if payload["name"] == "bad":
        raise ValueError("not you")
    return {"id": "m", "nick": "M", "age": 7} if payload["name"] == "mapping" else str(payload["name"])


class Replay:
    """Sends recorded requests with this server's tokens and identifiers, and compares the answers."""

    def __init__(
        self, server: Server, client: httpx.Client, mails: deque[Mail], set_clock: Callable[[float], None]
    ) -> None:
        self.server, self.client, self.mails, self.set_clock = server, client, mails, set_clock
        self.ours: dict[str, str] = {}
        self._ahead = 0.0

    def step(self, record: dict[str, Any]) -> None:
        """Do what a line of the recording says."""
        kind = record["kind"]
        if kind == "http":
            self._send(record)
        elif kind == "jwt":
            claims = {**record["claims"], "exp": int(time.time()) + 1_000}
            self._bind(record["name"], jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(_JWT_KEY)))
        elif kind == "mail":
            mail = self.mails.popleft()
            assert (mail.purpose, mail.email) == (record["purpose"], record["email"])
            self._bind(record["token"], mail.token)
            self._bind(record["token_id"], mail.token_id)
        elif kind == "clock":
            self._ahead += record["ahead"]
            self.set_clock(self._ahead)
        else:
            accounts = self.server._server.config.app.state.accounts
            getattr(accounts, record["what"])(*self._translated(record["arguments"]), **record.get("options", {}))

    def _send(self, record: dict[str, Any]) -> None:
        where = f"{record['method']} {record['path']}"
        headers, body = self._translated(record["headers"]), self._translated(record["body"])
        found = self.client.request(record["method"], self._translated(record["path"]), headers=headers, json=body)
        assert found.status_code == record["status"], f"{where}: {found.text}"
        assert found.headers.get("content-type") == record["response_headers"].get("Content-Type"), where
        exact = record["path"].endswith("/functions/call")
        self._compare(record["response_body"], found.json() if found.content else None, where, exact=exact)
        for name, wanted in record.get("tokens", {}).items():
            claims = claims_of(self.ours[name])
            facts = {"typ": claims["typ"], "life": claims["exp"] - claims["iat"], "user_data": claims.get("user_data")}
            assert facts | {"life": round(facts["life"], -1)} == wanted | {"life": round(wanted["life"], -1)}, where

    def _compare(self, wanted: Any, found: Any, where: str, *, exact: bool) -> None:
        """Fail if something of the recorded answer is missing or another; new members are ignored by the SDK."""
        if isinstance(wanted, str) and _NAME.fullmatch(wanted):
            self._bind(wanted, found)
        elif isinstance(wanted, dict):
            assert isinstance(found, dict), where
            assert not wanted.keys() - found.keys(), where
            assert not (exact and found.keys() - wanted.keys()), where
            for key, part in wanted.items():
                self._compare(part, found[key], f"{where}: {key}", exact=exact)
        elif isinstance(wanted, list):
            assert isinstance(found, list), where
            assert len(found) == len(wanted), where
            for one, other in zip(wanted, found, strict=True):
                self._compare(one, other, where, exact=exact)
        else:
            assert (type(found), found) == (type(wanted), self._translated(wanted)), where

    def _bind(self, name: str, value: str) -> None:
        assert isinstance(value, str)
        assert value
        assert self.ours.setdefault(name, value) == value, f"{name} has changed"
        same = [other for other, known in self.ours.items() if known == value]
        # Two tokens that are made for one log-in in the same second are one.
        assert same == [name] or name.startswith("access"), f"{same} are one"

    def _translated(self, form: Any) -> Any:
        if isinstance(form, str):
            host = self.server.url.partition("://")[2]
            return _NAME.sub(lambda found: self.ours[found[0]], form.replace("://server", f"://{host}"))
        if isinstance(form, list):
            return [self._translated(one) for one in form]
        if isinstance(form, dict):
            return {key: self._translated(one) for key, one in form.items()}
        return form


@pytest.fixture
def replay(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replay]:
    """Talk to a server like the recorded one."""

    def set_clock(ahead: float) -> None:
        monkeypatch.setattr(tokens, "time", SimpleNamespace(time=lambda: time.time() + ahead))

    mails = deque[Mail]()
    options = {"functions": FUNCTIONS, "custom_login": custom_login, "jwt": _JWT_KEY, "send_mail": mails.append}
    with (
        Server(tmp_path, confirm="mail", **options) as server,
        httpx.Client(base_url=server.url, timeout=WAIT) as client,
    ):
        yield Replay(server, client, mails, set_clock)
    assert not mails


@pytest.mark.parametrize("name", transcripts.names("node_http_"))
def test_every_request_gets_its_answer(name: str, replay: Replay) -> None:
    """Status, type and text of each answer, whose tokens are whose, and what is in them."""
    sent = 0
    for record in transcripts.records(name):
        replay.step(record)
        sent += record["kind"] == "http"
    assert sent > 20
