"""The files of the top level agree with one another."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_wraps_pyproject() -> None:
    """environment.yml holds Python and pip, and leaves every other package to pyproject.toml."""
    lines = (ROOT / "environment.yml").read_text().split("\n")
    entries = [line.strip().removeprefix("- ") for line in lines if line.strip().startswith("- ")]
    python = PYPROJECT["project"]["requires-python"]
    assert entries == ["conda-forge", f"python{python}", "pip", "pip:", "-e .[all]"]
    assert "all" in PYPROJECT["project"]["optional-dependencies"]


def test_all_extra_holds_every_extra() -> None:
    """`realmframe[all]` brings every other extra."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.fullmatch(r"realmframe\[(.*)\]", everything)[1].split(","))  # type: ignore[index]
    assert named == set(extras) - {"all"}


def test_changelog_names_the_version() -> None:
    """The version of the package is the newest one in the changelog."""
    source = (ROOT / "realmframe" / "__init__.py").read_text()
    version = re.search(r'__version__ = "(.*)"', source)[1]  # type: ignore[index]
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == version


def test_top_level_is_fixed() -> None:
    """Only the agreed files and folders stand at the top level."""
    allowed = {
        "realmframe",
        "notebooks",
        "tests",
        "environment.yml",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    }
    ignored = {"build", "dist", "venv", "data", "realmframe-demo"}
    found = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    assert found - ignored - allowed == set()
    assert allowed <= found
