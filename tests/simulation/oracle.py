"""What has to be true at rest: everybody has the server's state, that is the sum of its log, and no write is lost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from realmframe.server.history import History
from realmframe.server.partitions import PREFIX
from realmframe.store import FileSystem, RealmStore, Snapshot
from tests import plain
from tests.plain import PlainRealm, shape
from tests.simulation.writes import contents

if TYPE_CHECKING:
    from tests.simulation.clients import Replica
    from tests.simulation.world import World


def check(world: World) -> None:
    """Compare everything with everything.

    Raises
    ------
    AssertionError
        Naming what differs.
    """
    partitions = {replica.partition: None for replica in world.replicas}
    for partition in partitions:
        name = "flx" if partition is None else PREFIX + partition
        state = _server_state(world, name)
        replicas = [r for r in world.replicas if r.partition == partition]
        for replica in replicas:
            _check_replica(world, replica, name, state)
        if world.settings.reset_mode is None:
            _check_ledger(state, replicas)
        else:
            _check_notes(state, replicas)
        for feature in world.features:
            feature.check(state, replicas, name)


def _server_state(world: World, name: str) -> Snapshot:
    """Give the server's state, which is what its log says, in memory as after a start."""
    history = world.server.engine.realm("app", name).history
    state = history.snapshot
    known = world.server.database.closing.get(("app", name))
    for folder in (None, world.server.disk.root):
        again = world.server.run(History, world.server.database, "app", name, folder)
        assert plain.content(again.snapshot) == plain.content(state), f"{name}: the log gives another state ({folder})"
    if known is not None:
        world.server.database.closing["app", name] = known
    if not history.trimmed:
        entries = list(history.log.load(0, 1 << 62))
        replay = PlainRealm(one for entry in entries for one in entry.changeset.instructions())
        assert plain.plain_content(replay) == plain.content(state), f"{name}: the log, replayed plainly, differs"
        written = Counter((e.origin, e.client_version) for e in entries if e.client_version)
        twice = [key for key, count in written.items() if count > 1]
        assert not twice, f"{name}: changesets {twice} were integrated twice"
    return state


def _check_replica(world: World, replica: Replica, name: str, state: Snapshot) -> None:
    store = replica.store
    replica.device.run(replica.refresh)
    left = [p.version for p in store.pending()]
    assert not left, f"{replica.name} has not uploaded {left}"
    rows_of: Any = None
    if replica.partition is None:
        view = world.server.engine.realm("app", name).query_sets.view(_texts(replica))
        rows_of = lambda cls: view.rows(state, cls)  # noqa: E731
    expected, have = contents(state, rows_of), contents(store.snapshot)
    for cls in expected:
        differing = {
            key: (expected[cls].get(key), have.get(cls, {}).get(key))
            for key in {**expected[cls], **have.get(cls, {})}
            if shape(expected[cls].get(key)) != shape(have.get(cls, {}).get(key))
        }
        assert not differing, f"{replica.name}: {cls} differs, (server, replica): {differing}"
    for table in store.snapshot.tables.values():
        keys = [table.key(row) for row in range(len(table))]
        assert np.array_equal(table.find(keys), np.arange(len(table))), f"{replica.name}: the index of {table.cls.name}"
    with RealmStore.open(store.path, read_only=True, fs=FileSystem()) as again:
        assert plain.content(again.snapshot) == plain.content(store.snapshot), f"{replica.name}: files differ"
        assert again.progress.download_server_version <= store.progress.download_server_version


def _texts(replica: Replica) -> dict[str, str]:
    from realmframe.session.subscriptions import join_texts, query_body

    return query_body(replica.subscriptions.latest, join_texts)


def _check_ledger(state: Snapshot, replicas: list[Replica]) -> None:
    """Every line that was written is there once: in the list, in the sum, and as an object."""
    expected = {line.text: line.amount for replica in replicas for line in replica.lines}
    assert all(line.is_sure for replica in replicas for line in replica.lines)
    have = contents(state)
    (ledger,) = have["Ledger"].values() or [{"lines": [], "count": 0}]
    counted = Counter(ledger["lines"])
    assert counted == Counter(expected.keys()), (
        f"lines lost: {sorted(set(expected) - set(counted))}, "
        f"not written or twice: {sorted((counted - Counter(expected.keys())).elements())}"
    )
    assert ledger["count"] == sum(expected.values()), f"the sum is {ledger['count']}, not {sum(expected.values())}"
    notes = {key: row["amount"] for key, row in have["Note"].items()}
    assert notes == expected, f"notes: {notes}"


def _check_notes(state: Snapshot, replicas: list[Replica]) -> None:
    """After client resets every line is still there as an object, or in the quarantine of the realm that lost it.

    A list may lose what others wrote while it was recovered, and a sum may count twice what was uploaded and not
    acknowledged: such are the rules of recovery.
    """
    have = contents(state)["Note"]
    for replica in replicas:
        kept = {str(entry.get("primary_key")) for entry in replica.store.quarantine}
        lost = [line.text for line in replica.lines if line.text not in have and line.text not in kept]
        assert not lost, f"{replica.name}: lost by a client reset: {lost}, kept: {sorted(kept)}"
