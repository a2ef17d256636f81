"""What the process that syncs a realm says of itself is read as it was said, or not believed at all."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from realmframe.client import following
from realmframe.client.following import Answers, Ask, Pace, _advanced
from realmframe.client.progress import TransferProgress
from realmframe.client.standing import AS_OF_SECONDS, BELIEVED_SECONDS, STANDING, Standing, Teller, seen_last
from realmframe.errors import NetworkError

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

TRANSFER = TransferProgress("download", 1000, 3, 2, 0.5, 40, 2000)


class Session(SimpleNamespace):
    """As much of a session as is told of."""

    def __init__(self, folder: Path, **facts: Any) -> None:
        usual = {
            "connection_state": "connected",
            "is_connected": True,
            "caught_up": True,
            "caught_up_at": 1_000_000.0,
            "last_error": None,
            "bootstrap_version": 2,
            "transfer": TRANSFER,
        }
        super().__init__(**{**usual, **facts}, store=SimpleNamespace(path=folder))


def teller(session: Session) -> Teller:
    """Make what tells of a session."""
    return Teller(cast("SyncSession", session))


def files(folder: Path) -> list[str]:
    """List the files of a folder."""
    return [path.name for path in folder.iterdir()]


def test_said_and_read(tmp_path: Path) -> None:
    """Everything arrives as it was said; the file is its owner's only."""
    session = Session(tmp_path, last_error=NetworkError("Too far away."))
    teller(session).look()
    said = Standing(True, "connected", True, 1_000_000.0, "Too far away.", 2, TRANSFER)
    assert Standing.read(tmp_path) == said
    assert files(tmp_path) == [STANDING]
    assert (tmp_path / STANDING).stat().st_mode & 0o077 == 0


def test_said_again_when_it_changes(tmp_path: Path) -> None:
    """A new time alone is told now and then only."""
    session = Session(tmp_path)
    one = teller(session)
    one.look()
    session.caught_up_at += AS_OF_SECONDS / 2
    one.look()
    assert Standing.read(tmp_path).as_of == 1_000_000.0
    session.caught_up = False
    one.look()
    assert not Standing.read(tmp_path).is_in_step
    session.caught_up_at += AS_OF_SECONDS
    one.look()
    assert Standing.read(tmp_path).as_of == session.caught_up_at


def test_goodbye(tmp_path: Path) -> None:
    """When it was in step last is still known, also to whoever opens the realm later."""
    assert seen_last(tmp_path) is None
    one = teller(Session(tmp_path))
    one.look()
    one.end()
    assert Standing.read(tmp_path) == Standing(as_of=1_000_000.0)
    assert seen_last(tmp_path) == 1_000_000.0


def test_is_not_believed_for_ever() -> None:
    """A process that hangs cannot say that it does."""
    said = Standing(True, "connected", True, 5_000.0)
    assert said.is_in_step_at(5_000.0 + BELIEVED_SECONDS / 2)
    assert not said.is_in_step_at(5_000.0 + BELIEVED_SECONDS)
    assert not said.is_in_step_at(5_000.0 - BELIEVED_SECONDS)
    assert not replace(said, as_of=None).is_in_step_at(5_000.0)
    assert not replace(said, is_in_step=False).is_in_step_at(5_000.0)


def changed(**values: Any) -> bytes:
    """Give the file with some values changed."""
    said = {"is_leading": True, "connection": "connected", "is_in_step": True, "as_of": 5.0, "error": None}
    transfer = {"phase": "done", "bytes": 1}
    return json.dumps({**said, "bootstrap_version": 1, "transfer": transfer, **values}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 300,
        b"[]",
        b"null",
        b"{}",
        changed(transfer=[]),
        changed(transfer={"phase": "done", "bytes": "1"}),
        changed(transfer={"speed": 3}),
        changed(weather="fine"),
        changed(as_of="yesterday"),
        changed(is_in_step="no"),
        changed(connection=None),
        changed()[:-5],
        b"\xff" + changed(),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, content: bytes) -> None:
    """Half of one, as after a failure of power, and one of another version say nothing."""
    (tmp_path / STANDING).write_bytes(changed())
    assert Standing.read(tmp_path).is_in_step
    (tmp_path / STANDING).write_bytes(content)
    assert Standing.read(tmp_path) == Standing()


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is said, rather than what was true before; and it is tried again."""
    session = Session(tmp_path)
    one = teller(session)
    one.look()

    def full(*_: object) -> None:
        raise OSError("full")

    with monkeypatch.context() as broken:
        broken.setattr("os.replace", full)
        session.caught_up = False
        one.look()
        assert files(tmp_path) == []
    one.look()
    assert Standing.read(tmp_path).is_leading


def test_questions_that_cannot_be_put(tmp_path: Path) -> None:
    """A folder that cannot be written, as on a full disk, ends no session: who waits asks again later."""
    asks = tmp_path / following.ASKS
    asks.touch()
    assert Ask.put(tmp_path) is None
    answers = Answers(cast("SyncSession", Session(tmp_path)), lambda: None)
    assert not answers.look()
    asks.unlink()
    ask = Ask.put(tmp_path)
    assert ask is not None
    assert not ask.is_answered
    ask.withdraw()
    assert files(asks) == []


def test_counting_goes_on_when_another_process_begins_to_sync() -> None:
    """What is counted never goes down, and what was transferred before is not counted twice."""
    mine = TransferProgress("download", 300, 3, 3, 0.9, 30, 400)
    now = _advanced(mine, TRANSFER, replace(TRANSFER, bytes=1500, batches=4, fraction=0.75))
    assert (now.bytes, now.batches, now.objects, now.transferable, now.fraction) == (800, 4, 30, 1300, 0.75)
    other = _advanced(now, replace(TRANSFER, bytes=1500), TransferProgress("download", 200, 1, 1, 0.1, 5, 2000))
    assert (other.bytes, other.batches, other.objects, other.transferable) == (1000, 5, 35, 2800)


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come soon after something has happened, then less often; whoever hurries ends a pause."""
    slept: list[float] = []

    async def run() -> None:
        pace = Pace(0.01)
        timeout = asyncio.timeout

        def noted(seconds: float) -> asyncio.Timeout:
            slept.append(seconds)
            return timeout(0)

        monkeypatch.setattr(following.asyncio, "timeout", noted)  # type: ignore[attr-defined]
        for _ in range(7):
            await pace.rest()
        pace.hurry()
        await pace.rest()
        monkeypatch.setattr(following.asyncio, "timeout", lambda _: timeout(60.0))  # type: ignore[attr-defined]
        resting = asyncio.ensure_future(pace.rest())
        await asyncio.sleep(0)
        pace.hurry()
        await resting

    asyncio.run(run())
    assert slept[0] == slept[-1] == following.SOON_SECONDS
    assert slept[:-1] == sorted(slept[:-1])
    assert slept[-2] == 0.01
