"""Values that are hard to keep, for each type, and a schema that has every form of property."""

from __future__ import annotations

import decimal
import uuid
from typing import Any

import numpy as np

from realmframe.model import Decimal128, Link, ObjectId, Schema, Timestamp

YEAR_1, YEAR_9999 = Timestamp(-62_135_596_800, 0), Timestamp(253_402_300_799, 999_999_999)


def _double(bits: int) -> float:
    return float(np.uint64(bits).view(np.float64))


def _decimals(*texts: str) -> list[Decimal128]:
    return [Decimal128.from_decimal(decimal.Decimal(text)) for text in texts]


#: Model values of each scalar type. Zero stands with one sign only: the real engine does not write a number over an
#: equal one, so a row that held the one keeps it.
SCALARS: dict[str, list[Any]] = {
    "int": [0, -1, (1 << 63) - 1, -(1 << 63), (1 << 53) + 1],
    "bool": [True, False],
    "float": [
        np.float32(-0.0),
        np.float32("nan"),
        np.float32("-inf"),
        np.float32(0.1),
        np.float32(3.4028234663852886e38),
        np.uint32(1).view(np.float32),
    ],
    "double": [-0.0, float("nan"), float("inf"), float("-inf"), 0.1, _double(1), 1.7976931348623157e308],
    "string": ["", "a\0b", "\U0001f6eb\U0010ffff", "é日本", "e\u0301", " \n\t", "x" * 10_000, "nan", "\ufeff"],
    "data": [b"", b"\0", bytes(range(256)), b"\xff" * 10_000],
    "date": [
        Timestamp(0, 0),
        Timestamp(0, 1),
        Timestamp(-1, -1),
        Timestamp(1_700_000_000, 123_456_789),
        YEAR_1,
        YEAR_9999,
        Timestamp(9_223_372_036, 854_775_807),
        Timestamp(9_223_372_036, 854_775_808),
        Timestamp(-9_223_372_037, -1),
        Timestamp((1 << 63) - 1, 999_999_999),
        Timestamp(-(1 << 63), -999_999_999),
    ],
    "decimal128": [
        *_decimals("-0", "1.50", "1.5", "NaN", "Infinity", "-Infinity", "9" * 34, "-" + "9" * 34 + "E+6111"),
        *_decimals("1E-6176", "-1E-6176", "0E+6111", "1E+6144", "0." + "1" * 34, "-0E-20"),
    ],
    "objectId": [ObjectId(bytes(12)), ObjectId(b"\xff" * 12), ObjectId(bytes(range(12)))],
    "uuid": [uuid.UUID(int=0), uuid.UUID(int=(1 << 128) - 1), uuid.UUID(int=1 << 64)],
}
_LINKS = [Link("ByInt", 1), Link("ByText", "a\0\U0001f6eb"), Link("ById", ObjectId(bytes(12)))]
_MANY = [v for values in SCALARS.values() for v in values if not (isinstance(v, str | bytes) and len(v) > 999)]
SCALARS["mixed"] = [
    *_MANY,
    *_LINKS,
    [],
    {},
    [[]],
    [{}],
    {"": {}},
    [None, True, 1, 1.0, np.float32(1), "1", b"1", Link("ByInt", 7)],
    {"a": [1, {"b": [None, {"c": []}]}], "é \U0001f6eb": None, "x/y~[0]": {"at": YEAR_1, "id": uuid.UUID(int=3)}},
    _MANY,
]
#: Keys of dictionaries that the SDKs take.
KEYS = ["", "a", "é", "\U0001f6eb", "a b", "a/b", "x$", "[0]", "'\"", "nul\0", "@keys", "_id"]


def equal_in_a_set(value: Any) -> Any:
    """Give what sets and queries compare: numbers by their amount, all else by type and value."""
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        return str(number) if number.is_nan() else number
    if isinstance(value, int | float | np.float32) and not isinstance(value, bool):
        return "nan" if value != value else float(value) if not isinstance(value, int) else value
    return type(value), repr(value)


def distinct(values: list[Any]) -> list[Any]:
    """Leave out what a set takes for equal, null, what it does not take, and zeros whose sign it drops."""
    kept: dict[Any, Any] = {}
    for value in values:
        if isinstance(value, list | dict) or (isinstance(value, Decimal128) and value.to_decimal() == 0):
            continue
        kept.setdefault(equal_in_a_set(value), value)
    return list(kept.values())


def _collections(values: list[Any]) -> dict[str, list[Any]]:
    with_null = [values[0], None, *values[1:], values[0]]
    keyed = dict(zip(KEYS, [values[n % len(values)] for n in range(len(KEYS))], strict=True))
    return {
        "list": [[], with_null, [None], values[::-1]],
        "set": [[], distinct(values), distinct(values)[:1]],
        "dict": [{}, keyed, {"a": None}, {"b": values[-1], "a": values[0]}],
    }


