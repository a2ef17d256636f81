"""Helpers for tests, for users too: a server on a free port, and a proxy that fails as it is told to.

>>> with Server() as server, FaultProxy(server) as proxy:  # doctest: +SKIP
...     app = realmframe.App("test", base_url=proxy.url)
...     user = app.log_in(realmframe.Credentials.anonymous())
...     proxy.fault(stall_after=10_000)  # nothing comes after so many bytes of a connection
...     ...
...     proxy.fault(stall_after=None, down=True)
...     proxy.heal()  # the server is back
"""

from __future__ import annotations

from realmframe.testing.faults import Faults
from realmframe.testing.proxy import FaultProxy
from realmframe.testing.server import Server

__all__ = ["FaultProxy", "Faults", "Server"]
