"""The tree of a query: what its text says, before any schema is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

#: Index of ``[LAST]`` and the element ``[*]`` of a path.
LAST: Final = -1


@dataclass(frozen=True, slots=True)
class Every:
    """The path element ``[*]``: every element of a collection."""


#: One element of a path: a name or key, an index, or every element.
Element: TypeAlias = str | int | Every


@dataclass(frozen=True, slots=True)
class Constant:
    """A value written in the text, or an argument.

    Attributes
    ----------
    value : object
        A model value; for an argument that is a list, a tuple of them.
    text : str or None
        How a number with a fraction was written, so that a decimal property gets every digit.
    argument : int or None
        Number of the argument that it came from.
    quantifier : str or None
        ``ANY``, ``ALL`` or ``NONE`` before an argument.
    missing : bool
        Whether there is no such argument.
    """

    value: Any
    text: str | None = None
    argument: int | None = field(default=None, compare=False)
    quantifier: str | None = None
    missing: bool = False
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ObjectConstant:
    """``obj("Class", key)``: a link to an object."""

    table: str
    key: Constant
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ListConstant:
    """``{1, 2, 3}``, with a quantifier perhaps."""

    elements: tuple[Constant | ObjectConstant, ...]
    quantifier: str | None = None
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Path:
    """Names, keys and indexes from the class queried to a property."""

    elements: tuple[Element, ...]
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PropertyNode:
    """A path with what is asked of it.

    Attributes
    ----------
    quantifier : str or None
        ``ANY``, ``ALL`` or ``NONE``.
    post : str or None
        ``@size`` or ``@type``.
    """

    path: Path
    quantifier: str | None = None
    post: str | None = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """``path.@max`` or ``path.@max.name``; ``op`` is ``@max``, ``@min``, ``@sum`` or ``@avg``."""

    path: Path
    op: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Subquery:
    """``SUBQUERY(path, $x, predicate).@count``."""

    path: Path
    variable: str
    predicate: Predicate


@dataclass(frozen=True, slots=True)
class Operation:
    """Arithmetic."""

    left: Expression
    op: str
    right: Expression


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two expressions and an operator.

    Attributes
    ----------
    op : str
        ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``IN``, ``BEGINSWITH``, ``ENDSWITH``, ``CONTAINS``, ``LIKE``
        or ``TEXT``.
    fold : bool
        Whether ``[c]`` was written.
    """

    left: Expression
    op: str
    right: Expression
    fold: bool = False
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Between:
    """``path BETWEEN {low, high}``."""

    left: Expression
    limits: ListConstant
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Shape:
    """A region on the sphere: ``circle``, ``box`` or ``polygon``; coordinates are (longitude, latitude) in degrees."""

    kind: str
    loops: tuple[tuple[tuple[float, ...], ...], ...]
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class GeoWithin:
    """``path GEOWITHIN shape``."""

    left: PropertyNode
    shape: Shape | Constant
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Truth:
    """``TRUEPREDICATE`` or ``FALSEPREDICATE``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Not:
    """Negation."""

    child: Predicate


@dataclass(frozen=True, slots=True)
class And:
    """All of several."""

    children: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of several."""

    children: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Sort:
    """``SORT(path ASC, ...)``: paths and whether each ascends."""

    paths: tuple[Path, ...]
    ascending: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Distinct:
    """``DISTINCT(path, ...)``."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """``LIMIT(n)``."""

    count: int


Expression: TypeAlias = Constant | ObjectConstant | ListConstant | PropertyNode | Aggregate | Subquery | Operation
Predicate: TypeAlias = Comparison | Between | GeoWithin | Truth | Not | And | Or
Ordering: TypeAlias = Sort | Distinct | Limit


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole query: a predicate, then what orders and limits its result."""

    predicate: Predicate
    orderings: tuple[Ordering, ...] = ()
