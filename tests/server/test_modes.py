"""An app syncs in one mode."""

from __future__ import annotations

import pytest

from realmframe.wire import Bind, Dialect, JsonError, parse_server
from tests.waiting import WAIT


@pytest.mark.parametrize(("first", "code"), [(True, 113), (False, 114)])
def test_other_mode_is_refused(client, first, code):
    """The first use fixes an app's mode; a client in the other one gets the error of the whole connection."""
    one = client(dialect=Dialect(14, first)).session()
    one.open()
    assert not one.errors
    wire = client(dialect=Dialect(14, not first))
    wire.send(Bind(1, {"schemaVersion": 0, "sessionReason": 0} if wire.dialect.flexible else '"p"', True))
    message = parse_server(wire.socket.recv(timeout=WAIT), wire.dialect)
    assert isinstance(message, JsonError)
    assert (message.session, message.code, message.body["tryAgain"]) == (0, code, False)
