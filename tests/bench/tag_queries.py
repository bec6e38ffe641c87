"""Tags at size: build an index from lines of JSON, ask it here and over a line, against scans.

``python -m tests.bench.tag_queries [--posts 200000] [--tags N]`` makes metadata (kept for the next
run), builds the index as a publish does, and asks six questions of five words: in this machine's
cache, by the command from a server on loopback, and by linear scans of the same lines with DuckDB
(if it is installed: ``pip install --group bench``) and with a loop in Python.  All must answer
alike.  It prints a table with the figures that are required, writes figures.json beside the
metadata, and exits with 1 if answers differ or, at five million posts, a requirement is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from msgspec.structs import replace

from manifests.framed import decode_framed
from manifests.metadata.columns import COLUMNS
from manifests.model import Descriptor
from manifests.paths import Layout
from manifests.tagindex.build import KIND, IndexBuilder
from server.commands.init import init_repository
from server.publishing.crew import Crew
from server.publishing.framing import FramedObject
from server.publishing.metadata import Metadata
from server.publishing.order import Order
from server.publishing.publication import Publication
from server.publishing.reading import read_batches
from server.repository import Repository
from server.signing import Settings
from syncclient.hosts import Hosts
from syncclient.output import Output
from syncclient.searching import HostedFrames, Searcher, date_of
from syncclient.searching import Question as Search
from syncclient.sources.host import HttpOptions
from tests.bench.tag_posts import Shape, make, shards
from tests.bench.tag_scans import Question, questions, scan_with_duckdb, scan_with_python
from tests.support.commands import client, serving

_JUDGED_POSTS: Final = 5_000_000
_JOBS: Final = 2
_WARM_RUNS: Final = 9
_TREE_FILES: Final = 64
_DATE_S: Final = 1_640_995_200
_LAYOUT: Final = Layout(buckets=16, digits=4)
_MB: Final = 1e6

T = TypeVar("T")
Table: TypeAlias = dict[str, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An index: seconds, of processors too, the sum of all peaks, and bytes by section."""

    seconds: float
    parent_cpu_s: float
    workers_cpu_s: float
    peak_bytes: int
    workers_peak_bytes: int
    posts: int
    instances: int
    sections: dict[str, int]
    descriptor: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question on the index in this machine's cache: milliseconds, and the ids."""

    cold_ms: float
    warm_ms: float
    peak_bytes: int
    ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One run of the command: what its summary says, and seconds from its start to its end."""

    received_bytes: int
    requests: int
    seconds: float
    wall_s: float
    ids: list[int]


class Line(NamedTuple):
    """One figure, and what it must be ``below`` (or reach)."""

    name: str
    value: float
    unit: str = ""
    required: float | None = None
    below: bool = True

    @property
    def is_missed(self) -> bool:
        """Whether it is not what is required."""
        if self.required is None:
            return False
        return (self.value >= self.required) if self.below else (self.value < self.required)

    def __str__(self) -> str:
        """One line of the table."""
        text = f"{self.name:<32} {self.value:>12,.2f} {self.unit:<16}"
        if self.required is None:
            return text.rstrip()
        sign, verdict = "<" if self.below else ">=", "MISSED" if self.is_missed else "kept"
        return f"{text} {sign} {self.required:<9,g} {verdict}"


def _peak_bytes(pid: int | str = "self") -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(match[1]) * 1024 if match else 0


def _cpu_s(pid: int | str = "self") -> float:
    """Processor seconds of a process, in and out of the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _in_fresh_process(work: Callable[..., T], *args: object) -> T:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(work, *args).result()


# ----------------------------------------------------------------------------------- building


