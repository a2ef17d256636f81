"""How long to wait before trying again: doubling, with jitter, starting anew when the reason changes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Random(Protocol):
    """What the machines need of a ``random.Random``."""

    def uniform(self, a: float, b: float, /) -> float:
        """Give a number between two others."""


@dataclass(frozen=True, slots=True)
class Delays:
    """The numbers of a back-off.

    Attributes
    ----------
    first : float
        Seconds of the first wait.
    longest : float
        Seconds no wait exceeds.
    factor : float
        What each wait is multiplied by.
    jitter : float
        The largest part that is taken off at random, 0 to 1.
    """

    first: float = 1.0
    longest: float = 300.0
    factor: float = 2.0
    jitter: float = 0.25


#: What a json_error has to say for its own numbers to be used, and which they are.
_KEYS = ("backoffIntervalSec", "backoffMaxDelaySec", "backoffMultiplier")


def delays_of(body: Mapping[str, Any], default: Delays) -> Delays | None:
    """Read the back-off that the server wants out of a json_error; None if it names none."""
    found = [body.get(key) for key in _KEYS]
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) and number >= 0 for number in found):
        return None
    first, longest, factor = (float(number) for number in found if number is not None)
    return Delays(first, max(first, longest), max(1.0, factor), default.jitter)


class BackOff:
    """Remembers for which reason it waits, and how long it waited last.

    Parameters
    ----------
    default : Delays
        Used unless the server gives others.
    """

    def __init__(self, default: Delays | None = None) -> None:
        self.default = default or Delays()
        self._delays = self.default
        self._reason: Hashable | None = None
        self._last: float | None = None

    @property
    def reason(self) -> Hashable | None:
        """Why it waits; None after a reset."""
        return self._reason

    def update(self, reason: Hashable, delays: Delays | None = None) -> None:
        """Note why the next wait is needed; another reason than before starts anew."""
        if reason == self._reason:
            return
        self._reason, self._last = reason, None
        self._delays = delays or self.default

    def reset(self) -> None:
        """Forget everything."""
        self._reason, self._last = None, None
        self._delays = self.default

    def next_delay(self, random: Random) -> float:
        """Give the seconds to wait now; each call counts as one attempt. 0 without a reason."""
        if self._reason is None:
            return 0.0
        delays = self._delays
        self._last = delays.first if self._last is None else self._last * delays.factor
        self._last = min(self._last, delays.longest)
        return self._last - random.uniform(0.0, self._last * delays.jitter)
