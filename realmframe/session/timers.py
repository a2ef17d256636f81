"""The SDK's timers, all settable, in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyncTimeouts:
    """Timers of the sync client; the defaults are the SDK's.

    Attributes
    ----------
    connect : float
        From resolving the host to the answer with the subprotocol.
    connection_linger : float
        How long a connection without sessions is kept.
    ping_keep_alive_period : float
        Time between two PINGs, less up to 10 % at random.
    pong_keep_alive_timeout : float
        A PONG that takes longer means that the connection is dead.
    fast_reconnect_limit : float
        After a shorter interruption uploads need not wait for a MARK.
    """

    connect: float = 120.0
    connection_linger: float = 30.0
    ping_keep_alive_period: float = 60.0
    pong_keep_alive_timeout: float = 120.0
    fast_reconnect_limit: float = 60.0
