"""One device in the field: an airline's tablet that keeps changing its flights until it is told to stop.

Run as ``python -m realmframe.demo.device --url URL --app ID --folder DIR --carrier UA``.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import realmframe as rf

GATES: Final = [f"{hall}{number}" for hall in "ABC" for number in range(1, 31)]


def change_one(realm: rf.Realm, flight: int, rng: random.Random) -> str:
    """Change one flight as a gate agent would; return what was done."""
    kind = rng.choices(("delay", "gate", "cancel"), (6, 3, 1))[0]
    with realm.write() as tx:
        if kind == "delay":
            late = float(rng.randint(-5, 180))
            tx.upsert("Flight", {"_id": flight, "dep_delay": late, "arr_delay": late + rng.randint(-20, 20)})
        elif kind == "gate":
            tx.upsert("Flight", {"_id": flight, "gate": rng.choice(GATES)})
        else:
            tx.upsert("Flight", {"_id": flight, "cancelled": True, "dep_delay": None, "arr_delay": None})
    return kind


def run(url: str, app_id: str, folder: Path, carrier: str, rate: float, seconds: float) -> int:
    """Open the carrier's flights, then change one at a time; return how many were changed.

    Parameters
    ----------
    rate : float
        Changes a second.
    seconds : float
        Stop after so long.
    """
    app = rf.App(app_id, base_url=url, base_file_path=folder)
    user = app.current_user or app.log_in(rf.Credentials.anonymous())
    sync = rf.SyncConfiguration(
        user,
        flexible=True,
        initial_subscriptions=lambda subs, _realm: subs.add("Flight", "carrier == $0", carrier, name="mine"),
    )
    # Other numbers at each start: the same ones again would write what is there already, which changes nothing.
    rng = random.Random()
    stop = threading.Event()
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    with rf.Realm.open(path=f"{carrier}.realm", schema=None, sync=sync) as realm:
        flights = realm["Flight"]["_id"].tolist()
        print(f"ready {len(flights)}", flush=True)
        ends, done = time.monotonic() + seconds, 0
        while flights and time.monotonic() < ends and not stop.wait(rng.expovariate(rate)):
            change_one(realm, rng.choice(flights), rng)
            done += 1
        realm.upload_all_local_changes(timeout=30.0)
    print(f"changed {done}", flush=True)
    return done


def _stop_with_parent(stop: threading.Event) -> None:
    """Stop when the standard input closes: on purpose, or because the parent died."""
    sys.stdin.read()
    stop.set()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="realmframe.demo.device")
    parser.add_argument("--url", required=True)
    parser.add_argument("--app", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--carrier", required=True)
    parser.add_argument("--rate", type=float, default=2.0, help="changes a second")
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after so long")
    found = parser.parse_args(arguments)
    run(found.url, found.app, found.folder, found.carrier, found.rate, found.seconds)


if __name__ == "__main__":
    main()
