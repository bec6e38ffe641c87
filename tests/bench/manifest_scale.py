"""Five million entries: encode, load, compose five layers, compare two years, fetch random ids.

``python -m tests.bench.manifest_scale [--entries 5000000]`` prints seconds, peak memory (of a
process of its own) and the result of each step, and exits with 1 if all costs more than it may.

Digests are random, as real ones are to a compressor; the rest looks like a booru: ids with gaps,
lognormal sizes, four extensions, a few videos with chunk digests.  What a client does, it does for
a group of buckets at a time, reading manifests from files as from its cache: so its memory is that
of a group, not that of a release.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from manifests import layers, manifest
from manifests.columns import CHUNK_BYTES, U32, Bools, Entries, chunk_counts
from manifests.layers import LayerPart
from manifests.manifest import Removed
from manifests.model import ManifestRef

BUCKETS = 1000
# 5,000 entries each, so 14 MB of columns; larger groups are no faster.
GROUP_BUCKETS = 50
# What each yearly layer has of the ids.  The last one also puts some ids of older layers anew, and
# takes some of the first away.
SHARES = (0.6, 0.1, 0.1, 0.1, 0.1)
CHANGED, REMOVED, VIDEOS, KEPT = 0.005, 0.001, 0.0005, 0.97
RANDOM_IDS = 1000
REQUIRED_S, REQUIRED_GB = 10.0, 1.5
STRETCH = "2.0 s, 0.6 GB"


class Stored(NamedTuple):
    """A manifest in a file, and how a descriptor refers to it."""

    path: Path
    ref: ManifestRef


Cache = Mapping[str, Stored]


class Measured(NamedTuple):
    """Seconds, peak memory of the process, and what came out."""

    seconds: float
    peak_gb: float
    result: str


def _peak_gb() -> float:
    """High-water mark of this process; getrusage would count what its parent had before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(match[1]) * 1024 / 1e9 if match else 0.0


# ----------------------------------------------------------------------------------- making input


def _make_entries(rng: np.random.Generator, total: int) -> Entries:
    ids = np.flatnonzero(rng.random(round(total / KEPT * 1.01) + 100) < KEPT).astype(np.uint32)
    ids = ids[ids > 0][:total]
    count = len(ids)
    sizes = rng.lognormal(13.0, 0.7, count).astype(np.uint64) + np.uint64(1)
    sizes[rng.random(count) < VIDEOS] += np.uint64(3 * CHUNK_BYTES)
    chunks = int(chunk_counts(sizes).sum())
    return Entries(
        extensions=("jpg", "png", "gif", "mp4"),
        ids=ids[np.argsort(ids % np.uint32(BUCKETS), kind="stable")],
        sizes=sizes,
        exts=np.minimum(rng.geometric(0.7, count) - 1, 3).astype(np.uint8),
        digests=np.frombuffer(rng.bytes(32 * count), np.uint8).reshape(count, 32),
        offsets=np.zeros(count, np.uint64),
        layers=np.zeros(count, np.uint16),
        chunks=np.frombuffer(rng.bytes(32 * chunks), np.uint8).reshape(chunks, 32),
    )


def _encode(entries: Entries, removed_ids: U32) -> tuple[bytes, ManifestRef]:
    codes = np.zeros(len(removed_ids), np.uint8)
    removed = Removed(ids=removed_ids, codes=codes, reasons=("withdrawn",))
    return manifest.encode(entries, removed, BUCKETS)


def _store(path: Path, data: bytes, ref: ManifestRef) -> Stored:
    path.write_bytes(data)
    return Stored(path, ref)


def _store_layers(rng: np.random.Generator, folder: Path, whole: Entries) -> dict[str, Stored]:
    bounds = np.cumsum(SHARES) * (int(whole.ids.max()) + 1)
    born = np.searchsorted(bounds, whole.ids, "right")
    changed: Bools = rng.random(len(whole)) < CHANGED
    gone = whole.ids[(rng.random(len(whole)) < REMOVED) & (born == 0) & ~changed]
    stored = {}
    for number in range(len(SHARES)):
        last = number == len(SHARES) - 1
        held = (born == number) | (changed & last)
        name = f"layer{number}"
        encoded = _encode(whole.take(held), gone if last else gone[:0])
        stored[name] = _store(folder / name, *encoded)
    return stored


def make(folder: Path, total: int) -> tuple[Measured, Cache]:
    """Encode a whole year (measured), the year before it, and the first again as five layers."""
    rng = np.random.default_rng(2021)
    whole = _make_entries(rng, total)
    started = time.perf_counter()
    encoded = _encode(whole, whole.ids[:0])
    seconds, peak_gb = time.perf_counter() - started, _peak_gb()
    new = _store(folder / "new", *encoded)
    older: Bools = whole.ids < whole.ids.max() * 0.9
    digests = whole.digests.copy()
    digests[rng.random(len(whole)) < CHANGED] ^= 1
    encoded = _encode(replace(whole, digests=digests).take(older), whole.ids[:0])
    old = _store(folder / "old", *encoded)
    result = f"{len(whole):,} entries are {new.ref.size_bytes / 1e6:.0f} MB"
    cache = {"new": new, "old": old, **_store_layers(rng, folder, whole)}
    return Measured(seconds, peak_gb, result), cache


# ---------------------------------------------------------------------------- what a client does


