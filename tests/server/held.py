"""What a recorded client holds: what it wrote, merged with what it is sent, as it was then."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from realmframe.changes import Changeset
from realmframe.conformance.vectors import json_text
from realmframe.merge import Timed, transform
from realmframe.store import Snapshot, apply
from realmframe.wire import BatchState, Download, DownloadEntry, UploadEntry


class Held:
    """The realm of one client file.

    What its client wrote is known from the recording, with the version of the server that it had integrated then. So
    each write is made before the DOWNLOAD that brings a later version, whenever it was sent.
    """

    def __init__(self, file_ident: int) -> None:
        self.file_ident = file_ident
        self.snapshot = Snapshot.empty()
        self._to_come: deque[UploadEntry] = deque()
        #: What the server may not have yet, as it is after what it was merged with.
        self._pending: list[tuple[int, Timed]] = []
        self._staged: list[DownloadEntry] = []
        #: The version that each message brought, and what there was before it.
        self._before: list[tuple[int, Snapshot, list[tuple[int, Timed]], deque[UploadEntry]]] = []

    def will_write(self, entries: Iterable[UploadEntry]) -> None:
        """Note what the client uploads later in the recording, once for each version."""
        for entry in entries:
            if not self._to_come or entry.client_version > self._to_come[-1].client_version:
                self._to_come.append(entry)

    def wrote(self, version: int) -> None:
        """Make the writes up to a client version: they have been uploaded."""
        while self._to_come and self._to_come[0].client_version <= version:
            self._write(self._to_come.popleft())

    def connect(self, version: int) -> None:
        """Begin a session with what the client has up to a version: messages that it did not get come again."""
        self._staged = []
        while self._before and self._before[-1][0] > version:
            _, self.snapshot, self._pending, self._to_come = self._before.pop()

    def receive(self, m: Download) -> None:
        """Integrate a DOWNLOAD, a bootstrap with its last message."""
        self._before.append((m.download_server_version, self.snapshot, [*self._pending], self._to_come.copy()))
        while self._to_come and self._to_come[0].server_version < m.download_server_version:
            self._write(self._to_come.popleft())
        self._staged += m.entries
        if m.batch is not BatchState.MORE_TO_COME:
            for entry in self._staged:
                self._integrate(entry)
            self._staged = []
            self._pending = [(v, one) for v, one in self._pending if v > m.download_client_version]

    def _write(self, entry: UploadEntry) -> None:
        changeset = Changeset.decode(entry.changeset)
        self.snapshot = apply(self.snapshot, changeset).snapshot
        self._pending.append((entry.client_version, Timed(changeset, entry.timestamp, self.file_ident)))

    def _integrate(self, entry: DownloadEntry) -> None:
        unseen = [one for version, one in self._pending if version > entry.client_version]
        seen = self._pending[: len(self._pending) - len(unseen)]
        theirs = Timed(Changeset.decode(entry.changeset), entry.timestamp, entry.file_ident)
        mine, (made,) = transform(unseen, [theirs])
        pairs = zip(self._pending[len(seen) :], mine, strict=True)
        self._pending = [*seen, *((v, Timed(c, old.timestamp, self.file_ident)) for (v, old), c in pairs)]
        self.snapshot = apply(self.snapshot, made).snapshot


def as_apps_see(state: Mapping[str, Any]) -> dict[str, Any]:
    """Leave links to objects that are not there out of a state, as the SDKs do: they are null, or no elements."""
    there = {(name, json_text(one["pk"])) for name, form in state.items() for one in form.get("objects", ())}

    def is_gone(value: Mapping[str, Any]) -> bool:
        return value.get("t") == "Link" and (value["table"], json_text(value["pk"])) not in there

    def seen(value: dict[str, Any], column: Mapping[str, Any]) -> dict[str, Any]:
        kind, inner = value.get("t"), value.get("v")
        if is_gone(value):
            return {"t": "Null"}
        if kind == "Object":
            fields = state[column["link_target"]]["columns"]
            return {**value, "v": {name: seen(part, fields[name]) for name, part in value["v"].items()}}
        if kind in ("List", "Set") and isinstance(inner, list):
            is_typed = column["type"] == "Link"
            return {**value, "v": [seen(one, column) for one in inner if not (is_typed and is_gone(one))]}
        if kind == "Dictionary" and isinstance(inner, dict):
            return {**value, "v": {key: seen(one, column) for key, one in inner.items()}}
        return value

    return {
        name: {**form, "objects": [_fields(one, form["columns"], seen) for one in form.get("objects", ())]}
        for name, form in state.items()
    }


def _fields(one: Mapping[str, Any], columns: Mapping[str, Any], seen: Any) -> dict[str, Any]:
    return {**one, "fields": {name: seen(value, columns[name]) for name, value in one["fields"].items()}}
