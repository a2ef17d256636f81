"""Local transactions that the server may not know yet: kept to be uploaded, and to be merged with what it sends."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from realmframe.changes import Changeset

if TYPE_CHECKING:
    from realmframe.store.merging import Prepared

_SIZE: Final = struct.Struct("<I")


@dataclass(slots=True, eq=False)
class LocalChange:
    """A local transaction that the server has not acknowledged.

    Attributes
    ----------
    version : int
        The realm's version that it made.
    server_version : int
        The server's version that it was based on.
    timestamp : int
        Milliseconds since 2015.
    changeset : bytes
        As it was written; this is what is uploaded.
    """

    version: int
    server_version: int
    timestamp: int
    changeset: bytes
    _merged: Changeset | Callable[[], Changeset] | None = None
    _differs: bool = False

    @property
    def reciprocal(self) -> Changeset:
        """The changeset after what the server sent meanwhile was merged into it."""
        found = self._merged
        if not isinstance(found, Changeset):
            found = self._merged = Changeset.decode(self.changeset) if found is None else found()
        return found

    def with_reciprocal(self, merged: Changeset | Callable[[], Changeset]) -> LocalChange:
        """Return this change, merged further; what it became may be a function that makes it."""
        return LocalChange(self.version, self.server_version, self.timestamp, self.changeset, merged, True)

    @property
    def reciprocal_bytes(self) -> bytes | None:
        """The merged form, if it differs from the original."""
        return self.reciprocal.encode() if self._differs else None


class Changes(Sequence[LocalChange]):
    """An immutable sequence of local changes, oldest first, to which one is appended at no cost.

    Those made one from another by appending share a list, each seeing its own part of it.
    """

    __slots__ = ("_items", "_start", "_stop", "prepared")

    def __init__(
        self,
        items: list[LocalChange] | None = None,
        start: int = 0,
        stop: int | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        self._items = [] if items is None else items
        self._start, self._stop = start, len(self._items) if stop is None else stop
        #: What was found out about the last ones when they were merged.
        self.prepared = prepared

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[LocalChange]:
        return iter(self._items[self._start : self._stop])

    def __getitem__(self, index: int) -> LocalChange:  # type: ignore[override]
        return self._items[range(self._start, self._stop)[index]]

    def appended(self, change: LocalChange) -> Changes:
        """Return these and one more."""
        if self._stop != len(self._items):
            # Another sequence went on from here: take a copy.
            return Changes([*self, change], prepared=self.prepared)
        self._items.append(change)
        return Changes(self._items, self._start, self._stop + 1, self.prepared)

    def after(self, version: int) -> Changes:
        """Return those with a version above one."""
        low, high = self._start, self._stop
        while low < high:
            middle = (low + high) // 2
            if self._items[middle].version <= version:
                low = middle + 1
            else:
                high = middle
        if low == self._start:
            return self
        if low == self._stop:
            return Changes()
        # Do not keep many bytes alive for few.
        if 2 * low > len(self._items):
            return Changes(self._items[low : self._stop], prepared=self.prepared)
        return Changes(self._items, low, self._stop, self.prepared)

    def replaced(self, tail: Sequence[LocalChange]) -> Changes:
        """Return these with the last ones replaced."""
        return Changes([*self._items[self._start : self._stop - len(tail)], *tail], prepared=self.prepared)

    def with_prepared(self, prepared: Prepared | None) -> Changes:
        """Return these with what was found out about them."""
        return Changes(self._items, self._start, self._stop, prepared)

    def to_bytes(self) -> bytes:
        """Write them."""
        heads, bodies = [], []
        for change in self:
            merged = change.reciprocal_bytes
            sizes = [len(change.changeset), -1 if merged is None else len(merged)]
            heads.append([change.version, change.server_version, change.timestamp, *sizes])
            bodies += [change.changeset, merged or b""]
        text = json.dumps(heads).encode()
        return _SIZE.pack(len(text)) + text + b"".join(bodies)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Changes:
        """Read what :meth:`to_bytes` wrote."""
        (size,) = _SIZE.unpack_from(blob)
        found, at = [], 4 + size
        for version, server_version, timestamp, length, merged_length in json.loads(blob[4 : 4 + size]):
            change = LocalChange(version, server_version, timestamp, blob[at : at + length])
            at += length
            if merged_length >= 0:
                change = change.with_reciprocal(Changeset.decode(blob[at : at + merged_length]))
                at += merged_length
            found.append(change)
        return cls(found)
