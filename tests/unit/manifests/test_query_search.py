"""Searches on small datasets: every recorded case of the site that a release can answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from manifests.query.errors import QueryError
from manifests.query.predicates import Moment
from tests.support.conformance import needs_cases, query_cases
from tests.support.tagindexes import HeldIndex, build

# Words that begin no query: the site finds nothing, we say what is wrong (adr/0009).
SYNTAX_ERRORS = {"-", "~"}
# Cases about tables and states that no release has are refused, which is tested below.
CASES = [case for case in query_cases("search") if case["tier"] == 1]
DURATIONS = [
    case
    for case in query_cases("search")
    if case["tier"] == 2 and set(case["needs"]) <= {"media_asset.duration"}
]


def index_of(context: Mapping[str, Any]) -> HeldIndex:
    aliases = [
        {"antecedent_name": old, "consequent_name": new}
        for old, new in context.get("tag_aliases", [])
    ]
    return HeldIndex(
        *build(
            context["posts"],
            aliases=aliases,
            pools=context.get("pools", []),
            tags=context.get("tags", []),
        )
    )


def found(case: Mapping[str, Any]) -> list[int] | str:
    context = case["context"]
    moment = Moment(now=datetime.fromisoformat(context["now"]), tz=ZoneInfo(context["time_zone"]))
    try:
        return index_of(context).search(case["query"], moment)
    except QueryError:
        return "error"


@needs_cases
@pytest.mark.parametrize("case", [*CASES, *DURATIONS], ids=lambda case: case["id"])
def test_the_site_finds_the_same(case: Mapping[str, Any]) -> None:
    got, expected = found(case), case["expect"]
    if case["query"] in SYNTAX_ERRORS:
        assert got == "error"
    elif expected is None:
        assert len(got) == case["expect_count"]
    elif case.get("ordered", True) or expected == "error":
        assert got == expected
    else:
        assert sorted(got) == sorted(expected)


# Scores and sources of pixiv (0: none) of twelve posts, with ties.
SCORES = [3, -1, 3, 0, 7, 7, 3, -1, 0, 3, 2, 7]
WORKS = [5, 0, 5, 9, 0, 1, 1, 0, 9, 5, 0, 2]


@pytest.mark.parametrize(
    "order", ["score", "score_asc", "filesize", "filesize_asc", "id_asc", "md5", "mpixels"]
)
@pytest.mark.parametrize("words", ["", "pixiv:any ", "random:9 "])
def test_a_limit_leaves_the_first_of_the_same_order(order: str, words: str) -> None:
    posts = [
        {"id": place, "score": score, "file_size": work, "pixiv_id": work}
        for place, (score, work) in enumerate(zip(SCORES, WORKS, strict=True), 1)
    ]
    index = HeldIndex(*build(posts))
    moment = Moment(now=datetime.fromisoformat("2022-01-01T00:00:00Z"), tz=ZoneInfo("UTC"))
    everything = index.search(f"{words}order:{order}", moment)
    assert len(everything) in {8, 9, 12}
    for limit in range(1, 14):
        first = index.search(f"{words}order:{order} limit:{limit}", moment)
        assert first == everything[:limit]


PLAIN = Moment(now=datetime.fromisoformat("2022-01-01T00:00:00Z"), tz=ZoneInfo("UTC"))


@pytest.mark.parametrize("nobody", ["parent:0", "parent:-1", "user:#0", "approver:0"])
def test_nothing_has_the_number_that_stands_for_none(nobody: str) -> None:
    index = HeldIndex(*build([{"id": 1}, {"id": 2, "parent_id": "0", "uploader_id": "0"}]))
    assert index.search(nobody, PLAIN) == []
    assert index.search(f"-{nobody}", PLAIN) == [2, 1]


def test_shapes_are_ordered_as_they_are_and_not_as_they_are_rounded() -> None:
    sizes = [(1000, 1004), (1000, 996), (1000, 1000)]
    posts = [
        {"id": place, "image_width": width, "image_height": height}
        for place, (width, height) in enumerate(sizes, 1)
    ]
    index = HeldIndex(*build(posts))
    assert index.search("ratio:1 order:landscape", PLAIN) == [2, 3, 1]
    assert index.search("ratio:1 order:portrait", PLAIN) == [1, 3, 2]


def test_a_star_of_a_source_can_be_meant() -> None:
    index = HeldIndex(*build([{"id": 1, "source": "a*b"}, {"id": 2, "source": "a\\b"}]))
    assert index.search(r"source:a\*b", PLAIN) == [1]
    assert index.search(r"source:a\b", PLAIN) == index.search(r"source:a\\b", PLAIN) == [2]
    assert index.search("source:a*b", PLAIN) == [2, 1]


def test_the_borders_of_about_a_number_are_decimals() -> None:
    index = HeldIndex(*build([{"id": 1, "image_width": 1995, "image_height": 300}]))
    assert index.search("mpixels:0.57", PLAIN) == [1]


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("1girl fav:somebody", "A release does not have favourites; leave fav: out."),
        ("order:note_count", "A release does not have notes."),
        ("status:appealed", "A release has no appeals."),
        ("parent:appealed", "A release has no appeals."),
        ("child:APPEALED", "A release has no appeals."),
        ("is:appealed", "A release has no appeals."),
        ("is:wiki_image", "A release does not have the wiki."),
        ("has:notes", "A release does not have notes."),
        ("user:somebody", "A release knows users by number: user:#123."),
        ("approver:#1x", "A release knows users by number: approver:#123."),
        ("user:#", "A release knows users by number: user:#123."),
        ("user:\u0665", "A release knows users by number: user:#123."),
        ("user:\u00b2", "A release knows users by number: user:#123."),
    ],
)
def test_what_no_release_can_answer_is_refused_by_name(query: str, hint: str) -> None:
    index = HeldIndex(*build([{"id": 1}]))
    with pytest.raises(QueryError) as caught:
        index.search(query, PLAIN)
    assert caught.value.hint == hint


@pytest.mark.parametrize("query", ["width:5", "pool:5", "id:1,2 height:>3"])
def test_all_columns_that_a_question_needs_are_asked_for_at_once(query: str) -> None:
    """Each further time would be a round trip."""
    index = HeldIndex(*build([{"id": 1, "image_width": 5}]))
    index.search(query, PLAIN)
    assert index.rounds == 1


@pytest.mark.parametrize("digits", [9, 10, 19, 20, 40, 5000])
def test_nothing_has_a_number_that_no_column_holds(digits: int) -> None:
    pools = [{"id": 3, "name": "a_pool", "category": "series", "post_ids": [1]}]
    index = HeldIndex(*build([{"id": 1, "uploader_id": "7"}], pools=pools))
    assert index.search(f"user:{'9' * digits}", PLAIN) == []
    assert index.search(f"pool:#{'9' * digits}", PLAIN) == []
    assert index.search(f"user:#{'0' * digits}7", PLAIN) == [1]
    assert index.search(f"pool:{'0' * digits}3", PLAIN) == [1]
