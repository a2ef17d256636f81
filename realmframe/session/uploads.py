"""What a client session uploads next, and what it says of its own history with it.

A client version is said to hold one server version, for ever. An entry names the one that its change was written on;
a version that is not an entry's, the one that was integrated when it was made. Progress without changes makes no
version: then the locked version alone acknowledges what was downloaded.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from realmframe.session.progress import Progress, UploadSource
from realmframe.session.start import SessionStart
from realmframe.wire import Upload, UploadEntry

#: An UPLOAD takes no more changesets once it has this many bytes.
UPLOAD_SOFT_LIMIT: Final = 128 * 1024
#: And none that would make it larger than this, unless it is the first one.
UPLOAD_HARD_LIMIT: Final = 16 * 1024 * 1024


class Uploads:
    """How far one session has uploaded.

    Parameters
    ----------
    number : int
        The session's.
    start : SessionStart
    source : UploadSource

    Attributes
    ----------
    cursor : tuple of int
        Client version up to which everything was sent in this binding, and the server version said with it.
    """

    def __init__(self, number: int, start: SessionStart, source: UploadSource) -> None:
        self._number, self._source = number, source
        self._may_upload = start.may_upload
        self.cursor = (start.progress.upload_client_version, start.progress.upload_server_version)
        self._told_locked = 0
        #: Client versions, and the server version that the realm had integrated when it made them.
        self._points: deque[tuple[int, int]] = deque([(start.latest_version, start.progress.download_server_version)])

    def bound(self, progress: Progress) -> None:
        """Begin a binding: only what the server has acknowledged counts as sent."""
        self.cursor = (progress.upload_client_version, progress.upload_server_version)
        self._told_locked = 0

    def integrated(self, client_version: int, progress: Progress) -> None:
        """Note that a download was integrated, and the realm's version after it."""
        if progress.upload_client_version > self.cursor[0]:
            self.cursor = (progress.upload_client_version, max(self.cursor[1], progress.upload_server_version))
        if client_version > self._points[-1][0]:  # else nothing but progress came, which makes no version
            self._points.append((client_version, progress.download_server_version))

    def next_message(self, upto: int, locked: int, *, acknowledges: bool) -> Upload | None:
        """Give the next UPLOAD, if one is needed.

        Parameters
        ----------
        upto : int
            Client version up to which changes may be sent.
        locked : int
            Server version up to which everything is integrated.
        acknowledges : bool
            Whether a download is a reason for an UPLOAD without changes.
        """
        client, server = self.cursor
        owes = acknowledges and max(server, self._told_locked) < locked
        if upto <= client and not owes:
            return None
        entries, last, newest = self._collect(client, upto)
        reached = max(client, upto if last is None else last)
        if entries and entries[-1].client_version == reached:
            server = max(server, newest)
        elif reached > client:
            server = max(server, newest, self._server_version_at(reached))
        self.cursor = (reached, server)
        if not self._may_upload or not (entries or owes):
            return None
        self._told_locked = locked
        return Upload(self._number, reached, server, locked, tuple(entries))

    def _collect(self, after: int, upto: int) -> tuple[list[UploadEntry], int | None, int]:
        """Take changes for one UPLOAD: them, the version it stopped at (None: all), their newest server version."""
        entries: list[UploadEntry] = []
        size = newest = 0
        for change in self._source.changes_after(after, upto, UPLOAD_SOFT_LIMIT):
            if size >= UPLOAD_SOFT_LIMIT or (entries and size + len(change.changeset) >= UPLOAD_HARD_LIMIT):
                return entries, entries[-1].client_version, newest
            size += len(change.changeset)
            newest = max(newest, change.server_version)
            entries.append(UploadEntry(change.version, change.server_version, change.timestamp, 0, change.changeset))
        return entries, entries[-1].client_version if size >= UPLOAD_SOFT_LIMIT else None, newest

    def _server_version_at(self, client_version: int) -> int:
        """Tell the server version that the realm had integrated in one of its own versions."""
        while len(self._points) > 1 and self._points[1][0] <= client_version:
            self._points.popleft()
        first, server = self._points[0]
        return server if first <= client_version else 0
