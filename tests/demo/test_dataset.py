"""The demo's data: real rows in exactly the demo's schema."""

from __future__ import annotations

from realmframe.demo.dataset import COUNTS, SCHEMA, tables


def test_every_class_whole() -> None:
    """Each class has the published number of rows, unique keys, only known columns, no forbidden nulls."""
    SCHEMA.validate()
    seen = {}
    for name, rows in tables():
        seen[name] = rows.num_rows
        assert set(rows.column_names) <= set(SCHEMA[name].properties)
        assert len(rows["_id"].unique()) == rows.num_rows
        for column in rows.column_names:
            assert rows[column].null_count == 0 or SCHEMA[name].properties[column].optional
    assert seen == COUNTS


def test_fewer_flights() -> None:
    """A part of the flights can be asked for."""
    assert dict(tables(7))["Flight"].num_rows == 7
