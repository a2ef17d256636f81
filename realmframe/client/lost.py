"""What is kept of writes that the server reverted or a client reset lost."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from realmframe.errors import UsageError
from realmframe.model import ejson
from realmframe.store import Lost, RealmStore

#: Of a reset that loses more objects than this, the rest is only counted: the copy of the realm has all of them.
MOST_LOST: Final = 1_000


def as_text(values: dict[str, Any]) -> str:
    """Write values as extended JSON text."""
    return json.dumps({name: _encoded(value) for name, value in values.items()}, ensure_ascii=False)


def _encoded(value: Any) -> Any:
    if isinstance(value, bool | int | float | str | None):
        return value
    try:
        return ejson.encode(value)
    except UsageError:
        return str(value)


def key_of(key: Any) -> Any:
    """Give a key as JSON has it."""
    return key if isinstance(key, str | int | None) else str(key)


def lost_values(store: RealmStore, cls: str, key: Any) -> str:
    """Give what the newest commit that changed an object took away from it, as extended JSON text."""
    for applied in reversed(store.past()):
        before, after = applied.before.object(cls, key), applied.snapshot.object(cls, key)
        if before is not None and before != after:
            return as_text({n: v for n, v in before.items() if after is None or after.get(n) != v})
    return "{}"


def quarantined(lost: Sequence[Lost], copy: str | None) -> list[dict[str, Any]]:
    """Write what a reset lost as entries of the quarantine."""
    when = time.time()
    found: list[dict[str, Any]] = [
        {
            "class": one.cls,
            "primary_key": key_of(one.key),
            "reason": one.reason,
            "values": as_text(one.values),
            "when": when,
            "kind": "client reset",
            "copy": copy,
        }
        for one in lost[:MOST_LOST]
    ]
    if len(lost) > MOST_LOST:
        text = f"{len(lost) - MOST_LOST:,} more objects were lost; the copy of the realm has all of them"
        found.append({"reason": text, "when": when, "kind": "client reset", "copy": copy})
    return found
