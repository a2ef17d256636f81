"""Every golden vector cut at every offset and changed at random: a changeset, or one error that names the offset."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from realmframe.changes import Changeset
from realmframe.conformance.vectors import read_lines
from realmframe.errors import BadChangesetError

VECTORS = Path(__file__).parents[1] / "data" / "vectors"
STREAMS = [
    bytes.fromhex(line["hex"]) for name in ("codec", "schema") for line in read_lines(VECTORS / f"{name}.jsonl.gz")
]
INTERESTING = bytes([*range(14), 0x3F, *range(0x40, 0x46), 0x7F, 0x80, 0xFF])


def answer(data: bytes) -> Changeset | None:
    """Decode, or make sure that the error is the one error, with an offset inside the bytes."""
    try:
        return Changeset.decode(data)
    except BadChangesetError as error:
        offset = error.offset
    assert offset is not None
    assert 0 <= offset < len(data)
    return None


def test_cut_anywhere() -> None:
    """Cut between two instructions it is a shorter changeset; cut anywhere else it is refused."""
    cuts = taken = 0
    for data in STREAMS:
        if len(data) > 20_000 or answer(data) is None:
            continue
        whole = Changeset.decode(data)
        lengths = set()
        for size in range(len(data)):
            found = answer(data[:size])
            cuts += 1
            if found is not None:
                taken += 1
                lengths.add((len(found), len(found.string_start)))
                assert len(found) <= len(whole)
        # Each instruction and each string ends once, so there are no more ends than that.
        assert len(lengths) <= len(whole) + len(whole.string_start) + 1
    assert cuts > 100_000
    assert 0 < taken < cuts / 4


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Change, drop, insert or repeat some bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[at : at + 1] = bytes([rng.choice(INTERESTING)])
            case 1:
                del out[at : at + 1]
            case 2:
                out[at:at] = bytes([rng.randrange(256)])
            case _:
                out[at:at] = out[at // 2 : at // 2 + rng.randrange(1, 20)]
    return bytes(out)


def test_changed_anywhere() -> None:
    """What is taken gives instructions, and encodes to bytes that give the same instructions again."""
    rng, taken = random.Random(11), 0
    streams = [data for data in STREAMS if len(data) < 2000]
    for _ in range(15_000):
        found = answer(mutated(rng, rng.choice(streams)))
        if found is not None:
            taken += 1
            instructions = repr(found.instructions())
            assert repr(Changeset.decode(found.encode()).instructions()) == instructions
    assert taken > 500


NUMBER = {
    "small": "05",
    "ten bytes": "ffffffffffffffffff00",
    "2^32": "8080808010",
    "2^31": "8080808008",
    "2^20": "808040",
}
FOO = "3f0003466f6f3f010166"
#: What claims a number of things that are not there.
CLAIMS: dict[str, Callable[[str], str]] = {
    "length of a string": lambda number: "3f00" + number,
    "length of a text": lambda number: FOO + "04000101010003" + number,
    "length of data": lambda number: FOO + "04000101010004" + number,
    "steps of a path": lambda number: FOO + "0400010101" + number,
    "index of a string": lambda number: FOO + "01" + number,
    "index of a new string": lambda number: FOO + "3f" + number + "0141",
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("number", NUMBER)
@pytest.mark.parametrize("after", [0, 3])
def test_absurd_claims_cost_nothing(claim: str, number: str, after: int) -> None:
    """Whatever is announced, nothing is allocated for what is not there."""
    data = bytes.fromhex(CLAIMS[claim](NUMBER[number]) + "00" * after)
    answer(data)
    tracemalloc.start()
    try:
        assert answer(data) is None
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [*range(14, 63), *range(64, 256)])
def test_every_unknown_opcode(opcode: int) -> None:
    """Opcodes that nobody has defined are refused where they stand."""
    number = bytes([opcode]) if opcode < 64 else bytes([0x80 | opcode & 0x7F, opcode >> 7])
    prefix = bytes.fromhex(FOO)
    with pytest.raises(BadChangesetError, match="unknown") as caught:
        Changeset.decode(prefix + number + b"\x00\x01\x01\x01")
    assert caught.value.offset == len(prefix)


SHAPES: dict[str, Callable[[int], bytes]] = {
    "instructions of two bytes": lambda n: b"\x3f\x00\x00" + b"\x01\x00" * n,
    "paths of many steps": lambda n: (
        bytes.fromhex(FOO) + (bytes.fromhex("050001010120") + b"\x00" * 32 + b"\x01") * (n // 39)
    ),
    "steps that are keys": lambda n: (
        bytes.fromhex(FOO) + (bytes.fromhex("050001010110") + b"\x40\x01" * 16 + b"\x01") * (n // 39)
    ),
    "markers": lambda n: bytes.fromhex(FOO) + bytes.fromhex("0400010101004100") * (n // 8),
    "nothing but continuation": lambda n: b"\x80" * n,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_cost_grows_with_the_input(shape: str) -> None:
    """Eight times as many bytes take about eight times as long and as much memory, not sixty-four times."""
    costs = []
    for size in (40_000, 320_000):
        data = SHAPES[shape](size)
        answer(data)
        begin = min(_processor_time(data) for _ in range(5))
        tracemalloc.start()
        answer(data)
        costs.append((begin, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    assert costs[1][0] < 30 * costs[0][0] + 0.005
    assert costs[1][1] < 16 * costs[0][1] + 100_000


def _processor_time(data: bytes) -> float:
    begin = time.process_time()
    answer(data)
    return time.process_time() - begin
