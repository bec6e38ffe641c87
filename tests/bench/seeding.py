"""A million files offered by one process: memory, start, and what a .torrent takes.

``python -m tests.bench.seeding [--files 1000000] [--v2-only] [--dir DIR]`` writes files of a few
dozen bytes, publishes them, adopts them, and runs ``seed --memory 0`` until it says that it is
ready.  Memory is that of the seeder beside one that offers a hundred files.  What five million
files would take follows from the figures by proportion.  It needs 10 GB of disk, and time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import argv, client, publisher, serving

_BUCKETS = 1000
_MANY = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """One start of a seeder: seconds until it was ready, and what it then held."""

    seconds: float
    cpu_s: float
    resident_bytes: int
    torrents: int
    files: int


def make_tree(folder: Path, files: int) -> Path:
    """Files of a few dozen bytes, no two alike."""
    tree = folder / "source"
    for bucket in range(_BUCKETS):
        (tree / "original" / f"{bucket:04d}").mkdir(parents=True)
    for post_id in range(1, files + 1):
        path = f"{tree}/original/{post_id % _BUCKETS:04d}/{post_id}.jpg"
        with open(path, "wb") as file:  # noqa: PTH123 (a million)
            file.write(b"%d" % post_id * 3)
    return tree


def seed(tree: Path) -> Seeded:
    """Start a seeder, and end it as soon as it is ready."""
    words = argv("bucketsync", "seed", tree, "--memory", 0, "--listen", "127.0.0.1:0", "--json")
    began_s = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "seeding":
            break
    else:
        raise RuntimeError("the seeder did not begin")
    seconds = time.monotonic() - began_s
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    process.kill()
    process.wait()
    process.stdout.close()
    return Seeded(
        seconds=seconds,
        cpu_s=sum(map(int, ticks)) / 100,
        resident_bytes=resident,
        torrents=event["torrents"],
        files=event["files"],
    )


def _offer(folder: Path, files: int, *flags: str) -> tuple[Seeded, int]:
    """Publish and adopt so many files, and seed them: the seeder, and bytes of all .torrent."""
    source, repo = make_tree(folder, files), folder / "repo"
    publisher("init", repo, "--dataset", "tiny")
    began_s = time.monotonic()
    words = ("--release", "y1", "--tree", source, "--link", "hard", *flags)
    made = publisher("publish", repo, *words)
    print(f"published {files:,} files in {time.monotonic() - began_s:.0f} s", flush=True)
    with serving(repo) as url:
        client("adopt", url, source)
        first = seed(source)
        # Once more: the metainfo is in the tree's cache now, as on every later start.
        again = seed(source)
    print(f"first start {first.seconds:.1f} s, next {again.seconds:.1f} s", flush=True)
    return again, made.summary["torrent_bytes"]


def run(folder: Path, files: int, *flags: str) -> None:
    """Measure and print."""
    small, _ = _offer(folder / "small", 100, *flags)
    large, torrent_bytes = _offer(folder / "large", files, *flags)
    memory = (large.resident_bytes - small.resident_bytes) / large.files
    start_s = large.seconds - small.seconds
    print(f"\n| | {large.files:,} files | {_MANY:,} by proportion |\n|---|---|---|")
    factor = _MANY / large.files

    def line(name: str, value: float, form: str) -> None:
        print(f"| {name} | {form.format(value)} | {form.format(value * factor)} |")

    line("torrents", large.torrents, "{:,.0f}")
    line("seconds to the start", start_s, "{:.1f}")
    line("processor seconds", large.cpu_s - small.cpu_s, "{:.1f}")
    line("memory, MB", memory * large.files / 1e6, "{:,.0f}")
    line(".torrent, MB", torrent_bytes / 1e6, "{:,.0f}")
    print(f"\nmemory a file: {memory:.0f} bytes (at most 650 wanted)")
    print(f".torrent a file: {torrent_bytes / files:.0f} bytes")


def main() -> None:
    """Parse the command line, and measure in a folder that is removed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--v2-only", action="store_true")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seeding-", dir=args.dir))
    try:
        (folder / "small").mkdir()
        (folder / "large").mkdir()
        run(folder, args.files, *(["--v2-only"] if args.v2_only else []))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
