"""How kernels are compiled, in one place: cached on disk, without the global interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call, for the types of that call."""
    compiled: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    return compiled
