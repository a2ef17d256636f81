"""Queries over ten million rows, beside pandas' ``query`` and a plain numpy mask; and over one object.

Run it as a script: ``python tests/benchmarks/bench_query.py``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from realmframe.model import ObjectSchema, Schema
from realmframe.query import parse

ROWS = 10_000_000
ROUNDS = 5
QUERIES: dict[str, str] = {
    "age > 30": "age > 30",
    "age == 3 and height < 0.5": "age == 3 and height < 0.5",
    "age IN {1, 2, 3}": "age in [1, 2, 3]",
    "name == 'Ann'": "name == 'Ann'",
    "name BEGINSWITH 'A'": "name.str.startswith('A')",
    "name CONTAINS[c] 'O'": "name.str.contains('o', case=False, regex=False)",
}


class Columns:
    """A source of three columns."""

    def __init__(self, rows: int = ROWS) -> None:
        random = np.random.default_rng(7)
        properties = {"_id": "int", "age": "int", "height": "double", "name": "string"}
        self.schema = Schema([ObjectSchema("Person", properties, "_id")])
        names = pa.array(["Alice", "bob", "Carol", "Ann", "Émile", "Zoë"])
        self.columns = {
            "age": pa.chunked_array([pa.array(random.integers(0, 100, rows))]),
            "height": pa.chunked_array([pa.array(random.random(rows))]),
            "name": pa.chunked_array([names.take(pa.array(random.integers(0, 6, rows)))]),
        }
        self.rows = rows

    def num_rows(self, cls: str) -> int:
        """Count."""
        return self.rows

    def column(self, cls: str, field: str) -> pa.ChunkedArray:
        """Give a column."""
        return self.columns[field]

    def values(self, cls: str, field: str, rows: Any) -> list[Any]:
        """Give values."""
        return [self.columns[field][int(r)].as_py() for r in rows]

    def find(self, cls: str, keys: Any) -> Any:
        """Find nothing: there are no links."""
        return np.full(len(keys), -1)


def median(call: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Time a call: median of some rounds after one to warm up, in seconds."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print a line for each query."""
    source = Columns()
    frame = pd.DataFrame({name: column.to_pandas() for name, column in source.columns.items()})
    ages = source.columns["age"].chunk(0).to_numpy()
    print(f"{ROWS:,} rows; numpy: flatnonzero(age > 30) {median(lambda: np.flatnonzero(ages > 30)) * 1e3:.1f} ms")
    one = np.array([ROWS // 2])
    for text, other in QUERIES.items():
        bound = parse(text).bind(source.schema, "Person")
        ours = median(lambda bound=bound: bound.rows(source))
        theirs = median(lambda other=other: frame.query(other), rounds=3)
        single = median(lambda bound=bound: bound.rows(source, one), rounds=500)
        print(
            f"{text:28} {ours * 1e3:8.1f} ms   pandas.query {theirs * 1e3:8.1f} ms   "
            f"ratio {theirs / ours:6.1f}   one object {single * 1e6:5.1f} us"
        )


if __name__ == "__main__":
    main()
