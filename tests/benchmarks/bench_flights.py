"""Benchmark of the whole way: the flights of the demo loaded, brought into frames, reopened, and kept current.

Run it as ``python tests/benchmarks/bench_flights.py``. The server, the loader, each notebook and the device are
processes of their own, as in the demo. Beside it: the same rows parsed from JSON into frames, without any network.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

import realmframe as rf
from realmframe.demo.dataset import SCHEMA, tables
from realmframe.demo.loader import load
from realmframe.demo.processes import free_port, server

APP = "flights"
RUNS = 5
COMMITS = 300
WARM = 30  # the first commits of a process load the compiled kernels: about half a second, once
PAUSE = 0.03


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def _loopback() -> float:
    counters = psutil.net_io_counters(pernic=True)
    return float(next(counters[name] for name in ("lo", "lo0") if name in counters).bytes_recv)


def _open(url: str, folder: Path) -> rf.Realm:
    app = rf.App(APP, base_url=url, base_file_path=folder)
    user = app.current_user or app.log_in(rf.Credentials.anonymous())

    def subscribe(subscriptions: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
        for name in SCHEMA:
            subscriptions.add(name)

    old = rf.OpenRealmBehaviorConfiguration(type="open_immediately")
    sync = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=subscribe, existing_realm_file_behavior=old)
    return rf.Realm.open(path="flights.realm", schema=None, sync=sync)


def notebook(url: str, folder: Path) -> dict[str, float]:
    """Bring everything into frames; then, once more from disk."""
    wire = _loopback()
    begun = time.perf_counter()
    with _open(url, folder) as realm:
        objects = sum(len(realm[name]) for name in SCHEMA)
        seconds = time.perf_counter() - begun
        wire = _loopback() - wire
        data = sum(realm.snapshot.column(name, field).nbytes for name in SCHEMA for field in realm[name].columns)
        memory = _megabytes(psutil.Process())
    return {"objects": objects, "seconds": seconds, "wire": wire / 1e6, "data": data / 1e6, "memory": memory}


def reopen(url: str, folder: Path) -> dict[str, float]:
    """Open what is on disk, up to the first length of a frame."""
    rf.Realm, rf.SyncConfiguration  # noqa: B018 - imported on first use
    begun = time.perf_counter()
    with _open(url, folder) as realm:
        len(realm["Flight"])
        return {"seconds": time.perf_counter() - begun, "memory": _megabytes(psutil.Process())}


def device(url: str, folder: Path) -> dict[str, list[float]]:
    """Commit one change after another; note when each began."""
    begun = []
    with _open(url, folder) as realm:
        for number in range(COMMITS):
            time.sleep(PAUSE)
            begun.append(time.monotonic())
            with realm.write() as tx:
                tx.upsert("Flight", {"_id": 0, "flight": 100_000 + number})
        realm.upload_all_local_changes(timeout=60.0)
    return {"begun": begun}


def watcher(url: str, folder: Path) -> dict[str, list[float]]:
    """Note when the frame shows each change of the device."""
    seen = [0.0] * COMMITS
    last = -1
    with _open(url, folder) as realm:
        flights = realm["Flight"]
        print("ready", flush=True)
        ends = time.monotonic() + 60.0
        while last < COMMITS - 1 and time.monotonic() < ends:
            realm.wait_for_changes(timeout=1.0)
            number = int(flights["flight"].iloc[0]) - 100_000
            now = time.monotonic()
            for earlier in range(last + 1, number + 1):
                seen[earlier] = now
            last = max(last, number)
    return {"seen": seen}


def _process(what: Callable[..., Any], url: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), what.__name__, url, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _result(process: subprocess.Popen[str]) -> Any:
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
    return json.loads(out.splitlines()[-1])


def _json_seconds(folder: Path) -> float:
    """Measure the alternative: rows as JSON documents, as a data API would give them, made into frames."""
    paths = []
    for name, rows in tables(None):
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(json.dumps(rows.to_pylist(), default=str))
    begun = time.perf_counter()
    for path in paths:
        pd.DataFrame(json.loads(path.read_text()))
    return time.perf_counter() - begun


def _latencies(url: str, folder: Path) -> list[float]:
    watching = _process(watcher, url, folder / "run0")
    assert watching.stdout is not None
    assert watching.stdout.readline() == "ready\n"
    writing = _process(device, url, folder / "run1")
    seen, begun = _result(watching)["seen"], _result(writing)["begun"]
    return [1e3 * (s - b) for s, b in zip(seen, begun, strict=True)][WARM:]


def main() -> None:
    """Run everything and print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server(folder / "server", free_port(0), APP) as url:
            backend = next(p for p in psutil.Process().children() if "serve" in p.cmdline())
            loaded = load(url, APP, folder, report=lambda *_: None)
            print(f"load by upload: {loaded.objects:,} objects in {loaded.seconds:.1f} s, {loaded.rate:,.0f} objects/s")
            runs = [_result(_process(notebook, url, folder / f"run{n}")) for n in range(RUNS)]
            seconds = statistics.median(r["seconds"] for r in runs)
            one = runs[-1]
            print(f"bootstrap into frames: {one['objects']:,} objects, {seconds:.2f} s, ", end="")
            print(f"{one['objects'] / seconds:,.0f} objects/s ({[round(r['seconds'], 2) for r in runs]})")
            print(f"wire: {one['wire']:.1f} MB for {one['data']:.1f} MB of columns, {one['wire'] / one['data']:.2f}")
            alternative = _json_seconds(folder)
            print(
                f"parsing the same rows from JSON, no network: {alternative:.2f} s; ratio {alternative / seconds:.2f}"
            )
            again = [_result(_process(reopen, url, folder / f"run{n}")) for n in range(RUNS)]
            print(f"reopen to the first len(): {1e3 * statistics.median(r['seconds'] for r in again):.1f} ms")
            lag = sorted(_latencies(url, folder))
            print(
                f"commit to another frame: p50 {statistics.median(lag):.1f} ms, p99 {lag[int(len(lag) * 0.99)]:.1f} ms"
            )
            memory = f"notebook {one['memory']:.0f} MB, reopened {again[-1]['memory']:.0f} MB"
            print(f"resident: server {_megabytes(backend):.0f} MB, {memory}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(globals()[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
