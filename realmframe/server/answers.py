"""Errors that the server tells clients, and the time it does so."""

from __future__ import annotations

import time
from typing import Final

from realmframe.wire import Action, JsonError, json_error_body

_EPOCH: Final = 1_420_070_400


def now() -> int:
    """Give the time of the protocol: milliseconds since 2015."""
    return int((time.time() - _EPOCH) * 1000)


def failure(
    number: int, code: int, message: str, action: Action, *, try_again: bool = False, recovery_disabled: bool = False
) -> JsonError:
    """Make a json_error."""
    body = json_error_body(message, action=action, try_again=try_again, recovery_disabled=recovery_disabled)
    return JsonError(number, code, body)


def expired(number: int) -> JsonError:
    """Tell a client that the history which it is based on is gone."""
    text = "The client has been away for too long: the history since then is not kept any more."
    return failure(number, 222, text, Action.CLIENT_RESET)


def read_only(number: int) -> JsonError:
    """Tell a client that its user may not write to its partition."""
    text = "The user may not write to this partition; what was written is taken back."
    return failure(number, 230, text, Action.CLIENT_RESET_NO_RECOVERY, recovery_disabled=True)


def reset_ordered(number: int, *, recovery: bool) -> JsonError:
    """Tell a client that an administrator wants it to begin anew."""
    action = Action.CLIENT_RESET if recovery else Action.CLIENT_RESET_NO_RECOVERY
    text = "The administrator of the server has reset this client file."
    return failure(number, 217, text, action, recovery_disabled=not recovery)


def unusable(number: int, reason: str) -> JsonError:
    """Answer a client that could not use what it was sent: it takes nothing more, and waits for this."""
    if "schema mismatch" in reason.lower():  # so say real clients, whatever the code
        text = f"The schemas of the client and of the app contradict each other: {reason}"
        return failure(number, 225, text, Action.APPLICATION_BUG)
    text = f"The client could not use what it was sent: {reason}"
    return failure(number, 212, text, Action.CLIENT_RESET)
