"""The client's session as a literal table: (state, what happens) to the next state. The server's is in ``server.py``.

What is not in the table is illegal there: LocalProtocolError if this end tried it, RemoteProtocolError if the server
did.

Theory
------
A session lives inside one WebSocket. BIND opens it; the server gives the file a number if it has none; IDENT makes it
active. A json_error ends it on the server at once; the client, which may still be talking, answers UNBIND when the
error reaches it, and may bind again under the same number. UNBIND that the client sends on its own is answered by
UNBOUND, unless an error crosses it. A client that cannot use a DOWNLOAD says so and goes deaf: it stays connected,
ignores what comes and sends nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final


class Client(Enum):
    """States of a session on the client."""

    OFFLINE = auto()  # no connection
    BINDING = auto()  # BIND is to be sent
    WAIT_IDENT = auto()  # BIND asked for a file identifier
    IDENTIFYING = auto()  # IDENT is to be sent
    ACTIVE = auto()
    DEAF = auto()  # a DOWNLOAD could not be integrated
    FAILING = auto()  # json_error came, UNBIND is to be sent
    SUSPENDED = auto()  # UNBIND was sent after a json_error
    UNBINDING = auto()  # the app ended it, UNBIND is to be sent
    LEAVING = auto()  # a json_error came and the app ended it, UNBIND is to be sent, no UNBOUND will come
    WAIT_UNBOUND = auto()  # UNBIND was sent, UNBOUND is to come
    ENDED = auto()


class Do(Enum):
    """What happens to a session: a message of either end, or an intent of the owner."""

    BIND = auto()
    BIND_FOR_IDENT = auto()  # BIND that asks for a file identifier
    GIVE_IDENT = auto()  # the server's IDENT
    IDENT = auto()  # the client's IDENT
    QUERY = auto()
    UPLOAD = auto()
    DOWNLOAD = auto()
    MARK = auto()
    MARKED = auto()  # the server's MARK
    CLIENT_ERROR = auto()  # the client's json_error
    JSON_ERROR = auto()  # the server's json_error, where it ends the session
    SOFT_ERROR = auto()  # one that does not (231, 236)
    QUERY_ERROR = auto()
    UNBIND = auto()
    UNBOUND = auto()
    TEST = auto()
    CONNECTED = auto()
    LOST = auto()
    RESUME = auto()
    END = auto()


_C = Client

CLIENT: Final[Mapping[tuple[Client, Do], Client]] = {
    (_C.OFFLINE, Do.CONNECTED): _C.BINDING,
    (_C.OFFLINE, Do.END): _C.ENDED,
    (_C.OFFLINE, Do.LOST): _C.OFFLINE,
    (_C.OFFLINE, Do.RESUME): _C.OFFLINE,
    (_C.BINDING, Do.BIND): _C.IDENTIFYING,
    (_C.BINDING, Do.BIND_FOR_IDENT): _C.WAIT_IDENT,
    (_C.BINDING, Do.END): _C.ENDED,
    (_C.BINDING, Do.LOST): _C.OFFLINE,
    (_C.WAIT_IDENT, Do.GIVE_IDENT): _C.IDENTIFYING,
    (_C.WAIT_IDENT, Do.TEST): _C.WAIT_IDENT,
    (_C.WAIT_IDENT, Do.JSON_ERROR): _C.FAILING,
    (_C.WAIT_IDENT, Do.SOFT_ERROR): _C.WAIT_IDENT,
    (_C.WAIT_IDENT, Do.END): _C.UNBINDING,
    (_C.WAIT_IDENT, Do.LOST): _C.OFFLINE,
    (_C.IDENTIFYING, Do.IDENT): _C.ACTIVE,
    (_C.IDENTIFYING, Do.TEST): _C.IDENTIFYING,
    (_C.IDENTIFYING, Do.JSON_ERROR): _C.FAILING,
    (_C.IDENTIFYING, Do.SOFT_ERROR): _C.IDENTIFYING,
    (_C.IDENTIFYING, Do.END): _C.UNBINDING,
    (_C.IDENTIFYING, Do.LOST): _C.OFFLINE,
    (_C.ACTIVE, Do.QUERY): _C.ACTIVE,
    (_C.ACTIVE, Do.UPLOAD): _C.ACTIVE,
    (_C.ACTIVE, Do.MARK): _C.ACTIVE,
    (_C.ACTIVE, Do.TEST): _C.ACTIVE,
    (_C.ACTIVE, Do.CLIENT_ERROR): _C.DEAF,
    (_C.ACTIVE, Do.DOWNLOAD): _C.ACTIVE,
    (_C.ACTIVE, Do.MARKED): _C.ACTIVE,
    (_C.ACTIVE, Do.QUERY_ERROR): _C.ACTIVE,
    (_C.ACTIVE, Do.SOFT_ERROR): _C.ACTIVE,
    (_C.ACTIVE, Do.JSON_ERROR): _C.FAILING,
    (_C.ACTIVE, Do.END): _C.UNBINDING,
    (_C.ACTIVE, Do.LOST): _C.OFFLINE,
    (_C.DEAF, Do.DOWNLOAD): _C.DEAF,  # ignored
    (_C.DEAF, Do.MARKED): _C.DEAF,
    (_C.DEAF, Do.TEST): _C.DEAF,
    (_C.DEAF, Do.QUERY_ERROR): _C.DEAF,
    (_C.DEAF, Do.SOFT_ERROR): _C.DEAF,
    (_C.DEAF, Do.JSON_ERROR): _C.FAILING,
    (_C.DEAF, Do.END): _C.UNBINDING,
    (_C.DEAF, Do.LOST): _C.OFFLINE,
    (_C.FAILING, Do.UNBIND): _C.SUSPENDED,
    (_C.FAILING, Do.LOST): _C.OFFLINE,
    (_C.FAILING, Do.END): _C.LEAVING,
    (_C.SUSPENDED, Do.RESUME): _C.BINDING,
    (_C.SUSPENDED, Do.LOST): _C.OFFLINE,
    (_C.SUSPENDED, Do.END): _C.ENDED,
    # the app has ended it: what was on its way is ignored
    (_C.UNBINDING, Do.UNBIND): _C.WAIT_UNBOUND,
    (_C.UNBINDING, Do.GIVE_IDENT): _C.UNBINDING,
    (_C.UNBINDING, Do.DOWNLOAD): _C.UNBINDING,
    (_C.UNBINDING, Do.MARKED): _C.UNBINDING,
    (_C.UNBINDING, Do.TEST): _C.UNBINDING,
    (_C.UNBINDING, Do.QUERY_ERROR): _C.UNBINDING,
    (_C.UNBINDING, Do.SOFT_ERROR): _C.UNBINDING,
    (_C.UNBINDING, Do.JSON_ERROR): _C.LEAVING,
    (_C.UNBINDING, Do.LOST): _C.ENDED,
    (_C.UNBINDING, Do.END): _C.UNBINDING,
    (_C.LEAVING, Do.UNBIND): _C.ENDED,
    (_C.LEAVING, Do.LOST): _C.ENDED,
    (_C.LEAVING, Do.END): _C.LEAVING,
    (_C.WAIT_UNBOUND, Do.UNBOUND): _C.ENDED,
    (_C.WAIT_UNBOUND, Do.JSON_ERROR): _C.ENDED,  # they crossed: the error ends it, no UNBOUND will come
    (_C.WAIT_UNBOUND, Do.GIVE_IDENT): _C.WAIT_UNBOUND,
    (_C.WAIT_UNBOUND, Do.DOWNLOAD): _C.WAIT_UNBOUND,
    (_C.WAIT_UNBOUND, Do.MARKED): _C.WAIT_UNBOUND,
    (_C.WAIT_UNBOUND, Do.TEST): _C.WAIT_UNBOUND,
    (_C.WAIT_UNBOUND, Do.QUERY_ERROR): _C.WAIT_UNBOUND,
    (_C.WAIT_UNBOUND, Do.SOFT_ERROR): _C.WAIT_UNBOUND,
    (_C.WAIT_UNBOUND, Do.LOST): _C.ENDED,
    (_C.WAIT_UNBOUND, Do.END): _C.WAIT_UNBOUND,
    (_C.ENDED, Do.END): _C.ENDED,
    (_C.ENDED, Do.LOST): _C.ENDED,
}
