"""Answers other than success, and the checks of a request that lead to them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """An answer of the API other than success: HTTP status, ``error_code`` and text."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def need_text(body: Mapping[str, Any], name: str) -> str:
    """Take a text that is not empty out of a request.

    Raises
    ------
    ApiError
        400, if it is missing, no text, or very long.
    """
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > 16_384:
        raise ApiError(400, "BadRequest", f"'{name}' must be a text that is not empty")
    return value


def new_id() -> str:
    """Make a random identifier of 24 hexadecimal digits."""
    return secrets.token_hex(12)
