"""A server of the App Services API in a few lines, behind httpx's seam."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from realmframe.client import App
from realmframe.client.loop import stop_sync_loop

Answer = Callable[[httpx.Request], httpx.Response]


def token(name: str, expires_in: float = 1800.0, **claims: Any) -> str:
    """Make a token that expires in so many seconds."""
    payload = {"exp": int(time.time() + expires_in), "iat": int(time.time()), "sub": name, **claims}
    body = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    return f"e30.{body}.sig"


class FakeServices:
    """Answers requests from a table and remembers them."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, Answer | Exception] = {}
        self.serial = 0

    token = staticmethod(token)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        path = request.url.path.removeprefix("/api/client/v2.0")
        for suffix, answer in self.answers.items():
            if path.endswith(suffix):
                if isinstance(answer, Exception):
                    raise answer
                return answer(request)
        if path.endswith("/location"):
            return httpx.Response(200, json={"hostname": "", "ws_hostname": "ws://server.test"})
        if path.endswith("/login"):
            self.serial += 1
            return httpx.Response(
                200,
                json={
                    "access_token": token(f"access-{self.serial}", user_data={"n": {"$numberLong": "7"}}),
                    "refresh_token": token(f"refresh-{self.serial}"),
                    "user_id": f"user-{self.serial}",
                    "device_id": "device",
                },
            )
        if path.endswith("/auth/profile"):
            identity = {"id": "i-1", "provider_type": "anon-user"}
            return httpx.Response(200, json={"identities": [identity], "data": {"name": "Ann"}})
        if path.endswith("/auth/session") and request.method == "POST":
            self.serial += 1
            return httpx.Response(201, json={"access_token": token(f"access-{self.serial}")})
        return httpx.Response(204)

    @property
    def paths(self) -> list[str]:
        """What was asked so far."""
        return [f"{r.method} {r.url.path.removeprefix('/api/client/v2.0')}" for r in self.requests]

    @staticmethod
    def refuse(status: int, code: str, text: str = "no") -> Answer:
        """Make an answer that refuses."""
        return lambda _request: httpx.Response(status, json={"error": text, "error_code": code, "link": ""})


@pytest.fixture
def services() -> FakeServices:
    """A server with the default answers."""
    return FakeServices()


@pytest.fixture
def make_app(tmp_path: Path, services: FakeServices) -> Iterator[Callable[..., App]]:
    """Make apps of that server; the sync thread ends with the test."""

    def make(app_id: str = "app-1", **options: Any) -> App:
        options = {"base_url": "http://server.test", "base_file_path": tmp_path, "timeout": 5.0} | options
        return App(app_id, transport=httpx.MockTransport(services), **options)

    yield make
    stop_sync_loop()
