"""Every line of the codec and schema vectors: what real clients write, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.conformance.vectors import (
    instruction_from_json,
    instruction_to_json,
    plain,
    read_lines,
    string_from_json,
)
from realmframe.errors import BadChangesetError

VECTORS = Path(__file__).parents[1] / "data" / "vectors"
SHARED = Path(__file__).parents[2].parent / "shared" / "vectors"


def lines(*names: str) -> list[Any]:
    """Give the lines of vector files as parameters named after them."""
    found = [line for name in names for line in read_lines(VECTORS / f"{name}.jsonl.gz")]
    return [pytest.param(line, id=line["name"]) for line in found]


GOOD = [p for p in lines("codec", "schema") if "error" not in p.values[0]]
BAD = [p for p in lines("codec") if "error" in p.values[0]]


@pytest.mark.parametrize("line", GOOD)
def test_decodes_and_encodes_as_the_real_library(line: dict[str, Any]) -> None:
    """The bytes give the strings and instructions listed, and those give the bytes that the library writes."""
    changeset = Changeset.decode(bytes.fromhex(line["hex"]))
    assert changeset.strings == [string_from_json(s) for s in line["strings"]]
    assert [instruction_to_json(one) for one in changeset.instructions()] == [plain(f) for f in line["instructions"]]
    assert changeset.encode().hex() == line.get("reencoded", line["hex"])


@pytest.mark.parametrize("line", GOOD)
def test_builds_from_instructions_what_the_real_library_writes(line: dict[str, Any]) -> None:
    """Instruction objects and the string table give the same bytes as decoding did."""
    instructions = [instruction_from_json(form) for form in line["instructions"]]
    built = Changeset.from_instructions(instructions, [string_from_json(s) for s in line["strings"]])
    assert built.encode().hex() == line.get("reencoded", line["hex"])
    assert [instruction_to_json(one) for one in built.instructions()] == [plain(f) for f in line["instructions"]]


@pytest.mark.parametrize("line", lines("schema"))
def test_interns_strings_in_the_order_of_clients(line: dict[str, Any]) -> None:
    """Without a given table, strings come out in the order in which a client interned them."""
    built = Changeset.from_instructions(instruction_from_json(form) for form in line["instructions"])
    assert built.strings == [string_from_json(s) for s in line["strings"]]


@pytest.mark.parametrize("line", BAD)
def test_refuses_what_the_real_library_refuses(line: dict[str, Any]) -> None:
    """Malformed bytes give one error that names an offset inside them."""
    data = bytes.fromhex(line["hex"])
    with pytest.raises(BadChangesetError) as caught:
        Changeset.decode(data)
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset < len(data)


def test_shared_vectors_hold_too() -> None:
    """The vectors beside the repository, where there are any, hold line by line."""
    if not SHARED.is_dir():
        pytest.skip(f"no vectors at {SHARED}")
    from realmframe.conformance.checks import check_codec

    for name in ("codec", "schema"):
        for line in read_lines(SHARED / f"{name}.jsonl"):
            check_codec(line)