#: Property forms of the class ``Every``, with the values that objects of it hold one after another.
FORMS: dict[str, tuple[str, list[Any]]] = {}
for _word, _values in SCALARS.items():
    _mark = "" if _word == "mixed" else "?"
    for _n in range(0, len(_values), 16):  # so many rows are enough
        FORMS[f"{_word}_one{_n or ''}"] = (f"{_word}{_mark}", [*_values[_n : _n + 16], None])
    for _kind, _suffix in (("list", "[]"), ("set", "<>"), ("dict", "{}")):
        FORMS[f"{_word}_{_kind}"] = (f"{_word}{_mark}{_suffix}", _collections(_values)[_kind])

_LEAF = {
    "n": (1 << 63) - 1,
    "at": YEAR_9999,
    "text": "\0",
    "money": _decimals("1.50")[0],
    "tags": [""],
    "by": {"a": 0.1},
}
_LEAF_2 = {"n": None, "at": None, "text": "", "money": None, "tags": [], "by": {}}
_DEEP = {
    "leaf": _LEAF,
    "leaves": [_LEAF, _LEAF_2],
    "named": {"a": _LEAF, "b": None},
    "any": [{"x": 1}],
    "to": _LINKS[0],
}
_DEEP_2 = {"leaf": None, "leaves": [], "named": {}, "any": None, "to": None}
_TREE = {
    "name": "a",
    "children": [{"name": "b", "children": []}, {"name": "", "children": [{"name": "c", "children": []}]}],
}
FORMS |= {
    "leaf_one": ("Leaf?", [_LEAF, _LEAF_2, None]),
    "leaf_list": ("Leaf[]", [[_LEAF, _LEAF_2, _LEAF], [], [_LEAF_2]]),
    "leaf_dict": ("Leaf{}", [{"a": _LEAF, "é": None, "": _LEAF_2}, {}, {"a": _LEAF_2}]),
    "deep_one": ("Deep?", [_DEEP, None, _DEEP_2]),
    "deep_list": ("Deep[]", [[_DEEP_2, _DEEP], [_DEEP], []]),
    "tree_one": ("Tree?", [_TREE, None, {"name": "z", "children": []}]),
    "tree_list": ("Tree[]", [[_TREE, _TREE], [], [_TREE]]),
    "int_link": ("ByInt?", [Link("ByInt", 1), None, Link("ByInt", -(1 << 63))]),
    "text_link": ("ByText?", [Link("ByText", ""), Link("ByText", "a\0\U0001f6eb"), None]),
    "id_link": ("ById?", [Link("ById", ObjectId(b"\xff" * 12)), None]),
    "uuid_link": ("ByUuid?", [Link("ByUuid", uuid.UUID(int=5)), None]),
    "null_link": ("ByNull?", [Link("ByNull", None), None, Link("ByNull", "x")]),
    "links_list": ("ByText[]", [[Link("ByText", "b"), Link("ByText", "a"), Link("ByText", "b")], []]),
    "links_set": ("ByUuid<>", [[Link("ByUuid", uuid.UUID(int=n)) for n in (3, 1)], []]),
    "links_dict": ("ById{}", [{"a": Link("ById", ObjectId(bytes(12))), "b": None}, {}]),
    "null_links": ("ByNull[]", [[Link("ByNull", None), Link("ByNull", "")], []]),
}
_EVERY = {name: form for name, (form, _) in FORMS.items()}
SCHEMA = Schema(
    [
        {
            "name": "Every",
            "primaryKey": "_id",
            "properties": {"_id": "int"} | {n: form for n, (form, _) in FORMS.items()},
        },
        {
            "name": "Leaf",
            "embedded": True,
            "properties": {
                "n": "int?",
                "at": "date?",
                "text": "string",
                "money": "decimal128?",
                "tags": "string[]",
                "by": "double{}",
            },
        },
        {
            "name": "Deep",
            "embedded": True,
            "properties": {"leaf": "Leaf?", "leaves": "Leaf[]", "named": "Leaf{}", "any": "mixed", "to": "ByInt?"},
        },
        {"name": "Tree", "embedded": True, "properties": {"name": "string", "children": "Tree[]"}},
        {"name": "ByInt", "primaryKey": "_id", "properties": {"_id": "int"}},
        {"name": "ByText", "primaryKey": "_id", "properties": {"_id": "string"}},
        {"name": "ById", "primaryKey": "_id", "properties": {"_id": "objectId"}},
        {"name": "ByUuid", "primaryKey": "_id", "properties": {"_id": "uuid"}},
        {"name": "ByNull", "primaryKey": "_id", "properties": {"_id": "string?"}},
    ]
)


def _links(value: Any) -> set[Link]:
    if isinstance(value, Link):
        return {value}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {link for item in items for link in _links(item)}


#: Every object that something links to; a link to nothing is null in queries.
TARGETS = sorted(_links([values for _, values in FORMS.values()]), key=repr)
ROWS = max(len(values) for _, values in FORMS.values())


def value_of(name: str, row: int) -> Any:
    """Give what a row of ``Every`` holds in a property: the values in turn."""
    values = FORMS[name][1]
    return values[row % len(values)]
