"""From one seeder: our whole client, qbittorrent-nox, and libtorrent alone.

All fetch the same torrents from the same process of ``bucketsync seed``.  Ours ends when every
file is verified and in the tree, libtorrent when all is flushed, both from the start of their
processes; qBittorrent, which runs already, when it says so.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from manifests.model import Descriptor
from server.repository import Repository
from tests.bench.contest import Contest, Contestant, Faster, Rate
from tests.bench.jobs.fetching import do
from tests.bench.measure import Measured, Meter
from tests.bench.peers import TREE, check_tree, ours
from tests.bench.world import MIB, Arena, World
from tests.support.peers import SeedProcess, seeding
from tests.support.stock.bare import bare_peer
from tests.support.stock.qbittorrent import qbittorrent

_TIMEOUT_S = 600.0
_DESCRIPTOR = ".bucketsync/releases/y1.msgpack"


def torrent(world: World) -> Iterator[Contest]:
    """Small files and large ones."""
    for name, arena in (("small", world.small()), ("100m", world.sized(100 * MIB))):
        with tempfile.TemporaryDirectory(prefix="bucketsync-bench-seed-") as folder:
            tree = Path(folder, TREE)
            do(ours("clone", arena.ours().url, tree, "--release", "y1", "--source", "http"))
            with seeding(tree) as seeder:
                torrents = _torrents(arena, tree)
                yield _contest(world, arena, f"torrent-{name}", seeder, torrents)


def _contest(
    world: World, arena: Arena, name: str, seeder: SeedProcess, torrents: Sequence[Path]
) -> Contest:
    dataset = arena.dataset
    files, server = dataset.shape.files, arena.ours()
    large = dataset.shape.mean_bytes > MIB

    def clone(place: Path, meter: Meter) -> Measured:
        words = ("--source", "torrent", "--peer", seeder.address, "--listen", "127.0.0.1:0")
        return meter.command(ours("clone", server.url, place / TREE, "--release", "y1", *words))

    def alone(place: Path, meter: Meter) -> Measured:
        words = [str(seeder.port), str(place / TREE), *map(str, torrents)]
        return meter.command([sys.executable, "-m", "tests.bench.jobs.torrent", *words])

    def stock(place: Path, meter: Meter) -> Measured:
        with tempfile.TemporaryDirectory() as folder, qbittorrent(Path(folder, "p")) as running:

            def fetch() -> None:
                for path in torrents:
                    peers = [("127.0.0.1", seeder.port)]
                    running.add(path.read_bytes(), place / TREE, peers)
                running.wait_complete(_TIMEOUT_S)

            return meter.call(fetch, pid=running.pid)

    def check(place: Path) -> None:
        check_tree(place / TREE, files)

    contestants = [
        Contestant(name="ours", run=clone, check=check),
        Contestant(name="libtorrent", run=alone, check=check),
    ]
    if world.has("qbittorrent-nox"):
        contestants.append(Contestant(name="qBittorrent", run=stock))
    return Contest(
        name=name,
        title=f"{files:,} files from one peer, {len(torrents)} torrents",
        contestants=contestants,
        disks=arena.disks(),
        files=files,
        size_bytes=dataset.size_bytes,
        claims=[
            Faster(one="ours", other="libtorrent", required=0.9 if large else 0.8),
            Faster(one="ours", other="qBittorrent", required=0.9 if large else None),
            Rate(one="ours", amount=dataset.size_bytes / 1e6, unit="MB/s"),
        ],
    )


def _torrents(arena: Arena, tree: Path) -> list[Path]:
    """Metainfo of the first release, which is all that its seeder has."""
    descriptor = Descriptor.decode((tree / _DESCRIPTOR).read_bytes(), "y1")
    repository = Repository(root=arena.repo())
    found = (refs for layer in descriptor.layers for refs in layer.torrents.values())
    return [repository.object_path(ref.digest) for refs in found for ref in refs]


def download(torrents: Sequence[Path], port: int, folder: Path) -> None:
    """libtorrent alone, in this process."""
    folder.mkdir(exist_ok=True)
    with bare_peer() as peer:
        found = [path.read_bytes() for path in torrents]
        peer.download(found, folder, ("127.0.0.1", port), _TIMEOUT_S)


if __name__ == "__main__":
    first, second, *others = sys.argv[1:]
    download([Path(path) for path in others], int(first), Path(second))
