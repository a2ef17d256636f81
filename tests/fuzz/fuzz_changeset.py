"""Coverage-guided fuzzing of the changeset decoder: any bytes give a changeset or one error with an offset.

Run ``python tests/fuzz/fuzz_changeset.py [CORPUS...] [libFuzzer options]``. The kernels run uncompiled, so that the
fuzzer sees which branches it takes.
"""

from __future__ import annotations

import os
import sys
import warnings

os.environ["NUMBA_DISABLE_JIT"] = "1"

import atheris

with atheris.instrument_imports(include=["realmframe.changes"]):
    from realmframe.changes import codec
    from realmframe.changes.columns import Changeset
    from realmframe.errors import BadChangesetError


def check(data: bytes) -> None:
    """Decode; encode what was decoded, and decode that to the same again."""
    try:
        changeset = codec.decode(data)
    except BadChangesetError as error:
        assert error.offset is not None and 0 <= error.offset < len(data), error  # noqa: PT018, PT017
        return
    encoded = changeset.encode()
    again = Changeset.decode(encoded)
    assert repr(again.instructions()) == repr(changeset.instructions())
    assert again.encode() == encoded


def main() -> None:
    """Hand over to libFuzzer."""
    # Numbers that wrap are meant; uncompiled, numpy would warn of each.
    warnings.simplefilter("ignore", RuntimeWarning)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
