"""Checks of queries: as they were asked, and as the real library prints them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from realmframe.changes import Changeset
from realmframe.conformance.checks import Line, Mismatch, expect
from realmframe.conformance.states import state_to_instructions
from realmframe.conformance.vectors import plain, string_from_json, value_from_json, value_to_json
from realmframe.errors import QueryError


class QueryCheck:
    """Checks of query lines against one fixture.

    Parameters
    ----------
    fixture : mapping
        The content of ``rql_fixture.json``.
    member : str
        ``query`` for the text listed with its arguments; ``canonical`` for the text that the real library prints.
    """

    def __init__(self, fixture: Mapping[str, Any], member: str = "query") -> None:
        from realmframe import store

        changeset = Changeset.from_instructions(state_to_instructions(fixture["classes"]))
        self._snapshot = store.apply(store.Snapshot.empty(), changeset).snapshot
        self._member = member
        self._names = [name for cls in self._snapshot.schema.values() for name in cls.properties if " " in name]

    def __call__(self, line: Line) -> None:
        """Give the primary keys listed, in order, or refuse the query."""
        text = string_from_json(line[self._member])
        if self._member == "canonical":
            self._printed(line, text)
        else:
            self._asked(line, text, *map(_argument, line.get("args") or ()))

    def _printed(self, line: Line, text: str) -> None:
        """Read what was printed as it was meant: the real library itself cannot read all that it prints."""
        try:
            self._asked(line, text)
        except Mismatch:
            for other in as_meant(text, self._names):
                try:
                    return self._asked(line, other)
                except Mismatch:
                    continue
            raise

    def _asked(self, line: Line, text: str, *args: Any) -> None:
        from realmframe import query

        try:
            bound = query.parse(text, *args).bind(self._snapshot.schema, line["class"])
            rows = bound.rows(self._snapshot)
        except QueryError as error:
            if "error" in line:
                return
            raise Mismatch(f"{text!r} was refused: {error.message}") from None
        if "error" in line:
            raise Mismatch(f"{text!r} was taken, should be refused: {line['error']}")
        table = self._snapshot.table(line["class"])
        found = [value_to_json(table.key(int(row))) for row in rows]
        expect(repr(text), found, [plain(pk) for pk in line["pks"]])


_QUOTED: Final = r"""("[^"]*"|'[^']*'"""
_WORD: Final = r"[\w$@.:]*[A-Za-z_$@:][\w.:-]*)"
#: A whole number that stands for itself: in no string, name, date, index or count.
_WHOLE: Final = re.compile(rf"{_QUOTED}|\[[^\[\],]*\]|LIMIT\(\d+\)|{_WORD}|(?<![\w.])([-+]?\d+)(?![\w.:-])")
_FRACTION: Final = re.compile(rf"{_QUOTED}|{_WORD}|([-+]?\d+\.\d+)(?![\w.:])")


def as_meant(text: str, names: Sequence[str]) -> Iterator[str]:
    """Give what a printed query may have been before it lost something in print.

    The real library leaves the blanks of names unescaped in SORT and DISTINCT, the fraction of whole numbers out,
    which its parser takes for integers then (and coordinates not at all, where they are negative), and the ``f`` of
    floats; ``IN`` becomes ``==``, and a null among floats not-a-number.
    """
    for name in names:
        text = re.sub(rf"(?<![\w'\"]){re.escape(name)}(?![\w'\"])", name.replace(" ", "\\\\ "), text)
    yield text
    yield re.sub(r" == (?=(?:(?:ANY|ALL|NONE) )?\{)", " IN ", text)
    yield re.sub(r" == nan\b", " == NULL", text)
    yield _WHOLE.sub(lambda found: found[1] or found[2] + ".0", text)
    yield _FRACTION.sub(lambda found: found[1] or found[2] + "f", text)


def _argument(form: Any) -> Any:
    return [value_from_json(one) for one in form] if isinstance(form, list) else value_from_json(form)
