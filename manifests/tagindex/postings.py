"""Posting lists: which posts have a tag, as ascending *ordinals* (a post's place among all ids).

Lists lie in the order of their tags' names, so that ``hatsune_miku*`` is one run of frames.  A
frame holds whole lists and is closed at :data:`FRAME_GAPS` ordinals; a longer list has a frame of
its own.  What is stored is the gap from one ordinal to the next, as planes: 1.3 bytes an ordinal
on 160 million of them, where roaring bitmaps take 2.4 (adr/0010).  A list of more than half of all
posts is smaller as one bit a post, and stored so.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from manifests.columns import I64, U32
from manifests.errors import ManifestError
from manifests.framed import (
    pack_bytes,
    pack_parts,
    pack_planes,
    unpack_parts,
    unpack_planes,
)
from manifests.zstd import inflate

# Ordinals of a frame of short lists: 34 KB.  Half as many need a header twice as large and save
# nothing; twice as many cost each rare tag 67 KB.
FRAME_GAPS = 16384
_GAPS, _BITS = b"\0", b"\1"
_PARTS = 3


def frame_bounds(counts: I64) -> Iterator[tuple[int, int]]:
    """How lists of these lengths, in order, are cut into frames: (first list, last list + 1)."""
    start = total = 0
    for tag, count in enumerate(counts.tolist()):
        if total and total + count > FRAME_GAPS:
            yield start, tag
            start, total = tag, 0
        total += count
    if start < len(counts):
        yield start, len(counts)


def encode_postings(ordinals: U32, counts: U32, posts: int) -> bytes:
    """A frame of lists that follow one another, each ascending strictly and below ``posts``."""
    packed_counts = pack_planes(counts.astype(np.uint32))
    gaps = np.diff(ordinals.astype(np.int64), prepend=-1) - 1
    starts = np.cumsum(counts.astype(np.int64))[:-1]
    starts = starts[starts < len(ordinals)]
    gaps[starts] = ordinals[starts]
    if np.any(gaps < 0):
        message = "ordinals of a posting list do not ascend"
        raise ValueError(message)
    body, form = pack_planes(gaps.astype(np.uint32)), _GAPS
    if len(counts) == 1 and 2 * len(ordinals) > posts:
        bits = np.zeros(posts, np.bool_)
        bits[ordinals] = True
        packed = pack_bytes(np.packbits(bits, bitorder="little").tobytes())
        if len(packed) < len(body):
            body, form = packed, _BITS
    return pack_parts([form, packed_counts, body])


def decode_postings(data: bytes, lists: int, posts: int, where: str) -> tuple[U32, I64]:
    """A frame of ``lists`` lists: all ordinals, and (lists + 1,) where each list begins in them.

    ManifestError unless every list ascends strictly and stays below ``posts``.
    """
    form, packed_counts, body = unpack_parts(data, _PARTS, where)
    counts = unpack_planes(packed_counts, lists, np.uint32, f"{where}.counts")
    starts = np.zeros(lists + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    total = int(starts[-1])
    if total > max(posts, FRAME_GAPS):
        raise ManifestError(where, f"{total} ordinals are too many for one frame")
    if form == _BITS:
        if lists != 1:
            raise ManifestError(where, f"{lists} lists in a frame of bits, expected one")
        return _decode_bits(body, total, posts, where), starts
    if form != _GAPS:
        raise ManifestError(where, f"unknown form {bytes(form)!r}")
    gaps = unpack_planes(body, total, np.uint32, f"{where}.gaps")
    steps = np.cumsum(gaps, dtype=np.int64) + np.arange(total)
    begins = starts[:-1][counts > 0]
    # What the lists before have added up to, taken away from each list.
    steps -= np.repeat(steps[begins] - gaps[begins], counts[counts > 0])
    if np.any(steps >= posts):
        raise ManifestError(where, f"an ordinal of {posts} or more")
    return steps.astype(np.uint32), starts


def _decode_bits(body: memoryview, total: int, posts: int, where: str) -> U32:
    raw = inflate(body, f"{where}.bits", -(-posts // 8))
    if len(raw) != -(-posts // 8):
        raise ManifestError(f"{where}.bits", f"expected {-(-posts // 8)} bytes, got {len(raw)}")
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    ordinals = np.flatnonzero(bits).astype(np.uint32)
    if len(ordinals) != total or (total and ordinals[-1] >= posts):
        raise ManifestError(f"{where}.bits", f"expected {total} ordinals, got {len(ordinals)}")
    return ordinals
