"""What a client does about an error: a table by action, and one by how a WebSocket was refused or closed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from realmframe.wire import Action


@dataclass(frozen=True, slots=True)
class Reaction:
    """What an action means for the session.

    Attributes
    ----------
    retries : bool
        Bind again after a delay, if the server says ``tryAgain``.
    reported : bool
        Tell the app.
    fatal : bool
        The session stays inactive until it is opened again.
    """

    retries: bool
    reported: bool
    fatal: bool


REACTIONS: Final[dict[str, Reaction]] = {
    Action.TRANSIENT: Reaction(retries=True, reported=False, fatal=False),
    Action.WARNING: Reaction(retries=True, reported=True, fatal=False),
    Action.APPLICATION_BUG: Reaction(retries=False, reported=True, fatal=True),
    Action.PROTOCOL_VIOLATION: Reaction(retries=False, reported=True, fatal=True),
    Action.DELETE_REALM: Reaction(retries=False, reported=True, fatal=True),
    Action.CLIENT_RESET: Reaction(retries=False, reported=True, fatal=True),
    Action.CLIENT_RESET_NO_RECOVERY: Reaction(retries=False, reported=True, fatal=True),
    Action.MIGRATE_TO_FLX: Reaction(retries=False, reported=True, fatal=True),
    Action.REVERT_TO_PBS: Reaction(retries=False, reported=True, fatal=True),
    Action.MIGRATE_SCHEMA: Reaction(retries=False, reported=True, fatal=True),
    Action.LOG_OUT_USER: Reaction(retries=False, reported=True, fatal=True),
    Action.REFRESH_USER: Reaction(retries=True, reported=False, fatal=False),
    Action.REFRESH_LOCATION: Reaction(retries=True, reported=False, fatal=False),
}
#: An action that the protocol does not know ends the session.
UNKNOWN: Final = Reaction(retries=False, reported=True, fatal=True)


class Closed(Enum):
    """What to do when a WebSocket was refused or closed."""

    REFRESH_USER = "ask for a new access token, then connect at once"
    LOG_OUT_USER = "log the user out"
    REFRESH_LOCATION = "ask for the location and a new access token, then connect"
    RETRY = "connect again after a delay"
    CLIENT_RESET = "treat as a client reset"
    FATAL = "give up until the session is opened again"


CLOSE_CODES: Final[dict[int, Closed]] = {
    1009: Closed.CLIENT_RESET,
    4001: Closed.REFRESH_USER,
    4002: Closed.LOG_OUT_USER,
    4003: Closed.REFRESH_LOCATION,
}
HTTP_STATUSES: Final[dict[int, Closed]] = {
    301: Closed.REFRESH_LOCATION,
    308: Closed.REFRESH_LOCATION,
    400: Closed.FATAL,
    401: Closed.REFRESH_USER,
    403: Closed.LOG_OUT_USER,
    404: Closed.FATAL,
}


def on_close(code: int) -> Closed:
    """Tell what a close code means; all others mean another try after a delay."""
    return CLOSE_CODES.get(code, Closed.RETRY)


def on_status(status: int) -> Closed:
    """Tell what an HTTP status in place of a WebSocket means."""
    known = HTTP_STATUSES.get(status)
    if known is not None:
        return known
    return Closed.FATAL if 400 <= status < 500 else Closed.RETRY