def publish(folder: Path, metadata: Path) -> Built:
    """Build the index as a publish does, then publish it with a few files and no rows."""
    repo, tree = folder / "repo", folder / "source"
    for old in (repo, folder / "repo-keys", tree):
        shutil.rmtree(old, ignore_errors=True)
    for number in range(1, _TREE_FILES + 1):
        path = tree / _LAYOUT.entry_path("original", number, "dat").text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    settings = Settings(dataset="bench", layout=_LAYOUT)
    signing = init_repository(repo, settings=settings, now=datetime.now(UTC))
    repository = Repository(root=repo)
    with repository.locked(), Crew(_JOBS) as crew:
        order = Order(release="bench", tree=tree, date=_DATE_S)
        publication = Publication(signing, order, crew, Output("publish", verbosity=-1))
        draft = publication.prepare()
        started, cpu_before_s, builder = time.perf_counter(), _cpu_s(), IndexBuilder()
        for block, content, faults in read_batches([metadata], crew):
            if faults:
                raise SystemExit(f"made rows are faulty: {faults[0]}")
            builder.add(block.kind, content)
        with FramedObject(repository, KIND) as made:
            ref = made.finish(builder.finish(made.writer))
        seconds = time.perf_counter() - started
        parent_cpu_s = _cpu_s() - cpu_before_s
        pids = [child.pid for child in multiprocessing.active_children() if child.pid]
        workers, workers_cpu_s = sum(map(_peak_bytes, pids)), sum(map(_cpu_s, pids))
        published = publication.finish(replace(draft, metadata=Metadata(tag_index=ref)))
    with (repo / "objects" / ref.digest.hex[:2] / ref.digest.hex).open("rb") as file:
        file.seek(ref.header_span[0])
        header = decode_framed(file.read(), ref, KIND, "index")
    sizes = {name: int(held.lengths.sum()) for name, held in header.sections.items()}
    return Built(
        seconds=seconds,
        parent_cpu_s=parent_cpu_s,
        workers_cpu_s=workers_cpu_s,
        peak_bytes=_peak_bytes() + workers,
        workers_peak_bytes=workers,
        posts=header.about.uint("posts"),
        instances=header.about.uint("instances"),
        sections={**sizes, "header": ref.header_bytes},
        descriptor=published.descriptor.encode(),
    )


# ----------------------------------------------------------------------------------- asking


def answer(repo: Path, descriptor: bytes, text: str) -> Answered:
    """One question by the code of a tree, all frames on this disk: first alone, then again."""

    async def asked() -> Answered:
        release = Descriptor.decode(descriptor)
        question, times_s = Search(query=text), list[float]()
        hosts = Hosts((), HttpOptions(), 1)
        started = time.perf_counter()
        # Objects lie in a repository as they do in a cache.
        searcher = await Searcher.open(HostedFrames(release, repo / "objects", hosts))
        ids = await searcher.find(question, date_of(release))
        cold_s = time.perf_counter() - started
        for _ in range(_WARM_RUNS):
            started = time.perf_counter()
            await searcher.find(question, date_of(release))
            times_s.append(time.perf_counter() - started)
        return Answered(
            cold_ms=1000 * cold_s,
            warm_ms=1000 * statistics.median(times_s),
            peak_bytes=_peak_bytes(),
            ids=ids.tolist(),
        )

    return asyncio.run(asked())


