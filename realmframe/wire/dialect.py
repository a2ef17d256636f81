"""Which protocol version and sync mode two ends speak, and how they agree on it.

What the versions that we speak added: 8 JSON in BIND, HTTP errors as close codes; 9 migration from partitions to
Flexible Sync; 10 the session's reason in BIND, server log messages; 11 schema versions; 12 a progress estimate in
DOWNLOAD in place of a byte count; 13 collections inside Mixed; 14 bootstraps that the server begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MIN_VERSION: Final = 8
MAX_VERSION: Final = 14
_FLEXIBLE: Final = "com.mongodb.realm-query-sync#"
_PARTITION: Final = "com.mongodb.realm-sync#"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is spoken on one connection.

    Attributes
    ----------
    version : int
        Protocol version, 8 to 14.
    flexible : bool
        Flexible Sync, else partition-based.
    """

    version: int = MAX_VERSION
    flexible: bool = True

    @property
    def subprotocol(self) -> str:
        """Its WebSocket subprotocol."""
        return f"{_FLEXIBLE if self.flexible else _PARTITION}{self.version}"

    @property
    def has_estimate(self) -> bool:
        """Whether a DOWNLOAD carries an estimate from 0 to 1 instead of a byte count."""
        return self.flexible and self.version >= 12


def parse_subprotocol(name: str) -> Dialect | None:
    """Read a subprotocol; None if it is not one of ours or of a version that we do not speak."""
    for prefix, flexible in ((_FLEXIBLE, True), (_PARTITION, False)):
        number = name.removeprefix(prefix)
        if number != name and number.isascii() and number.isdigit() and len(number) < 4:
            version = int(number)
            return Dialect(version, flexible) if MIN_VERSION <= version <= MAX_VERSION else None
    return None


def negotiate(offered: Iterable[str]) -> Dialect | None:
    """Choose the highest version that both ends speak; None if there is none."""
    known = [d for d in (parse_subprotocol(name.strip()) for name in offered) if d is not None]
    return max(known, key=lambda d: d.version, default=None)


def subprotocols(flexible: bool) -> list[str]:
    """List what a client offers, highest first."""
    return [Dialect(v, flexible).subprotocol for v in range(MAX_VERSION, MIN_VERSION - 1, -1)]
