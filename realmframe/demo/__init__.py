"""Floor 5: the demo — a server, real data, devices that keep changing it, and a notebook that watches.

``run`` is what ``realmframe demo`` calls.
"""

from realmframe.demo.run import DemoOptions, run

__all__ = ["DemoOptions", "run"]
