"""Who listens to a session: what each is told, and when that ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from realmframe.client import observers as module
from realmframe.client.observers import CONNECTION, INDEFINITELY, OUTSTANDING, STATE, Observers
from realmframe.client.progress import TransferProgress


class Session(SimpleNamespace):
    """As much of a session as those who listen see of it."""

    def __init__(self) -> None:
        super().__init__(
            options=SimpleNamespace(flexible=True),
            subscriptions=SimpleNamespace(latest=SimpleNamespace(version=2)),
            store=SimpleNamespace(path=SimpleNamespace(name="dogs.realm")),
            bootstrap_version=2,
            transfer=TransferProgress(),
            state="inactive",
            connection_state="disconnected",
        )
        self.observers = Observers(self)  # type: ignore[arg-type]

    def reaches(self, phase: str, fraction: float) -> None:
        """Get so far."""
        self.transfer = TransferProgress(phase, fraction=fraction)
        self.observers.notify()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    """Make one whose callbacks are called at once."""
    monkeypatch.setattr(module, "deliver", lambda callback, *arguments: callback(*arguments))
    return Session()


def told(seen: list[TransferProgress]) -> list[tuple[str, float]]:
    """Give phase and estimate of each."""
    return [(p.phase, p.estimate) for p in seen]


def test_what_is_outstanding_ends(session: Session) -> None:
    """The estimate never falls, nothing is told twice, and after "done" nobody listens any more."""
    seen: list[TransferProgress] = []
    session.observers.progress(seen.append, "download", OUTSTANDING)
    for phase, fraction in (("download", 0.5), ("download", 0.5), ("download", 0.3), ("subscriptions", 0.4)):
        session.reaches(phase, fraction)
    session.reaches("done", 1.0)
    wanted = [("login", 0.0), ("download", 0.5), ("subscriptions", 0.5), ("done", 1.0)]
    assert told(seen) == wanted
    assert (session.observers._listeners, session.observers._stops) == ([], [])
    session.reaches("download", 0.1)
    assert told(seen) == wanted
    session.reaches("done", 1.0)
    late: list[TransferProgress] = []
    session.observers.progress(late.append, "download", OUTSTANDING)
    assert told(late) == [("done", 1.0)]
    assert session.observers._listeners == []


def test_an_older_set_is_not_what_is_outstanding(session: Session) -> None:
    """The bootstrap of a set that was there before is told to who listens indefinitely only."""
    session.bootstrap_version = 1
    outstanding, always = list[TransferProgress](), list[TransferProgress]()
    session.observers.progress(outstanding.append, "download", OUTSTANDING)
    session.observers.progress(always.append, "download", INDEFINITELY)
    session.reaches("connect", 0.0)
    session.reaches("download", 0.7)
    session.bootstrap_version = 2
    session.reaches("download", 0.2)
    assert told(outstanding) == [("login", 0.0), ("connect", 0.0), ("download", 0.2)]
    assert told(always) == [("login", 0.0), ("connect", 0.0), ("download", 0.7), ("download", 0.2)]
    session.reaches("done", 1.0)
    session.reaches("download", 0.1)
    assert told(always)[-2:] == [("done", 1.0), ("download", 0.1)]


def test_removing_ends_all_of_a_function(session: Session) -> None:
    """Also where it listens more than once, and to several things; another function stays."""
    heard: list[Any] = []
    other: list[Any] = []

    def hear(*what: Any) -> None:
        heard.append(what)

    for kind in (STATE, STATE, CONNECTION):
        session.observers.on_change(kind, hear)
    session.observers.on_change(STATE, lambda *what: other.append(what))
    session.state = "active"
    session.observers.notify()
    assert heard == [("active", "inactive")] * 2
    session.observers.remove(hear)
    session.observers.remove(hear)
    session.state, session.connection_state = "inactive", "connecting"
    session.observers.notify()
    assert len(heard) == 2
    assert other == [("active", "inactive"), ("inactive", "active")]


def test_a_listener_of_the_sync_thread_that_fails(session: Session) -> None:
    """The others are called all the same, and it is called again the next time."""
    called: list[str] = []

    def fail() -> None:
        called.append("failed")
        raise ValueError("mine")

    session.observers.listen(fail)
    stop = session.observers.listen(lambda: called.append("heard"))
    session.observers.notify()
    assert called == ["failed", "heard"]
    stop()
    stop()
    session.observers.notify()
    assert called == ["failed", "heard", "failed"]
