"""The meaning of the columns, literally; what a builder refuses."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import numpy as np
import pytest

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as ins
from realmframe.changes.columns import COLUMNS
from realmframe.errors import BadChangesetError, WriteError
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    GlobalKey,
    Link,
    Marker,
    ObjectId,
    PropertyType,
    Timestamp,
)

NONE = {"field": -1, "key_type": 127, "value_type": 127, "link_table": -1, "link_type": 127}
NO_VALUE = {"value_type": 127, "link_table": -1, "link_type": 127}
OID = ObjectId(bytes.fromhex("ff0102030405060708090aff"))
UID = uuid.UUID(bytes=bytes(range(0xF0, 0x100)))
HI_OID, LO_OID = 0xFF01020304050607 - (1 << 64), 0x08090AFF
HI_UID, LO_UID = 0xF0F1F2F3F4F5F6F7 - (1 << 64), 0xF8F9FAFBFCFDFEFF - (1 << 64)

ROWS: list[tuple[ins.Instruction, dict[str, int]]] = [
    (ins.AddTable("T"), NONE | {"op": 0, "field": 1, "value_type": -1}),
    (
        ins.AddTable("T", ClassKind.ASYMMETRIC, "_id", PropertyType.STRING, True),
        NONE | {"field": 1, "value_type": 3, "aux": 1, "aux2": 2},
    ),
    (ins.AddTable("T", ClassKind.EMBEDDED), NONE | {"aux2": 1}),
    (ins.EraseTable("T"), NONE | {"op": 1}),
    (
        ins.AddColumn("T", "f", PropertyType.MIXED, True),
        NONE | {"op": 6, "field": 1, "value_type": 0, "aux": 1},
    ),
    (
        ins.AddColumn("T", "f", PropertyType.OBJECT, True, Collection.DICTIONARY, "D", PropertyType.STRING),
        NONE | {"op": 6, "field": 1, "value_type": 9, "link_table": 2, "link_type": 3, "aux": 1, "aux2": 2},
    ),
    (ins.EraseColumn("T", "f"), NONE | {"op": 7, "field": 1}),
    (ins.CreateObject("T", -5), NO_VALUE | {"op": 2, "field": -1, "key_type": 1, "key_lo": -5}),
    (ins.CreateObject("T", "k"), NO_VALUE | {"op": 2, "field": -1, "key_type": 3, "key_lo": 1}),
    (ins.EraseObject("T", OID), NO_VALUE | {"op": 3, "field": -1, "key_type": 10, "key_hi": HI_OID, "key_lo": LO_OID}),
    (ins.EraseObject("T", UID), NO_VALUE | {"op": 3, "field": -1, "key_type": 11, "key_hi": HI_UID, "key_lo": LO_UID}),
    (
        ins.CreateObject("T", GlobalKey((1 << 64) - 1, 1 << 63)),
        NO_VALUE | {"op": 2, "field": -1, "key_type": -1, "key_hi": -1, "key_lo": -(1 << 63)},
    ),
    (
        ins.Update("T", None, "f", ("k", 7), Timestamp(-3, -4), prior_size=9),
        {"op": 4, "field": 1, "value_type": 5, "value_hi": -3, "value_lo": -4, "link_table": -1, "link_type": 127}
        | {"path_len": 2, "aux": 9},
    ),
    (
        ins.Update("T", 1, "f", (), Link("D", "k"), is_default=True),
        {"op": 4, "key_type": 1, "key_lo": 1, "field": 1, "value_type": 9, "value_lo": 3, "link_table": 2}
        | {"link_type": 3, "aux": 1},
    ),
    (
        ins.AddInteger("T", 1, "f", (), -7),
        {"op": 5, "key_type": 1, "key_lo": 1, "field": 1, "value_type": 1, "value_lo": -7}
        | {"link_table": -1, "link_type": 127},
    ),
    (
        ins.ArrayInsert("T", 1, "f", (4,), 2.0, 5),
        {"op": 8, "key_type": 1, "key_lo": 1, "field": 1, "value_type": 7, "value_lo": 2 << 61, "link_table": -1}
        | {"link_type": 127, "path_len": 1, "aux": 5},
    ),
    (
        ins.ArrayMove("T", 1, "f", (4,), 2, 5),
        NO_VALUE | {"op": 9, "key_type": 1, "key_lo": 1, "field": 1, "path_len": 1, "aux": 5, "aux2": 2},
    ),
    (
        ins.ArrayErase("T", 1, "f", (4,), 5),
        NO_VALUE | {"op": 10, "key_type": 1, "key_lo": 1, "field": 1, "path_len": 1, "aux": 5},
    ),
    (
        ins.Clear("T", 1, "f", (), Collection.SET),
        NO_VALUE | {"op": 11, "key_type": 1, "key_lo": 1, "field": 1, "aux": 3},
    ),
    (
        ins.SetInsert("T", 1, "f", (), Decimal128((1 << 64) - 2, 3)),
        {"op": 12, "key_type": 1, "key_lo": 1, "field": 1, "value_type": 8, "value_hi": -2, "value_lo": 3}
        | {"link_table": -1, "link_type": 127},
    ),
    (
        ins.SetErase("T", 1, "f", (), Marker.ERASED),
        {"op": 13, "key_type": 1, "key_lo": 1, "field": 1, "value_type": -4, "link_table": -1, "link_type": 127},
    ),
]


@pytest.mark.parametrize("through_bytes", [False, True])
@pytest.mark.parametrize(("instruction", "wanted"), ROWS)
def test_meaning_of_columns(instruction: ins.Instruction, wanted: dict[str, int], through_bytes: bool) -> None:
    """Each column holds what its documentation says, built from objects or decoded; columns not named hold 0."""
    changeset = Changeset.from_instructions([instruction])
    if through_bytes:
        changeset = Changeset.decode(changeset.encode())
    found = {name: int(getattr(changeset, name)[0]) for name in COLUMNS}
    assert found == dict.fromkeys(COLUMNS, 0) | wanted
    assert {name: getattr(changeset, name).dtype for name in COLUMNS} == {n: np.dtype(d) for n, d in COLUMNS.items()}


def test_inline_values_stand_in_the_heap() -> None:
    """String and Binary values are offset and length in the heap; a decoded heap is the bytes themselves."""
    changeset = Changeset.from_instructions(
        [ins.Update("T", 1, "f", (), "höll"), ins.Update("T", 1, "f", (), b"\x00\x01")]
    )
    decoded = Changeset.decode(changeset.encode())
    for one in (changeset, decoded):
        parts = [one.heap[hi : hi + lo].tobytes() for hi, lo in zip(one.value_hi, one.value_lo, strict=True)]
        assert parts == ["höll".encode(), b"\x00\x01"]
    assert decoded.heap.tobytes() == changeset.encode()


def test_paths_share_one_array() -> None:
    """A path is a slice of one array of steps: indexes, or strings where ``path_is_key`` says so."""
    changeset = Changeset.from_instructions(
        [ins.AddInteger("T", 1, "f", (5, "k"), 1), ins.AddInteger("T", 1, "f", ("k", 6, "f"), 1)]
    )
    assert changeset.path.tolist() == [5, 2, 2, 6, 1]
    assert changeset.path_is_key.tolist() == [False, True, True, False, True]
    assert changeset.path_start.tolist() == [0, 2]
    assert changeset.path_len.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (dt.datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=dt.UTC), Timestamp(1, 5000)),
        (decimal.Decimal("1.50"), Decimal128.from_decimal("1.50")),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.float64(0.5), 0.5),
        (bytearray(b"ab"), b"ab"),
    ],
)
def test_takes_equivalents(value: Any, same: Any) -> None:
    """Values that mean the same as a model value are taken as that."""
    changeset = Changeset.from_instructions([ins.Update("T", 1, "f", (), value)])
    found = changeset.instructions()[0].value  # type: ignore[union-attr]
    assert found == same
    assert type(found) is type(same)


REFUSED: list[ins.Instruction] = [
    ins.CreateObject("T", 1 << 63),
    ins.CreateObject("T", True),
    ins.CreateObject("T", 1.5),  # type: ignore[arg-type]
    ins.Update("T", 1, "f", (), -(1 << 63) - 1),
    ins.Update("T", 1, "f", (), object()),  # type: ignore[arg-type]
    ins.Update("T", 1, "f", (), GlobalKey(1, 2)),  # type: ignore[arg-type]
    ins.Update("T", 1, "f", (-1,), 1),
    ins.Update("T", 1, "f", (3,), 1, prior_size=1 << 32),
    ins.ArrayInsert("T", 1, "f", (), 1, 0),
    ins.ArrayErase("T", 1, "f", (1, "k"), 0),
    ins.ArrayMove("T", 1, "f", (1,), -1, 0),
    ins.AddInteger("T", 1, "f", (), 1 << 63),
]


@pytest.mark.parametrize("instruction", REFUSED)
def test_builder_refuses(instruction: ins.Instruction) -> None:
    """What no instruction can carry is refused before there are bytes."""
    with pytest.raises(WriteError):
        Changeset.from_instructions([instruction])


def test_strange_columns_are_refused() -> None:
    """Columns with a type that the protocol does not know give an error of ours."""
    changeset = Changeset.from_instructions([ins.Update("T", 1, "f", (), 1), ins.CreateObject("T", 1)])
    for name in ("value_type", "key_type"):
        getattr(changeset, name)[0] = 77
        with pytest.raises(BadChangesetError, match="77"):
            changeset.instructions()
        getattr(changeset, name)[0] = 1


def test_empty() -> None:
    """No instructions are no bytes, strings or not; the other way round too."""
    assert Changeset.empty().encode() == b""
    assert Changeset.from_instructions([], ["unused"]).encode() == b""
    assert len(Changeset.decode(b"")) == 0
    assert concat([]).encode() == b""
    assert concat([Changeset.empty(), Changeset.from_instructions([], ["unused"])]).strings == []


def test_concat_of_one_is_itself() -> None:
    """Nothing is copied where there is nothing to join."""
    changeset = Changeset.from_instructions([ins.EraseTable("T")])
    assert concat([Changeset.empty(), changeset]) is changeset


def test_concat_of_rows_taken_from_one_changeset_shares() -> None:
    """Rows that share heap, strings and paths are joined without copying those."""
    rows = [ins.AddInteger("T", "key", "f", ("k", i), i) for i in range(6)]
    whole = Changeset.decode(Changeset.from_instructions(rows).encode())
    joined = concat([whole.take(np.array([4, 5])), whole.take(np.array([0])), whole.take(np.array([2, 1]))])
    assert joined.instructions() == [rows[i] for i in (4, 5, 0, 2, 1)]
    assert len(joined.heap) == len(whole.heap)
    assert len(joined.path) == len(whole.path)
    assert joined.strings == whole.strings
    assert whole.instructions() == rows


def test_kernels_compile_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no folder for compiled code can be written, kernels are compiled all the same."""
    from realmframe.changes import jit

    asked: list[dict[str, bool]] = []

    def njit(**options: bool) -> Any:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(jit, "njit", njit)
    assert jit.kernel(len)([1]) == 1
    assert asked == [{"cache": True, "nogil": True}, {"nogil": True}]
