"""Every vector file through the kit: the repository's own, and those beside the repository where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

from realmframe.conformance import run

VECTORS = Path(__file__).parents[1] / "data" / "vectors"
SHARED = Path(__file__).parents[2].parent / "shared" / "vectors"
FILES = ["codec", "schema", "apply", "rql", "rql_random", "transform", "merge_state"]


@pytest.mark.parametrize("name", FILES)
def test_every_line_holds(name: str, tmp_path: Path) -> None:
    """All lines of the file pass."""
    for path in VECTORS.iterdir():
        if path.name.startswith((f"{name}.", "rql_fixture.")):
            (tmp_path / path.name).symlink_to(path)
    report = run(tmp_path)
    assert report.total > 20
    assert report, str(report)


@pytest.mark.slow
def test_every_shared_line_holds() -> None:
    """All lines of all files beside the repository pass, in one run over the folder."""
    if not SHARED.is_dir():
        pytest.skip(f"no vectors at {SHARED}")
    report = run(SHARED)
    assert len(report.files) >= 6
    assert report, str(report)
