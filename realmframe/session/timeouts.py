"""The timers of a client, with the defaults of the SDKs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timers in seconds. How long connecting may take is for the owner to bound, who does it.

    Attributes
    ----------
    connection_linger : float
        How long a connection without sessions stays open.
    ping_keep_alive_period : float
        Between two PINGs, less up to a tenth at random; the first comes anywhere within the period.
    pong_keep_alive_timeout : float
        Without a PONG for so long the connection is dropped.
    fast_reconnect_limit : float
        A reconnect within this time may upload without waiting for a MARK.
    """

    connection_linger: float = 30.0
    ping_keep_alive_period: float = 60.0
    pong_keep_alive_timeout: float = 120.0
    fast_reconnect_limit: float = 60.0
