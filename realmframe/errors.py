"""Every error that realmframe raises, in one tree.

::

    RealmError
    ├── UsageError                     the caller asked for something that cannot be
    │   ├── SchemaError                a schema that contradicts itself
    │   │   └── SchemaMismatchError    a schema that contradicts the server's or the file's
    │   ├── QueryError                 a query that cannot be parsed or evaluated (has ``position``)
    │   ├── NoSubscriptionForWriteError
    │   ├── WrongUserError             a realm that belongs to another user
    │   ├── WriteError                 a value, key or class that a transaction cannot take
    │   └── ClosedError                a realm, session or app that was closed
    ├── OpenTimeoutError               a deadline passed (has ``phase``, ``progress``, ``cause``)
    ├── WaitTimeoutError               a wait on sync passed its time-out
    ├── CancelledError                 an open or wait that was cancelled
    ├── NetworkError                   the other side could not be reached or went away
    ├── AuthError                      credentials or a session that the server refused
    ├── AppError                       any other answer of the App Services API (has ``code``, ``status``)
    ├── SyncError                      what the server said about a sync session (has ``code``, ``action``)
    │   ├── CompensatingWriteError     writes that the server reverted (has ``writes``)
    │   └── ClientResetError           the server no longer knows this file's history
    ├── ProtocolError                  bytes or messages that break the protocol (has ``offset``)
    │   ├── LocalProtocolError         this side tried to
    │   ├── RemoteProtocolError        the other side did
    │   └── ChangesetError             bytes that are no changeset, or one that cannot be applied
    │       ├── BadChangesetError      malformed bytes
    │       ├── ApplyError             a changeset that contradicts the state it is applied to
    │       └── MergeError             changesets that cannot be merged
    └── StorageError                   the files of a realm
        ├── CorruptFileError           a file that is damaged or not ours (has ``path``)
        └── ReadOnlyError              a folder or realm that cannot be written

Each message says which side is meant, what was wrong, and what to do. None holds a token or a password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class RealmError(Exception):
    """Base of everything that realmframe raises on purpose.

    Parameters
    ----------
    message : str
        Which side, and what was wrong.
    hint : str, optional
        What to do about it, one sentence.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """Give IPython one line and a hint in place of a stack (full stack: ``%tb``)."""
        lines = [f"{type(self).__name__}: {self.message}"]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return lines


class UsageError(RealmError):
    """The caller asked for something that cannot be."""


class SchemaError(UsageError):
    """A schema contradicts itself."""


class SchemaMismatchError(SchemaError):
    """A schema contradicts the one that the server or the file has."""


class QueryError(UsageError):
    """A query cannot be parsed, bound to its class, or evaluated.

    Parameters
    ----------
    message : str
        What is wrong.
    position : int, optional
        Character offset in the query text where it is wrong.
    text : str, optional
        The query text; the message then shows it with the position marked.
    kind : str
        ``syntax``, ``invalid_query``, ``invalid_argument`` or ``other``.
    """

    def __init__(
        self,
        message: str,
        *,
        position: int | None = None,
        text: str | None = None,
        kind: str = "invalid_query",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.position = position
        self.text = text
        self.kind = kind

    def __str__(self) -> str:
        base = super().__str__()
        if self.text is None or self.position is None:
            return base
        # Of a text of several lines the one that is meant; a tab is as wide below as it is above.
        start = self.text.rfind("\n", 0, self.position) + 1
        line = self.text[start:].partition("\n")[0]
        blank = "".join("\t" if c == "\t" else " " for c in line[: self.position - start])
        return f"{base}\n  {line}\n  {blank}^"


class NoSubscriptionForWriteError(UsageError):
    """A class was written to that no subscription of the realm covers."""


class WrongUserError(UsageError):
    """A realm's files belong to another app or user."""


class WriteError(UsageError):
    """A transaction cannot take this value, key, class or field."""


class ClosedError(UsageError):
    """The realm, session or app was closed."""


class OpenTimeoutError(RealmError):
    """Opening a realm passed its deadline.

    Attributes
    ----------
    phase : str
        What was going on: ``files`` (before the network), ``login``, ``location``, ``connect``, ``download`` or
        ``subscriptions``.
    progress : dict
        What had been reached (bytes, batches, fraction).
    cause : BaseException or None
        The last thing that went wrong before, if anything did.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: str,
        progress: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.phase = phase
        self.progress = dict(progress or {})
        self.cause = cause


class WaitTimeoutError(RealmError):
    """A wait for an upload, a download or subscriptions passed its time-out; the transfer goes on."""


class CancelledError(RealmError):
    """An open or a wait was cancelled."""


class NetworkError(RealmError):
    """The other side could not be reached, or went away."""


class AuthError(RealmError):
    """The server refused credentials, a token or a session.

    Attributes
    ----------
    code : str or None
        The ``error_code`` of the answer, such as ``InvalidPassword``.
    status : int or None
        The HTTP status.
    """

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status


class AppError(RealmError):
    """The App Services API answered with an error.

    Attributes
    ----------
    code : str or None
        The ``error_code`` of the answer, such as ``AccountNameInUse``.
    status : int or None
        The HTTP status.
    """

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status


class SyncError(RealmError):
    """The server said something about a sync session.

    Attributes
    ----------
    code : int
        The protocol's error code (100 to 114 for a connection, 200 to 236 for a session).
    action : str
        What the server asks the client to do, such as ``Transient`` or ``ClientReset``.
    is_fatal : bool
        Whether the session stops until it is opened again.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 0,
        action: str = "Transient",
        is_fatal: bool = False,
        log_url: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.action = action
        self.is_fatal = is_fatal
        self.log_url = log_url


class CompensatingWriteError(SyncError):
    """The server reverted writes of this client.

    Attributes
    ----------
    writes : list of dict
        One ``{"class", "primary_key", "reason"}`` for each write reverted.
    """

    def __init__(self, message: str, *, writes: Sequence[Mapping[str, Any]] = (), code: int = 231) -> None:
        super().__init__(message, code=code, action="Warning")
        self.writes = [dict(w) for w in writes]


class ClientResetError(SyncError):
    """The server no longer knows the history of this file, so the file has to start anew.

    Attributes
    ----------
    recovery_path : str or None
        Where the realm's files are moved when it is closed; open them there as a local realm.
    """

    recovery_path: str | None = None


class ProtocolError(RealmError):
    """Bytes or messages that break the sync protocol.

    Attributes
    ----------
    offset : int or None
        Where in the bytes.
    """

    def __init__(self, message: str, *, offset: int | None = None, hint: str | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})", hint=hint)
        self.offset = offset


class LocalProtocolError(ProtocolError):
    """Our own side was asked to do what the protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The other side did what the protocol forbids."""


class ChangesetError(ProtocolError):
    """Bytes that are no changeset, or a changeset that cannot be used."""


class BadChangesetError(ChangesetError):
    """Malformed changeset bytes."""


class ApplyError(ChangesetError):
    """A changeset contradicts the state that it is applied to; nothing of it was applied."""


class MergeError(ChangesetError):
    """Two changesets cannot be merged."""


class StorageError(RealmError):
    """Something is wrong with the files of a realm.

    Attributes
    ----------
    path : str or None
        The file or folder meant.
    """

    def __init__(self, message: str, *, path: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class CorruptFileError(StorageError):
    """A file is damaged, or not one of ours."""


class ReadOnlyError(StorageError):
    """A folder or a realm cannot be written."""
