"""The results as a value that is written as JSON, and as tables for people.

``python -m tests.bench.report RESULTS.json…`` writes the tables between the marks in
docs/explanation/performance.md anew, and the picture: no figure there is written by hand.  Several
files are runs one after another, each under its own conditions.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.contest import Contest, Result
from tests.bench.disks import MOUNT_OPTIONS, may_mount
from tests.bench.peers import BARE, PROGRAMS
from tests.bench.plot import draw
from tests.support.needs import find_program, path_of

Document = dict[str, Any]
_MARKS = {True: "met", False: "MISSED", None: ""}


def machine() -> Document:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_bytes": pages,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": _said(["git", "rev-parse", "--short", "HEAD"]),
        "programs": {name: _version(name) for name in PROGRAMS if find_program(name)},
        "disk": f"ext4 in memory, {MOUNT_OPTIONS}" if may_mount() else "a new folder",
    }


def _version(name: str) -> str:
    flag = "-v" if name == "nginx" else "--version"
    return _said([path_of(name), flag]).partition("\n")[0].strip()


def _said(words: Sequence[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def contest_document(
    contest: Contest, results: Mapping[str, Result], failures: Mapping[str, str]
) -> Document:
    """Every run of a contest, and its verdicts."""
    return {
        "name": contest.name,
        "title": contest.title,
        "files": contest.files,
        "size_bytes": contest.size_bytes,
        "contestants": {
            name: {
                "warm_up": result.warm_up.as_json(),
                "runs": [run.as_json() for run in result.runs],
                "median_s": result.median("wall_s"),
            }
            for name, result in results.items()
        },
        "failures": dict(failures),
        "verdicts": [
            verdict.as_json() for claim in contest.claims for verdict in claim.judge(results)
        ],
    }


def runs_table(contest: Document) -> Iterator[Sequence[str]]:
    """Rows of one contest: a contestant each."""
    yield (
        "",
        "seconds [min-max]",
        "files/s",
        "MB/s",
        "client cpu-s",
        "server cpu-s",
        "memory",
        "n",
    )
    for name, found in contest["contestants"].items():
        runs, middle = found["runs"], found["median_s"]
        walls = [run["wall_s"] for run in runs]
        peak = found["warm_up"]["peak_bytes"] / 1e6
        yield (
            name,
            f"{middle:.2f} [{min(walls):.2f}-{max(walls):.2f}]",
            f"{contest['files'] / middle:,.0f}",
            f"{contest['size_bytes'] / middle / 1e6:,.0f}",
            f"{_median(runs, 'cpu_s'):.2f}",
            f"{_median(runs, 'server_cpu_s'):.2f}",
            f"{peak:,.0f} MB" if peak else "",
            str(len(runs)),
        )
    for name, why in contest["failures"].items():
        yield (name, f"failed: {why.splitlines()[0][:60]}", "", "", "", "", "", "0")


def _median(runs: Sequence[Document], name: str) -> float:
    return statistics.median(float(run[name]) for run in runs)


def verdicts_table(document: Document) -> Iterator[Sequence[str]]:
    """Rows of all contests: a verdict each."""
    yield ("job", "", "reached", "[min-max]", "required", "stretch", "", BARE)
    for contest in document["contests"]:
        for verdict in contest["verdicts"]:
            bound = "≤ " if verdict["at_most"] else ""
            yield (
                contest["name"],
                verdict["label"],
                f"{figure(verdict['figure'])} {verdict['unit']}".strip(),
                f"[{figure(verdict['low'])}-{figure(verdict['high'])}]",
                "" if verdict["required"] is None else bound + figure(verdict["required"]),
                "" if verdict["stretch"] is None else bound + figure(verdict["stretch"]),
                _MARKS[verdict["met"]],
                "" if verdict["bound"] is None else figure(verdict["bound"]),
            )


def figure(value: float) -> str:
    """A number with as many digits as mean anything."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def plain(rows: Iterator[Sequence[str]]) -> str:
    """Rows in columns."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)


# ------------------------------------------------------------------------------- the document

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/performance.md"
PICTURE = PAGE.parents[1] / "images" / "bench.svg"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def markdown(rows: Iterator[Sequence[str]]) -> str:
    """Rows as a table of Markdown, the first one its head."""
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def joined(documents: Sequence[Document]) -> Document:
    """The contests of several runs."""
    return {"contests": [one for document in documents for one in document["contests"]]}


def section(documents: Sequence[Document]) -> str:
    """What stands between the marks: verdicts, then where and how it was, and every contest."""
    picture = f"![How many times as fast](../images/{PICTURE.name})"
    parts = [picture, markdown(verdicts_table(joined(documents)))]
    for document in documents:
        parts.append(_conditions(document))
        for contest in document["contests"]:
            parts += [f"**{contest['name']}**: {contest['title']}.", markdown(runs_table(contest))]
    return "\n\n".join(parts)


def _conditions(document: Document) -> str:
    here, scale = document["machine"], document["scale"]
    lines = [
        f"Measured at commit {here['commit']} on {here['cores']} cores of {here['processor']},",
        f"{here['memory_bytes'] / 2**30:.0f} GiB, Linux {here['kernel']},",
        f"Python {here['python']}; each run on {here['disk']}. Small files: {scale['files']:,} of",
        f"{scale['mean_bytes']:,} bytes on average in {scale['buckets']:,} buckets.",
        f"Beside: {'; '.join(here['programs'].values())}.",
    ]
    return "\n".join(lines)


def write_page(documents: Sequence[Document], page: Path = PAGE, picture: Path = PICTURE) -> None:
    """Put the section between its marks, and draw the picture.  ValueError without marks."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{section(documents)}\n\n{END}{after}")
    picture.write_text(draw(joined(documents)))


if __name__ == "__main__":
    write_page([json.loads(Path(name).read_text()) for name in sys.argv[1:]])
