"""A demo in small: its server, a few thousand flights, and a JupyterLab, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realmframe.demo.loader import load
from realmframe.demo.processes import free_port, server

FLIGHTS = 3_000
APP_ID = "flights"


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the demo."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def demo_url(demo_folder: Path) -> Iterator[str]:
    """A server that holds a small part of the data set, loaded through the client's upload path."""
    with server(demo_folder / "server", free_port(0), APP_ID) as url:
        load(url, APP_ID, demo_folder, flights=FLIGHTS, report=lambda *_: None, timeout=120.0)
        yield url


def find_chromium() -> str:
    """Give the browser's path, or skip with the reason (fail where it is required)."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = "no Chromium on this machine"
        if os.environ.get("REALMFRAME_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@contextlib.contextmanager
def jupyter_lab(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run JupyterLab on a free loopback port; give its URL with the token."""
    port = free_port(0)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += ["--LabApp.expose_app_in_browser=True", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    log = folder / "lab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield _wait_for_url(log, process)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


def _wait_for_url(log: Path, process: subprocess.Popen[bytes]) -> str:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", log.read_text(errors="replace"))
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-2000:]}")
