"""Subscriptions' text, limits of the language, and properties over random queries."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cmp_to_key
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from realmframe.errors import QueryError
from realmframe.model import Decimal128, ObjectId, ObjectSchema, Schema, Timestamp
from realmframe.query import normal_form, parse, subscription_text
from realmframe.query.parsing import parse_tree
from realmframe.query.printing import print_tree
from realmframe.query.values import compare
from realmframe.query.vector import FEW_ROWS
from tests import transcripts

SCHEMA = Schema(
    [
        ObjectSchema(
            "T",
            {
                "_id": "int",
                "n": "int?",
                "d": "double?",
                "f": "float?",
                "s": "string?",
                "b": "data?",
                "at": "date?",
                "c": "decimal128?",
                "o": "objectId?",
                "u": "uuid?",
                "t": "bool?",
                "tags": "string[]",
                "place": "P",
                "next": "T",
                "homes": "P[]",
            },
            "_id",
        ),
        {"name": "P", "embedded": True, "properties": {"street": "string", "zip": "int?"}},
    ]
)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("age > 35", "(age > 35 )"),
        ("i > 1 && (i < 10 || b == true)", "(i > 1 and (i < 10 or b == true) )"),
        ("NOT i == 3", "(!(i == 3) )"),
        ("s ==[c] 'ab'", '(s ==[c] "ab" )'),
        ("i == nil", "(i == NULL )"),
        ("i == 0x1F", "(i == 31 )"),
        ("i > 0 SORT(i ASC)", "(i > 0 SORT(i ASC))"),
        ("i > 0 LIMIT(5)", "(i > 0 LIMIT(5))"),
        ("TRUEPREDICATE", "(TRUEPREDICATE )"),
        ("dt > T1577836800:500000000", "(dt > T1577836800:500000000 )"),
    ],
)
def test_normal_form(text: str, sent: str) -> None:
    """A query is sent as the real client sent it."""
    assert normal_form(text) == sent


def test_subscription_text() -> None:
    """Several queries of a class are sorted, without doubles, joined by OR."""
    queries = [parse("name == $0", "Ann"), "age > 35", "age  >  35"]
    assert subscription_text(queries) == '(age > 35 ) OR (name == "Ann" )'
    assert subscription_text([]) == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("n > 1 SORT(n ASC)", "SORT"),
        ("n > 1 LIMIT(3)", "LIMIT"),
        ("n > 1 DISTINCT(n)", "DISTINCT"),
        ("next.n > 1", "link"),
        ("@links.T.next.n > 1", "@links"),
        ("@links.@count > 1", "@links"),
        ("place.@type == 'object'", "@type"),
        ("s.@size > 1", "@size"),
        ("next.homes.@count > 1", "link"),
        ("@links.T.next.@count > 1", "@links"),
        ("{'a', 'b'} IN tags", "two lists"),
        ("ANY {'a', 'b'} != ANY tags", "two lists"),
        ("tags IN {'a'}", "two lists"),
        ("$0 IN tags", "two lists"),
        ("homes.zip == 1", "collection"),
        ("n + 1 > 2", "arithmetic"),
        ("SUBQUERY(homes, $x, $x.zip > 1).@count > 0", "SUBQUERY"),
    ],
)
def test_not_flexible(text: str, word: str) -> None:
    """What a server does not take is refused by the operator's name."""
    with pytest.raises(QueryError, match=word):
        parse(text, ["a", "b"]).bind(SCHEMA, "T").check_flexible()


@pytest.mark.parametrize(
    ("printed", "meant"),
    [
        ("GeoCircle([-32.34, -25], 0.5)", "GeoCircle([-32.34, -25.0], 0.5)"),
        (
            "GeoPolygon({[-2, -2], [3.45, -4.23], [2, 4], [-2, -2]})",
            "GeoPolygon({[-2.0, -2.0], [3.45, -4.23], [2.0, 4.0], [-2.0, -2.0]})",
        ),
        ("GeoBox([50, 50, 10], [52, -52, -1])", "GeoBox([50.0, 50.0, 10.0], [52.0, -52.0, -1.0])"),
    ],
)
def test_coordinates_as_the_sdks_print_them(printed: str, meant: str) -> None:
    """A subscription of an SDK has whole degrees with a sign, and heights, without a fraction."""
    assert parse(f"place GEOWITHIN {printed}").text == parse(f"place GEOWITHIN {meant}").text


