"""The golden queries: the real engine's results, in order, or its kind of error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from realmframe.errors import QueryError
from realmframe.query import parse


def run(source: Any, line: dict[str, Any], text: str | None = None, args: Any = None) -> Any:
    """Evaluate one line: keys, or the kind of error."""
    try:
        query = parse(line["query"] if text is None else text, *(line["args"] if args is None else args))
        rows = query.bind(source.schema, line["class"]).rows(source)
    except QueryError as error:
        return error.kind
    return [source.keys[line["class"]][r] for r in rows]


def expected(line: dict[str, Any]) -> Any:
    """Give what the engine gave."""
    return line["error_kind"] if "error_kind" in line else line["pks"]


def test_results(source: Any, golden: list[dict[str, Any]]) -> None:
    """Every golden query gives the engine's keys in its order, or its kind of error."""
    wrong = [(line["class"], line["query"]) for line in golden if run(source, line) != expected(line)]
    assert not wrong


def test_printed_form(source: Any, golden: list[dict[str, Any]]) -> None:
    """A query's own text gives the same rows and is a fixed point of parsing and printing."""
    for line in golden:
        if "error_kind" in line:
            continue
        text = parse(line["query"], *line["args"]).text
        assert parse(text).text == text, line["query"]
        assert run(source, line, text, ()) == line["pks"], (line["query"], text)


def test_canonical(source: Any, golden: list[dict[str, Any]]) -> None:
    """The engine's own text of a query gives the same rows."""
    wrong = []
    for line in golden:
        if "geo" in line.get("tags", ()):
            continue  # The engine writes negative whole degrees, which it cannot read.
        if "canonical" in line and run(source, line, line["canonical"], ()) != line["pks"]:
            wrong.append((line["query"], line["canonical"]))
    assert not wrong


@pytest.mark.parametrize("step", [1, 2, 3])
def test_subset(source: Any, golden: list[dict[str, Any]], step: int) -> None:
    """Restricting the candidates gives the part of the result that lies among them."""
    for line in golden:
        if "error_kind" in line:
            continue
        query = parse(line["query"], *line["args"])
        if query.tree.orderings:
            continue
        bound = query.bind(source.schema, line["class"])
        some = np.arange(0, source.num_rows(line["class"]), step)
        whole = [r for r in bound.rows(source) if r % step == 0]
        assert bound.rows(source, some).tolist() == whole, line["query"]


def test_errors_point(source: Any, golden: list[dict[str, Any]]) -> None:
    """Each error has a position inside the text and shows it."""
    for line in golden:
        if "error_kind" not in line:
            continue
        with pytest.raises(QueryError) as caught:
            parse(line["query"], *line["args"]).bind(source.schema, line["class"]).rows(source)
        position = caught.value.position
        assert position is not None, line["query"]
        assert 0 <= position <= len(line["query"])
        assert "^" in str(caught.value)
