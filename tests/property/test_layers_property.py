"""Composing and comparing, against dictionaries that do the same one id at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from manifests import layers
from manifests.columns import CHUNK_BYTES, Entries
from manifests.layers import LayerPart
from manifests.paths import MAX_ID
from tests.support.forgery import by_bucket, make_entries

File = tuple[int, str]
Row = tuple[int, int, str, bytes, bytes, int]

BUCKETS = st.sampled_from([1, 3, 10, 1000, 100_000])
IDS = st.integers(1, 40) | st.integers(MAX_ID - 20, MAX_ID)
FILES = st.dictionaries(
    IDS,
    st.tuples(
        st.sampled_from([0, 1, 2, CHUNK_BYTES, CHUNK_BYTES + 1]),
        st.sampled_from(["jpg", "png", "gif"]),
    ),
)
LAYERS = st.lists(st.tuples(FILES, st.sets(IDS)), max_size=6)


def rows_by_id(entries: Entries) -> dict[int, Row]:
    """Every column of every row."""
    starts = entries.chunk_starts().tolist()
    return {
        post_id: (
            int(entries.layers[row]),
            int(entries.sizes[row]),
            entries.extension(row),
            entries.digests[row].tobytes(),
            entries.chunks[starts[row] : starts[row + 1]].tobytes(),
            int(entries.offsets[row]),
        )
        for row, post_id in enumerate(entries.ids.tolist())
    }


def part(number: int, files: dict[int, File], gone: set[int], buckets: int) -> LayerPart:
    entries = make_entries(files, buckets, salt=str(number))
    return LayerPart(
        entries=replace(
            entries,
            layers=np.full(len(entries), number, np.uint16),
            offsets=np.arange(len(entries), dtype=np.uint64) + np.uint64(1000 * number),
        ),
        removed_ids=by_bucket(gone, buckets),
    )


@given(stack=LAYERS, buckets=BUCKETS)
def test_compose_is_a_dictionary_updated_by_each_layer(
    stack: list[tuple[dict[int, File], set[int]]], buckets: int
) -> None:
    parts = [part(number, *layer, buckets) for number, layer in enumerate(stack)]
    expected: dict[int, Row] = {}
    for one in parts:
        expected |= rows_by_id(one.entries)
        for post_id in one.removed_ids.tolist():
            expected.pop(post_id, None)
    composed = layers.compose(parts, buckets)
    assert rows_by_id(composed) == expected
    assert composed.ids.tolist() == by_bucket(expected, buckets).tolist()


@given(stack=LAYERS, buckets=BUCKETS)
def test_buckets_may_be_composed_one_by_one(
    stack: list[tuple[dict[int, File], set[int]]], buckets: int
) -> None:
    parts = [part(number, *layer, buckets) for number, layer in enumerate(stack)]
    whole = rows_by_id(layers.compose(parts, buckets))
    found: dict[int, Row] = {}
    for bucket in {post_id % buckets for files, _ in stack for post_id in files}:
        cut = [
            LayerPart(
                entries=one.entries.take(one.entries.ids % buckets == bucket),
                removed_ids=one.removed_ids[one.removed_ids % buckets == bucket],
            )
            for one in parts
        ]
        found |= rows_by_id(layers.compose(cut, buckets))
    assert found == whole


def content(entries: Entries) -> dict[int, tuple[int, str, bytes]]:
    return {post_id: row[1:4] for post_id, row in rows_by_id(entries).items()}


@given(old=FILES, new=FILES, kept=st.booleans(), buckets=BUCKETS)
def test_diff_is_that_of_dictionaries(
    old: dict[int, File], new: dict[int, File], *, kept: bool, buckets: int
) -> None:
    """With ``kept`` many files are the same in both."""
    before = make_entries(old, buckets)
    after = make_entries(old | new if kept else new, buckets)
    one, two = content(before), content(after)
    found = layers.diff(before, after)
    both = one.keys() & two.keys()
    same = {post_id for post_id in both if one[post_id] == two[post_id]}
    assert set(after.ids[found.added].tolist()) == two.keys() - one.keys()
    assert set(before.ids[found.removed].tolist()) == one.keys() - two.keys()
    assert set(before.ids[found.same_old].tolist()) == same
    assert set(before.ids[found.changed_old].tolist()) == both - same
    assert before.ids[found.same_old].tolist() == after.ids[found.same_new].tolist()
    assert before.ids[found.changed_old].tolist() == after.ids[found.changed_new].tolist()
    counts = (found.added, found.changed_new, found.same_new)
    assert sum(map(len, counts)) == len(after)
