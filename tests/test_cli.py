"""The command line, as a user types it."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

import realmframe as rf
from realmframe.cli import build_parser, main

VECTORS = Path(__file__).parent / "data" / "vectors"


@pytest.mark.parametrize("command", ["serve", "demo", "lab", "conformance", "inspect"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` prints the usage and ends well."""
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([command, "--help"])
    assert end.value.code == 0
    assert f"realmframe {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` is the package's."""
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"realmframe {rf.__version__}"


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """What is no command ends with status 2 and the list of those that are."""
    with pytest.raises(SystemExit) as end:
        main(["serv"])
    assert end.value.code == 2
    assert "inspect" in capsys.readouterr().err


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes, their properties and how many objects they have."""
    dog = rf.ObjectSchema("Dog", {"_id": "int", "name": "string?"}, "_id")
    with rf.Realm.open(path=str(tmp_path / "dogs.realm"), schema=[dog]) as realm, realm.write() as tx:
        tx.upsert("Dog", [{"_id": 1}, {"_id": 2}])
    assert main(["inspect", str(tmp_path / "dogs.realm")]) == 0
    shown = capsys.readouterr().out
    for word in ("Dog: 2 objects", "_id: int  (primary key)", "name: string?"):
        assert word in shown


def test_inspect_what_is_no_realm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on the standard error, status 1, and nothing is made."""
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_conformance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status says whether every line passed."""
    shutil.copy(VECTORS / "schema.jsonl.gz", tmp_path)
    assert main(["conformance", str(tmp_path)]) == 0
    assert "24/24" in capsys.readouterr().out
    lines = gzip.decompress((tmp_path / "schema.jsonl.gz").read_bytes()).decode().splitlines()
    first = json.loads(lines[0])
    other = json.loads(lines[1])
    swapped = {**first, **{k: other[k] for k in ("hex", "changeset", "changeset_hex") if k in other}}
    (tmp_path / "schema.jsonl.gz").write_bytes(gzip.compress("\n".join([json.dumps(swapped), *lines[1:]]).encode()))
    assert main(["conformance", str(tmp_path)]) == 1
    assert "23/24" in capsys.readouterr().out


def test_conformance_of_nothing(tmp_path: Path) -> None:
    """A folder without vectors is no success."""
    assert main(["conformance", str(tmp_path)]) == 1


def test_admin_users_knows_every_action() -> None:
    """The parser, which loads no server code, offers every action that there is, and no invented one."""
    pytest.importorskip("sqlalchemy")
    from realmframe.server.users import ACTIONS

    for action in ACTIONS:
        assert build_parser().parse_args(["admin", "users", action, "--app", "a"]).action == action
    with pytest.raises(SystemExit):
        build_parser().parse_args(["admin", "users", "promote", "--app", "a"])
