"""Every example of the query language's reference finds what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.client import bucketsync
from tests.support.commands import client
from tests.support.documents import section, table_rows
from tests.support.examples import NOW, PAGE, POSTS, Example, ask, examples, posts


@pytest.mark.parametrize(
    "example",
    [found for found in examples() if found.finds is not None],
    ids=lambda found: " ".join((found.query, *found.flags)),
)
def test_an_example_finds_what_the_page_says(example: Example) -> None:
    run = ask(example.query, *example.flags)
    assert (run.code, run["ids"], run["count"]) == (0, example.finds, len(example.finds or ()))


@pytest.mark.parametrize(
    "example",
    [found for found in examples() if found.position is not None],
    ids=lambda found: found.query,
)
def test_what_the_page_says_is_refused_is_refused(example: Example) -> None:
    run = ask(example.query)
    assert run.code == 2
    assert f"query, position {example.position}: expected" in run.error


def test_a_blank_query_finds_every_post() -> None:
    assert ask("  ")["ids"] == list(range(12, 0, -1))


def test_an_example_in_a_process_of_its_own() -> None:
    where = ("--metadata", POSTS, "--now", NOW)
    assert client("search", *where, "--", "-cat order:id").summary["ids"] == [7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    "words",
    [
        ["search", "cat", "--metadata", POSTS / "posts.json", POSTS / "tag_aliases.json"],
        ["search", "--metadata", POSTS / "posts.json", POSTS / "tag_aliases.json", "--", "cat"],
        ["search", "--metadata", POSTS / "posts.json", POSTS / "tag_aliases.json", "cat"],
        ["search", "--metadata", POSTS / "posts.json", "cat"],
        ["search", "--metadata", POSTS / "posts.json", "--metadata", POSTS / "pools.json", "cat"],
    ],
)
def test_paths_of_metadata_may_stand_before_the_query_or_after_it(
    words: list[str | Path],
) -> None:
    verb, *rest = map(str, words)
    assert bucketsync(verb, *rest)["ids"] == [6, 5, 4, 3, 2, 1]


def test_a_query_that_was_forgotten_is_not_a_path() -> None:
    run = bucketsync("search", "--metadata", str(POSTS / "posts.json"), str(POSTS / "pools.json"))
    assert run.code == 2
    assert "a QUERY is missing" in run.error


def test_the_table_of_posts_is_what_the_file_says() -> None:
    shown = table_rows(section(PAGE, "The posts of the examples"))
    assert shown == [_shown(post) for post in posts()]


def _shown(post: dict[str, str]) -> dict[str, str]:
    sized = "image_width" in post
    return {
        "id": post["id"],
        "tags": " ".join(f"`{tag}`" for tag in post["tag_string"].split()),
        "rating": post.get("rating", ""),
        "score": f"{post['up_score']} - {-int(post['down_score'])}",
        "favs": post["fav_count"],
        "pixels": f"{post['image_width']} x {post['image_height']}" if sized else "",
        "bytes": f"{int(post['file_size']):,}" if sized else "",
        "file": post["file_ext"],
        "made": post["created_at"].removesuffix(" UTC"),
    }
