"""A realm written as another one: local, synced, or made to be shipped.

=========== =================================== =====================================================================
from        to                                  the copy
=========== =================================== =====================================================================
local       local                               the objects as they are
local       synced                              the objects as writes of its own: they are uploaded
synced      local                               the objects as they are, with what was not uploaded yet
synced      synced, the same app and partition  the file without its number and user: whoever opens it first goes on
                                                downloading from where it was; nothing is uploaded again
synced      synced, another app or partition    the objects as writes of its own
=========== =================================== =====================================================================

A copy of a synced realm that syncs itself is refused while something was not uploaded yet, as in the SDKs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from realmframe.changes import concat
from realmframe.client.paths import check_links
from realmframe.errors import UsageError
from realmframe.realm.configuration import Configuration
from realmframe.realm.schema import check_mode
from realmframe.store import RealmStore, Snapshot, objects_changeset, schema_changeset

if TYPE_CHECKING:
    from realmframe.realm.core import RealmCore


def write_copy(core: RealmCore, configuration: Configuration) -> None:
    """Write what a realm holds as another realm.

    Raises
    ------
    UsageError
        If there is a realm already, or both sync and something was not uploaded yet.
    SchemaError
        If there is a class that a realm of the other's kind cannot have.
    NoSubscriptionForWriteError
        If the copy syncs flexibly, as writes of its own, and its ``initial_subscriptions`` leave out a class that has
        objects: the server would take them back. Nothing is left behind then.
    """
    from realmframe.realm.core import owner_of

    place = configuration.realm_path()
    if RealmStore.exists(place.path):
        raise UsageError(f"There is a realm at {place.path} already.", hint="Delete it first, or give another path.")
    snapshot = core.store.refresh()
    if core.owner is not None and configuration.sync is not None:
        waiting = len(core.store.pending())
        if waiting:
            raise UsageError(
                f"The server has not got everything of the realm {core.path.name} yet ({waiting} transactions).",
                hint="Call realm.upload_all_local_changes() first; a local copy can be written at any time.",
            )
        if replace(owner_of(configuration.sync), user_id=core.owner.user_id) == core.owner:
            check_links(place)
            core.store.copy_to(place.path, with_identity=False)
            return
    _write_objects(snapshot, configuration)


def _write_objects(snapshot: Snapshot, configuration: Configuration) -> None:
    """Make a realm whose own writes are the objects."""
    from realmframe.realm.core import RealmCore
    from realmframe.realm.opening import write_initial_subscriptions
    from realmframe.realm.realm import Realm

    check_mode(snapshot.schema, flexible=None if configuration.sync is None else configuration.sync.flexible)
    classes = {name: table for name, table in snapshot.tables.items() if len(table)}
    core, _ = RealmCore.acquire(configuration)
    copy = Realm(core, configuration)
    try:
        schema = schema_changeset(snapshot.schema, core.store.snapshot.schema)
        if len(schema):
            core.commit(schema)
        copy.refresh()
        # Before the objects: what is written before its subscription is outside of the server's view.
        write_initial_subscriptions(core, copy)
        for name in classes:
            copy.check_writable(name)
        objects = [objects_changeset(snapshot, n, np.arange(len(t), dtype=np.int64)) for n, t in classes.items()]
        if objects:
            core.commit(concat(objects))
    except BaseException:
        copy.close()
        RealmStore.delete(core.path)
        raise
    copy.close()  # its session never began, so there is nothing to wait for
