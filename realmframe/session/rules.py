"""What errors mean to a client, as tables: actions of json_error, codes, ends of a WebSocket, refusals of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from realmframe.session.events import FollowUp
from realmframe.wire import Action


@dataclass(frozen=True, slots=True)
class ActionRule:
    """What a client does about a session error.

    Attributes
    ----------
    follow_up : FollowUp
    is_reported : bool
        Whether the app is told.
    """

    follow_up: FollowUp
    is_reported: bool


#: In every case the session is suspended and answers UNBIND, except for the codes of CODES_THAT_DO_NOT_SUSPEND.
ACTION_RULES: Final[Mapping[str, ActionRule]] = {
    Action.TRANSIENT: ActionRule(FollowUp.RETRY, is_reported=False),
    Action.WARNING: ActionRule(FollowUp.RETRY, is_reported=True),
    Action.APPLICATION_BUG: ActionRule(FollowUp.STOP, is_reported=True),
    Action.PROTOCOL_VIOLATION: ActionRule(FollowUp.STOP, is_reported=True),
    Action.DELETE_REALM: ActionRule(FollowUp.DELETE_FILE, is_reported=True),
    Action.CLIENT_RESET: ActionRule(FollowUp.CLIENT_RESET, is_reported=True),
    Action.CLIENT_RESET_NO_RECOVERY: ActionRule(FollowUp.CLIENT_RESET_NO_RECOVERY, is_reported=True),
    Action.LOG_OUT_USER: ActionRule(FollowUp.LOG_OUT, is_reported=True),
    Action.REFRESH_USER: ActionRule(FollowUp.REFRESH_USER, is_reported=False),
    Action.REFRESH_LOCATION: ActionRule(FollowUp.REFRESH_LOCATION, is_reported=False),
    Action.MIGRATE_TO_FLX: ActionRule(FollowUp.MIGRATE_TO_FLX, is_reported=False),
    Action.REVERT_TO_PBS: ActionRule(FollowUp.REVERT_TO_PBS, is_reported=False),
    Action.MIGRATE_SCHEMA: ActionRule(FollowUp.MIGRATE_SCHEMA, is_reported=False),
}
#: An action that is not in the table, or the old form of an error, which has none.
UNKNOWN_ACTION: Final = ActionRule(FollowUp.STOP, is_reported=True)

COMPENSATING_WRITE: Final = 231
SCHEMA_VERSION_CHANGED: Final = 236
SESSION_CLOSED: Final = 200
CODES_THAT_DO_NOT_SUSPEND: Final = frozenset({COMPENSATING_WRITE, SCHEMA_VERSION_CHANGED})
#: The server closes sessions with it after a bootstrap, so a growing wait would hurt: always this many seconds.
SESSION_CLOSED_DELAY: Final = 1.0

_INVARIANT: Final = "SyncProtocolInvariantFailed"
_RESET: Final = "SyncClientResetRequired"
#: The SDKs' names of the codes.
ERROR_NAMES: Final[Mapping[int, str]] = {
    100: "ConnectionClosed",
    101: "RuntimeError",
    **dict.fromkeys((102, 103, 105, 106, 107, 108, 109, 111, 112), _INVARIANT),
    110: "RuntimeError",
    113: "WrongSyncType",
    114: "WrongSyncType",
    200: "ConnectionClosed",
    201: "RuntimeError",
    204: "BadSyncPartitionValue",
    206: "SyncPermissionDenied",
    **dict.fromkeys((208, 209, 210, 211, 217, 222), _RESET),
    212: "BadChangeset",
    216: _INVARIANT,
    223: "SyncUserMismatch",
    225: "InvalidSchemaChange",
    226: "InvalidSubscriptionQuery",
    227: "ObjectAlreadyExists",
    228: "SyncServerPermissionsChanged",
    229: "ConnectionClosed",
    230: "SyncWriteNotAllowed",
    231: "SyncCompensatingWrite",
    232: "WrongSyncType",
    233: _INVARIANT,
    234: "WrongSyncType",
    235: "SyncSchemaMigrationError",
    236: "SyncSchemaMigrationError",
}


def error_name(code: int) -> str:
    """Name a code as the SDKs do; ``UnknownError`` for others."""
    return ERROR_NAMES.get(code, "UnknownError")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended, or could not be opened.

    Attributes
    ----------
    reason : str
        Key of the back-off: another reason than last time starts at one second again.
    error : str
        The SDK's name.
    follow_up : FollowUp
        RETRY: the machine connects again after the back-off. REFRESH_USER and REFRESH_LOCATION: so too, but the owner
        refreshes meanwhile and calls ``reconnect``. STOP and LOG_OUT: never by itself.
    is_reported : bool
        Whether the app is told.
    message : str
    """

    reason: str
    error: str
    follow_up: FollowUp = FollowUp.RETRY
    is_reported: bool = True
    message: str = ""

    @property
    def is_fatal(self) -> bool:
        """Whether nothing is tried again by itself."""
        return self.follow_up in (FollowUp.STOP, FollowUp.LOG_OUT)


