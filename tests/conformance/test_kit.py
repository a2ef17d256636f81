"""The kit itself: it passes what holds, and names what does not."""

from __future__ import annotations

import copy
import gzip
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from realmframe.changes import Changeset
from realmframe.conformance import main, run
from realmframe.conformance.checks import Mismatch, check_codec, check_transform, comparable, format_of
from realmframe.conformance.queries import as_meant
from realmframe.conformance.states import state_to_instructions
from realmframe.conformance.vectors import (
    instruction_from_json,
    instruction_to_json,
    plain,
    read_lines,
    state_to_json,
    value_from_json,
    value_to_json,
)
from realmframe.errors import MergeError, UsageError
from realmframe.model import Decimal128, EmbeddedObject, Link, ObjectId, RealmSet, Schema

VECTORS = Path(__file__).parents[1] / "data" / "vectors"
CODEC = {line["name"]: line for line in read_lines(VECTORS / "codec.jsonl.gz")}


def write(path: Path, lines: Sequence[Any]) -> None:
    """Write a vector file."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize("name", ["some.jsonl", "some.jsonl.gz"])
def test_passes_what_holds(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of lines that hold is reported as passed, plain or compressed, with exit status 0."""
    write(tmp_path / name, list(CODEC.values())[:40])
    assert main([str(tmp_path)]) == 0
    assert f"{name}: 40/40 passed" in capsys.readouterr().out


