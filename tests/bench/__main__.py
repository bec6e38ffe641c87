"""Measure bucketsync beside its peers: ``python -m tests.bench``, or ``make bench``.

The quick default takes four minutes on two cores, and shows mostly what a start costs, 0.4 s of
ours: a look at whether all is well.  ``--full`` takes hours, and is what
docs/explanation/performance.md shows.  A requirement that is missed is marked in the table; with
``--strict`` it also makes the exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from manifests.units import parse_size
from tests.bench.contest import Rules, hold
from tests.bench.disks import may_mount, quiet_writeback
from tests.bench.jobs import JOBS, LONG
from tests.bench.peers import PROGRAMS, installed
from tests.bench.report import (
    Document,
    contest_document,
    machine,
    plain,
    runs_table,
    verdicts_table,
)
from tests.bench.world import MIB, Scale, World

_LISTED_JOBS = f"{', '.join(JOBS)}; the default is all but {', '.join(LONG)}, with --full all"


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--jobs", nargs="+", choices=JOBS, metavar="JOB", help=_LISTED_JOBS)
    add("--peers", nargs="*", choices=PROGRAMS, metavar="PEER", help=", ".join(PROGRAMS))
    add("--full", action="store_true", help="at the size of the documents, all jobs and peers")
    add("--rounds", type=int, help="runs that count, after a warm-up (1; full: 5)")
    add("--files", type=int, help="small files (20,000; full: 200,000)")
    add("--size", type=parse_size, default=10_466, help="their mean (10,466)")
    add("--sigma", type=float, default=0.7, help="of their lognormal sizes; 0: all alike (0.7)")
    add("--buckets", type=int, help="folders that files lie in (one for 200 files, at most 1,000)")
    add("--seed", type=int, default=3, help="of everything that is drawn (3)")
    add("--tiny-files", type=int, help="files with nothing to do (100,000; full: 1,000,000)")
    add("--far-files", type=int, help="files of 100 KB for a far network (2,000; full: 6,000)")
    add("--entries", type=int, default=5_000_000, help="of manifests without files (5,000,000)")
    add("--growth", type=int, nargs="+", help="files to grow to (10,000 100,000; full: 1,000,000)")
    add("--large-bytes", type=parse_size, help="in files of 1 and of 100 MiB (400M; full: 2G)")
    add("--slow", type=float, help="run what takes longer only once, seconds (4; full: 60)")
    add(
        "--limit",
        type=float,
        help="end a run that takes longer, seconds (8; full or a long job: 900)",
    )
    add("--dir", type=Path, help="work there, and leave the data there for the next time")
    add("--json", type=Path, help="write every figure to this file")
    add("--strict", action="store_true", help="exit status 1 if a requirement is missed")
    return parser.parse_args(words)


def scale_of(args: argparse.Namespace) -> Scale:
    """How much there is to do."""
    full = args.full
    return Scale(
        files=args.files or (200_000 if full else 20_000),
        mean_bytes=args.size,
        sigma=args.sigma,
        buckets=args.buckets,
        seed=args.seed,
        large_bytes=args.large_bytes or (2_000 * MIB if full else 400 * MIB),
        far_files=args.far_files or (6_000 if full else 2_000),
        entries=args.entries,
        growth=args.growth or (10_000, 100_000, *((1_000_000,) if full else ())),
        tiny_files=args.tiny_files or (1_000_000 if full else 100_000),
    )


def measure(args: argparse.Namespace, folder: Path) -> Document:
    """Run the jobs, and print the table of each as soon as it is there."""
    scale, here = scale_of(args), installed()
    peers = [name for name in (args.peers if args.peers is not None else PROGRAMS) if name in here]
    rules = Rules(
        rounds=args.rounds or (5 if args.full else 1),
        slow_s=args.slow or (60.0 if args.full else 4.0),
        limit_s=args.limit or (900.0 if args.full or set(args.jobs or ()) & set(LONG) else 8.0),
        say=_say,
    )
    sizes = {**asdict(scale), "buckets": scale.small_shape().buckets}
    document: Document = {"machine": machine(), "scale": sizes, "contests": []}
    for name in sorted(set(PROGRAMS) - set(here)):
        _say(f"{name} is not installed: left out")
    if not may_mount():
        _say("not root: runs get a new folder, not a new file system")
    jobs = args.jobs or [name for name in JOBS if args.full or name not in LONG]
    with ExitStack() as stack, quiet_writeback():
        world = World(folder, scale, peers, stack)
        for contest in (contest for name in jobs for contest in JOBS[name](world)):
            began_s = time.monotonic()
            _say(f"{contest.name}: {contest.title}")
            found = contest_document(contest, *hold(contest, rules))
            document["contests"].append(found)
            _say(f"{plain(runs_table(found))}\n({time.monotonic() - began_s:.0f} s)\n")
    return document


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Entry point."""
    args = parse()
    # Users keep what their interpreter compiled; so does who is measured.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = args.dir or Path(tempfile.mkdtemp(prefix="bucketsync-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        document = measure(args, folder)
    finally:
        if not args.dir:
            shutil.rmtree(folder)
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    print(plain(verdicts_table(document)))
    missed = any(v["met"] is False for c in document["contests"] for v in c["verdicts"])
    return 1 if args.strict and missed else 0


if __name__ == "__main__":
    # Ended from outside, it still takes its disks down and stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
