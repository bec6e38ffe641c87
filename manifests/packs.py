"""Packs: the files of one manifest bucket, one after another; and the ranges a client asks for.

Everything here is arithmetic on the columns ``offsets`` and ``sizes``.  A range is half open:
``start <= byte < stop``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from manifests.columns import I64, U64

# Two wanted runs closer than this are fetched as one: a part header costs about as much.
JOIN_GAP_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Wanted files ``first:last`` (rows of the caller's columns) that lie in ``start:stop``."""

    first: int
    last: int
    start: int
    stop: int


def runs(
    offsets: U64, sizes: U64, *, gap_bytes: int = JOIN_GAP_BYTES, max_bytes: int
) -> list[Run]:
    """Cut ascending wanted files into runs of at most ``max_bytes``, joining small gaps.

    A file larger than ``max_bytes`` is a run of its own.
    """
    starts, stops = offsets.astype(np.int64), (offsets + sizes).astype(np.int64)
    breaks = np.flatnonzero(starts[1:] - stops[:-1] > gap_bytes) + 1
    bounds = [0, *breaks.tolist(), len(starts)]
    found: list[Run] = []
    for first, last in pairwise(bounds):
        found += _cut(first, last, starts, stops, max_bytes)
    return found


def _cut(first: int, last: int, starts: I64, stops: I64, max_bytes: int) -> list[Run]:
    cut: list[Run] = []
    while first < last:
        full = int(np.searchsorted(stops[first:last], starts[first] + max_bytes, "right"))
        upto = first + max(full, 1)
        cut.append(
            Run(first=first, last=upto, start=int(starts[first]), stop=int(stops[upto - 1]))
        )
        first = upto
    return cut
