"""Constants, converted to the type that they are compared with."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import numpy as np

from realmframe.errors import QueryError
from realmframe.model import Decimal128, Link, PropertyType, Schema
from realmframe.query import expressions as e
from realmframe.query import tree as t
from realmframe.query.literals import INT_MAX, INT_MIN
from realmframe.query.values import to_decimal, type_tag, value_type

NUMERIC: Final = frozenset(
    {PropertyType.INT, PropertyType.FLOAT, PropertyType.DOUBLE, PropertyType.DECIMAL128, PropertyType.MIXED}
)
_INTEGER: Final = re.compile(r"\s*([+-]?[0-9]+)")
_REAL: Final = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_SPECIAL: Final = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?inf(?:inity)?", re.IGNORECASE)


def comparable_types(a: e.ExpressionType, b: e.ExpressionType) -> bool:
    """Whether values of two types may be compared."""
    return a == b or (a in NUMERIC and b in NUMERIC) or PropertyType.MIXED in (a, b)


def type_name(kind: e.ExpressionType) -> str:
    """Name a type in a message."""
    return kind.name.lower() if isinstance(kind, PropertyType) else (kind or "null")


def _exact_int(value: float) -> Any:
    if math.isfinite(value) and INT_MIN <= value <= INT_MAX and int(value) == value and int(value) <= INT_MAX:
        return int(value)
    return value


def _convert_double(node: t.Constant, hint: e.ExpressionType) -> Any:
    value: float = node.value
    if math.isinf(value) and (hint not in NUMERIC or hint is PropertyType.INT):
        raise QueryError(f"Infinity cannot be compared with a {type_name(hint)}.", position=node.position)
    if hint is PropertyType.FLOAT:
        with np.errstate(over="ignore"):
            return np.float32(value)
    if hint is PropertyType.DECIMAL128:
        return Decimal128.from_decimal(node.text if node.text is not None else to_decimal(value))
    return _exact_int(value) if hint is PropertyType.INT else value


def _convert_float(node: t.Constant, hint: e.ExpressionType) -> Any:
    if hint is not PropertyType.INT:
        return node.value
    if not math.isfinite(node.value):
        raise QueryError("Infinity and NaN cannot be compared with an int.", position=node.position)
    exact = _exact_int(float(node.value))
    return exact if isinstance(exact, int) else node.value


def _convert_string(text: str, hint: e.ExpressionType) -> Any:
    if hint is PropertyType.INT:
        match = _INTEGER.match(text)
        if match and len(match[1]) < 21 and INT_MIN <= int(match[1]) <= INT_MAX:
            return int(match[1])
    elif hint in (PropertyType.FLOAT, PropertyType.DOUBLE):
        match = _REAL.match(text)
        found = match[1] if match else (text if _SPECIAL.fullmatch(text) else None)
        if found is not None:
            with np.errstate(over="ignore"):
                return np.float32(found) if hint is PropertyType.FLOAT else float(found)
    elif hint is PropertyType.DECIMAL128 and _DECIMAL.fullmatch(text):
        return Decimal128.from_decimal(text)
    return text


def convert(node: t.Constant, hint: e.ExpressionType) -> Any:
    """Convert a value as the engine does where a property of a type is expected."""
    value = node.value
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return Decimal128.from_decimal(value) if hint is PropertyType.DECIMAL128 else value
    if isinstance(value, np.float32):
        return _convert_float(node, hint)
    if isinstance(value, float):
        return _convert_double(node, hint)
    return _convert_string(value, hint) if isinstance(value, str) else value


def bind_constant(schema: Schema, node: t.Constant, hint: e.ExpressionType) -> e.Value:
    """Bind a literal or an argument."""
    if node.missing:
        raise QueryError(
            f"The query asks for argument {node.argument}, which did not come with it.",
            position=node.position,
            kind="invalid_argument",
        )
    many = type(node.value) is tuple  # dates and links are named tuples
    if node.quantifier and not many:
        raise QueryError(f"{node.quantifier} is only for an argument that is a list.", position=node.position)
    if many:
        values = [convert(t.Constant(v, position=node.position), hint) for v in node.value]
        return e.Value(type=PropertyType.MIXED, multiple=True, quantifier=node.quantifier, values=values)
    value = convert(node, hint)
    kind: e.ExpressionType
    if value is None:
        kind = hint if hint in (PropertyType.STRING, PropertyType.DATA) else None
        return e.Value(type=kind, values=[None])
    kind = value_type(value)
    if isinstance(value, Link):
        _check_class(schema, value.table, node.position)
    if node.argument is not None and not (
        comparable_types(kind, hint) or (kind is PropertyType.STRING and hint == "type")
    ):
        raise QueryError(
            f"Argument {node.argument} ({type_name(kind)}) cannot be compared with a {type_name(hint)}.",
            position=node.position,
            kind="invalid_argument",
        )
    if hint == "type" and isinstance(value, str):
        tag = type_tag(value)
        if tag is None:
            raise QueryError(f"{value!r} is no type.", position=node.position, kind="invalid_argument")
        return e.Value(type="type", values=[tag])
    return e.Value(type=kind, values=[value])


def _check_class(schema: Schema, table: str, position: int) -> str:
    if table.startswith("class_") and table[6:] in schema:
        return table[6:]
    if table in schema:
        return table
    raise QueryError(f"There is no class {table!r}.", position=position)


def bind_object(schema: Schema, node: t.ObjectConstant) -> e.Value:
    """Bind ``obj("Class", key)``."""
    table = _check_class(schema, node.table, node.position)
    key = bind_constant(schema, t.Constant(node.key.value, missing=node.key.missing), PropertyType.MIXED)
    return e.Value(type=PropertyType.OBJECT, values=[Link(table, key.values[0])])


def bind_list(schema: Schema, node: t.ListConstant, hint: e.ExpressionType) -> e.Value:
    """Bind ``{1, 2, 3}``."""
    values: list[Any] = []
    for element in node.elements:
        if isinstance(element, t.ObjectConstant):
            bound = bind_object(schema, element)
        else:
            bound = bind_constant(schema, element, hint)
        if bound.multiple or (hint == "type" and bound.type != "type"):
            raise QueryError("A list cannot hold this constant.", position=node.position)
        values.extend(bound.values)
    kind: e.ExpressionType = "type" if hint == "type" else PropertyType.MIXED
    return e.Value(type=kind, multiple=True, quantifier=node.quantifier, values=values)
