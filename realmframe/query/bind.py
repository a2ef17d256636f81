"""From tree to bound predicate: names, types and the engine's choice of comparison."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from realmframe.errors import QueryError
from realmframe.model import Collection, Link, PropertyType
from realmframe.query import expressions as e
from realmframe.query import predicates as p
from realmframe.query import tree as t
from realmframe.query.constants import NUMERIC, bind_constant, bind_list, bind_object, comparable_types, type_name
from realmframe.query.geo import Region
from realmframe.query.literals import INT_MAX, INT_MIN
from realmframe.query.paths import Scope, bind_aggregate, bind_property, walk
from realmframe.query.values import STRING_OPERATORS, arithmetic, is_utf8, value_type
from realmframe.query.vector import Scalar

_TEXTUAL: Final = frozenset({PropertyType.STRING, PropertyType.DATA, PropertyType.MIXED})
#: Types that the engine orders by a search of its own; of the others, and of null, it compares value by value.
_ORDERED: Final = frozenset(PropertyType) - {PropertyType.BOOL, PropertyType.DATA, PropertyType.OBJECT}


def bind_predicate(scope: Scope, node: t.Predicate) -> p.Predicate:
    """Bind a predicate to a class.

    Raises
    ------
    QueryError
        For names that the class does not have, and comparisons of types that cannot be compared.
    """
    if isinstance(node, t.Truth):
        return p.Truth(node.value)
    if isinstance(node, t.Not):
        child = bind_predicate(scope, node.child)
        return child if isinstance(child, p.Unasked) else p.Not(child)
    if isinstance(node, t.And | t.Or):
        children = [bind_predicate(scope, c) for c in node.children]
        asked = [c for c in children if not isinstance(c, p.Unasked)]
        return p.Junction(asked, isinstance(node, t.And)) if asked else children[0]
    if isinstance(node, t.Between):
        return _between(scope, node)
    if isinstance(node, t.GeoWithin):
        return _geo(scope, node)
    if node.op in STRING_OPERATORS or node.op == "TEXT":
        return _string(scope, node)
    return _equality(scope, node) if node.op in ("==", "!=", "IN") else _relational(scope, node)


def is_constant(node: t.Expression) -> bool:
    """Whether an expression needs no object."""
    if isinstance(node, t.Operation):
        return is_constant(node.left) and is_constant(node.right)
    return isinstance(node, t.Constant | t.ObjectConstant | t.ListConstant)


def bind_expression(scope: Scope, node: t.Expression, hint: e.ExpressionType = PropertyType.INT) -> e.Bound:
    """Bind an expression; ``hint`` is the type that a constant is compared with."""
    if isinstance(node, t.PropertyNode):
        return bind_property(scope, node)
    if isinstance(node, t.Constant):
        return bind_constant(scope.schema, node, hint)
    if isinstance(node, t.ObjectConstant):
        return bind_object(scope.schema, node)
    if isinstance(node, t.ListConstant):
        return bind_list(scope.schema, node, hint)
    if isinstance(node, t.Aggregate):
        return bind_aggregate(scope, node)
    if isinstance(node, t.Subquery):
        return _subquery(scope, node)
    return _operation(scope, node, hint)


def _is_list(node: t.Expression) -> bool:
    if isinstance(node, t.Operation):
        return _is_list(node.left) or _is_list(node.right)
    return isinstance(node, t.ListConstant)


def _operation(scope: Scope, node: t.Operation, hint: e.ExpressionType) -> e.Bound:
    left_constant, right_constant = is_constant(node.left), is_constant(node.right)
    if left_constant and right_constant and not _is_list(node):
        right = bind_expression(scope, node.right, hint)
        left = bind_expression(scope, node.left, hint)
        result = arithmetic(node.op, _one(left), _one(right))
        return e.Value(type=PropertyType.MIXED, values=[result])
    left, right = _pair(scope, node.left, node.right)
    if left.type not in NUMERIC or right.type not in NUMERIC:
        raise QueryError(
            f"Operator {node.op!r} cannot compute with a {type_name(left.type)} and a {type_name(right.type)}.",
            kind="invalid_argument",
        )
    if left.multiple and right.multiple:
        raise QueryError(f"Operator {node.op!r} cannot compute with two lists.", kind="other")
    quantifier = left.quantifier if not left.single else right.quantifier
    return e.Arithmetic(type=left.type, left=left, op=node.op, right=right, quantifier=quantifier)


def _one(bound: e.Bound) -> Any:
    return bound.values[0] if isinstance(bound, e.Value) and bound.single else None


def _pair(scope: Scope, left_node: t.Expression, right_node: t.Expression) -> tuple[e.Bound, e.Bound]:
    """Bind two sides, the one that is not constant first."""
    if is_constant(right_node):
        left = bind_expression(scope, left_node)
        return left, bind_expression(scope, right_node, left.type)
    right = bind_expression(scope, right_node)
    hint = right.type if is_constant(left_node) else PropertyType.INT
    return bind_expression(scope, left_node, hint), right


def _sides(scope: Scope, node: t.Comparison) -> tuple[e.Bound, e.Bound]:
    left_constant, right_constant = is_constant(node.left), is_constant(node.right)
    if left_constant and right_constant:
        raise QueryError("Two constants cannot be compared.", position=node.position)
    left, right = _pair(scope, node.left, node.right)
    _verify(*((left, right) if right_constant else (right, left)), node.position)
    return left, right


def _verify(left: e.Bound, right: e.Bound, position: int) -> None:
    if isinstance(left, e.Many) and isinstance(right, e.Many):
        raise QueryError("Two lists of values cannot be compared with each other.", position=position)
    if isinstance(left, e.Value) and isinstance(right, e.Value) and left.type == right.type == "type":
        raise QueryError("The type of this property is always the same.", position=position)
    if isinstance(left, e.Links) and left.multiple and right.single and _one(right) is None:
        raise QueryError(
            "A list of objects cannot be compared with null.", position=position, hint="Compare its @count with 0."
        )


def _subquery(scope: Scope, node: t.Subquery) -> e.Bound:
    chain, taken = walk(scope, node.path)
    position = node.path.position
    if taken < len(node.path.elements):
        name = node.path.elements[taken]
        prop = chain.table.properties.get(name) if isinstance(name, str) else None
        if prop is None:
            raise QueryError(f"Class {chain.table.name!r} has no property {name!r}.", position=position)
        raise QueryError(f"A subquery needs a list of objects, which {name!r} is not.", position=position)
    last = chain.steps[-1] if chain.steps else None
    if last is None or not (last.back or last.collection is Collection.LIST):
        raise QueryError("A subquery needs a list of objects.", position=position)
    if (last.target, node.variable) in scope.variables:
        raise QueryError(f"The variable {node.variable!r} is already in use here.", position=position)
    inner = bind_predicate(scope.inner(last.target, node.variable), node.predicate)
    return p.SubqueryCount(type=PropertyType.INT, cls=scope.cls, steps=tuple(chain.steps), predicate=inner)


def _check_links(scope: Scope, links: e.Bound, constant: e.Bound, position: int) -> None:
    """Let an object be compared with objects of its own class only."""
    if not isinstance(links, e.Links) or not isinstance(constant, e.Value):
        return
    for value in constant.values:
        if value is None:
            continue
        if not isinstance(value, Link):
            raise QueryError(f"A link cannot be compared with {value!r}.", position=position)
        if value.table.removeprefix("class_") != links.end:
            raise QueryError(
                f"A link to class {links.end!r} cannot be compared with an object of class {value.table!r}.",
                position=position,
                kind="invalid_argument",
            )
    constant.type = PropertyType.OBJECT


def _own(bound: e.Bound) -> e.Property | None:
    """Return a property of the object itself, read without links or a path."""
    return bound if isinstance(bound, e.Property) and not bound.steps and not bound.path else None


def _nullable(scope: Scope, own: e.Property) -> bool:
    return scope.schema[own.cls].properties[own.name].optional


def _check_types(left: e.Bound, right: e.Bound, position: int) -> None:
    kinds = (left.type, right.type)
    if all(isinstance(k, PropertyType) for k in kinds) and not comparable_types(*kinds):
        raise QueryError(
            f"A {type_name(left.type)} cannot be compared with a {type_name(right.type)}.", position=position
        )


def _equality(scope: Scope, node: t.Comparison) -> p.Predicate:
    left, right = _sides(scope, node)
    position = node.position
    if left.type is PropertyType.OBJECT and right.constant:
        _check_links(scope, left, right, position)
    if right.type is PropertyType.OBJECT and left.constant:
        _check_links(scope, right, left, position)
    _check_types(left, right, position)
    if "type" in (left.type, right.type) and left.type != right.type:
        raise QueryError(
            "@type is compared with the name of a type.", position=position, kind="invalid_argument",
            hint="Such as 'int', 'string' or 'object'.",
        )  # fmt: skip
    if node.op == "IN" and not right.multiple:
        raise QueryError("IN needs a list on its right side.", position=position, kind="invalid_argument")
    own = _own(left)
    operator = "==" if node.op == "IN" else node.op
    kind = own.type if own is not None else None
    if own is not None and isinstance(kind, PropertyType) and isinstance(right, e.Value):
        searched = operator == "==" and kind is not PropertyType.MIXED and right.quantifier in (None, "ANY")
        if right.multiple and searched and right.values:
            return _in_list(own, kind, right.values, nullable=_nullable(scope, own))
        if right.single and (kind is PropertyType.MIXED or (right.type == kind and not right.multiple)):
            suffix = "[c]" if node.fold and kind in _TEXTUAL and _one(right) is not None else ""
            _check_utf8(own, operator + suffix, _one(right), position)
            return p.Leaf(own, Scalar(kind, operator + suffix, _one(right)))
    if isinstance(left, e.Links) and isinstance(right, e.Value) and node.op != "IN" and _direct(left):
        return _linked(left, operator, right)
    if node.fold:
        _check_text(right, operator + "[c]", position)
        return p.Compare(left, right, operator + "[c]")
    if own is not None and isinstance(kind, PropertyType) and _is_null(right):
        return p.Leaf(own, Scalar(kind, operator, None))
    return p.Compare(left, right, operator)


def _direct(links: e.Links) -> bool:
    return len(links.steps) == 1 and links.quantifier in (None, "ANY")


def _linked(left: e.Links, operator: str, right: e.Value) -> p.Predicate:
    """Search for links to constant objects as the engine does where the path is one link long.

    It knows no quantifier of the constants, compares with the first only for ``!=``, and finds nothing against a link.
    """
    if left.steps[0].back:
        return p.Truth(operator == "!=")
    values = right.values if operator == "==" else right.values[:1]
    constants = e.Value(type=right.type, multiple=right.multiple, quantifier="ANY", values=values)
    return p.Linked(left, constants, operator)


def _is_null(bound: e.Bound) -> bool:
    return bound.single and not bound.multiple and _one(bound) is None


def _in_list(own: e.Property, kind: PropertyType, values: list[Any], *, nullable: bool) -> p.Predicate:
    """Take of a list what the property's type can be equal to."""
    kept: list[Any] = []
    for value in values:
        if value is None:
            if nullable:
                kept.append(None)
        elif kind is PropertyType.INT and isinstance(value, float) and not isinstance(value, bool):
            if value == value and INT_MIN <= value <= INT_MAX and int(value) == value:
                kept.append(int(value))
        elif value_type(value) is kind:
            kept.append(value)
    if not kept and kind is PropertyType.INT:
        # The engine then compares with what stands for "no position", which read as an integer is -1.
        kept = [-1]
    if not kept:
        # Of other types than these the engine forgets a list of which nothing fits, and so asks for nothing.
        searched = (PropertyType.UUID, PropertyType.OBJECT_ID, PropertyType.STRING)
        return p.Truth(False) if kind in searched else p.Unasked()
    return p.Leaf(own, Scalar(kind, "IN", kept, nullable=nullable))


