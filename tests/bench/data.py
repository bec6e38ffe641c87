"""Trees of files to measure with: so many, so large, in so many buckets, by a seed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

VARIANT = "original"
DIGITS = 4
_POOL_BYTES = 2**24
_STAMP = "made.json"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a dataset looks like; sizes are lognormal with this mean, or all the same (sigma 0).

    The second release has ``added`` more files, as a share, and ``changed`` of the first anew.
    """

    files: int
    mean_bytes: int
    sigma: float = 0.7
    buckets: int = 1000
    seed: int = 3
    added: float = 0.2
    changed: float = 0.005


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Two source trees, ``y1`` and ``y2``; files that stay the same are hard links."""

    folder: Path
    shape: Shape

    def tree(self, release: str) -> Path:
        """The source of a release."""
        return self.folder / release

    @cached_property
    def ids(self) -> list[int]:
        """Ids of the first release."""
        shape = self.shape
        rng = np.random.default_rng(shape.seed)
        found = rng.choice(np.arange(1, 2 * shape.files + 1), shape.files, replace=False)
        return sorted(found.tolist())

    @cached_property
    def sizes(self) -> list[int]:
        """Bytes of each file: of the first release by id, then of those that the second adds."""
        shape = self.shape
        rng = np.random.default_rng(shape.seed + 1)
        count = shape.files + self.added_files
        drawn = rng.lognormal(np.log(shape.mean_bytes) - shape.sigma**2 / 2, shape.sigma, count)
        return [max(1, size) for size in drawn.round().astype(int).tolist()]

    @property
    def added_files(self) -> int:
        """Files that the second release adds."""
        return round(self.shape.files * self.shape.added)

    @property
    def added_ids(self) -> range:
        """Their ids: above all of the first release."""
        top = 2 * self.shape.files
        return range(top + 1, top + 1 + self.added_files)

    @cached_property
    def changed_ids(self) -> frozenset[int]:
        """Ids whose file is another one in the second release."""
        rng = np.random.default_rng(self.shape.seed + 2)
        count = round(self.shape.files * self.shape.changed)
        return frozenset(rng.choice(self.ids, count, replace=False).tolist())

    @property
    def moved_files(self) -> int:
        """Files that an upgrade fetches."""
        return self.added_files + len(self.changed_ids)

    @property
    def moved_bytes(self) -> int:
        """Bytes that an upgrade fetches."""
        sizes = dict(zip(self.ids, self.sizes, strict=False))
        return sum(self.sizes[self.shape.files :]) + sum(sizes[one] for one in self.changed_ids)

    def moved_paths(self) -> list[str]:
        """Paths that an upgrade fetches."""
        return [self.path(one) for one in (*sorted(self.changed_ids), *self.added_ids)]

    @property
    def size_bytes(self) -> int:
        """Bytes of the first release."""
        return sum(self.sizes[: self.shape.files])

    @property
    def all_bytes(self) -> int:
        """Bytes of the second release."""
        return sum(self.sizes)

    def path(self, post_id: int) -> str:
        """VARIANT/BUCKET/ID.jpg."""
        return f"{VARIANT}/{post_id % self.shape.buckets:0{DIGITS}d}/{post_id}.jpg"

    def paths(self) -> list[str]:
        """Paths of the first release, by bucket and id."""
        buckets = self.shape.buckets
        return [self.path(one) for one in sorted(self.ids, key=lambda one: (one % buckets, one))]

    def some_ids(self, count: int) -> list[int]:
        """So many random ids of the first release."""
        rng = np.random.default_rng(self.shape.seed + 3)
        return sorted(rng.choice(self.ids, min(count, len(self.ids)), replace=False).tolist())

    def bytes_of(self, ids: list[int]) -> int:
        """Bytes of files of the first release."""
        sizes = dict(zip(self.ids, self.sizes, strict=False))
        return sum(sizes[one] for one in ids)


def make_dataset(folder: Path, shape: Shape) -> Dataset:
    """Write the trees, unless the folder holds them already."""
    dataset, stamp = Dataset(folder=folder, shape=shape), folder / _STAMP
    wanted = json.dumps(asdict(shape))
    if stamp.exists() and stamp.read_text() == wanted:
        return dataset
    shutil.rmtree(folder, ignore_errors=True)
    for release in ("y1", "y2"):
        for bucket in range(shape.buckets):
            (dataset.tree(release) / VARIANT / f"{bucket:0{DIGITS}d}").mkdir(parents=True)
    _write_first(dataset)
    _write_second(dataset)
    stamp.write_text(wanted)
    return dataset


class _Writer:
    """Writes files, no two alike, fast enough for a million of them."""

    def __init__(self, seed: int) -> None:
        self._pool = np.random.default_rng(seed).bytes(_POOL_BYTES)

    def write(self, path: str, post_id: int, size_bytes: int, edition: int) -> None:
        with open(path, "wb", buffering=0) as file:  # noqa: PTH123 (a million)
            file.writelines(self._portions(post_id, size_bytes, edition))

    def _portions(self, post_id: int, size_bytes: int, edition: int) -> Iterator[bytes]:
        head = b"%d-%d-" % (post_id, edition)
        start, left = (post_id * 7919 + edition * 104729) % _POOL_BYTES, size_bytes
        while left > 0:
            portion = (head + self._pool[start : start + left])[:left]
            yield portion
            head, start, left = b"", 0, left - len(portion)


def _write_first(dataset: Dataset) -> None:
    writer, tree = _Writer(dataset.shape.seed), dataset.tree("y1")
    for post_id, size in zip(dataset.ids, dataset.sizes, strict=False):
        writer.write(f"{tree}/{dataset.path(post_id)}", post_id, size, 0)


def _write_second(dataset: Dataset) -> None:
    writer = _Writer(dataset.shape.seed)
    first, second = dataset.tree("y1"), dataset.tree("y2")
    for post_id, size in zip(dataset.ids, dataset.sizes, strict=False):
        path = dataset.path(post_id)
        if post_id in dataset.changed_ids:
            writer.write(f"{second}/{path}", post_id, size, 1)
        else:
            os.link(f"{first}/{path}", f"{second}/{path}")
    for post_id, size in zip(dataset.added_ids, dataset.sizes[dataset.shape.files :], strict=True):
        writer.write(f"{second}/{dataset.path(post_id)}", post_id, size, 0)
