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
#: Longest name of a file in bytes that file systems take.
_LONGEST: Final = 255
#: Names that Windows keeps for devices, whatever their suffix, and characters that it takes in no name.
_RESERVED: Final = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))})
_FORBIDDEN: Final = frozenset('<>:"|?*') | {chr(n) for n in range(32)}


@dataclass(frozen=True, slots=True)
class RealmPath:
    """Where a realm is, and why.

    Attributes
    ----------
    path : Path
        The realm's directory.
    rule : str
        The rule that gave it, in words.
    base : Path or None
        The folder that it may not leave; None for an absolute path, which is the caller's own place.
    """

    path: Path
    rule: str
    base: Path | None = None

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
    is_base_set: bool = True,
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
    is_base_set : bool
        False if `base_file_path` is the working directory that an App was made in, for want of another.

    Raises
    ------
    UsageError
        For a path that is empty, holds a NUL, climbs out of base_file_path, or lies in the metadata folder.
    """
    base = base_folder(base_file_path)
    where = "base_file_path" if base_file_path is not None and is_base_set else "the current working directory"
    if path is None:
        return _default(base, where, sync)
    text = os.fspath(path)
    if not text or not text.strip() or "\0" in text:
        raise UsageError(f"{text!r} cannot be the path of a realm.", hint="Give a name, or no path at all.")
    if os.path.isabs(text):
        return RealmPath(Path(os.path.normpath(text)), "path is absolute: the realm is exactly there")
    found = Path(os.path.normpath(base / text))
    if base not in found.parents:
        raise UsageError(
            f"The path {text!r} leads out of {where} ({base}).",
            hint="A relative path stays inside it; an absolute path may be anywhere.",
        )
    parts = found.relative_to(base).parts
    for part in parts:
        _check_name(part, text, windows=os.name == "nt")
    if parts[0].casefold() == METADATA_FOLDER:  # also where the file system tells no case apart
        raise UsageError(f"The path {text!r} lies in the folder of the metadata ({METADATA_FOLDER}).")
    return RealmPath(found, f"path is relative: it starts from {where}", base)


def _check_name(name: str, text: str, *, windows: bool) -> None:
    """Refuse a name that no file can have.

    Raises
    ------
    UsageError
    """
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        raise UsageError(f"The path {text!r} holds text that no file name can hold.") from None
    if size > _LONGEST:
        raise UsageError(f"The path holds a name of {size} bytes; {_LONGEST} are the most.", hint="Shorten it.")
    if windows and (is_reserved(name) or set(name) & _FORBIDDEN or name.endswith((" ", "."))):
        raise UsageError(f"The path {text!r} holds the name {name!r}, which Windows does not take.")


def is_reserved(name: str) -> bool:
    """Tell whether Windows keeps a name for a device."""
    return name.partition(".")[0].rstrip(" ").casefold() in _RESERVED


def check_links(place: RealmPath) -> None:
    """Refuse a place that a symbolic link leads out of its base. Looks at the disk, changes nothing.

    Raises
    ------
    UsageError
    """
    if place.base is None:
        return
    real, real_base = Path(os.path.realpath(place.path)), Path(os.path.realpath(place.base))
    if real_base not in real.parents:
        raise UsageError(f"The path {place.path} leads out of {place.base} through a link, to {real}.")
    if real.relative_to(real_base).parts[0].casefold() == METADATA_FOLDER:
        raise UsageError(f"The path {place.path} leads into the folder of the metadata through a link.")


def _default(base: Path, where: str, sync: SyncPlace | None) -> RealmPath:
    if sync is None:
        return RealmPath(base / f"default{SUFFIX}", f"no path, no sync: default{SUFFIX} in {where}", base)
    if sync.flexible:
        stem, kind = f"flx_sync_default_{percent(sync.user_id)}", "Flexible Sync: flx_sync_default_<user id>"
    else:
        name = partition_name(sync.partition_value)
        stem, kind = f"{name}_{percent(sync.user_id)}", "partition-based sync: <partition name>_<user id>"
    if len(stem) + len(SUFFIX) > _MAX_NAME:
        stem = hashlib.sha256(stem.encode()).hexdigest()
        kind += ", too long for a file name and so its SHA-256"
    return RealmPath(base / f"{stem}{SUFFIX}", f"no path, {kind}{SUFFIX} in {where}", base)


def metadata_folder(base_file_path: str | os.PathLike[str] | None, app_id: str) -> Path:
    """Give the folder of an app's users and tokens."""
    name = percent(app_id)
    if name in ("", ".", ".."):
        raise UsageError(f"{app_id!r} cannot be an app id.")
    if len(name) > _MAX_NAME:
        name = hashlib.sha256(app_id.encode("utf-8", "surrogateescape")).hexdigest()
    elif is_reserved(name) or name.endswith("."):  # one folder on every system
        name = f"%{ord(name[0]):02X}{name[1:-1]}%{ord(name[-1]):02X}"
    return base_folder(base_file_path) / METADATA_FOLDER / name
