"""The processes of the demo: one server and several devices, ended with it whatever happens."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from realmframe.errors import NetworkError

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0


def free_port(wanted: int) -> int:
    """Give the port wanted if nobody listens there, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise NetworkError("This machine has no free port on 127.0.0.1.")


@contextlib.contextmanager
def server(data: Path, port: int, app_id: str) -> Iterator[str]:
    """Run ``realmframe serve`` in its own process; give its URL once it answers."""
    url = f"http://127.0.0.1:{port}"
    data.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "realmframe", "serve", "--data", str(data), "--port", str(port)]
    with (data / "server.log").open("ab") as log, _ended(command, log) as process:
        _wait_until_up(f"{url}/api/client/v2.0/app/{app_id}/location", process, data / "server.log")
        yield url


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            raise NetworkError(f"The demo's server ended at once (status {process.returncode}).", hint=f"See {log}.")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own loopback address
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise NetworkError(f"The demo's server did not answer within {_START_SECONDS:.0f} s.", hint=f"See {log}.")


@contextlib.contextmanager
def devices(url: str, app_id: str, folder: Path, carriers: Sequence[str], rate: float) -> Iterator[None]:
    """Run one device process per carrier; they stop when their standard input closes, also if this process dies."""
    with contextlib.ExitStack() as stack:
        for carrier in carriers:
            home = folder / carrier
            home.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "realmframe.demo.device", "--url", url, "--app", app_id]
            command += ["--folder", str(home), "--carrier", carrier, "--rate", str(rate)]
            log = stack.enter_context((home / "device.log").open("ab"))
            stack.enter_context(_ended(command, log))
        yield


@contextlib.contextmanager
def _ended(command: Sequence[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None and "serve" in command:
            process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)
