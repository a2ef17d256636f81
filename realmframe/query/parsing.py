"""From text to tree, with the arguments put in."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path as FilePath
from typing import Any, Final

import numpy as np
from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput, UnexpectedToken, VisitError

from realmframe.errors import QueryError
from realmframe.model import Decimal128, Link, Timestamp
from realmframe.query import tree as t
from realmframe.query.lexer import QueryLexer, scan
from realmframe.query.literals import NAN, base64_bytes, fraction, integer, literal

#: Limits that keep a hostile text from exhausting the stack or the clock.
MAX_LENGTH: Final = 1_000_000
MAX_NESTING: Final = 60
MAX_OPERATIONS: Final = 120
MAX_PATH: Final = 200

#: What a subscription sends is in parentheses, so that a clause in it stands there.
_ORDERING_HINT: Final = (
    "It stands at the end of a query, after all parentheses. A subscription cannot use it: "
    "use it in a query on the objects that were synced."
)
_ARGUMENTS: ContextVar[tuple[Any, ...]] = ContextVar("arguments", default=())
_OPERATORS: Final = {
    "EQUAL": "==", "NOT_EQUAL": "!=", "LESS": "<", "LESS_EQUAL": "<=", "GREATER": ">", "GREATER_EQUAL": ">=",
    "IN": "IN", "BEGINSWITH": "BEGINSWITH", "ENDSWITH": "ENDSWITH", "CONTAINS": "CONTAINS", "LIKE": "LIKE",
    "TEXT": "TEXT",
}  # fmt: skip
_AGGREGATES: Final = {"MAX": "@max", "MIN": "@min", "SUM": "@sum", "AVG": "@avg"}
_BACKLINK: Final = "@links"


def parse_tree(text: str, arguments: Sequence[Any] = ()) -> t.Tree:
    """Read a query.

    Parameters
    ----------
    text : str
    arguments : sequence
        Values of ``$0``, ``$1``, ...

    Raises
    ------
    QueryError
        With the position where the text stops making sense.
    """
    if len(text) > MAX_LENGTH:
        raise QueryError(
            f"The query has {len(text)} characters, more than {MAX_LENGTH}.", position=MAX_LENGTH, kind="syntax",
            hint="Pass long lists as an argument.",
        )  # fmt: skip
    _check_shape(text)
    reset = _ARGUMENTS.set(tuple(model_value(a) for a in arguments))
    try:
        result: Any = _parser().parse(text)
        assert isinstance(result, t.Tree)
        return result
    except QueryError as error:
        raise _with_text(error, text) from None
    except VisitError as error:
        if isinstance(error.orig_exc, QueryError):
            raise _with_text(error.orig_exc, text) from None
        raise
    except UnexpectedInput as error:
        raise _syntax_error(error, text) from None
    finally:
        _ARGUMENTS.reset(reset)


def _with_text(error: QueryError, text: str) -> QueryError:
    return QueryError(error.message, position=error.position, text=text, kind=error.kind, hint=error.hint)


def _syntax_error(error: UnexpectedInput, text: str) -> QueryError:
    token = error.token if isinstance(error, UnexpectedToken) else None
    if token is None or token.type == "$END":
        return QueryError("The query ends too early.", position=len(text), text=text, kind="syntax")
    hint = _ORDERING_HINT if token.type in ("SORT", "DISTINCT", "LIMIT") else None
    message = f"{str(token)!r} cannot stand here."
    return QueryError(message, position=token.start_pos, text=text, kind="syntax", hint=hint)


def _check_shape(text: str) -> None:
    """Refuse a text that nests deeper than the evaluator could follow."""
    depth = negations = operations = path = 0
    for token in scan(text):
        kind = token.type
        depth += (kind in ("LPAR", "LBRACE")) - (kind in ("RPAR", "RBRACE"))
        negations = negations + 1 if kind == "_NOT" else (negations if kind == "LPAR" else 0)
        operations += kind in ("PLUS", "MINUS", "STAR", "SLASH")
        path = path + 1 if kind in ("DOT", "LSQB") else (0 if kind in ("_AND", "_OR", "COMMA") else path)
        if depth > MAX_NESTING or negations > MAX_NESTING or operations > MAX_OPERATIONS or path > MAX_PATH:
            raise QueryError("The query nests too deep.", position=token.start_pos, text=text, kind="syntax")


def model_value(value: Any) -> Any:
    """Take what a caller may pass for an argument to the model's value (a list becomes a tuple)."""
    if isinstance(value, dt.datetime):
        return Timestamp.from_datetime(value)
    if isinstance(value, decimal.Decimal):
        return Decimal128.from_decimal(value)
    if isinstance(value, Timestamp | Link | np.float32):
        return value
    if isinstance(value, np.generic):
        return model_value(value.item())
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return tuple(model_value(v) for v in value)
    if isinstance(value, float) and value != value:
        return NAN
    return value


