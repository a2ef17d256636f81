"""The rules: what two concurrent instructions do to one another.

``RULES[(A, B)]`` is for instructions on the same level; ``left`` is the A. ``NESTED[A]`` is for an A whose level is
above the other's. A pair that no table names does not conflict. "Later" compares (timestamp, file) of the changesets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from realmframe.changes import instructions as i
from realmframe.errors import MergeError
from realmframe.merge.work import Node
from realmframe.model import Collection, Decimal128, Link, Marker

Rule = Callable[[Node, Node], None]


# ---------------------------------------------------------------------------------------------- comparisons


def same_object(a: Any, b: Any) -> bool:
    """Whether two instructions are on one object."""
    return bool(a.table == b.table and a.pk == b.pk)


def same_field(a: Any, b: Any) -> bool:
    """Whether two instructions with paths begin at one field."""
    return bool(a.field == b.field and a.table == b.table and a.pk == b.pk)


def same_path(a: Any, b: Any) -> bool:
    """Whether two instructions are at one place."""
    return bool(a.path == b.path) and same_field(a, b)


def same_container(a: Any, b: Any) -> bool:
    """Whether two instructions are in one collection."""
    return len(a.path) == len(b.path) and bool(a.path[:-1] == b.path[:-1]) and same_field(a, b)


def is_above(outer: Any, inner: Any) -> bool:
    """Whether one place is strictly above another."""
    size = len(outer.path)
    return size < len(inner.path) and bool(outer.path == inner.path[:size]) and same_field(outer, inner)


def container_is_above(outer: Any, inner: Any) -> bool:
    """Whether the collection that an instruction is in is on the way to another place."""
    size = len(outer.path)
    return 0 < size < len(inner.path) and bool(outer.path[:-1] == inner.path[: size - 1]) and same_field(outer, inner)


def same_value(a: Any, b: Any) -> bool:
    """Whether two values are of one type and equal."""
    if isinstance(a, Link) and isinstance(b, Link):
        return a.table == b.table and type(a.key) is type(b.key) and a.key == b.key
    if isinstance(a, Decimal128) and isinstance(b, Decimal128):
        return a == b or bool(a.to_decimal() == b.to_decimal())
    return type(a) is type(b) and bool(a == b)


def value_mark(value: Any) -> tuple[Any, ...]:
    """Give what is equal for equal values, to find them by (rarely also for others)."""
    if isinstance(value, Link):
        return Link, value.table, type(value.key), value.key
    if isinstance(value, Decimal128):
        return (Decimal128, value) if value.is_nan else (Decimal128, value.to_decimal())
    return type(value), value


def has_path(one: Any) -> bool:
    """Whether an instruction is on a field of an object."""
    return hasattr(one, "path")


def _discard_earlier(left: Node, right: Node) -> None:
    (left if left.stamp < right.stamp else right).discard()


def need(holds: bool, node: Node, what: str) -> None:
    """Refuse to merge unless something holds."""
    if not holds:
        one = node.one
        raise MergeError(f"{type(one).__name__} on {one.table}.{one.field} cannot be merged: {what}.")


SIZES: Final = "the two sides disagree about the size of a list"
RANGE: Final = "an index is outside its list"


# ---------------------------------------------------------------------------------------------- schema


def _tables(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if a.table != b.table:
        return
    if (a.kind, a.pk_field, a.pk_type, a.pk_nullable) != (b.kind, b.pk_field, b.pk_type, b.pk_nullable):
        raise MergeError(f"Class {a.table} is defined differently on the two sides.")
    left.discard()
    right.discard()


def _erase_table_and_table(left: Node, right: Node) -> None:
    if left.one.table == right.one.table:
        right.discard()


def _both_if_same_table(left: Node, right: Node) -> None:
    if left.one.table == right.one.table:
        left.discard()
        right.discard()


def _column_and_erase_table(left: Node, right: Node) -> None:
    column = left.one
    if column.link_target is not None and column.type == 9 and column.link_target == right.one.table:
        right.prepend(i.EraseColumn(column.table, column.field))
        left.discard()


def _same_column(left: Node, right: Node) -> bool:
    return bool(left.one.table == right.one.table and left.one.field == right.one.field)


def _columns(left: Node, right: Node) -> None:
    if not _same_column(left, right):
        return
    a, b = left.one, right.one
    same = (a.type, a.nullable, a.collection) == (b.type, b.nullable, b.collection)
    if not same or (a.type == 9 and a.link_target != b.link_target):
        raise MergeError(f"Property {a.table}.{a.field} is defined differently on the two sides.")
    left.discard()
    right.discard()


def _erase_column_and(left: Node, right: Node) -> None:
    if _same_column(left, right):
        right.discard()


def _erase_columns(left: Node, right: Node) -> None:
    if _same_column(left, right):
        left.discard()
        right.discard()


def _below_erase_table(outer: Node, inner: Node) -> None:
    if outer.one.table == inner.one.table:
        inner.discard()


# ---------------------------------------------------------------------------------------------- objects


def _erase_and_create(left: Node, right: Node) -> None:
    if same_object(left.one, right.one):
        right.discard()


def _erases(left: Node, right: Node) -> None:
    if same_object(left.one, right.one):
        (right if right.stamp < left.stamp else left).discard()


def _below_erase_object(outer: Node, inner: Node) -> None:
    if has_path(inner.one) and same_object(outer.one, inner.one):
        inner.discard()


# ---------------------------------------------------------------------------------------------- values


def _indexed(one: i.Update) -> bool:
    return bool(one.path) and isinstance(one.path[-1], int)


def _below_update(outer: Node, inner: Node) -> None:
    value = outer.one.value
    if value is Marker.OBJECT_VALUE or not has_path(inner.one) or not is_above(outer.one, inner.one):
        return
    step = inner.one.path[len(outer.one.path)]
    if (value is Marker.LIST and isinstance(step, int)) or (value is Marker.DICTIONARY and isinstance(step, str)):
        return
    inner.discard()


def _updates(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_path(a, b):
        return
    if _indexed(a):
        need(a.prior_size == b.prior_size, left, SIZES)
    if (a.value is Marker.OBJECT_VALUE) != (b.value is Marker.OBJECT_VALUE):
        (left if a.value is Marker.OBJECT_VALUE else right).discard()
        return
    if a.value is b.value and a.value in (Marker.LIST, Marker.DICTIONARY):
        return
    defaults = (False, False) if _indexed(a) else (a.is_default, b.is_default)
    if defaults[0] == defaults[1]:
        _discard_earlier(left, right)
    else:
        (left if defaults[0] else right).discard()


def _add_and_update(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_path(a, b):
        return
    is_default = not _indexed(b) and b.is_default
    if not (right.stamp < left.stamp or is_default):
        left.discard()
    elif b.value is None:
        return
    elif isinstance(b.value, bool) or not isinstance(b.value, int):
        left.discard()
    else:
        right.set_value((b.value + a.value + (1 << 63)) % (1 << 64) - (1 << 63))


def _erase_column_and_update(left: Node, right: Node) -> None:
    if _same_column(left, right):
        right.discard()


def _clear_and_update(left: Node, right: Node) -> None:
    a, b = left.one, right.one
    if not same_path(a, b):
        return
    if (a.collection, b.value) in ((Collection.LIST, Marker.LIST), (Collection.DICTIONARY, Marker.DICTIONARY)):
        return
    _discard_earlier(left, right)


def _discard_inner_above(outer: Node, inner: Node) -> None:
    if has_path(inner.one) and is_above(outer.one, inner.one):
        inner.discard()


def _discard_right_same_path(left: Node, right: Node) -> None:
    if same_path(left.one, right.one):
        right.discard()


# ---------------------------------------------------------------------------------------------- sets


def _discard_left_same_path(left: Node, right: Node) -> None:
    if same_path(left.one, right.one):
        left.discard()


def _clears(left: Node, right: Node) -> None:
    if same_path(left.one, right.one):
        _discard_earlier(left, right)


def _set_values(left: Node, right: Node) -> None:
    if same_path(left.one, right.one) and same_value(left.one.value, right.one.value):
        _discard_earlier(left, right)


def _set_erases(left: Node, right: Node) -> None:
    # The real engine compares how these are stored, not what they say; see SourceRow.stored.
    if not same_path(left.one, right.one):
        return
    a, b = left.one.value, right.one.value
    by_place = isinstance(a, str | bytes | Link) and type(a) is type(b)
    same = left.source.stored(a) == right.source.stored(b) if by_place else same_value(a, b)
    if same:
        _discard_earlier(left, right)


RULES: Final[dict[tuple[type, type], Rule]] = {
    (i.AddTable, i.AddTable): _tables,
    (i.EraseTable, i.AddTable): _erase_table_and_table,
    (i.EraseTable, i.EraseTable): _both_if_same_table,
    (i.AddColumn, i.EraseTable): _column_and_erase_table,
    (i.AddColumn, i.AddColumn): _columns,
    (i.EraseColumn, i.AddColumn): _erase_column_and,
    (i.EraseColumn, i.EraseColumn): _erase_columns,
    (i.EraseColumn, i.Update): _erase_column_and_update,
    (i.EraseObject, i.CreateObject): _erase_and_create,
    (i.EraseObject, i.EraseObject): _erases,
    (i.Update, i.Update): _updates,
    (i.AddInteger, i.Update): _add_and_update,
    (i.Clear, i.Update): _clear_and_update,
    (i.Clear, i.AddInteger): _discard_right_same_path,
    (i.Clear, i.Clear): _clears,
    (i.SetInsert, i.Clear): _discard_left_same_path,
    (i.SetErase, i.Clear): _discard_left_same_path,
    (i.SetInsert, i.SetInsert): _set_values,
    (i.SetErase, i.SetInsert): _set_values,
    (i.SetErase, i.SetErase): _set_erases,
}

NESTED: Final[dict[type, Rule]] = {
    i.EraseTable: _below_erase_table,
    i.EraseObject: _below_erase_object,
    i.Update: _below_update,
    i.AddInteger: _discard_inner_above,
    i.Clear: _discard_inner_above,
}
