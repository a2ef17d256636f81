"""The magics in a real IPython shell, against a real server."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import pytest

import realmframe as rf
from realmframe.client.loop import sync_loop
from realmframe.jupyter.bridge import Bridge
from realmframe.realm.core import is_open
from realmframe.testing import FaultProxy, Server
from tests.jupyter.conftest import PERSON, Shell
from tests.waiting import WAIT

Device = Callable[[list[dict[str, Any]]], None]


def test_open_binds_realm_and_frames(opened: Shell) -> None:
    """The cell form opens, subscribes and binds; a frame is a DataFrame."""
    person = opened["Person"]
    assert isinstance(person, pd.DataFrame)
    assert person.name.tolist() == ["Ada", "Ben", "Cid"]
    assert not opened["realm"].is_closed


def _arrive(shell: Shell) -> None:
    """Wait until everything is on disk, without moving the frames to it."""
    sync_loop().call(shell["realm"].sync_session.wait_download(), 30.0, "The download")


def test_frames_advance_between_cells_and_not_during_one(opened: Shell, device: Device) -> None:
    """Inside a cell a frame stands still; the next cell sees the newest data."""
    device([{"_id": 7, "name": "Dot"}])
    _arrive(opened)
    assert len(opened["Person"]) == 3, "nothing moves by itself"
    assert opened.run("len(Person)") == 4
    opened.ip.user_ns["go_on"] = lambda: (device([{"_id": 8, "name": "Eve"}]), _arrive(opened))
    assert opened.run("go_on(); before = len(Person); realm.refresh(); (before, len(Person))") == (4, 5)


def test_frames_of_realms_that_were_opened_without_magics(shell: Shell, tmp_path: Path) -> None:
    """They advance between cells too; a pinned frame never does; closed ones are left alone."""
    form = {"path": tmp_path / "mine.realm", "schema": [PERSON]}
    with rf.Realm.open(**form) as mine, rf.Realm.open(**form) as other:
        shell.ip.user_ns |= {"frame": mine["Person"], "fixed": mine["Person"].realm.pin()}
        with other.write() as tx:
            tx.upsert("Person", [{"_id": 1, "name": "Ada"}])
        assert len(mine["Person"]) == 0
        assert shell.run("(len(frame), len(fixed))") == (1, 0)
    shell.run("1")
    assert "Error" not in shell.shown


def test_write_cell_is_one_transaction(opened: Shell) -> None:
    """``tx`` exists inside only; what fails leaves nothing."""
    opened.run("%%realm write\ntx.upsert('Person', {'_id': 0, 'name': 'Ann'})\ntx.delete('Person', 1)")
    assert opened.run("Person.name.tolist()") == ["Ann", "Cid"]
    assert "tx" not in opened.ip.user_ns
    opened.fail("%%realm write\ntx.upsert('Person', {'_id': 0, 'name': 'Zoe'})\n1 / 0")
    assert opened.run("Person.name.tolist()") == ["Ann", "Cid"]


def test_status_where_list(opened: Shell) -> None:
    """Each says what it should, and none of them shows a token."""
    shown = repr(opened.run("%realm status")) + repr(opened.run("%realm where")) + repr(opened.run("%realm list"))
    user = opened.run("get_ipython()._realmframe_magics.desk.app.current_user")
    for word in ("people.realm", "connected", "current", "Person (3)"):
        assert word in shown
    assert user.access_token not in shown
    assert user.refresh_token not in shown


def test_query_and_subscriptions(opened: Shell) -> None:
    """Queries give ordinary frames; subscriptions come and go."""
    found = opened.run("%realm query Person where age > 20")
    assert found.name.tolist() == ["Ben", "Cid"]
    opened.run("%realm subscribe old: Person where age > 21")
    assert "old: complete" in opened.shown
    assert len(opened["realm"].subscriptions) == 2
    opened.run("%realm unsubscribe Person")
    assert len(opened["realm"].subscriptions) == 0


def test_pause_and_resume(opened: Shell, device: Device) -> None:
    """A paused realm says that it is stale, and catches up."""
    opened.run("%realm pause")
    device([{"_id": 9, "name": "Fay"}])
    assert opened.run("(len(Person), Person.realm.is_stale)") == (3, True)
    opened.run("%realm resume")
    opened.run("realm.download_all_server_changes(timeout=60.0)")
    assert opened.run("(len(Person), Person.realm.is_stale)") == (4, False)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%realm open x.realm", "Nobody is logged in"),
        ("%realm frobnicate", "frobnicate"),
        ("%realm status", "No realm is open"),
        ("%realm query Person", "No realm is open"),
        ("%realm connect ftp://somewhere --app a", "ftp"),
    ],
)
def test_errors_are_one_line(shell: Shell, backend: Server, tmp_path: Path, cell: str, words: str) -> None:
    """A user's mistake shows one line and no traceback."""
    shell.run(f"%realm connect {backend.url} --app test --base-path {tmp_path}")
    shown = shell.fail(cell)
    assert words in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) <= 2, shown