def _argument(token: Token, skip: int = 1) -> tuple[bool, int, Any]:
    arguments, number = _ARGUMENTS.get(), min(int(token[skip:][:12]), 1 << 31)
    if number < len(arguments):
        return True, number, arguments[number]
    return False, number, None


def _degrees(token: Token) -> float:
    return float((fraction if token.type == "FLOAT" else integer)(str(token)))


def _missing(token: Token, number: int) -> QueryError:
    count = len(_ARGUMENTS.get())
    return QueryError(
        f"The query asks for argument {number}, but {count or 'no'} argument{'s' * (count != 1)} came with it.",
        position=token.start_pos,
        kind="invalid_argument",
    )


def finish_path(elements: Sequence[t.Element], position: int) -> t.Path:
    """Join ``@links``, class and property into one element."""
    out: list[t.Element] = []
    index = 0
    while index < len(elements):
        element = elements[index]
        if element == _BACKLINK:
            parts = elements[index : index + 3]
            if not all(isinstance(p, str) for p in parts):
                raise QueryError("A class and a property must follow @links.", position=position, kind="syntax")
            element = ".".join(str(p) for p in parts)
            index += len(parts) - 1
        out.append(element)
        index += 1
    return t.Path(tuple(out), position)


class _Steps(list[Any]):
    """A path while it is read."""

    position: int = 0
    from_argument: bool = False


