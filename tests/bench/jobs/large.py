"""Files of 1 MiB and of 100 MiB over the network."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.contest import Contest, Faster, Memory, Rate
from tests.bench.jobs.fetching import MEMORY_BYTES, bare_loop, clone
from tests.bench.peers import BARE, Fetching
from tests.bench.world import MIB, World


def large(world: World) -> Iterator[Contest]:
    """Both sizes."""
    yield _fetch(world, MIB, "large-1m", "Everything, files of 1 MiB")
    yield _fetch(world, 100 * MIB, "large-100m", "Everything, files of 100 MiB")


def _fetch(world: World, size_bytes: int, name: str, title: str) -> Contest:
    arena = world.sized(size_bytes)
    dataset = arena.dataset
    files = dataset.shape.files
    return Contest(
        name=name,
        title=title,
        contestants=[
            clone("ours", arena.ours(), files),
            bare_loop(arena, arena.ours()),
            *Fetching(arena, "y1", dataset.paths(), whole=True).contestants(world.peers),
        ],
        disks=arena.disks(),
        files=files,
        size_bytes=dataset.size_bytes,
        claims=[
            Faster(one="ours", other="rsync -a", required=1.0, bound=BARE),
            Faster(one="ours", other="rclone", required=0.7, stretch=1.0, bound=BARE),
            *(Faster(one="ours", other=peer) for peer in _OTHERS),
            Rate(one="ours", amount=dataset.size_bytes / 1e6, unit="MB/s"),
            Memory(one="ours", required_bytes=MEMORY_BYTES),
        ],
    )


_OTHERS = ("rsync -aW --inplace", "curl -Z", "aria2c", "wget2")
