"""Users and tokens on disk: ``<base_file_path>/mongodb-realm/<app>/users.json``.

The file is 0600 in folders that are 0700. It is replaced atomically and changed under a file lock, so several processes
may use one app; each sees what the others did when it looks next, and one that is killed while it writes leaves the old
content. Order in the file is order of logging in. :mod:`.vault` says how it is encrypted, if it is.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import filelock

from realmframe.client.paths import METADATA_FOLDER
from realmframe.client.vault import MetadataConfiguration, Vault
from realmframe.errors import CorruptFileError, ReadOnlyError, StorageError, UsageError

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
    realms: list[str] = field(default_factory=list)

    @property
    def is_anonymous(self) -> bool:
        """Whether anonymity is the only way in which the user logs in."""
        return self.provider == "anon-user" and all(i["provider_type"] == "anon-user" for i in self.identities)

    @property
    def is_valid(self) -> bool:
        """Whether the user is logged in and has a token."""
        return self.state == "logged_in" and bool(self.access_token) and bool(self.refresh_token)


_FIELDS: Final = frozenset(f.name for f in fields(UserRecord))


@dataclass(slots=True)
class _Content:
    current: str | None = None
    users: dict[str, UserRecord] = field(default_factory=dict)
    #: Realms of users who are gone, by user: to be deleted when nobody has them open.
    doomed: dict[str, list[str]] = field(default_factory=dict)


class Metadata:
    """The users of one app on disk.

    Parameters
    ----------
    folder : Path
        Made (0700) on first write.
    configuration : MetadataConfiguration, optional

    Raises
    ------
    StorageError
        When the file cannot be read or written, naming it.
    UsageError
        When it is encrypted with another key, or encrypted and there is no key, or the reverse.
    """

    def __init__(self, folder: Path, configuration: MetadataConfiguration | None = None) -> None:
        self.folder = folder
        how = configuration or MetadataConfiguration()
        self._on_disk = how.mode != "in_memory"
        self._vault = None if how.encryption_key is None else Vault(how.encryption_key)
        self.path = folder / "users.json"
        self._lock = threading.RLock()
        self._seen: tuple[int, int, int] | None = None
        self._content = _Content()

    def begin_anew(self) -> None:
        """Forget who held the lock, in a forked process."""
        self._lock = threading.RLock()

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
            content.doomed.pop(record.id, None)
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

    def track(self, user_id: str, path: str) -> None:
        """Note that a realm is a user's, to go with them."""
        known = self.get(user_id)
        if known is None or path in known.realms:
            return
        with self._changing() as content:
            record = content.users.get(user_id)
            if record is not None and path not in record.realms:
                content.users[user_id] = replace(record, realms=[*record.realms, path])

    def remove(self, user_id: str, *, keep_files: bool = False) -> None:
        """Forget a user; unless told otherwise, their realms are doomed."""
        with self._changing() as content:
            gone = content.users.pop(user_id, None)
            if gone is not None and gone.realms and not keep_files:
                content.doomed[user_id] = gone.realms
            if content.current == user_id:
                content.current = None

    def doomed(self) -> dict[str, list[str]]:
        """Give the realms to be deleted, by user."""
        with self._lock:
            return dict(self._read().doomed)

    def carry_out(self, delete: Callable[[str, list[str]], list[str]], user_id: str | None = None) -> None:
        """Delete what is doomed (of one user, or all): ``delete(user_id, paths)`` gives what has to wait.

        Held under the file lock, so that a user who logs in meanwhile has the files or not, never half of them.
        """
        with self._changing() as content:
            for doomed in [d for d in content.doomed if user_id in (None, d)]:
                left = delete(doomed, content.doomed[doomed])
                if left:
                    content.doomed[doomed] = left
                else:
                    del content.doomed[doomed]

    def _read(self) -> _Content:
        if not self._on_disk:
            return self._content
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
            form = json.loads(self.path.read_bytes())
            if "sealed" in form:
                form = json.loads(self._unsealed(form))
            elif self._vault is not None:
                raise UsageError(
                    f"The app's users ({self.path}) are not encrypted, but there is an encryption_key.",
                    hint="Open them without the key, or move the file away and log in again.",
                )
            if form["format"] != _FORMAT:
                raise ValueError(f"format {form['format']}")
            users = [_record(u) for u in form["users"]]
            return _Content(form.get("current"), {u.id: u for u in users}, dict(form.get("doomed") or {}))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
            raise CorruptFileError(
                f"The file of the app's users, {self.path}, is damaged or not ours.",
                path=str(self.path),
                hint="Move it away and log in again; realms stay as they are.",
            ) from fault
        except OSError as fault:
            raise StorageError(f"The users of the app cannot be read: {fault}.", path=str(self.path)) from fault

    def _unsealed(self, form: dict[str, Any]) -> bytes:
        if self._vault is None:
            raise UsageError(
                f"The app's users ({self.path}) are encrypted.",
                hint='App(metadata={"mode": "encryption", "encryption_key": ...}) reads them.',
            )
        return self._vault.open(form)

    @contextmanager
    def _changing(self) -> Iterator[_Content]:
        with self._lock:
            if not self._on_disk:
                yield self._content
                return
            try:
                private_folder(self.folder)
                lock = filelock.FileLock(self.folder / "users.lock", timeout=_LOCK_SECONDS, mode=0o600)
                with lock:
                    known = self._read()
                    content = _Content(known.current, dict(known.users), dict(known.doomed))
                    yield content
                    self._write(content)
            except filelock.Timeout as fault:
                raise StorageError(
                    f"Another process holds the app's users ({self.folder}) for more than {_LOCK_SECONDS:g} s.",
                    path=str(self.folder),
                ) from fault
            except OSError as fault:
                text = f"The app's users cannot be written: {fault}."
                if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise ReadOnlyError(text, path=str(self.path), hint="Check base_file_path.") from fault
                hint = "Free some space; nothing was lost." if fault.errno in (errno.ENOSPC, errno.EDQUOT) else None
                raise StorageError(text, path=str(self.path), hint=hint) from fault

    def _write(self, content: _Content) -> None:
        users = [asdict(u) for u in content.users.values()]
        form: Any = {"format": _FORMAT, "current": content.current, "users": users, "doomed": content.doomed}
        if self._vault is not None:
            form = self._vault.seal(json.dumps(form).encode())
        for stale in self.folder.glob("users.*.tmp"):  # of a process that was killed; tokens are in it
            stale.unlink(missing_ok=True)
        temporary = self.path.with_name(f"users.{os.getpid()}.{threading.get_ident()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(form, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
            if os.name != "nt":
                _sync_folder(self.folder)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._content = content
        state = self.path.stat()
        self._seen = (state.st_ino, state.st_mtime_ns, state.st_size)


def _record(form: dict[str, Any]) -> UserRecord:
    """Read one user.

    Raises
    ------
    ValueError, TypeError, AttributeError, KeyError
        For what we did not write.
    """
    record = UserRecord(**{k: v for k, v in form.items() if k in _FIELDS})
    texts = (record.id, record.state, record.provider, record.device_id)
    tokens = (record.access_token, record.refresh_token)
    if not all(isinstance(t, str) for t in texts) or not all(isinstance(t, str | None) for t in tokens):
        raise ValueError("a user is not of texts")
    if not record.id or not isinstance(record.profile, dict) or not all(isinstance(r, str) for r in record.realms):
        raise ValueError("a user has no id, profile or realms")
    identities = [{"id": str(i["id"]), "provider_type": str(i["provider_type"])} for i in record.identities]
    return replace(record, identities=identities)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> None:
    """Make a folder, and those above it up to ``mongodb-realm``, readable by this user only.

    Raises
    ------
    UsageError
        If a symbolic link leads the folder out of where it belongs: tokens are written nowhere else.
    """
    top = next(step for step in (folder, *folder.parents) if step.name == METADATA_FOLDER)
    top.parent.mkdir(parents=True, exist_ok=True)
    home = Path(os.path.realpath(top.parent))
    for step in (top, *reversed([s for s in (folder, *folder.parents) if top in s.parents])):
        step.mkdir(mode=0o700, exist_ok=True)
        real = Path(os.path.realpath(step))
        if home not in real.parents:
            raise UsageError(f"The folder of the app's users, {step}, leads to {real} through a link.")
        if os.name != "nt" and step.stat().st_mode & 0o077 and step.stat().st_uid == os.geteuid():
            step.chmod(0o700)
