"""Every golden vector of merging, both ways."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from realmframe import merge
from realmframe.changes import Changeset
from realmframe.conformance.checks import check_transform

OWN = Path(__file__).parents[1] / "data" / "vectors"
SHARED = Path(__file__).parents[2].parent / "shared" / "vectors"


def lines(name: str) -> Iterator[dict[str, Any]]:
    """Read a vector file of the project, or else of the folder beside it."""
    for path in (OWN / f"{name}.jsonl.gz", SHARED / f"{name}.jsonl.gz", SHARED / f"{name}.jsonl"):
        if path.exists():
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            yield from (json.loads(line) for line in text.splitlines())
            return
    pytest.skip(f"There are no {name} vectors here.")


def side(entries: Any) -> list[merge.Timed]:
    """Read one side of a line."""
    listed = entries if isinstance(entries, list) else [entries]
    return [merge.Timed(Changeset.decode(bytes.fromhex(e["hex"])), e["timestamp"], e["file_ident"]) for e in listed]


def hexes(entries: Any) -> list[str]:
    """Read one side's outputs."""
    return [e["hex"] if isinstance(e, dict) else e for e in (entries if isinstance(entries, list) else [entries])]


def test_every_transform_vector_holds_both_ways() -> None:
    """Each line gives its outputs instruction for instruction, or fails, whichever side is called left."""
    count = 0
    for line in lines("transform"):
        try:
            check_transform(line)
        except Exception as error:
            raise AssertionError(f"{line['name']}: {error}") from error
        count += 1
    assert count > 5000


@pytest.mark.parametrize("name", ["transform", "merge_state"])
def test_outputs_are_those_of_the_real_engine_to_the_byte(name: str) -> None:
    """Outputs encode to the bytes listed, and what did not change is the very same object."""
    for line in lines(name):
        if "error" in line:
            continue
        sides = side(line["left"]), side(line["right"])
        found = merge.transform(*sides)
        for inputs, outputs, wanted in zip(sides, found, (line["left_out"], line["right_out"]), strict=True):
            for timed, output, text in zip(inputs, outputs, hexes(wanted), strict=True):
                assert output.encode().hex() == text, line["name"]
                if output is not timed.changeset:
                    assert output.encode() != timed.changeset.encode(), line["name"]
