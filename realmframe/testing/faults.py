"""What can go wrong between a client and a server.

================ ============================================================================================
fault            what the client sees
================ ============================================================================================
latency, jitter  everything arrives later, in order
bandwidth        a slow line
stall_after      the connection stays open, but nothing more comes through
cut_after        the connection ends in the middle of a message
cut_every        the connection ends again and again, between two messages of the WebSocket
half_open        the server is gone, and nobody tells
corrupt_at       one bit of what comes is wrong
status           every request is answered with this HTTP status, the server hears nothing
down             nobody listens; when it is lifted, the port listens again
================ ============================================================================================
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from realmframe.errors import UsageError

__all__ = ["Faults"]

_DIRECTIONS: Final = ("down", "up", "both")


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong; the defaults are a line that works.

    Parameters
    ----------
    latency : float
        Seconds that everything takes longer, each way.
    jitter : float
        Up to so many seconds on top, drawn for each piece; the order stays.
    bandwidth : float, optional
        Bytes per second, each way and connection.
    stall_after : int, optional
        Bytes of a connection after which nothing passes any more; it goes on when the fault is lifted.
    cut_after : int, optional
        Bytes of a connection after which both ends are closed.
    cut_every : int, optional
        WebSocket messages of a connection after which both ends are closed.
    half_open : bool
        The server's end is closed, the client's stays open and what it sends is swallowed, for good.
    corrupt_at : int, optional
        Offset of the byte in which one bit, drawn at random, is turned.
    status : int, optional
        HTTP status that every request is answered with, in place of the server.
    down : bool
        No connection is taken, and those that were there are closed.
    direction : str
        What `stall_after`, `cut_after`, `cut_every` and `corrupt_at` are about: ``"down"`` (from the server, the
        default), ``"up"`` or ``"both"``.

    Raises
    ------
    UsageError
        For a number below zero or a direction that does not exist.
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    stall_after: int | None = None
    cut_after: int | None = None
    cut_every: int | None = None
    half_open: bool = False
    corrupt_at: int | None = None
    status: int | None = None
    down: bool = False
    direction: str = "down"

    def __post_init__(self) -> None:
        if self.direction not in _DIRECTIONS:
            raise UsageError(f"direction cannot be {self.direction!r}.", hint=f"It is one of {', '.join(_DIRECTIONS)}.")
        for name in ("latency", "jitter", "stall_after", "cut_after", "corrupt_at"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(f"{name} cannot be {value!r}.", hint="It is zero or more.")
        for name in ("bandwidth", "cut_every", "status"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name} cannot be {value!r}.", hint="It is more than zero.")

    @classmethod
    def drawn(cls, chance: random.Random) -> Faults:
        """Draw one kind of fault with its numbers; equal seeds give equal faults."""
        after = int(10 ** chance.uniform(0.0, 4.5))
        kinds: list[dict[str, Any]] = [
            {},
            {"latency": chance.uniform(0.0, 0.5), "jitter": chance.uniform(0.0, 0.2)},
            {"bandwidth": 10 ** chance.uniform(2.0, 5.0)},
            {"stall_after": after},
            {"cut_after": after},
            {"cut_every": chance.randint(1, 8), "direction": chance.choice(_DIRECTIONS)},
            {"half_open": True},
            {"corrupt_at": after, "direction": chance.choice(_DIRECTIONS[:2])},
            {"status": chance.choice([301, 401, 403, 404, 500, 503])},
            {"down": True},
        ]
        return cls(**chance.choice(kinds))
