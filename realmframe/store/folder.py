"""Folders of realms that are not open: whether there is one, its deletion and its move."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from realmframe.errors import CorruptFileError, UsageError
from realmframe.store import lock as locks
from realmframe.store.checkpoint import MANIFEST
from realmframe.store.files import FileSystem, explained, make_folder
from realmframe.store.journal import segment_numbers


def exists(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a realm at a path."""
    folder = Path(path)
    return folder.is_dir() and ((folder / MANIFEST).exists() or bool(segment_numbers(folder)))


def enclosing(path: str | os.PathLike[str]) -> Path | None:
    """Give the realm in whose folder a path lies; None if it lies in none."""
    return next((p for p in Path(path).parents if (p / locks.USE).exists() and exists(p)), None)


def delete(path: str | os.PathLike[str]) -> None:
    """Delete the files of a realm; nothing happens if there is none.

    Raises
    ------
    UsageError
        If a process has it open.
    """
    folder = Path(path)
    if not exists(folder):
        return
    use = locks.Use(folder, FileSystem(), exclusive=True)
    try:
        with explained(folder):
            shutil.rmtree(folder)
    finally:
        use.close()


def move(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Move the files of a realm.

    Raises
    ------
    UsageError
        If a process has it open, or there is something at the target.
    """
    folder, goal = Path(path), Path(target)
    if goal.exists():
        raise UsageError(f"There is something at {goal} already.", hint="Give another path.")
    use = locks.Use(folder, FileSystem(), exclusive=True)
    try:
        with explained(goal):
            make_folder(FileSystem(), goal.parent)
            shutil.move(os.fspath(folder), os.fspath(goal))
    finally:
        use.close()


def check_foreign(folder: Path) -> None:
    """Refuse to make a realm in a folder that holds something else."""
    if folder.is_dir():
        others = [p for p in folder.iterdir() if p.name not in locks.NAMES]
        if others:
            raise CorruptFileError(
                f"The folder {folder} holds {others[0].name!r}, which is no part of a realm.",
                path=str(others[0]),
                hint="Choose another path, or empty the folder.",
            )
