"""The rules of opening as one table: what an open comes to, for every behaviour, time-out, fault, and file.

Rows are servers, columns are behaviours. Each cell is run twice, with a realm that is new and with one that has three
of the server's four dogs. All of them run side by side against one server, each behind a fault proxy of its own; that a
time-out is kept to 50 ms is for the benchmark to say: here many opens share two cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.client.loop import stop_sync_loop
from realmframe.realm.core import is_open
from realmframe.testing import FaultProxy, Server
from tests.waiting import WAIT, until

#: A task of anyio that is cancelled before it began is not awaited; it happens when an open ends while connecting.
pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*connect_tcp:pytest.PytestUnraisableExceptionWarning"),
]

SHORT, LONG, BACK_AFTER = 1.0, 6.0, 1.3
#: How much later than it should anything may be while two cores run a hundred opens.
LEEWAY = 2.5

#: type, time_out, time_out_behavior
BEHAVIOURS: dict[str, tuple[str, float | None, str | None]] = {
    "immediately": ("open_immediately", 0.0, "throw_exception"),
    "no limit": ("download_before_open", None, None),
    "0 local": ("download_before_open", 0.0, "open_local_realm"),
    "0 throw": ("download_before_open", 0.0, "throw_exception"),
    "short local": ("download_before_open", SHORT, "open_local_realm"),
    "short throw": ("download_before_open", SHORT, "throw_exception"),
    "long local": ("download_before_open", LONG, "open_local_realm"),
    "long throw": ("download_before_open", LONG, "throw_exception"),
}

#: What the line does while the realm opens. "comes back" is healed after BACK_AFTER seconds.
SERVERS: dict[str, dict[str, Any]] = {
    "up": {},
    "slow": {"latency": 0.3},
    "stalls": {"stall_after": 260},
    "down": {"down": True},
    "comes back": {"down": True},
    "drops": {"cut_every": 1, "direction": "up"},
    "answers 503": {"status": 503},
    "refuses": {},
}

#: all    everything is there when the open returns
#: local  returns at the time-out with what is on disk; the rest comes later
#: late   OpenTimeoutError at the time-out; nothing is left behind
#: now    returns at once with what is on disk; the rest comes later
#: waits  goes on waiting; when the line is healed, it is "all"
#: fails  the server's own error, before the time-out
TABLE = """
               immediately  no limit  0 local  0 throw  short local  short throw  long local  long throw
    up         now          all       local    late     all          all          all         all
    slow       now          all       local    late     local        late         all         all
    stalls     now          waits     local    late     local        late         local       late
    down       now          waits     local    late     local        late         local       late
    comes back now          all       local    late     local        late         all         all
    drops      now          waits     local    late     local        late         local       late
    answers 503 now         waits     local    late     local        late         local       late
    refuses    now          fails     local    late     fails        fails        fails       fails