def _check_text(right: e.Bound, op: str, position: int) -> None:
    if right.type not in _TEXTUAL:
        raise QueryError(
            f"{op} needs a string or binary on its right side, not a {type_name(right.type)}.", position=position
        )


def _check_utf8(own: e.Property, op: str, value: Any, position: int) -> None:
    """Refuse what is no UTF-8 where the real engine looks at its letters, which it does not for ``[c]`` alone."""
    if own.type is PropertyType.MIXED:
        looked_at = op == "==[c]"
    else:
        looked_at = own.type is PropertyType.STRING and op not in ("==", "CONTAINS")
    if looked_at and isinstance(value, str | bytes) and not is_utf8(value):
        kind = "invalid_query" if op in ("==[c]", "CONTAINS[c]") else "other"
        raise QueryError(f"{op} needs a text that is UTF-8.", position=position, kind=kind)


def _relational(scope: Scope, node: t.Comparison) -> p.Predicate:
    left, right = _sides(scope, node)
    return _ordered(left, node.op, right, node.position)


def _ordered(left: e.Bound, op: str, right: e.Bound, position: int) -> p.Predicate:
    left_null = left.single and _one(left) is None
    right_null = right.single and _one(right) is None
    # A constant object before Mixed is ordered among its values; links are not.
    ordered = left.constant and right.type is PropertyType.MIXED
    if (left.type is PropertyType.OBJECT and not ordered) or left.type == "type":
        raise QueryError(f"{op} is not for this type, only == and != are.", position=position)
    if not (left_null or right_null):
        kinds = (left.type, right.type)
        if not all(isinstance(k, PropertyType) for k in kinds) or not comparable_types(*kinds):
            raise QueryError(
                f"A {type_name(left.type)} cannot be compared with a {type_name(right.type)}.", position=position
            )
    own = _own(left)
    if own is not None and isinstance(own.type, PropertyType) and right.single:
        kind = own.type
        if (right.type == kind and kind in _ORDERED) or kind is PropertyType.MIXED:
            scalar = Scalar(kind, op, _one(right))
            return p.Unasked() if kind is PropertyType.INT and scalar.unbounded else p.Leaf(own, scalar)
        if not right.multiple and (right.type == kind or right_null):
            return p.Leaf(own, Scalar(kind, op, _one(right)))
    return p.Compare(left, right, op)


