"""What the tests of faults found, as a table: the last thing that ``make faults`` prints.

Each test notes its outcome as a line of JSON in the file that the environment names, so that the
workers of xdist share one report; the process that started them draws it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from manifests.units import format_size

VARIABLE = "BUCKETSYNC_FAULTS_REPORT"
_HEADINGS = ("fault", "tried", "survived", "files lost", "wrong bytes", "peak memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a kind of fault: how often it was tried, survived, and at what cost.

    ``lost`` counts files of a user's that are gone, ``wrong`` files whose visible bytes are no
    release's and no user's. ``peak_bytes`` is the memory of the largest process, 0 if unknown.
    """

    kind: str
    tried: int
    survived: int
    lost: int
    wrong: int
    peak_bytes: int

    @property
    def good(self) -> bool:
        """Whether nothing was lost, wrong or not survived."""
        return self.survived == self.tried and not self.lost and not self.wrong

    def __add__(self, other: Outcome) -> Outcome:
        """Both as one, under the name of the first."""
        return Outcome(
            kind=self.kind,
            tried=self.tried + other.tried,
            survived=self.survived + other.survived,
            lost=self.lost + other.lost,
            wrong=self.wrong + other.wrong,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
        )

    @property
    def _cells(self) -> tuple[str, ...]:
        peak = format_size(self.peak_bytes) if self.peak_bytes else "-"
        counts = (self.tried, self.survived, self.lost, self.wrong)
        return (self.kind, *map(str, counts), peak)


class Record(Protocol):
    """The fixture ``record``: notes what came of a fault."""

    def __call__(  # noqa: PLR0913 (the columns of the table)
        self,
        kind: str,
        *,
        tried: int = 1,
        survived: int,
        lost: int = 0,
        wrong: int = 0,
        peak_bytes: int = 0,
    ) -> None:
        """Add a line to the report, if one is written."""


def report_path() -> Path | None:
    """The file of the report, if this run writes one."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def note(outcome: Outcome) -> None:
    """Append to the report; one write, so lines of several processes do not mix."""
    path = report_path()
    if path is not None:
        with path.open("ab", buffering=0) as file:
            file.write(json.dumps(asdict(outcome)).encode() + b"\n")


def outcomes() -> list[Outcome]:
    """What was noted, one outcome a kind, by name."""
    path = report_path()
    if path is None or not path.exists():
        return []
    found: dict[str, Outcome] = {}
    for line in path.read_text().splitlines():
        outcome = Outcome(**json.loads(line))
        found[outcome.kind] = found[outcome.kind] + outcome if outcome.kind in found else outcome
    return [found[kind] for kind in sorted(found)]


def table(found: Iterable[Outcome]) -> list[str]:
    """The lines of the table, the sum last; what is not good ends in an exclamation mark."""
    rows = list(found)
    total = sum(rows, Outcome(kind="all", tried=0, survived=0, lost=0, wrong=0, peak_bytes=0))
    cells = [_HEADINGS, *(row._cells for row in [*rows, total])]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    marks = ["", *("" if row.good else "  !" for row in [*rows, total])]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        + mark
        for row, mark in zip(cells, marks, strict=True)
    ]
