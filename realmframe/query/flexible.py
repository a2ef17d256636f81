"""What a Flexible Sync server takes of the language, and the text that a client sends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from realmframe.errors import QueryError
from realmframe.model import ClassKind, Collection, Schema
from realmframe.query import tree as t
from realmframe.query.printing import print_tree

#: Bytes of the text of one subscription; App Services takes no longer ones.
MAX_TEXT: Final = 256 * 1024


def check_flexible(schema: Schema, cls: str, tree: t.Tree) -> None:
    """Check that a subscription can use a query.

    What App Services' documentation lists is refused: SORT, DISTINCT and LIMIT, aggregates but ``@count`` of lists,
    links and backlinks, and a list compared with a list; also arithmetic and subqueries.

    Raises
    ------
    QueryError
        Naming the operator that a subscription cannot use.
    """
    if schema[cls].embedded:
        raise QueryError(
            f"A subscription cannot be for the embedded class {cls!r}.", hint="Subscribe to the class that embeds it."
        )
    if schema[cls].kind is ClassKind.ASYMMETRIC:
        raise QueryError(
            f"A subscription cannot be for the asymmetric class {cls!r}.",
            hint="Its objects are uploaded and then gone.",
        )
    if tree.orderings:
        word = {t.Sort: "SORT", t.Distinct: "DISTINCT", t.Limit: "LIMIT"}[type(tree.orderings[0])]
        raise _refused(word, 0)
    _predicate(schema, cls, tree.predicate)


def _refused(operator: str, position: int) -> QueryError:
    return QueryError(
        f"A subscription's query cannot use {operator}.",
        position=position,
        hint="Use it in a query on the objects that were synced.",
    )


def _predicate(schema: Schema, cls: str, node: t.Predicate) -> None:
    if isinstance(node, t.Truth):
        return
    if isinstance(node, t.Not):
        _predicate(schema, cls, node.child)
    elif isinstance(node, t.And | t.Or):
        for child in node.children:
            _predicate(schema, cls, child)
    elif isinstance(node, t.GeoWithin):
        if not _is_points(schema, cls, node.left):
            _expression(schema, cls, node.left)
    elif isinstance(node, t.Between):
        _expression(schema, cls, node.left)
    else:
        _expression(schema, cls, node.left)
        _expression(schema, cls, node.right)
        if _is_list(schema, cls, node.left) and _is_list(schema, cls, node.right):
            raise _refused(f"{node.op} between two lists", node.position)


def _is_points(schema: Schema, cls: str, node: t.Expression) -> bool:
    """Whether an expression is embedded objects of the class itself: points, where points are asked for."""
    name = node.path.elements[0] if isinstance(node, t.PropertyNode) and len(node.path.elements) == 1 else None
    prop = schema[cls].properties.get(name) if isinstance(name, str) else None
    return prop is not None and prop.is_link and schema[prop.target or ""].embedded


def _is_list(schema: Schema, cls: str, node: t.Expression) -> bool:
    """Whether an expression is a list of constants, or a property that is one (and not an element or its size)."""
    if isinstance(node, t.Constant):
        return type(node.value) is tuple
    if isinstance(node, t.PropertyNode) and not node.post:
        return _collection(schema, cls, node.path) in (Collection.LIST, Collection.SET)
    return isinstance(node, t.ListConstant)


def _collection(schema: Schema, cls: str, path: t.Path) -> Collection | None:
    """Give the kind of collection at the end of a path; None if it ends at something else."""
    table = cls
    for number, element in enumerate(path.elements):
        prop = schema[table].properties.get(element) if isinstance(element, str) else None
        if prop is None:
            return None
        if number == len(path.elements) - 1:
            return prop.collection
        if prop.target is None or prop.collection is not Collection.SINGLE:
            return None
        table = prop.target
    return None


def _expression(schema: Schema, cls: str, node: t.Expression) -> None:
    if isinstance(node, t.Subquery):
        raise _refused("SUBQUERY", node.path.position)
    if isinstance(node, t.Aggregate):
        raise _refused(node.op, node.path.position)
    if isinstance(node, t.Operation):
        raise _refused(f"arithmetic ({node.op})", 0)
    if isinstance(node, t.ObjectConstant):
        raise _refused("obj()", node.position)
    if not isinstance(node, t.PropertyNode):
        return
    if str(node.path.elements[0]).startswith("@links"):
        raise _refused("@links", node.path.position)
    if node.post and _collection(schema, cls, node.path) not in (Collection.LIST, Collection.SET):
        raise _refused(node.post, node.path.position)
    if node.post == "@type":
        raise _refused(node.post, node.path.position)
    if node.quantifier in ("ALL", "NONE"):
        raise _refused(node.quantifier, node.path.position)
    # The size of a list of links is known without the objects that they lead to.
    _path(schema, cls, t.Path(node.path.elements[:-1], node.path.position) if node.post else node.path)


def _path(schema: Schema, cls: str, path: t.Path) -> None:
    table = cls
    for number, element in enumerate(path.elements):
        last = number == len(path.elements) - 1
        if isinstance(element, str) and element.startswith("@"):
            raise _refused(element.split(".")[0], path.position)
        prop = schema[table].properties.get(element) if isinstance(element, str) else None
        if prop is None:
            return  # An index or key inside a collection; the binder has checked it.
        if not prop.is_link or prop.target is None:
            continue
        if not schema[prop.target].embedded:
            if not last:
                raise _refused(f"the link {prop.name!r} to read another object", path.position)
            raise _refused(f"the link {prop.name!r}", path.position)
        if prop.collection is not Collection.SINGLE:
            raise _refused(f"the collection of embedded objects {prop.name!r}", path.position)
        table = prop.target


def client_text(tree: t.Tree) -> str:
    """Write a query as a client stores it: a space after the predicate, before what orders it."""
    predicate = print_tree(t.Tree(tree.predicate))
    full = print_tree(tree)
    return full if tree.orderings else predicate + " "


def join_texts(texts: Iterable[str]) -> str:
    """Put the queries of one class together: each in parentheses, without doubles, sorted."""
    return " OR ".join(f"({text})" for text in sorted(set(texts)))
