"""Coverage-guided fuzzing of the message parsers: any bytes give a message or one error with an offset.

Run ``python tests/fuzz/fuzz_message.py [CORPUS...] [libFuzzer options]``. The first byte picks side, protocol
version and kind of sync; the rest is the message.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["realmframe.wire"]):
    from realmframe import wire
    from realmframe.errors import RemoteProtocolError

VERSIONS = wire.MAX_VERSION - wire.MIN_VERSION + 1


def check(data: bytes) -> None:
    """Parse as one side or the other would; what parses encodes to a message that parses to the same."""
    if not data:
        return
    parse = wire.parse_client if data[0] & 1 else wire.parse_server
    dialect = wire.Dialect(wire.MIN_VERSION + (data[0] >> 2) % VERSIONS, bool(data[0] & 2))
    try:
        message = parse(data[1:], dialect, max_body=1 << 20)
    except RemoteProtocolError as error:
        assert error.offset is not None, error  # noqa: PT017
        return
    assert parse(wire.encode(message, dialect), dialect, max_body=1 << 24) == message


def main() -> None:
    """Hand over to libFuzzer."""
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
