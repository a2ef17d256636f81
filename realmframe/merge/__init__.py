"""Floor 1: operational transformation, by the rules of the real engine.

``transform(left, right)`` takes the concurrent changesets of two sides, each with its time and file, and gives what
each becomes after the other. The rules are tables (``rules.py``, ``arrays.py``); ``join.py`` finds what can conflict.
"""

from realmframe.merge.transform import Timed, transform

__all__ = ["Timed", "transform"]
