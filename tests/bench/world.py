"""What jobs measure with: datasets, repositories of them, servers, lists; made when asked for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.bare import write_list
from tests.bench.data import Dataset, Shape, make_dataset
from tests.bench.disks import Disks
from tests.bench.servers import (
    Server,
    listed_nginx,
    our_server,
    repository_nginx,
    rsync_daemon,
)
from tests.support.commands import publisher

MIB = 2**20
# As many as the documents' dataset has; the real one has 5,000.
_FILES_A_BUCKET = 200
_MOST_BUCKETS = 1000
# Files of which a million are at rest: in larger blocks two trees of them, their caches and their
# images fill the memory, and what is measured is how the kernel gets inodes back from the disk.
_TINY_BYTES = 1024
# What the second release of a growing dataset adds and changes.
GROWTH_ADDED, GROWTH_CHANGED = 1000, 200


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much there is to do; ``buckets`` None is one for each 200 files, 10 to 1,000 of them."""

    files: int
    mean_bytes: int
    sigma: float
    buckets: int | None
    seed: int
    large_bytes: int
    tiny_files: int
    far_files: int
    entries: int
    growth: Sequence[int]

    def small_shape(self) -> Shape:
        """Small files, in two releases."""
        return Shape(
            files=self.files,
            mean_bytes=self.mean_bytes,
            sigma=self.sigma,
            buckets=self._buckets(self.files),
            seed=self.seed,
        )

    def large_shape(self, size_bytes: int) -> Shape:
        """Files of one size, in one release."""
        return self._even(max(1, self.large_bytes // size_bytes), size_bytes)

    def tiny_shape(self) -> Shape:
        """Files of 200 bytes, for work that does not read them."""
        return self._even(self.tiny_files, 200)

    def far_shape(self) -> Shape:
        """Files of 100 KB."""
        return self._even(self.far_files, 100_000)

    def growing_shape(self, files: int) -> Shape:
        """Tiny files, and a second release that changes as many of them whatever their number."""
        return replace(
            self._even(files, 200),
            # They stay what they are while a dataset grows.
            buckets=self.buckets or _MOST_BUCKETS,
            added=min(1.0, GROWTH_ADDED / files),
            changed=min(1.0, GROWTH_CHANGED / files),
        )

    def _buckets(self, files: int) -> int:
        return self.buckets or min(max(10, files // _FILES_A_BUCKET), _MOST_BUCKETS)

    def _even(self, files: int, size_bytes: int) -> Shape:
        return Shape(
            files=files,
            mean_bytes=size_bytes,
            sigma=0.0,
            buckets=self._buckets(files),
            seed=self.seed,
            added=0.0,
            changed=0.0,
        )


class Arena:
    """A dataset with everything that serves it."""

    def __init__(self, dataset: Dataset, stack: ExitStack) -> None:
        self.dataset = dataset
        self._stack = stack
        self._repos: dict[tuple[str, ...], Path] = {}
        self._servers: dict[str, Server] = {}
        self._told: set[Path] = set()

    def disks(self, share: float = 1.0) -> Disks:
        """Disks with room for that share of the dataset, and as much again."""
        shape = self.dataset.shape
        files = round((shape.files + self.dataset.added_files) * share)
        return Disks(
            size_bytes=round(2 * self.dataset.all_bytes * share),
            files=2 * files,
            block_bytes=_TINY_BYTES if shape.mean_bytes <= _TINY_BYTES else 4096,
        )

    def repo(self, *flags: str) -> Path:
        """A repository of both releases, published with these flags."""
        if flags not in self._repos:
            repo = self.dataset.folder / f"repo-{len(self._repos)}"
            for old in (repo, Path(f"{repo}-keys")):
                shutil.rmtree(old, ignore_errors=True)
            publisher("init", repo, "--dataset", "bench", "--buckets", self.dataset.shape.buckets)
            for release in self.releases:
                source = self.dataset.tree(release)
                words = ("--release", release, "--tree", source, "--link", "hard", *flags)
                publisher("publish", repo, *words)
            self._repos[flags] = repo
        return self._repos[flags]

    @property
    def releases(self) -> Sequence[str]:
        """Names of the releases, oldest first."""
        return ("y1", "y2") if self.dataset.moved_files else ("y1",)

    def ours(self, *flags: str) -> Server:
        """Our server."""
        key = f"ours{flags}"
        if key not in self._servers:
            self._servers[key] = self._stack.enter_context(our_server(self.repo(*flags)))
        return self._servers[key]

    def nginx(self, *flags: str) -> Server:
        """nginx on a repository."""
        key = f"nginx{flags}"
        if key not in self._servers:
            self._servers[key] = self._stack.enter_context(repository_nginx(self.repo(*flags)))
        return self._servers[key]

    def listed(self) -> Server:
        """nginx on the source trees."""
        if "listed" not in self._servers:
            self._servers["listed"] = self._stack.enter_context(listed_nginx(self.dataset.folder))
        return self._servers["listed"]

    def rsync(self) -> Server:
        """The daemon of rsync on the source trees."""
        if "rsync" not in self._servers:
            trees = {release: self.dataset.tree(release) for release in ("y1", "y2")}
            self._servers["rsync"] = self._stack.enter_context(rsync_daemon(trees))
        return self._servers["rsync"]

    def told(self, release: str) -> Path:
        """What the bare loop is told of a release."""
        path = self.dataset.folder / f"bare-{release}.list"
        if path not in self._told:
            self._told.add(path)
            write_list(path, self.dataset, release)
        return path

    def written(self, name: str, text: str) -> Path:
        """A list in a file beside the dataset."""
        path = self.dataset.folder / name
        path.write_text(text)
        return path


class World:
    """All arenas of one benchmark, in one folder."""

    def __init__(self, folder: Path, scale: Scale, peers: Sequence[str], stack: ExitStack) -> None:
        self.folder = folder
        self.scale = scale
        self.peers = peers
        self._stack = stack
        self._arenas: dict[str, Arena] = {}

    def has(self, peer: str) -> bool:
        """Whether a peer takes part."""
        return peer in self.peers

    def arena(self, name: str, shape: Shape) -> Arena:
        """The arena of a shape."""
        if name not in self._arenas:
            self._arenas[name] = Arena(make_dataset(self.folder / name, shape), self._stack)
        return self._arenas[name]

    def small(self) -> Arena:
        """Small files."""
        return self.arena("small", self.scale.small_shape())

    def sized(self, size_bytes: int) -> Arena:
        """Files of one size."""
        return self.arena(f"of-{size_bytes}", self.scale.large_shape(size_bytes))

    def growing(self, files: int) -> Arena:
        """A dataset of so many tiny files, and a second release that changes a few."""
        return self.arena(f"growing-{files}", self.scale.growing_shape(files))

    def far(self) -> Arena:
        """Files for a line that is far and slow."""
        return self.arena("far", self.scale.far_shape())

    def tiny(self) -> Arena:
        """Very many files."""
        return self.arena("tiny", self.scale.tiny_shape())
