"""How kernels are compiled, in one place: cached on disk, without the global interpreter lock.

Readers and writers of the codec get addresses, not arrays: an array that is passed to a compiled function costs two
atomic operations on its reference count, a multiple of what it takes to read a byte. Whoever calls the outermost kernel
holds the arrays.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, njit, types
from numba.extending import intrinsic


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call, for the types of that call; kept on disk where a folder can be written."""
    try:
        compiled: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither beside the module nor in the user's cache folder
        compiled = njit(nogil=True)(function)
    return compiled


def _instruction(interpreted: Callable[[int], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function that compiled code can call; its first argument is numba's own.

    With ``NUMBA_DISABLE_JIT=1``, for debuggers, coverage and fuzzing, ``interpreted`` stands in for it.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return interpreted if config.DISABLE_JIT else intrinsic(function)  # type: ignore[attr-defined]

    return decorate


def _bytes_at(address: int, size: int) -> bytes:
    return ctypes.string_at(int(address), size)


@_instruction(lambda at: np.uint8(_bytes_at(at, 1)[0]))
def byte_at(_context: Any, address: Any) -> Any:
    """Read the byte at an address."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))

    return types.uint8(types.int64), generate


@_instruction(lambda at: np.frombuffer(_bytes_at(at, 8), "<i8")[0])
def word_at(_context: Any, address: Any) -> Any:
    """Read the eight bytes at an address, least significant first."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.int64(types.int64), generate


@_instruction(lambda at: np.int64(np.frombuffer(_bytes_at(at, 8), ">i8")[0]))
def reversed_word_at(_context: Any, address: Any) -> Any:
    """Read the eight bytes at an address, most significant first."""

    def generate(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.bswap(builder.load(pointer, align=1))

    return types.int64(types.int64), generate
