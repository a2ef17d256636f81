"""Runs every vector file of a folder and reports."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from realmframe.conformance.checks import CHECKS, Line, Mismatch, format_of
from realmframe.conformance.queries import QueryCheck
from realmframe.conformance.vectors import Unreadable, scan
from realmframe.errors import RealmError, UsageError

#: Failures shown for each file.
SHOWN: Final = 5
#: Failures kept for each file.
KEPT: Final = 1000


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
        Name of the line, and what is wrong, of the first :data:`KEPT` of them.
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
        more = self.total - self.passed - SHOWN
        if more > 0 and len(self.failures) > SHOWN:
            lines.append(f"    ... and {more} more")
        return "\n".join(lines)

    def fail(self, name: str, reason: str) -> None:
        """Note a failure."""
        if len(self.failures) < KEPT:
            self.failures.append((name, reason))


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
    """Check every vector file in a folder and the folders in it.

    Files are ``*.jsonl`` and ``*.jsonl.gz``; what one holds is told from its first line that is a vector of some
    format. Blank lines and members that are not known are passed over; a line that cannot be read is a failure, and
    the lines after it are checked all the same. Files are read line by line, so that they may be of any size.
    A query file needs its fixture (``NAME_fixture.json``, compressed or not) beside it or in the folder itself.

    Parameters
    ----------
    directory : path
        The folder, or one file.
    out : text stream, optional
        Where each file's report goes as soon as it is known, and the names of files that hold no vectors.

    Returns
    -------
    Report

    Raises
    ------
    UsageError
        If there is no such folder, or no vector file in it.
    """
    folder = Path(directory)
    if not folder.exists():
        raise UsageError(f"{folder} is no folder.", hint="Name the folder that holds the vector files.")
    report = Report()
    for path in _files(folder):
        name = path.name if folder.is_file() else path.relative_to(folder).as_posix()
        found = _run_file(path, name, folder)
        report.files += found
        if out is not None:
            for text in map(str, found) if found else [f"{name}: no vectors, passed over"]:
                print(text, file=out, flush=True)
    if not report.files:
        raise UsageError(
            f"{folder} holds no vector files.", hint="They end in .jsonl or .jsonl.gz, one JSON object per line."
        )
    return report


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.rglob("*") if path.name.endswith((".jsonl", ".jsonl.gz")) and path.is_file())


def _run_file(path: Path, name: str, folder: Path) -> list[FileReport]:
    kind = next((k for k in (format_of(line) for _, line in scan(path) if isinstance(line, dict)) if k), None)
    if kind is None:
        # Whatever it is, it is no vector file; but one that cannot be read at all might have been.
        broken = [found for _, found in scan(path) if isinstance(found, Unreadable)]
        return [_check(name, path, "nothing", _not_a_vector)] if broken else []
    if kind != "rql":
        return [_check(name, path, kind, CHECKS[kind]())]
    try:
        fixture = _fixture(path, folder if folder.is_dir() else path.parent)
        checks = {member: QueryCheck(fixture, member) for member in ("query", "canonical")}
    except (RealmError, OSError, ValueError, LookupError, TypeError) as error:
        return [FileReport(name, sum(1 for _ in scan(path)), 0, [("the fixture", f"cannot be used: {_said(error)}")])]
    reports = [_check(name, path, kind, checks["query"])]
    printed = _check(f"{name}, as printed by the real library", path, kind, checks["canonical"], member="canonical")
    return [*reports, printed] if printed.total else reports


def _not_a_vector(line: Line) -> None:
    raise Mismatch("is no vector of any format")


def _fixture(path: Path, folder: Path) -> dict[str, Any]:
    stem = path.name.removesuffix(".gz").removesuffix(".jsonl")
    # Several files of queries may share one fixture: rql_more.jsonl takes rql_fixture.json if it has none of its own.
    for place in dict.fromkeys((path.parent, folder)):
        for name in dict.fromkeys((stem, stem.partition("_")[0])):
            for ending, opener in ((".json", open), (".json.gz", gzip.open)):
                found = place / f"{name}_fixture{ending}"
                if found.exists():
                    with opener(found, "rt", encoding="utf-8") as file:
                        fixture: dict[str, Any] = json.load(file)
                    return fixture
    raise FileNotFoundError(f"{stem}_fixture.json is not beside it")


def _check(name: str, path: Path, kind: str, check: Callable[[Line], None], *, member: str | None = None) -> FileReport:
    """Check the lines of a file: all of them, or those that have a member."""
    report, start = FileReport(name), time.perf_counter()
    for number, line in scan(path):
        if member is not None and (not isinstance(line, dict) or member not in line or format_of(line) != kind):
            continue
        report.total += 1
        try:
            if not isinstance(line, dict):
                raise Mismatch("is no JSON object" if not isinstance(line, Unreadable) else line.reason)
            if format_of(line) != kind:
                raise Mismatch("is no vector of any format" if kind == "nothing" else f"is no {kind} vector")
            check(line)
        except Mismatch as found:
            report.fail(_name(line, number), str(found))
        except Exception as error:
            report.fail(_name(line, number), _said(error))
        else:
            report.passed += 1
    report.seconds = time.perf_counter() - start
    return report


def _name(line: Any, number: int) -> str:
    if isinstance(line, dict) and "name" in line:
        return str(line["name"])
    where = f"line {number}"
    return f"{where} on {line['class']}" if isinstance(line, dict) and "class" in line else where


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"has no member {error.args[0]!r}" if error.args else "misses a member"
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a command; return the exit status: 1 if anything fails, 2 for a wrong call."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        print("usage: realmframe conformance DIR", file=sys.stderr)
        return 2
    report = run(arguments[0], out=sys.stdout)
    print(f"{report.passed}/{report.total} passed in {len(report.files)} files")
    return 0 if report else 1