def test_flexible_points() -> None:
    """A subscription may ask where a point lies, or whether one of a list does, but not for points of points."""
    point = {"name": "Point", "embedded": True, "properties": {"type": "string", "coordinates": "double[]"}}
    spot = {"name": "Spot", "embedded": True, "properties": {"at": "Point[]"}}
    properties = {"_id": "int", "at": "Point", "way": "Point[]", "spots": "Spot[]"}
    schema = Schema([point, spot, {"name": "A", "primaryKey": "_id", "properties": properties}])
    for path in ("at", "way"):
        parse(f"{path} GEOWITHIN GeoCircle([1, 2], 0.5)").bind(schema, "A").check_flexible()
    with pytest.raises(QueryError, match="collection of embedded objects"):
        parse("spots.at GEOWITHIN GeoCircle([1, 2], 0.5)").bind(schema, "A").check_flexible()


@pytest.mark.parametrize("kind", ["embedded", "asymmetric"])
def test_classes_without_subscriptions(kind: str) -> None:
    """Embedded and asymmetric classes have no objects of their own to subscribe to."""
    key = {} if kind == "embedded" else {"primaryKey": "_id"}
    schema = Schema([{"name": "A", kind: True, "properties": {"_id": "int"}, **key}])
    with pytest.raises(QueryError, match=kind):
        parse("TRUEPREDICATE").bind(schema, "A").check_flexible()


@pytest.mark.parametrize(
    "text",
    [
        "n > 1 and s BEGINSWITH 'a'",
        "place.zip IN {1, 2}",
        "ANY tags == 'x'",
        "'x' IN tags",
        "!(t == true)",
        "tags.@count > 1",
        "homes.@size == 0",
        "tags[0] IN {'a'}",
    ],
)
def test_flexible(text: str) -> None:
    """Comparisons, strings, logic, embedded fields and lists of values are taken."""
    parse(text).bind(SCHEMA, "T").check_flexible()


@pytest.mark.parametrize(
    "text",
    ["(" * 10_000, "!" * 10_000 + "a == 1", "a" + "+1" * 10_000 + " == 1", "a" + ".b" * 10_000 + " == 1",
     "a == " + "9" * 50_000 + " and", "x" * 1_000_001, "(" * 5000 + "a == 1" + ")" * 5000],
)  # fmt: skip
def test_hostile(text: str) -> None:
    """Deep or long texts are refused, not followed."""
    with pytest.raises(QueryError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    ["n >= -9223372036854775808", "!(n >= -99999999999999999999)", "n <= 9223372036854775807", "d IN {1, 2}",
     "NOT d IN {1, 2}", "d IN {1} or n == 5 or TRUEPREDICATE", "d IN {1} and n == null"],
)  # fmt: skip
def test_dropped_conditions(text: str) -> None:
    """A bound that bounds nothing, and a list of which nothing fits the type, are dropped as the engine drops them."""
    assert parse(text).bind(SCHEMA, "T").rows(_source()).tolist() == [0, 1, 2]