_REFUSED: Final = "refused"
#: The TCP connection was reset or cut, or a PONG did not come.
LOST: Final = Ending("lost", "ConnectionClosed", is_reported=False)
PONG_TIMEOUT: Final = Ending("pong timeout", "ConnectionClosed", is_reported=False)
#: Name not resolved, connection refused, TLS, time-out before the subprotocol was agreed.
CONNECT_FAILED: Final = Ending("connect", "SyncConnectFailed")
CONNECT_TIMEOUT: Final = Ending("connect timeout", "SyncConnectFailed")
#: We closed it ourselves.
VOLUNTARY: Final = Ending("voluntary", "", is_reported=False)

_REFRESH_USER: Final = Ending(_REFUSED, "AuthError", FollowUp.REFRESH_USER, is_reported=False)
_LOG_OUT: Final = Ending(_REFUSED, "AuthError", FollowUp.LOG_OUT)
_REFRESH_LOCATION: Final = Ending(_REFUSED, "ConnectionClosed", FollowUp.REFRESH_LOCATION, is_reported=False)
_RETRY: Final = Ending(_REFUSED, "ConnectionClosed")
_BROKEN: Final = Ending("websocket", _INVARIANT)

#: WebSocket close codes; any other is ``_BROKEN``. The SDKs do nothing at 1000 and stay "connected"; we connect again.
CLOSE_CODES: Final[Mapping[int, Ending]] = {
    1000: LOST,
    1006: LOST,
    1009: Ending("websocket", "LimitExceeded", FollowUp.CLIENT_RESET),
    1011: _RETRY,
    4001: _REFRESH_USER,
    4002: _LOG_OUT,
    4003: _REFRESH_LOCATION,
}
#: HTTP statuses in answer to the opening request; any other is fatal once the location is known to be right.
STATUSES: Final[Mapping[int, Ending]] = {
    401: _REFRESH_USER,
    403: _LOG_OUT,
    301: _REFRESH_LOCATION,
    308: _REFRESH_LOCATION,
    302: _RETRY,
    500: _RETRY,
    502: _RETRY,
    503: _RETRY,
    504: _RETRY,
}


def _with(ending: Ending, message: str) -> Ending:
    return Ending(ending.reason, ending.error, ending.follow_up, ending.is_reported, message)


def after_close(code: int, reason: str = "") -> Ending:
    """Say what a closed WebSocket means."""
    return _with(CLOSE_CODES.get(code, _BROKEN), f"The server closed the WebSocket with code {code}. {reason}".strip())


def after_status(status: int, *, is_verified: bool) -> Ending:
    """Say what it means that the server answered the opening of the WebSocket with this HTTP status.

    Parameters
    ----------
    status : int
    is_verified : bool
        Whether this address has been reached before, or came from the location just now.
    """
    found = STATUSES.get(status)
    if found is None:
        follow_up = FollowUp.STOP if is_verified else FollowUp.REFRESH_LOCATION
        found = Ending("refused for good", "SyncConnectFailed", follow_up, is_reported=is_verified)
    return _with(found, f"The server refused the WebSocket with HTTP status {status}.")
