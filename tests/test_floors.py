"""The import law of the house: rooms import downwards only, and an outside package has one room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "realmframe"

#: Floor of each room. A room may import rooms of lower floors, and those named for it in NEIGHBOURS.
FLOORS = {
    "errors": 0,
    "model": 0,
    "changes": 1,
    "wire": 1,
    "session": 1,
    "merge": 1,
    "query": 1,
    "store": 2,
    "client": 3,
    "server": 3,
    "frames": 3,
    "realm": 4,
    "testing": 4,
    "conformance": 5,
    "jupyter": 5,
    "demo": 5,
    "cli": 5,
    "__main__": 6,
}
NEIGHBOURS = {
    ("model", "errors"),
    ("session", "wire"),
    ("merge", "changes"),
    ("realm", "testing"),
    ("cli", "conformance"),
    ("cli", "demo"),
    ("cli", "jupyter"),
    ("demo", "jupyter"),
}

#: Rooms that may import an outside package.
ROOMS_OF = {
    "httpx": {"client", "demo"},
    "httpx_ws": {"client"},
    "pandas": {"frames"},
    "sqlalchemy": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server", "testing"},
    "argon2": {"server"},
    "joserfc": {"server"},
    "cryptography": {"client"},
    "IPython": {"jupyter"},
    "ipywidgets": {"jupyter"},
    "lark": {"query"},
    "filelock": {"store", "client"},
    "pyarrow": {
        "query",
        "store",
        "client",
        "server",
        "frames",
        "realm",
        "jupyter",
        "demo",
        "testing",
        "conformance",
        "cli",
    },
}

#: What floors 0 and 1 never touch: input, output, clocks, threads, randomness.
IMPURE = {"socket", "threading", "asyncio", "time", "random", "secrets", "os", "subprocess", "multiprocessing", "ssl"}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "realmframe":
                yield from (f"realmframe.{alias.name}" for alias in node.names)


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if _room(p) != "__init__"]


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """A module imports only rooms below its own, and outside packages only where they live."""
    room = _room(path)
    floor = FLOORS[room]
    for name in _imports(path):
        top, _, rest = name.partition(".")
        if top == "realmframe":
            target = rest.split(".")[0] or "__init__"
            if target in ("__init__", "__version__", room) or target not in FLOORS:
                continue
            assert FLOORS[target] < floor or (room, target) in NEIGHBOURS, f"{room} imports {target}"
        elif top in ROOMS_OF:
            assert room in ROOMS_OF[top], f"{room} imports {top}"
        elif floor <= 1:
            assert top not in IMPURE, f"{room} (floor {floor}) imports {top}"


def test_every_room_has_a_floor() -> None:
    """No room stands outside the plan."""
    rooms = {_room(p) for p in _modules()}
    assert rooms <= set(FLOORS)


def test_import_is_light() -> None:
    """`import realmframe` loads no heavy package."""
    code = "import sys, realmframe; print(','.join(m.split('.')[0] for m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(out.stdout.strip().split(","))
    heavy = {"numba", "pandas", "pyarrow", "IPython", "ipywidgets", "httpx", "starlette", "sqlalchemy", "lark", "numpy"}
    assert not loaded & heavy


def test_public_names_exist() -> None:
    """Every name of the public face can be had, and nothing else is listed."""
    import realmframe

    for name in realmframe.__all__:
        assert getattr(realmframe, name) is not None
    with pytest.raises(AttributeError):
        _ = realmframe.no_such_name  # type: ignore[attr-defined]
