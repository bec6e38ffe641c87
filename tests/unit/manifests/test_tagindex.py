"""The tag index: what is built is what is read, frame by frame, and bad frames are refused."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import numpy as np
import pytest

from manifests.columns import U32
from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.framed import decode_framed
from manifests.metadata.columns import COLUMNS, UNKNOWN_CATEGORY
from manifests.query.predicates import Moment
from manifests.tagindex.bitmaps import to_bitmap, to_numbers
from manifests.tagindex.build import KIND
from manifests.tagindex.index import FramesMissing, TagIndex
from manifests.tagindex.names import FRAME_NAMES
from manifests.tagindex.postings import (
    FRAME_GAPS,
    decode_postings,
    encode_postings,
    frame_bounds,
)
from manifests.tagindex.values import FRAME_ROWS
from tests.support.tagindexes import HeldIndex, build

NOW = Moment(now=datetime(2022, 1, 1, tzinfo=UTC), tz=UTC)


def post(post_id: int, tags: str = "a", **fields: object) -> dict[str, Any]:
    return {"id": post_id, "tag_string": tags, "rating": "s", **fields}


def held(*posts: dict[str, Any], **tables: Iterable[dict[str, Any]]) -> HeldIndex:
    return HeldIndex(*build(posts, **tables))


def fingerprint(number: int) -> str:
    return md5(str(number).encode(), usedforsecurity=False).hexdigest()


# --------------------------------------------------------------------------- posting lists


def roundtrip(lists: list[U32], posts: int) -> list[list[int]]:
    counts = np.array([len(one) for one in lists], np.uint32)
    data = encode_postings(np.concatenate(lists), counts, posts)
    ordinals, starts = decode_postings(data, len(lists), posts, "x")
    return [ordinals[starts[i] : starts[i + 1]].tolist() for i in range(len(lists))]


@pytest.mark.parametrize(
    "lists",
    [
        [[0]],
        [[99]],
        [[0, 1, 2], [], [98, 99], [0]],
        [[], []],
        [list(range(100))],
        [list(range(51))],
        [list(range(0, 100, 2))],
    ],
)
def test_lists_come_back(lists: list[list[int]]) -> None:
    assert roundtrip([np.array(one, np.uint32) for one in lists], 100) == lists


def test_a_list_of_most_posts_is_a_bit_for_each() -> None:
    most = np.delete(np.arange(80_000, dtype=np.uint32), [7, 70_000])
    data = encode_postings(most, np.array([len(most)], np.uint32), 80_000)
    assert len(data) < 1000
    assert roundtrip([most], 80_000) == [most.tolist()]


def test_frames_hold_whole_lists() -> None:
    counts = np.array([1, FRAME_GAPS - 1, 1, 3 * FRAME_GAPS, 5, 5], np.int64)
    assert list(frame_bounds(counts)) == [(0, 2), (2, 3), (3, 4), (4, 6)]


def test_a_list_that_does_not_ascend_is_refused() -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        encode_postings(np.array([3, 3], np.uint32), np.array([2], np.uint32), 10)


@pytest.mark.parametrize(
    ("ordinals", "posts", "problem"),
    [([5], 5, "an ordinal of 5 or more"), ([0, 9], 9, "an ordinal of 9 or more")],
)
def test_ordinals_beyond_the_posts_are_refused(
    ordinals: list[int], posts: int, problem: str
) -> None:
    counts = np.array([len(ordinals)], np.uint32)
    data = encode_postings(np.array(ordinals, np.uint32), counts, 100)
    with pytest.raises(ManifestError, match=problem):
        decode_postings(data, 1, posts, "x")


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 65536])
def test_bitmaps_come_back(count: int) -> None:
    numbers = np.arange(3, 3 + 2 * count, 2, dtype=np.uint32)
    assert to_numbers(to_bitmap(numbers)).tolist() == numbers.tolist()


# --------------------------------------------------------------------------- a whole index


def test_of_two_rows_about_one_post_the_later_counts() -> None:
    index = held(post(7, "old", score=1), post(3), post(7, "new", score=2))
    assert index.search("old", NOW) == []
    assert index.search("new score:2", NOW) == [7]
    assert index.index.posts == 2


def test_posts_come_in_any_order() -> None:
    ids = [900, 5, 70_000, 1]
    index = held(*(post(one, f"t{one}", source=f"http://x/{one}") for one in ids))
    for one in ids:
        assert index.search(f"t{one} source:http://X/{one}", NOW) == [one]
    assert index.search("order:id_asc", NOW) == sorted(ids)


def test_a_name_that_only_an_alias_knows_leads_on() -> None:
    aliases = [{"antecedent_name": "kitten", "consequent_name": "cat", "status": "active"}]
    index = held(post(1, "cat"), post(2, "dog"), aliases=aliases)
    assert index.search("kitten", NOW) == [1]
    assert index.search("unaliased:kitten", NOW) == []
    assert index.search("-kitten", NOW) == [2]


def test_implications_are_kept() -> None:
    implied = [{"antecedent_name": "kitten", "consequent_name": "cat"}]
    index = held(post(1, "cat"), implications=implied)
    with pytest.raises(FramesMissing):
        index.index.implications()
    index.load_all()
    ((first, second),) = index.index.implications()
    assert (index.named("kitten"), index.named("cat")) == (first, second)


def test_more_names_than_a_frame() -> None:
    names = [f"tag{number:05d}" for number in range(3 * FRAME_NAMES + 1)]
    index = held(*(post(number + 1, name) for number, name in enumerate(names)))
    for number in (0, FRAME_NAMES - 1, FRAME_NAMES, 2 * FRAME_NAMES, len(names) - 1):
        assert index.search(names[number], NOW) == [number + 1]
    assert index.search("tag0", NOW) == []
    assert index.search("zzz", NOW) == []
    assert index.search("tag0002*", NOW) == list(range(30, 20, -1))
    assert len(index.search("*", NOW)) == len(names)


def test_more_rows_than_a_frame() -> None:
    total = FRAME_ROWS + 3
    index = held(*(post(number, "a", score=number) for number in range(1, total + 1)))
    assert index.search(f"score:{FRAME_ROWS}..", NOW) == [total, total - 1, total - 2, FRAME_ROWS]


def test_no_posts_at_all() -> None:
    index = held()
    assert index.search("(a or score:>3) order:md5", NOW) == []
    assert index.search("", NOW) == []


def test_one_query_reads_little_of_the_index() -> None:
    posts = [
        post(number, f"a t{number % 997}", md5=fingerprint(number)) for number in range(1, 20_000)
    ]
    ref, data = build(posts)
    index = HeldIndex(ref, data)
    assert len(index.search("a t5", NOW)) == 21
    first = index.loaded_bytes
    assert first < len(data) // 4
    assert index.search("a t5", NOW)
    assert index.loaded_bytes == first
    assert index.rounds <= 4


@pytest.mark.parametrize("name", ["image_width", "md5", "last_noted_at", "pixiv_id"])
def test_every_column_may_be_unstated(name: str) -> None:
    assert COLUMNS[name].nullable
    assert held(post(1)).search("", NOW) == [1]


# --------------------------------------------------------------------------- what is refused


def test_a_frame_that_was_changed_is_named() -> None:
    ref, data = build([post(1), post(2, "b")])
    header = decode_framed(data[slice(*ref.header_span)], ref, KIND, "index")
    index = TagIndex(header)
    start, stop = header.span(("postings", 0))
    with pytest.raises(ManifestError, match=r"index\.postings\[0\]: not the bytes"):
        index.load({("postings", 0): data[start : stop - 1] + b"\0"})


def test_a_header_that_was_changed_is_refused() -> None:
    ref, data = build([post(1)])
    with pytest.raises(ManifestError, match=r"index\.header: not the bytes"):
        HeldIndex(ref, data[:-1] + bytes([data[-1] ^ 1]))


def test_another_kind_of_object_is_refused() -> None:
    ref, data = build([post(1)])
    with pytest.raises(ManifestError, match="expected 'rows', got 'tags'"):
        decode_framed(data[slice(*ref.header_span)], ref, "rows", "index")


def test_the_object_names_itself() -> None:
    ref, data = build([post(1)])
    assert ref.digest == Digest.of(data)
    assert build([post(1)]) == (ref, data)


def test_the_case_of_a_tag_does_not_count() -> None:
    index = held(post(1, "Cat cat CAT"), post(2, "cAt"), post(3, "Dog"))
    assert index.search("CAT", NOW) == [2, 1]
    assert index.search("-cat", NOW) == [3]
    assert index.index.describe_tag(index.named("cat") or 0) == ("cat", UNKNOWN_CATEGORY, 2)