"""

#: What an open that is late, with a time-out above zero, says it was at, and the kind and words of its cause.
CAUSES: dict[str, tuple[set[str], type[Exception] | None, str]] = {
    "slow": ({"connect", "download", "subscriptions"}, None, ""),
    "stalls": ({"download", "subscriptions"}, None, ""),
    "down": ({"connect"}, rf.NetworkError, "cannot be reached"),
    "comes back": ({"connect"}, rf.NetworkError, "cannot be reached"),
    "drops": ({"connect", "download", "subscriptions"}, rf.NetworkError, "lost"),
    "answers 503": ({"connect"}, rf.NetworkError, "HTTP 503"),
}
DOG = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")


def cells() -> Iterator[tuple[str, str, str]]:
    """Read the table: server, behaviour, outcome."""
    _, *lines = [line for line in TABLE.splitlines() if line.strip()]
    for line, name in zip(lines, SERVERS, strict=True):
        outcomes = line.strip().removeprefix(name).split()
        for behaviour, outcome in zip(BEHAVIOURS, outcomes, strict=True):
            yield name, behaviour, outcome


@dataclass(frozen=True)
class Case:
    """One open."""

    server: str
    behaviour: str
    files: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.server}-{self.behaviour}-{self.files}"


CASES = [Case(s, b, files, outcome) for s, b, outcome in cells() for files in ("new", "existing")]


@dataclass
class Result:
    """What came of it."""

    outcome: str = ""
    seconds: float = 0.0
    error: rf.RealmError | None = None
    dogs_at_return: list[int] = field(default_factory=list)
    stale_at_return: bool = False
    dogs_later: list[int] = field(default_factory=list)
    is_left_open: bool = False
    asked: int = 0
    subscriptions: tuple[int, int] = (0, 0)


class Bench:
    """The server, and what each case begins with."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def user(self, proxy: FaultProxy, name: str, app: str = "table") -> rf.User:
        """Log in under a folder of its own."""
        made = rf.App(app, base_url=proxy.url, base_file_path=self.folder / name, timeout=WAIT)
        return made.log_in(rf.Credentials.anonymous())

    def open(self, user: rf.User, asked: list[int], rerun: bool, behaviour: Any = None) -> rf.Opening:
        """Begin to open the dogs."""

        def subscribe(subs: rf.MutableSubscriptionSet, _realm: rf.Realm) -> None:
            asked.append(1)
            subs.add("Dog", name="dogs")

        sync = rf.SyncConfiguration(
            user,
            flexible=True,
            initial_subscriptions=subscribe,
            rerun_on_open=rerun,
            new_realm_file_behavior=behaviour,
            existing_realm_file_behavior=behaviour,
        )
        return rf.Realm.begin_open(path="dogs.realm", schema=[DOG], sync=sync)

    def write(self, *keys: int) -> None:
        """Have another device write dogs."""
        with FaultProxy(self.url) as proxy, self.open(self.user(proxy, "device"), [], rerun=False).result() as realm:
            with realm.write() as tx:
                tx.upsert("Dog", [{"_id": key, "name": f"dog {key}"} for key in keys])
            realm.upload_all_local_changes(timeout=WAIT)

    def prepare(self, case: Case, proxy: FaultProxy) -> rf.User:
        """Log in, and have the files that the case begins with."""
        user = self.user(proxy, str(case), "partitions" if case.server == "refuses" else "table")
        if case.files == "existing" and case.server != "refuses":
            self.open(user, [], rerun=False).result().close()
        elif case.files == "existing":
            proxy.fault(down=True)
            at_once = rf.OpenRealmBehaviorConfiguration("open_immediately")
            self.open(user, [], rerun=False, behaviour=at_once).result().close()
            proxy.heal()
        proxy.cut()  # a connection is kept for a while after its last session
        return user

    def run(self, case: Case, user: rf.User, proxy: FaultProxy) -> Result:
        """Open once under the fault, then see what becomes of it when the line is healed."""
        kind, time_out, at_end = BEHAVIOURS[case.behaviour]
        behaviour = rf.OpenRealmBehaviorConfiguration(kind, time_out, at_end)
        result, asked = Result(), list[int]()
        proxy.fault(**SERVERS[case.server])
        healer = threading.Timer(BACK_AFTER, proxy.heal)
        if case.server == "comes back":
            healer.start()
        begun = time.monotonic()
        # A realm that exists runs the callback only where that is asked for: here, where it opens locally at the end.
        opening = self.open(user, asked, case.files == "existing" and at_end == "open_local_realm", behaviour)
        if case.outcome == "waits":
            assert not opening.done(timeout=2 * SHORT)
            result.outcome = "waits"
            proxy.heal()
        realm: rf.Realm | None = None
        try:
            realm = opening.result()
            local = "now" if kind == "open_immediately" else "local" if opening.timed_out else "all"
            result.outcome = result.outcome or local
        except rf.RealmError as error:
            result.error = error
            result.outcome = "late" if isinstance(error, rf.OpenTimeoutError) else "fails"
        result.seconds = time.monotonic() - begun
        healer.join(2 * BACK_AFTER if case.server == "comes back" else 0) if healer.is_alive() else None
        path = user.app.base_file_path / "dogs.realm"
        if realm is None:
            result.is_left_open = not until(lambda: not is_open(path))
            proxy.heal()
            at_once = rf.OpenRealmBehaviorConfiguration("open_immediately")
            realm = self.open(user, asked, rerun=False, behaviour=at_once).result()
        else:
            result.dogs_at_return = sorted(realm["Dog"]._id) if "Dog" in realm.frames else []
            result.stale_at_return = realm.status().is_stale
        proxy.heal()
        realm.sync_session.reconnect()
        wanted = [] if case.server == "refuses" else [1, 2, 3, 4]
        assert until(lambda: realm.refresh() or sorted(realm["Dog"]._id) == wanted)
        assert until(lambda: case.server == "refuses" or realm.subscriptions.state == "complete")
        realm.refresh()
        result.dogs_later = sorted(realm["Dog"]._id)
        result.asked = len(asked)
        result.subscriptions = realm.subscriptions.version, len(realm.subscriptions)
        realm.close()
        return result


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Case, Future[Result]]]:
    """Run all cases, many at a time."""
    folder = tmp_path_factory.mktemp("behaviours")
    with Server(folder / "server", process=True, log_level="error") as server:
        bench = Bench(server.url, folder)
        with FaultProxy(server.url) as proxy:  # one app syncs by partitions, and so refuses everybody here
            sync = rf.SyncConfiguration(bench.user(proxy, "partitions", "partitions"), partition_value="p")
            rf.Realm.open(path="p.realm", schema=[DOG], sync=sync).close()
        bench.write(1, 2, 3)
        proxies = {case: FaultProxy(server.url) for case in CASES}
        with ThreadPoolExecutor(8, "prepare") as pool:
            for proxy in proxies.values():
                proxy.start()
            users = dict(zip(CASES, pool.map(lambda c: bench.prepare(c, proxies[c]), CASES), strict=True))
        bench.write(4)
        # What must be quick goes first, a few at a time; then what mostly waits.
        futures: dict[Case, Future[Result]] = {}
        with ThreadPoolExecutor(3, "open") as pool:
            for case in CASES:
                if case.server in ("up", "refuses"):
                    futures[case] = pool.submit(bench.run, case, users[case], proxies[case])
        with ThreadPoolExecutor(24, "open") as pool:
            for case in CASES:
                if case not in futures:
                    futures[case] = pool.submit(bench.run, case, users[case], proxies[case])
            yield futures
        for proxy in proxies.values():
            proxy.stop()
        stop_sync_loop()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_open(results: dict[Case, Future[Result]], case: Case) -> None:
    """An open comes to what the table says, in time; then the realm fills, with subscriptions written once."""
    result = results[case].result(2 * WAIT)
    _, time_out, at_end = BEHAVIOURS[case.behaviour]
    assert result.outcome == case.outcome, result
    before = [1, 2, 3] if case.files == "existing" and case.server != "refuses" else []
    if case.outcome in ("local", "late"):
        assert time_out is not None
        assert time_out <= result.seconds < time_out + LEEWAY
    elif case.outcome in ("now", "fails"):
        assert result.seconds < LEEWAY
    if case.outcome in ("local", "now"):
        assert result.stale_at_return
        assert set(before) <= set(result.dogs_at_return)
    elif case.outcome in ("all", "waits"):
        assert result.dogs_at_return == [1, 2, 3, 4]
        assert not result.stale_at_return
    if case.outcome == "late":
        check_late(case, result)
    if case.outcome == "fails":
        assert isinstance(result.error, rf.SyncError | rf.NetworkError), result.error
        assert "partitions" in str(result.error)
        assert not result.is_left_open
    assert result.dogs_later == ([] if case.server == "refuses" else [1, 2, 3, 4])
    assert result.subscriptions == (1, 1)
    runs_again = case.files == "existing" and at_end == "open_local_realm"
    assert result.asked == (1 if case.files == "new" or runs_again else 0)


def check_late(case: Case, result: Result) -> None:
    """Check what the error of a time-out says."""
    error = result.error
    assert isinstance(error, rf.OpenTimeoutError)
    assert set(error.progress) == {"bytes", "batches", "changesets", "fraction", "objects"}
    assert "open_local_realm" in str(error)
    assert not result.is_left_open
    if BEHAVIOURS[case.behaviour][1]:
        phases, kind, words = CAUSES[case.server]
        assert error.phase in phases
        if kind is not None:
            assert isinstance(error.cause, kind)
            assert error.__cause__ is error.cause
            assert words in str(error)
    else:
        assert error.phase in ("login", "location", "connect", "download", "subscriptions")
