"""The notebook of types says what is true: run again, every cell shows what is stored in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

from realmframe.demo.headless import execute

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "types.ipynb"


def shown(path: Path) -> list[tuple[str, list[str]]]:
    """Give each code cell with what it shows as text."""
    document: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    found = []
    for cell in document.cells:
        if cell.cell_type == "code":
            texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
            found.append((cell.source, texts))
    return found


@pytest.mark.process
def test_every_cell_shows_what_is_stored(tmp_path: Path) -> None:
    """The stored outputs are those of this version, and no cell fails."""
    notebook = tmp_path / "types.ipynb"
    shutil.copyfile(NOTEBOOK, notebook)
    result = execute(notebook, {}, emit=lambda _: None)
    assert result.error is None
    again, stored = shown(tmp_path / "types-executed.ipynb"), shown(NOTEBOOK)
    assert sum(len(texts) for _, texts in stored) > 20
    for (source, texts), (_, expected) in zip(again, stored, strict=True):
        assert texts == expected, source
