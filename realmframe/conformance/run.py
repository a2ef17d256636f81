"""Runs every vector file of a folder and reports."""

from __future__ import annotations

import gzip
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from realmframe.conformance.checks import CHECKS, Line, Mismatch, QueryCheck, format_of
from realmframe.conformance.vectors import read_lines, string_from_json
from realmframe.errors import RealmError, UsageError

#: Failures shown for each file.
SHOWN: Final = 5


@dataclass(slots=True)
class FileReport:
    """What came of one file.

    Attributes
    ----------
    file : str
        Its name, with what was checked where that is not everything.
    total, passed : int
        Lines.
    failures : list of (str, str)
        Name of the line, and what is wrong.
    seconds : float
    """

    file: str
    total: int = 0
    passed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"{self.file}: {self.passed}/{self.total} passed ({self.seconds:.1f} s)"]
        lines += [f"    {name}: {reason}" for name, reason in self.failures[:SHOWN]]
        if len(self.failures) > SHOWN:
            lines.append(f"    ... and {len(self.failures) - SHOWN} more")
        return "\n".join(lines)


@dataclass(slots=True)
class Report:
    """What came of a folder; true if everything passed (and there was anything)."""

    files: list[FileReport] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Lines checked."""
        return sum(f.total for f in self.files)

    @property
    def passed(self) -> int:
        """Lines that hold."""
        return sum(f.passed for f in self.files)

    def __bool__(self) -> bool:
        return bool(self.files) and self.passed == self.total

    def __str__(self) -> str:
        return "\n".join([*map(str, self.files), f"{self.passed}/{self.total} passed in {len(self.files)} files"])


def run(directory: str | Path, *, out: TextIO | None = None) -> Report:
    """Check every vector file in a folder.

    Files are ``*.jsonl`` and ``*.jsonl.gz``; what they hold is told from their first line.
    A query file needs its fixture (``NAME_fixture.json``, compressed or not) beside it.

    Parameters
    ----------
    directory : path
        The folder.
    out : text stream, optional
        Where each file's report goes as soon as it is known.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        If there is no such folder, or no vector file in it.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.", hint="Name the folder that holds the vector files.")
    report = Report()
    for path in sorted((*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz"))):
        for found in _run_file(path):
            report.files.append(found)
            if out is not None:
                print(found, file=out, flush=True)
    if not report.files:
        raise UsageError(
            f"{folder} holds no vector files.", hint="They end in .jsonl or .jsonl.gz, one JSON object per line."
        )
    return report


def _run_file(path: Path) -> list[FileReport]:
    try:
        lines = list(read_lines(path))
    except (OSError, ValueError, EOFError) as error:
        return [FileReport(path.name, 1, 0, [("the file", f"cannot be read: {error}")])]
    kind = format_of(lines[0]) if lines else None
    if kind is None:
        return []
    if kind == "rql":
        return _run_queries(path, lines)
    return [_check(path.name, lines, CHECKS[kind]())]


def _run_queries(path: Path, lines: list[dict[str, Any]]) -> list[FileReport]:
    named = [{"name": f"line {n} on {line['class']}", **line} for n, line in enumerate(lines, 1)]
    printed = [line for line in named if "canonical" in line and not _unreadable(line["canonical"])]
    try:
        fixture = _fixture(path)
        checks = {member: QueryCheck(fixture, member) for member in ("query", "canonical")}
    except (RealmError, OSError, ValueError, LookupError) as error:
        return [FileReport(path.name, len(lines), 0, [("the fixture", f"cannot be used: {error}")])]
    reports = [_check(path.name, named, checks["query"])]
    if printed:
        reports.append(_check(f"{path.name}, as printed by the real library", printed, checks["canonical"]))
    return reports


def _unreadable(text: str | dict[str, str]) -> bool:
    """Tell whether the real library printed what its own parser refuses: a negative coordinate without a point."""
    return re.search(r"\bGeo\w+\(.*-\d+\s*[,\])]", string_from_json(text)) is not None


def _fixture(path: Path) -> dict[str, Any]:
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    # Several files of queries may share one fixture: rql_more.jsonl takes rql_fixture.json if it has none of its own.
    for name in dict.fromkeys((stem, stem.partition("_")[0])):
        for ending, opener in ((".json", open), (".json.gz", gzip.open)):
            found = path.with_name(f"{name}_fixture{ending}")
            if found.exists():
                with opener(found, "rt", encoding="utf-8") as file:
                    fixture: dict[str, Any] = json.load(file)
                return fixture
    raise FileNotFoundError(f"{stem}_fixture.json is not beside it")


def _check(name: str, lines: Sequence[dict[str, Any]], check: Callable[[Line], None]) -> FileReport:
    report, start = FileReport(name, len(lines)), time.perf_counter()
    for number, line in enumerate(lines, 1):
        try:
            check(line)
        except Mismatch as found:
            report.failures.append((line.get("name", f"line {number}"), str(found)))
        except Exception as error:
            report.failures.append((line.get("name", f"line {number}"), f"{type(error).__name__}: {error}"))
        else:
            report.passed += 1
    report.seconds = time.perf_counter() - start
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a command; return the exit status, 1 if anything fails."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        print("usage: realmframe conformance DIR", file=sys.stderr)
        return 2
    report = run(arguments[0], out=sys.stdout)
    print(f"{report.passed}/{report.total} passed in {len(report.files)} files")
    return 0 if report else 1
