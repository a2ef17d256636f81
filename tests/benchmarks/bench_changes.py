"""Codec throughput on a changeset of a million instructions, beside a plain per-instruction Python decoder.

Run it as a script: ``python tests/benchmarks/bench_changes.py``.
"""

from __future__ import annotations

import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from realmframe.changes import Changeset, concat
from realmframe.changes.instructions import AddColumn, AddTable, CreateObject, Instruction, Update
from realmframe.model import ObjectId, PropertyType, Timestamp

OBJECTS = 125_000
ROUNDS = 9


def make(objects: int = OBJECTS) -> bytes:
    """Encode ``objects`` creations of an object with seven fields: eight instructions each."""
    fields: dict[str, tuple[PropertyType, Callable[[int], Any]]] = {
        "number": (PropertyType.INT, lambda i: i * 7919 % 100_000),
        "delay": (PropertyType.DOUBLE, lambda i: i / 7),
        "carrier": (PropertyType.STRING, lambda i: ("UA", "AA", "B6", "DL", "EV")[i % 5]),
        "tailnum": (PropertyType.STRING, lambda i: f"N{i % 4000:05d}"),
        "cancelled": (PropertyType.BOOL, lambda i: i % 50 == 0),
        "departure": (PropertyType.DATE, lambda i: Timestamp(1_357_000_000 + 60 * i, 0)),
        "plane": (PropertyType.OBJECT_ID, lambda i: ObjectId(struct.pack(">QI", i, i))),
    }
    rows: list[Instruction] = [AddTable("Flight", pk_field="_id", pk_type=PropertyType.INT)]
    rows += [AddColumn("Flight", name, kind) for name, (kind, _) in fields.items()]
    for i in range(objects):
        rows.append(CreateObject("Flight", i))
        rows += [Update("Flight", i, name, (), value(i)) for name, (_, value) in fields.items()]
    return Changeset.from_instructions(rows).encode()


class PlainDecoder:
    """What a decoder looks like that makes one Python tuple for each instruction (of the kinds above)."""

    def __init__(self, data: bytes) -> None:
        self.data, self.pos = data, 0
        self.strings: list[str] = []

    def integer(self) -> int:
        """Read an integer."""
        value = shift = 0
        while True:
            byte = self.data[self.pos]
            self.pos += 1
            if byte < 0x80:
                value |= (byte & 0x3F) << shift
                return -value - 1 if byte & 0x40 else value
            value |= (byte & 0x7F) << shift
            shift += 7

    def raw(self, size: int) -> bytes:
        """Read bytes."""
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def payload(self) -> Any:
        """Read a value."""
        kind = self.integer()
        if kind in (1, 2):
            return self.integer()
        if kind == 3:
            return self.raw(self.integer()).decode()
        if kind == 7:
            return struct.unpack("<d", self.raw(8))[0]
        if kind == 5:
            return Timestamp(self.integer(), self.integer())
        if kind == 10:
            return ObjectId(self.raw(12))
        return None

    def instructions(self) -> list[tuple[Any, ...]]:
        """Read everything."""
        found: list[tuple[Any, ...]] = []
        end, integer, strings = len(self.data), self.integer, self.strings
        while self.pos < end:
            op = integer()
            if op == 63:
                integer()
                strings.append(self.raw(integer()).decode())
                continue
            table = strings[integer()]
            if op == 4:
                integer()
                key, field = integer(), strings[integer()]
                path = [integer() for _ in range(integer())]
                found.append((op, table, key, field, path, self.payload(), integer()))
            elif op == 2:
                integer()
                found.append((op, table, integer()))
            elif op == 0:
                found.append((op, table, integer(), strings[integer()], integer(), integer()))
            else:
                found.append((op, table, strings[integer()], integer(), integer(), integer()))
        return found


def median(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Return the median time of a call in seconds, after one that warms up."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print instructions per second and the ratios to the plain decoder."""
    data = make()
    changeset = Changeset.decode(data)
    count = len(changeset)
    plain_rows = PlainDecoder(data).instructions()
    assert len(plain_rows) == count
    assert changeset.encode() == data
    work: dict[str, tuple[Callable[[], Any], int]] = {
        "plain Python decode": (lambda: PlainDecoder(data).instructions(), 3),
        "decode": (lambda: Changeset.decode(data), ROUNDS),
        "encode": (changeset.encode, ROUNDS),
        "concat of two": (lambda: concat([changeset, changeset]), ROUNDS),
        "instructions()": (lambda: changeset.take(np.arange(count // 8)).instructions(), 3),
    }
    sizes = {"concat of two": 2 * count, "instructions()": count // 8}
    print(f"{count:,} instructions, {len(data) / 1e6:.1f} MB; medians of {ROUNDS} runs")
    base = None
    for name, (call, rounds) in work.items():
        seconds = median(call, rounds)
        rate = sizes.get(name, count) / seconds
        base = base or rate
        print(f"{name:22} {seconds * 1e3:9.1f} ms  {rate / 1e6:8.2f} M instructions/s  {rate / base:7.1f} x plain")


if __name__ == "__main__":
    main()
