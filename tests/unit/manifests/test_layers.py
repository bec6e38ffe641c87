"""Layers over layers, and what changed between two releases, case by case."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from manifests import layers
from manifests.columns import CHUNK_BYTES, Entries, empty
from manifests.layers import LayerPart
from manifests.paths import MAX_ID
from tests.support.forgery import BUCKETS, by_bucket, make_entries

LARGE = 2 * CHUNK_BYTES


def part(
    number: int, files: dict[int, tuple[int, str]], removed: tuple[int, ...] = ()
) -> LayerPart:
    entries = make_entries(files, salt=str(number))
    marked = replace(entries, layers=np.full(len(entries), number, np.uint16))
    return LayerPart(entries=marked, removed_ids=by_bucket(removed))


def named(entries: Entries) -> list[tuple[str, int]]:
    return list(zip(entries.names(), entries.layers.tolist(), strict=True))


def test_the_last_layer_that_speaks_decides() -> None:
    parts = [
        part(0, {1: (1, "jpg"), 2: (2, "jpg"), 3: (3, "jpg"), 11: (LARGE, "mp4")}),
        part(1, {2: (2, "png"), 4: (4, "jpg")}, removed=(3,)),
        part(2, {3: (33, "gif")}, removed=(1, 4)),
    ]
    assert named(layers.compose(parts[:1], BUCKETS)) == [
        ("1.jpg", 0),
        ("11.mp4", 0),
        ("2.jpg", 0),
        ("3.jpg", 0),
    ]
    assert named(layers.compose(parts[:2], BUCKETS)) == [
        ("1.jpg", 0),
        ("11.mp4", 0),
        ("2.png", 1),
        ("4.jpg", 1),
    ]
    whole = layers.compose(parts, BUCKETS)
    assert named(whole) == [("11.mp4", 0), ("2.png", 1), ("3.gif", 2)]
    assert whole.sizes.tolist() == [LARGE, 2, 33]
    assert whole.chunks.tobytes() == parts[0].entries.chunks.tobytes()


def test_nothing_composes_to_nothing() -> None:
    assert len(layers.compose([], BUCKETS)) == 0
    assert len(layers.compose([part(0, {}), part(1, {}, removed=(5,))], BUCKETS)) == 0


def test_one_layer_is_itself() -> None:
    only = part(0, {1: (1, "jpg")})
    assert layers.compose([only], BUCKETS) is only.entries


def test_an_id_that_one_layer_puts_and_removes_is_removed() -> None:
    assert len(layers.compose([part(0, {1: (1, "jpg")}, removed=(1,))], BUCKETS)) == 0


def test_removing_what_is_not_there_does_nothing() -> None:
    parts = [part(0, {1: (1, "jpg")}), part(1, {}, removed=(2, 7))]
    assert named(layers.compose(parts, BUCKETS)) == [("1.jpg", 0)]


@pytest.mark.parametrize("buckets", [1, 2, 7, 1000, 99_999, 100_000])
def test_the_largest_ids_stay_in_order(buckets: int) -> None:
    ids = [1, 2, buckets, buckets + 1, MAX_ID - buckets, MAX_ID - 1, MAX_ID]
    parts = []
    for number, held in enumerate((ids[::2], ids[1::2], ids[2:4])):
        entries = make_entries(dict.fromkeys(held, (1, "jpg")), buckets)
        parts.append(LayerPart(entries=entries, removed_ids=by_bucket([], buckets)))
        assert number == len(parts) - 1
    composed = layers.compose(parts, buckets)
    assert composed.ids.tolist() == by_bucket(set(ids), buckets).tolist()


def test_a_thousand_layers() -> None:
    parts = [part(number, {1: (number, "jpg"), number + 2: (1, "jpg")}) for number in range(1000)]
    composed = layers.compose(parts, BUCKETS)
    assert len(composed) == 1001
    assert named(composed)[len(by_bucket(range(10, 1002, 10)))] == ("1.jpg", 999)


def rows(entries: Entries, index: layers.Rows) -> list[int]:
    return [int(post_id) for post_id in entries.ids[index]]


def test_diff() -> None:
    old = make_entries(
        {1: (1, "jpg"), 2: (2, "jpg"), 3: (3, "jpg"), 4: (4, "jpg"), 5: (5, "jpg"), 15: (6, "png")}
    )
    new = make_entries(
        {
            9: (9, "zip"),
            2: (2, "png"),
            3: (33, "jpg"),
            4: (4, "jpg"),
            5: (5, "jpg"),
            15: (6, "png"),
        }
    )
    digests = new.digests.copy()
    digests[new.ids.tolist().index(5), 31] ^= 1
    new = replace(new, digests=digests)
    found = layers.diff(old, new)
    assert rows(new, found.added) == [9]
    assert rows(old, found.removed) == [1]
    assert rows(old, found.changed_old) == rows(new, found.changed_new) == [2, 3, 5]
    assert rows(old, found.same_old) == rows(new, found.same_new) == [4, 15]


@pytest.mark.parametrize("byte", range(32))
def test_every_byte_of_a_digest_counts(byte: int) -> None:
    old = make_entries({1: (1, "jpg")})
    digests = old.digests.copy()
    digests[0, byte] ^= 0x80
    found = layers.diff(old, replace(old, digests=digests))
    assert found.changed_new.tolist() == [0]


def test_the_size_counts_even_where_the_digest_is_the_same() -> None:
    old = make_entries({1: (1, "jpg")})
    larger = replace(old, sizes=old.sizes + np.uint64(2**32))
    assert layers.diff(old, larger).changed_old.tolist() == [0]


def test_diff_with_nothing() -> None:
    some = make_entries({1: (1, "jpg"), 2: (2, "jpg")})
    assert layers.diff(empty(), some).added.tolist() == [0, 1]
    assert layers.diff(some, empty()).removed.tolist() == [0, 1]
    assert layers.diff(empty(), empty()).same_new.tolist() == []


def test_extensions_are_compared_by_name_not_by_code() -> None:
    old = make_entries({1: (1, "jpg"), 2: (2, "png")})
    new = make_entries({1: (1, "jpg"), 2: (2, "png"), 3: (3, "gif")})
    assert old.exts[1] != new.exts[1]
    assert rows(new, layers.diff(old, new).same_new) == [1, 2]
    only = make_entries({1: (1, "jpg")})
    assert rows(only, layers.diff(replace(only, extensions=("bmp",)), only).changed_new) == [1]
    unknown = replace(old, extensions=("bmp", "png"))
    assert rows(new, layers.diff(unknown, new).changed_new) == [1]


def test_match_gives_rows_by_id() -> None:
    one, two = np.array([10, 20, 1, 5], np.uint32), np.array([5, 30, 10], np.uint32)
    mine, theirs = layers.match(one, two)
    assert (mine.tolist(), theirs.tolist()) == ([3, 0], [0, 2])
