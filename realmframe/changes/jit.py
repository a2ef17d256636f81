"""How kernels are compiled, in one place: cached on disk, without the global interpreter lock.

Readers and writers of the codec get addresses, not arrays: an array that is passed to a compiled function costs two
atomic operations on its reference count, a multiple of what it takes to read a byte. Whoever calls the outermost kernel
holds the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call, for the types of that call."""
    compiled: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    return compiled


def _instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that compiled code can call; its first argument is numba's own."""
    made: Callable[..., Any] = intrinsic(function)
    return made


@_instruction
def byte_at(_context: Any, address: Any) -> Any:
    """Read the byte at an address."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))

    return types.uint8(types.int64), generate


@_instruction
def word_at(_context: Any, address: Any) -> Any:
    """Read the eight bytes at an address, least significant first."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.int64(types.int64), generate


@_instruction
def reversed_word_at(_context: Any, address: Any) -> Any:
    """Read the eight bytes at an address, most significant first."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.bswap(builder.load(pointer, align=1))

    return types.int64(types.int64), generate
