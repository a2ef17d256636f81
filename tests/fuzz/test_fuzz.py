"""A short coverage-guided run of each fuzzer, and its corpus through the compiled code."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from realmframe.changes import Changeset
from realmframe.errors import BadChangesetError, RemoteProtocolError

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"


@pytest.mark.parametrize("target", ["changeset", "message"])
def test_short_run(target: str, tmp_path: Path) -> None:
    """A few seconds of fuzzing from the corpus, led by the branches that are taken, find nothing."""
    if importlib.util.find_spec("atheris") is None:
        required = os.environ.get("CI") == "true" and sys.platform == "linux"
        (pytest.fail if required else pytest.skip)("atheris is not installed (it is part of the extra 'test')")
    found = tmp_path / "found"
    found.mkdir()
    options = ["-max_total_time=4", "-timeout=5", "-rss_limit_mb=1024", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, str(HERE / f"fuzz_{target}.py"), str(found), str(CORPUS / target), *options]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)
    culprits = {path.name: path.read_bytes().hex() for path in tmp_path.iterdir() if path.is_file()}
    assert done.returncode == 0, f"{culprits}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert not culprits
    # What libFuzzer says: runs, branches seen, and the combinations of them by which it chooses its inputs.
    seen = [(int(c), int(f)) for c, f in re.findall(r"(?:INITED|DONE)\s+cov: (\d+) ft: (\d+)", done.stderr)]
    assert len(seen) == 2, done.stderr[-3000:]
    assert seen[0][0] > 100
    assert seen[1][1] >= seen[0][1] > seen[0][0]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs is not None
    assert int(runs[1]) > len(seeds(target)) + 100


def seeds(target: str) -> list[Path]:
    """Give the files of a corpus."""
    return sorted((CORPUS / target).iterdir())


def test_corpus_of_changesets_compiled() -> None:
    """The compiled decoder answers every seed, and takes most of them."""
    taken = 0
    for path in seeds("changeset"):
        data = path.read_bytes()
        try:
            changeset = Changeset.decode(data)
        except BadChangesetError as error:
            offset = error.offset
        else:
            taken += 1
            assert Changeset.decode(changeset.encode()).encode() == changeset.encode()
            continue
        assert offset is not None
        assert 0 <= offset < len(data)
    assert taken > 100


def test_corpus_of_messages() -> None:
    """The message parsers answer every seed, and take most of them."""
    from realmframe import wire

    taken = 0
    for path in seeds("message"):
        data = path.read_bytes()
        parse = wire.parse_client if data[0] & 1 else wire.parse_server
        try:
            parse(data[1:], wire.Dialect(wire.MIN_VERSION + (data[0] >> 2) % 7, bool(data[0] & 2)))
        except RemoteProtocolError as error:
            offset = error.offset
        else:
            taken += 1
            continue
        assert offset is not None
    assert taken > 40
