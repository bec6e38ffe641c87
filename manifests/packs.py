"""Packs: the files of one manifest bucket, one after another; and the ranges a client asks for.

Everything here is arithmetic on offsets and sizes.  A range is half open: ``start <= byte <
stop``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Two wanted runs closer than this are fetched as one: a part header costs about as much.
JOIN_GAP_BYTES = 4096


class Run(NamedTuple):
    """Wanted files ``first:last`` (places in the caller's lists) that lie in ``start:stop``."""

    first: int
    last: int
    start: int
    stop: int


def runs(
    offsets: Sequence[int],
    sizes: Sequence[int],
    *,
    gap_bytes: int = JOIN_GAP_BYTES,
    max_bytes: int,
) -> list[Run]:
    """Cut ascending wanted files into runs of at most ``max_bytes``, joining small gaps.

    What is cut for its size goes on to where the next run begins, so that they adjoin: a small gap
    comes on top.  A file larger than ``max_bytes`` is a run of its own.  0.2 us a file; columns of
    numpy would cost more for the few dozen that a call is about.
    """
    found: list[Run] = []
    first = start = stop = 0
    for place, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        end = offset + size
        if place == first:
            start = offset
        elif offset - stop > gap_bytes:
            found.append(Run(first, place, start, stop))
            first, start = place, offset
        elif end - start > max_bytes:
            found.append(Run(first, place, start, offset))
            first, start = place, offset
        stop = end
    if len(offsets):
        found.append(Run(first, len(offsets), start, stop))
    return found
