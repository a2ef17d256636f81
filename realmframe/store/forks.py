"""A process is forked off only while no thread compiles a kernel, or loads one.

In the child the compiler's lock would stay locked for ever: its holder is a thread of the parent. So a fork waits for
it, a second or two at worst, as it does for the locks of :mod:`logging`.
"""

from __future__ import annotations

import os

from numba.core.compiler_lock import global_compiler_lock

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
