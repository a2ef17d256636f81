"""How long to wait before trying again: doubling, with jitter, starting over when the reason changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: Share of the delay that jitter may take away.
JITTER: Final = 0.25


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """First and longest delay in seconds, and the factor between two delays."""

    first: float = 1.0
    longest: float = 300.0
    factor: float = 2.0


class Backoff:
    """Delays after failures.

    Parameters
    ----------
    random : callable
        Gives a number from 0 to 1; passed in so that tests know it.
    policy : BackoffPolicy
        Used unless the server gives numbers of its own.
    """

    def __init__(self, random: Callable[[], float], policy: BackoffPolicy | None = None) -> None:
        self._random = random
        self._policy = policy or BackoffPolicy()
        self._reason: object = None
        self._delay: float | None = None

    def next(self, reason: object, policy: BackoffPolicy | None = None) -> float:
        """Give the delay before the next try, in seconds."""
        rule = policy or self._policy
        if self._delay is None or reason != self._reason:
            self._delay = rule.first
        else:
            self._delay = min(rule.longest, self._delay * rule.factor)
        self._reason = reason
        return self._delay * (1.0 - JITTER * self._random())

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._reason, self._delay = None, None