TOKENS = st.sampled_from(
    ["age", "n", "s", "tags", "next", "place", "@links", ".", "@count", "@type", "@max", "==", "!=", "<", ">=", "IN",
     "BETWEEN", "CONTAINS", "LIKE", "[c]", "ANY", "ALL", "NONE", "AND", "OR", "NOT", "(", ")", "{", "}", "[", "]", ",",
     "1", "-1", "2.5", "'a'", '"b"', "null", "true", "inf", "nan", "$0", "$K0", "SUBQUERY", "$x", "SORT", "LIMIT",
     "DISTINCT", "ASC", "*", "+", "-", "/", "TRUEPREDICATE", "obj", "T1:2", "2020-01-01@00:00:00", "oid(",
     "B64\"YQ==\"",
     "geowithin", "geoCircle", "FIRST", "LAST", "SIZE", "TEXT", "n == 1", "T", "9223372036854775808", "1e999"]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(TOKENS, max_size=12).map(" ".join) | st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Any text gives a query or a QueryError with a position."""
    try:
        query = parse(text, "s")
        query.bind(SCHEMA, "T").rows(_source())
        printed = query.text
        assert parse(printed).text == printed
    except QueryError as error:
        position = error.position
    else:
        position = 0
    assert position is not None
    assert 0 <= position <= len(text)


VALUES: dict[str, Any] = {
    "n": st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1]),
    "d": st.sampled_from([0.0, -0.0, 1.5, 2.0, float("inf"), float("nan")]),
    "f": st.sampled_from([0.0, 1.5, 0.1]).map(np.float32),
    "s": st.sampled_from(["", "a", "A", "ab", "é", "É", "ÿ", "b*", "\n", "Zz", "\udcff", "\U0001f436", "a.b"]),
    "b": st.sampled_from([b"", b"a", b"A", b"\xff", b"ab"]),
    "at": st.builds(Timestamp, st.sampled_from([-5, 0, 5, 2**40]), st.just(0)),
    "c": st.sampled_from(["0", "1", "1.0", "1.5", "-2", "NaN", "Infinity", "1E-6000", "0.1"]),
    "o": st.sampled_from([1, 2, 3]).map(lambda i: ObjectId(bytes([i] * 12))),
    "u": st.sampled_from([1, 2, 255]),
    "t": st.booleans(),
}


def _source(columns: dict[str, list[Any]] | None = None, count: int = 3) -> Any:
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("query_conftest", Path(__file__).parent / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = {name: [None] * count for name in SCHEMA["T"].properties} | (columns or {})
    table["_id"] = list(range(count))
    table["tags"], table["homes"] = [[]] * count, [[]] * count
    return module.MemorySource(SCHEMA, {"T": table}, {"T": table["_id"]})


def _value(name: str, raw: Any) -> Any:
    import uuid

    from realmframe.model import Decimal128

    if raw is None:
        return None
    if name == "c":
        return Decimal128.from_decimal(raw)
    return uuid.UUID(int=raw) if name == "u" else raw


COMPARISONS = ["==", "!=", "<", "<=", ">", ">="]
#: What every integer fulfils: the real engine adds no condition, not even under NOT, so null matches both ways.
DROPPED = [(">=", -(1 << 63)), ("<=", (1 << 63) - 1)]
STRINGS = ["BEGINSWITH", "ENDSWITH", "CONTAINS", "LIKE", "==[c]", "!=[c]", "BEGINSWITH[c]", "CONTAINS[c]", "LIKE[c]"]


class Drawn:
    """Draws that are given: one example of a property that draws."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def draw(self, _strategy: Any) -> Any:
        """Give the next."""
        return self.values.pop(0)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@example(data=Drawn("n", [None], ">=", -(1 << 63)))
@given(data=st.data())
def test_columns_equal_values(data: Any) -> None:
    """Whole columns give the same rows as the same test on one value after another."""
    name = data.draw(st.sampled_from(sorted(VALUES)))
    cell = st.none() | VALUES[name]
    few = [_value(name, v) for v in data.draw(st.lists(cell, min_size=1, max_size=8))]
    count = FEW_ROWS + 10
    column = (few * count)[:count]
    operator = data.draw(st.sampled_from(COMPARISONS + (STRINGS if name in "sb" else []) + ["IN"]))
    if operator == "IN":
        argument: Any = [_value(name, v) for v in data.draw(st.lists(cell, min_size=1, max_size=3))]
    else:
        argument = _value(name, data.draw(cell))
    try:
        bound = parse(f"{name} {operator} $0", argument).bind(SCHEMA, "T")
    except QueryError:
        return
    source = _source({name: column}, count)
    whole = bound.rows(source).tolist()
    single = [i for i in range(count) if bound.rows(source, [i]).tolist()]
    assert whole == single
    both = parse(f"!({name} {operator} $0)", argument).bind(SCHEMA, "T").rows(source).tolist()
    if name == "n" and (operator, argument) in DROPPED:
        assert whole == both == list(range(count))
        return
    assert sorted(whole + both) == list(range(count))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_sorted_columns(data: Any) -> None:
    """Kernels sort as the engine's comparison does, equal values in their old order, nulls first when ascending."""
    name, other = data.draw(st.permutations(sorted(VALUES)))[:2]
    up, count = data.draw(st.booleans()), FEW_ROWS + 8
    columns = {}
    for field in (name, other):
        cells = data.draw(st.lists(st.none() | VALUES[field], min_size=1, max_size=6))
        columns[field] = ([_value(field, v) for v in cells] * count)[:count]
    text = f"TRUEPREDICATE SORT({name} {'ASC' if up else 'DESC'}, {other} ASC)"
    rows = parse(text).bind(SCHEMA, "T").rows(_source(columns, count)).tolist()
    first, second = (cmp_to_key(compare), cmp_to_key(compare))
    expected = sorted(range(count), key=lambda i: second(columns[other][i]))
    expected.sort(key=lambda i: first(columns[name][i]), reverse=not up)
    assert rows == expected


LEAVES = st.sampled_from(
    ["a == 1", "a.b != 'x'", "c IN {1, 2.5, NULL}", "s BEGINSWITH[c] 'q'", "ANY tags == 'x'", "a BETWEEN {1, 3}",
     "x.@count > 2", "y.@max.z < 1.50", "d[0] == T5:0", "d['k k'].@type == 'int'", "TRUEPREDICATE",
     "full\\ name == nan",
     "@links.A.b.@count == 0", "(a + 1) * 2 > b / 3", "SUBQUERY(a, $x, $x.b == 1 or $x.c > 2).@count > 0",
     "o == oid(5f0000000000000000000007)", "b == binary('x')", "b == binary(B64\"/w==\")", "boss == obj('A', 5)",
     "l geowithin geoBox([-1.0, 2], [3, 4.5])", "l geowithin geoCircle([1, 2], 0.5)", "a == -inf", "a[*][LAST] == 3.f"]
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda c: st.one_of(
        st.lists(c, min_size=2, max_size=3).map(lambda x: "(" + " and ".join(x) + ")"),
        st.lists(c, min_size=2, max_size=3).map(lambda x: "(" + " or ".join(x) + ")"),
        c.map(lambda x: f"!({x})"),
    ),
    max_leaves=8,
)
TAILS = st.lists(st.sampled_from(["SORT(a ASC, b.c DESC)", "DISTINCT(a)", "LIMIT(3)"]), max_size=3).map(" ".join)


@settings(max_examples=200)
@given(TREES, TAILS)
def test_print_and_parse(text: str, tail: str) -> None:
    """Parsing what was printed gives the same tree."""
    tree = parse_tree(f"{text} {tail}")
    assert _comparable(parse_tree(print_tree(tree))) == _comparable(tree)


def _comparable(node: Any) -> Any:
    """Give a tree in a form in which not-a-numbers are equal."""
    if is_dataclass(node):
        return type(node), [_comparable(getattr(node, field.name)) for field in fields(node) if field.compare]
    if isinstance(node, tuple | list):
        return [_comparable(one) for one in node]
    return repr(node) if isinstance(node, float) else node


@pytest.mark.parametrize(
    ("text", "argument", "printed"),
    [
        ("tags[$0] == 'x'", -3, 'tags[9223372036854775807] == "x"'),
        ("tags[$0] == 'x'", -1, 'tags[LAST] == "x"'),
        ("d < $0", np.float32(70.5), "d < 70.5f"),
        ("d < $0", np.float32("inf"), "d < 1e999f"),
        ("d < $0", 30.0, "d < 30.0"),
        ("c == $0", Decimal128.from_decimal("-NaN"), "c == -nan"),
        ("c == -nan", None, "c == -nan"),
    ],
)
def test_arguments_in_print(text: str, argument: Any, printed: str) -> None:
    """What an argument says is put into the text so that it means the same."""
    query = parse(text, argument)
    assert query.text == printed
    assert parse(printed).text == printed
    decimals = [Decimal128.from_decimal(n) for n in ("NaN", "-NaN", 1, 2, 3)]
    columns = {"d": [1.0, 70.25, 80.0, float("nan"), None], "c": decimals}
    source = _source(columns, 5)
    same = parse(printed).bind(SCHEMA, "T").rows(source).tolist()
    assert query.bind(SCHEMA, "T").rows(source).tolist() == same


def test_transcript_texts(source: Any) -> None:
    """Every query text that the real client sent parses, and its own text is a fixed point."""
    texts = []
    for message in transcripts.records("flx_query_texts"):
        if message.get("kind") == "ws" and str(message.get("header", "")).startswith("query "):
            texts += list(message["body"].values())
    assert len(texts) > 40
    for text in texts:
        if "SORT(" in text or "LIMIT(" in text:
            with pytest.raises(QueryError, match=r"SORT|LIMIT"):
                parse(text)
            continue
        printed = parse(text).text
        assert parse(printed).text == printed
