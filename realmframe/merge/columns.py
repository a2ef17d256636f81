"""What all rows of a window are about, in columns; searched, not read through, for a few rows of the other side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from realmframe.changes.columns import IS_SCHEMA
from realmframe.merge.join import ERASE_OBJECT, HAS_PATH, Rows, joined

#: Opcode of rows that are gone: no instruction's.
NO_ROW: Final = 255
#: Fewer rows are read through.
FEW: Final = 4096
#: One row of the other side is searched for rather than met by so many in a loop.
RATIO: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """Hashes in order, and where each stands."""

    hashes: Any
    places: Any

    @classmethod
    def of(cls, hashes: Any, places: Any) -> _Index:
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], places[order])

    def find(self, wanted: Any) -> tuple[Any, Any]:
        """Give which of some hashes are there, and all places of these."""
        low, high = (np.searchsorted(self.hashes, wanted, side) for side in ("left", "right"))
        counts = high - low
        steps = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return counts > 0, self.places[np.repeat(low, counts) + steps]


class Columns:
    """Arrays that grow at one end and shrink at the other."""

    def __init__(self) -> None:
        empty = np.empty(0, np.uint64)
        self._arrays: list[Any] = [np.empty(0, np.uint8), empty, empty, empty, empty]
        self._start = self._stop = 0
        #: The place of the first row; places are never used again.
        self.begin = 0
        #: Rows of the schema.
        self._schema = 0
        #: Up to which place there are indexes: of fields, of objects, and of objects that are erased.
        self._indexed = 0
        self._indexes: dict[str, _Index] = {}

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def end(self) -> int:
        """The place of the next row."""
        return self.begin + len(self)

    def append(self, rows: Rows) -> None:
        """Add rows to the end."""
        size = len(rows.op)
        if self._stop + size > len(self._arrays[0]):
            room = 2 * (len(self) + size) + 64
            for n, array in enumerate(self._arrays):
                self._arrays[n] = np.empty(room, array.dtype)
                self._arrays[n][: len(self)] = array[self._start : self._stop]
            self._start, self._stop = 0, len(self)
        for array, column in zip(self._arrays, rows, strict=True):
            array[self._stop : self._stop + size] = column
        self._stop += size
        self._schema += int(IS_SCHEMA[rows.op].sum())

    def forget(self, end: int) -> None:
        """Forget rows before a place."""
        count = end - self.begin
        self._schema -= int(IS_SCHEMA[self.rows().op[:count]].sum())
        self._start += count
        self.begin = end

    def rows(self, first: int | None = None) -> Rows:
        """Give what is there, from a place on; opcodes may be written."""
        start = self._start + (0 if first is None else first - self.begin)
        return Rows(*(array[start : self._stop] for array in self._arrays))

    def joined(self, left: Rows) -> tuple[Any, Any] | None:
        """Mark what may conflict with rows of the other side, as :func:`~realmframe.merge.join.joined` does."""
        if len(self) < FEW or len(left.op) * RATIO > len(self) or self._schema or IS_SCHEMA[left.op].any():
            return joined(left, self.rows())
        if self._indexed < self.begin or (self.end - self._indexed) * 8 > len(self):
            self._indexed, self._indexes = self.end, {}
        marks = np.zeros(len(left.op), np.bool_), np.zeros(len(self), np.bool_)
        fields, erases = np.flatnonzero(HAS_PATH[left.op]), np.flatnonzero(left.op == ERASE_OBJECT)
        self._mark("fields", left.of_field, fields, marks)
        self._mark("objects", left.of_object, erases, marks)
        self._mark("erased", left.of_object, np.arange(len(left.op)), marks)
        newer = joined(left, self.rows(self._indexed)) if self._indexed < self.end else None
        if newer is not None:
            marks[0][:] |= newer[0]
            marks[1][self._indexed - self.begin :] |= newer[1]
        return marks if marks[0].any() and marks[1].any() else None

    def _mark(self, name: str, hashes: Any, rows: Any, marks: tuple[Any, Any]) -> None:
        if not len(rows):
            return
        wanted, numbers = np.unique(hashes[rows], return_inverse=True)
        known, places = self._index(name).find(wanted)
        places = places[places >= self.begin]
        marks[1][places - self.begin] = True
        marks[0][rows[known[numbers]]] = True

    def _index(self, name: str) -> _Index:
        found = self._indexes.get(name)
        if found is None:
            rows = self.rows()
            wanted = {"fields": HAS_PATH[rows.op], "erased": rows.op == ERASE_OBJECT, "objects": rows.op != NO_ROW}[
                name
            ]
            here = np.flatnonzero(wanted[: self._indexed - self.begin])
            hashes = (rows.of_field if name == "fields" else rows.of_object)[here]
            found = self._indexes[name] = _Index.of(hashes, here + self.begin)
        return found
