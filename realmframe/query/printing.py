"""From tree back to text, in the style of the real client."""

from __future__ import annotations

import base64
import uuid
from decimal import Decimal
from typing import Any, Final

import numpy as np

from realmframe.errors import QueryError
from realmframe.model import Decimal128, Link, ObjectId, Timestamp
from realmframe.query import tree as t
from realmframe.query.lexer import scan
from realmframe.query.literals import INT_MAX
from realmframe.query.values import utf8

_NAMES: Final = frozenset(
    {
        "ID", "BEGINSWITH", "ENDSWITH", "CONTAINS", "LIKE", "BETWEEN", "SORT", "DISTINCT", "LIMIT", "ASCENDING",
        "DESCENDING", "IN", "TEXT", "BINARY", "INDEX_FIRST", "INDEX_LAST", "INDEX_SIZE",
    }
)  # fmt: skip
_PLAIN: Final = frozenset(" {|}~:;<=>?@!#$%&()*+,-./[]^_`")
_ESCAPES: Final = {" ": "\\ ", "\t": "\\t", "\r": "\\r", "\n": "\\n"}


def print_tree(tree: t.Tree) -> str:
    """Write a query: predicate, then what orders it."""
    return " ".join([print_predicate(tree.predicate), *map(_ordering, tree.orderings)])


def print_predicate(node: t.Predicate) -> str:
    """Write a predicate."""
    if isinstance(node, t.Truth):
        return "TRUEPREDICATE" if node.value else "FALSEPREDICATE"
    if isinstance(node, t.Not):
        return f"!({print_predicate(node.child)})"
    if isinstance(node, t.And):
        return " and ".join(map(print_predicate, node.children))
    if isinstance(node, t.Or):
        return f"({' or '.join(map(print_predicate, node.children))})"
    if isinstance(node, t.Between):
        return f"{expression(node.left)} between {expression(node.limits)}"
    if isinstance(node, t.GeoWithin):
        shape = constant(node.shape) if isinstance(node.shape, t.Constant) else _shape(node.shape)
        return f"{expression(node.left)} GEOWITHIN {shape}"
    mark = "[c]" if node.fold else ""
    return f"{expression(node.left)} {node.op}{mark} {expression(node.right)}"


def expression(node: t.Expression) -> str:
    """Write an expression."""
    if isinstance(node, t.Constant):
        return constant(node)
    if isinstance(node, t.ObjectConstant):
        return f"obj({text(node.table)},{constant(node.key)})"
    if isinstance(node, t.ListConstant):
        content = "{" + ", ".join(map(expression, node.elements)) + "}"
        return f"{node.quantifier} {content}" if node.quantifier else content
    if isinstance(node, t.PropertyNode):
        quantifier = f"{node.quantifier} " if node.quantifier else ""
        return quantifier + path(node.path) + (f".{node.post}" if node.post else "")
    if isinstance(node, t.Aggregate):
        return f"{path(node.path)}.{node.op}" + (f".{name(node.name)}" if node.name else "")
    if isinstance(node, t.Subquery):
        return f"SUBQUERY({path(node.path)}, {node.variable}, {print_predicate(node.predicate)}).@count"
    return f"({expression(node.left)} {node.op} {expression(node.right)})"


def name(word: str) -> str:
    """Write a name, blanks escaped."""
    return "".join(_ESCAPES.get(c, c) for c in word)


def _is_name(word: str) -> bool:
    written = name(word)
    try:
        tokens = list(scan(written))
    except QueryError:
        return False
    return len(tokens) == 1 and str(tokens[0]) == written and tokens[0].type in _NAMES


def path(node: t.Path) -> str:
    """Write a path."""
    out = ""
    for element in node.elements:
        if isinstance(element, t.Every):
            out += "[*]"
        elif isinstance(element, int):
            # A negative index can only come as an argument; like one beyond any list, it finds nothing.
            out += {0: "[FIRST]", t.LAST: "[LAST]"}.get(element, f"[{element if element >= 0 else INT_MAX}]")
        elif element.startswith("@links") or element in ("@keys", "@values"):
            out += ("." if out else "") + ".".join(name(w) for w in element.split("."))
        elif not out or _is_name(element):
            out += ("." if out else "") + name(element)
        else:
            quote = '"' if "'" in element else "'"
            out += f"[{quote}{element}{quote}]"
    return out


