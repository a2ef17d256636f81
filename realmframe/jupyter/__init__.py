"""Floor 5: the notebook surface — ``%realm`` magics, widgets, frames that advance between cells.

``%load_ext realmframe`` calls :func:`load_ipython_extension`.
"""

from __future__ import annotations

import logging
from typing import Any

_LOADED = "_realmframe_magics"


def load_ipython_extension(shell: Any) -> None:
    """Register the magics, the advance of frames before each cell, and what is shown of the log."""
    from realmframe.jupyter.magics import RealmMagics

    if getattr(shell, _LOADED, None) is not None:
        return
    magics = RealmMagics(shell)
    shell.register_magics(magics)
    shell.events.register("pre_run_cell", magics.advance)
    shell.events.register("pre_run_cell", magics.notices.show)
    shell.events.register("post_run_cell", magics.notices.show_after)
    logging.getLogger("realmframe").addHandler(magics.notices)
    setattr(shell, _LOADED, magics)


def unload_ipython_extension(shell: Any) -> None:
    """Close the realms and take the hooks away."""
    magics = getattr(shell, _LOADED, None)
    if magics is None:
        return
    shell.events.unregister("pre_run_cell", magics.advance)
    magics.desk.close()
    shell.events.unregister("pre_run_cell", magics.notices.show)
    shell.events.unregister("post_run_cell", magics.notices.show_after)
    logging.getLogger("realmframe").removeHandler(magics.notices)
    setattr(shell, _LOADED, None)


__all__ = ["load_ipython_extension", "unload_ipython_extension"]
