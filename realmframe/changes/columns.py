"""The changeset in memory: parallel columns, a string table and a heap.

One row is one instruction. What a column means depends on ``op``:

=================== ===================================================================================
column              meaning
=================== ===================================================================================
``op``              opcode, 0 to 13
``table``           class, as an index into the string table
``field``           property (AddTable: primary-key field), string index, -1 where there is none
``key_type``        type code of the object key (:data:`NO_KEY` for schema instructions)
``key_hi, key_lo``  the key: int in ``lo``; string index in ``lo``; GlobalKey as both words (two's
                    complement); UUID as two big-endian words; ObjectId as its first 8 bytes in ``hi``
                    and its last 4 in ``lo`` (big-endian, ``lo`` unsigned)
``value_type``      type code of the value (AddTable: key type; AddColumn: column type); :data:`NO_VALUE`
                    where there is none
``value_hi, _lo``   the value: Int, Bool and the amount of AddInteger in ``lo``; Float and Double as bits in
                    ``lo``; Timestamp as seconds in ``hi`` and nanoseconds in ``lo``; String and Binary as
                    heap offset in ``hi`` and length in ``lo``; Decimal as the two words of its pattern;
                    ObjectId, UUID like keys; Link: the target's key like a key
``link_table``      target class of a Link value or of AddColumn, string index, else -1
``link_type``       type code of a Link value's key; key type of an AddColumn of dictionaries; else NO_KEY
``aux``             prior_size (ArrayInsert, ArrayMove, ArrayErase, and Update whose path ends with an
                    index); is_default (other Updates); collection kind (Clear); nullable (AddColumn,
                    AddTable)
``aux2``            ndx_2 (ArrayMove); collection kind (AddColumn); class kind (AddTable)
``path_start``      first step of the path in ``path``; ``path_len`` steps
``path_len``
=================== ===================================================================================

``path[i]`` is a list index, or a string index where ``path_is_key[i]``.
String ``i`` of the table is ``heap[string_start[i] : string_start[i] + string_len[i]]``. The heap of a decoded
changeset *is* the bytes that it was decoded from: nothing is copied.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from realmframe.changes.instructions import Instruction

Array: TypeAlias = "npt.NDArray[Any]"

#: ``key_type`` of rows without an object key.
NO_KEY: Final = 127
#: ``value_type`` of rows without a value.
NO_VALUE: Final = 127

#: Name and dtype of each per-instruction column.
COLUMNS: Final[dict[str, str]] = {
    "op": "u1",
    "table": "i4",
    "field": "i4",
    "key_type": "i1",
    "key_hi": "i8",
    "key_lo": "i8",
    "value_type": "i1",
    "value_hi": "i8",
    "value_lo": "i8",
    "link_table": "i4",
    "link_type": "i1",
    "aux": "i8",
    "aux2": "i8",
    "path_start": "i8",
    "path_len": "i4",
}


#: By opcode, whether it changes the schema: AddTable, EraseTable, AddColumn, EraseColumn.
IS_SCHEMA: Final[Array] = np.isin(np.arange(256), (0, 1, 6, 7))
#: A heap of no more bytes is copied to read all strings at once.
_SMALL_HEAP: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Changeset:
    """A changeset as columns; immutable by convention, never written after it was made."""

    op: Array
    table: Array
    field: Array
    key_type: Array
    key_hi: Array
    key_lo: Array
    value_type: Array
    value_hi: Array
    value_lo: Array
    link_table: Array
    link_type: Array
    aux: Array
    aux2: Array
    path_start: Array
    path_len: Array
    path: Array
    path_is_key: Array
    string_start: Array
    string_len: Array
    heap: Array
    _strings: list[str | None] = dataclasses.field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.op)

    def __repr__(self) -> str:
        return f"<Changeset of {len(self)} instructions, {len(self.string_start)} strings>"

    @property
    def is_schema(self) -> Array:
        """Whether each instruction changes the schema."""
        return np.asarray(IS_SCHEMA[self.op])

    @property
    def strings(self) -> list[str]:
        """The string table."""
        if not self._strings and len(self.heap) <= _SMALL_HEAP:
            heap, places = self.heap.tobytes(), zip(self.string_start.tolist(), self.string_len.tolist(), strict=True)
            self._strings.extend(heap[at : at + size].decode("utf-8", "surrogateescape") for at, size in places)
        return [self.string(i) for i in range(len(self.string_start))]

    def string(self, index: int) -> str:
        """One string of the table (bytes that are no UTF-8 survive as ``surrogateescape``)."""
        if not self._strings:
            self._strings.extend([None] * len(self.string_start))
        known = self._strings[index]
        if known is None:
            start, length = int(self.string_start[index]), int(self.string_len[index])
            known = self.heap[start : start + length].tobytes().decode("utf-8", "surrogateescape")
            self._strings[index] = known
        return known

    def instructions(self) -> list[Instruction]:
        """Give the rows as objects (slow: for what is handled one at a time)."""
        from realmframe.changes.rows import columns_to_instructions

        return columns_to_instructions(self)

    @classmethod
    def from_instructions(cls, instructions: Iterable[Instruction], strings: Sequence[str] = ()) -> Changeset:
        """Build from objects. ``strings`` are put first into the string table, used or not."""
        from realmframe.changes.rows import instructions_to_columns

        return instructions_to_columns(instructions, strings)

    @classmethod
    @functools.cache
    def empty(cls) -> Changeset:
        """Give a changeset without instructions."""
        columns: dict[str, Any] = {name: np.empty(0, dtype) for name, dtype in COLUMNS.items()}
        return cls(
            **columns,
            path=np.empty(0, "i8"),
            path_is_key=np.empty(0, "?"),
            string_start=np.empty(0, "i8"),
            string_len=np.empty(0, "i8"),
            heap=np.empty(0, "u1"),
        )

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview | Array) -> Changeset:
        """Read the protocol's bytes.

        Raises
        ------
        BadChangesetError
            With the offset, for any bytes that are no changeset.
        """
        from realmframe.changes.codec import decode

        return decode(data)

    @classmethod
    def blocks(cls, data: bytes | memoryview) -> Iterator[Changeset]:
        """Read the protocol's bytes some rows at a time; a block holds until the next one is asked for.

        Raises
        ------
        BadChangesetError
            As :meth:`decode` does, after the blocks before the fault.
        """
        from realmframe.changes.codec import decode_blocks

        return decode_blocks(data)

    def encode(self) -> bytes:
        """Write the protocol's bytes, strings first."""
        from realmframe.changes.codec import encode

        return encode(self)

    def take(self, rows: Array) -> Changeset:
        """Give the changeset of some rows, in the order given (strings and heap are shared; paths too)."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return Changeset(
            **columns,
            path=self.path,
            path_is_key=self.path_is_key,
            string_start=self.string_start,
            string_len=self.string_len,
            heap=self.heap,
        )
