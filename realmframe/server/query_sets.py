"""The query sets of one realm: which are taken, and the views that they are, one for all that are equal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from realmframe.errors import QueryError
from realmframe.server.history import History
from realmframe.server.limits import MAX_CLASSES, MAX_QUERY
from realmframe.server.session import Session
from realmframe.server.views import View

_KEPT: Final = 1_000


class QuerySets:
    """Views by query set.

    Parameters
    ----------
    history : History
    sessions : sequence of Session
        Who is connected: what they use is kept.
    """

    def __init__(self, history: History, sessions: Sequence[Session]) -> None:
        self._history, self._sessions = history, sessions
        self._views: dict[tuple[tuple[str, str], ...], View] = {}

    def view(self, texts: Mapping[str, str]) -> View:
        """Give the view of a query set; equal sets share one.

        Raises
        ------
        QueryError
        """
        check_size(texts)
        key = tuple(sorted(texts.items()))
        found = self._views.get(key)
        if found is None:
            if len(self._views) > _KEPT:
                used = {id(s.view) for s in self._sessions}
                self._views = {k: v for k, v in self._views.items() if id(v) in used}
            found = self._views[key] = View(texts)
        found.check(self._history.snapshot.schema)
        return found

    def in_force(self, texts: Mapping[str, str]) -> View:
        """Give the view of a query set that was valid once; what of it is not any more sees nothing."""
        try:
            return self.view(texts)
        except QueryError:
            is_small = size_of(texts) <= MAX_QUERY
            return self.view({n: t for n, t in texts.items() if is_small and self._is_valid(n, t)})

    def _is_valid(self, name: str, text: str) -> bool:
        try:
            self.view({name: text})
        except QueryError:
            return False
        return True


def size_of(texts: Mapping[str, str]) -> int:
    """Give the size of a query set in bytes, as it is sent."""
    return len(json.dumps(texts, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"))


def check_size(texts: Mapping[str, str]) -> None:
    """Check that a query set is not too large to be looked at.

    Raises
    ------
    QueryError
    """
    size = size_of(texts)
    if size > MAX_QUERY or len(texts) > MAX_CLASSES or any(len(name) > 200 for name in texts):
        raise QueryError(
            f"The subscriptions are too large: {size:,} bytes, {MAX_QUERY:,} are allowed, for at most {MAX_CLASSES:,} "
            "classes.",
            hint="Ask by fewer values, or for a property that says the same.",
            kind="other",
        )
