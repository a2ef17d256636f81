"""A server with a certificate: https and wss end to end, and certificates that are not accepted."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import realmframe as rf
from realmframe.cli import main
from realmframe.client.transport import tls_context
from realmframe.errors import NetworkError, UsageError
from realmframe.server import Tls
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT, until

pytest.importorskip("cryptography")
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")


def make(folder: Path, *, password: bytes | None = None, days: int = 1) -> Tls:
    """Make a certificate of 127.0.0.1 that vouches for itself."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "realmframe test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    found = Tls(folder / "certificate.pem", folder / "key.pem")
    Path(found.certificate).write_bytes(certificate.public_bytes(Encoding.PEM))
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    Path(str(found.key)).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return found


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tls]:
    """Make a certificate that clients of this process trust, as OpenSSL is told which ones to."""
    found = make(tmp_path / "tls")
    monkeypatch.setenv("SSL_CERT_FILE", str(found.certificate))
    tls_context.cache_clear()
    yield found
    tls_context.cache_clear()


def log_in(url: str, folder: Path) -> rf.User:
    """Log in."""
    return rf.App("dogs", base_url=url, base_file_path=folder).log_in(rf.Credentials.anonymous())


def open_dogs(user: rf.User, time_out: float = WAIT) -> rf.Realm:
    """Open a realm with all dogs."""
    wait = rf.OpenRealmBehaviorConfiguration("download_before_open", time_out, "throw_exception")
    sync = rf.SyncConfiguration(
        user,
        flexible=True,
        initial_subscriptions=lambda subs, _realm: subs.add("Dog"),
        new_realm_file_behavior=wait,
        existing_realm_file_behavior=wait,
    )
    return rf.Realm.open(path="dogs.realm", schema=[DOG], sync=sync)


def test_two_clients(tls: Tls, tmp_path: Path) -> None:
    """Users log in by https, realms sync by wss: the server says so where it tells clients where it is."""
    with Server(tls=tls) as server:
        assert server.url.startswith("https://")
        users = [log_in(server.url, tmp_path / name) for name in "ab"]
        with open_dogs(users[0]) as mine, open_dogs(users[1]) as other:
            with mine.write() as tx:
                tx.upsert("Dog", [{"_id": 1, "name": "Rex"}])
            mine.upload_all_local_changes(timeout=WAIT)
            other.download_all_server_changes(timeout=WAIT)
            other.refresh()
            assert list(other["Dog"].name) == ["Rex"]


def test_behind_a_proxy() -> None:
    """A proxy on the same machine that ends TLS says what the client used, and so does the server."""
    with Server() as server:
        path = f"{server.url}/api/client/v2.0/app/dogs/location"
        for headers, scheme in (({}, ""), ({"X-Forwarded-Proto": "https"}, "s")):
            found = httpx.get(path, headers={"Host": "sync.example.com", **headers}, timeout=WAIT).json()
            assert found["hostname"] == f"http{scheme}://sync.example.com"
            assert found["ws_hostname"] == f"ws{scheme}://sync.example.com"


def test_certificate_that_is_not_trusted(tls: Tls, tmp_path: Path) -> None:
    """Nothing is sent to a server whose certificate is somebody else's, ended, or not there; the error says which."""
    for number, other in enumerate((make(tmp_path / "other"), make(tmp_path / "old", days=-1))):
        with Server(tls=other) as server, pytest.raises(NetworkError, match=r"(?i)certificate"):
            log_in(server.url, tmp_path / f"a{number}")
    with Server(tls=tls) as server, pytest.raises(NetworkError):
        log_in(server.url.replace("https", "http"), tmp_path / "plain")
    with Server() as server, pytest.raises(NetworkError):
        log_in(server.url.replace("http", "https"), tmp_path / "secure")


def test_certificate_that_changes(tls: Tls, tmp_path: Path) -> None:
    """A realm that was open stays usable while the server has a certificate that is not trusted, and syncs after it."""
    other = make(tmp_path / "other")
    data = tmp_path / "data"
    with Server(data, tls=tls) as server:
        port = server.port
        realm = open_dogs(log_in(server.url, tmp_path / "a"))
    with realm:
        with Server(data, port=port, tls=other):
            realm.sync_session.reconnect()
            assert until(lambda: "certificate" in str(realm.sync_session.last_error).lower())
            assert not realm.sync_session.is_connected
            with realm.write() as tx:
                tx.upsert("Dog", [{"_id": 1, "name": "Rex"}])
        with Server(data, port=port, tls=tls):
            realm.sync_session.reconnect()
            realm.upload_all_local_changes(timeout=WAIT)


def test_handshake_that_stalls(tls: Tls, tmp_path: Path) -> None:
    """A connection that goes no further than into the TLS handshake costs an open its time-out and no more."""
    with Server(tls=tls) as server, FaultProxy(server) as line:
        user = log_in(line.url, tmp_path / "a")
        open_dogs(user).close()
        line.fault(stall_after=100)
        with pytest.raises(rf.OpenTimeoutError, match=r"0\.5 s"):
            open_dogs(user, 0.5)
        line.heal()
        open_dogs(user).close()


@pytest.mark.parametrize("what", ["missing", "no certificate", "no key", "another key", "password"])
def test_certificate_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    """The server does not start; the error names the files and asks nothing at the terminal."""
    found = make(tmp_path / "tls", password=b"secret" if what == "password" else None)
    certificate, key = Path(found.certificate), Path(str(found.key))
    if what == "missing":
        certificate.unlink()
    elif what == "no certificate":
        certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    elif what == "no key":
        key = certificate
    elif what == "another key":
        key = Path(str(make(tmp_path / "other").key))
    with pytest.raises(UsageError, match="TLS is not possible with"), Server(tls=Tls(certificate, key)):
        pass
    arguments = ["serve", "--data", str(tmp_path / "data"), "--port", "0"]
    assert main([*arguments, "--tls-certificate", str(certificate), "--tls-key", str(key)]) != 0
    assert str(certificate) in capsys.readouterr().err
    assert main([*arguments, "--tls-key", str(key)]) != 0
    assert "--tls-certificate" in capsys.readouterr().err
