"""The golden queries again, on a real snapshot of the store with the fixture's objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from realmframe.changes import Changeset
from realmframe.changes.instructions import CreateObject, Instruction
from realmframe.errors import QueryError
from realmframe.query import parse
from realmframe.store import Snapshot, apply, schema_changeset, value_instructions


@pytest.fixture(scope="module")
def snapshot(source: Any) -> Snapshot:
    """Build a snapshot of the fixture by changesets."""
    schema = source.schema
    rows: list[Instruction] = []
    for name, keys in source.keys.items():
        rows += [CreateObject(name, key) for key in keys]
    for name, keys in source.keys.items():
        for position, key in enumerate(keys):
            for prop in schema[name].columns.values():
                value = source.tables[name][prop.name][position]
                rows += value_instructions(schema, name, key, prop, value)
    state = apply(Snapshot.empty(), schema_changeset(schema)).snapshot
    return apply(state, Changeset.from_instructions(rows)).snapshot


def test_results(snapshot: Snapshot, source: Any, golden: list[dict[str, Any]]) -> None:
    """Every golden query gives the engine's keys in its order, or its kind of error."""
    wrong = []
    for line in golden:
        try:
            bound = parse(line["query"], *line["args"]).bind(snapshot.schema, line["class"])
            got: Any = [source.keys[line["class"]][r] for r in bound.rows(snapshot)]
        except QueryError as error:
            got = error.kind
        if got != line.get("error_kind", line.get("pks")):
            wrong.append((line["query"], got))
    assert not wrong


def test_one_object(snapshot: Snapshot, golden: list[dict[str, Any]]) -> None:
    """Asking about one object at a time gives the same as asking about all."""
    for line in golden[::5]:
        if "error_kind" in line:
            continue
        query = parse(line["query"], *line["args"])
        if query.tree.orderings:
            continue
        bound = query.bind(snapshot.schema, line["class"])
        count = snapshot.num_rows(line["class"])
        single = [r for r in range(count) if len(bound.rows(snapshot, np.array([r])))]
        assert bound.rows(snapshot).tolist() == single, line["query"]
