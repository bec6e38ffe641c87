"""Entries as columns: chunk digests stay with their rows, extensions keep their meaning."""

from __future__ import annotations

import numpy as np
import pytest

from manifests import columns
from manifests.columns import CHUNK_BYTES, Entries, joined_codes
from manifests.errors import ManifestError
from tests.support.forgery import make_entries

LARGE = 2 * CHUNK_BYTES + 1


def described(entries: Entries) -> list[tuple[str, int, bytes, bytes]]:
    """Each row as name, size, digest and chunk digests."""
    starts = entries.chunk_starts()
    return [
        (
            name,
            int(entries.sizes[row]),
            entries.digests[row].tobytes(),
            entries.chunks[starts[row] : starts[row + 1]].tobytes(),
        )
        for row, name in enumerate(entries.names())
    ]


@pytest.mark.parametrize(
    ("size_bytes", "count"),
    [
        (0, 0),
        (1, 0),
        (CHUNK_BYTES - 1, 0),
        (CHUNK_BYTES, 0),
        (CHUNK_BYTES + 1, 2),
        (2 * CHUNK_BYTES - 1, 2),
        (2 * CHUNK_BYTES, 2),
        (2 * CHUNK_BYTES + 1, 3),
        (2**40 - 1, 2**18),
    ],
)
def test_only_files_over_a_chunk_have_chunk_digests(size_bytes: int, count: int) -> None:
    assert columns.chunk_counts(np.array([size_bytes], np.uint64)).tolist() == [count]


def test_ragged_index() -> None:
    starts, counts = np.array([5, 0, 9, 2]), np.array([2, 0, 1, 3])
    assert columns.ragged_index(starts, counts).tolist() == [5, 6, 9, 2, 3, 4]
    assert columns.ragged_index(starts[:0], counts[:0]).tolist() == []


def test_rows() -> None:
    entries = make_entries({1: (10, "png"), 11: (LARGE, "mp4"), 2: (20, "png")})
    assert len(entries) == 3
    assert entries.file_bytes == LARGE + 30
    assert entries.names() == ["1.png", "11.mp4", "2.png"]
    assert [entries.extension(row) for row in range(3)] == ["png", "mp4", "png"]
    assert entries.chunk_starts().tolist() == [0, 0, 3, 3]


@pytest.mark.parametrize(
    "index",
    [
        np.array([3, 0, 2]),
        np.array([True, False, True, True]),
        slice(1, 4),
        slice(0, 0),
        np.array([0, 0]),
    ],
)
def test_taken_rows_keep_everything(index: np.ndarray[tuple[int], np.dtype[np.intp]]) -> None:
    whole = make_entries(
        {1: (LARGE, "mp4"), 2: (20, "png"), 3: (LARGE, "gif"), 4: (LARGE + CHUNK_BYTES, "mp4")}
    )
    rows = np.arange(4)[index].tolist()
    taken = whole.take(index)
    assert described(taken) == [described(whole)[row] for row in rows]
    assert taken.offsets.tolist() == [0] * len(rows)
    assert taken.layers.tolist() == [0] * len(rows)


def test_taken_rows_without_chunks() -> None:
    whole = make_entries({1: (1, "mp4"), 2: (20, "png")})
    assert described(whole.take(slice(1, 2))) == described(whole)[1:]


def test_joined_parts_share_one_table_of_extensions() -> None:
    one = make_entries({1: (LARGE, "mp4"), 2: (2, "jpg")})
    two = make_entries({3: (3, "png"), 4: (LARGE, "jpg")}, salt="two")
    three = make_entries({5: (5, "gif")})
    joined = columns.concat([one, two, three])
    assert joined.extensions == ("jpg", "mp4", "png", "gif")
    assert described(joined) == described(one) + described(two) + described(three)


def test_joining_nothing_and_one() -> None:
    one = make_entries({1: (1, "png")})
    assert columns.concat([one]) is one
    assert len(columns.concat([])) == 0
    assert described(columns.concat([columns.empty(("gif",)), one])) == described(one)
    assert columns.empty(("gif",)).chunk_starts().tolist() == [0]


def test_more_extensions_than_codes_are_refused() -> None:
    names = [f"x{number}" for number in range(256)]
    one, two = (columns.empty(tuple(half)) for half in (names[:200], names[100:255]))
    assert len(columns.concat([one, two]).extensions) == 255
    with pytest.raises(ManifestError, match="more than 255 in one variant") as caught:
        columns.concat([one, two, columns.empty((names[255],))])
    assert caught.value.where == "extensions"


def test_codes_of_several_tables_become_codes_of_one() -> None:
    parts = [
        (("jpg", "png"), np.array([1, 0], np.uint16)),
        ((), np.empty(0, np.uint16)),
        (("png", "gif"), np.array([0, 1, 1], np.uint16)),
    ]
    names, codes = joined_codes(parts)
    assert [names[code] for code in codes] == ["png", "jpg", "png", "gif", "gif"]
    assert len(set(names)) == len(names)
