"""Which protocol version and sync mode two ends speak, and how they agree on it.

Messages of versions 2 to 14 can be read and written; 8 to 14 are negotiated. What those added: 8 JSON in BIND, HTTP
errors as close codes; 9 migration from partitions to Flexible Sync; 10 the session's reason in BIND, server log
messages; 11 schema versions; 12 a progress estimate in DOWNLOAD in place of a byte count; 13 collections inside Mixed;
14 bootstraps that the server begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from realmframe.errors import LocalProtocolError

MIN_VERSION: Final = 8
MAX_VERSION: Final = 14
_OLDEST: Final = 2
_FLEXIBLE: Final = "com.mongodb.realm-query-sync#"
_PARTITION: Final = "com.mongodb.realm-sync#"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is spoken on one connection.

    Attributes
    ----------
    version : int
        Protocol version, 2 to 14.
    flexible : bool
        Flexible Sync, else partition-based.
    """

    version: int = MAX_VERSION
    flexible: bool = True

    def __post_init__(self) -> None:
        if not _OLDEST <= self.version <= MAX_VERSION:
            raise LocalProtocolError(f"There is no protocol version {self.version}: use {_OLDEST} to {MAX_VERSION}.")

    @property
    def subprotocol(self) -> str:
        """Its WebSocket subprotocol."""
        return f"{_FLEXIBLE if self.flexible else _PARTITION}{self.version}"

    @property
    def has_estimate(self) -> bool:
        """Whether a DOWNLOAD carries an estimate from 0 to 1 instead of a byte count."""
        return self.flexible and self.version >= 12

    @property
    def has_json_bind(self) -> bool:
        """Whether the body of BIND is a JSON object instead of the path of the realm."""
        return self.flexible and self.version >= 8

    @property
    def has_session_reason(self) -> bool:
        """Whether BIND says why the session is opened, and the server may send log messages."""
        return self.version >= 10

    @property
    def has_schema_version(self) -> bool:
        """Whether BIND names the version of the client's schema."""
        return self.flexible and self.version >= 11

    @property
    def has_server_bootstraps(self) -> bool:
        """Whether the server may begin a bootstrap of a query set that is complete already."""
        return self.flexible and self.version >= 14


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
