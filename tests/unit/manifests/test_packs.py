"""Ranges of packs: which bytes are asked for, and which files a range touches."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.columns import U64
from manifests.packs import JOIN_GAP_BYTES, Run, runs


def u64(*numbers: int) -> U64:
    return np.array(numbers, np.uint64)


def spans(
    offsets: U64, sizes: U64, *, gap_bytes: int = 4, max_bytes: int = 100
) -> list[tuple[int, int, int, int]]:
    found = runs(offsets, sizes, gap_bytes=gap_bytes, max_bytes=max_bytes)
    return [(run.first, run.last, run.start, run.stop) for run in found]


def test_nothing_wanted() -> None:
    assert spans(u64(), u64()) == []


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (3, [(0, 2, 5, 28)]),
        (4, [(0, 2, 5, 29)]),
        (5, [(0, 1, 5, 15), (1, 2, 20, 30)]),
    ],
)
def test_small_gaps_are_joined(gap: int, expected: list[tuple[int, int, int, int]]) -> None:
    assert spans(u64(5, 15 + gap), u64(10, 10)) == expected


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [
        (29, [(0, 2, 0, 20), (2, 3, 20, 30)]),
        (30, [(0, 3, 0, 30)]),
        (31, [(0, 3, 0, 30)]),
        (9, [(0, 1, 0, 10), (1, 2, 10, 20), (2, 3, 20, 30)]),
    ],
)
def test_long_runs_are_cut_between_files(
    max_bytes: int, expected: list[tuple[int, int, int, int]]
) -> None:
    assert spans(u64(0, 10, 20), u64(10, 10, 10), max_bytes=max_bytes) == expected


def test_a_large_file_is_a_run_of_its_own() -> None:
    assert spans(u64(0, 10, 510), u64(10, 500, 10)) == [
        (0, 1, 0, 10),
        (1, 2, 10, 510),
        (2, 3, 510, 520),
    ]


def test_the_gap_counts_towards_the_limit() -> None:
    assert spans(u64(0, 14), u64(10, 10), max_bytes=23) == [(0, 1, 0, 10), (1, 2, 14, 24)]
    assert spans(u64(0, 14), u64(10, 10), max_bytes=24) == [(0, 2, 0, 24)]


def test_empty_files_cost_nothing() -> None:
    assert spans(u64(0, 0, 0, 10), u64(0, 0, 10, 0), max_bytes=10) == [(0, 4, 0, 10)]


def test_offsets_beyond_32_bits() -> None:
    assert runs(u64(2**41, 2**41 + 10), u64(10, 10), max_bytes=100) == [
        Run(first=0, last=2, start=2**41, stop=2**41 + 20)
    ]


def test_the_usual_gap() -> None:
    assert len(runs(u64(0, JOIN_GAP_BYTES), u64(0, 1), max_bytes=9999)) == 1
    assert len(runs(u64(0, JOIN_GAP_BYTES + 1), u64(0, 1), max_bytes=9999)) == 2
