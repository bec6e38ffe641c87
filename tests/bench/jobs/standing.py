"""Trees that are complete: nothing to do, and every byte checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench.contest import Claim, Contest, Contestant, Faster, Memory, Rate
from tests.bench.jobs.fetching import MEMORY_BYTES, do
from tests.bench.measure import Measured, Meter
from tests.bench.peers import BARE, TREE, bare, ours
from tests.bench.world import MIB, Arena, World

_NO_TORRENTS = "--no-torrents"
# Files that `b3sum` is given at once: enough for its start not to count, few enough for both
# processes to end together.
_SHARES = 16
_TWO = "b3sum, two processes"


def _clone(arena: Arena, place: Path) -> None:
    words = ours("clone", arena.ours(_NO_TORRENTS).url, place / TREE, "--release", "y1")
    do(words)


def noop(world: World) -> Iterator[Contest]:
    """The same command once more."""
    arena = world.tiny()
    server, files = arena.ours(_NO_TORRENTS), arena.dataset.shape.files

    def prepare(place: Path) -> None:
        _tree(arena, place)

    def again(*flags: str) -> Contestant:
        def run(place: Path, meter: Meter) -> Measured:
            tree = _tree(arena, place)
            return meter.command(ours("upgrade", tree, *flags), server=server)

        name = " ".join(("ours", *flags))
        return Contestant(name=name, run=run, prepare=prepare)

    contestants = [again(), again("--quick")]
    if world.has("rsync"):
        rsync = arena.rsync()

        def command(place: Path) -> list[str]:
            return ["rsync", "-a", f"{rsync.url}/y1/", f"{place / TREE}/"]

        contestants.append(
            Contestant(
                name="rsync -a",
                run=lambda place, meter: meter.command(command(place), server=rsync),
                prepare=lambda place: do(command(place)),
            )
        )
    yield Contest(
        name="noop",
        title="Nothing to do",
        contestants=contestants,
        disks=arena.disks(len(contestants)),
        files=files,
        size_bytes=arena.dataset.size_bytes,
        fresh=False,
        claims=[
            Faster(one="ours", other="rsync -a", required=2.5, stretch=3.0),
            Faster(one="ours --quick", other="rsync -a", required=20.0, stretch=100.0),
            Rate(one="ours", amount=files, unit="files/s"),
            Memory(one="ours", required_bytes=MEMORY_BYTES),
        ],
    )


def verify(world: World) -> Iterator[Contest]:
    """Every byte: small files, 1 MiB, 100 MiB."""
    yield _verify(
        world,
        world.small(),
        "verify-small",
        "Every byte, small files",
        Faster(one="ours", other=_TWO, required=1.2, stretch=1.35, bound=BARE),
        Faster(one="ours", other="b3sum", bound=BARE),
    )
    yield _verify(
        world,
        world.sized(MIB),
        "verify-1m",
        "Every byte, files of 1 MiB",
        Faster(one="ours", other=_TWO, bound=BARE),
        Faster(one="ours", other="b3sum", bound=BARE),
    )
    yield _verify(
        world,
        world.sized(100 * MIB),
        "verify-100m",
        "Every byte, files of 100 MiB",
        Faster(one="ours", other="b3sum", required=1.2, stretch=1.9, bound=BARE),
        Faster(one="ours", other=_TWO, bound=BARE),
    )


def _verify(world: World, arena: Arena, name: str, title: str, *claims: Claim) -> Contest:
    files, paths = arena.dataset.shape.files, arena.dataset.paths()

    def run(place: Path, meter: Meter) -> Measured:
        return meter.command(ours("verify", _tree(arena, place)))

    def b3sum(place: Path, meter: Meter) -> Measured:
        return meter.command(["xargs", "-0", "b3sum"], stdin=listed(place))

    def in_two(place: Path, meter: Meter) -> Measured:
        share = max(1, -(-files // _SHARES))
        words = ["xargs", "-0", "-P2", f"-n{share}", "b3sum", "--num-threads", "1"]
        return meter.command(words, stdin=listed(place))

    def listed(place: Path) -> Path:
        tree = _tree(arena, place)
        return arena.written("b3sum.list", "".join(f"{tree / path}\0" for path in paths))

    def loop(place: Path, meter: Meter) -> Measured:
        return meter.command(bare("verify", arena.told("y1"), _tree(arena, place)))

    contestants = [Contestant(name="ours", run=run), Contestant(name=BARE, run=loop)]
    if world.has("b3sum"):
        contestants += [
            Contestant(name="b3sum", run=b3sum),
            Contestant(name=_TWO, run=in_two),
        ]
    return Contest(
        name=name,
        title=title,
        contestants=contestants,
        disks=arena.disks(),
        files=files,
        size_bytes=arena.dataset.size_bytes,
        fresh=False,
        claims=[*claims, Memory(one="ours", required_bytes=MEMORY_BYTES)],
    )


def _tree(arena: Arena, place: Path) -> Path:
    """One tree for all contestants, since none changes it."""
    tree = place.parent / "shared"
    if not tree.exists():
        tree.mkdir()
        _clone(arena, tree)
    return tree / TREE
