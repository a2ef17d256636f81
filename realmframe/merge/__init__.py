"""Floor 1: operational transformation, by the rules of the real engine.

``transform(left, right)`` takes the concurrent changesets of two sides, each with its time and file, and gives what
each becomes after the other. The rules are tables (``rules.py``, ``arrays.py``); ``join.py`` finds what can conflict.
A ``Window`` is a side that stays while the other one comes bit by bit: what it finds out about itself is kept.

Both ways lead to one state, but for what does not converge in the real engine either. That is reproduced, because both
ends of a session must agree on every output:

* A move in a list against a path into one of its elements shifts the move, not the path.
* EraseColumn against anything but Updates of that property, or against what reaches it through an embedded object,
  leaves instructions that fail when they are applied.
* EraseTable leaves links to its objects alone that the other side put into Mixed values; those fail to be applied.
* Two SetErase tell text, data and links apart by how they are stored in their changesets, not by what they say.
* A set holds equal numbers once, in the form that came first, while merging compares numbers by type; NaN is one
  element of a set, but equals nothing in a merge.
* A float or double that equals the one that is there is not written, so the sign of zero depends on the order.
* Clear of a collection that is an element of a list keeps its index when the other side shifts that list.
* A later Clear of the collection at a key of a dictionary wins over the erasure of that key, and then fails.
* ObjectValue at a key of a dictionary makes a new object, but removes nothing that the other side did to the old one.
* An Update drops what the other side did below it, even when it then loses to that side's List or Dictionary marker.

With three sides, the order in which a server gets them matters in two more cases, while both ends of each session still
agree: one removes an element of a list, and two put something right before and right behind it; or one adds to a number
that another one replaces by something else and a third one by a number.
"""

from realmframe.merge.transform import Timed, transform
from realmframe.merge.window import Meeting, Window

__all__ = ["Meeting", "Timed", "Window", "transform"]
