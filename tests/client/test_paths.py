"""The rules that place a realm: one row each."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.client.paths import (
    SyncPlace,
    _check_name,
    check_links,
    metadata_folder,
    partition_name,
    path_for,
    percent,
)
from realmframe.errors import UsageError
from realmframe.model import ObjectId

FLX = SyncPlace("U", True)


def pbs(value: Any) -> SyncPlace:
    """Place a partition."""
    return SyncPlace("U", False, value)


OID = ObjectId.parse("0123456789abcdef01234567")
UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")

ROWS = [
    (None, FLX, "/b/flx_sync_default_U.realm", "Flexible Sync"),
    (None, SyncPlace("u/1", True), "/b/flx_sync_default_u%2F1.realm", "Flexible Sync"),
    (None, pbs("x&^#"), "/b/s_x%26%5E%23_U.realm", "partition-based"),
    (None, pbs(42), "/b/l_42_U.realm", "partition-based"),
    (None, pbs(None), "/b/null_U.realm", "partition-based"),
    (None, pbs(OID), "/b/o_0123456789abcdef01234567_U.realm", "partition-based"),
    (None, pbs(UUID), "/b/u_12345678-1234-5678-1234-567812345678_U.realm", "partition-based"),
    (None, pbs("a\nb\x7f"), "/b/s_a%0Ab%7F_U.realm", "partition-based"),
    (None, SyncPlace("u/1", False, "p"), "/b/s_p_u%2F1.realm", "partition-based"),
    (None, None, "/b/default.realm", "no sync"),
    ("car", FLX, "/b/car", "relative"),
    ("car.realm", FLX, "/b/car.realm", "relative"),
    ("car.realm", None, "/b/car.realm", "relative"),
    ("sub/a", FLX, "/b/sub/a", "relative"),
    ("./sub/../a", None, "/b/a", "relative"),
    (Path("sub") / "a.realm", pbs("x"), "/b/sub/a.realm", "relative"),
    ("/data/z.db", FLX, "/data/z.db", "absolute"),
    ("/data/z.db", None, "/data/z.db", "absolute"),
    ("/data/../z.db", None, "/z.db", "absolute"),
]


@pytest.mark.parametrize(("path", "sync", "wanted", "rule"), ROWS, ids=[str(r[:2]) for r in ROWS])
def test_rules(path: Any, sync: SyncPlace | None, wanted: str, rule: str) -> None:
    """Each rule gives exactly one place and says which rule it was."""
    found = path_for(path, base_file_path="/b", sync=sync)
    assert found.path == Path(wanted)
    assert rule in found.rule


@pytest.mark.parametrize(
    "path",
    [
        "",
        "  ",
        "..",
        "../a",
        "sub/../../a",
        ".",
        "a\0b",
        "mongodb-realm",
        "mongodb-realm/app/x",
        "x/../mongodb-realm",
        "MongoDB-Realm/x",
        "x" * 256,
        "é" * 128,
        "a/" + "x" * 300,
        "\udc80\ud800",
    ],
)
def test_refused(path: str) -> None:
    """A path that is empty, climbs out, or lies among the metadata is refused."""
    with pytest.raises(UsageError):
        path_for(path, base_file_path="/b", sync=FLX)


@given(st.text())
def test_relative_paths_never_escape(path: str) -> None:
    """Whatever a relative path holds, the realm is inside base_file_path or refused."""
    try:
        found = path_for(path, base_file_path="/b/c", sync=FLX)
    except UsageError:
        return
    if not path.startswith("/"):
        assert Path("/b/c") in found.path.parents


def test_without_base_the_working_directory_plays_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """base_file_path unset means the current working directory."""
    monkeypatch.chdir(tmp_path)
    found = path_for("a.realm")
    assert found.path == tmp_path / "a.realm"
    assert "working directory" in found.rule
    assert metadata_folder(None, "app") == tmp_path / "mongodb-realm" / "app"


@pytest.mark.parametrize("value", [True, 1.5, 1 << 63, b"x", [1]])
def test_no_partition_values(value: Any) -> None:
    """What is no string, integer, ObjectId, UUID or null names no partition."""
    with pytest.raises(UsageError):
        partition_name(value)


def test_long_names_become_digests() -> None:
    """A partition too long for a file name is named by its SHA-256."""
    found = path_for(None, base_file_path="/b", sync=pbs("x" * 300))
    assert len(found.path.name) == 64 + len(".realm")
    assert "SHA-256" in found.rule


@given(st.text(), st.text())
def test_percent_is_injective_and_flat(left: str, right: str) -> None:
    """Encoded names hold no separator, and two names never meet."""
    assert "/" not in percent(left)
    assert (percent(left) == percent(right)) == (left == right)


@pytest.mark.parametrize("app_id", ["", ".", ".."])
def test_no_app_ids(app_id: str) -> None:
    """An app id that is no name of a folder is refused."""
    with pytest.raises(UsageError):
        metadata_folder("/b", app_id)


@pytest.mark.parametrize("name", ["ünï-日本.realm", "100%.realm", "x" * 255, "é" * 127, " a", "a\nb", "CON", "a\\b"])
def test_odd_names_are_taken_as_they_are(name: str) -> None:
    """A relative path is not encoded: the file has the name that was asked for."""
    assert path_for(name, base_file_path="/b", sync=FLX).path == Path("/b") / name


@pytest.mark.parametrize("name", ["CON", "nul.realm", "Com1", "lpt9.x", "aux ", "a:b", "a?", "a.", "a ", "tab\t", 'q"'])
def test_names_that_windows_does_not_take(name: str) -> None:
    """On Windows, device names and forbidden characters are refused instead of opening something else."""
    with pytest.raises(UsageError, match="Windows"):
        _check_name(name, name, windows=True)
    _check_name(name, name, windows=False)


@pytest.mark.parametrize("name", ["icon", "console.realm", "com", "com10", "a.b", ".hidden"])
def test_names_that_windows_takes(name: str) -> None:
    """Names that only look like those are fine."""
    _check_name(name, name, windows=True)


@pytest.mark.parametrize(
    ("link", "target", "path", "escapes"),
    [
        ("sub", "outside", "sub/a.realm", True),
        ("a.realm", "outside/a.realm", "a.realm", True),
        ("flx_sync_default_U.realm", "outside", None, True),
        ("sub", "base/real", "sub/a.realm", False),
        ("sub", "base/mongodb-realm", "sub/a.realm", True),
        ("sub", "base", "sub", True),
    ],
)
def test_links(tmp_path: Path, link: str, target: str, path: str | None, escapes: bool) -> None:
    """A link may lead elsewhere within the base, not out of it, nor among the metadata; nothing is made by looking."""
    base = tmp_path / "base"
    base.mkdir()
    (base / link).symlink_to(tmp_path / target)
    place = path_for(path, base_file_path=base, sync=FLX)
    before = sorted(tmp_path.rglob("*"))
    if escapes:
        with pytest.raises(UsageError, match="through a link"):
            check_links(place)
    else:
        check_links(place)
    assert sorted(tmp_path.rglob("*")) == before
    absolute = path_for(str(base / link), base_file_path=base, sync=FLX)
    check_links(absolute)  # an absolute path is the caller's own
