"""The recorded conversations of the real client with a server, as lines of facts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "data" / "transcripts"
_SUFFIX = ".jsonl.gz"
#: Which word of the head line is the size of a JSON or text body; the last one in the others.
_SIZE = {"bind": 2, "json_error": 2, "error": 2, "query_error": 2, "log_message": 2}


def names(*prefixes: str) -> list[str]:
    """List the recordings whose names begin with one of the prefixes; all of them without any."""
    found = sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))
    return [name for name in found if name.startswith(prefixes or "")]


def records(name: str) -> list[dict[str, Any]]:
    """Read one recording."""
    text = gzip.decompress((_FOLDER / f"{name}{_SUFFIX}").read_bytes()).decode("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def message(record: dict[str, Any]) -> tuple[bytes, bool]:
    """Give a recorded message as bytes, and whether its JSON was written with blanks, which we never do."""
    head = record["header"].encode() + b"\n"
    token = record.get("token", "").encode()
    if "body_hex" in record:
        return head + bytes.fromhex(record["body_hex"]) + token, False
    body = record.get("body", "")
    words = record["header"].split()
    size = 0 if len(words) < 3 else int(words[_SIZE.get(words[0], -1)])
    if isinstance(body, str) and (not body or len(body.encode()) == size):
        return head + body.encode() + token, False
    compact = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    if len(compact) == size:
        return head + compact + token, False
    return head + json.dumps(body).encode() + token, True
