"""From a path in the text to the property at its end, by the engine's rules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from realmframe.errors import QueryError
from realmframe.model import Collection, ObjectSchema, Property, PropertyType, Schema
from realmframe.query import expressions as e
from realmframe.query import tree as t
from realmframe.query.source import Step
from realmframe.query.values import tag_of_type

_AGGREGATED: Final = frozenset(
    {PropertyType.INT, PropertyType.FLOAT, PropertyType.DOUBLE, PropertyType.DECIMAL128, PropertyType.MIXED}
)
_MEASURED: Final = frozenset({PropertyType.STRING, PropertyType.DATA, PropertyType.MIXED})


@dataclass
class Scope:
    """Where names are looked up.

    Attributes
    ----------
    cls : str
        The class that paths begin at.
    variables : frozenset of (class, name)
        Variables of the subqueries around.
    """

    schema: Schema
    cls: str
    variables: frozenset[tuple[str, str]] = frozenset()

    def inner(self, cls: str, variable: str) -> Scope:
        """Return the scope inside a subquery over objects of a class."""
        return Scope(self.schema, cls, self.variables | {(cls, variable)})


@dataclass
class _Chain:
    scope: Scope
    steps: list[Step] = field(default_factory=list)

    @property
    def table(self) -> ObjectSchema:
        return self.scope.schema[self.steps[-1].target if self.steps else self.scope.cls]

    def link(self, name: str) -> bool:
        prop = self.table.properties.get(name)
        if prop is None or not prop.is_link or prop.target is None:
            return False
        self.steps.append(Step(self.table.name, name, prop.target, prop.collection))
        return True

    def index(self, element: t.Element) -> bool:
        if not self.steps or self.steps[-1].index is not None or self.steps[-1].back:
            return bool(self.steps) and isinstance(element, t.Every) and self.steps[-1].index is None
        if isinstance(element, t.Every):
            return True
        wanted = Collection.LIST if isinstance(element, int) else Collection.DICTIONARY
        if self.steps[-1].collection is not wanted:
            return False
        self.steps[-1] = replace(self.steps[-1], index=element)
        return True

    def backlink(self, element: str, position: int) -> None:
        parts = element.split(".")
        name, column = (parts[1], ".".join(parts[2:])) if len(parts) > 2 else (parts[-1], parts[-1])
        origin = self.scope.schema.get(name)
        prop = origin.properties.get(column) if origin is not None else None
        if origin is None or prop is None or prop.target != self.table.name:
            raise QueryError(
                f"No property {column!r} of class {name!r} links to class {self.table.name!r}.", position=position
            )
        self.steps.append(Step(self.table.name, column, name, prop.collection, back=True))


def walk(scope: Scope, path: t.Path) -> tuple[_Chain, int]:
    """Follow the links at the beginning of a path; return the chain and how many elements it took."""
    chain = _Chain(scope)
    taken = 0
    for element in path.elements:
        if isinstance(element, str):
            name = "" if (chain.table.name, element) in scope.variables else element
            if name.startswith("@links."):
                chain.backlink(name, path.position)
                taken += 1
                continue
            if name == "@values":
                if not chain.steps or chain.steps[-1].collection is not Collection.DICTIONARY:
                    raise QueryError("@values is only for dictionaries.", position=path.position)
                taken += 1
                continue
            if name == "" or chain.link(name):
                taken += 1
                continue
            if name in chain.table.properties:
                break
        if not chain.index(element):
            break
        taken += 1
    return chain, taken


def bind_property(scope: Scope, node: t.PropertyNode) -> e.Bound:
    """Bind a path with its quantifier and ``@size`` or ``@type``."""
    path = node.path
    if path.elements and path.elements[-1] == "@links":
        chain, taken = walk(scope, t.Path(path.elements[:-1], path.position))
        if taken < len(path.elements) - 1:
            raise _unknown(chain.table.name, path.elements[taken], path)
        return e.BacklinkCount(cls=scope.cls, steps=tuple(chain.steps))
    bound = _bind_path(scope, node)
    if node.post is None:
        return bound
    return _size(bound, path) if node.post == "@size" else _type(bound, path)


def _unknown(cls: str, element: t.Element, path: t.Path) -> QueryError:
    return QueryError(f"Class {cls!r} has no property {element!r}.", position=path.position)


def _bind_path(scope: Scope, node: t.PropertyNode) -> e.Bound:
    path = node.path
    chain, taken = walk(scope, path)
    if taken == len(path.elements):
        if not chain.steps:
            raise QueryError("The path names no property.", position=path.position)
        last = chain.steps[-1]
        if last.index is None:
            steps = tuple(chain.steps)
            multiple = last.collection is Collection.LIST or not all(s.unary for s in steps)
            return e.Links(cls=scope.cls, steps=steps, multiple=multiple, quantifier=node.quantifier)
        # An element of a collection of links is looked up in the collection itself.
        chain.steps.pop()
        taken -= 2
    name = path.elements[taken]
    if not isinstance(name, str):
        raise QueryError("An index cannot stand here.", position=path.position)
    prop = chain.table.properties.get(name)
    if prop is None:
        raise _unknown(chain.table.name, name, path)
    rest = path.elements[taken + 1 :]
    bound = _column(scope, chain, prop, node, has_path=bool(rest))
    return _index(bound, chain, prop, rest, node) if rest else bound


def _column(scope: Scope, chain: _Chain, prop: Property, node: t.PropertyNode, *, has_path: bool) -> e.Bound:
    steps = tuple(chain.steps)
    if prop.collection is Collection.DICTIONARY:
        return e.Many(
            type=PropertyType.MIXED, multiple=True, quantifier=node.quantifier, cls=scope.cls, steps=steps,
            name=prop.name, collection=prop.collection,
        )  # fmt: skip
    if prop.is_link:
        chain.link(prop.name)
        steps = tuple(chain.steps)
        return e.Links(cls=scope.cls, steps=steps, multiple=True, quantifier=node.quantifier)
    if prop.collection is not Collection.SINGLE:
        return e.Many(
            type=prop.type, multiple=True, quantifier=node.quantifier, cls=scope.cls, steps=steps, name=prop.name,
            collection=prop.collection,
        )  # fmt: skip
    if node.quantifier and not has_path and all(s.unary for s in steps):
        raise QueryError(
            f"The key path after {node.quantifier} must contain a list.",
            position=node.path.position,
            hint="Leave the quantifier out.",
        )
    multiple = bool(steps) and not all(s.unary for s in steps)
    return e.Property(
        type=prop.type, multiple=multiple, quantifier=node.quantifier, cls=scope.cls, steps=steps, name=prop.name
    )


def _index(bound: e.Bound, chain: _Chain, prop: Property, rest: tuple[t.Element, ...], node: t.PropertyNode) -> e.Bound:
    first = rest[0]
    position = node.path.position
    if len(rest) > 1 and bound.type is not PropertyType.MIXED:
        raise QueryError("Only a mixed property can have nested collections.", position=position)
    if isinstance(bound, e.Property) and bound.type is PropertyType.MIXED:
        return replace(bound, path=rest)
    if isinstance(bound, e.Many):
        if bound.collection is Collection.DICTIONARY:
            if first == "@keys":
                return e.Keys(of=bound, quantifier=bound.quantifier)
            if first == "@values":
                return bound
            if not isinstance(first, int):
                return replace(bound, path=rest)
        elif bound.collection is Collection.LIST and not isinstance(first, str):
            index = first if isinstance(first, int) else None
            nested = rest if bound.type is PropertyType.MIXED and len(rest) > 1 else ()
            return replace(bound, index=index, path=nested)
        elif isinstance(first, str) and first.lower() == "length" and not node.post and bound.type in _MEASURED:
            return e.ElementLength(of=bound, quantifier=bound.quantifier)
    where = f"{chain.table.name}.{prop.name}"
    if isinstance(first, str):
        raise QueryError(f"Property {where!r} has no property {first!r}.", position=position)
    raise QueryError(f"Property {where!r} does not take an index.", position=position)


def _size(bound: e.Bound, path: t.Path) -> e.Bound:
    if isinstance(bound, e.Links):
        return e.LinkCount(cls=bound.cls, steps=bound.steps)
    if isinstance(bound, e.Many) or (isinstance(bound, e.Property) and bound.type in _MEASURED):
        return e.Size(of=bound)
    raise QueryError("@size is not for this type of property.", position=path.position)


def _type(bound: e.Bound, path: t.Path) -> e.Bound:
    if isinstance(bound, e.Property | e.Many) and bound.type is PropertyType.MIXED:
        return e.TypeOf(of=bound, quantifier=bound.quantifier)
    if isinstance(bound, e.Property) and isinstance(bound.type, PropertyType):
        return e.Value(type="type", values=[tag_of_type(bound.type)], constant=True)
    if isinstance(bound, e.Links):
        return e.Value(type="type", values=[tag_of_type(PropertyType.OBJECT)], constant=True)
    raise QueryError("@type is not for this type of property.", position=path.position)


def bind_aggregate(scope: Scope, node: t.Aggregate) -> e.Bound:
    """Bind ``path.@max`` and its like."""
    bound = bind_property(scope, t.PropertyNode(node.path))
    position = node.path.position
    if node.name is None:
        if isinstance(bound, e.Many) and (bound.type in _AGGREGATED or bound.collection is Collection.DICTIONARY):
            prop = scope.schema[bound.end].properties[bound.name]
            return e.CollectionAggregate(of=bound, op=node.op, type=prop.type)
        raise QueryError(f"{node.op} is not for this type of property.", position=position)
    if not isinstance(bound, e.Links):
        raise QueryError(f"{node.op} needs a list of objects before it to take {node.name!r} of.", position=position)
    target = scope.schema[bound.end].properties.get(node.name)
    if target is None:
        raise _unknown(bound.end, node.name, node.path)
    dates = target.type is PropertyType.DATE and node.op in ("@min", "@max")
    if target.collection is not Collection.SINGLE or not (target.type in _AGGREGATED or dates):
        raise QueryError(f"{node.op} is not for the type of {node.name!r}.", position=position)
    return e.LinkAggregate(
        type=_result_type(target.type, node.op), cls=bound.cls, steps=bound.steps, name=node.name, op=node.op,
        source_type=target.type,
    )  # fmt: skip


def _result_type(kind: PropertyType, op: str) -> PropertyType:
    if op in ("@min", "@max"):
        return kind
    if kind is PropertyType.MIXED:
        return PropertyType.DECIMAL128
    if kind is PropertyType.FLOAT or (kind is PropertyType.INT and op == "@avg"):
        return PropertyType.DOUBLE
    return kind
