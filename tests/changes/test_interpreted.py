"""The kernels without their compiler: what debuggers and the fuzzer run must be the same code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore", RuntimeWarning)  # numbers that wrap are meant
from realmframe.changes import codec, decode
from realmframe.conformance.checks import check_codec
from realmframe.conformance.vectors import read_lines
from realmframe.errors import BadChangesetError
assert type(decode.decode_columns).__name__ == "function", "compiled after all"
count = 0
for name in ("codec", "schema"):
    for line in read_lines(f"tests/data/vectors/{name}.jsonl.gz"):
        check_codec(line)
        count += 1
print(count)
cuts = 0
for line in list(read_lines("tests/data/vectors/codec.jsonl.gz"))[::9]:
    data = bytes.fromhex(line["hex"])
    for size in range(min(len(data), 60)):
        try:
            codec.decode(data[:size])
        except BadChangesetError as error:
            assert 0 <= error.offset < size, (data[:size].hex(), error)
        cuts += 1
print(cuts > 3000)
"""


def test_uncompiled_kernels_hold_every_vector() -> None:
    """With compilation switched off, every codec and schema vector holds as well, and cut bytes are refused as well."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["871", "True"]
