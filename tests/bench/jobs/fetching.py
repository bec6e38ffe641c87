"""Small files over the network: all of them, what a new release adds, a part."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.contest import Contest, Contestant, Faster, Figure, Memory, Rate
from tests.bench.data import Dataset
from tests.bench.measure import Measured, Meter
from tests.bench.peers import BARE, TREE, Fetching, bare, check_tree, ours
from tests.bench.servers import Server
from tests.bench.world import Arena, World

MEMORY_BYTES = 400e6
_CHOSEN = 0.05
_BARE_FROM_NGINX = f"{BARE} from nginx, packs"
# The tag of what a query asks for, and how many others a post has, of how many.
_WANTED, _TAGS, _ALL_TAGS = "wanted", 20, 50_000


def clone(
    name: str, server: Server, files: int, *flags: object, release: str = "y1"
) -> Contestant:
    """Our client, from an empty folder."""

    def run(place: Path, meter: Meter) -> Measured:
        words = ours("clone", server.url, place / TREE, "--release", release, *flags)
        return meter.command(words, server=server)

    return Contestant(name=name, run=run, check=lambda place: check_tree(place / TREE, files))


def bare_loop(arena: Arena, server: Server, name: str = BARE) -> Contestant:
    """The least that a client must do for the first release."""
    listed, files = arena.told("y1"), arena.dataset.shape.files

    def run(place: Path, meter: Meter) -> Measured:
        return meter.command(bare("fetch", listed, server.port, "y1", place / TREE), server=server)

    return Contestant(name=name, run=run, check=lambda place: check_tree(place / TREE, files))


def full(world: World) -> Iterator[Contest]:
    """Everything, from our server and from nginx."""
    arena = world.small()
    dataset = arena.dataset
    files = dataset.shape.files
    packs = ("--materialize-packs", "--no-torrents")
    contestants = [
        clone("ours", arena.ours(), files),
        clone("ours from nginx, packs", arena.nginx(*packs), files),
        clone("ours from nginx, loose files", arena.nginx(), files),
        bare_loop(arena, arena.ours()),
        bare_loop(arena, arena.nginx(*packs), _BARE_FROM_NGINX),
        *Fetching(arena, "y1", dataset.paths(), whole=True).contestants(world.peers),
    ]
    yield Contest(
        name="full",
        title="Everything, small files",
        contestants=contestants,
        disks=arena.disks(),
        files=files,
        size_bytes=dataset.size_bytes,
        claims=[
            Faster(one="ours", other="rsync -a", required=1.8, stretch=2.5, bound=BARE),
            Faster(one="ours", other="rsync -aW --inplace", required=1.5, stretch=2.0, bound=BARE),
            Faster(
                one="ours from nginx, packs",
                other="rsync -a",
                required=1.8,
                stretch=2.5,
                bound=_BARE_FROM_NGINX,
            ),
            Faster(
                one="ours from nginx, loose files", other="rsync -a", required=0.8, stretch=1.2
            ),
            *(Faster(one="ours", other=peer) for peer in ("curl -Z", "wget2", "rclone", "aria2c")),
            Rate(one="ours", amount=files, unit="files/s"),
            Memory(one="ours", required_bytes=MEMORY_BYTES),
            Figure(one="ours", fact="requests", label="ours, requests"),
        ],
    )


def incremental(world: World) -> Iterator[Contest]:
    """From the first release to the second."""
    arena = world.small()
    dataset = arena.dataset
    server, files = arena.ours(), dataset.shape.files + dataset.added_files

    def upgrade(place: Path, meter: Meter) -> Measured:
        return meter.command(ours("upgrade", place / TREE, "--delete"), server=server)

    def cloned(place: Path) -> None:
        do(ours("clone", server.url, place / TREE, "--release", "y1"))

    contestants = [
        Contestant(
            name="ours",
            run=upgrade,
            prepare=cloned,
            check=lambda place: check_tree(place / TREE, files),
        ),
        _bare_upgrade(arena, server),
    ]
    if world.has("rsync"):
        contestants += [
            _rsync_upgrade(arena, "rsync -a --delete", "-a", "--delete"),
            _rsync_upgrade(arena, "rsync -aW --inplace --delete", "-aW", "--inplace", "--delete"),
        ]
    yield Contest(
        name="incremental",
        title="To the next release: 20 % new files, 0.5 % changed",
        contestants=contestants,
        disks=arena.disks(),
        files=dataset.moved_files,
        size_bytes=dataset.moved_bytes,
        claims=[
            Faster(one="ours", other="rsync -a --delete", required=1.3, stretch=2.0, bound=BARE),
            Faster(one="ours", other="rsync -aW --inplace --delete"),
            Memory(one="ours", required_bytes=MEMORY_BYTES),
            Figure(one="ours", fact="requests", label="ours, requests"),
        ],
    )


def _bare_upgrade(arena: Arena, server: Server) -> Contestant:
    """It looks at what is there, but is told what is missing; it deletes nothing."""
    dataset = arena.dataset

    def words(release: str, place: Path) -> list[str]:
        return bare("fetch", arena.told(release), server.port, release, place / TREE)

    return Contestant(
        name=BARE,
        run=lambda place, meter: meter.command(words("y2", place), server=server),
        prepare=lambda place: do(words("y1", place)),
        check=lambda place: check_tree(place / TREE, dataset.shape.files + dataset.added_files),
    )


def _rsync_upgrade(arena: Arena, name: str, *flags: str) -> Contestant:
    server, dataset = arena.rsync(), arena.dataset

    def command(release: str, place: Path) -> list[str]:
        return ["rsync", *flags, f"{server.url}/{release}/", f"{place / TREE}/"]

    return Contestant(
        name=name,
        run=lambda place, meter: meter.command(command("y2", place), server=server),
        prepare=lambda place: do(command("y1", place)),
        check=lambda place: check_tree(place / TREE, dataset.shape.files + dataset.added_files),
    )


def subset(world: World) -> Iterator[Contest]:
    """One file in twenty, by a list of ids."""
    arena = world.small()
    dataset = arena.dataset
    ids = dataset.some_ids(round(dataset.shape.files * _CHOSEN))
    chosen = arena.written("ids.list", "".join(f"{one}\n" for one in ids))
    fetching = Fetching(arena, "y1", [dataset.path(one) for one in ids], whole=False)
    yield Contest(
        name="subset",
        title="One file in twenty, by a list",
        contestants=[
            clone("ours", arena.ours(), len(ids), "--ids", chosen),
            *fetching.contestants(world.peers),
        ],
        disks=arena.disks(_CHOSEN),
        files=len(ids),
        size_bytes=dataset.bytes_of(ids),
        claims=[
            Faster(one="ours", other="rsync -a", required=2.5, stretch=3.3),
            Faster(one="ours", other="curl -Z", required=1.0),
            *(
                Faster(one="ours", other=peer)
                for peer in ("rsync -aW --inplace", "wget2", "rclone", "aria2c")
            ),
            Figure(one="ours", fact="requests", label="ours, requests"),
        ],
    )


def query(world: World) -> Iterator[Contest]:
    """The same part, by a query on the tag index; peers are given the list that it amounts to."""
    arena = world.small()
    dataset = arena.dataset
    ids = dataset.some_ids(round(dataset.shape.files * _CHOSEN))
    rows = arena.written("posts.json", _posts(dataset, frozenset(ids)))
    server = arena.ours("--no-torrents", "--metadata", str(rows))
    fetching = Fetching(arena, "y1", [dataset.path(one) for one in ids], whole=False)
    yield Contest(
        name="query",
        title="One file in twenty, by a query; peers by the list that it amounts to",
        contestants=[
            clone("ours", server, len(ids), "--select", _WANTED),
            *fetching.contestants(name for name in world.peers if name in {"rsync", "curl"}),
        ],
        disks=arena.disks(_CHOSEN),
        files=len(ids),
        size_bytes=dataset.bytes_of(ids),
        claims=[
            Faster(one="ours", other="rsync -a"),
            Faster(one="ours", other="curl -Z"),
            Figure(one="ours", fact="requests", label="ours, requests"),
        ],
    )


def _posts(dataset: Dataset, chosen: frozenset[int]) -> str:
    """A line of metadata for each post: a few tags of many, and one of those that are chosen."""
    rng = np.random.default_rng(dataset.shape.seed)
    words = rng.zipf(1.3, (len(dataset.ids), _TAGS)) % _ALL_TAGS
    lines = []
    for post_id, row in zip(dataset.ids, words.tolist(), strict=True):
        tags = " ".join(sorted({f"tag_{word}" for word in row}))
        wanted = f"{_WANTED} " if post_id in chosen else ""
        fields = {"id": str(post_id), "file_ext": "jpg", "rating": "s"}
        lines.append(json.dumps({**fields, "tag_string": wanted + tags}) + "\n")
    return "".join(lines)


def do(words: list[str]) -> None:
    """Run a command that is not measured."""
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