DAMAGE = {
    "strings": lambda line: line["strings"].append("x"),
    "instructions": lambda line: line["instructions"][0].update(table="Bar"),
    "encoded": lambda line: line.update(reencoded=line["hex"] + "0100"),
    "refused": lambda line: line.update(error="is fine"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_names_what_does_not_hold(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line that does not hold is named with what differs, and the exit status is 1."""
    line = copy.deepcopy(CODEC["addtable-0"])
    DAMAGE[what](line)
    write(tmp_path / "codec.jsonl", [CODEC["addtable-1"], line])
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "codec.jsonl: 1/2 passed" in out
    assert f"addtable-0: {'was decoded' if what == 'refused' else what}" in out


def test_says_only_the_first_failures(tmp_path: Path) -> None:
    """Of many failures the first are shown, and how many more there are."""
    wrong = [{**line, "strings": ["no"]} for line in CODEC.values() if "error" not in line][:9]
    write(tmp_path / "codec.jsonl", wrong)
    out = io.StringIO()
    report = run(tmp_path, out=out)
    assert not report
    assert (report.passed, report.total) == (0, 9)
    assert out.getvalue().count("strings") == 5
    assert "and 4 more" in out.getvalue()
    assert str(report).endswith("0/9 passed in 1 files")


def test_damaged_files_are_findings(tmp_path: Path) -> None:
    """A file that cannot be read fails; one of another format is passed over."""
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 50)[:-20])
    write(tmp_path / "other.jsonl", [{"unrelated": 1}])
    write(tmp_path / "empty.jsonl", [])
    report = run(tmp_path)
    assert [(f.file, f.passed, f.total) for f in report.files] == [("broken.jsonl", 0, 1), ("cut.jsonl.gz", 0, 1)]


def test_unreadable_lines_are_findings(tmp_path: Path) -> None:
    """What cannot be read is named by its line, and the lines after it count all the same; blank lines do not."""
    good = json.dumps(CODEC["addtable-0"])
    lines = ["\ufeff" + good, "", "{", "[1]", json.dumps({"unrelated": 1}), '{"hex": 5}', " ", good]
    (tmp_path / "codec.jsonl").write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    (only,) = run(tmp_path).files
    assert (only.passed, only.total) == (2, 7)
    assert [name for name, _ in only.failures] == ["line 3", "line 4", "line 5", "line 6", "line 9"]
    reasons = [reason for _, reason in only.failures]
    for reason, wanted in zip(reasons, ("cannot be read", "no JSON object", "no codec", "", "utf-8"), strict=True):
        assert wanted in reason


def test_members_that_are_missing_or_not_known(tmp_path: Path) -> None:
    """A member that is missing is named; one that is not known is passed over."""
    line = {**CODEC["addtable-0"], "comment": {"x": 1}}
    write(tmp_path / "codec.jsonl", [line, {k: v for k, v in line.items() if k != "strings"}])
    (only,) = run(tmp_path).files
    assert only.passed == 1
    assert only.failures == [("addtable-0", "has no member 'strings'")]


def test_what_is_readable_of_a_cut_file_counts(tmp_path: Path) -> None:
    """A compressed file that ends too early fails, but for the lines before."""
    lines = "".join(json.dumps(line) + "\n" for line in CODEC.values())
    whole = gzip.compress(lines.encode())
    (tmp_path / "codec.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (only,) = run(tmp_path).files
    assert 10 < only.passed < len(CODEC)
    assert only.total == only.passed + len(only.failures)
    assert "cannot be read any further" in only.failures[-1][1]


def test_folders_in_the_folder_and_single_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files in folders below count by their path; a file may be named itself; what is no vector is said."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    write(inner / "codec.jsonl.gz", list(CODEC.values())[:3])
    write(tmp_path / "other.jsonl", [{"unrelated": 1}])
    (tmp_path / "q_fixture.json").write_text(json.dumps(FIXTURE))
    write(inner / "q.jsonl", QUERIES)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "a/b/codec.jsonl.gz: 3/3 passed" in out
    assert "a/b/q.jsonl: 4/4 passed" in out
    assert "other.jsonl: no vectors, passed over" in out
    assert main([str(inner / "codec.jsonl.gz")]) == 0
    assert capsys.readouterr().out.startswith("codec.jsonl.gz: 3/3 passed")


def test_many_failures_take_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first failures are kept; all are counted."""
    monkeypatch.setattr(sys.modules["realmframe.conformance.run"], "KEPT", 7)
    write(tmp_path / "codec.jsonl", [{**CODEC["addtable-0"], "strings": []}] * 20)
    (only,) = run(tmp_path).files
    assert (only.passed, only.total, len(only.failures)) == (0, 20, 7)
    assert "and 15 more" in str(only)


def test_needs_a_folder_with_vectors(tmp_path: Path) -> None:
    """No folder, or one without vectors, is an error that says what is needed; so is a wrong call."""
    with pytest.raises(UsageError, match="no folder"):
        run(tmp_path / "absent")
    with pytest.raises(UsageError, match="no vector files"):
        run(tmp_path)
    assert main([]) == 2


@pytest.mark.parametrize("name", ["codec", "schema", "transform", "merge_state", "apply", "rql"])
def test_tells_formats_by_their_lines(name: str) -> None:
    """Every line of every format is told by its members, whatever the file is called."""
    assert {format_of(line) for line in read_lines(VECTORS / f"{name}.jsonl.gz")} == {name}


def test_queries_need_their_fixture(tmp_path: Path) -> None:
    """A query file without its fixture fails whole, and says what is missing."""
    write(tmp_path / "rql.jsonl", [{"class": "A", "query": "a == 1", "args": [], "pks": []}])
    (only,) = run(tmp_path).files
    assert (only.passed, only.total) == (0, 1)
    assert "rql_fixture.json is not beside it" in only.failures[0][1]


FIXTURE = {
    "classes": {
        "A": {
            "kind": "toplevel",
            "pk": {"name": "_id", "type": "Int", "nullable": False},
            "columns": {"n": {"type": "Int", "nullable": False, "collection": "Single"}},
            "objects": [
                {"pk": {"t": "Int", "v": str(key)}, "fields": {"n": {"t": "Int", "v": str(key % 2)}}}
                for key in (7, 4, 9)
            ],
        }
    }
}
SEVEN, FOUR, NINE = ({"t": "Int", "v": str(key)} for key in (7, 4, 9))
QUERIES = [
    {"class": "A", "query": "n == $0", "args": [{"t": "Int", "v": "1"}], "pks": [SEVEN, NINE], "canonical": "n == 1"},
    {"class": "A", "query": "n IN $0", "args": [[{"t": "Int", "v": "0"}]], "pks": [FOUR], "canonical": "n == 0"},
    {"class": "A", "query": {"bytes": "ff203d3d2035"}, "args": [], "error_kind": "syntax", "error": "bad"},
    {"class": "A", "query": "n ==", "args": [], "error_kind": "syntax", "error": "bad"},
]


def test_queries(tmp_path: Path) -> None:
    """Queries pass by their keys in order or by being refused, also what is no UTF-8; as written and printed."""
    (tmp_path / "q_fixture.json").write_text(json.dumps(FIXTURE))
    write(tmp_path / "q.jsonl", QUERIES)
    report = run(tmp_path)
    assert report, str(report)
    assert [(f.passed, f.total) for f in report.files] == [(4, 4), (2, 2)]
    wrong = [{**QUERIES[0], "pks": [NINE, SEVEN]}, {**QUERIES[0], "error": "bad"}, {**QUERIES[3], "pks": [], "x": 1}]
    wrong[2].pop("error")
    write(tmp_path / "q.jsonl", wrong)
    assert run(tmp_path).files[0].passed == 0


@pytest.mark.parametrize(
    ("printed", "meant"),
    [
        ("a < 30", "a < 30.0"),
        ("a < 70.5", "a < 70.5f"),
        ("full name == 1 SORT(full name ASC)", "full\\ name == 1 SORT(full\\ name ASC)"),
        ('a == "full name 3" and b[3] == T5:0 LIMIT(3)', 'a == "full name 3" and b[3] == T5:0 LIMIT(3)'),
        ("a == NONE {} and b == 1", "a IN NONE {} and b == 1"),
        ("a == nan or a == 1.5", "a == NULL or a == 1.5"),
        ("l geowithin geoBox([-1, 2.5], [3, 4])", "l geowithin geoBox([-1.0, 2.5], [3.0, 4.0])"),
        ("d == 2020-01-01@00:00:00 and o == oid(5f0000000000000000000007) and $0 == 1", None),
    ],
)
def test_what_printed_queries_mean(printed: str, meant: str | None) -> None:
    """What the real library leaves out in print can be put back; nothing else changes."""
    found = list(as_meant(printed, ["full name"]))
    if meant is None:
        assert {text.replace("1.0", "1") for text in found} == {printed}
    else:
        assert meant in found


def test_printed_queries_are_read_as_they_were_meant(tmp_path: Path) -> None:
    """A printed text that lost something passes; one that asks for something else does not."""
    fixture = json.loads(json.dumps(FIXTURE).replace('"n"', '"full name"'))
    (tmp_path / "q_fixture.json").write_text(json.dumps(fixture))
    line = {"class": "A", "query": "full\\ name == 0", "args": [], "pks": [FOUR], "canonical": "full name == 0"}
    write(tmp_path / "q.jsonl", [line])
    assert run(tmp_path)
    write(tmp_path / "q.jsonl", [{**line, "canonical": "full name == 1"}])
    assert [(f.passed, f.total) for f in run(tmp_path).files] == [(1, 1), (0, 1)]


def test_dangling_links_do_not_disturb_the_order_of_sets() -> None:
    """Only one of the states compared marks what dangles; sets are the same either way."""
    links = [{"t": "Link", "table": "U", "pk": {"t": "String", "v": key}} for key in "ab"]
    states = []
    for marked in ([links[0], {**links[1], "dangling": True}], [{**links[0]}, {**links[1]}][::-1]):
        objects = [{"pk": {"t": "Int", "v": "1"}, "fields": {"s": {"t": "Set", "v": marked}}}]
        one = {"pk": {"t": "String", "v": "a"}, "fields": {}}
        states.append(comparable({"T": {"objects": objects}, "U": {"objects": [one]}}))
    assert states[0] == states[1]
    assert states[0]["T"]["objects"][0]["fields"]["s"]["v"][1]["dangling"] is True


TRANSFORMS = list(read_lines(VECTORS / "transform.jsonl.gz"))
MERGED = [line for line in TRANSFORMS if "error" not in line]


def recorded(line: dict[str, Any], *, drop: bool = False, order: bool = True) -> Any:
    """Make a transformer that knows one answer; ``drop`` loses an instruction, ``order`` knows the sides apart."""

    def outputs(name: str) -> list[Changeset]:
        entries = line[name] if isinstance(line[name], list) else [line[name]]
        made = [Changeset.decode(bytes.fromhex(entry["hex"])) for entry in entries]
        return [Changeset.from_instructions(c.instructions()[:-1]) for c in made] if drop else made

    first = line["left"][0] if isinstance(line["left"], list) else line["left"]

    def transform(left: Any, right: Any) -> Any:
        if "error" in line:
            raise MergeError("These cannot be merged.")
        turned = order and left[0].changeset.encode() != Changeset.decode(bytes.fromhex(first["hex"])).encode()
        names = ("right_out", "left_out") if turned else ("left_out", "right_out")
        return outputs(names[0]), outputs(names[1])

    def timed(changeset: Changeset, timestamp: int, file_ident: int) -> Any:
        return SimpleNamespace(changeset=changeset, timestamp=timestamp, file_ident=file_ident)

    return SimpleNamespace(transform=transform, Timed=timed)


def lopsided(line: dict[str, Any]) -> bool:
    """Tell whether the sides, and what becomes of them, differ."""
    return bool(line["left"] != line["right"] and line["left_out"] != line["right_out"])


@pytest.mark.parametrize("several", [False, True])
def test_transform_lines(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right outputs pass, lost instructions and exchanged sides do not; one changeset on a side or several."""
    line = next(one for one in MERGED if isinstance(one["left"], list) is several and lopsided(one))
    monkeypatch.setattr("realmframe.merge", recorded(line), raising=False)
    check_transform(line)
    for wrong in (recorded(line, drop=True), recorded(line, order=False)):
        monkeypatch.setattr("realmframe.merge", wrong, raising=False)
        with pytest.raises(Mismatch, match="_out"):
            check_transform(line)


def test_transform_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that has to fail passes when it fails, and only then."""
    failing = next(one for one in TRANSFORMS if "error" in one)
    monkeypatch.setattr("realmframe.merge", recorded(failing), raising=False)
    check_transform(failing)
    monkeypatch.setattr("realmframe.merge", recorded(MERGED[0]), raising=False)
    with pytest.raises(Mismatch, match="should fail"):
        check_transform(failing)


def test_codec_errors_need_an_offset() -> None:
    """A refusal counts; a byte string that decodes does not."""
    check_codec({"name": "n", "hex": "0e00", "error": "unknown"})
    with pytest.raises(Mismatch):
        check_codec({"name": "n", "hex": "", "error": "unknown"})


def test_instructions_survive_json() -> None:
    """Every instruction of every vector line comes back from JSON as it went in."""
    for line in CODEC.values():
        for form in line.get("instructions", ()):
            assert instruction_to_json(instruction_from_json(form)) == plain(form)


def test_fixture_becomes_instructions() -> None:
    """The query fixture becomes a changeset: classes before columns before objects, in the order listed."""
    with gzip.open(VECTORS / "rql_fixture.json.gz", "rt", encoding="utf-8") as file:
        classes = json.load(file)["classes"]
    instructions = state_to_instructions(classes)
    opcodes = [one.opcode for one in instructions]
    assert opcodes[: len(classes)] == [0] * len(classes)
    columns = sum(len(form["columns"]) for form in classes.values())
    assert set(opcodes[len(classes) : len(classes) + columns]) == {6}
    created = [value_to_json(one.pk) for one in instructions if one.opcode == 2]  # type: ignore[union-attr]
    assert created == [plain(one["pk"]) for form in classes.values() for one in form.get("objects", ())]
    data = Changeset.from_instructions(instructions).encode()
    assert Changeset.decode(data).encode() == data


VALUES = [
    [1, None, True, 1.5, "x", b"\x00", Link("T", "k")],
    RealmSet([1, 2]),
    {"str": Decimal128.from_decimal("1.50"), "t": 1},
    EmbeddedObject({"child": EmbeddedObject({}), "many": [EmbeddedObject({"n": 1})]}),
    "\udcff",
]


@pytest.mark.parametrize("value", VALUES)
def test_values_survive_json(value: Any) -> None:
    """Collections, embedded objects and strings that are no UTF-8 come back as they went in."""
    back = value_from_json(json.loads(json.dumps(plain(value_to_json(value)))))
    assert back == value
    assert type(back) is type(value)


def test_other_values_are_refused() -> None:
    """What no realm holds has no form."""
    with pytest.raises(UsageError, match="object"):
        value_to_json(object())


def test_plain_drops_only_what_informs() -> None:
    """Members for people go, inside collections too; a dictionary's own key of that name stays; sets are sorted."""
    decimal = {"t": "Decimal", "bid": "0" * 32, "str": "0", "coeff": "0", "exp": 0, "neg": False}
    bare = {"t": "Decimal", "bid": "0" * 32}
    form = {"t": "Dictionary", "v": {"str": decimal, "t": {"t": "Set", "v": [{"t": "Null"}, decimal]}}}
    assert plain(form) == {"t": "Dictionary", "v": {"str": bare, "t": {"t": "Set", "v": [bare, {"t": "Null"}]}}}


def test_state_of_a_snapshot() -> None:
    """Classes with their schema members, objects sorted by the text of their keys, embedded classes without objects."""
    schema = Schema(
        [
            {
                "name": "A",
                "primaryKey": "_id",
                "properties": {"_id": "int", "z": "string?[]", "e": "E", "m": "mixed", "o": "objectId"},
            },
            {"name": "E", "embedded": True, "properties": {"n": "int"}},
        ]
    )
    zero = ObjectId(bytes(12))
    rows = [{"_id": key, "z": [None], "e": EmbeddedObject(n=1), "m": 1.0, "o": zero} for key in (10, 9, 100)]

    class Table:
        def __len__(self) -> int:
            return len(rows)

        def row(self, position: int) -> dict[str, Any]:
            return rows[position]

        def key(self, position: int) -> Any:
            return rows[position]["_id"]

    state = state_to_json(SimpleNamespace(schema=schema, table=lambda _: Table()))  # type: ignore[arg-type]
    assert [one["pk"]["v"] for one in state["A"]["objects"]] == ["10", "100", "9"]
    assert state["A"]["objects"][0]["fields"]["e"] == {"t": "Object", "v": {"n": {"t": "Int", "v": "1"}}}
    assert state["A"]["columns"]["m"] == {"type": "Mixed", "nullable": True, "collection": "Single"}
    assert state["A"]["columns"]["z"] == {"type": "String", "nullable": True, "collection": "List"}
    assert state["A"]["columns"]["e"] == {
        "type": "Link",
        "nullable": True,
        "collection": "Single",
        "link_target": "E",
    }
    assert "objects" not in state["E"]
    assert state["E"]["kind"] == "embedded"
