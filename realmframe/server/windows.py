"""The log as a client's uploads meet it: long backlogs merge with a part of it that is prepared.

While a client uploads what it wrote offline, each of its changesets meets the same part of the log, in the form that
the one before left. So that part is kept as a window, which knows what it is about (:class:`realmframe.merge.Window`).
Windows are bounded together, by bytes; the one used longest ago goes first. What changed in a window is noted with the
client's file before a commit, or when the window goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from realmframe.changes import Changeset
    from realmframe.merge import Meeting, Timed, Window
    from realmframe.model import Schema
    from realmframe.server.entries import ClientFile, Entry
    from realmframe.server.passing import Passing

#: Bytes of all windows of a realm.
MOST_BYTES: Final = 64 << 20
#: Bytes of one that is empty.
_EMPTY_BYTES: Final = 4096

Note = Callable[["ClientFile", "Mapping[int, Changeset]"], None]


@dataclass(slots=True, eq=False)
class _Open:
    """A window, which holds the entries of others above one version and up to another, without asymmetric objects."""

    file: ClientFile
    window: Window
    base: int
    through: int
    passing: set[str]
    nbytes: int = 0


class Windows:
    """Those of one realm.

    Parameters
    ----------
    since : callable
        Gives the log's entries above a version.
    note : callable
        Takes a file and what entries have become for it, by version.
    passing : Passing
    most : int
        Bytes that all windows may take.
    """

    def __init__(
        self, since: Callable[[int], list[Entry]], note: Note, passing: Passing, most: int = MOST_BYTES
    ) -> None:
        self._since, self._note, self._passing, self._most = since, note, passing, most
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._bytes = 0
        #: Files whose windows have changed since the last commit.
        self._changed: dict[int, _Open] = {}

    def merge(self, file: ClientFile, base: int, upload: Timed, schema: Schema) -> Meeting:
        """Transform an upload against what the log got from others since its base."""
        from realmframe.merge import Timed

        found = self._window(file, base, self._passing.names(schema))
        entries = self._since(found.through)
        for e in entries:
            if e.origin != file.ident and len(e.data):
                changeset = self._passing.without(schema, file.reciprocals.get(e.version, e.changeset))
                found.window.append(e.version, Timed(changeset, e.timestamp, e.origin))
        if entries:
            found.through = entries[-1].version
        self._open[file.ident] = found
        self._open.move_to_end(file.ident)
        try:
            return found.window.meet([upload])
        finally:
            self._count(found)

    def accept(self, file: ClientFile, meeting: Meeting) -> None:
        """Keep what the log's entries have become in a meeting, which must be the file's last one."""
        meeting.accept()
        found = self._open.get(file.ident)
        if found is None:
            return
        if not found.window.is_settled:
            self._changed[file.ident] = found
        self._count(found)
        while self._bytes > self._most and self._open:
            self._close(next(iter(self._open.values())))

    def _window(self, file: ClientFile, base: int, passing: set[str]) -> _Open:
        from realmframe.merge import Window

        found = self._open.get(file.ident)
        # What the client has confirmed is as in the log again, for whoever goes back behind that.
        if found is not None and (base < max(found.base, file.server_version) or passing != found.passing):
            self._close(found)
            found = None
        if found is None:
            return _Open(file, Window(), base, base, passing)
        if base > found.base:
            self._settle(found, base)
            found.window.forget(base)
            found.base, found.through = base, max(base, found.through)
        return found

    def _count(self, found: _Open) -> None:
        size = _EMPTY_BYTES + found.window.nbytes
        self._bytes += size - found.nbytes
        found.nbytes = size

    def _close(self, found: _Open) -> None:
        self._settle(found)
        self._bytes -= found.nbytes
        self._changed.pop(found.file.ident, None)
        del self._open[found.file.ident]

    def _settle(self, found: _Open, through: int | None = None) -> None:
        made = found.window.settle(through)
        # The client has confirmed the others already.
        self._note(found.file, {version: c for version, c in made if version > found.file.server_version})

    def settle(self) -> None:
        """Note all that has changed."""
        for found in self._changed.values():
            self._settle(found)
        self._changed = {}

    def forget_through(self, version: int) -> None:
        """Forget entries that were trimmed."""
        for found in self._open.values():
            found.window.forget(version)
