"""Roaring bitmaps from sorted arrays and back.  The only module that knows pyroaring's formats.

``BitMap(array)`` takes each number by itself; writing the portable serialisation
(https://github.com/RoaringBitmap/RoaringFormatSpec) with numpy and loading that is ten times as
fast: 5 ms for 1.3 million numbers.
"""

from __future__ import annotations

import numpy as np
from pyroaring import BitMap

from manifests.columns import U32

_COOKIE = 12346
_CONTAINER = 2**16
# Containers with more numbers are bitsets of 8 KiB, others ascending lists of 16 bits each.
_MAX_LISTED = 4096


def to_bitmap(numbers: U32) -> BitMap:
    """A bitmap of numbers that ascend strictly."""
    if not len(numbers):
        return BitMap()
    highs = (numbers >> 16).astype(np.uint16)
    begins = np.flatnonzero(np.append(True, highs[1:] != highs[:-1]))
    bounds = np.append(begins, len(numbers))
    cards = np.diff(bounds)
    low = numbers.astype("<u2")
    spans = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    containers = [_container(low[start:stop]) for start, stop in spans]
    heads = np.stack([highs[begins], cards - 1], axis=1).astype("<u2")
    sizes = np.fromiter(map(len, containers), np.int64, len(containers))
    first = 8 + 8 * len(containers)
    offsets = (np.cumsum(sizes) - sizes + first).astype("<u4")
    prefix = np.array([_COOKIE, len(containers)], "<u4")
    parts = [prefix.tobytes(), heads.tobytes(), offsets.tobytes(), *containers]
    return BitMap.deserialize(b"".join(parts))


def _container(low: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> bytes:
    if len(low) <= _MAX_LISTED:
        return low.tobytes()
    bits = np.zeros(_CONTAINER, np.bool_)
    bits[low] = True
    return np.packbits(bits, bitorder="little").tobytes()


def to_numbers(bitmap: BitMap) -> U32:
    """The numbers of a bitmap, ascending."""
    return np.frombuffer(bitmap.to_array(), np.uint32)


def size_bytes(bitmap: BitMap) -> int:
    """About what a bitmap takes in memory."""
    counted = bitmap.get_statistics()
    return int(
        counted["n_bytes_array_containers"]
        + counted["n_bytes_run_containers"]
        + counted["n_bytes_bitset_containers"]
    )
