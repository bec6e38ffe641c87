"""Any posts come back from their index; any bytes of a frame give values or a ManifestError."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.framed import decode_framed, pack_parts, pack_planes, unpack_parts, unpack_planes
from manifests.framedref import FramedRef
from manifests.query.predicates import Moment
from manifests.tagindex.bitmaps import to_bitmap, to_numbers
from manifests.tagindex.names import decode_names
from manifests.tagindex.pools import decode_pools
from manifests.tagindex.postings import decode_postings, encode_postings
from manifests.tagindex.values import decode_column, decode_md5s, decode_sources
from tests.support.tagindexes import HeldIndex, build

NOW = Moment(now=datetime(2022, 1, 1, tzinfo=UTC), tz=UTC)
TAGS = st.sampled_from(["a", "b", "c", "d_e", "☃", "x:y"])
POSTS = st.dictionaries(
    st.integers(1, 2**32 - 1),
    st.tuples(st.sets(TAGS), st.integers(-(2**31), 2**31 - 1)),
    max_size=30,
)


@given(POSTS, TAGS, TAGS)
def test_a_search_finds_what_a_loop_finds(
    posts: dict[int, tuple[set[str], int]], one: str, other: str
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": post, "tag_string": " ".join(sorted(tags)), "score": score}
        for post, (tags, score) in posts.items()
    ]
    index = HeldIndex(*build(rows))
    both = [post for post, (tags, _) in posts.items() if one in tags and other not in tags]
    assert index.search(f"{one} -{other}", NOW) == sorted(both, reverse=True)
    either = [p for p, (tags, score) in posts.items() if one in tags or score > 5]
    assert index.search(f"~{one} ~score:>5", NOW) == sorted(either, reverse=True)


@given(st.sets(st.integers(0, 2**32 - 1)))
def test_bitmaps_hold_what_went_in(numbers: set[int]) -> None:
    column = np.array(sorted(numbers), np.uint32)
    bitmap = to_bitmap(column)
    assert set(bitmap) == numbers
    assert to_numbers(bitmap).tolist() == column.tolist()


@given(
    st.lists(st.sets(st.integers(0, 999)), min_size=1, max_size=8),
)
def test_posting_lists_come_back(lists: list[set[int]]) -> None:
    ordered = [np.array(sorted(one), np.uint32) for one in lists]
    counts = np.array([len(one) for one in ordered], np.uint32)
    data = encode_postings(np.concatenate(ordered), counts, 1000)
    ordinals, starts = decode_postings(data, len(lists), 1000, "x")
    found = [ordinals[starts[i] : starts[i + 1]].tolist() for i in range(len(lists))]
    assert found == [one.tolist() for one in ordered]


@given(
    st.sampled_from(["u1", "u2", "u4", "u8", "i4", "i8"]).flatmap(
        lambda dtype: st.tuples(
            st.just(dtype),
            st.lists(st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)), max_size=50),
        )
    )
)
def test_planes_come_back(column: tuple[str, list[int]]) -> None:
    dtype, values = column
    data = pack_planes(np.array(values, dtype))
    assert unpack_planes(data, len(values), dtype, "x").tolist() == values


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_parts_come_back(parts: list[bytes]) -> None:
    assert [bytes(p) for p in unpack_parts(pack_parts(parts), len(parts), "x")] == parts


# A frame as somebody hostile might write it: parts of parts, some of them real.
HOSTILE = st.recursive(
    st.binary(max_size=40)
    | st.lists(st.integers(0, 2**32 - 1), max_size=9).map(
        lambda values: pack_planes(np.array(values, np.uint32))
    ),
    lambda inner: st.lists(inner, max_size=6).map(pack_parts),
    max_leaves=12,
)


@settings(max_examples=300)
@given(HOSTILE, st.integers(0, 12))
def test_any_bytes_of_a_frame_give_a_value_or_an_error(data: bytes, count: int) -> None:
    readers: list[Callable[[], object]] = [
        lambda: decode_postings(data, count, 100, "x"),
        lambda: decode_names(data, count, "x"),
        lambda: decode_pools(data, "x"),
        lambda: decode_md5s(data, "x"),
        lambda: decode_sources(data, count, "x"),
        lambda: decode_column("created_at", data, count, "x"),
        lambda: decode_column("id", data, count, "x"),
    ]
    for read in readers:
        # Whatever else is raised ends the test.
        with suppress(ManifestError):
            read()


@given(st.binary(max_size=300))
def test_any_bytes_of_a_header_give_an_error(data: bytes) -> None:
    ref = FramedRef(
        digest=Digest.of(b""),
        size_bytes=len(data),
        header_digest=Digest.of(data),
        header_bytes=len(data),
    )
    with pytest.raises(ManifestError, match=r"^x\.header"):
        decode_framed(data, ref, "tags", "x")
