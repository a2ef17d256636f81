"""The scanner of the query language: of all tokens that fit, the longest; of equally long ones, the first listed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lark import Token
from lark.lexer import Lexer

from realmframe.errors import QueryError

_LETTER: Final = r"(?:[a-zA-Z_$]|[^\x00-\x7f\ud800-\udfff])"
_FOLLOW: Final = r"(?:[a-zA-Z_\-$0-9]|[^\x00-\x7f\ud800-\udfff]|\\[ nrt])"
_INT: Final = r"[0-9]+"
_SIGNED: Final = r"[+-]?[0-9]+"
_EXP: Final = rf"(?:[eE]{_SIGNED})"
_HEX: Final = "[0-9a-fA-F]"

#: Words by token; those in ``_EXACT_WORDS`` only as spelled, the others in any case of letters.
_EXACT_WORDS: Final[dict[str, str]] = {
    "in": "IN",
    "IN": "IN",
    "not": "_NOT",
    "NOT": "_NOT",
    "any": "ANY",
    "ANY": "ANY",
    "some": "ANY",
    "SOME": "ANY",
    "all": "ALL",
    "ALL": "ALL",
    "none": "NONE",
    "NONE": "NONE",
    "FIRST": "INDEX_FIRST",
    "first": "INDEX_FIRST",
    "LAST": "INDEX_LAST",
    "last": "INDEX_LAST",
    "SIZE": "INDEX_SIZE",
    "size": "INDEX_SIZE",
    "true": "TRUE",
    "TRUE": "TRUE",
    "false": "FALSE",
    "FALSE": "FALSE",
}
_WORDS: Final[dict[str, str]] = {
    "and": "_AND",
    "or": "_OR",
    "beginswith": "BEGINSWITH",
    "endswith": "ENDSWITH",
    "contains": "CONTAINS",
    "text": "TEXT",
    "like": "LIKE",
    "between": "BETWEEN",
    "geowithin": "GEOWITHIN",
    "truepredicate": "TRUEPREDICATE",
    "falsepredicate": "FALSEPREDICATE",
    "sort": "SORT",
    "distinct": "DISTINCT",
    "limit": "LIMIT",
    "bin": "BINARY",
    "binary": "BINARY",
    "obj": "OBJ",
    "ascending": "ASCENDING",
    "asc": "ASCENDING",
    "descending": "DESCENDING",
    "desc": "DESCENDING",
    "subquery": "SUBQUERY",
    "geobox": "GEOBOX",
    "geopolygon": "GEOPOLYGON",
    "geocircle": "GEOCIRCLE",
    "inf": "INFINITY",
    "infinity": "INFINITY",
    "nan": "NAN",
    "null": "NULL_VAL",
    "nil": "NULL_VAL",
}
_SYMBOLS: Final[dict[str, str]] = {
    "[": "LSQB",
    "]": "RSQB",
    "(": "LPAR",
    ")": "RPAR",
    "{": "LBRACE",
    "}": "RBRACE",
    ",": "COMMA",
    ".": "DOT",
    "+": "PLUS",
    "-": "MINUS",
    "*": "STAR",
    "/": "SLASH",
    "==": "EQUAL",
    "=": "EQUAL",
    "!=": "NOT_EQUAL",
    "<>": "NOT_EQUAL",
    "<": "LESS",
    ">": "GREATER",
    "<=": "LESS_EQUAL",
    "=<": "LESS_EQUAL",
    ">=": "GREATER_EQUAL",
    "=>": "GREATER_EQUAL",
    "&&": "_AND",
    "||": "_OR",
    "!": "_NOT",
    "[c]": "CASE",
    "@size": "SIZE",
    "@count": "SIZE",
    "@max": "MAX",
    "@min": "MIN",
    "@sum": "SUM",
    "@avg": "AVG",
    "@links": "BACKLINK",
    "@type": "TYPE",
    "@keys": "KEY_VAL",
    "@values": "KEY_VAL",
}
#: Tokens with content; in the order of precedence among equally long ones.
_PATTERNS: Final[tuple[tuple[str, str], ...]] = (
    ("INFINITY", r"[+-]?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?"),
    ("NAN", r"[+-]?[nN][aA][nN]"),
    ("UUID", rf"uuid\({_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}\)"),
    ("OID", rf"oid\({_HEX}{{24}}\)"),
    ("TIMESTAMP", rf"T{_SIGNED}:{_SIGNED}|{_INT}-{_INT}-{_INT}[@T]{_INT}:{_INT}:{_INT}(?::{_INT})?"),
    ("LINK", rf"O{_INT}"),
    ("TYPED_LINK", rf"L{_INT}:{_INT}"),
    ("NATURAL0", _INT),
    ("ARG", rf"\${_INT}"),
    ("KP_ARG", rf"\$K{_INT}"),
    ("NUMBER", _SIGNED),
    ("NUMBER", rf"0[xX]{_HEX}+"),
    ("FLOAT", rf"{_SIGNED}{_EXP}?f?"),
    ("FLOAT", rf"[+-]?(?:{_INT}\.[0-9]*|[0-9]*\.{_INT}){_EXP}?f?"),
    ("BASE64", r'B64"[a-zA-Z0-9/\+=]*"'),
    ("STRING", r'"(?:[^"\\]|\\["\'/bfnrt0\\]|\\u[0-9a-fA-F]{4})*"'),
    ("STRING", r"'(?:[^'\\]|\\[\"'/bfnrt0\\]|\\u[0-9a-fA-F]{4})*'"),
    ("ID", rf"{_LETTER}{_FOLLOW}*"),
)
_COMPILED: Final = tuple((name, re.compile(pattern)) for name, pattern in _PATTERNS)
_SYMBOL: Final = re.compile("|".join(re.escape(s) for s in sorted(_SYMBOLS, key=len, reverse=True)))
_BLANK: Final = re.compile(r"[ \t\r\n]+")
#: Which patterns can begin with a character; saves trying all of them at every token.
_NUMERIC: Final = tuple(p for p in _COMPILED if p[0] in ("TIMESTAMP", "NATURAL0", "NUMBER", "FLOAT"))
_SIGN: Final = tuple(p for p in _COMPILED if p[0] in ("INFINITY", "NAN", "NUMBER", "FLOAT"))
_QUOTED: Final = tuple(p for p in _COMPILED if p[0] == "STRING")
_NAMED: Final = tuple(p for p in _COMPILED if p[0] not in ("NATURAL0", "NUMBER", "FLOAT", "STRING"))


def _candidates(first: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    if first in "0123456789":
        return _NUMERIC
    if first in "+-.":
        return _SIGN
    if first in "\"'":
        return _QUOTED
    return _NAMED


def scan(text: str) -> Iterator[Token]:
    """Yield the tokens of a query.

    Raises
    ------
    QueryError
        At a character that begins no token.
    """
    position, size = 0, len(text)
    while position < size:
        blank = _BLANK.match(text, position)
        if blank:
            position = blank.end()
            continue
        kind, end = "", position
        symbol = _SYMBOL.match(text, position)
        if symbol:
            kind, end = _SYMBOLS[symbol.group()], symbol.end()
        for name, pattern in _candidates(text[position]):
            match = pattern.match(text, position)
            if match and match.end() > end:
                kind, end = name, match.end()
        if end == position:
            raise QueryError(
                f"The query has a character that begins no word of the language: {text[position]!r}.",
                position=position,
                text=text,
                kind="syntax",
            )
        content = text[position:end]
        if kind in ("ID", "INFINITY", "NAN"):
            kind = _EXACT_WORDS.get(content) or _WORDS.get(content.lower(), kind)
        yield Token(kind, content, start_pos=position, end_pos=end)
        position = end


class QueryLexer(Lexer):
    """What lark calls for tokens."""

    def __init__(self, lexer_conf: Any) -> None:
        pass

    def lex(self, data: Any) -> Iterator[Token]:  # type: ignore[override]
        """Yield the tokens of a text."""
        return scan(data if isinstance(data, str) else data.text)
