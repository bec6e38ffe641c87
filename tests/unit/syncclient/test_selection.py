"""Selections: what is wanted of a release, and the text that says so."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.errors import ConfigError
from syncclient.selection import Selection, parse_buckets, parse_ids


def ids(*numbers: int) -> Selection:
    return Selection(ids=np.array(numbers, np.uint32))


@pytest.mark.parametrize(
    ("text", "found"), [("7", (7, 7)), ("0..99", (0, 99)), ("5..5", (5, 5)), ("007", (7, 7))]
)
def test_buckets_are_one_or_a_range(text: str, found: tuple[int, int]) -> None:
    assert parse_buckets(text) == found


@pytest.mark.parametrize(
    "text", ["", "..", "7..", "..7", "9..3", "1...2", "-1", "a..b", "1..2..3"]
)
def test_anything_else_is_no_range_of_buckets(text: str) -> None:
    with pytest.raises(ConfigError, match="range of buckets"):
        parse_buckets(text)


def test_ids_come_one_a_line_or_as_paths() -> None:
    text = "# mine\n13\n7, 7 13\noriginal/0999/1999.png  # a path\n\n4294967295\n512px/0001/1.jpg"
    assert parse_ids(text, "list").tolist() == [1, 7, 13, 1999, 2**32 - 1]


# More digits than Python makes a number of.
_ENDLESS = "9" * 5000


@pytest.mark.parametrize(
    "word", ["seven", "0", "4294967296", "-1", "1999999999999", _ENDLESS, "١٢"]
)
def test_what_is_no_id_is_named_with_its_line(word: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.txt:2: .* is not an id"):
        parse_ids(f"1\n{word}", "mine.txt")


def test_variants_are_all_unless_named() -> None:
    assert Selection().variants_of(("512px", "original")) == ("512px", "original")
    assert Selection(variants=("original",)).variants_of(("512px", "original")) == ("original",)
    with pytest.raises(ConfigError, match="no variant 'gray', but 512px"):
        Selection(variants=("gray",)).variants_of(("512px",))


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        (Selection(), list(range(10))),
        (Selection(buckets=(2, 4)), [2, 3, 4]),
        (ids(12, 22, 7), [2, 7]),
        (Selection(buckets=(3, 9), ids=np.array([12, 7], np.uint32)), [7]),
        (Selection(buckets=(9, 9)), [9]),
    ],
)
def test_only_buckets_that_can_hold_something_are_looked_at(
    selection: Selection, numbers: list[int]
) -> None:
    assert selection.bucket_numbers(10) == numbers


def test_a_bucket_that_the_dataset_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="bucket 10 does not exist"):
        Selection(buckets=(3, 10)).bucket_numbers(10)


@pytest.mark.parametrize("text", ["", "\n", "7", "1\n7\r\n13\n7\n", " 13\t7 1\x1c4294967295\n"])
def test_numbers_alone_are_read_as_any_list_is(text: str) -> None:
    assert parse_ids(text, "list").tolist() == parse_ids(f"{text}\n# mine", "list").tolist()


def test_ids_decide_one_by_one() -> None:
    there = np.array([1, 7, 8], np.uint32)
    wants = ids(7, 9).wants_ids(there)
    assert wants is not None
    assert wants.tolist() == [False, True, False]
    assert Selection().wants_ids(there) is None


@pytest.mark.parametrize(
    ("selection", "whole"),
    [
        (Selection(), True),
        (Selection(variants=("original",)), True),
        (Selection(buckets=(0, 1)), False),
        (ids(1), False),
    ],
)
def test_assets_come_with_whole_variants(selection: Selection, *, whole: bool) -> None:
    assert selection.whole is whole


def test_people_read_what_is_selected() -> None:
    chosen = Selection(
        variants=("a", "b"), buckets=(1, 2), ids=np.arange(1, 2001, dtype=np.uint32)
    )
    assert chosen.describe() == "variants a, b, buckets 1 to 2, 2,000 ids"
    assert Selection().describe() == "all variants"
