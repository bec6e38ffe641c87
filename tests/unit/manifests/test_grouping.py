"""Runs of buckets as torrents, and the size of a piece."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.errors import ConfigError
from manifests.paths import Layout
from manifests.torrents.grouping import (
    MAX_FILES,
    Group,
    SizeSums,
    choose_piece_bytes,
    group_entries,
    padding,
)
from tests.support.torrents import KIB, bucket_entries

MIB = 2**20


def spans(counts: list[int], size_bytes: int = 8 * KIB, piece_bytes: int = 16 * KIB) -> list[str]:
    """``bucket-bucket:files`` of each group, ``bucket.part:files`` where one was cut."""
    layout = Layout(buckets=len(counts), digits=4)
    entries = bucket_entries(counts, layout, size_bytes)
    groups = group_entries(entries, layout, piece_bytes)
    return [f"{group.label(layout)}:{group.stop - group.start}" for group in groups]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 1, 1], ["0000-0002:3"]),
        ([2000, 2000, 1000, 1], ["0000-0002:5000", "0003-0003:1"]),
        ([2000, 2000, 1001], ["0000-0001:4000", "0002-0002:1001"]),
        ([0, 3, 0, 4, 0], ["0001-0003:7"]),
        ([5000, 5000], ["0000-0000:5000", "0001-0001:5000"]),
        ([10, 5001, 20], ["0000-0000:10", "0001.1:2501", "0001.2:2500", "0002-0002:20"]),
        ([12_000], ["0000.1:4000", "0000.2:4000", "0000.3:4000"]),
        ([0, 0], []),
    ],
)
def test_consecutive_buckets_up_to_the_number_of_files(
    counts: list[int], expected: list[str]
) -> None:
    assert spans(counts) == expected


def test_metainfo_is_a_limit_too() -> None:
    """20 MiB in pieces of 16 KiB: 66,560 bytes of hashes a file, so 29 of them are 2 MB."""
    assert spans([20, 9, 1], 20 * MIB) == ["0000-0001:29", "0002-0002:1"]
    assert spans([40, 3], 20 * MIB) == ["0000.1:20", "0000.2:20", "0001-0001:3"]


def test_a_file_that_is_too_large_for_a_torrent_has_one_alone() -> None:
    assert spans([1, 1, 1], 2**30) == ["0000-0000:1", "0001-0001:1", "0002-0002:1"]


def test_a_piece_too_small_for_any_client_is_refused_with_the_file() -> None:
    with pytest.raises(ConfigError, match=r"file 1\.jpg of 4294967296 bytes") as caught:
        spans([1], 2**32)
    assert "--piece-size" in caught.value.hint


def test_a_run_without_a_byte_gets_no_torrent() -> None:
    layout = Layout(buckets=2, digits=1)
    entries = bucket_entries([MAX_FILES, 2], layout, 0, {MAX_FILES: 5})
    assert group_entries(entries, layout, 16 * KIB) == [
        Group(start=MAX_FILES, stop=MAX_FILES + 2, first_bucket=1, last_bucket=1)
    ]


@pytest.mark.parametrize(
    ("mean", "piece_bytes"),
    [
        (0, 16 * KIB),
        (1, 16 * KIB),
        (8 * KIB, 16 * KIB),
        (96 * KIB - 1, 16 * KIB),
        (96 * KIB, 32 * KIB),
        (192 * KIB, 64 * KIB),
        (768 * KIB - 1, 128 * KIB),
        (768 * KIB, 256 * KIB),
        (900_000, 256 * KIB),
        (8 * MIB - 1, 256 * KIB),
        (8 * MIB, 512 * KIB),
        (100_000_000, 4 * MIB),
        (2**30, 16 * MIB),
    ],
)
def test_the_piece_follows_the_mean_size(mean: int, piece_bytes: int) -> None:
    assert choose_piece_bytes(SizeSums.of(np.array([mean] * 3, np.uint64))) == piece_bytes


def test_empty_files_do_not_count_for_the_mean() -> None:
    assert choose_piece_bytes(SizeSums.of(np.array([0, 0, 0, 900_000], np.uint64))) == 256 * KIB


def test_one_very_large_file_makes_all_pieces_larger() -> None:
    small = [900_000] * 200_000
    assert choose_piece_bytes(SizeSums.of(np.array([*small, 2**33], np.uint64))) == 256 * KIB
    assert choose_piece_bytes(SizeSums.of(np.array([*small, 2**33 + 1], np.uint64))) == 512 * KIB


def test_the_largest_file_of_a_release_has_32768_pieces() -> None:
    assert (
        choose_piece_bytes(SizeSums.of(np.array([1] * 10**6 + [2**40 - 1], np.uint64))) == 32 * MIB
    )


def test_a_chosen_size_is_taken_if_it_can_be() -> None:
    sizes = np.array([5], np.uint64)
    assert choose_piece_bytes(SizeSums.of(sizes), 4 * MIB) == 4 * MIB
    with pytest.raises(ConfigError, match="3000 bytes"):
        choose_piece_bytes(SizeSums.of(sizes), 3000)


def test_padding_up_to_the_piece_and_up_to_the_block() -> None:
    found = padding(np.array([0, 1, 16 * KIB, 16 * KIB + 1, 64 * KIB], np.uint64), 64 * KIB)
    assert found.total_bytes == (64 * KIB - 1) + 48 * KIB + (48 * KIB - 1)
    assert found.block_bytes == (16 * KIB - 1) * 2
