"""The protocol's error codes and actions."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from realmframe.errors import LocalProtocolError
from realmframe.model import Key, ObjectId, PayloadType


class Action(StrEnum):
    """What the server asks a client to do about an error."""

    PROTOCOL_VIOLATION = "ProtocolViolation"
    APPLICATION_BUG = "ApplicationBug"
    WARNING = "Warning"
    TRANSIENT = "Transient"
    DELETE_REALM = "DeleteRealm"
    CLIENT_RESET = "ClientReset"
    CLIENT_RESET_NO_RECOVERY = "ClientResetNoRecovery"
    MIGRATE_TO_FLX = "MigrateToFLX"
    REVERT_TO_PBS = "RevertToPBS"
    REFRESH_USER = "RefreshUser"
    REFRESH_LOCATION = "RefreshLocation"
    LOG_OUT_USER = "LogOutUser"
    MIGRATE_SCHEMA = "MigrateSchema"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One code of the protocol.

    Attributes
    ----------
    code : int
    name : str
    aborts_clients : bool
        Whether a real client ends its process when it gets the code: a server never sends it.
    """

    code: int
    name: str
    aborts_clients: bool = False

    @property
    def is_connection_level(self) -> bool:
        """Whether it concerns the whole connection."""
        return self.code < 200


_NAMES: Final = {
    100: "ConnectionClosed",
    101: "OtherError",
    102: "UnknownMessage",
    103: "BadSyntax",
    104: "LimitsExceeded",
    105: "WrongProtocolVersion",
    106: "BadSessionIdent",
    107: "ReuseOfSessionIdent",
    108: "BoundInOtherSession",
    109: "BadMessageOrder",
    110: "BadDecompression",
    111: "BadChangesetHeaderSyntax",
    112: "BadChangesetSize",
    113: "SwitchToFlxSync",
    114: "SwitchToPbs",
    200: "SessionClosed",
    201: "OtherSessionError",
    202: "TokenExpired",
    203: "BadAuthentication",
    204: "IllegalRealmPath",
    205: "NoSuchRealm",
    206: "PermissionDenied",
    207: "BadServerFileIdent",
    208: "BadClientFileIdent",
    209: "BadServerVersion",
    210: "BadClientVersion",
    211: "DivergingHistories",
    212: "BadChangeset",
    214: "PartialSyncDisabled",
    215: "UnsupportedSessionFeature",
    216: "BadOriginFileIdent",
    217: "BadClientFile",
    218: "ServerFileDeleted",
    219: "ClientFileBlacklisted",
    220: "UserBlacklisted",
    221: "TransactBeforeUpload",
    222: "ClientFileExpired",
    223: "UserMismatch",
    224: "TooManySessions",
    225: "InvalidSchemaChange",
    226: "BadQuery",
    227: "ObjectAlreadyExists",
    228: "ServerPermissionsChanged",
    229: "InitialSyncNotCompleted",
    230: "WriteNotAllowed",
    231: "CompensatingWrite",
    232: "MigrateToFlx",
    233: "BadProgress",
    234: "RevertToPbs",
    235: "BadSchemaVersion",
    236: "SchemaVersionChanged",
}
#: Codes at which a real client ends its process, whatever the action.
_ABORTING: Final = frozenset({104, 202, 203, 205, 207, 214, 215, 218, 219, 220, 221, 224})

#: Every code of the protocol.
ERROR_CODES: Final[Mapping[int, ErrorCode]] = {
    code: ErrorCode(code, name, code in _ABORTING) for code, name in _NAMES.items()
}


def json_error_body(
    message: str,
    *,
    action: Action,
    try_again: bool = False,
    recovery_disabled: bool = False,
    log_url: str = "",
    backoff: tuple[int, int, int] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Make the body of a json_error, with the six keys that clients need.

    Parameters
    ----------
    message : str
    action : Action
    try_again : bool
        Whether the client shall bind again by itself.
    recovery_disabled : bool
        Whether a client reset must not recover unsent changes.
    log_url : str
    backoff : tuple of int, optional
        Seconds of the first delay, of the longest delay, and the factor.
    **extra
        Members of their own codes, such as ``rejectedUpdates``.
    """
    resets = action in (Action.CLIENT_RESET, Action.CLIENT_RESET_NO_RECOVERY)
    body: dict[str, Any] = {
        "message": message,
        "logURL": log_url,
        "tryAgain": try_again,
        "shouldClientReset": resets,
        "isRecoveryModeDisabled": recovery_disabled,
        "action": str(action),
    }
    if backoff is not None:
        names = ("backoffIntervalSec", "backoffMaxDelaySec", "backoffMultiplier")
        body |= dict(zip(names, backoff, strict=True))
    return body | extra


def check_sendable(code: int) -> None:
    """Refuse to send a code that ends real clients.

    Raises
    ------
    LocalProtocolError
    """
    known = ERROR_CODES.get(code)
    if known is None or known.aborts_clients:
        raise LocalProtocolError(f"Error code {code} must not be sent: it ends the process of a real client.")


def _varint(number: int) -> bytes:
    sign, value = (0x40, -(number + 1)) if number < 0 else (0, number)
    out = bytearray()
    while value >= 0x40:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    out.append(value | sign)
    return bytes(out)


def primary_key_text(key: Key) -> str:
    """Write an object key as ``rejectedUpdates`` has it: base64 of type and value, strings inline."""
    if key is None:
        raw = b"\0"
    elif isinstance(key, str):
        text = key.encode("utf-8", "surrogateescape")
        raw = bytes([PayloadType.STRING]) + _varint(len(text)) + text
    elif isinstance(key, ObjectId):
        raw = bytes([PayloadType.OBJECT_ID]) + key.binary
    elif isinstance(key, uuid.UUID):
        raw = bytes([PayloadType.UUID]) + key.bytes
    elif isinstance(key, int):
        raw = bytes([PayloadType.INT]) + _varint(key)
    else:
        raise LocalProtocolError("A GlobalKey cannot be named in a compensating write.")
    return base64.b64encode(raw).decode()


def primary_key_from_text(text: str) -> Key:
    """Read what :func:`primary_key_text` writes.

    Raises
    ------
    ValueError
        If it is something else.
    """
    raw = base64.b64decode(text, validate=True)
    if not raw:
        raise ValueError("an object key of no bytes")
    kind, rest = raw[0], raw[1:]
    if kind == PayloadType.NULL:
        return None
    if kind == PayloadType.OBJECT_ID:
        if len(rest) != 12:
            raise ValueError("an ObjectId that has not 12 bytes")
        return ObjectId(rest)
    if kind == PayloadType.UUID:
        return uuid.UUID(bytes=rest)
    number, used = _read_varint(rest)
    if kind == PayloadType.INT:
        return number
    if kind == PayloadType.STRING:
        if number != len(rest) - used:
            raise ValueError("a string key whose size is wrong")
        return rest[used : used + number].decode("utf-8", "surrogateescape")
    raise ValueError("an object key of an unknown type")


def _read_varint(data: bytes) -> tuple[int, int]:
    value = shift = 0
    for used, byte in enumerate(data[:10], 1):
        if byte < 0x80:
            value |= (byte & 0x3F) << shift
            return (-value - 1 if byte & 0x40 else value), used
        value |= (byte & 0x7F) << shift
        shift += 7
    raise ValueError("an integer that does not end")


def rejected_updates(writes: Sequence[tuple[str, Key, str]]) -> list[dict[str, str]]:
    """Write the ``rejectedUpdates`` of a compensating write: class, key and reason of each."""
    return [{"table": table, "pk": primary_key_text(key), "reason": reason} for table, key, reason in writes]