def _between(scope: Scope, node: t.Between) -> p.Predicate:
    limits = node.limits.elements
    if len(limits) != 2:
        raise QueryError("BETWEEN needs a list of two limits.", position=node.position)
    left = bind_expression(scope, node.left)
    if isinstance(left, e.Many) and left.quantifier != "ALL":
        raise QueryError("BETWEEN on a list needs ALL before the list.", position=node.position)
    low, high = (bind_expression(scope, limit, left.type) for limit in limits)
    own = _own(left)
    if own is not None and own.type in (PropertyType.INT, PropertyType.DATE):
        values = tuple(_limit(own.type, _one(limit), node.position) for limit in (low, high))
        if all(v is not None and value_type(v) is own.type for v in values):
            return p.Leaf(own, Scalar(own.type, "BETWEEN", values))
    first = _relational(scope, t.Comparison(node.left, ">=", limits[0], False, node.position))
    second = _relational(scope, t.Comparison(node.left, "<=", limits[1], False, node.position))
    return p.Junction([first, second], conjunction=True)


def _limit(kind: PropertyType, value: Any, position: int) -> Any:
    """Take a limit of BETWEEN as the engine does, which looks at no limit's type."""
    if kind is PropertyType.DATE and value is None:
        raise QueryError("A limit of BETWEEN on a date cannot be null.", position=position, kind="other")
    if kind is PropertyType.INT and type(value) is float:
        # A fraction's bits are read as an integer: above 2, that is beyond any other number.
        return int(np.float64(value).view(np.int64))
    return value


