"""Downloads meet the local changes that the server did not know when it made them.

Of a long backlog each download meets every change, until the server has got it; so what was found out about them is
kept with them (:class:`realmframe.merge.Window`), from one download to the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from realmframe.changes import Changeset, concat
from realmframe.store.pending import Changes, LocalChange

if TYPE_CHECKING:
    from realmframe.merge import Timed
    from realmframe.store.state import Entry, State

#: A window of more bytes is made anew for each download.
MOST_BYTES: Final = 32 << 20


class Prepared:
    """A window of local changes.

    It is passed on from one state of a realm to the next, and knows by their identity whether the changes of a state
    are those that it holds: a state that was given up leaves others behind.
    """

    def __init__(self, file_ident: int) -> None:
        from realmframe.merge import Window

        self._file_ident = file_ident
        self._window = Window()
        self._changes: list[LocalChange] = []
        #: False while the window and the changes may not belong together.
        self._is_whole = True

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        return self._window.nbytes

    def fit(self, unknown: Changes, file_ident: int) -> bool:
        """Forget what is not among some changes of a file; tell whether the rest is what they begin with."""
        if not self._is_whole or file_ident != self._file_ident:
            return False
        first, gone = unknown[0].version, 0
        while gone < len(self._changes) and self._changes[gone].version < first:
            gone += 1
        self._window.forget(first - 1)
        del self._changes[:gone]
        return len(self._changes) <= len(unknown) and all(map(_is_same, self._changes, unknown))

    def meet(self, side: Sequence[Timed], unknown: Changes) -> tuple[list[Changeset], list[LocalChange] | None]:
        """Merge with all of the changes that it fits; the second result is None if these stayed as they were."""
        self._is_whole = False
        self._append([unknown[number] for number in range(len(self._changes), len(unknown))])
        self._is_whole = True
        meeting = self._window.meet(side)
        self._is_whole = False
        meeting.accept()
        changed = dict(self._window.tell())
        if changed:
            self._changes = [c.with_reciprocal(changed[v]) if (v := c.version) in changed else c for c in self._changes]
        self._is_whole = True
        return meeting.outputs, list(self._changes) if changed else None

    def _append(self, changes: Iterable[LocalChange]) -> None:
        from realmframe.merge import Timed

        for change in changes:
            self._window.append(change.version, Timed(change.reciprocal, change.timestamp, self._file_ident))
            self._changes.append(change)


def _is_same(one: LocalChange, other: LocalChange) -> bool:
    return one is other


def merged(state: State, entries: Sequence[Entry]) -> tuple[Changeset, Changes]:
    """Merge downloaded entries with the local changes that the server did not know when it made them.

    Returns
    -------
    Changeset
        What is to be applied to the state.
    Changes
        The pending changes, with the entries merged into them.

    Raises
    ------
    BadChangesetError, MergeError
    """
    ready: list[Changeset] = []
    pending = state.pending
    # Entries based on one local version are merged in one go, as the real client does.
    for client_version, group in itertools.groupby(entries, key=lambda e: e.client_version):
        batch = list(group)
        changesets = [e.changeset if isinstance(e.changeset, Changeset) else Changeset.decode(e.data) for e in batch]
        unknown = pending.after(client_version)
        if len(unknown) and any(len(c) for c in changesets):
            changesets, pending = _merge(state, batch, changesets, pending, unknown)
        ready += changesets
    return concat(ready), pending


def _merge(
    state: State, entries: Sequence[Entry], changesets: Sequence[Changeset], pending: Changes, unknown: Changes
) -> tuple[list[Changeset], Changes]:
    """Merge both sides; give the entries and all pending changes as they become."""
    from realmframe.merge import Timed

    own, prepared = 0 if state.file is None else state.file.ident, pending.prepared
    if prepared is None or not prepared.fit(unknown, own):
        prepared = Prepared(own)
    pairs = zip(changesets, entries, strict=True)
    remote, changed = prepared.meet([Timed(c, e.timestamp, e.file_ident) for c, e in pairs], unknown)
    if changed is not None:
        pending = pending.replaced(changed)
    return remote, pending.with_prepared(prepared if prepared.nbytes <= MOST_BYTES else None)