class Opened:
    """A manifest in a client's cache, with its header and removed ids read."""

    def __init__(self, stored: Stored, layer: int = 0) -> None:
        self._fd = os.open(stored.path, os.O_RDONLY)
        self._layer = layer
        self.header = manifest.decode_header(self._read(0, stored.ref.header_bytes), stored.ref)
        start, stop = self.header.removed_start, self.header.size_bytes
        self.removed_ids = manifest.decode_removed(self.header, self._read(start, stop)).ids

    def _read(self, start: int, stop: int) -> bytes:
        return os.pread(self._fd, stop - start, start)

    def frames(self, rows: Sequence[int]) -> list[memoryview]:
        """The frames of rows that follow one another, in one read."""
        starts = self.header.row_start[rows[0] : rows[-1] + 2].tolist()
        data = memoryview(self._read(starts[0], starts[-1]))
        return [data[a - starts[0] : b - starts[0]] for a, b in pairwise(starts)]

    def part(self, first: int, last: int) -> LayerPart:
        """What this layer says of buckets ``first:last``."""
        begin = self.header.rows_of_bucket(first).start
        rows = range(begin, self.header.rows_of_bucket(last - 1).stop)
        frames = self.frames(rows) if rows else []
        gone = self.removed_ids % np.uint32(BUCKETS)
        cut = slice(*np.searchsorted(gone, [first, last]).tolist())
        return LayerPart(
            entries=manifest.decode_rows(self.header, rows, frames, self._layer),
            removed_ids=self.removed_ids[cut],
        )


def _groups() -> Iterator[tuple[int, int]]:
    for first in range(0, BUCKETS, GROUP_BUCKETS):
        yield first, min(first + GROUP_BUCKETS, BUCKETS)


def _open_layers(cache: Cache) -> list[Opened]:
    return [Opened(cache[f"layer{number}"], number) for number in range(len(SHARES))]


def load(cache: Cache) -> str:
    """Decode every entry of the newest year."""
    new = Opened(cache["new"])
    return f"{sum(len(new.part(*group).entries) for group in _groups()):,} entries"


def compose(cache: Cache) -> str:
    """Load five layers and lay them over each other."""
    opened = _open_layers(cache)
    composed = (
        layers.compose([layer.part(*group) for layer in opened], BUCKETS) for group in _groups()
    )
    return f"{sum(map(len, composed)):,} entries in five layers"


def diff(cache: Cache) -> str:
    """Load both years and compare them."""
    old, new = Opened(cache["old"]), Opened(cache["new"])
    added = changed = 0
    for group in _groups():
        difference = layers.diff(old.part(*group).entries, new.part(*group).entries)
        added += len(difference.added)
        changed += len(difference.changed_new)
    return f"{added:,} added and {changed:,} changed"


def fetch(cache: Cache) -> str:
    """Bytes of manifests that random ids of the five layers cost a client that has none."""
    opened = _open_layers(cache)
    top = int(sum(cache[f"layer{number}"].ref.entries for number in range(len(SHARES))))
    ids = np.unique(np.random.default_rng(1).integers(1, top, RANDOM_IDS, np.uint32))
    rows = [layer.header.rows_of_ids(ids).tolist() for layer in opened]
    headers = sum(layer.header.header_bytes for layer in opened)
    removed = sum(layer.header.removed_length for layer in opened)
    frames = sum(
        int(layer.header.row_length[held].sum()) for layer, held in zip(opened, rows, strict=True)
    )
    return (
        f"{len(ids):,} random ids cost {(headers + removed + frames) / 1e6:.2f} MB:"
        f" headers {headers / 1e6:.2f}, removed ids {removed / 1e6:.2f},"
        f" {sum(map(len, rows)):,} frames {frames / 1e6:.2f}"
    )


# ----------------------------------------------------------------------------------- measuring


def measure(step: Callable[[Cache], str], cache: Cache) -> Measured:
    """Run a step in this process."""
    started = time.perf_counter()
    result = step(cache)
    return Measured(time.perf_counter() - started, _peak_gb(), result)


def main() -> int:
    """Print a line a step and the verdict; the exit code says whether it is kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=5_000_000)
    parser.add_argument("--json", action="store_true", help="end with one line of all figures")
    args = parser.parse_args()
    total = args.entries
    measured: dict[str, Measured] = {}
    fresh = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as executor,
    ):
        measured["encode"], cache = executor.submit(make, Path(folder), total).result()
        for step in (load, compose, diff, fetch):
            measured[step.__name__] = executor.submit(measure, step, cache).result()
    jobs = [measured[name] for name in ("encode", "load", "compose", "diff")]
    seconds, peak_gb = sum(job.seconds for job in jobs), max(job.peak_gb for job in jobs)
    measured["in all"] = Measured(
        seconds, peak_gb, f"required: {REQUIRED_S} s, {REQUIRED_GB} GB; diff {STRETCH}"
    )
    lines = [
        f"{name:8} {row[0]:6.2f} s {row[1]:5.2f} GB  {row[2]}" for name, row in measured.items()
    ]
    print("\n".join(lines))
    if args.json:
        figures = {f"{name}_s": row.seconds for name, row in measured.items()}
        figures |= {f"{name}_gb": row.peak_gb for name, row in measured.items()}
        print(json.dumps(figures))
        return 0
    return 0 if seconds <= REQUIRED_S and peak_gb <= REQUIRED_GB else 1


if __name__ == "__main__":
    sys.exit(main())
