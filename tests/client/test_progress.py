"""How far transfers are: never backwards, in the SDKs' forms; and what httpx's log may say of the connection."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import realmframe as rf
from realmframe.client import connection  # noqa: F401 - it keeps tokens out of httpx's log
from realmframe.client.news import News
from realmframe.client.observers import in_sdk_form
from realmframe.client.progress import TransferProgress, UploadMeter


@dataclass
class Store:
    """What a meter sees of a store."""

    changes: list[Any] = field(default_factory=list)
    acknowledged: int = 0

    @property
    def snapshot(self) -> Any:
        """The newest version."""
        return SimpleNamespace(version=self.changes[-1].version if self.changes else 0)

    @property
    def progress(self) -> Any:
        """What the server has."""
        return SimpleNamespace(upload_client_version=self.acknowledged)

    def pending(self, after: int) -> list[Any]:
        """Local changes after a version."""
        return [change for change in self.changes if change.version > after]

    def write(self, version: int, size: int) -> None:
        """Write something."""
        self.changes.append(SimpleNamespace(version=version, changeset=bytes(size)))


@pytest.mark.parametrize("outstanding_only", [True, False])
def test_uploads(outstanding_only: bool) -> None:
    """Acknowledged bytes of all that was written; of what waited at the beginning alone where that was asked for."""
    store = Store()
    store.write(3, 100)
    store.write(5, 300)
    meter = UploadMeter(store, outstanding_only=outstanding_only)  # type: ignore[arg-type]
    store.write(7, 600)
    total = 400 if outstanding_only else 1000
    now = meter.read()
    assert (now.phase, now.bytes, now.transferable, now.fraction) == ("upload", 0, total, 0.0)
    store.acknowledged = 3
    now = meter.read()
    assert (now.phase, now.bytes, now.transferable, now.fraction) == ("upload", 100, total, 100 / total)
    store.acknowledged = 5
    now = meter.read()
    assert (now.phase, now.bytes) == ("done" if outstanding_only else "upload", 400)
    store.acknowledged = 7
    now = meter.read()
    assert (now.phase, now.bytes, now.transferable, now.fraction) == ("done", total, total, 1.0)


def test_the_fraction_never_falls_within_a_phase() -> None:
    """An estimate that is lower than the one before is not told; a new phase begins anew."""
    now = TransferProgress("download").after(fraction=0.5)
    assert now.after(fraction=0.2).fraction == 0.5
    assert now.after(fraction=0.7).fraction == 0.7
    assert now.after(phase="upload", fraction=0.2).fraction == 0.2


def test_the_forms_of_the_sdks() -> None:
    """A function of two is told bytes transferred and transferable, in this order; a function of one the estimate."""
    now = TransferProgress("download", bytes=3, fraction=0.25, transferable=12)
    assert in_sdk_form(lambda transferred, transferable: (transferred, transferable))(now) == (3, 12)
    assert in_sdk_form(lambda estimate: estimate)(now) == 0.25
    with pytest.raises(rf.UsageError, match="takes"):
        in_sdk_form(lambda: None)


@pytest.mark.parametrize(
    ("flexible", "estimate", "still", "fraction", "transferable"),
    [
        (True, 0.25, 0, 0.25, 400),
        (True, 7.0, 0, 1.0, 100),  # nothing that the server says is believed beyond 0 to 1
        (True, -1.0, 0, 0.0, 100),
        (False, 0.0, 300, 0.25, 400),  # by bytes, where the server says how many are still to come
        (False, 0.0, 0, 0.0, 100),
        (True, 0.0, 300, 0.0, 400),
    ],
)
def test_downloads(flexible: bool, estimate: float, still: int, fraction: float, transferable: int) -> None:
    """Bytes that came, and how many there are by what the server says."""
    session: Any = SimpleNamespace(
        transfer=TransferProgress("download"),
        options=SimpleNamespace(flexible=flexible),
        follow_ups=SimpleNamespace(progressed=lambda: None),
        patience=SimpleNamespace(calm=lambda: None, trouble=lambda: None),
        integration=SimpleNamespace(put=lambda _event: None),
        binding=SimpleNamespace(connection=None),
        notify=lambda: None,
    )
    News(session)._count((SimpleNamespace(changeset=bytes(100)),), estimate, still)
    now = session.transfer
    assert (now.bytes, now.batches, now.changesets) == (100, 1, 1)
    assert (now.fraction, now.transferable) == (fraction, transferable)


def test_no_token_in_the_log_of_requests(caplog: pytest.LogCaptureFixture) -> None:
    """The websocket's URL holds an access token; httpx logs URLs."""
    with (
        caplog.at_level(logging.INFO),
        httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as web,
    ):
        web.get("http://server.test/realm-sync?baas_at=e30.secret.x&more=1")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert "secret" not in line
    assert "baas_at=***&more=1" in line
