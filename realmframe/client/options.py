"""How a session of a realm behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from realmframe.client.reset import ResetOptions
from realmframe.errors import RealmError


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session behaves.

    Attributes
    ----------
    user_id : str
    flexible : bool
        How it syncs; otherwise than configured after a migration, see :mod:`.migration`.
    partition : str or None
        The partition as extended JSON text, as the app configured it; None for Flexible Sync.
    schema_version : int
    cancel_waits : bool
        Whether waits end with a non-fatal error once the app's time-out has passed.
    on_error : callable or None
        ``f(session, error)``, called in a thread of its own.
    client_reset : ResetOptions
    session_reason : int
        1 for a session that belongs to a client reset.
    may_upload : bool
        False for the fresh copy of a client reset.
    migrated_partition : str or None
        What BIND tells of a realm that was migrated.
    """

    user_id: str
    flexible: bool
    partition: str | None = None
    schema_version: int = 0
    cancel_waits: bool = False
    on_error: Callable[[Any, RealmError], object] | None = None
    client_reset: ResetOptions = ResetOptions()  # noqa: RUF009 - frozen
    session_reason: int = 0
    may_upload: bool = True
    migrated_partition: str | None = None
