"""Benchmark of a time-out's promise: an open that times out returns within time-out + 50 ms, whatever goes wrong.

Run it as ``python tests/benchmarks/bench_opening.py [RUNS] [FIRST_SEED]`` (1,000 runs from seed 0 by default). Each
seed draws a fault of the line, the files that are there, a token that is good or has ended, what happens at the
time-out and when that is; the realm is large enough that the time-out often finds the client at work on it. The server
is a process of its own, the proxy a thread of this one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import realmframe as rf
from realmframe.client.loop import stop_sync_loop
from realmframe.realm.core import is_open
from realmframe.testing import FaultProxy, Faults, Server

ROWS = 20_000
LIMIT = 0.050
CLASS = rf.ObjectSchema(
    "Row",
    {"_id": "int", "name": "string", "n": "int", "x": "double?", "tags": "string[]", "day": "date"},
    "_id",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one seed draws."""

    seed: int
    faults: Faults
    time_out: float
    at_end: str
    files: str
    has_token: bool

    @classmethod
    def drawn(cls, seed: int) -> Run:
        """Draw everything from a seed."""
        chance = random.Random(seed)
        time_out = chance.choice([0.0, chance.uniform(0.0, 0.05), chance.uniform(0.05, 0.9)])
        at_end = chance.choice(["open_local_realm", "throw_exception"])
        faults = Faults.drawn(chance)
        files = chance.choices(["new", "complete", "begun"], [6, 2, 2])[0]
        return cls(seed, faults, time_out, at_end, files, chance.random() < 0.7)

    def __str__(self) -> str:
        values = {n: getattr(self.faults, n) for n in Faults.__slots__}
        default = Faults()
        faults = {n: v for n, v in values.items() if v != getattr(default, n)}
        token = "" if self.has_token else ", token ended"
        return (
            f"seed {self.seed}: {faults or 'no fault'}, files {self.files}{token}, {self.time_out:.3f} s, {self.at_end}"
        )


def ended_token() -> str:
    """Make an access token that has to be refreshed before anything else."""
    body = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) - 60}).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


def configuration(user: rf.User, path: str, behaviour: rf.OpenRealmBehaviorConfiguration | None) -> rf.Configuration:
    """Configure a realm that subscribes to all rows."""
    return rf.Configuration(
        path=path,
        schema=[CLASS],
        sync=rf.SyncConfiguration(
            user,
            flexible=True,
            initial_subscriptions=lambda subs, _realm: subs.add("Row"),
            new_realm_file_behavior=behaviour,
            existing_realm_file_behavior=behaviour,
            session_stop_policy="immediately",
        ),
    )


def fill(url: str, folder: Path) -> None:
    """Put the rows on the server."""
    user = rf.App("bench", base_url=url, base_file_path=folder).log_in(rf.Credentials.anonymous())
    rows = [
        {"_id": i, "name": f"row {i}", "n": i, "x": i / 3, "tags": ["a", "b"], "day": "2026-01-01"} for i in range(ROWS)
    ]
    import pandas as pd

    frame = pd.DataFrame(rows).assign(day=pd.Timestamp("2026-01-01", tz="UTC"))
    with rf.Realm.open(configuration(user, "all.realm", None)) as realm:
        with realm.write() as tx:
            tx.upsert("Row", frame)
        realm.upload_all_local_changes(timeout=60.0)


def prepared(one: Run, proxy: FaultProxy, folder: Path) -> tuple[rf.User, str]:
    """Have a user with the token and the files that the run begins with."""
    proxy.heal()
    app = rf.App("bench", base_url=proxy.url, base_file_path=folder, timeout=5.0)
    user = app.current_user
    if user is None or not user.is_logged_in:  # a run that answers 401 logs its user out
        user = app.log_in(rf.Credentials.anonymous(reuse=False))
    path = f"{user.id}-{'kept' if one.files == 'complete' else one.seed}.realm"
    if one.files == "complete" and not (folder / path).exists():
        rf.Realm.open(configuration(user, path, None)).close()
    elif one.files == "begun":
        proxy.fault(down=True)
        rf.Realm.open(configuration(user, path, rf.OpenRealmBehaviorConfiguration("open_immediately"))).abandon()
    if not one.has_token:
        app.metadata.change(user.id, access_token=ended_token())
    return user, path


def run(one: Run, proxy: FaultProxy, folder: Path) -> tuple[str, float]:
    """Open once; give how it ended and the seconds that it took beyond its time-out."""
    for _ in range(3):
        with contextlib.suppress(rf.AuthError):  # the last run's session may log the user out only now
            user, path = prepared(one, proxy, folder)
            break
    behaviour = rf.OpenRealmBehaviorConfiguration("download_before_open", one.time_out, one.at_end)
    wanted = configuration(user, path, behaviour)
    proxy.put(one.faults)
    begun = time.perf_counter()
    try:
        opening = rf.Realm.begin_open(wanted)
        realm = opening.result()
        took = time.perf_counter() - begun
        ended = "opened as it was" if opening.timed_out else "opened in time"
        realm.abandon()
    except rf.OpenTimeoutError as error:
        took = time.perf_counter() - begun
        ended = f"timed out in {error.phase}"
    except rf.RealmError as error:
        took = time.perf_counter() - begun
        ended = f"failed: {type(error).__name__}"
    if one.files != "complete":  # the next one to use those may come while this one ends in the background
        ends = time.monotonic() + 10.0
        while is_open(folder / path) and time.monotonic() < ends:
            time.sleep(0.002)
        shutil.rmtree(folder / path, ignore_errors=True)
    return ended, took - one.time_out


def report(late: list[tuple[float, Run, str]], endings: Counter[str]) -> bool:
    """Print the distribution; tell whether the promise holds."""
    late.sort(key=lambda row: row[0])
    print(f"{sum(endings.values())} runs:", ", ".join(f"{n} {what}" for what, n in endings.most_common()))
    if not late:
        return True
    values = [1e3 * row[0] for row in late]
    places = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
    shown = ", ".join(f"{name} {values[min(len(values) - 1, int(p * len(values)))]:.1f}" for name, p in places.items())
    over = sum(value > 1e3 * LIMIT for value in values)
    print(
        f"{len(late)} timed out; ms after the time-out: min {values[0]:.1f}, {shown}, max {values[-1]:.1f}; {over} late"
    )
    for seconds, one, ended in late[-5:]:
        print(f"  {1e3 * seconds:6.1f} ms: {ended}; {one}")
    return not over


def main(runs: int, first: int) -> bool:
    """Run them all."""
    late: list[tuple[float, Run, str]] = []
    endings: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="bench-opening-") as name:
        folder = Path(name)
        with Server(folder / "server", process=True, log_level="error") as server, FaultProxy(server) as proxy:
            fill(server.url, folder / "device")
            run(Run(-1, Faults(), 30.0, "throw_exception", "new", True), proxy, folder / "client")  # compiles
            begun = time.monotonic()
            for seed in range(first, first + runs):
                one = Run.drawn(seed)
                ended, seconds = run(one, proxy, folder / "client")
                endings[ended] += 1
                if "timed out" in ended or "as it was" in ended:
                    late.append((seconds, one, ended))
            print(f"{time.monotonic() - begun:.0f} s, {ROWS:,} rows in the realm")
            proxy.heal()
            stop_sync_loop()
    return report(late, endings)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:3]]
    sys.exit(0 if main(*(numbers + [1_000, 0][len(numbers) :])) else 1)
