"""The recorded HTTP requests of the real client, sent to the server: same status, and every key it reads is there."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests import transcripts
from tests.waiting import WAIT

NAMES = ("flx_first_open_anonymous", "auth_anonymous_reuse_and_link", "auth_email_password", "auth_api_key")
#: Mails that this server does not send: confirmation and reset come from its own administration.
LEFT_OUT = ("/confirm", "/reset")


def _shape(value: Any) -> Any:
    """Give the keys and types of a JSON document; lists by their first element."""
    if isinstance(value, dict):
        return {key: _shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_shape(part) for part in value[:1]]
    return type(value).__name__


def _lacks(found: Any, wanted: Any, where: str = "") -> list[str]:
    """List what the recorded answer has and ours has not, or has otherwise."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        missing = [f"{where}.{key}" for key in wanted if key not in found]
        return missing + [
            m for key in wanted if key in found for m in _lacks(found[key], wanted[key], f"{where}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(found, list):
        return _lacks(found[0], wanted[0], f"{where}[0]") if wanted and found else []
    return [] if found == wanted else [f"{where}: {found} instead of {wanted}"]


class Replay:
    """Sends recorded requests with this server's tokens and ids in place of the recorded ones."""

    def __init__(self, url: str, app: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=WAIT)
        self.app = app
        self.ours: dict[str, str] = {}

    def _translate(self, text: str) -> str:
        for recorded, ours in self.ours.items():
            text = text.replace(recorded, ours)
        return text.replace("/app/myapp/", f"/app/{self.app}/")

    def send(self, record: dict[str, Any]) -> tuple[int, Any]:
        """Send one request; give status and body."""
        headers = {k: self._translate(v) for k, v in record["headers"].items() if k == "Authorization"}
        path = self._translate(record["path"])
        body = json.loads(self._translate(json.dumps(record["body"])))
        answer = self.client.request(record["method"], path, headers=headers, json=body)
        body = answer.json() if answer.content else None
        wanted = record["response_body"]
        if isinstance(wanted, dict) and isinstance(body, dict):
            for key in ("access_token", "refresh_token", "_id", "key"):
                if key in wanted and key in body:
                    self.ours[wanted[key]] = body[key]
        return answer.status_code, body


@pytest.mark.parametrize("name", NAMES)
def test_recorded_requests(name, shared_server, app_id):
    """Each request gets the recorded status and an answer of the recorded shape."""
    replay = Replay(shared_server.url, f"{app_id}-http")
    sent = 0
    with replay.client:
        for record in transcripts.records(name):
            if record["kind"] != "http" or any(part in record["path"] for part in LEFT_OUT):
                continue
            status, body = replay.send(record)
            where = f"{record['method']} {record['path']}"
            assert status == record["status"], where
            assert _lacks(_shape(body), _shape(record["response_body"])) == [], where
            sent += 1
    assert sent >= 3
