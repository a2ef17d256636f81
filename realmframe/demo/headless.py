"""Run the tour without a browser, printing what each cell shows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from realmframe.errors import UsageError

_CELL_SECONDS: Final = 180
#: A cell prints this line to tell the summary how many changes it saw.
_SEEN: Final = "changes seen:"


@dataclass(frozen=True, slots=True)
class Executed:
    """What running the notebook gave.

    Attributes
    ----------
    cells : int
        Code cells that ran.
    seconds : float
    changes_seen : int
        Changes of devices that the notebook saw, as its cells printed them.
    error : str or None
        The first cell's error, if one failed.
    """

    cells: int
    seconds: float
    changes_seen: int
    error: str | None


def execute(notebook: Path, environment: Mapping[str, str], *, emit: Callable[[str], None]) -> Executed:
    """Execute a notebook in a kernel of its own and emit its text.

    Parameters
    ----------
    notebook : Path
        Executed in its own folder; the outputs are saved beside it as ``NAME-executed.ipynb``.
    environment : mapping
        Environment of the kernel.
    emit : callable
        Takes each piece of text.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
    except ImportError as missing:
        raise UsageError(
            "A demo without browser needs nbclient and a Python kernel.",
            hint='`pip install "realmframe[all]"` has them.',
        ) from missing
    document: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        document, timeout=_CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}
    )
    begun, error = time.perf_counter(), None
    previous = dict(os.environ)
    os.environ.update(environment)
    try:
        client.execute()
    except CellExecutionError as failed:
        error = str(failed)
    finally:
        os.environ.clear()
        os.environ.update(previous)
    seconds = time.perf_counter() - begun
    nbformat.write(document, notebook.with_name(f"{notebook.stem}-executed.ipynb"))  # type: ignore[no-untyped-call]
    texts = [text for cell in document.cells for text in _texts(cell)]
    for text in texts:
        emit(text)
    if error is not None:
        emit(error)
    seen = sum(int(line.split(":")[1]) for text in texts for line in text.split("\n") if line.startswith(_SEEN))
    ran = sum(1 for cell in document.cells if cell.cell_type == "code" and cell.get("execution_count"))
    return Executed(ran, seconds, seen, error)


def _texts(cell: Any) -> list[str]:
    if cell.cell_type != "code":
        return []
    found = []
    for output in cell.outputs:
        if output.output_type == "stream":
            found.append(output.text.rstrip())
        elif "data" in output and "text/plain" in output.data:
            found.append(str(output.data["text/plain"]))
    return [f"In [{cell.execution_count}]: {json.dumps(cell.source.split(chr(10))[0])}", *found] if found else []
