"""Objects that a query names and that do not exist: the real engine reads ``obj(...)`` of none as null."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from realmframe.model import Schema
from realmframe.query import tree as t
from realmframe.query.source import Source

_NULL = t.Constant(None)


def named_objects(node: Any) -> Iterator[t.ObjectConstant]:
    """Give every ``obj(...)`` in a tree."""
    if isinstance(node, t.ObjectConstant):
        yield node
    elif isinstance(node, tuple) and not hasattr(node, "_fields"):
        for child in node:
            yield from named_objects(child)
    elif is_dataclass(node):
        for one in fields(node):
            yield from named_objects(getattr(node, one.name))


def can_be_absent(schema: Schema, one: t.ObjectConstant) -> bool:
    """Whether there is such a class, and a key to look for."""
    return not one.key.missing and (one.table in schema or one.table.removeprefix("class_") in schema)


def absent_objects(schema: Schema, source: Source, named: list[t.ObjectConstant]) -> set[t.ObjectConstant]:
    """Tell which of them a source does not have."""
    out = set()
    for one in named:
        if not can_be_absent(schema, one):
            continue
        table = one.table if one.table in schema else one.table.removeprefix("class_")
        if not schema[table].embedded and int(source.find(table, [one.key.value])[0]) < 0:
            out.add(one)
    return out


def without(node: Any, absent: set[t.ObjectConstant]) -> Any:
    """Put null in place of objects."""
    if isinstance(node, t.ObjectConstant):
        return replace(_NULL, position=node.position) if node in absent else node
    if isinstance(node, tuple) and not hasattr(node, "_fields"):
        return tuple(without(child, absent) for child in node)
    if isinstance(node, t.Constant) or not is_dataclass(node) or isinstance(node, type):
        return node
    changed = {one.name: without(getattr(node, one.name), absent) for one in fields(node)}
    return replace(node, **changed)
