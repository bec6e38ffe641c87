"""What a URL may ask of a search; what an answer is known by."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qsl

import pytest
from msgspec.structs import fields
from multidict import MultiDict

from server.hosting.parameters import (
    DEFAULT_IDS,
    MAX_IDS,
    MAX_QUERY_LENGTH,
    MAX_SEED_LENGTH,
    MAX_ZONE_LENGTH,
    ParameterError,
    SearchParameters,
)
from server.searching.question import SearchLimits
from tests.support.documents import ROOT, first_column, section


def read(**fields: str) -> SearchParameters:
    return SearchParameters.read(MultiDict(fields))


def test_all_but_the_query_have_a_default() -> None:
    assert read(q="a") == SearchParameters(q="a", limit=DEFAULT_IDS)
    assert read(q="").q == ""
    with pytest.raises(ParameterError, match="q is missing"):
        read(release="y1")


def test_all_are_read() -> None:
    found = read(q="a", release="r", limit="7", after="9", count="1", tz="Asia/Tokyo", seed="s")
    assert found == SearchParameters(
        q="a", release="r", limit=7, after=9, count=True, tz="Asia/Tokyo", seed="s"
    )


@pytest.mark.parametrize(
    ("name", "most"), [("q", MAX_QUERY_LENGTH), ("seed", MAX_SEED_LENGTH), ("limit", MAX_IDS)]
)
def test_limits_are_the_last_that_is_allowed(name: str, most: int) -> None:
    def value(size: int) -> str:
        return str(size) if name == "limit" else "é" * size

    read(**{"q": "a", name: value(most)})
    with pytest.raises(ParameterError) as refused:
        read(**{"q": "a", name: value(most + 1)})
    assert refused.value.parameter == name
    assert refused.value.status in {HTTPStatus.REQUEST_URI_TOO_LONG, 422}


def test_what_is_unknown_or_twice_is_refused() -> None:
    with pytest.raises(ParameterError, match="unknown parameter 'offset': expected q, release,"):
        read(q="a", offset="3")
    with pytest.raises(ParameterError, match="limit is given more than once"):
        SearchParameters.read(MultiDict([("q", "a"), ("limit", "1"), ("limit", "1")]))


def test_the_next_page_asks_the_same_of_the_same_release() -> None:
    asked = read(q="a b&c", limit="7", tz="Asia/Tokyo", seed="s")
    following = read(**dict(parse_qsl(asked.next_page("y1", 42)[1:])))
    assert (following.release, following.after) == ("y1", 42)
    assert (following.q, following.limit) == (asked.q, asked.limit)
    assert (following.tz, following.seed) == (asked.tz, asked.seed)


def test_a_tag_names_all_that_an_answer_depends_on() -> None:
    asked = [
        read(q="a"),
        read(q="b"),
        read(q="a", limit="7"),
        read(q="a", after="7"),
        read(q="a", count="1"),
        read(q="a", tz="Asia/Tokyo"),
        read(q="a", seed="s"),
    ]
    tags = {found.entity_tag(release) for found in asked for release in ("x", "y")}
    assert len(tags) == 2 * len(asked)
    assert read(q="a", release="newest").entity_tag("x") == read(q="a").entity_tag("x")


def test_the_reference_has_every_parameter() -> None:
    table = section(ROOT / "docs/reference/search-api.md", "Parameters")
    assert first_column(table) == [field.name for field in fields(SearchParameters)]


def test_the_reference_has_every_limit() -> None:
    table = section(ROOT / "docs/reference/search-api.md", "Limits")
    limits = SearchLimits()
    for shown in (
        f"| characters of `q` | {MAX_QUERY_LENGTH:,} |",
        f"| characters of `seed`, `tz` | {MAX_SEED_LENGTH}, {MAX_ZONE_LENGTH} |",
        f"| ids of an answer | {MAX_IDS:,} |",
        f"| queries at once | {limits.workers} |",
        f"| queries of one address at once | {limits.address_at_once} |",
        f"| queries of one address that wait for that | {limits.address_waiting}, for 10 s |",
        f"| queries that wait for these | {limits.waiting}, for {limits.wait_s:g} s |",
        f"| time of a query | {limits.time_s:g} s |",
        f"| until one that does not stop is killed | {limits.grace_s:g} s more |",
        f"| address space of a process | {limits.memory_bytes / 2**30:g} GiB |",
        f"| memory that a process keeps | {limits.kept_bytes / 2**30:g} GiB |",
    ):
        assert shown in table
