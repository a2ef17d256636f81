"""Users and tokens on disk: ``<base_file_path>/mongodb-realm/<app>/users.json``.

The file is 0600 in folders that are 0700. It is replaced atomically and changed under a file lock, so several processes
may use one app; each sees what the others did when it looks next. Order in the file is order of logging in.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import filelock

from realmframe.errors import CorruptFileError, ReadOnlyError, StorageError

log: Final = logging.getLogger("realmframe.client")
_FORMAT: Final = 1
_LOCK_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What is kept of one user; tokens never show in its ``repr``."""

    id: str
    state: str = "logged_in"
    provider: str = ""
    device_id: str = ""
    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    identities: list[dict[str, str]] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_valid(self) -> bool:
        """Whether the user is logged in and has a token."""
        return self.state == "logged_in" and bool(self.access_token) and bool(self.refresh_token)


_FIELDS: Final = frozenset(f.name for f in fields(UserRecord))


@dataclass(slots=True)
class _Content:
    current: str | None = None
    users: dict[str, UserRecord] = field(default_factory=dict)


class Metadata:
    """The users of one app on disk.

    Parameters
    ----------
    folder : Path
        Made (0700) on first write.

    Raises
    ------
    StorageError
        When the file cannot be read or written, naming it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "users.json"
        self._lock = threading.RLock()
        self._seen: tuple[int, int, int] | None = None
        self._content = _Content()

    def users(self) -> dict[str, UserRecord]:
        """All users that were not removed, in order of logging in."""
        with self._lock:
            return dict(self._read().users)

    def get(self, user_id: str) -> UserRecord | None:
        """One user."""
        with self._lock:
            return self._read().users.get(user_id)

    def current(self) -> UserRecord | None:
        """Give the current user if still logged in, else the first that is, else None."""
        with self._lock:
            content = self._read()
        chosen = content.users.get(content.current or "")
        if chosen is not None and chosen.is_valid:
            return chosen
        return next((u for u in content.users.values() if u.is_valid), None)

    def set_current(self, user_id: str) -> None:
        """Make a user the current one."""
        with self._changing() as content:
            content.current = user_id

    def put(self, record: UserRecord, *, current: bool = False) -> None:
        """Add or replace a user."""
        with self._changing() as content:
            content.users[record.id] = record
            if current:
                content.current = record.id

    def change(self, user_id: str, **values: Any) -> UserRecord | None:
        """Replace some fields of a user; None when there is no such user."""
        with self._changing() as content:
            known = content.users.get(user_id)
            if known is None:
                return None
            content.users[user_id] = changed = replace(known, **values)
            return changed

    def remove(self, user_id: str) -> None:
        """Forget a user."""
        with self._changing() as content:
            content.users.pop(user_id, None)
            if content.current == user_id:
                content.current = None

    def _read(self) -> _Content:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._seen, self._content = None, _Content()
            return self._content
        except OSError as fault:
            raise StorageError(f"The users of the app cannot be read: {fault}.", path=str(self.path)) from fault
        seen = (state.st_ino, state.st_mtime_ns, state.st_size)
        if seen != self._seen:
            self._content = self._parse()
            self._seen = seen
        return self._content

    def _parse(self) -> _Content:
        try:
            form = json.loads(self.path.read_text("utf-8"))
            if form["format"] != _FORMAT:
                raise ValueError(f"format {form['format']}")
            users = [UserRecord(**{k: v for k, v in u.items() if k in _FIELDS}) for u in form["users"]]
            return _Content(form.get("current"), {u.id: u for u in users})
        except (ValueError, KeyError, TypeError) as fault:
            raise CorruptFileError(
                f"The file of the app's users, {self.path}, is damaged or not ours.",
                path=str(self.path),
                hint="Move it away and log in again; realms stay as they are.",
            ) from fault
        except OSError as fault:
            raise StorageError(f"The users of the app cannot be read: {fault}.", path=str(self.path)) from fault

    @contextmanager
    def _changing(self) -> Iterator[_Content]:
        with self._lock:
            try:
                private_folder(self.folder)
                lock = filelock.FileLock(self.folder / "users.lock", timeout=_LOCK_SECONDS, mode=0o600)
                with lock:
                    known = self._read()
                    content = _Content(known.current, dict(known.users))
                    yield content
                    self._write(content)
            except filelock.Timeout as fault:
                raise StorageError(
                    f"Another process holds the app's users ({self.folder}) for more than {_LOCK_SECONDS:g} s.",
                    path=str(self.folder),
                ) from fault
            except PermissionError as fault:
                raise ReadOnlyError(
                    f"The app's users cannot be written: {fault}.", path=str(self.path), hint="Check base_file_path."
                ) from fault
            except OSError as fault:
                raise StorageError(f"The app's users cannot be written: {fault}.", path=str(self.path)) from fault

    def _write(self, content: _Content) -> None:
        form = {"format": _FORMAT, "current": content.current, "users": [asdict(u) for u in content.users.values()]}
        temporary = self.path.with_name(f"users.{os.getpid()}.{threading.get_ident()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(form, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._content = content
        state = self.path.stat()
        self._seen = (state.st_ino, state.st_mtime_ns, state.st_size)


def private_folder(folder: Path) -> None:
    """Make a folder, and those above it up to ``mongodb-realm``, readable by this user only."""
    missing = []
    step = folder
    while not step.exists():
        missing.append(step)
        step = step.parent
    for step in reversed(missing):
        inside = step.name == "mongodb-realm" or "mongodb-realm" in step.parent.parts
        step.mkdir(mode=0o700 if inside else 0o777, exist_ok=True)