def text(value: str) -> str:
    """Write a string: in quotes, or as base64 when it has quotes, backslashes or control characters."""
    plain = all(c in _PLAIN or ord(c) > 127 or (c.isascii() and c.isalnum()) for c in value)
    if plain and not any(0xD800 <= ord(c) < 0xE000 for c in value):
        return f'"{value}"'
    return f'B64"{base64.b64encode(utf8(value)).decode()}"'


def _binary(value: bytes) -> str:
    try:
        return f"binary({text(value.decode())})"
    except UnicodeDecodeError:
        return f'binary(B64"{base64.b64encode(value).decode()}")'


def _number(value: float | np.float32) -> str:
    if value != value:
        return "nan"
    single = isinstance(value, np.float32)
    if value in (float("inf"), float("-inf")):
        # No word says a float's infinity, but a number that a float cannot hold does.
        return ("" if value > 0 else "-") + ("1e999f" if single else "inf")
    if single:
        # Without the f it would be a double, which is compared with a column of doubles in another way.
        return _fractional(f"{float(value):.9g}") + "f"
    return _fractional(f"{value:.17g}")


def _integral(written: str) -> bool:
    return all(c.isdigit() or c in "+-" for c in written)


def _fractional(written: str) -> str:
    """Keep a number of whole value from being read back as an integer."""
    return written + ".0" if _integral(written) else written


def _decimal(value: Decimal128) -> str:
    number = value.to_decimal()
    if number.is_nan():
        return "-nan" if value.negative else "nan"
    if number.is_infinite():
        return "-inf" if number < 0 else "inf"
    written = str(number)
    return written if any(c in written for c in ".E") else f"{Decimal(written):f}E0"


def constant(node: t.Constant) -> str:
    """Write a constant; an argument is put in its place."""
    if node.missing:
        return f"${node.argument}"
    prefix = f"{node.quantifier} " if node.quantifier else ""
    if type(node.value) is tuple:
        return prefix + "{" + ", ".join(constant(t.Constant(v)) for v in node.value) + "}"
    return prefix + (node.text if node.text is not None else literal(node.value))


def literal(value: Any) -> str:
    """Write a model value."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | np.float32):
        return _number(value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes):
        return _binary(value)
    if isinstance(value, Timestamp):
        return f"T{value.seconds}:{value.nanoseconds}"
    if isinstance(value, ObjectId):
        return f"oid({value})"
    if isinstance(value, uuid.UUID):
        return f"uuid({value})"
    if isinstance(value, Decimal128):
        return _decimal(value)
    if isinstance(value, Link):
        table = value.table if value.table.startswith("class_") else f"class_{value.table}"
        return f"obj({text(table)},{literal(value.key)})"
    return str(value)


def _coordinates(point: tuple[float, ...]) -> str:
    written = [f"{c:.17g}" for c in point]
    # A coordinate with a sign is read only with a fraction, and so is a height.
    return "[" + ", ".join(_fractional(w) if w[0] in "-+" or i == 2 else w for i, w in enumerate(written)) + "]"


def _shape(shape: t.Shape) -> str:
    if shape.kind == "circle":
        return f"GeoCircle({_coordinates(shape.loops[0][0])}, {_fractional(f'{shape.radius:.17g}')})"
    if shape.kind == "box":
        return f"GeoBox({', '.join(map(_coordinates, shape.loops[0]))})"
    loops = ("{" + ", ".join(map(_coordinates, loop)) + "}" for loop in shape.loops)
    return f"GeoPolygon({', '.join(loops)})"


def _ordering(clause: t.Ordering) -> str:
    if isinstance(clause, t.Limit):
        return f"LIMIT({clause.count})"
    if isinstance(clause, t.Distinct):
        return f"DISTINCT({', '.join(map(path, clause.paths))})"
    pairs = zip(clause.paths, clause.ascending, strict=True)
    return f"SORT({', '.join(f'{path(p)} ASC' if up else f'{path(p)} DESC' for p, up in pairs)})"
