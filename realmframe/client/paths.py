"""Which rule gives a realm its place on disk. Pure: nothing here touches the disk.

===================== ================= ====================================================
``path``              sync              the realm is
===================== ================= ====================================================
absolute              any               exactly there
relative              any               under base_file_path, sub-folders allowed, never outside
absent                flexible          ``<base_file_path>/flx_sync_default_<user id>.realm``
absent                partition-based   ``<base_file_path>/<partition name>_<user id>.realm``
absent                none              ``<base_file_path>/default.realm``
===================== ================= ====================================================

Without base_file_path the current working directory plays its part. Metadata is always under
``<base_file_path>/mongodb-realm/``.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from realmframe.errors import UsageError
from realmframe.model import ObjectId

METADATA_FOLDER: Final = "mongodb-realm"
SUFFIX: Final = ".realm"
_KEPT: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
#: Longest name of a file in bytes, less what side files append.
_MAX_NAME: Final = 240


@dataclass(frozen=True, slots=True)
class RealmPath:
    """Where a realm is, and why.

    Attributes
    ----------
    path : Path
        The realm's directory.
    rule : str
        The rule that gave it, in words.
    """

    path: Path
    rule: str

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class SyncPlace:
    """What of a sync configuration decides a path."""

    user_id: str
    flexible: bool
    partition_value: Any = None


def percent(text: str) -> str:
    """Encode a name for use as one file name: all but ``A-Z a-z 0-9 - _ .`` becomes ``%XX``."""
    return "".join(chr(b) if b in _KEPT else f"%{b:02X}" for b in text.encode("utf-8", "surrogateescape"))


def partition_name(value: Any) -> str:
    """Name a partition as the SDKs do.

    Raises
    ------
    UsageError
        For a value that cannot be a partition.
    """
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"s_{percent(value)}"
    if isinstance(value, bool):
        raise UsageError("A partition value cannot be a bool.", hint=_PARTITION_HINT)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise UsageError(f"The partition value {value} does not fit into 64 bits.")
        return f"l_{value}"
    if isinstance(value, ObjectId):
        return f"o_{value.binary.hex()}"
    if isinstance(value, uuid.UUID):
        return f"u_{value}"
    raise UsageError(f"A partition value cannot be a {type(value).__name__}.", hint=_PARTITION_HINT)


_PARTITION_HINT: Final = "It is a string, an integer, an ObjectId, a UUID or None."


def base_folder(base_file_path: str | os.PathLike[str] | None) -> Path:
    """Give the folder that relative paths start from, absolute."""
    return Path(os.path.abspath(base_file_path if base_file_path is not None else os.getcwd()))


def path_for(
    path: str | os.PathLike[str] | None,
    *,
    base_file_path: str | os.PathLike[str] | None = None,
    sync: SyncPlace | None = None,
) -> RealmPath:
    """Find a realm's place.

    Parameters
    ----------
    path : str or PathLike, optional
        As configured.
    base_file_path : str or PathLike, optional
        As set on the App; the current working directory by default.
    sync : SyncPlace, optional
        None for a local realm.

    Raises
    ------
    UsageError
        For a path that is empty, holds a NUL, climbs out of base_file_path, or lies in the metadata folder.
    """
    base = base_folder(base_file_path)
    where = "base_file_path" if base_file_path is not None else "the current working directory"
    if path is None:
        return _default(base, where, sync)
    text = os.fspath(path)
    if not text or not text.strip() or "\0" in text:
        raise UsageError(f"{text!r} cannot be the path of a realm.", hint="Give a name, or no path at all.")
    if os.path.isabs(text):
        return RealmPath(Path(os.path.normpath(text)), "path is absolute: the realm is exactly there")
    found = Path(os.path.normpath(base / text))
    if found == base or base not in found.parents:
        raise UsageError(
            f"The path {text!r} leads out of {where} ({base}).",
            hint="A relative path stays inside it; an absolute path may be anywhere.",
        )
    if found.relative_to(base).parts[0] == METADATA_FOLDER:
        raise UsageError(f"The path {text!r} lies in the folder of the metadata ({METADATA_FOLDER}).")
    return RealmPath(found, f"path is relative: it starts from {where}")


def _default(base: Path, where: str, sync: SyncPlace | None) -> RealmPath:
    if sync is None:
        return RealmPath(base / f"default{SUFFIX}", f"no path, no sync: default{SUFFIX} in {where}")
    if sync.flexible:
        stem, kind = f"flx_sync_default_{percent(sync.user_id)}", "Flexible Sync: flx_sync_default_<user id>"
    else:
        name = partition_name(sync.partition_value)
        stem, kind = f"{name}_{percent(sync.user_id)}", "partition-based sync: <partition name>_<user id>"
    if len(stem) + len(SUFFIX) > _MAX_NAME:
        stem = hashlib.sha256(stem.encode()).hexdigest()
        kind += ", too long for a file name and so its SHA-256"
    return RealmPath(base / f"{stem}{SUFFIX}", f"no path, {kind}{SUFFIX} in {where}")


def metadata_folder(base_file_path: str | os.PathLike[str] | None, app_id: str) -> Path:
    """Give the folder of an app's users and tokens."""
    name = percent(app_id)
    if name in ("", ".", ".."):
        raise UsageError(f"{app_id!r} cannot be an app id.")
    return base_folder(base_file_path) / METADATA_FOLDER / name
