"""Ranges of packs: which bytes are asked for, and which files a range touches."""

from __future__ import annotations

import pytest

from manifests.packs import JOIN_GAP_BYTES, Run, runs


def spans(
    offsets: list[int], sizes: list[int], *, gap_bytes: int = 4, max_bytes: int = 100
) -> list[Run]:
    return runs(offsets, sizes, gap_bytes=gap_bytes, max_bytes=max_bytes)


def test_nothing_wanted() -> None:
    assert spans([], []) == []


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (3, [(0, 2, 5, 28)]),
        (4, [(0, 2, 5, 29)]),
        (5, [(0, 1, 5, 15), (1, 2, 20, 30)]),
    ],
)
def test_small_gaps_are_joined(gap: int, expected: list[tuple[int, int, int, int]]) -> None:
    assert spans([5, 15 + gap], [10, 10]) == expected


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
    assert spans([0, 10, 20], [10, 10, 10], max_bytes=max_bytes) == expected


def test_a_large_file_is_a_run_of_its_own() -> None:
    assert spans([0, 10, 510], [10, 500, 10]) == [
        (0, 1, 0, 10),
        (1, 2, 10, 510),
        (2, 3, 510, 520),
    ]


def test_the_gap_counts_towards_the_limit() -> None:
    """What is cut for it adjoins all the same, so that both are one range of a request."""
    assert spans([0, 14], [10, 10], max_bytes=23) == [(0, 1, 0, 14), (1, 2, 14, 24)]
    assert spans([0, 14], [10, 10], max_bytes=24) == [(0, 2, 0, 24)]


def test_empty_files_cost_nothing() -> None:
    assert spans([0, 0, 0, 10], [0, 0, 10, 0], max_bytes=10) == [(0, 4, 0, 10)]


def test_offsets_beyond_32_bits() -> None:
    assert runs([2**41, 2**41 + 10], [10, 10], max_bytes=100) == [
        Run(first=0, last=2, start=2**41, stop=2**41 + 20)
    ]


def test_the_usual_gap() -> None:
    assert len(runs([0, JOIN_GAP_BYTES], [0, 1], max_bytes=9999)) == 1
    assert len(runs([0, JOIN_GAP_BYTES + 1], [0, 1], max_bytes=9999)) == 2
