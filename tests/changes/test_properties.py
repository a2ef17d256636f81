"""Properties of the codec: round trips of any instructions, and an answer or one error for any bytes."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from realmframe.changes import Changeset, concat
from realmframe.changes import instructions as ins
from realmframe.conformance.vectors import instruction_to_json, read_lines
from realmframe.errors import BadChangesetError
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

VECTORS = Path(__file__).parents[1] / "data" / "vectors"

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)
UINT32 = st.integers(0, (1 << 32) - 1)
NAMES = st.sampled_from(["Dog", "Person", "_id", "", "naïve", "日本", "a\x00b"]) | st.text(max_size=9)
# Bytes that are no UTF-8 are kept as surrogates; other lone surrogates are no string of a realm.
TEXT = st.text(max_size=70) | st.binary(max_size=5).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
OBJECT_IDS = st.binary(min_size=12, max_size=12).map(ObjectId)
UUIDS = st.binary(min_size=16, max_size=16).map(lambda raw: uuid.UUID(bytes=raw))
KEYS = st.none() | INT64 | TEXT | OBJECT_IDS | UUIDS | st.builds(GlobalKey, UINT64, UINT64)
FLOATS = st.integers(0, (1 << 32) - 1).map(lambda bits: np.uint32(bits).view(np.float32))
DOUBLES = st.floats(allow_nan=True, allow_infinity=True)
DECIMALS = st.builds(
    Decimal128.from_parts, st.integers(0, (1 << 113) - 1), st.integers(-6176, (1 << 14) - 6177), st.booleans()
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    INT64,
    TEXT,
    st.binary(max_size=70),
    st.builds(Timestamp, INT64, st.integers(-999_999_999, 999_999_999)),
    FLOATS,
    DOUBLES,
    DECIMALS,
    OBJECT_IDS,
    UUIDS,
    st.builds(Link, NAMES, KEYS),
    st.sampled_from(Marker),
)
STEPS = st.lists(UINT32 | NAMES, max_size=4)
PATHS = STEPS.map(tuple)
INDEXED = st.builds(lambda steps, last: (*steps, last), STEPS, UINT32)
PLACE = (NAMES, KEYS, NAMES, PATHS)
TYPES = st.sampled_from(PropertyType)


def _column(table: str, field: str, kind: Any, nullable: bool, collection: Any, target: str) -> ins.AddColumn:
    link = target if kind is PropertyType.OBJECT else None
    key_type = PropertyType.STRING if collection is Collection.DICTIONARY else None
    return ins.AddColumn(table, field, kind, nullable, collection, link, key_type)


def _update(table: str, pk: Any, field: str, path: Any, value: Any, size: int, default: bool) -> ins.Update:
    if path and isinstance(path[-1], int):
        return ins.Update(table, pk, field, path, value, prior_size=size)
    return ins.Update(table, pk, field, path, value, is_default=default)


KEY_TYPES = st.sampled_from([None, PropertyType.INT, PropertyType.STRING, PropertyType.OBJECT_ID, PropertyType.UUID])
KINDS = st.sampled_from([ClassKind.TOPLEVEL, ClassKind.ASYMMETRIC])
INSTRUCTIONS = st.one_of(
    st.builds(ins.AddTable, NAMES, KINDS, NAMES, KEY_TYPES, st.booleans()),
    st.builds(ins.AddTable, NAMES, st.just(ClassKind.EMBEDDED)),
    st.builds(ins.EraseTable, NAMES),
    st.builds(ins.CreateObject, NAMES, KEYS),
    st.builds(ins.EraseObject, NAMES, KEYS),
    st.builds(_update, *PLACE, VALUES, UINT32, st.booleans()),
    st.builds(ins.AddInteger, *PLACE, INT64),
    st.builds(_column, NAMES, NAMES, TYPES, st.booleans(), st.sampled_from(Collection), NAMES),
    st.builds(ins.EraseColumn, NAMES, NAMES),
    st.builds(ins.ArrayInsert, NAMES, KEYS, NAMES, INDEXED, VALUES, UINT32),
    st.builds(ins.ArrayMove, NAMES, KEYS, NAMES, INDEXED, UINT32, UINT32),
    st.builds(ins.ArrayErase, NAMES, KEYS, NAMES, INDEXED, UINT32),
    st.builds(ins.Clear, *PLACE, st.sampled_from(Collection)),
    st.builds(ins.SetInsert, *PLACE, VALUES),
    st.builds(ins.SetErase, *PLACE, VALUES),
)
LISTS = st.lists(INSTRUCTIONS, max_size=12)


def forms(instructions: list[ins.Instruction]) -> list[dict[str, Any]]:
    """Compare by JSON form: by the bits of floats, so that not-a-number equals itself."""
    return [instruction_to_json(one) for one in instructions]


@given(LISTS)
def test_instructions_survive_columns(instructions: list[ins.Instruction]) -> None:
    """Any instructions come back from the columns as they went in."""
    assert forms(Changeset.from_instructions(instructions).instructions()) == forms(instructions)


@given(LISTS)
def test_instructions_survive_bytes(instructions: list[ins.Instruction]) -> None:
    """Any instructions come back from the bytes as they went in, strings included; encoding again changes nothing."""
    built = Changeset.from_instructions(instructions)
    data = built.encode()
    back = Changeset.decode(data)
    assert forms(back.instructions()) == forms(instructions)
    assert back.strings == (built.strings if instructions else [])
    assert back.encode() == data


@given(LISTS, st.data())
def test_rows_can_be_taken(instructions: list[ins.Instruction], data: st.DataObject) -> None:
    """Rows taken in any order are the instructions in that order, also after encoding."""
    rows = data.draw(st.lists(st.integers(0, max(len(instructions) - 1, 0)), max_size=8 if instructions else 0))
    changeset = Changeset.decode(Changeset.from_instructions(instructions).encode())
    taken = changeset.take(np.array(rows, np.int64))
    wanted = forms([instructions[row] for row in rows])
    assert forms(taken.instructions()) == wanted
    assert forms(Changeset.decode(taken.encode()).instructions()) == wanted


@given(st.lists(LISTS, max_size=5), st.booleans())
def test_concat_is_one_after_another(lists: list[list[ins.Instruction]], through_bytes: bool) -> None:
    """Joined changesets hold all instructions in order, and each string once."""
    changesets = [Changeset.from_instructions(one) for one in lists]
    if through_bytes:
        changesets = [Changeset.decode(c.encode()) for c in changesets]
    joined = concat(changesets)
    wanted = forms([one for some in lists for one in some])
    assert forms(joined.instructions()) == wanted
    assert len(set(joined.strings)) == len(joined.strings)
    assert forms(Changeset.decode(joined.encode()).instructions()) == wanted


def _answer(data: bytes) -> None:
    """Decode; the only error allowed is ours, with an offset. What decodes survives another round."""
    changeset = _decode(data)
    if changeset is None:
        return
    instructions = changeset.instructions()
    encoded = changeset.encode()
    assert forms(Changeset.decode(encoded).instructions()) == forms(instructions)
    assert Changeset.decode(encoded).encode() == encoded


@given(st.binary(max_size=200))
@example(b"\x3f\x00\x01a\x01\x00")
@example(b"\xff" * 11)
def test_any_bytes_give_an_answer(data: bytes) -> None:
    """Any bytes give a changeset or one error with an offset."""
    _answer(data)


SEEDS = [bytes.fromhex(line["hex"]) for line in read_lines(VECTORS / "codec.jsonl.gz") if 0 < len(line["hex"]) < 1200]
EDITS = st.tuples(st.sampled_from(["set", "insert", "delete", "cut"]), st.integers(0, 1 << 16), st.integers(0, 255))


@given(st.sampled_from(SEEDS), st.lists(EDITS, min_size=1, max_size=4))
@settings(max_examples=600)
def test_damaged_changesets_give_an_answer(seed: bytes, edits: list[tuple[str, int, int]]) -> None:
    """Real changesets with bytes changed, added, dropped or cut off give a changeset or one error with an offset."""
    data = bytearray(seed)
    for kind, at, byte in edits:
        at %= len(data) + 1
        if kind == "set" and at < len(data):
            data[at] = byte
        elif kind == "insert":
            data.insert(at, byte)
        elif kind == "delete":
            del data[at : at + 1]
        elif kind == "cut":
            del data[at:]
    _answer(bytes(data))


def test_every_truncation_gives_an_answer() -> None:
    """A changeset cut at any byte is a shorter changeset, where the cut is between instructions, or an error."""
    for seed in sorted(SEEDS, key=len)[-12:]:
        whole = _decode(seed)
        for end in range(len(seed) if whole is not None else 0):
            part = _decode(seed[:end])
            if whole is not None and part is not None:
                assert forms(part.instructions()) == forms(whole.instructions()[: len(part)])


def _decode(data: bytes) -> Changeset | None:
    """Decode, or give nothing for bytes refused by our own error with an offset in them."""
    try:
        return Changeset.decode(data)
    except BadChangesetError as error:
        offset = error.offset
    assert offset is not None
    assert 0 <= offset < len(data)
    return None
