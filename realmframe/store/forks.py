"""A process is forked off only while no thread compiles a kernel, or loads modules.

In the child the locks of the compiler and of the modules would stay locked for ever: their holder is a thread of the
parent. So a fork waits for them, a second or two at worst, as it does for the locks of :mod:`logging`.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from numba.core.compiler_lock import global_compiler_lock

#: Held by a thread of ours while it loads modules that it needs.
loading: Final = threading.RLock()

if hasattr(os, "register_at_fork"):
    for lock in (loading, global_compiler_lock):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
