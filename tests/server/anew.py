"""Merging each upload with the log anew: what the server's windows are compared with."""

from __future__ import annotations

from realmframe.changes import Changeset
from realmframe.merge import Meeting, Timed, transform
from realmframe.model import Schema
from realmframe.server.entries import ClientFile
from realmframe.server.windows import Windows


class Anew(Windows):
    """Keeps no window, and notes each changed entry at once."""

    _made: dict[int, Changeset]

    def merge(self, file: ClientFile, base: int, upload: Timed, schema: Schema) -> Meeting:
        """Transform an upload against all entries of others since its base."""
        others = [e for e in self._since(base) if e.origin != file.ident and len(e.data)]
        theirs = [self._passing.without(schema, file.reciprocals.get(e.version, e.changeset)) for e in others]
        right = [Timed(c, e.timestamp, e.origin) for c, e in zip(theirs, others, strict=True)]
        mine, transformed = transform([upload], right)
        pairs = zip(others, theirs, transformed, strict=True)
        self._made = {e.version: new for e, old, new in pairs if new is not old}
        return Meeting(mine)

    def accept(self, file: ClientFile, meeting: Meeting) -> None:
        """Note what the entries have become."""
        self._note(file, self._made)
