"""``%realm`` and ``%%realm``: a pure parse, a frozen command, one call."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.display import display

from realmframe.jupyter.bridge import Bridge, running_loop
from realmframe.jupyter.command import parse
from realmframe.jupyter.desk import Desk
from realmframe.jupyter.notices import Notices


@magics_class
class RealmMagics(Magics):
    """The magics of one shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.bridge = Bridge(running_loop())
        self.notices = Notices()
        self.desk = Desk(shell.user_ns, self.bridge, self._run_cell, display)

    def _run_cell(self, source: str) -> None:
        shell = self.shell
        assert shell is not None
        transformed: str = shell.transform_cell(source)  # type: ignore[no-untyped-call]
        code = compile(transformed, "<%%realm write>", "exec")
        exec(code, shell.user_global_ns, shell.user_ns)  # noqa: S102 - the user's own cell

    @line_cell_magic
    def realm(self, line: str, cell: str | None = None) -> Any:
        """Work with synced realms; ``%realm help`` lists the commands."""
        return self.desk.run(parse(line, cell))

    def advance(self, *_: Any) -> None:
        """Move all frames to the newest version (IPython calls it before each cell)."""
        self.desk.advance()
