"""From the name of an Arrow type to the type: pandas writes names into files, but reads none of nested types."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import pyarrow as pa

from realmframe.model import Property, PropertyType, Schema
from realmframe.store import arrow_type

_STAMP: Final = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")
_EXTENDED: Final = (PropertyType.MIXED, PropertyType.OBJECT_ID, PropertyType.DECIMAL128, PropertyType.UUID)
_OPENING, _CLOSING = "<[(", ">])"


@lru_cache(maxsize=1)
def _extensions() -> dict[str, pa.DataType]:
    kinds = [arrow_type(Property("x", kind, True), Schema()) for kind in _EXTENDED]
    return {str(kind): kind for kind in kinds}


def _parts(text: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    depth, parts = 0, [""]
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.removeprefix(" ") for part in parts]


def _read(text: str) -> pa.DataType:
    if text in _extensions():
        return _extensions()[text]
    if text.startswith("list<item: "):
        return pa.list_(_read(text[11:-1]))
    if text.startswith("map<"):
        key, value = _parts(text[4:-1])
        return pa.map_(_read(key), _read(value))
    if text == "struct<>":
        return pa.struct([])
    if text.startswith("struct<"):
        fields = [part.partition(": ") for part in _parts(text[7:-1])]
        return pa.struct([(name, _read(kind)) for name, _, kind in fields])
    stamp = _STAMP.fullmatch(text)
    return pa.timestamp(stamp[1], stamp[2]) if stamp else pa.type_for_alias(text)


def type_of_name(text: str) -> pa.DataType | None:
    """Read the name of an extension type of realms or of a nested type; None for what is no such name."""
    if not text.startswith(("list<", "map<", "struct<", "extension<")):
        return None
    try:
        kind = _read(text)
    except (ValueError, pa.ArrowException):
        return None
    return kind if str(kind) == text else None