def ask_command(cache: Path, text: str, *where: object) -> Asked:
    """One question by the command, with what is in a cache."""
    started = time.perf_counter()
    summary = client(
        "search",
        text,
        *where,
        XDG_CACHE_HOME=str(cache),
        # With compiled modules, as an installed command has them.
        PYTHONDONTWRITEBYTECODE="",
        PYTHONPYCACHEPREFIX=str(cache.parent / "python"),
    ).summary
    wall_s = time.perf_counter() - started
    return Asked(
        received_bytes=summary["bytes_received"],
        requests=summary["requests"],
        seconds=summary["seconds"],
        wall_s=wall_s,
        ids=summary["ids"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OverALine:
    """By question: with an empty cache, then after the first and those before, then in a tree."""

    first: list[Asked]
    later: list[Asked]
    tree: list[Asked]


def ask_over_a_line(folder: Path, asked: Sequence[Question]) -> OverALine:
    """Every question as the first, then all in one cache, then in a tree that has the frames."""
    caches = folder / "caches"
    for old in (caches, folder / "tree"):
        shutil.rmtree(old, ignore_errors=True)
    with serving(folder / "repo") as url:
        where = ("--url", url)
        ask_command(caches / "start", "1girl", *where)
        first = [ask_command(caches / one.name, one.text, *where) for one in asked]
        # What a user has who asked the first question.
        ask_command(caches / "all", asked[0].text, *where)
        later = [ask_command(caches / "all", one.text, *where) for one in asked]
        client("clone", url, folder / "tree")
        for one in asked:
            ask_command(caches / "tree", one.text, "--dir", folder / "tree")
    # Offline.
    tree = [ask_command(caches / "tree", one.text, "--dir", folder / "tree") for one in asked]
    return OverALine(first=first, later=later, tree=tree)


# ----------------------------------------------------------------------------------- telling


def lines_of_build(built: Built) -> list[Line]:
    """Speed, memory and size."""
    held, posts = built.sections, built.posts
    lists = sum(held[name] for name in ("postings", "names", "first_names"))
    columns = sum(held.get(name, 0) for name in ("id", *COLUMNS))
    return [
        Line("build", posts / built.seconds, "posts/s", 20_000, below=False),
        Line("processor time of the publisher", built.parent_cpu_s, "s"),
        Line("of both workers", built.workers_cpu_s, "s"),
        Line("build, peaks of all processes", built.peak_bytes / 1e9, "GB", 4),
        Line("of these, two workers", built.workers_peak_bytes / 1e9, "GB"),
        Line("tags a post", built.instances / posts),
        Line("postings and dictionary", lists / built.instances, "bytes/instance", 2),
        Line("columns with md5", columns / posts, "bytes/post", 40),
        Line("of these, md5", held["md5"] / posts, "bytes/post"),
        Line("sources, apart", held["source"] / posts, "bytes/post"),
        Line("header", held["header"] / _MB, "MB"),
        Line("index", sum(held.values()) / _MB, "MB"),
    ]


def table_of_answers(answers: Sequence[Answered], line: OverALine) -> Table:
    """By figure, a value for each question."""
    return {
        "posts found": [len(one.ids) for one in answers],
        "new process, ms": [one.cold_ms for one in answers],
        "warm, ms": [one.warm_ms for one in answers],
        "memory, MB": [one.peak_bytes / _MB for one in answers],
        "first, MB": [one.received_bytes / _MB for one in line.first],
        "first, requests": [one.requests for one in line.first],
        "first, s": [one.seconds for one in line.first],
        "first, whole command, s": [one.wall_s for one in line.first],
        "later, MB": [one.received_bytes / _MB for one in line.later],
        "later, requests": [one.requests for one in line.later],
        "later, s": [one.seconds for one in line.later],
        "in a tree, s": [one.seconds for one in line.tree],
        "in a tree, whole command, s": [one.wall_s for one in line.tree],
    }


def lines_of_answers(table: Table) -> list[Line]:
    """The worst of all questions."""
    return [
        Line("warm, slowest question", max(table["warm, ms"]), "ms", 50),
        Line("first question, most received", max(table["first, MB"]), "MB", 15),
        Line("first question, slowest", max(table["first, s"]), "s", 2),
        Line("later question, most received", max(table["later, MB"]), "MB", 1),
    ]


def compare(
    metadata: Path, shape: Shape, asked: Sequence[Question], answers: Sequence[Answered]
) -> tuple[Table, list[str]]:
    """What scans of the lines take, as ratios too, and the questions they answer differently."""
    table: Table = {}
    differing = []
    for name, scan in (("DuckDB", scan_with_duckdb), ("Python", scan_with_python)):
        results = scan(shards(metadata), asked, shape.generation)
        if results is None:
            print(f"{name} is not installed")
            continue
        pairs = list(zip(answers, results, strict=True))
        table[f"{name}, s"] = [result.seconds for result in results]
        table[f"{name} / new process"] = [1000 * two.seconds / one.cold_ms for one, two in pairs]
        table[f"{name} / warm"] = [1000 * two.seconds / one.warm_ms for one, two in pairs]
        differing += [
            f"{question.name} ({name})"
            for question, (own, result) in zip(asked, pairs, strict=True)
            if result.ids != own.ids
        ]
    return table, differing


def _text_of(table: Table, names: Sequence[str]) -> str:
    heads = " " * 28 + "".join(f"{name:>14}" for name in names)
    rows = [f"{name:<28}" + "".join(f"{value:>14,.2f}" for value in table[name]) for name in table]
    return "\n".join([heads, *rows])


def run(folder: Path, shape: Shape, *, scans: bool) -> int:
    """The whole benchmark in a folder; the exit code."""
    metadata = folder / "metadata"
    started = time.perf_counter()
    if make(metadata, shape):
        print(f"metadata made in {time.perf_counter() - started:.0f} s")
    size_bytes = sum(path.stat().st_size for path in shards(metadata))
    print(f"{shape}: {size_bytes / 1e9:.2f} GB of posts; load {os.getloadavg()[0]:.1f}")
    asked = questions(shape)
    built = _in_fresh_process(publish, folder, metadata)
    lines = lines_of_build(built)
    print("\n".join(map(str, lines)), f"\nload {os.getloadavg()[0]:.1f}", flush=True)
    answers = [
        _in_fresh_process(answer, folder / "repo", built.descriptor, one.text) for one in asked
    ]
    line = ask_over_a_line(folder, asked)
    table = table_of_answers(answers, line)
    told = lines_of_answers(table)
    print("\n".join([*map(str, told), *(f"{one.name}: {one.text}" for one in asked)]))
    differing = [
        f"{one.name} (command)"
        for one, own, *others in zip(
            asked, answers, line.first, line.later, line.tree, strict=True
        )
        if any(other.ids != own.ids for other in others)
    ]
    if scans:
        print(f"load {os.getloadavg()[0]:.1f}", flush=True)
        compared, more = compare(metadata, shape, asked, answers)
        table, differing = {**table, **compared}, [*differing, *more]
    load = os.getloadavg()[0]
    print(_text_of(table, [one.name for one in asked]))
    print(f"load {load:.1f}; answers that differ: {', '.join(differing) or 'none'}")
    figures: dict[str, Any] = {
        "shape": asdict(shape),
        "posts_bytes": size_bytes,
        "load": load,
        "seconds_of_build": built.seconds,
        "sections": built.sections,
        "queries": {one.name: one.text for one in asked},
        "figures": [one._asdict() for one in (*lines, *told)],
        "by_query": table,
        "differing": differing,
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    missed = shape.posts >= _JUDGED_POSTS and any(one.is_missed for one in (*lines, *told))
    return 1 if differing or missed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--posts", type=int, default=200_000)
    parser.add_argument("--tags", type=int, help="different tags; default: a tenth of the posts")
    parser.add_argument("--tags-per-post", type=float, default=32.0)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--generation", type=int, choices=(2021, 2017), default=2021)
    parser.add_argument("--no-scans", action="store_true", help="leave DuckDB and Python out")
    parser.add_argument("--dir", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--clean", action="store_true", help="keep nothing in that folder")
    args = parser.parse_args(arguments)
    shape = Shape(
        posts=args.posts,
        tags=args.tags or args.posts // 10,
        tags_per_post=args.tags_per_post,
        seed=args.seed,
        generation=args.generation,
    )
    base = args.dir or Path(tempfile.gettempdir(), "bucketsync-tag-queries")
    folder = (
        base
        / f"{shape.generation}-{shape.posts}-{shape.tags}-{shape.tags_per_post:g}-{shape.seed}"
    )
    try:
        return run(folder, shape, scans=not args.no_scans)
    finally:
        if args.clean:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
