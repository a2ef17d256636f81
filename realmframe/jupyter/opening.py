"""Opening a realm in a cell: progress while it goes on, a button and Ctrl-C that open with what is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import realmframe as rf
from realmframe.jupyter.bridge import PERIOD
from realmframe.jupyter.widgets import OpenProgress


def open_with_progress(configuration: Mapping[str, Any], show: Callable[[Any], None]) -> rf.Realm:
    """Open a realm, drawing how far it is.

    Parameters
    ----------
    configuration : mapping
        What :meth:`Realm.open` takes.
    show : callable
        Displays the progress.
    """
    if "sync" not in configuration:
        return rf.Realm.open(**configuration)
    progress = OpenProgress()
    show(progress)
    opening = rf.Realm.begin_open(**configuration)
    interrupted = False
    try:
        while not opening.done(timeout=PERIOD):
            now = opening.progress
            detail = f"{now.bytes / 1e6:.1f} MB" if now.bytes else ""
            progress.show(now.phase, now.fraction, detail)
            if progress.wanted.is_set():
                opening.open_now()
    except KeyboardInterrupt:
        interrupted = True
        opening.open_now()
    try:
        realm = opening.result()
    except BaseException as error:
        progress.finish(f"not opened: {type(error).__name__}", good=False)
        raise
    rows = sum(len(realm.snapshot.table(name)) for name in realm.frames)
    how = "opened with what is here" if interrupted or opening.timed_out else "opened"
    progress.finish(f"{how} · {rows:,} objects · {realm.status().label}", good=not opening.timed_out)
    return realm
