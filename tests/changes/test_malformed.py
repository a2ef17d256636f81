"""What the decoder refuses and takes at the edges of the format, row by row, and how much memory it may take."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest

from realmframe.changes import Changeset
from realmframe.changes import codec as codec_module
from realmframe.changes.instructions import AddInteger, CreateObject, EraseTable, Instruction, Update
from realmframe.errors import BadChangesetError
from realmframe.model import Decimal128, Timestamp

FOO = "3f0003466f6f"
FOO_F = FOO + "3f010166"
#: An Update of field ``f`` of the object 1, up to its value.
SET = FOO_F + "040001010100"

REFUSED = [
    ("opcode cut", "80", 0, "integer|ends"),
    ("unknown opcode", FOO + "0e00", 6, "instruction is unknown"),
    ("opcode of eleven bytes", FOO + "80808080808080808080" + "0100", 6, "integer"),
    ("opcode -1", FOO + "40", 6, "integer"),
    ("string index one too high", FOO + "0101", 6, "string index"),
    ("string index of five bytes, 2^32", FOO + "018080808010", 6, "integer"),
    ("table out of order", FOO + "3f0203466f6f", 6, "out of order"),
    ("string twice", FOO + "3f0103466f6f", 6, "twice"),
    ("string twice, padded numbers", FOO + "3f8100" + "830000"[:4] + "466f6f", 6, "twice"),
    ("empty string twice", "3f0000" + "3f0100", 3, "twice"),
    ("string cut", "3f0005466f", 0, "ends"),
    ("string too long", "3f00f0ffff07" + "41", 0, "too long"),
    ("key of type Bool", FOO + "02000201", 6, "object key"),
    ("key cut", FOO + "02000a0102", 6, "ends"),
    ("value of type GlobalKey", SET + "400000", 10, "type code"),
    ("value of type 12", SET + "0c", 10, "type code"),
    ("value cut", SET + "07010203", 10, "ends"),
    ("default flag missing", SET + "0105", 10, "ends"),
    ("binary of absurd size", SET + "04ffffffffffffffffff01" + "00", 10, "ends"),
    ("string of absurd size", SET + "03ffffffffffffffffff01" + "00", 10, "too long"),
    ("nanoseconds beyond 32 bits", SET + "050080808080" + "0800", 10, "timestamp"),
    ("path longer than the bytes", FOO_F + "0400010101ffffff3f", 10, "ends"),
    ("insert without an index", FOO_F + "080001010100010500", 10, "no index"),
    ("insert below a key without an index", FOO_F + "08000101010140010105" + "00", 10, "no index"),
    ("unknown collection kind", FOO_F + "0b000101010004", 10, "collection kind"),
    ("unknown class kind", FOO + "000003", 6, "class kind"),
    ("prior_size -1", FOO_F + "0a00010101010040", 10, "integer"),
    ("second instruction at fault", FOO + "01000e", 8, "unknown"),
]


@pytest.mark.parametrize(("form", "offset", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(form: str, offset: int, words: str) -> None:
    """Malformed bytes are refused with the offset of the instruction at fault and words that say what is wrong."""
    with pytest.raises(BadChangesetError, match=words) as caught:
        Changeset.decode(bytes.fromhex(form))
    assert caught.value.offset == offset


def _update(value: object, *, is_default: bool = False) -> Update:
    return Update("Foo", 1, "f", (), value, is_default=is_default)  # type: ignore[arg-type]


TAKEN: list[tuple[str, str, list[Instruction]]] = [
    ("opcode of two bytes", FOO + "8100" + "00", [EraseTable("Foo")]),
    ("opcode above eight bits", FOO + "818002" + "00", [EraseTable("Foo")]),
    ("string index padded to five bytes", FOO + "01" + "8080808000", [EraseTable("Foo")]),
    ("key padded to ten bytes", FOO + "0200" + "01" + "81808080808080808000", [CreateObject("Foo", 1)]),
    ("smallest integer", FOO + "020001" + "ffffffffffffffffff40", [CreateObject("Foo", -(1 << 63))]),
    ("largest integer", FOO + "020001" + "ffffffffffffffffff00", [CreateObject("Foo", (1 << 63) - 1)]),
    ("boolean 2 is true", SET + "0202" + "00", [_update(True)]),
    ("default flag -2 is true", SET + "0001"[:2] + "41", [_update(None, is_default=True)]),
    ("type code above eight bits", SET + "818004" + "05" + "00", [_update(5)]),
    ("decimal 64 takes two bytes", SET + "08c0000000" + "00", [_update(Decimal128.from_parts(64, 0, False))]),
    ("negative nanoseconds", SET + "05404000", [_update(Timestamp(-1, -1))]),
    ("a path step of 2^32 wraps", FOO_F + "05000101010180808080" + "1007", [AddInteger("Foo", 1, "f", (0,), 7)]),
    ("any negative step announces a key", FOO_F + "0500010101014501" + "07", [AddInteger("Foo", 1, "f", ("f",), 7)]),
]


@pytest.mark.parametrize(("form", "wanted"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_taken(form: str, wanted: list[Instruction]) -> None:
    """Forms that no encoder writes, but that the protocol allows, are taken; encoding gives the shortest form."""
    changeset = Changeset.decode(bytes.fromhex(form))
    assert changeset.instructions() == wanted
    again = Changeset.from_instructions(wanted, changeset.strings).encode()
    assert changeset.encode() == again
    assert len(again) <= len(form) // 2


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda raw: np.frombuffer(raw, np.uint8)])
def test_takes_any_buffer_without_copying(wrap: object) -> None:
    """Bytes, bytearrays, views and arrays are taken; the heap is the buffer itself."""
    raw = bytes.fromhex(FOO + "0100")
    data = wrap(raw)  # type: ignore[operator]
    changeset = Changeset.decode(data)
    assert changeset.strings == ["Foo"]
    assert np.shares_memory(changeset.heap, np.frombuffer(data, np.uint8))


def test_takes_an_array_with_gaps() -> None:
    """An array whose bytes do not lie together is copied once; everything else holds."""
    raw = bytes.fromhex(FOO + "0100")
    gaps = np.repeat(np.frombuffer(raw, np.uint8), 2)[::2]
    assert Changeset.decode(gaps).instructions() == [EraseTable("Foo")]


SHAPES = {
    "shortest instructions": bytes.fromhex("3f000141") + b"\x01\x00" * 200_000,
    "shortest strings": b"".join(
        b"\x3f" + bytes([0x80 | i & 0x7F, i >> 7 & 0x3F]) + b"\x02" + i.to_bytes(2, "big") if i >= 64 else b""
        for i in range(8000)
    ),
    "one long path": bytes.fromhex("3f00014105000000") + b"\x80\x80\x20" + b"\x00" * 524_288 + b"\x01",
    "zeros": b"\x00" * 400_000,
    "ones": b"\xff" * 400_000,
    "one large value": bytes.fromhex(SET) + b"\x04\x80\x80\xfa\x00" + b"x" * 2_000_000,
}


@pytest.mark.parametrize("name", SHAPES)
def test_memory_is_bounded_by_the_input(name: str) -> None:
    """Whatever the bytes claim, the decoder allocates in proportion to how many there are."""
    data = SHAPES[name]
    Changeset.decode(bytes.fromhex(FOO + "0100"))  # compile first
    tracemalloc.start()
    try:
        try:
            Changeset.decode(data)
        except BadChangesetError:
            assert name in ("zeros", "ones", "one large value", "shortest strings")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150 * len(data) + 1_000_000


def test_colliding_strings_are_still_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the compiled comparison runs out of its budget, the same answer comes from Python's keyed hash."""
    monkeypatch.setattr(codec_module, "number_strings", lambda *_: -1)
    names = [f"s{i}" for i in range(70)]
    good = Changeset.from_instructions([EraseTable(name) for name in names])
    assert Changeset.decode(good.encode()).strings == names
    with pytest.raises(BadChangesetError, match="twice") as caught:
        Changeset.decode(bytes.fromhex(FOO + "3f010161" + "3f0203466f6f"))
    assert caught.value.offset == 10


def test_numbering_gives_up_on_a_small_budget() -> None:
    """The compiled comparison says so when it took more steps than allowed."""
    from realmframe.changes.decode import number_strings

    heap = np.frombuffer(b"abcabc" * 50, np.uint8)
    start, size = np.arange(0, 300, 3), np.full(100, 3)
    slots = np.full(256, -1)
    number = np.empty(100, np.int64)
    assert number_strings(heap, start, size, slots.copy(), number, 1000) == 1
    assert number.tolist() == [0] * 100
    assert number_strings(heap, start, size, slots.copy(), number, 10) == -1


def test_large_changesets_survive() -> None:
    """More instructions, strings and path steps than the first guess has room for."""
    rng = random.Random(7)
    rows: list[Instruction] = [CreateObject("T", f"{i:x}") for i in range(5000)]
    rows += [AddInteger("T", i, "f", tuple(rng.randrange(3) for _ in range(9)), i) for i in range(3000)]
    rows += [EraseTable("T")] * 4000
    data = Changeset.from_instructions(rows).encode()
    assert Changeset.decode(data).instructions() == rows
    assert Changeset.decode(data).encode() == data
