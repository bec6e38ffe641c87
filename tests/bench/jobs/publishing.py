"""The publisher: a first release with all that belongs to it, and one that changes nothing."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.contest import Claim, Contest, Contestant, Faster, Memory, Rate
from tests.bench.jobs.fetching import do
from tests.bench.measure import Measured, Meter
from tests.bench.peers import BARE, TREE, bare
from tests.bench.world import MIB, Arena, World
from tests.support.commands import argv

_REPO = "repo"
_NO_TORRENTS = f"{BARE}, no torrents"


def publish(world: World) -> Iterator[Contest]:
    """Small files, large ones, and the second look."""
    yield _first_small(world)
    yield _first_large(world, MIB, "publish-1m", "Publish, files of 1 MiB")
    yield _first_large(world, 100 * MIB, "publish-100m", "Publish, files of 100 MiB")
    yield _unchanged(world)


def _first_small(world: World) -> Contest:
    arena = world.small()
    files = arena.dataset.shape.files
    everything = "ours, everything built"
    linked = "ours, hard links"
    rate = partial(Rate, amount=files, unit="files/s", required=15_000, stretch=25_000)
    return _first(
        world,
        arena,
        "publish-small",
        "Publish, small files",
        [
            _publisher(arena, everything),
            _publisher(arena, linked, "--link", "hard"),
            _publisher(arena, "ours, hard links, no torrents", "--link", "hard", "--no-torrents"),
            _bare(arena, BARE, "publish", "copy"),
        ],
        rate(one=everything, bound=BARE),
        rate(one=linked),
        Rate(one="ours, hard links, no torrents", amount=files, unit="files/s"),
        Memory(one=everything),
    )


def _first_large(world: World, size_bytes: int, name: str, title: str) -> Contest:
    arena = world.sized(size_bytes)
    linked = ("--link", "hard")
    return _first(
        world,
        arena,
        name,
        title,
        [
            _publisher(arena, "ours", *linked),
            _publisher(arena, "ours, no torrents", *linked, "--no-torrents"),
            _bare(arena, BARE, "publish"),
            _bare(arena, _NO_TORRENTS, "digest"),
        ],
        Faster(one="ours", other="b3sum", required=0.25, bound=BARE),
        Faster(one="ours, no torrents", other="b3sum", required=0.7, bound=_NO_TORRENTS),
        Rate(one="ours", amount=arena.dataset.size_bytes / 1e6, unit="MB/s"),
        Memory(one="ours"),
    )


def _first(
    world: World,
    arena: Arena,
    name: str,
    title: str,
    contestants: list[Contestant],
    *claims: Claim,
) -> Contest:
    dataset = arena.dataset
    if world.has("b3sum"):
        contestants.append(_b3sum(arena))
    return Contest(
        name=name,
        title=title,
        contestants=contestants,
        disks=arena.disks(1.5),
        files=dataset.shape.files,
        size_bytes=dataset.size_bytes,
        claims=claims,
    )


def _publisher(arena: Arena, name: str, *flags: str) -> Contestant:
    """A first release of a tree on the same disk, so that links can be made."""

    def prepare(place: Path) -> None:
        _copy_tree(arena, place)
        _init(arena, place)

    def run(place: Path, meter: Meter) -> Measured:
        return meter.command(_publish(place, "y1", *flags))

    return Contestant(name=name, prepare=prepare, run=run)


def _bare(arena: Arena, name: str, verb: str, *copy: str) -> Contestant:
    """What a release needs of each file: its hashes, and a copy or none."""

    def run(place: Path, meter: Meter) -> Measured:
        listed, copies = arena.told("y1"), [place / name for name in copy]
        return meter.command(bare(verb, listed, *copies, place / TREE))

    return Contestant(name=name, prepare=lambda place: _copy_tree(arena, place), run=run)


def _copy_tree(arena: Arena, place: Path) -> None:
    # Copied in as much time as it takes; that warms the cache of the new disk too.
    shutil.copytree(arena.dataset.tree("y1"), place / TREE)


def _init(arena: Arena, place: Path) -> None:
    buckets = arena.dataset.shape.buckets
    words = ("init", place / _REPO, "--dataset", "bench", "--buckets", buckets)
    do(argv("bucketsync-server", *words))


def _publish(place: Path, release: str, *flags: str) -> list[str]:
    words = ("--json", place / _REPO, "--release", release, "--tree", place / TREE)
    return argv("bucketsync-server", "publish", *words, *flags)


def _b3sum(arena: Arena) -> Contestant:
    """Reading and hashing alone, in one process with a thread for each core."""

    def run(place: Path, meter: Meter) -> Measured:
        paths = "".join(f"{place / TREE / path}\0" for path in arena.dataset.paths())
        return meter.command(["xargs", "-0", "b3sum"], stdin=arena.written("b3sum.list", paths))

    return Contestant(name="b3sum", prepare=lambda place: _copy_tree(arena, place), run=run)


def _unchanged(world: World) -> Contest:
    """Another release of the same tree, beside an rsync that has nothing to do."""
    arena = world.small()
    files = arena.dataset.shape.files
    numbers = itertools.count(2)

    def first(place: Path) -> None:
        _copy_tree(arena, place)
        _init(arena, place)
        do(_publish(place, "y1", "--link", "hard"))

    def again(place: Path, meter: Meter) -> Measured:
        return meter.command(_publish(place, f"y{next(numbers)}", "--link", "hard"))

    contestants = [Contestant(name="ours", prepare=first, run=again)]
    if world.has("rsync"):
        rsync = arena.rsync()

        def command(place: Path) -> list[str]:
            return ["rsync", "-a", f"{rsync.url}/y1/", f"{place / TREE}/"]

        contestants.append(
            Contestant(
                name="rsync -a",
                prepare=lambda place: do(command(place)),
                run=lambda place, meter: meter.command(command(place), server=rsync),
            )
        )
    return Contest(
        name="publish-unchanged",
        title="Publish once more, nothing changed",
        contestants=contestants,
        disks=arena.disks(2),
        files=files,
        size_bytes=arena.dataset.size_bytes,
        fresh=False,
        claims=[Faster(one="ours", other="rsync -a", required=1.0, stretch=2.0)],
    )
