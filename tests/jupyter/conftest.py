"""A shell with the extension loaded, and a server for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import realmframe as rf
from realmframe.client.loop import stop_sync_loop
from realmframe.testing import Server
from tests.waiting import WAIT

PERSON = rf.ObjectSchema(
    "Person",
    primary_key="_id",
    properties={"_id": "int", "name": "string", "age": "int?"},
)


class Shell:
    """An IPython shell that gives back what each cell showed."""

    def __init__(self) -> None:
        self.ip = InteractiveShell.instance()
        self.ip.reset()
        self.ip.history_manager.enabled = False
        self.run("%load_ext realmframe")

    def run(self, cell: str) -> Any:
        """Run a cell; give its result. An error in it is raised."""
        self.shown = ""
        with capture_output() as captured:
            result = self.ip.run_cell(cell)
        self.shown = captured.stdout + captured.stderr
        result.raise_error()
        return result.result

    def fail(self, cell: str) -> str:
        """Run a cell that must fail; give what the user sees."""
        with capture_output() as captured:
            result = self.ip.run_cell(cell)
        assert not result.success, f"{cell} did not fail"
        return str(captured.stdout + captured.stderr)

    def __getitem__(self, name: str) -> Any:
        """Give a variable of the user."""
        return self.ip.user_ns[name]

    def close(self) -> None:
        """Unload the extension."""
        self.run("%unload_ext realmframe")


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Load the extension into a fresh namespace."""
    made = Shell()
    yield made
    made.close()
    stop_sync_loop()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Server]:
    """Run a real server."""
    with Server(tmp_path / "server") as server:
        yield server


@pytest.fixture
def device(backend: Server, tmp_path: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    """Write as another device would: upsert these people and wait until they are at the server."""
    app = rf.App("test", base_url=backend.url, base_file_path=tmp_path / "device")
    user = app.log_in(rf.Credentials.anonymous())
    sync = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=lambda subs, _realm: subs.add("Person"))
    with rf.Realm.open(path="device.realm", schema=[PERSON], sync=sync) as realm:

        def write(people: list[dict[str, Any]]) -> None:
            with realm.write() as tx:
                tx.upsert("Person", people)
            realm.upload_all_local_changes(timeout=WAIT)

        yield write


@pytest.fixture
def opened(shell: Shell, backend: Server, tmp_path: Path, device: Callable[[list[dict[str, Any]]], None]) -> Shell:
    """Open a realm with three people in it."""
    device([{"_id": n, "name": name, "age": 20 + n} for n, name in enumerate(["Ada", "Ben", "Cid"])])
    shell.run(f"%realm connect {backend.url} --app test --base-path {tmp_path / 'notebook'}")
    shell.run("%realm login --anonymous")
    shell.run("%%realm open people.realm --timeout 30s --on-timeout raise\nPerson")
    return shell
