"""Cost as a dataset grows: the same change to more and more files, and entries without files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench.contest import Contest, Contestant, Figure
from tests.bench.disks import Disks
from tests.bench.jobs.fetching import do
from tests.bench.measure import Measured, Meter
from tests.bench.peers import TREE, ours
from tests.bench.world import GROWTH_ADDED, GROWTH_CHANGED, Arena, World
from tests.support.commands import argv

_NO_TORRENTS = "--no-torrents"
_DIFF_S, _DIFF_GB = 2.0, 0.6
_REPO = "repo"
Work = Callable[[Arena, Path, Meter], Measured]
Prepare = Callable[[Arena, Path], None]


def growth(world: World) -> Iterator[Contest]:
    """Publish, clone, upgrade, and a look at what is complete."""
    arenas = {files: world.growing(files) for files in world.scale.growth}

    def contest(name: str, title: str, files: int, prepare: Prepare, work: Work) -> Contest:
        largest = arenas[max(arenas)]
        return Contest(
            name=f"growth-{name}",
            title=title,
            contestants=[
                Contestant(
                    name=f"{count:,} files",
                    prepare=partial(prepare, arena),
                    run=partial(work, arena),
                )
                for count, arena in arenas.items()
            ],
            disks=largest.disks(2),
            files=files,
            size_bytes=files * largest.dataset.shape.mean_bytes,
            claims=[
                Figure(one=f"{count:,} files", fact="wall_s", label=f"{count:,} files", unit="s")
                for count in arenas
            ],
            # Most of the time goes to what is not measured.
            most_rounds=1,
        )

    changed = f"{GROWTH_ADDED:,} files more, {GROWTH_CHANGED:,} changed"
    moved = GROWTH_ADDED + GROWTH_CHANGED
    yield contest("clone", "Clone", max(arenas), _nothing, _clone)
    yield contest("upgrade", f"Upgrade: {changed}", moved, _cloned, _upgrade())
    yield contest(
        "upgrade-quick", f"upgrade --quick: {changed}", moved, _cloned, _upgrade("--quick")
    )
    yield contest("noop", "Nothing to do", max(arenas), _upgraded, _upgrade())
    yield contest("publish", f"Publish: {changed}", moved, _published, _publish)


def entries(world: World) -> Iterator[Contest]:
    """Manifests of two years: read, and compared."""
    one = "ours"

    def run(_: Path, meter: Meter) -> Measured:
        words = [sys.executable, "-m", "tests.bench.manifest_scale", "--json"]
        return meter.command([*words, f"--entries={world.scale.entries}"])

    yield Contest(
        name="entries",
        title="Entries without files: two years loaded and compared",
        contestants=[Contestant(name=one, run=run)],
        disks=Disks(size_bytes=0, files=0),
        files=world.scale.entries,
        size_bytes=0,
        claims=[
            Figure(one=one, fact="diff_s", label="load and diff", unit="s", required=_DIFF_S),
            Figure(one=one, fact="diff_gb", label="its memory", unit="GB", required=_DIFF_GB),
            Figure(one=one, fact="encode_s", label="encode", unit="s"),
            Figure(one=one, fact="compose_s", label="load and compose five layers", unit="s"),
        ],
        most_rounds=3,
    )


def _nothing(_: Arena, __: Path) -> None:
    pass


def _clone_words(arena: Arena, place: Path) -> list[str]:
    return ours("clone", arena.ours(_NO_TORRENTS).url, place / TREE, "--release", "y1")


def _clone(arena: Arena, place: Path, meter: Meter) -> Measured:
    return meter.command(_clone_words(arena, place), server=arena.ours(_NO_TORRENTS))


def _cloned(arena: Arena, place: Path) -> None:
    do(_clone_words(arena, place))
    # The racy rule reads files again that are as young as their record; here nobody waits.
    do(ours("upgrade", place / TREE, "--to", "y1"))


def _upgraded(arena: Arena, place: Path) -> None:
    _cloned(arena, place)
    do(ours("upgrade", place / TREE))


def _upgrade(*flags: str) -> Work:
    def work(arena: Arena, place: Path, meter: Meter) -> Measured:
        words = ours("upgrade", place / TREE, *flags)
        return meter.command(words, server=arena.ours(_NO_TORRENTS))

    return work


def _published(arena: Arena, place: Path) -> None:
    """A repository with the first release, and its tree, which has become the second."""
    dataset, tree = arena.dataset, place / TREE
    # Millions of files: `cp` takes a quarter of the time of shutil.
    do(["cp", "-a", str(dataset.tree("y1")), str(tree)])
    words = ("init", place / _REPO, "--dataset", "bench", "--buckets", dataset.shape.buckets)
    do(argv("bucketsync-server", *words))
    do(_publish_words(place, "y1"))
    for path in dataset.moved_paths():
        # A layer has hard links to what is replaced.
        (tree / path).unlink(missing_ok=True)
        shutil.copy2(dataset.tree("y2") / path, tree / path)


def _publish_words(place: Path, release: str) -> list[str]:
    words = ("--json", place / _REPO, "--release", release, "--tree", place / TREE)
    return argv("bucketsync-server", "publish", *words, "--link", "hard")


def _publish(_: Arena, place: Path, meter: Meter) -> Measured:
    return meter.command(_publish_words(place, "y2"))
