"""Our server and nginx under 1, 8 and 64 clients: the same ranges of the same packs.

Ours serves them twice: from a repository that has them as files, as nginx must, and *virtual*, put
together of some two hundred files each while they are sent.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.contest import Contest, Contestant, Faster, Memory, Rate
from tests.bench.measure import Measured, Meter
from tests.bench.servers import Server
from tests.bench.world import MIB, Arena, World

_CROWDS = (1, 8, 64)
# What the client asks for at most in one range.
_RANGE_BYTES = 4 * MIB
_ON_DISK, _VIRTUAL = "ours, packs on disk", "ours, virtual packs"
# Enough for a second of the faster server.
_LEAST_BYTES = 2**31


def load(world: World) -> Iterator[Contest]:
    """A contest for each number of clients."""
    arena = world.small()
    packs, virtual = ("--materialize-packs", "--no-torrents"), ("--no-torrents",)
    listed = _ranges(arena, arena.repo(*packs))
    total = sum(int(last) - int(first) + 1 for _, first, last in _words(listed))
    for clients in _CROWDS:
        required, stretch = (0.7, 0.9) if clients == max(_CROWDS) else (None, None)
        contestants = [
            _loaded(_ON_DISK, arena.ours(*packs), clients, listed),
            _loaded(_VIRTUAL, arena.ours(*virtual), clients, listed),
        ]
        if world.has("nginx"):
            contestants.append(_loaded("nginx", arena.nginx(*packs), clients, listed))
        yield Contest(
            name=f"load-{clients}",
            title=f"Ranges of packs to {clients} clients",
            contestants=contestants,
            disks=arena.disks(0),
            files=len(_words(listed)),
            size_bytes=total,
            claims=[
                claim
                for name in (_ON_DISK, _VIRTUAL)
                for claim in (
                    Faster(one=name, other="nginx", required=required, stretch=stretch),
                    Rate(one=name, amount=total / 1e6, unit="MB/s"),
                    Memory(one=name, server=True),
                )
            ],
        )


def _loaded(name: str, server: Server, clients: int, listed: Path) -> Contestant:
    def run(_: Path, meter: Meter) -> Measured:
        words = [sys.executable, "-m", "tests.bench.loader", str(server.port), str(clients)]
        return meter.command([*words, str(listed)], server=server)

    return Contestant(name=name, run=run)


def _ranges(arena: Arena, repo: Path) -> Path:
    """Every pack in ranges, so often that it takes a while."""
    lines: list[str] = []
    for pack in sorted(path for path in (repo / "packs").rglob("*") if path.is_file()):
        size, url = pack.stat().st_size, f"/{pack.relative_to(repo)}"
        starts = range(0, size, _RANGE_BYTES)
        lines += (f"{url} {at} {min(at + _RANGE_BYTES, size) - 1}\n" for at in starts)
    times = -(-_LEAST_BYTES // arena.dataset.all_bytes)
    return arena.written("ranges.list", "".join(lines) * times)


def _words(listed: Path) -> list[list[str]]:
    return [line.split() for line in listed.read_text().splitlines()]
