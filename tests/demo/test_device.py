"""A device keeps changing its flights, also when it is started again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from realmframe.store import RealmStore
from tests.demo.conftest import APP_ID


@pytest.mark.process
def test_second_start_changes_something(demo_url: str, tmp_path: Path) -> None:
    """What it writes differs from what it wrote before, so that others see it."""
    versions = []
    for _ in range(2):
        command = [sys.executable, "-m", "realmframe.demo.device", "--url", demo_url, "--app", APP_ID]
        command += ["--folder", str(tmp_path), "--carrier", "DL", "--rate", "30", "--seconds", "1"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            # Its standard input stays open meanwhile: a device stops when that closes.
            assert process.wait(60) == 0
        store = RealmStore.open(next(tmp_path.rglob("DL.realm")), create=False, read_only=True)
        versions.append(store.snapshot.version)
        store.close()
    assert versions[1] - versions[0] > 5