def _string(scope: Scope, node: t.Comparison) -> p.Predicate:
    left, right = _sides(scope, node)
    _check_text(right, node.op, node.position)
    if node.op == "TEXT":
        raise QueryError(
            "TEXT needs a full-text index, which no property has.", position=node.position, kind="other",
            hint="Use CONTAINS[c]; a subscription cannot use TEXT at all.",
        )  # fmt: skip
    op = node.op + ("[c]" if node.fold else "")
    own = _own(left)
    if own is not None and isinstance(own.type, PropertyType) and right.single:
        textual = right.type == own.type and own.type in (PropertyType.STRING, PropertyType.DATA)
        if textual or own.type is PropertyType.MIXED:
            _check_utf8(own, op, _one(right), node.position)
            return p.Leaf(own, Scalar(own.type, op, _one(right)))
    if op == "LIKE[c]" and isinstance(right, e.Value) and right.single and isinstance(_one(right), str):
        # Without letters to fold the real engine is left with no pattern at all.
        right.values = [text if is_utf8(text) else "" for text in right.values]
    return p.Compare(left, right, op)


def _geo(scope: Scope, node: t.GeoWithin) -> p.Predicate:
    left = bind_property(scope, node.left)
    position = node.position
    if not isinstance(left, e.Links):
        raise QueryError("GEOWITHIN needs a link to an embedded point.", position=position)
    shape = node.shape
    if isinstance(shape, t.Constant):
        shape = _shape_argument(shape, position)
    region = Region(shape, position)
    target = scope.schema[left.end]
    coordinates, kind = target.properties.get("coordinates"), target.properties.get("type")
    if (
        coordinates is None or coordinates.type is not PropertyType.DOUBLE
        or coordinates.collection is not Collection.LIST or kind is None or kind.type is not PropertyType.STRING
        or kind.collection is not Collection.SINGLE or not target.embedded
    ):  # fmt: skip
        raise QueryError(
            f"Class {target.name!r} is no point.", position=position, kind="other",
            hint="A point is embedded and has a string 'type' and a list of doubles 'coordinates'.",
        )  # fmt: skip
    return p.Within(left, region)


def _shape_argument(constant: t.Constant, position: int) -> t.Shape:
    from realmframe.query.parsing import parse_tree

    if constant.missing:
        raise QueryError("The argument with the region did not come.", position=position, kind="invalid_argument")
    if not isinstance(constant.value, str):
        raise QueryError("GEOWITHIN needs a region on its right side.", position=position)
    try:
        parsed = parse_tree("x GEOWITHIN " + constant.value).predicate
    except QueryError:
        parsed = None
    if not isinstance(parsed, t.GeoWithin) or not isinstance(parsed.shape, t.Shape):
        raise QueryError("The argument of GEOWITHIN is no region.", position=position)
    return parsed.shape


__all__ = ["bind_expression", "bind_predicate"]
