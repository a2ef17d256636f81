"""Every recorded message is read, and written again byte for byte."""

from __future__ import annotations

from typing import Any

from realmframe.wire import encode, parse_client, parse_server


def test_every_message_survives(recorded: list[Any]) -> None:
    """Parsing a recorded message and encoding it gives the recorded bytes."""
    for found in recorded:
        parse = parse_client if found.from_client else parse_server
        message = parse(found.data, found.dialect)
        again = encode(message, found.dialect)
        assert message.encode(found.dialect) == again
        if found.has_blanks or found.is_deflated_otherwise:
            assert parse(again, found.dialect) == message, found.line
        else:
            assert again == found.data, found.line
