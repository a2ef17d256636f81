"""What is kept of writes that the server reverted or a client reset lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from realmframe.errors import UsageError
from realmframe.model import ejson
from realmframe.session.events import CompensatingWrites
from realmframe.store import Applied, Lost

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


def reverted(applied: Applied | None, events: Iterable[CompensatingWrites]) -> list[dict[str, Any]]:
    """Write what the server took back as entries of the quarantine.

    Parameters
    ----------
    applied : Applied or None
        The commit that reverts it: what it takes away from an object are the values that are lost.
    events : iterable of CompensatingWrites
    """
    when = time.time()
    return [
        {
            "class": write["class"],
            "primary_key": key_of(write["primary_key"]),
            "reason": write["reason"],
            "values": _taken_away(applied, write["class"], write["primary_key"]),
            "when": when,
            "kind": "compensating write",
        }
        for event in events
        for write in event.writes
    ]


def _taken_away(applied: Applied | None, cls: str, key: Any) -> str:
    before = None if applied is None else applied.before.object(cls, key)
    if applied is None or before is None:
        return "{}"
    after = applied.snapshot.object(cls, key)
    return as_text({n: v for n, v in before.items() if after is None or after.get(n) != v})


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