def test_server_down(shell: Shell, tmp_path: Path) -> None:
    """A first log-in without a server says so."""
    shell.run(f"%realm connect http://127.0.0.1:9 --app test --base-path {tmp_path} --timeout 3s")
    shown = shell.fail("%realm login --anonymous")
    assert "127.0.0.1:9" in shown
    assert "Traceback" not in shown


def test_offline_reopen(opened: Shell, backend: Server) -> None:
    """With the server gone, the time-out opens what is on disk."""
    opened.run("%realm close")
    backend.stop()
    begun = time.monotonic()
    opened.run("%%realm open people.realm --timeout 500ms --on-timeout local\nPerson")
    assert time.monotonic() - begun < 5.0
    assert opened.run("Person.name.tolist()") == ["Ada", "Ben", "Cid"]
    assert opened.run("Person.realm.is_stale") is True


def test_ctrl_c_opens_with_what_is_there(opened: Shell, backend: Server, tmp_path: Path) -> None:
    """Ctrl-C in a cell that opens ends the wait at once, with one live session, which closing ends."""
    with FaultProxy(backend) as line:
        opened.run(f"%realm connect {line.url} --app test --base-path {tmp_path / 'other'}")
        opened.run("%realm login --anonymous")
        line.fault(stall_after=0)
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
        begun = time.monotonic()
        timer.start()
        opened.run("%%realm open other.realm --timeout 60s --on-timeout raise\nPerson")
        timer.join()
        assert 0.5 <= time.monotonic() - begun < 5.0
        realm = opened["realm"]
        assert realm.sync_session.state == "active"
        line.heal()
        realm.sync_session.reconnect()
        realm.subscriptions.wait_for_synchronization(timeout=WAIT)
        realm.refresh()
        assert sorted(realm["Person"].name) == ["Ada", "Ben", "Cid"]
        opened.run("%realm close")
        assert not is_open(realm.path)


def test_widgets_do_not_leak(opened: Shell) -> None:
    """Running the same cells again makes no more widgets; closing takes them away."""
    live = ipywidgets.widgets.widget._instances
    opened.run("%realm subscriptions")
    opened.run("%realm subscriptions")
    before = len(live)
    for _ in range(5):
        opened.run("%realm subscriptions")
    assert len(live) == before
    panel = opened.run("%realm subscriptions")
    states = str([w.get_state() for w in live.values()])
    user = opened.run("get_ipython()._realmframe_magics.desk.app.current_user")
    assert "Person" in states
    assert user.access_token not in states
    opened.run("%realm close")
    assert panel is None or panel.comm is None


def test_subscription_panel(opened: Shell) -> None:
    """The panel adds, removes, and shows what is wrong in words."""
    from realmframe.jupyter.widgets import SubscriptionPanel

    panel = SubscriptionPanel(opened["realm"], Bridge(None))
    panel.add("old: Person where age > 21")
    assert [s.name for s in opened["realm"].subscriptions] == [None, "old"]
    panel.add("Person where age >")
    assert "color" in panel._message.value
    row = panel._shown[-1]
    assert (row.name, row.class_name, row.query) == ("old", "Person", "age > 21")
    panel.remove(row)
    assert len(opened["realm"].subscriptions) == 1
    panel.close()


def test_unload_closes(shell: Shell, opened: Shell) -> None:
    """Unloading the extension closes the realms and takes its hook away."""
    realm = opened["realm"]
    shell.run("%unload_ext realmframe")
    assert realm.is_closed
    shell.run("%load_ext realmframe")


def test_bridge_throttles() -> None:
    """However many notices arrive, a callback runs at most once per period, and the last one is not lost."""
    import asyncio

    calls: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        bridge = Bridge(loop)

        def callback() -> None:
            calls.append(loop.time())

        for _ in range(50):
            await loop.run_in_executor(None, bridge.post, callback)
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)

    asyncio.run(main())
    assert 2 <= len(calls) <= 8
    assert min(b - a for a, b in itertools.pairwise(calls)) > 0.05
