"""What the sync thread has to say, shown where it belongs in time: with the cell that runs, or the next one."""

from __future__ import annotations

import logging
import sys
from collections import deque
from typing import Any, Final

from realmframe.errors import RealmError

#: Lines that wait for a cell; older ones are counted only.
MOST: Final = 20


class Notices(logging.Handler):
    """Keeps warnings until a cell begins or ends.

    Without a handler Python would print them from the thread that they come from, and the kernel would put that under
    the cell that started the thread: often another one, far above.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._waiting: deque[str] = deque(maxlen=MOST)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._dropped += len(self._waiting) == MOST
        self._waiting.append(text)

    def show(self, *_: Any) -> None:
        """Print what waits (before a cell)."""
        while self._waiting:
            if self._dropped:
                print(f"({self._dropped} earlier warnings)", file=sys.stderr)
                self._dropped = 0
            print(self._waiting.popleft(), file=sys.stderr)

    def show_after(self, result: Any) -> None:
        """Print what waits (after a cell), without what the cell's own error says."""
        error = result.error_in_exec
        if isinstance(error, RealmError):
            kept = [text for text in self._waiting if error.message not in text]
            self._waiting.clear()
            self._waiting.extend(kept)
        self.show()
