"""Keywords that do not exist, refused with the nearest that does."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from realmframe.errors import UsageError


def snake(word: str) -> str:
    """Spell a word of the SDKs as Python does: ``baseFilePath`` is ``base_file_path``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", word).lower()


def refuse_unknown(what: str, unknown: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keywords that nothing takes.

    Raises
    ------
    UsageError
        For the first of them, with the spelling that was probably meant.
    """
    for name in unknown:
        names = list(known)
        near = difflib.get_close_matches(snake(name), names, 1, 0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(names)}."
        raise UsageError(f"{what} has no {name!r}.", hint=hint)