class _Builder(Transformer[Token, t.Tree]):
    """Called by the parser as each rule is complete, so that nothing here recurses."""

    def start(self, c: list[Any]) -> t.Tree:
        return t.Tree(c[0], tuple(c[1:]))

    def disjunction(self, c: list[Any]) -> t.Predicate:
        return t.Or(tuple(x for child in c for x in (child.children if isinstance(child, t.Or) else (child,))))

    def conjunction(self, c: list[Any]) -> t.Predicate:
        return t.And(tuple(x for child in c for x in (child.children if isinstance(child, t.And) else (child,))))

    def negated(self, c: list[Any]) -> t.Predicate:
        return t.Not(c[0])

    def truth(self, c: list[Any]) -> t.Predicate:
        return t.Truth(True)

    def falsehood(self, c: list[Any]) -> t.Predicate:
        return t.Truth(False)

    def compare(self, c: list[Any]) -> Any:
        return c[0]

    def comparison(self, c: list[Any]) -> t.Predicate:
        return t.Comparison(c[0], _OPERATORS[c[1].type], c[2], False, c[1].start_pos)

    def comparison_fold(self, c: list[Any]) -> t.Predicate:
        return t.Comparison(c[0], _OPERATORS[c[1].type], c[3], True, c[1].start_pos)

    def between(self, c: list[Any]) -> t.Predicate:
        return t.Between(c[0], c[2], c[1].start_pos)

    def geowithin(self, c: list[Any]) -> t.Predicate:
        shape = self.literal([c[2]]) if isinstance(c[2], Token) else c[2]
        return t.GeoWithin(c[0], shape, c[1].start_pos)

    def _first(self, c: list[Any]) -> Token:
        token: Token = c[0]
        return token

    equality = relational = stringop = id = quantifier = aggr_op = direction = _first

    def operation(self, c: list[Any]) -> t.Expression:
        return t.Operation(c[0], str(c[1]), c[2])

    def path_start(self, c: list[Any]) -> _Steps:
        steps = _Steps([_unescape(str(c[0]))])
        steps.position = c[0].start_pos
        return steps

    def path_argument(self, c: list[Any]) -> _Steps:
        present, number, value = _argument(c[0], 2)
        if not present:
            raise _missing(c[0], number)
        if not isinstance(value, str):
            raise QueryError(
                f"Argument {number} names a key path, so it must be a string.",
                position=c[0].start_pos,
                kind="invalid_argument",
            )
        steps = _Steps(value.split("."))
        steps.position, steps.from_argument = c[0].start_pos, True
        return steps

    def _extend(self, steps: _Steps, element: t.Element) -> _Steps:
        if steps.from_argument:
            raise QueryError("A key path argument cannot be mixed with other elements.", position=steps.position)
        steps.append(element)
        return steps

    def path_name(self, c: list[Any]) -> _Steps:
        return self._extend(c[0], _unescape(str(c[1])))

    def path_index(self, c: list[Any]) -> _Steps:
        return self._extend(c[0], integer(str(c[1])))

    def path_first(self, c: list[Any]) -> _Steps:
        return self._extend(c[0], 0)

    def path_last(self, c: list[Any]) -> _Steps:
        return self._extend(c[0], t.LAST)

    def path_every(self, c: list[Any]) -> _Steps:
        return self._extend(c[0], t.Every())

    def path_key(self, c: list[Any]) -> _Steps:
        return self._extend(c[0], str(c[1])[1:-1])

    def path_key_argument(self, c: list[Any]) -> _Steps:
        present, number, value = _argument(c[1])
        if not present:
            raise _missing(c[1], number)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise QueryError("An index must be an integer or a string.", position=c[1].start_pos)
        return self._extend(c[0], value)

    def prop(self, c: list[Any]) -> t.Expression:
        quantifier = c.pop(0).type if isinstance(c[0], Token) else None
        return t.PropertyNode(finish_path(c[0], c[0].position), quantifier, c[1] if len(c) > 1 else None)

    def post_op(self, c: list[Any]) -> str:
        return "@type" if any(isinstance(x, Token) and x.type == "TYPE" for x in c) else "@size"

    def aggregate(self, c: list[Any]) -> t.Expression:
        name = _unescape(str(c[2])) if len(c) > 2 else None
        return t.Aggregate(finish_path(c[0], c[0].position), _AGGREGATES[c[1].type], name)

    def subquery(self, c: list[Any]) -> t.Expression:
        variable = str(c[2])
        if len(variable) < 2 or variable[0] != "$":
            raise QueryError(
                f"The variable of a subquery must begin with $, unlike {variable!r}.",
                position=c[2].start_pos,
                kind="syntax",
            )
        return t.Subquery(finish_path(c[1], c[1].position), variable, c[3])

    def values(self, c: list[Any]) -> t.Expression:
        quantifier = c.pop(0) if isinstance(c[0], Token) else None
        return t.ListConstant(tuple(c[0]), quantifier.type if quantifier else None)

    def list_content(self, c: list[Any]) -> Any:
        return tuple(c)

    def literal(self, c: list[Any]) -> t.Constant:
        token: Token = c[0]
        position = token.start_pos or 0
        if token.type == "ARG":
            present, number, value = _argument(token)
            return t.Constant(value, None, number, None, not present, position)
        value, text = literal(token.type, str(token), position)
        return t.Constant(value, text, position=position)

    primary_key = literal

    def quantified_argument(self, c: list[Any]) -> t.Constant:
        present, number, value = _argument(c[1])
        return t.Constant(value, None, number, c[0].type, not present, c[1].start_pos)

    def obj(self, c: list[Any]) -> t.ObjectConstant:
        return t.ObjectConstant(str(c[1])[1:-1], c[2], c[0].start_pos)

    def binary(self, c: list[Any]) -> t.Constant:
        token: Token = c[1]
        if token.type == "BASE64":
            content = base64_bytes(str(token), token.start_pos or 0)
        else:
            content = str(token)[1:-1].encode("utf-8", "surrogateescape")
        return t.Constant(content, position=token.start_pos or 0)

    def coordinate(self, c: list[Any]) -> float:
        token: Token = c[0]
        if token.type != "ARG":
            return _degrees(token)
        present, number, value = _argument(token)
        if not present:
            raise _missing(token, number)
        if isinstance(value, bool) or not isinstance(value, int | float | np.float32):
            raise QueryError("A coordinate must be a number.", position=token.start_pos)
        return float(value)

    def geopoint(self, c: list[Any]) -> tuple[float, ...]:
        return tuple(_degrees(x) if isinstance(x, Token) else x for x in c)

    def geoloop(self, c: list[Any]) -> Any:
        return tuple(c)

    def geobox(self, c: list[Any]) -> t.Shape:
        return t.Shape("box", ((c[1], c[2]),))

    def geocircle(self, c: list[Any]) -> t.Shape:
        return t.Shape("circle", ((c[1],),), c[2])

    def geopolygon(self, c: list[Any]) -> t.Shape:
        return t.Shape("polygon", tuple(c[1:]))

    def sort(self, c: list[Any]) -> t.Ordering:
        paths, directions = c[1::2], c[2::2]
        return t.Sort(
            tuple(finish_path(p, p.position) for p in paths), tuple(d.type == "ASCENDING" for d in directions)
        )

    def distinct(self, c: list[Any]) -> t.Ordering:
        return t.Distinct(tuple(finish_path(p, p.position) for p in c[1:]))

    def limit(self, c: list[Any]) -> t.Ordering:
        return t.Limit(integer(str(c[1])))


def _unescape(name: str) -> str:
    if "\\" not in name:
        return name
    parts: Iterator[str] = iter(name.split("\\"))
    out = next(parts)
    for part in parts:
        out += {" ": " ", "t": "\t", "r": "\r", "n": "\n"}.get(part[:1], "") + part[1:]
    return out


@cache
def _parser() -> Lark:
    grammar = (FilePath(__file__).parent / "rql.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer=QueryLexer, transformer=_Builder(), maybe_placeholders=False)
