"""``realmframe demo``: everything running, in one command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from realmframe.demo.loader import Loaded, already_loaded, load
from realmframe.demo.processes import devices, free_port, server
from realmframe.errors import UsageError

APP_ID: Final = "flights"
CARRIERS: Final = ("UA", "B6", "EV", "DL", "AA", "MQ")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How to run the demo.

    Attributes
    ----------
    headless : bool
        Execute the notebook without a browser and print what it shows.
    data : Path
        Folder of the demo's server, realms and notebook; a second start reuses it.
    port : int
        Port of the server on 127.0.0.1; another one is taken if it is in use.
    devices : int
        Device processes, 0 to 6.
    rate : float
        Changes a second of each device.
    flights : int or None
        Load only so many flights (all by default).
    """

    headless: bool = False
    data: Path = Path("realmframe-demo")
    port: int = 9090
    devices: int = 4
    rate: float = 2.0
    flights: int | None = None


def run(options: DemoOptions) -> int:
    """Start the server, load the data, start the devices, open the notebook; return an exit status."""
    if not 0 <= options.devices <= len(CARRIERS):
        raise UsageError(f"The demo has 0 to {len(CARRIERS)} devices, not {options.devices}.")
    folder = options.data.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with server(folder / "server", free_port(options.port), APP_ID) as url:
        _say(f"server     {url}  (log: {folder / 'server' / 'server.log'})")
        loaded = already_loaded(folder, options.flights)
        if loaded is None:
            loaded = load(url, APP_ID, folder, flights=options.flights, report=_progress)
            _say(f"loaded     {loaded.objects:,} objects in {loaded.seconds:.1f} s ({loaded.rate:,.0f} objects/s)")
        else:
            _say(f"data       {loaded.objects:,} objects, loaded by an earlier start")
        with devices(url, APP_ID, folder / "devices", CARRIERS[: options.devices], options.rate):
            _say(f"devices    {options.devices}, each changing about {options.rate:g} flights a second")
            notebook = _copy_notebook(folder)
            environment = {**os.environ, "REALMFRAME_URL": url, "REALMFRAME_APP": APP_ID}
            if options.headless:
                return _headless(notebook, environment, loaded, begun)
            return _lab(notebook, environment)


def _say(text: str) -> None:
    print(text, flush=True)


def _progress(phase: str, done: int, total: int) -> None:
    if sys.stdout.isatty():
        width = 30 * done // total
        print(f"\r{phase:18} [{'#' * width}{'.' * (30 - width)}] {done:,}/{total:,}", end="", flush=True)
        if done == total and phase == "uploading":
            print()
    elif phase == "uploading" or done % 50_000 < 5_000:
        _say(f"{phase:18} {done:,}/{total:,}")


def tour_source() -> Path:
    """Find the tour: in the package of an installed wheel, else in the repository's ``notebooks``."""
    here = Path(__file__).parent
    for path in (here / "tour.ipynb", here.parents[1] / "notebooks" / "tour.ipynb"):
        if path.is_file():
            return path
    raise UsageError("The demo's notebook is missing from this installation.")


def _copy_notebook(folder: Path) -> Path:
    target = folder / "tour.ipynb"
    if not target.exists():
        shutil.copyfile(tour_source(), target)
    return target


def _lab(notebook: Path, environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", "jupyterlab", str(notebook)]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # as in a container
    _say("JupyterLab opens in your browser; Ctrl-C here ends everything.")
    try:
        return subprocess.call(command, env=environment, cwd=notebook.parent)  # noqa: S603
    except KeyboardInterrupt:
        return 0


def _headless(notebook: Path, environment: dict[str, str], loaded: Loaded, begun: float) -> int:
    from realmframe.demo.headless import execute

    result = execute(notebook, environment, emit=_say)
    summary: dict[str, Any] = {
        "objects": loaded.objects,
        "load_seconds": round(loaded.seconds, 2),
        "load_objects_per_second": round(loaded.rate),
        "notebook_seconds": round(result.seconds, 2),
        "cells": result.cells,
        "changes_seen": result.changes_seen,
        "total_seconds": round(time.perf_counter() - begun, 2),
    }
    _say("summary    " + json.dumps(summary))
    return 0 if result.error is None else 1
