"""Downloads from one seeder: our whole client, qbittorrent-nox, and libtorrent alone.

``python -m tests.bench.jobs.torrent [--runs 3] [--scale 1] [CASE ...]`` fetches the same
torrents from the same process of ``bucketsync seed``, client after client, each time onto a file
system that was made for it (as root; else into a new folder), and prints medians and ratios.
Cases are ``large`` (20 files of 100 MB), ``small`` (5,000 of 8 KB) and ``many`` (20,000 of 8
KB). Ours ends when every file is verified and in the tree, libtorrent when all is flushed, both
from the start of their processes; qBittorrent, which runs already, when it says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import client, publisher, serving
from tests.support.peers import seeding
from tests.support.stock.bare import bare_peer
from tests.support.stock.qbittorrent import qbittorrent

_CASES = {"large": (20, 100_000_000), "small": (5_000, 8_000), "many": (20_000, 8_000)}
_TIMEOUT_S = 600.0
_PATTERN_BYTES = 2**22
Fetch = Callable[[Path], float]


def make_tree(folder: Path, files: int, size_bytes: int) -> None:
    """Files of one size, no two alike."""
    pattern = os.urandom(_PATTERN_BYTES)
    for post_id in range(1, files + 1):
        path = folder / "original" / f"{post_id % 1000:04d}" / f"{post_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(post_id.to_bytes(8))
            left = size_bytes - 8
            while left > 0:
                left -= file.write(pattern[:left])


@contextmanager
def fresh(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A new ext4 on a file, or a new folder for those who may not mount."""
    place = folder / "fresh"
    place.mkdir()
    if os.geteuid() != 0:
        yield place
        shutil.rmtree(place)
        return
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(2 * size_bytes + 2**30)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        image.unlink()
        place.rmdir()


def bare(torrents: Sequence[Path], port: int, folder: Path) -> None:
    """libtorrent alone, in this process."""
    with bare_peer() as peer:
        for torrent in torrents:
            peer.download(torrent.read_bytes(), folder, ("127.0.0.1", port), _TIMEOUT_S)


def _timed(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def measure(case: str, runs: int, scale: float, folder: Path) -> dict[str, list[float]]:
    """Seconds of each client's runs."""
    files, size_bytes = _CASES[case]
    files = max(1, int(files * scale))
    source, repo = folder / "source", folder / "repo"
    make_tree(source, files, size_bytes)
    publisher("init", repo, "--dataset", "noise")
    publisher("publish", repo, "--release", "y1", "--tree", source, "--link", "hard")
    objects = (repo / "objects").glob("*/*")
    torrents = [path for path in objects if path.read_bytes().startswith(b"d")]
    found: dict[str, list[float]] = defaultdict(list)
    with serving(repo) as url:
        client("adopt", url, source)
        with seeding(source) as seeder:

            def ours(place: Path) -> float:
                words = ("--source", "torrent", "--peer", seeder.address)
                listen = ("--listen", "127.0.0.1:0")
                return _timed(lambda: client("clone", url, place / "tree", *words, *listen))

            def alone(place: Path) -> float:
                words = ["--bare", str(seeder.port), str(place), *map(str, torrents)]
                command = [sys.executable, "-m", "tests.bench.jobs.torrent", *words]
                return _timed(lambda: subprocess.run(command, check=True))

            def stock(place: Path) -> float:
                profile = Path(tempfile.mkdtemp(dir=folder)) / "profile"
                with qbittorrent(profile) as running:

                    def fetch() -> None:
                        for torrent in torrents:
                            peers = [("127.0.0.1", seeder.port)]
                            running.add(torrent.read_bytes(), place, peers)
                        running.wait_complete(_TIMEOUT_S)

                    return _timed(fetch)

            clients: dict[str, Fetch] = {"ours": ours, "libtorrent": alone, "qBittorrent": stock}
            for _ in range(runs):
                for name, fetch in clients.items():
                    with fresh(folder, files * size_bytes) as place:
                        found[name].append(fetch(place))
    total = files * size_bytes
    best = statistics.median(found["ours"])
    print(f"\n{case}: {files:,} files of {size_bytes:,} bytes, {len(torrents)} torrents")
    print("| | seconds | files/s | MB/s | ours is so many times as fast |\n|---|---|---|---|---|")
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        rates = f"{files / middle:,.0f} | {total / middle / 1e6:,.0f}"
        print(f"| {name} | {middle:.1f} | {rates} | {middle / best:.2f} |", flush=True)
    return found


def main() -> None:
    """Parse the command line, and measure in a folder that is removed."""
    if sys.argv[1:2] == ["--bare"]:
        port, place, *torrents = sys.argv[2:]
        bare([Path(torrent) for torrent in torrents], int(port), Path(place))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(_CASES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of files")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    args = parser.parse_args()
    for case in args.cases or _CASES:
        folder = Path(tempfile.mkdtemp(prefix="peers-", dir=args.dir))
        try:
            measure(case, args.runs, args.scale, folder)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
