"""Torrents: hashing, writing, reading, and what a size of a piece costs.

    python -m tests.bench.torrents

Sizes of files are drawn log-normally (sigma 1) around their mean, always the same.  Nothing is
written to disk.  Times are of the processor; other work on the machine still slows them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from manifests.columns import U64, Entries
from manifests.paths import Layout
from manifests.torrents.grouping import (
    Group,
    SizeSums,
    choose_piece_bytes,
    estimate_bytes,
    group_entries,
    padding,
)
from manifests.torrents.metainfo import Outer, contents_of, make_torrent
from manifests.torrents.pieces import (
    PieceColumns,
    PieceHasher,
    layer_counts,
    piece_counts,
    root_of_layer,
)
from manifests.torrents.reader import read_torrent
from manifests.units import format_size
from tests.support.torrents import bucket_entries

FILES = 100_000
LAYOUT = Layout(buckets=1000, digits=4)
KIB, MB = 2**10, 10**6
MEANS = (8_000, 30_000, 100_000, 300_000, 900_000, 3 * MB, 10 * MB, 100 * MB)


def processor_s(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def drawn(mean_bytes: int) -> Entries:
    """100,000 entries in 1,000 buckets."""
    entries = bucket_entries([FILES // LAYOUT.buckets] * LAYOUT.buckets, LAYOUT, 0)
    random = np.random.default_rng(4)
    entries.sizes[:] = np.maximum(random.lognormal(np.log(mean_bytes) - 0.5, 1, FILES), 1)
    return entries


def hashing() -> None:
    for size, count, portion in ((8_000, 5_000, 8_000), (100 * MB, 1, 2**20)):
        data = memoryview(os.urandom(size))

        def run(data: memoryview = data, count: int = count, portion: int = portion) -> None:
            piece_bytes = choose_piece_bytes(SizeSums.of(np.array([len(data)], np.uint64)))
            for _ in range(count):
                hasher = PieceHasher(piece_bytes)
                for start in range(0, len(data), portion):
                    hasher.update(data[start : start + portion])
                hasher.finish()

        rate = size * count / processor_s(run) / MB
        print(f"hashing files of {format_size(size)}: {rate:.0f} MB/s")


def layouts() -> Iterator[str]:
    for mean in MEANS:
        entries = drawn(mean)
        chosen = choose_piece_bytes(SizeSums.of(entries.sizes))
        pieces = (64 * KIB, chosen, 2**20) if mean == 900_000 else (chosen,)
        for piece_bytes in pieces:
            pad, total = padding(entries.sizes, piece_bytes), entries.file_bytes
            costs = [
                estimate_bytes(entries, LAYOUT, piece_bytes, hybrid=hybrid) / FILES
                for hybrid in (True, False)
            ]
            groups = len(group_entries(entries, LAYOUT, piece_bytes))
            yield (
                f"| {format_size(mean)} | {piece_bytes // KIB:,} KiB |"
                f" {100 * pad.total_bytes / total:.1f} % | {100 * pad.block_bytes / total:.1f} % |"
                f" {costs[0]:.0f} B | {costs[1]:.0f} B | {FILES // groups:,} |"
            )


def invented(sizes: U64, piece_bytes: int, *, hybrid: bool) -> PieceColumns:
    """Hashes that no file has, with layers that give their roots."""
    random = np.random.default_rng(5)
    counts = layer_counts(sizes, piece_bytes)
    ends = np.cumsum(counts)
    layers = random.integers(0, 256, (int(ends[-1]), 32), np.uint8)
    roots = random.integers(1, 256, (len(sizes), 32), np.uint8)
    for row in np.flatnonzero(counts):
        layer = layers[ends[row] - counts[row] : ends[row]].tobytes()
        roots[row] = np.frombuffer(root_of_layer(layer, piece_bytes), np.uint8)
    pieces = int(piece_counts(sizes, piece_bytes).sum()) if hybrid else 0
    tails = len(sizes) if hybrid else 0
    return PieceColumns(
        piece_bytes=piece_bytes,
        hybrid=hybrid,
        sizes=sizes,
        roots=roots,
        pieces=random.integers(0, 256, (pieces, 20), np.uint8),
        tails=np.zeros((tails, 20), np.uint8),
        layers=layers,
    )


def documents(mean: int, *, hybrid: bool) -> None:
    entries = drawn(mean)
    piece_bytes = choose_piece_bytes(SizeSums.of(entries.sizes))
    group: Group = group_entries(entries, LAYOUT, piece_bytes, hybrid=hybrid)[0]
    files = group.stop - group.start
    hashes = invented(entries.sizes[group.start : group.stop], piece_bytes, hybrid=hybrid)

    def write() -> bytes:
        contents = contents_of(entries, hashes, group, layout=LAYOUT, variant="original")
        return make_torrent(contents, Outer()).data

    data = write()
    writing_s, reading_s = processor_s(write), processor_s(lambda: read_torrent(data))
    print(
        f"{format_size(mean)}, {'hybrid' if hybrid else 'v2 only'}: {files:,} files,"
        f" {format_size(len(data))}, {len(data) / files:.0f} bytes a file,"
        f" written in {writing_s * 1e6 / files:.0f} µs a file, read in"
        f" {reading_s * 1e6 / files:.0f} µs a file"
    )


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f}")
    hashing()
    for mean in (8_000, 900_000):
        for hybrid in (True, False):
            documents(mean, hybrid=hybrid)
    print("| mean | piece | padding | in blocks | hybrid | v2 only | files a torrent |")
    for line in layouts():
        print(line)


if __name__ == "__main__":
    main()
