"""Load the data set through the normal client upload path, as any app would write it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import realmframe as rf
from realmframe.demo.dataset import SCHEMA, tables

#: Rows of one transaction: about a megabyte of changeset, like a busy app's bulk import.
BATCH_ROWS: Final = 5_000
MARKER: Final = "loaded.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading took.

    Attributes
    ----------
    objects : int
    seconds : float
        From the first transaction until the server had acknowledged the last.
    write_seconds : float
        The part of it until the last local commit.
    """

    objects: int
    seconds: float
    write_seconds: float

    @property
    def rate(self) -> float:
        """Objects a second."""
        return self.objects / self.seconds if self.seconds else 0.0


def already_loaded(folder: Path, flights: int | None) -> Loaded | None:
    """Tell what an earlier start loaded into this folder, if it was as many flights."""
    try:
        record = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    if record.pop("flights", "?") != flights:
        return None
    return Loaded(**record)


def load(
    url: str,
    app_id: str,
    folder: Path,
    *,
    flights: int | None = None,
    report: Callable[[str, int, int], None],
    timeout: float = 600.0,
) -> Loaded:
    """Write the data set into a synced realm and wait until the server has all of it.

    Parameters
    ----------
    url, app_id : str
        The backend and its app.
    folder : Path
        Where the loader keeps its own realm, and the marker that it is done.
    flights : int, optional
        Load only so many flights.
    report : callable
        Called with a phase and how much of how many objects.
    timeout : float
        Seconds to wait for the uploads.
    """
    app = rf.App(app_id, base_url=url, base_file_path=folder / "loader")
    user = app.current_user or app.log_in(rf.Credentials.anonymous())

    def subscribe(subscriptions: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
        for name in SCHEMA:
            subscriptions.add(name)

    data = list(tables(flights))
    total = sum(rows.num_rows for _, rows in data)
    sync = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=subscribe)
    with rf.Realm.open(path="loader.realm", schema=list(SCHEMA.values()), sync=sync) as realm:
        begun, written = time.perf_counter(), 0
        for name, rows in data:
            for start in range(0, rows.num_rows, BATCH_ROWS):
                batch = rows.slice(start, BATCH_ROWS)
                with realm.write() as tx:
                    tx.upsert(name, batch)
                written += batch.num_rows
                report(f"writing {name}", written, total)
        write_seconds = time.perf_counter() - begun
        report("uploading", written, total)
        realm.upload_all_local_changes(timeout=timeout)
        seconds = time.perf_counter() - begun
    loaded = Loaded(total, seconds, write_seconds)
    (folder / MARKER).write_text(json.dumps({"flights": flights, **asdict(loaded)}))
    return loaded
