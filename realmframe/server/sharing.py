"""Who gets what of a change that was integrated just now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from realmframe.server.entries import Entry, Integrated
from realmframe.server.session import Changes, Session, as_is, synthetic
from realmframe.server.views import View, share
from realmframe.wire import DownloadEntry


@dataclass(slots=True)
class _Encoded:
    passed: bytes
    synthetic: bytes
    is_whole: bool


def fan_out(sessions: Iterable[Session], found: Integrated) -> None:
    """Queue an entry of the log for all sessions: each gets the share of it that its view sees."""
    entry = found.entry
    known: dict[tuple[int, bool], _Encoded] = {}
    for session in sessions:
        client = session.file.client_version
        is_origin = entry.origin == session.file.ident
        if session.flexible and entry.compensates != session.file.ident:
            key = (id(session.view), is_origin)
            if key not in known:
                known[key] = _encoded(found, session.view, is_origin=is_origin)
            entries = _entries(entry, client, known[key])
            if known[key].synthetic:
                session.synthetic = entry.version
            if not known[key].is_whole and not is_origin:
                session.partial = entry.version
        else:
            entries = () if is_origin else (as_is(entry, client),)
        session.queue(Changes.of(entries, entry.version, client))


def _encoded(found: Integrated, view: View, *, is_origin: bool) -> _Encoded:
    entry, passed = found.entry, b""
    part = share(view, entry.changeset, found.applied.before, found.applied.snapshot, is_origin=is_origin)
    if part.passed is not None:
        passed = entry.data if part.passed is entry.changeset else part.passed.encode()
    is_whole = part.passed is entry.changeset or not len(entry.changeset)
    return _Encoded(passed, b"" if part.synthetic is None else part.synthetic.encode(), is_whole)


def _entries(entry: Entry, client: int, encoded: _Encoded) -> tuple[DownloadEntry, ...]:
    made: list[DownloadEntry] = []
    if encoded.passed:
        size = len(encoded.passed)
        made.append(DownloadEntry(entry.version, client, entry.timestamp, entry.origin, size, encoded.passed))
    if encoded.synthetic:
        made.append(synthetic(entry.version, client, encoded.synthetic))
    return tuple(made)
