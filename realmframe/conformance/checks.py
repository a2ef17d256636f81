"""One check for each format of the golden vectors; it raises :class:`Mismatch` saying what differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from realmframe.changes import Changeset, Instruction
from realmframe.conformance.vectors import (
    instruction_from_json,
    instruction_to_json,
    json_text,
    plain,
    state_to_json,
    string_from_json,
)
from realmframe.errors import BadChangesetError, ChangesetError, MergeError

Line = Mapping[str, Any]


class Mismatch(Exception):
    """A line of a vector file does not hold."""


def expect(what: str, found: Any, wanted: Any) -> None:
    """Compare JSON forms; say where they first differ."""
    if found != wanted:
        raise Mismatch(f"{what}: {_difference(found, wanted)}")


def _difference(found: Any, wanted: Any, at: str = "") -> str:
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        for name in wanted:
            if found[name] != wanted[name]:
                return _difference(found[name], wanted[name], f"{at}.{name}")
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
            if one != other:
                return _difference(one, other, f"{at}[{i}]")
    return f"at {at or 'the top'} is {_short(found)}, should be {_short(wanted)}"


def _short(form: Any, limit: int = 300) -> str:
    text = json.dumps(form, ensure_ascii=False, default=str)
    return text if len(text) <= limit else f"{text[:limit]}..."


def forms(instructions: Iterable[Instruction]) -> list[dict[str, Any]]:
    """Give the JSON forms of instructions (they compare by bits, where floats would not)."""
    return [instruction_to_json(one) for one in instructions]


def _decode(text: str) -> Changeset:
    return Changeset.decode(bytes.fromhex(text))


# ---------------------------------------------------------------------------------------------- codec, schema


def check_codec(line: Line) -> None:
    """Decode to the strings and instructions listed, encode to the bytes listed, or refuse with an offset."""
    if "error" in line:
        try:
            _decode(line["hex"])
        except BadChangesetError as error:
            if error.offset is None:
                raise Mismatch("the error names no offset") from None
            return
        raise Mismatch(f"was decoded, should be refused: {line['error']}")
    changeset = _decode(line["hex"])
    strings = [string_from_json(text) for text in line["strings"]]
    wanted = [plain(form) for form in line["instructions"]]
    encoded = line.get("reencoded", line["hex"])
    expect("strings", changeset.strings, strings)
    expect("instructions", forms(changeset.instructions()), wanted)
    expect("encoded", changeset.encode().hex(), encoded)
    built = Changeset.from_instructions((instruction_from_json(form) for form in line["instructions"]), strings)
    expect("built from instructions", forms(built.instructions()), wanted)
    expect("encoded from instructions", built.encode().hex(), encoded)


class SchemaCheck:
    """Checks of schema lines, where ``-stepN`` extends the schema of the line before it."""

    def __init__(self) -> None:
        self._snapshot: Any = None

    def __call__(self, line: Line) -> None:
        """Hold as a codec line does, and apply to the schema listed."""
        check_codec(line)
        self._snapshot = _snapshot([line["hex"]], self._snapshot if "-step" in line["name"] else None)
        expect("schema", _schema_of(state_to_json(self._snapshot)), line["schema"])


def _schema_of(state: dict[str, Any]) -> dict[str, Any]:
    return {name: {k: v for k, v in form.items() if k != "objects"} for name, form in state.items()}


# ---------------------------------------------------------------------------------------------- merge, apply


def _snapshot(texts: Iterable[str], start: Any = None) -> Any:
    from realmframe import store

    snapshot = store.Snapshot.empty() if start is None else start
    for text in texts:
        snapshot = store.apply(snapshot, _decode(text)).snapshot
    return snapshot


def _state(texts: Iterable[str], start: Any = None) -> dict[str, Any]:
    return state_to_json(_snapshot(texts, start))


def _sides(line: Line) -> tuple[Any, Any]:
    from realmframe import merge

    def side(name: str) -> list[merge.Timed]:
        entries = line[name] if isinstance(line[name], list) else [line[name]]
        return [merge.Timed(_decode(e["hex"]), e["timestamp"], e["file_ident"]) for e in entries]

    return side("left"), side("right")


def _expect_outputs(line: Line, name: str, found: Sequence[Changeset]) -> None:
    listed = line[name] if isinstance(line[name], list) else [line[name]]
    texts = [entry["hex"] if isinstance(entry, dict) else entry for entry in listed]
    expect(name, [forms(c.instructions()) for c in found], [forms(_decode(t).instructions()) for t in texts])


def check_transform(line: Line) -> None:
    """Transform the two sides, as listed and exchanged, to the instructions listed; or fail to merge."""
    from realmframe import merge

    left, right = _sides(line)
    if "error" in line:
        try:
            merge.transform(left, right)
        except MergeError:
            return
        raise Mismatch(f"was merged, should fail: {line['error']}")
    left_out, right_out = merge.transform(left, right)
    _expect_outputs(line, "left_out", left_out)
    _expect_outputs(line, "right_out", right_out)
    right_out, left_out = merge.transform(right, left)
    exchanged = line.get("swapped", line)
    _expect_outputs(exchanged, "left_out", left_out)
    _expect_outputs(exchanged, "right_out", right_out)


def check_merge_state(line: Line) -> None:
    """Transform, and reach the final state on both ways."""
    from realmframe import merge, store

    left, right = _sides(line)
    base = _snapshot(line["base"])
    expect("schema", _schema_of(state_to_json(base)), line["schema"])
    left_out, right_out = merge.transform(left, right)
    _expect_outputs(line, "left_out", left_out)
    _expect_outputs(line, "right_out", right_out)
    for way, parts in (("left then right", (left, right_out)), ("right then left", (right, left_out))):
        snapshot = base
        for changeset in (*(timed.changeset for timed in parts[0]), *parts[1]):
            snapshot = store.apply(snapshot, changeset).snapshot
        expect(way, comparable(state_to_json(snapshot)), comparable(line["final_state"]))


def check_apply(line: Line) -> None:
    """Apply to nothing: the state listed, or an error that leaves everything as it was."""
    from realmframe import store

    if "error" not in line:
        expect("state", comparable(_state(line["changesets"])), comparable(line["final_state"]))
        return
    snapshot = store.Snapshot.empty()
    for text in line["changesets"]:
        before = state_to_json(snapshot)
        try:
            snapshot = store.apply(snapshot, _decode(text)).snapshot
        except ChangesetError:
            expect("state after the error", state_to_json(snapshot), before)
            return
    raise Mismatch(f"was applied, should fail: {line['error']}")


def comparable(state: Mapping[str, Any]) -> dict[str, Any]:
    """Sort objects by their keys, elements of sets by their text, and mark what dangles as it is in both states."""
    plain_state: dict[str, Any] = plain(_without_dangling(state))
    for form in plain_state.values():
        if "objects" in form:
            form["objects"] = sorted(form["objects"], key=lambda one: json_text(one["pk"]))
    keys = {name: {json_text(one["pk"]) for one in form.get("objects", ())} for name, form in plain_state.items()}
    _mark_dangling(plain_state, keys)
    return plain_state


def _without_dangling(form: Any) -> Any:
    """Leave the mark out before sets are sorted, because only one of the states has it then."""
    if isinstance(form, list):
        return [_without_dangling(one) for one in form]
    if isinstance(form, dict):
        link = form.get("t") == "Link"
        return {name: _without_dangling(one) for name, one in form.items() if not (link and name == "dangling")}
    return form


def _mark_dangling(form: Any, keys: Mapping[str, set[bytes]]) -> None:
    if isinstance(form, list):
        for one in form:
            _mark_dangling(one, keys)
    elif isinstance(form, dict):
        if form.get("t") == "Link":
            missing = json_text(form["pk"]) not in keys.get(str(form["table"]), ())
            form.update({"dangling": True} if missing else {})
            return
        for one in form.values():
            _mark_dangling(one, keys)


#: What makes the check of one file, for each format but ``rql``.
CHECKS: Final[dict[str, Callable[[], Callable[[Line], None]]]] = {
    "codec": lambda: check_codec,
    "schema": SchemaCheck,
    "transform": lambda: check_transform,
    "merge_state": lambda: check_merge_state,
    "apply": lambda: check_apply,
}


def format_of(line: Line) -> str | None:
    """Tell the format of a line by its members; None if it is of none."""
    if "query" in line and "class" in line:
        return "rql"
    if "changesets" in line:
        return "apply"
    if "base" in line and "left" in line:
        return "merge_state"
    if "left" in line and "right" in line:
        return "transform"
    if "hex" in line:
        return "schema" if "schema" in line else "codec"
    return None
