"""The main job at size: publish two releases of small files, clone, upgrade, verify.

``python -m tests.bench.main_job [--files 200000] [--dir DIR]`` prints a table: seconds, files a
second, requests, bytes on the wire against bytes of the files, and the peak memory of all
processes of each command together.  Sizes are lognormal with a mean of 10.5 KB, as in the
domain's figures; the second release adds a fifth and changes one file in two hundred.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.commands import argv, differences, serving

_POOL_BYTES = 2**24
_BUCKETS = 1000
_SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One command: its summary, seconds of wall time and of processor, peak memory in bytes."""

    summary: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_bytes: int


def make_trees(folder: Path, files: int, seed: int = 3) -> tuple[Path, Path]:
    """Two source trees; files that stay the same are hard links."""
    rng = np.random.default_rng(seed)
    pool = rng.bytes(_POOL_BYTES)
    sizes = np.exp(rng.normal(9, 0.7, 2 * files)).astype(int)
    ids = np.sort(rng.choice(np.arange(1, 2 * files), files, replace=False)).tolist()
    changed = set(rng.choice(ids, files // 200, replace=False).tolist())
    trees = folder / "2020", folder / "2021"
    for tree in trees:
        for bucket in range(_BUCKETS):
            (tree / "original" / f"{bucket:04d}").mkdir(parents=True)

    def path(tree: Path, post_id: int) -> str:
        return f"{tree}/original/{post_id % _BUCKETS:04d}/{post_id}.jpg"

    def write(tree: Path, post_id: int, size_bytes: int, edition: int) -> None:
        start = (post_id * 7919 + edition * 104729) % (_POOL_BYTES - 300_000)
        with open(path(tree, post_id), "wb") as file:  # noqa: PTH123 (hundreds of thousands)
            file.write(b"%d-%d" % (post_id, edition) + pool[start : start + size_bytes])

    for row, post_id in enumerate(ids):
        write(trees[0], post_id, int(sizes[row]), 0)
        if post_id in changed:
            write(trees[1], post_id, int(sizes[row]), 1)
        else:
            os.link(path(trees[0], post_id), path(trees[1], post_id))
    for row in range(files, files + files // 5):
        write(trees[1], 2 * files + row, int(sizes[row]), 0)
    return trees


def _descendants(pid: int) -> list[int]:
    try:
        names = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    found = [int(name) for name in names]
    return [pid, *(below for child in found for below in _descendants(child))]


def _resident(pid: int) -> int:
    """Memory of a process in bytes, shared pages counted in part (Pss)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0")
    return int(line.split()[1]) * 1024


def measure(command: str, *words: object) -> Measured:
    """Run a command, sampling the memory of all its processes."""
    before, started_s, peak = os.times(), time.monotonic(), 0
    process = subprocess.Popen(
        argv(command, *words, "--json", "-q"), stdout=subprocess.PIPE, text=True
    )
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(_SAMPLE_S):
            peak = max(peak, sum(_resident(pid) for pid in _descendants(process.pid)))

    watcher = threading.Thread(target=sample)
    watcher.start()
    with process:
        output, _ = process.communicate()
    ended.set()
    watcher.join()
    wall_s, after = time.monotonic() - started_s, os.times()
    cpu_s = after.children_user + after.children_system
    cpu_s -= before.children_user + before.children_system
    summary = json.loads(output.splitlines()[-1])
    if summary["exit_code"]:
        raise SystemExit(f"{command} {words[0]}: exit code {summary['exit_code']}")
    return Measured(summary=summary, wall_s=wall_s, cpu_s=cpu_s, peak_bytes=peak)


def _line(name: str, files: int, done: Measured) -> None:
    summary = done.summary
    wire = f"{summary['requests']:>6} requests" if "requests" in summary else ""
    print(
        f"{name:<22} {done.wall_s:8.2f} s {files / done.wall_s:10,.0f} files/s "
        f"{done.cpu_s:8.2f} cpu-s {done.peak_bytes / 1e6:7.0f} MB {wire}"
    )


def run(folder: Path, files: int) -> None:
    """The whole job in a folder."""
    trees = make_trees(folder, files)
    repo, tree = folder / "repo", folder / "tree"
    subprocess.run(argv("bucketsync-server", "init", repo, "--dataset", "bench", "-q"), check=True)
    for source in trees:
        words = ("publish", repo, "--release", source.name, "--tree", source)
        done = measure("bucketsync-server", *words)
        _line(f"publish {source.name}", done.summary["files_hashed"], done)
    with serving(repo) as url:
        done = measure("bucketsync", "clone", url, tree, "--release", "2020")
        _line("clone", files, done)
        done = measure("bucketsync", "upgrade", tree)
        got = done.summary
        moved = got["files_added"] + got["files_changed"]
        _line("upgrade", moved, done)
        share = got["bytes_received"] / got["bytes_written"]
        spare = (got["bytes_received"] - got["bytes_written"]) / moved
        print(f"    wire/files {share:.4f}, {spare:.0f} bytes more for each of {moved:,} files")
        for name, flags in (("no-op", ()), ("no-op --quick", ("--quick",))):
            done = measure("bucketsync", "upgrade", tree, *flags)
            _line(name, done.summary["files_kept"], done)
        done = measure("bucketsync", "verify", tree)
        _line("verify", done.summary["files_checked"], done)
    if found := differences(tree, trees[1]):
        raise SystemExit(f"the tree differs from its source: {found[:5]}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--dir", type=Path, help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bucketsync-bench-", dir=args.dir))
    try:
        run(folder, args.files)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
