"""A small published repository, made by the project's own commands from a tree of random bytes.

Even ids are called .dat, odd ones .csv.  What each layer must serve is kept in memory, for tests
to compare with.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from manifests.paths import Layout
from server.cli import main

LAYOUT = Layout(buckets=10, digits=4)
EXTENSIONS = ("dat", "csv")


@dataclass(kw_only=True)
class World:
    """A tree, a repository made from it, and the bytes of its layers by (layer, variant, id)."""

    tree: Path
    repo: Path
    files: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    _new: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def put(self, variant: str, post_id: int, size_bytes: int) -> bytes:
        """Write new random bytes to the place of an entry in the tree."""
        data = random.Random(f"{variant}/{post_id}/{len(self.files)}").randbytes(size_bytes)  # noqa: S311
        path = self.tree / _entry(variant, post_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._new[variant, post_id] = data
        return data

    def publish(self, release: str, *flags: str) -> None:
        """Make a release of the tree as it is; its layer is what was put since the last one."""
        _run("publish", self.repo, "--release", release, "--tree", self.tree, "--jobs", 1, *flags)
        self.files |= {(release, *key): data for key, data in self._new.items()}
        self._new.clear()

    def path(self, layer: str, variant: str, post_id: int) -> Path:
        """Where a file of a layer lies, unless it was published in place."""
        return self.repo / "files" / layer / _entry(variant, post_id)

    def url(self, layer: str, variant: str, post_id: int) -> str:
        """The path of a loose file on a host."""
        return f"/files/{layer}/{_entry(variant, post_id)}"

    def pack_url(self, layer: str, variant: str, bucket: int) -> str:
        """The path of a pack on a host."""
        return f"/packs/{layer}/{variant}/{LAYOUT.bucket_name(bucket)}"

    def pack(self, layer: str, variant: str, bucket: int) -> bytes:
        """The bytes of a pack: the files of a bucket by ascending id."""
        return b"".join(self.files[key] for key in self._bucket(layer, variant, bucket))

    def offset(self, layer: str, variant: str, post_id: int) -> int:
        """Where a file begins in the pack of its bucket."""
        keys = self._bucket(layer, variant, LAYOUT.bucket_of(post_id))
        return sum(len(self.files[key]) for key in keys if key[2] < post_id)

    def _bucket(self, layer: str, variant: str, bucket: int) -> list[tuple[str, str, int]]:
        return sorted(
            key
            for key in self.files
            if key[:2] == (layer, variant) and LAYOUT.bucket_of(key[2]) == bucket
        )

    def objects(self) -> list[str]:
        """The paths of all objects on a host."""
        return [self._url(path) for path in sorted((self.repo / "objects").glob("*/*"))]

    def metadata(self) -> list[str]:
        """The paths of all signed documents and targets on a host."""
        return [self._url(path) for path in sorted((self.repo / "tuf").glob("*/*"))]

    def _url(self, path: Path) -> str:
        return f"/{path.relative_to(self.repo).as_posix()}"


def _entry(variant: str, post_id: int) -> str:
    bucket = LAYOUT.bucket_name(LAYOUT.bucket_of(post_id))
    return f"{variant}/{bucket}/{post_id}.{EXTENSIONS[post_id % 2]}"


def _run(*words: object) -> None:
    assert main([*map(str, words), "-q"]) == 0


def make_world(folder: Path) -> World:
    """An empty tree and a repository without a release, both in ``folder``."""
    world = World(tree=folder / "tree", repo=folder / "repo")
    world.tree.mkdir(parents=True)
    _run("init", world.repo, "--dataset", "tiny", "--buckets", LAYOUT.buckets)
    return world
