"""App Services over HTTP as clients use it; a killed server loses and repeats nothing."""

from __future__ import annotations

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError

from realmframe.changes import Changeset
from realmframe.changes.instructions import AddColumn, AddTable, CreateObject, Update
from realmframe.model import ClassKind, PropertyType
from realmframe.server.running import configuration
from realmframe.testing import Server
from tests.waiting import WAIT

from .conftest import RawConnection, claims_of, log_in

SCHEMA = Changeset.from_instructions(
    [
        AddTable("Person", ClassKind.TOPLEVEL, "_id", PropertyType.INT),
        AddColumn("Person", "age", PropertyType.INT),
    ]
).encode()


def person(key: int, age: int) -> bytes:
    """Create an object."""
    made = [CreateObject("Person", key), Update("Person", key, "age", (), age)]
    return Changeset.from_instructions(made).encode()


def test_tokens_and_passwords(shared_server, app_id):
    """Registering, logging in, refreshing and logging out answer what clients need, errors in their exact form."""
    base = f"{shared_server.url}/api/client/v2.0"
    with httpx.Client(timeout=WAIT) as http:
        up = f"{base}/app/{app_id}/auth/providers/local-userpass"
        location = http.get(f"{base}/app/{app_id}/location").json()
        assert location["hostname"] == shared_server.url
        assert location["ws_hostname"] == shared_server.url.replace("http", "ws", 1)
        ann = {"email": "ann@example.com", "password": "secret-1"}
        assert http.post(f"{up}/register", json=ann).status_code == 201
        again = http.post(f"{up}/register", json=ann)
        assert (again.status_code, again.json()["error_code"]) == (409, "AccountNameInUse")
        wrong = http.post(f"{up}/login", json={"username": ann["email"], "password": "nope-nope"})
        assert (wrong.status_code, wrong.json()["error_code"]) == (401, "InvalidPassword")
        assert wrong.headers["content-type"] == "application/json"
        found = http.post(f"{up}/login", json={"username": ann["email"], "password": "secret-1"}).json()
        claims = claims_of(found["access_token"])
        assert isinstance(claims["exp"], int)
        assert isinstance(claims["iat"], int)
        assert "user_data" not in claims
        access = {"Authorization": f"Bearer {found['access_token']}"}
        refresh = {"Authorization": f"Bearer {found['refresh_token']}"}
        profile = http.get(f"{base}/auth/profile", headers=access).json()
        assert profile["identities"][0]["provider_type"] == "local-userpass"
        assert http.post(f"{base}/auth/session", headers=access).status_code == 401
        assert http.post(f"{base}/auth/session", headers=refresh).status_code == 201
        assert http.delete(f"{base}/auth/session", headers=refresh).status_code == 204
        assert http.post(f"{base}/auth/session", headers=refresh).status_code == 401


@pytest.mark.process
def test_killed_server_loses_and_repeats_nothing(tmp_path):
    """After kill -9 everything acknowledged is there, and an upload sent again is not applied twice."""
    server = Server(tmp_path / "data", process=True)
    server.start()
    try:
        token = log_in(server.url)["access_token"]
        wire = RawConnection(server.url, "test", token)
        one = wire.session()
        one.open()
        one.upload(2, SCHEMA)
        one.query(1, Person="(TRUEPREDICATE )")
        one.upload(4, person(1, 10), person(2, 20))
        assert not one.errors
        ident, version, latest = one.ident, one.rules.client, one.rules.version
        server.kill()
        server.start()
        wire = RawConnection(server.url, "test", token)
        two = wire.session()
        two.open((ident.file_ident, ident.salt, latest, version), {"Person": "(TRUEPREDICATE )"}, 1)
        two.rules.has_written = 5
        two.upload(5, person(1, 11), person(3, 30))
        other = RawConnection(server.url, "test", log_in(server.url)["access_token"]).session()
        other.open()
        other.query(1, Person="(TRUEPREDICATE )")
        created = [
            i.pk for e in other.entries for i in Changeset.decode(e.changeset).instructions() if type(i) is CreateObject
        ]
        assert sorted(created) == [1, 2, 3]
    finally:
        server.stop()


def test_unused_connections_outlive_those_of_proxies():
    """A request on a connection that the server is closing fails; so clients and proxies (60 s) have to close first."""
    assert configuration(None, "127.0.0.1", 0, "warning").timeout_keep_alive > 60


def test_end_of_the_server_is_no_breach_of_the_protocol(tmp_path, app_id):
    """A server that ends in order just ends the connections: 1012, as any unknown code, is an error to real clients."""
    with Server(tmp_path) as server:
        wire = RawConnection(server.url, app_id, log_in(server.url, app_id)["access_token"])
        wire.session().open()
        server.stop()
        with pytest.raises(ConnectionClosedError) as caught:
            wire.until(lambda: False)
    assert caught.value.rcvd is None
