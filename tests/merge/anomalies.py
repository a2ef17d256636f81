"""Where the real engine does not converge, and what is reproduced on purpose because both ends must agree.

Each entry names what two concurrent sides have to contain. That is looked for roughly: any index stands for any other,
because indexes shift within a side. Every anomaly was seen in the real engine itself, with the outcomes of both ways.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from realmframe.changes import Instruction
from realmframe.changes import instructions as i
from realmframe.model import Link, Marker
from tests.plain import amount, shape

Pair = Callable[[Any, Any, Sequence[Any]], bool]
LIST_CHANGES = (i.ArrayInsert, i.ArrayMove, i.ArrayErase)


def place(one: Any, cut: int = 0) -> tuple[Any, ...] | None:
    """Give where an instruction acts, any index being one; None if it acts on no field."""
    if not hasattr(one, "path"):
        return None
    path = one.path[: len(one.path) - cut]
    return (one.table, one.pk, one.field, *(step if isinstance(step, str) else 0 for step in path))


def is_below(outer: tuple[Any, ...] | None, one: Any) -> bool:
    """Whether an instruction acts strictly inside a place."""
    inner = place(one)
    return outer is not None and inner is not None and len(inner) > len(outer) and inner[: len(outer)] == outer


def ends_in_index(one: Any) -> bool:
    """Whether a path leads to an element of a list."""
    return bool(one.path) and isinstance(one.path[-1], int)


def move_against_deeper_path(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """A move in a list whose elements the other side changes inside: the move is shifted, not the deeper path."""
    return isinstance(a, i.ArrayMove) and is_below(place(a), b)


def erased_column(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """EraseColumn leaves everything but updates alone, and what reaches the property through an embedded object."""
    if not isinstance(a, i.EraseColumn) or not hasattr(b, "path"):
        return False
    return a.field in b.path or (b.table == a.table and b.field == a.field and not isinstance(b, i.Update))


def link_to_erased_class(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """EraseTable leaves links to its objects alone that the other side put into Mixed values: they fail."""
    value = getattr(b, "value", None)
    return isinstance(a, i.EraseTable) and isinstance(value, Link) and value.table == a.table and b.table != a.table


def set_erase_by_storage(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """Two SetErase compare text, data and links by how they are stored, not by what they say."""
    if not (isinstance(a, i.SetErase) and isinstance(b, i.SetErase)) or place(a) != place(b):
        return False
    return isinstance(a.value, str | bytes | Link) and type(a.value) is type(b.value)


def sign_of_zero(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """A float or double that equals the one that is there is not written, so -0 or 0 depends on what came between."""
    if not (isinstance(a, i.Update) and isinstance(b, i.Update)) or place(a) != place(b):
        return False
    return isinstance(a.value, float | np.float32) and a.value == 0


def element_cleared(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """Clear of a collection that is an element of a list keeps its index when the other side shifts that list."""
    return isinstance(a, i.Clear) and ends_in_index(a) and isinstance(b, LIST_CHANGES) and place(b, 1) == place(a, 1)


def clear_of_erased_key(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """A later Clear of the collection at a key wins over the key's erasure, but cannot be applied without the key."""
    return isinstance(a, i.Clear) and isinstance(b, i.Update) and b.value is Marker.ERASED and place(a) == place(b)


def fresh_in_dictionary(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """ObjectValue at a key of a dictionary always makes a new object, but removes nothing that the other side did."""
    if not isinstance(a, i.Update) or a.value is not Marker.OBJECT_VALUE or not a.path or ends_in_index(a):
        return False
    return isinstance(b, i.Update) and place(a) == place(b)


def marker_keeps_content(a: Any, b: Any, side: Sequence[Any]) -> bool:
    """An update drops what the other side did below, also when it then loses to that side's marker of a collection."""
    if not isinstance(a, i.Update) or a.value not in (Marker.LIST, Marker.DICTIONARY):
        return False
    above = isinstance(b, i.Update | i.Clear) and place(a) == place(b)
    return above and any(is_below(place(a), one) for one in side)


def numbers_in_sets(a: Any, b: Any, _: Sequence[Any]) -> bool:
    """A set holds equal numbers once, in the form that came first; merging tells them apart by type, and NaN always."""
    sets = (i.SetInsert, i.SetErase)
    if not (isinstance(a, sets) and isinstance(b, sets)) or place(a) != place(b):
        return False
    number = amount(a.value)
    return number is not None and number == amount(b.value) and (number == "nan" or shape(a.value) != shape(b.value))


ANOMALIES: dict[str, Pair] = {
    name.__name__: name
    for name in (
        move_against_deeper_path,
        erased_column,
        link_to_erased_class,
        set_erase_by_storage,
        sign_of_zero,
        element_cleared,
        clear_of_erased_key,
        fresh_in_dictionary,
        marker_keeps_content,
        numbers_in_sets,
    )
}


def found(left: Sequence[Instruction], right: Sequence[Instruction]) -> Iterator[str]:
    """Name the anomalies that two sides may show."""
    for name, holds in ANOMALIES.items():
        if any(holds(a, b, left) or holds(b, a, right) for a in left for b in right):
            yield name


def around_a_removal(one: Any, second: Any, third: Any) -> bool:
    """One side removes an element of a list, and two put something beside it.

    Once the element is gone, what the others put before and behind it meets at one index and is ordered by time.
    """
    removes = isinstance(one, i.ArrayMove | i.ArrayErase)
    puts = all(isinstance(other, i.ArrayInsert | i.ArrayMove) for other in (second, third))
    return removes and puts and place(one, 1) == place(second, 1) == place(third, 1)


def addition_to_no_integer(one: Any, second: Any, third: Any) -> bool:
    """One side adds to a number that another one replaces by something else, and a third one by a number.

    The addition is dropped when it meets what is no number, even if that loses to the third side's number later.
    """
    if not isinstance(one, i.AddInteger) or not place(one) == place(second) == place(third):
        return False
    replaced = isinstance(second, i.Clear) or (isinstance(second, i.Update) and type(second.value) is not int)
    return replaced and isinstance(third, i.Update)


#: Where the order matters in which a server gets three sides. Both ends of each session still agree.
OF_THREE: dict[str, Callable[[Any, Any, Any], bool]] = {
    "around_a_removal": around_a_removal,
    "addition_to_no_integer": addition_to_no_integer,
}


def found_in_three(sides: Sequence[Sequence[Instruction]]) -> Iterator[str]:
    """Name the anomalies that three sides may show together."""
    for name, holds in OF_THREE.items():
        if any(holds(*three) for some in itertools.permutations(sides) for three in itertools.product(*some)):
            yield name
