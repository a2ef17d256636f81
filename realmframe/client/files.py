"""The realm files of a user who is gone.

A realm is tracked with its user when it is opened, unless its path is absolute: that place is the caller's own, and
what lies there stays. ``remove_user`` and ``delete_user`` delete tracked realms at once where no process has them open;
the others, and those of an anonymous user who logged out, when an App of this id is next made. (The SDKs delete removed
users' files at the next launch only.) A user who logs in again before that keeps them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from realmframe.errors import CorruptFileError, RealmError, UsageError
from realmframe.store import RealmStore

log: Final = logging.getLogger("realmframe.client")


def delete_realms(app_id: str, user_id: str, paths: Iterable[str]) -> list[str]:
    """Delete a user's realms; give the paths of those that are in use, or could not be deleted.

    A realm that somebody else has made in the same place since is left alone.
    """
    left = []
    for path in paths:
        try:
            if RealmStore.exists(path) and _belongs(Path(path), app_id, user_id):
                RealmStore.delete(path)
        except UsageError:  # open in this process or another
            left.append(path)
        except RealmError as fault:
            log.warning("app %s: the files of a removed user stay: %s", app_id, fault.message)
            left.append(path)
    return left


def _belongs(path: Path, app_id: str, user_id: str) -> bool:
    try:
        store = RealmStore.open(path, create=False, read_only=True)
    except CorruptFileError:
        return True  # tracked as theirs, and worth nothing to anybody
    try:
        owner = store.owner
    finally:
        store.close()
    return owner is not None and (owner.app_id, owner.user_id) == (app_id, user_id)
